"""Text from another machine, as a person sees it."""

from relay.vocabulary.text import LONGEST_QUOTED, printable, quoted


def test_it_can_not_steer_a_terminal() -> None:
    assert printable("a\x1b[2Jb\n") == "a?[2Jb?"
    assert printable("a\u202eb\u2028c\ud800") == "a?b?c?"
    assert printable("\u2068a") == "?a"


def test_it_is_shown_as_it_was_written() -> None:
    for text in ("می\u200cخواهم", "👩\u200d👧", "Salle\u00a02", "\u2068שלום\u2069"):
        assert printable(text) == text


def test_a_quotation_is_escaped_and_about_a_line_long() -> None:
    assert quoted("a\x1b'\nü") == ascii("a\x1b'\nü")
    assert quoted(["x", 1]) == "['x', 1]"
    assert quoted("x" * 5000) == "'" + "x" * (LONGEST_QUOTED - 1) + "…"
