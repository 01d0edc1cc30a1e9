"""What a sweep says: its summary, table, notes and plots, read from directories alone.

Hands on seven functions and loads nothing before one is called, because pandas and seaborn take
longer to import than a sweep takes to plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from imgpull.analysis.drawing import Drawing

__all__ = [
    "draw_plots", "notes", "print_table", "read_sweep", "start_drawing", "write_report",
    "write_summary",
]  # fmt: skip


def read_sweep(sweep_dir: Path) -> pd.DataFrame:
    """One row per attempt of a trial, in the order of job numbers."""
    from imgpull.analysis.summary import read_sweep as read

    return read(sweep_dir)


def write_summary(sweep_dir: Path, frame: pd.DataFrame | None = None) -> Path:
    """Write `summary.csv` and `cells.csv`; two equal sweeps have equal files."""
    from imgpull.analysis.summary import write_summary as write

    return write(sweep_dir, frame)


def print_table(
    frame: pd.DataFrame, console: Console, undone: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Print one line per cell, what differs first; `undone` are trials that did not run."""
    from imgpull.analysis.table import print_table as show

    show(frame, console, undone)


def notes(frame: pd.DataFrame, *, asked: Mapping[str, object]) -> list[str]:
    """What the numbers do and do not show, in sentences; `asked` is the sweep's configuration."""
    from imgpull.analysis.findings import notes as find

    return find(frame, asked=asked)


def draw_plots(sweep_dir: Path, frame: pd.DataFrame) -> list[Path]:
    """Draw `plots/*.png`; ReportError when cells that differ in engine would share an axis."""
    from imgpull.analysis.plots import draw_plots as draw

    return draw(sweep_dir, frame)


def start_drawing(sweep_dir: Path) -> Drawing:
    """`draw_plots` begun in another process: a context, whose `wait()` names the plots."""
    from imgpull.analysis.drawing import Drawing

    return Drawing(sweep_dir)


def write_report(sweep_dir: Path, frame: pd.DataFrame, notes: Sequence[str] = ()) -> list[Path]:
    """Write `report.html` and `report.md`; `notes` are the sentences under "what to look at"."""
    from imgpull.analysis.report import write_report as write

    return write(sweep_dir, frame, notes)
