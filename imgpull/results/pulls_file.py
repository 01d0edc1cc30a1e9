"""`pulls.csv` on disk: written once by a trial, read by all that judge or compare it.

Hides how a pull's columns are written: seconds with six decimals, booleans in lower case, unknown
as nothing.
"""

import csv
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from imgpull import pulls
from imgpull.pulls import Pull
from imgpull.results.own_tables import read_rows

_NUMBERS = ("requested_at", "pull_s", "wait_s", "pull_at_least_s")
_COUNTS = ("size_bytes", "fetched_bytes", "attempts")
_WORDS = ("namespace", "pod", "container", "image", "temperature", "outcome", "source")
_READERS: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(_NUMBERS, lambda text: float(text) if text else None),
    **dict.fromkeys(_COUNTS, lambda text: int(text) if text else None),
    **dict.fromkeys(_WORDS, str),
    "leader": lambda text: text.lower() == "true" if text else None,
}


def write_pulls(path: Path, rows: Iterable[Pull]) -> None:
    """Write pulls.csv; unknown values are empty."""
    values = attrgetter(*pulls.COLUMNS)  # a tenth of the time of dataclasses.astuple
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(pulls.COLUMNS)
        for row in rows:
            out.writerow([_cell(value) for value in values(row)])


def read_pulls(path: Path) -> list[Pull]:
    """The rows of pulls.csv; none when the trial left no such file. ReportError for another one."""
    readers = [_READERS.get(name, _word) for name in pulls.COLUMNS]
    return read_rows(
        path,
        pulls.COLUMNS,
        lambda cells: Pull(*(read(cell) for read, cell in zip(readers, cells, strict=True))),
        later=("pull_at_least_s",),
    )


def _word(text: str) -> str | None:
    return text or None


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6f}" if isinstance(value, float) else str(value)
