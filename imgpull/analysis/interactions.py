"""Which factors change what another does, in sentences.

Hides when that is plain enough for a word: both sure and large, because with many trials any two
factors interact a little.
"""

import itertools
import math
from typing import Any

import pandas as pd

from imgpull.analysis.least_squares import (
    HEADLINE,
    Model,
    Trials,
    alike,
    gather,
    ordered_levels,
    told_factors,
)
from imgpull.analysis.statistics import holm
from imgpull.analysis.wording import change, level_text

_SURE, _PLAIN = 0.01, 0.05


def interactions(frame: pd.DataFrame, column: str = HEADLINE) -> list[str]:
    """A sentence for each two factors of which one plainly changes what the other does.

    F tests of products in the least squares model, Holm over all pairs, at 1 %; and the effect must
    differ by 5 % and more.
    """
    found = gather(frame, column)
    if found is None or found.exact < len(found.cells):
        return []
    model = Model(found)
    pairs = list(itertools.combinations(told_factors(found), 2))
    tested = [(pair, model.product_p(found, *pair)) for pair in pairs]
    known = [(pair, p) for pair, p in tested if p is not None]
    corrected = holm([p for _, p in known])
    sentences = [
        _interaction(frame, found, model, pair)
        for (pair, _), p in zip(known, corrected, strict=True)
        if p < _SURE
    ]
    return [sentence for sentence in sentences if sentence]


def _interaction(frame: pd.DataFrame, found: Trials, model: Model, pair: tuple[str, str]) -> str:
    """ "nodes and image interact: nodes 10 -> 20 is +40 % with image a, +5 % with image b"."""
    factor, other = pair
    counted = frame[frame["counts"]]
    widest: tuple[float, list[tuple[Any, float]], Any, Any] | None = None
    start, *ends = ordered_levels(counted, factor)
    for end in ends:
        seen = []
        for level in ordered_levels(counted, other):
            pairs = [
                (a, b)
                for a, b in alike(found.cells, factor, start, end)
                if found.cells[a][other] == level
            ]
            if pairs:
                seen.append((level, math.exp(model.change(pairs)[0]) - 1))
        changes = [ratio for _, ratio in seen]
        if len(seen) > 1 and (widest is None or max(changes) - min(changes) > widest[0]):
            widest = (max(changes) - min(changes), seen, start, end)
    if widest is None or widest[0] < _PLAIN:
        return ""
    _, seen, start, end = widest
    ends_of_it = sorted((min(seen, key=_size), max(seen, key=_size)), key=seen.index)
    parts = [f"{change(ratio)} with {other} {level_text(level)}" for level, ratio in ends_of_it]
    step = f"{factor} {level_text(start)} -> {level_text(end)}"
    return f"{factor} and {other} interact: {step} is {', '.join(parts)}"


def _size(of_level: tuple[Any, float]) -> float:
    return of_level[1]
