"""What repeated trials show of each factor, in sentences with intervals.

Hides which of many effects are worth a sentence: of a factor's levels the one that moves most, of
the single cells only those that a plain interaction keeps the factors from telling.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from imgpull.analysis.comparison_text import percent_interval
from imgpull.analysis.effects import (
    CellEffect,
    Effect,
    against_reference,
    effects,
    interactions,
)
from imgpull.analysis.pairing import SHARED_LUCK
from imgpull.analysis.statistics import ALPHA, TOO_FEW
from imgpull.analysis.wording import bounded_change, change, level_text, plural, top_quantile

SAME_WITHIN = 0.05  # an interval within so much of no change is no visible difference
_SHOWN_CELLS = 3


def effect_notes(frame: pd.DataFrame, names: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each factor, then interactions, then how trials were paired.

    `names` gives what a factor is called, and which of them can be told apart at all.
    """
    counted = frame[frame["counts"]]
    headlines = {
        "image pull p50": "image_pull_p50_s",
        "pod startup p50": "pod_startup_p50_s",
        f"pod startup {top_quantile(counted['pods'])}": "pod_startup_p99_s",
    }
    found = {label: effects(frame, column) for label, column in headlines.items()}
    paired = False
    for factor, name in names.items():
        if factor == "engine" or frame[factor].nunique(dropna=False) < 2:
            continue
        own = {
            label: [one for one in all_of_it if one.factor == factor]
            for label, all_of_it in found.items()
        }
        if any(own.values()):
            yield _sentence(own).replace(factor, name, 1)
            paired = paired or any(one.paired for several in own.values() for one in several)
        else:
            yield f"{factor}: no two cells differ in it alone, so its effect cannot be told"
    for label, column in headlines.items():
        crossed = interactions(frame, column)
        yield from (f"{label}: {sentence}" for sentence in crossed)
        if crossed:
            yield from _cells(label, against_reference(frame, column))
    if paired and (frame["engine"] == "sim").all():
        yield SHARED_LUCK


def _sentence(own: Mapping[str, Sequence[Effect]]) -> str:
    """ "nodes 10 -> 20: image pull p50 +31 % [24, 39], … (5 trials a cell, paired)"."""
    largest = max((one for several in own.values() for one in several), key=_size)
    shown = {
        label: one
        for label, several in own.items()
        for one in several
        if one.end == largest.end and one.ratio is not None
    }
    step = f"{largest.factor} {level_text(largest.start)} -> {level_text(largest.end)}"
    if not shown:
        return f"{step}: {largest.note}"
    figures = ", ".join(f"{label} {_figure(one)}" for label, one in shown.items())
    one = next(iter(shown.values()))
    how = f"{plural(one.trials, 'trial')} a cell{', paired' * one.paired}"
    notes = list(dict.fromkeys(one.note for one in shown.values() if one.note))
    text = f"{figures} ({'; '.join([how, *notes])})"
    if TOO_FEW in "".join(notes) or any(_sure(one) for one in shown.values()):
        return f"{step}: {text}"
    if all(_same(one) for several in own.values() for one in several):
        return f"{largest.factor}: no visible difference; {step.partition(' ')[2]}: {text}"
    return f"{step}: no effect shown; {text}"


def _size(one: Effect) -> float:
    return abs(math.log(one.ratio)) if one.ratio else -1.0


def _figure(one: Effect) -> str:
    assert one.ratio is not None
    text = bounded_change(one.ratio, one.bound)
    if one.low is None or one.high is None:
        return text
    return f"{text} {percent_interval(one.low, one.high)}"


def _sure(one: Effect) -> bool:
    """Whether the interval leaves out no change, and by so much that it is worth pointing at."""
    return one.p is not None and one.p < ALPHA and not _same(one)


def _same(one: Effect) -> bool:
    if one.low is None or one.high is None:
        return False
    return max(one.high, 1 / one.low) - 1 <= SAME_WITHIN


def _cells(label: str, found: Sequence[CellEffect]) -> Iterator[str]:
    """The cells that differ from the reference, where factors alone do not tell it."""
    sure = [one for one in found if one.p is not None and one.p < ALPHA]
    if not sure:
        return
    sure.sort(key=lambda one: -abs(math.log(one.against.ratio or 1.0)))
    parts = [
        f"{one.cell} {change((one.against.ratio or 1.0) - 1)} "
        f"{percent_interval(one.against.low or 1.0, one.against.high or 1.0)}"
        for one in sure[:_SHOWN_CELLS]
    ]
    more = f"; {len(sure) - _SHOWN_CELLS} more" if len(sure) > _SHOWN_CELLS else ""
    yield (
        f"{label} against {found[0].reference} (Holm over {plural(len(found), 'cell')}): "
        f"{'; '.join(parts)}{more}"
    )
