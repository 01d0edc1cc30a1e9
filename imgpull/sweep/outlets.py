"""Where a sweep's last words go: a reader that leaves, or a full disk, costs the words alone.

Hides what Rich and Python make of an output that is gone: both would end the program.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_GONE = (OSError, ValueError)  # ValueError: the file is closed


def result_console() -> "Console":
    """Standard output for results."""
    from rich.console import Console

    class Lasting(Console):
        def print(self, *objects: Any, **how: Any) -> None:
            try:
                super().print(*objects, **how)
            except _GONE:
                _leave(self.file)

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Lasting(highlight=False)


def tell(line: str) -> None:
    """A line on standard error."""
    try:
        print(line, file=sys.stderr)
    except _GONE:
        _leave(sys.stderr)


def _leave(file: IO[str]) -> None:
    """Write to nowhere from now on: what is still in a buffer would fail once more at the end."""
    with contextlib.suppress(*_GONE), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), file.fileno())
