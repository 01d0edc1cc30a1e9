"""The tables that a trial writes for itself, read back: pulls.csv and measurements.csv.

Hides that columns are found by name, and how a file that is none of ours is refused.
"""

import csv
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

from imgpull.errors import ReportError

T = TypeVar("T")


def read_rows(
    path: Path,
    columns: Sequence[str],
    make: Callable[[tuple[str, ...]], T],
    later: Sequence[str] = (),
) -> list[T]:
    """What `make` makes of each row's cells, in the order of `columns`; none without a file.

    Of the columns in `later`, which older files lack, the cells are empty there.
    ReportError for another file, and for a cell that `make` refuses with ValueError.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.reader(file)
            head = next(table, [])
            lacking = [name for name in later if name not in head]
            cells = itemgetter(*([*head, *lacking].index(name) for name in columns))
            return [make(cells(row + [""] * len(lacking))) for row in table]
    except (IndexError, ValueError) as error:
        raise ReportError(
            f"{path} is not what this version writes: {error}",
            hint="run the trial again, or restore the file",
        ) from error
