import subprocess
import sys
from pathlib import Path

from relay.process.clock_id import find_clock_id

BOOT_ID = "sys/kernel/random/boot_id"
OFFSETS = "self/timens_offsets"


def machine(folder: Path, boot_id: str, offsets: str | None = None) -> Path:
    """Return a folder like /proc of a machine."""
    for name, text in {BOOT_ID: boot_id, OFFSETS: offsets}.items():
        if text is not None:
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_text(text)
    return folder


def test_processes_of_one_machine_have_one_clock() -> None:
    program = "from relay.process.clock_id import find_clock_id; print(find_clock_id())"
    other = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert other.stdout.strip() == find_clock_id()


def test_the_id_is_short_and_does_not_reveal_the_boot_id(tmp_path: Path) -> None:
    found = find_clock_id(machine(tmp_path, "0f7d6dca-2a1b-4c5d-8e9f-001122334455\n"))
    assert len(found) == 16
    assert int(found, 16)
    assert found not in "0f7d6dca2a1b4c5d8e9f001122334455"


def test_another_boot_is_another_clock(tmp_path: Path) -> None:
    assert find_clock_id(machine(tmp_path / "one", "one")) != find_clock_id(machine(tmp_path / "two", "two"))


def test_a_time_namespace_with_another_time_is_another_clock(tmp_path: Path) -> None:
    boot = "monotonic           0         0\nboottime            0         0\n"
    shifted = boot.replace("monotonic           0", "monotonic       86400")
    other_boottime = boot.replace("boottime            0", "boottime           60")
    same = [
        find_clock_id(machine(tmp_path / f"same {number}", "boot", offsets))
        for number, offsets in enumerate((None, boot, other_boottime))
    ]
    assert len(set(same)) == 1
    assert find_clock_id(machine(tmp_path / "shifted", "boot", shifted)) not in same


def test_where_the_boot_is_unknown_no_two_processes_share_a_clock(tmp_path: Path) -> None:
    assert find_clock_id(tmp_path) != find_clock_id(tmp_path)
