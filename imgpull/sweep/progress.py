"""What a person sees while a sweep runs: one live line a trial, plain lines without a terminal.

Hides Rich. Progress goes to standard error; the table at the end is the result, on standard output.
"""

from types import TracebackType
from typing import Any

from imgpull import units
from imgpull.results.record import JobRecord

_MARKS = {"valid": "green", "degraded": "yellow", "invalid": "red", "failed": "red"}


class Progress:
    """Tells of `total` trials; use as a context manager."""

    def __init__(self, total: int = 0) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._total = total
        self._done = 0
        self._current = ""
        self._status: Any = None

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._status = self._console.status("planning ...")
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the screen to another."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def start(self, name: str, trial: int, attempt: int) -> None:
        """A trial begins."""
        again = f", attempt {attempt}" if attempt > 1 else ""
        self._current = f"{self._done + 1}/{self._total}  {name}  trial {trial}{again}  "
        self.step("starting")

    def step(self, name: str) -> None:
        """The current trial has come to this step."""
        if self._status is not None:
            from rich.markup import escape

            self._status.update(escape(f"{self._current}{name} ..."))

    def finish(self, record: JobRecord) -> None:
        """The current trial is over."""
        from rich.text import Text

        self._done += 1
        line = Text(self._current)
        line.append(record.verdict, style=_MARKS[record.verdict])
        if record.slo == "missed":
            line.append(", slo missed")
        if record.virtual_s is not None:
            line.append(f", {units.format_duration(round(record.virtual_s))} simulated")
        line.append(f" in {record.wall_s:.2f} s")
        if record.verdict != "valid" and record.reasons:
            line.append(f": {' '.join(record.reasons[0].split())}")  # one line, whatever it quotes
        self._console.print(line, soft_wrap=True)

    def say(self, line: str) -> None:
        """A line of its own."""
        self._console.print(line, soft_wrap=True, markup=False)
