"""`series.csv` as arrays: each node's rates over time.

Hides how the file is read: by whole columns, because a large sweep has hundreds of these files.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from imgpull.analysis.statistics import Floats
from imgpull.errors import ReportError
from imgpull.tables import number

_NUMBERS = ("at_s", "receive_bytes_per_s", "write_bytes_per_s", "containerd_cpu_cores")


@dataclass(frozen=True)
class Series:
    """One node's rates at ascending moments, NaN where unknown, all of one length.

    A rate is the mean since the moment before it, so the first only begins one.
    """

    at_s: Floats
    receive_bytes_s: Floats
    write_bytes_s: Floats
    cpu_cores: Floats


def read_series(path: Path) -> dict[str, Series]:
    """The series by node, sorted; {} when nobody recorded any. ReportError for another file.

    A cell that is no finite number is unknown; a row without its moment or its node is left out.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            head, *rows = csv.reader(file)
    except FileNotFoundError:
        return {}
    except (ValueError, csv.Error) as error:
        raise _no_series(path, str(error)) from error
    missing = {"node", *_NUMBERS} - set(head)
    if missing:
        raise _no_series(path, f"it has no column {', '.join(sorted(missing))}")
    columns = dict(zip(head, zip_longest(*rows, fillvalue=""), strict=False))
    if not columns:
        return {}
    nodes = np.array(columns["node"])
    numbers = np.array([_numbers(columns[name]) for name in _NUMBERS])
    order = np.lexsort((numbers[0], nodes))
    order = order[(nodes[order] != "") & ~np.isnan(numbers[0][order])]
    names, starts = np.unique(nodes[order], return_index=True)
    parts = np.split(numbers[:, order], starts[1:], axis=1)
    return {str(node): Series(*part) for node, part in zip(names, parts, strict=False)}


def _numbers(cells: Sequence[str]) -> Floats:
    try:
        found = np.array(cells, dtype=np.float64)
    except ValueError:
        found = np.array([number(cell) for cell in cells], dtype=np.float64)  # None becomes NaN
    found[~np.isfinite(found)] = np.nan
    return found


def _no_series(path: Path, why: str) -> ReportError:
    return ReportError(
        f"{path} is not what an engine leaves: {why}", hint="run the trial again, or delete it"
    )
