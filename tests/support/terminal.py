"""A shell that runs the commands of a documentation page as a reader would."""

import os
import re
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
import wave
from pathlib import Path

from tests.support.markdown import ROOT
from tests.support.ports import free_port

COMMAND_SECONDS = 120.0
"""A command that takes longer hangs; the limit does not judge speed."""

FILLED_IN = "0123456789abcdefghijklmnopqrstuvwxyz"
"""The key that a reader would fill in where a page shows "…"."""

STAND_INS = {
    "arecord": "exec cat sentence.pcm",
    "ffmpeg": """case " $* " in
    *" -c copy "*) exec curl -sf -o recording.opus "$2" ;;
    *" -f opus "*) exec cat talk.opus ;;
    *) exec cat sentence.pcm ;;
esac""",
    "mpv": 'exec curl -sf -o heard.opus "$1"',
    "vlc": 'exec curl -sf -o heard.mp3 "$1"',
    "aplay": """case " $* " in *" -f "*) ;; *) [ "$(head -c 4)" = RIFF ] || exit 1 ;; esac; exec cat >heard.pcm""",
    "ffplay": "exec cat >heard.pcm",
    "journalctl": "exec cat beside-*.log",
    "sudo": '[ "$1" != -u ] || shift 2; exec "$@"',
}
"""Scripts that stand in for what a test lacks: a microphone, a sound card, a stream, systemd and other users."""

_RELAY = re.compile(r"\brelay (serve|demo)\b")


class Terminal:
    """A shell that runs the commands of a page one after another, in a folder with the project's files."""

    def __init__(self, folder: Path, *, is_active: bool) -> None:
        self.folder = folder
        self.port = free_port()
        self.second_port = free_port()
        self.moto_port = free_port()
        for name in ("config", "docs", "pyproject.toml", "relay", "scripts", "tests"):
            (folder / name).symlink_to(ROOT / name)
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "run").mkdir(mode=0o700)
        self._write_recordings()
        self._write_stand_ins()
        path = f"{sys.prefix}/bin:" if is_active else ""
        environment = {
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PATH": f"{folder}/bin:{path}/usr/local/bin:/usr/bin:/bin",
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "RELAY_SERVER_PORT": str(self.port),
            "RELAY_CLIENT_URL": f"ws://127.0.0.1:{self.port}",
            "RELAY_LOG_FORMAT": "console",  # as on a terminal
        }
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._beside: dict[int, tuple[str, Path]] = {}
        self.run("set -o pipefail")

    def _write_recordings(self) -> None:
        """Write the recordings that the page expects, two seconds long."""
        with wave.open(str(ROOT / "relay/samples/counting.wav")) as sample:
            parameters, audio = sample.getparams(), sample.readframes(2 * sample.getframerate())
        for name in ("english.wav", "deutsch.wav", "speech.wav"):
            with wave.open(str(self.folder / name), "wb") as recording:
                recording.setparams(parameters)
                recording.writeframes(audio)
        (self.folder / "sentence.pcm").write_bytes(audio)

    def _write_stand_ins(self) -> None:
        (self.folder / "bin").mkdir()
        for name, script in STAND_INS.items():
            (self.folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
            (self.folder / "bin" / name).chmod(0o755)

    @property
    def is_busy(self) -> bool:
        """Whether a command still runs in the background."""
        return bool(self._beside)

    def run(self, command: str) -> tuple[int, str]:
        """Run a command, and return its exit code and output.

        A pipe fails if any part of it fails, except for a part that SIGPIPE ended: `head` ends one on purpose.
        """
        marker = secrets.token_hex(8)
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '\\n%s %s\\n' {marker} $?\n".encode())
        self._shell.stdin.flush()
        output = b""
        deadline = time.monotonic() + COMMAND_SECONDS  # noqa: TID251 - a time limit, not a clock
        while (end := re.search(rf"\n{marker} (\d+)\n".encode(), output)) is None:
            left = deadline - time.monotonic()  # noqa: TID251
            ready, _, _ = select.select([self._shell.stdout], [], [], max(0.0, left))
            assert ready, f"{command!r} hangs:\n{output.decode()}\n{self.logs()}"
            read = os.read(self._shell.stdout.fileno(), 65536)
            assert read, f"{command!r} ended the shell:\n{output.decode()}"
            output += read
        code = int(end[1])
        return 0 if code == 128 + signal.SIGPIPE else code, output[: end.start()].decode()

    def run_beside(self, command: str) -> Path:
        """Start a command in the background, and return the file with its output.

        A relay, unless it is a second one, stops the relays that ran before. The method returns when it listens.
        """
        is_relay = _RELAY.search(command) is not None
        if is_relay and str(self.second_port) not in command:
            self._end_relays()
        log = self.folder / f"beside-{secrets.token_hex(4)}.log"
        log.touch()
        code, output = self.run(f"{command.removesuffix('&')} </dev/null >{log.name} 2>&1 & echo pid $!")
        assert code == 0, output
        self._beside[int(output.split()[-1])] = (command, log)
        if is_relay:
            self._wait_for_port(self.second_port if str(self.second_port) in command else self.port, command, log)
        elif "moto_server" in command:
            self._wait_for_port(self.moto_port, command, log)
        return log

    def _wait_for_port(self, port: int, command: str, log: Path) -> None:
        deadline = time.monotonic() + COMMAND_SECONDS  # noqa: TID251 - a time limit, not a clock
        while time.monotonic() < deadline:  # noqa: TID251
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError(f"{command!r} does not listen:\n{log.read_text()}")

    def logs(self) -> str:
        """Return the output of the background commands, for a failure message."""
        return "\n".join(f"{command}:\n{log.read_text()}" for command, log in self._beside.values())

    def _end_relays(self) -> None:
        """Stop the background commands, except servers that are not relays."""
        for pid, (command, log) in reversed(self._beside.items()):
            if "moto_server" in command:
                continue
            self.run(f"kill -TERM {pid}")
            code, _ = self.run(f"wait {pid}")
            written = log.read_text()
            is_fine = code in (0, 128 + signal.SIGTERM) or "The relay ended the broadcast" in written
            assert is_fine, f"{command!r} ended with {code}:\n{written}"
            assert "Traceback" not in written, f"{command!r} wrote:\n{written}"
        self._beside = {pid: beside for pid, beside in self._beside.items() if "moto_server" in beside[0]}

    def close(self) -> None:
        """Stop the background commands and the shell."""
        try:
            self._end_relays()
        finally:
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.wait(COMMAND_SECONDS)
            assert self._shell.stdin is not None
            self._shell.stdin.close()
            assert self._shell.stdout is not None
            self._shell.stdout.close()
