"""The end of a sweep: summary, plots, table and notes, made from its directories and ledger.

Hides that any of them may fail: each is tried by itself, so that a picture that cannot be drawn
hides no result. `imgpull report` does the same again later.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from imgpull import analysis
from imgpull.errors import ImgpullError
from imgpull.pipeline import read_resolved
from imgpull.results.record import VERDICTS, JobRecord, job_directories, read_records
from imgpull.sweep.closing import remarks, undone
from imgpull.sweep.ledger import Ledger

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130  # exit statuses

T = TypeVar("T")


@dataclass
class Conclusion:
    """What a sweep's directories say. `notes` are sentences, `warnings` what could not be made."""

    summary: Path | None = None
    notes: list[str] = field(default_factory=list)
    records: list[JobRecord] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    plots: list[Path] | None = None
    report: list[Path] | None = None  # report.html and report.md

    def attempt(self, make: Callable[[], T]) -> T | None:
        """What `make` makes, or None and a warning."""
        try:
            return make()
        except ImgpullError as error:
            self.warnings.append(str(error))
        except Exception as error:  # a bug here must not cost what the sweep found
            self.warnings.append(f"the end step broke: {type(error).__name__}: {error}")
        return None

    @property
    def counts(self) -> dict[str, int]:
        """MLflow's metrics of a sweep: how many cells, trials, and trials of each verdict."""
        return verdict_counts(self.records)

    @property
    def markdown(self) -> str:
        """The notes as MLflow shows them."""
        return "\n".join(f"- {note}" for note in self.notes)


def conclude(sweep_dir: Path, console: "Console") -> Conclusion:
    """Write summary.csv, plots/ and the report, print the table and the notes."""
    with analysis.start_drawing(sweep_dir) as drawing:
        end, frame = _review(sweep_dir)
        end.summary = end.attempt(lambda: analysis.write_summary(sweep_dir, frame))
        shown = frame if end.records else None
        if shown is not None:
            left = end.attempt(lambda: undone(Ledger(sweep_dir).read(), end.records)) or []
            end.attempt(lambda: analysis.print_table(shown, console, left))
        for note in end.notes:
            console.print(f"- {note}", soft_wrap=True, markup=False)
        if shown is not None:
            end.report = end.attempt(lambda: analysis.write_report(sweep_dir, shown, end.notes))
            end.plots = end.attempt(drawing.wait)
    return end


def review(sweep_dir: Path) -> Conclusion:
    """What the directories say, with nothing written or printed."""
    return _review(sweep_dir)[0]


def _review(sweep_dir: Path) -> "tuple[Conclusion, pd.DataFrame | None]":
    end = Conclusion()
    found, unreadable = read_records(sweep_dir)
    end.records = [record for _, record in found]
    end.warnings += [f"left out: {error}" for error in unreadable]
    frame = end.attempt(lambda: analysis.read_sweep(sweep_dir))
    if frame is not None and end.records:
        asked = end.attempt(lambda: _asked(sweep_dir)) or {}
        end.notes = end.attempt(lambda: analysis.notes(frame, asked=asked)) or []
    end.notes += end.attempt(lambda: remarks(Ledger(sweep_dir).read(), end.records)) or []
    noted = dict.fromkeys(note for record in end.records for note in record.notes)
    end.notes += [f"note: {note}" for note in noted]
    return end, frame


def verdict_counts(records: Sequence[JobRecord]) -> dict[str, int]:
    """How many cells, trials, and trials of each verdict; of a trial its last attempt counts."""
    last = list({record.trial_id: record for record in records}.values())
    return {
        "cells/total": len({record.cell_id for record in last}),
        "trials/total": len(last),
        **{f"trials/{v}": sum(record.verdict == v for record in last) for v in VERDICTS},
    }


def _asked(sweep_dir: Path) -> dict[str, Any]:
    """The configuration of the newest session: what it asked for is advised no more."""
    return read_resolved(job_directories(sweep_dir)[-1])
