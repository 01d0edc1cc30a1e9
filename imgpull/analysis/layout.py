"""Where a cell stands in a picture: its position and its colour.

Hides the choice: the factor with the fewest levels becomes colour, the others the position. Plots
and report share it, so that a reader finds a cell in the same place in both.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from imgpull.analysis.cells import level_of, levels, varied
from imgpull.analysis.wording import cell_text, level_text, short

MAX_SLOTS = 60  # positions x colours that a page still shows legibly
MAX_HUES = 6  # colours that are told apart without looking twice
_UPRIGHT_CHARACTERS = 70  # of all labels: what fits side by side under an upright plot

# What a person needs to read a standing factor on an axis.
_AXIS = {
    "deployments": "Deployments",
    "replicas": "replicas (pods per Deployment)",
    "qps": "qps (Deployments created per second)",
    "nodes": "nodes",
}


@dataclass(frozen=True)
class Layout:
    """Each row's position and colour, with the orders that both follow."""

    place: "pd.Series[str]"
    hue: "pd.Series[str]"
    places: list[str]
    hues: list[str]  # none: one colour
    axis: str
    legend: str
    left_out: int  # positions beyond what a page shows

    @property
    def upright(self) -> bool:
        """Whether labels fit side by side; else cells stand below each other, labels in full."""
        slots = len(self.places) * max(len(self.hues), 1)
        characters = sum(len(place) + 3 for place in self.places)
        return characters <= _UPRIGHT_CHARACTERS and slots <= 24


def layout_of(frame: pd.DataFrame) -> Layout:
    """The factor with the fewest levels becomes colour, all others the position."""
    keys = varied(frame)
    ranks = {key: {level: place for place, level in enumerate(levels(frame[key]))} for key in keys}
    sizes = {key: len(ranks[key]) for key in keys}
    colour = min(reversed(keys), key=sizes.__getitem__) if len(keys) > 1 else None
    if colour and sizes[colour] > MAX_HUES:
        colour = None
    across = [key for key in keys if key != colour]

    def place(row: "pd.Series[Any]") -> str:
        if len(across) == 1:
            return level_text(row[across[0]])
        text = (f"{short(key, keys)} {level_text(row[key])}" for key in across)
        return ", ".join(text) or cell_text(row, [])

    def rank(row: "pd.Series[Any]") -> list[int]:
        return [ranks[key][level_of(row[key])] for key in keys]

    rows = dict(frame.iterrows())
    place_of = {row: place(trial) for row, trial in rows.items()}
    places = list(dict.fromkeys(place_of[row] for row in sorted(rows, key=lambda r: rank(rows[r]))))
    hues = [level_text(level) for level in ranks[colour]] if colour else []
    shown = places[: MAX_SLOTS // max(len(hues), 1)]
    return Layout(
        pd.Series(place_of, dtype=object),
        pd.Series(
            {row: level_text(trial[colour]) if colour else "" for row, trial in rows.items()},
            dtype=object,
        ),
        shown,
        hues,
        _axis(across[0], keys) if len(across) == 1 else "",
        _axis(colour, keys) if colour else "",
        len(places) - len(shown),
    )


def _axis(factor: str, keys: list[str]) -> str:
    return _AXIS.get(factor, short(factor, keys))
