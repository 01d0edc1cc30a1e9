"""Finds the earlier sweep that a command continues, and what of it is done.

Hides the rule "content decides": a sweep is the same when its cells are, and a trial is done when
its job.json says that it counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgpull.config.job import content_id
from imgpull.errors import ReportError
from imgpull.results.record import job_directories, read_record
from imgpull.sweep.ledger import NAME, Ledger
from imgpull.sweep.plan import Cell


@dataclass(frozen=True)
class Done:
    """The last attempt of a trial: its directory (the first attempt's) and whether it counts."""

    directory: str
    attempt: int
    counts: bool


@dataclass(frozen=True)
class Earlier:
    """A sweep to continue."""

    directory: Path
    done: Mapping[str, Done]
    next_number: int
    positions: int
    parent: str | None


def matrix_id(cells: Sequence[Cell]) -> str:
    """Equal for two sweeps of the same cells, in whatever order."""
    return content_id({"cells": sorted(cell.cell_id for cell in cells)})


def find_earlier(root: Path, cells: Sequence[Cell]) -> Earlier | None:
    """The newest sweep of the same matrix under `root`, finished or not; None without one."""
    wanted = matrix_id(cells)
    ledgers = sorted(root.glob(f"*/{NAME}"), key=lambda path: path.parent.name, reverse=True)
    for path in ledgers:
        events = Ledger(path.parent).read()
        if any(event.get("matrix") == wanted for event in events):
            parents = [event["run_id"] for event in events if event.get("event") == "parent"]
            return _read(path.parent, parents[-1] if parents else None)
    return None


def _read(directory: Path, parent: str | None) -> Earlier:
    done: dict[str, Done] = {}
    positions = 0
    for job_dir in job_directories(directory):
        try:
            record = read_record(job_dir)
        except ReportError:
            continue  # unreadable is not done
        number = job_dir.relative_to(directory).parts[0]
        done[record.trial_id] = Done(number, record.attempt, record.counts)
        positions = max(positions, record.position)
    numbers = [int(path.name) for path in directory.iterdir() if path.name.isdigit()]
    return Earlier(directory, done, max(numbers, default=-1) + 1, positions, parent)
