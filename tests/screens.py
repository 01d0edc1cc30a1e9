"""A terminal in memory: what a person would see of the bytes that a program wrote.

Hides the control sequences that Rich uses; any other is an error, so that nothing is overlooked.
"""

import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from fcntl import ioctl
from pathlib import Path
from struct import pack

_PART = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])|([\r\n\x07])|([^\x1b\r\n\x07])", re.DOTALL)


class Screen:
    """So many columns and lines; what scrolled away is in `scrolled`."""

    def __init__(self, width: int = 80, height: int = 24) -> None:
        self.width, self.height = width, height
        self.scrolled: list[str] = []
        self.cursor_hidden = False
        self._rows = [""]
        self._row, self._column = 0, 0

    def feed(self, text: str) -> None:
        """Take what a program wrote."""
        end = 0
        for part in _PART.finditer(text):
            assert part.start() == end, f"unknown sequence: {text[end : end + 20]!r}"
            end = part.end()
            if part[3]:
                self._control(part[1] + part[2], part[3])
            elif part[4] == "\r":
                self._column = 0
            elif part[4] == "\n":
                self._line_feed()
            elif part[5]:
                self._put(part[5])
        assert end == len(text), f"unknown sequence: {text[end : end + 20]!r}"

    @property
    def lines(self) -> list[str]:
        """What the screen shows, without empty lines at its end."""
        shown = [row.rstrip() for row in self._rows]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    @property
    def all_lines(self) -> list[str]:
        """What can be seen by scrolling back, and what is shown."""
        return [*self.scrolled, *self.lines]

    def _control(self, parameters: str, command: str) -> None:
        count = int(parameters) if parameters.isdigit() else 1
        if command == "A":
            self._row = max(self._row - count, 0)
        elif command == "K":
            assert parameters == "2"
            self._rows[self._row] = ""
        elif command in "hl" and parameters == "?25":
            self.cursor_hidden = command == "l"
        else:
            assert command == "m", f"unknown sequence: {parameters}{command}"

    def _line_feed(self) -> None:
        self._row += 1
        if self._row == len(self._rows):
            self._rows.append("")
        if len(self._rows) > self.height:
            self.scrolled.append(self._rows.pop(0).rstrip())
            self._row -= 1

    def _put(self, character: str) -> None:
        if self._column >= self.width:
            self._column = 0
            self._line_feed()
        row = self._rows[self._row].ljust(self._column)
        self._rows[self._row] = row[: self._column] + character + row[self._column + 1 :]
        self._column += 1


def run_on_terminal(
    project: Path,
    *arguments: str,
    screen: Screen,
    watch: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
    environment: dict[str, str] | None = None,
) -> int:
    """`python ARGUMENTS` with its three streams on a pseudo-terminal; returns the exit status.

    `watch` is called with the process after each piece of what it wrote was shown.
    """
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, pack("HHHH", screen.height, screen.width, 0, 0))
    left_out = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    given = {key: value for key, value in os.environ.items() if key not in left_out}
    with subprocess.Popen(
        [sys.executable, *arguments], cwd=project, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True, env={**given, "TERM": "xterm", **(environment or {})},
    ) as process:  # fmt: skip
        os.close(theirs)
        written = b""
        while piece := _read(ours):
            written += piece
            text, written = _whole(written)
            screen.feed(text)
            watch(process)
        status = process.wait(timeout=60)
    os.close(ours)
    return status


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


def _whole(written: bytes) -> tuple[str, bytes]:
    """The text so far, less a character or sequence whose end has not come."""
    cut = re.search(rb"(\x1b(\[[?0-9;]*)?|[\xc0-\xff][\x80-\xbf]{0,2})$", written)
    # A whole character matches too; it waits for the next piece, which always comes: a new line.
    end = cut.start() if cut else len(written)
    return written[:end].decode(), written[end:]


def rows(lines: Sequence[str], pattern: str) -> list[str]:
    """The lines in which a pattern is found."""
    return [line for line in lines if re.search(pattern, line)]
