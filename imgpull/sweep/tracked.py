"""The second record of a sweep: MLflow, which may be away or break and must cost the sweep nothing.

Hides how tracking fails. The directories are the record, so whatever a tracker raises becomes one
warning that says how to log the trials later.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from imgpull import tracking
from imgpull.config import schema
from imgpull.errors import ConfigError, ImgpullError
from imgpull.tracking import Tracker, View

# Beside run.py: where mlflow.db is.
ROOT = Path(__file__).resolve().parent.parent.parent

# So many failures in a row mean a store that is gone; each further call may cost its timeout.
_PATIENCE = 3

T = TypeVar("T")


class Tracked:
    """A tracker of one sweep whose failures are counted, never raised."""

    def __init__(self, settings: schema.Tracking) -> None:
        """Open the tracker; ConfigError for settings that cannot be."""
        self.parent: str | None = None
        self._missed = 0
        self._failures = 0  # in a row
        self._reason = ""
        self._tracker: Tracker | None = None
        try:
            self._tracker = tracking.open_tracker(settings, ROOT)
        except ConfigError:
            raise
        except Exception as error:
            self._reason = _words(error)

    def start(
        self,
        directory: Path,
        factors: Mapping[str, Sequence[object]],
        command: str,
        parent: str | None,
    ) -> None:
        """Start the sweep's run, or take up that of an earlier session."""
        self.parent = self._try(
            lambda tracker: tracker.start_sweep(
                directory, factors=factors, command=command, parent=parent
            )
        )

    def log(self, job_dir: Path) -> str | None:
        """Log a finished trial; its run's id, or None when it is not logged."""
        # Without a parent a child would stand alone, and once more when logged later.
        run_id = self._try(lambda t: t.log_trial(job_dir, self.parent)) if self.parent else None
        self._missed += run_id is None
        return run_id

    def finish(
        self, directory: Path, *, killed: bool, counts: Mapping[str, int], note: str
    ) -> None:
        """Close the sweep's run. One with failed trials is FINISHED too: it has results."""
        self._failures = 0  # one more try: an open run would look alive for ever
        if self.parent:
            self._try(
                lambda tracker: tracker.finish_sweep(
                    directory,
                    self.parent,
                    status="KILLED" if killed else "FINISHED",
                    counts=counts,
                    note_markdown=note,
                )
            )

    def view_lines(self) -> list[str]:
        """Where MLflow shows the sweep: the command and the filtered chart URL."""
        return view_lines(self._try(lambda tracker: tracker.view(self.parent)))

    def warning(self, directory: Path) -> str | None:
        """What MLflow does not have, why, and how to make up for it; None when it has all."""
        if not self._reason:
            return None
        missed = f"{self._missed} trial{'s' * (self._missed != 1)} not logged, "
        return (
            f"{missed if self._missed else ''}{self._reason}; "
            f"nothing is lost, later: imgpull log {shlex.quote(str(directory))}"
        )

    def _try(self, call: Callable[[Tracker], T]) -> T | None:
        if self._tracker is None or self._failures >= _PATIENCE:
            return None
        try:
            result = call(self._tracker)
        except Exception as error:  # of whatever kind: a tracker is never worth a sweep
            self._failures += 1
            self._reason = self._reason or _words(error)
            return None
        self._failures = 0
        return result


def view_lines(view: View | None) -> list[str]:
    """A view as the last lines of a command."""
    if view is None:
        return []
    command = [f"MLflow:   {view.command}"] if view.command else []
    return [*command, f"charts:   {view.chart_url}"]


def _words(error: Exception) -> str:
    """The error on one line."""
    if isinstance(error, ImgpullError):
        text = error.message
    else:
        text = f"MLflow broke: {type(error).__name__}: {error}"
    return " ".join(text.split())[:300]
