"""Text that another machine wrote, shown to a person."""

from relay.vocabulary.text import LONGEST_QUOTED, printable, quoted


def test_it_can_not_steer_a_terminal() -> None:
    assert printable("a\x1b[2Jb\n") == "a?[2Jb?"


def test_a_quotation_is_escaped_and_about_a_line_long() -> None:
    assert quoted("a\x1b'\nü") == ascii("a\x1b'\nü")
    assert quoted(["x", 1]) == "['x', 1]"
    assert quoted("x" * 5000) == "'" + "x" * (LONGEST_QUOTED - 1) + "…"
