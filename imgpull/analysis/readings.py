"""What the trials of a cell are compared by: a column of the summary, or a bound of it.

Hides which column is another's bound, and which trials of two cells become pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from imgpull.analysis.cells import last_attempts, unknown, varied
from imgpull.analysis.pairing import shared
from imgpull.analysis.statistics import Ratio, Reading, compare_readings

if TYPE_CHECKING:
    import pandas as pd


def by_cell(frame: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    keys = ["cell_id", *varied(frame)]
    return iter(last_attempts(frame).groupby(keys, sort=False, dropna=False))


def compare_groups(
    before: pd.DataFrame,
    after: pd.DataFrame,
    column: str,
    label: str | None,
    *,
    ranks: bool = True,
) -> Ratio:
    """The trials of two cells compared; in pairs by the column `label` where both share it."""
    keys, readings = [], []
    for side in (before, after):
        found = _known(side, column)
        labels = side[label].tolist() if label else []
        keys.append([labels[place] for place in found] if label else [])
        readings.append(list(found.values()))
    pairs = shared(*keys) if label else []
    first, second = readings
    if pairs:
        first, second = [first[a] for a, _ in pairs], [second[b] for _, b in pairs]
    return compare_readings(first, second, paired=bool(pairs), ranks=ranks)


def readings_of(group: pd.DataFrame, column: str) -> list[Reading]:
    """A column of some trials; a bound where only that is known; unknown ones are left out."""
    return list(_known(group, column).values())


def _known(group: pd.DataFrame, column: str) -> dict[int, Reading]:
    """What is known of each trial, by its place."""
    both = zip(group[column].tolist(), _bounds(group, column).tolist(), strict=True)
    return {
        place: Reading(float(bound if unknown(value) else value), unknown(value))
        for place, (value, bound) in enumerate(both)
        if not (unknown(value) and unknown(bound))
    }


def with_number(group: pd.DataFrame, column: str) -> pd.DataFrame:
    bounds = _bounds(group, column)
    return group[group[column].notna() | bounds.notna()]


def _bounds(group: pd.DataFrame, column: str) -> pd.Series[Any]:
    """What each trial's number at least is, where the summary has such a column."""
    stem, _, unit = column.rpartition("_")
    name = f"{stem}_at_least_{unit}"
    if name in group.columns:
        return group[name]
    import pandas as pd

    return pd.Series(math.nan, index=group.index)
