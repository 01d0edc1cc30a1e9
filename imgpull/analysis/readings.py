"""What the trials of a cell are compared by: a column of the summary, or a bound of it.

Hides which column is another's bound, and which trials of two cells become pairs.
"""

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from imgpull.analysis.cells import last_attempts, unknown, varied
from imgpull.analysis.pairing import shared
from imgpull.analysis.statistics import Ratio, Reading, compare_readings


def by_cell(frame: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    keys = ["cell_id", *varied(frame)]
    return iter(last_attempts(frame).groupby(keys, sort=False, dropna=False))


def level_of(value: Any) -> Any:
    return None if unknown(value) else value


def compare_groups(
    before: pd.DataFrame,
    after: pd.DataFrame,
    column: str,
    label: str | None,
    *,
    ranks: bool = True,
) -> Ratio:
    """The trials of two cells compared; in pairs by the column `label` where both share it."""
    known = [with_number(side, column) for side in (before, after)]
    pairs = shared(list(known[0][label]), list(known[1][label])) if label else []
    if pairs:
        known = [side.iloc[[pair[place] for pair in pairs]] for place, side in enumerate(known)]
    first, second = (readings_of(side, column) for side in known)
    return compare_readings(first, second, paired=bool(pairs), ranks=ranks)


def readings_of(group: pd.DataFrame, column: str) -> list[Reading]:
    """A column of some trials; a bound where only that is known; unknown ones are left out."""
    bounds = _bounds(group, column)
    return [
        Reading(float(bound if unknown(value) else value), unknown(value))
        for value, bound in zip(group[column], bounds, strict=True)
        if not (unknown(value) and unknown(bound))
    ]


def with_number(group: pd.DataFrame, column: str) -> pd.DataFrame:
    bounds = _bounds(group, column)
    return group[group[column].notna() | bounds.notna()]


def _bounds(group: pd.DataFrame, column: str) -> "pd.Series[Any]":
    """What each trial's number at least is, where the summary has such a column."""
    stem, _, unit = column.rpartition("_")
    name = f"{stem}_at_least_{unit}"
    if name in group.columns:
        return group[name]
    return pd.Series(math.nan, index=group.index)
