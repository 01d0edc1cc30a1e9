"""Which trials of two cells belong together, so that what they share cancels.

Hides the two reasons: a block's trials ran within one stretch of the cloud's weather, and simulated
trials of one seed and number share their luck (common random numbers).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imgpull.analysis.cells import varied

if TYPE_CHECKING:
    import pandas as pd

SHARED_LUCK = "simulated trials of one seed share their luck: paired by common random numbers"


def pair_column(frame: pd.DataFrame) -> str | None:
    """`trial` where all is simulated with one seed, else `block`, else None.

    A block pairs only if no cell has two trials in it; the block of an order without blocks does.
    """
    simulated = bool((frame["engine"] == "sim").all()) and "seed" not in frame.columns
    column = "trial" if simulated else "block"
    cell = ["cell_id", *varied(frame)]
    return None if frame.duplicated([*cell, column]).any() else column


def shared(before: Sequence[object], after: Sequence[object]) -> list[tuple[int, int]]:
    """Places in both sequences that hold the same key, where keys are unique; [] for fewer than 2.

    A single pair has no spread, so two cells that share one block are not paired.
    """
    if len(set(before)) < len(before) or len(set(after)) < len(after):
        return []
    places = {key: place for place, key in enumerate(after)}
    found = [(place, places[key]) for place, key in enumerate(before) if key in places]
    return found if len(found) > 1 else []
