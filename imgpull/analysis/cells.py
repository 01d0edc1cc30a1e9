"""What a cell is: which columns are factors, which of them vary, and a cell's trials as one row.

Hides how trials become a cell's number: their geometric mean, as in every comparison and report,
because the trial is the unit of replication and what matters between cells is a ratio.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from imgpull.analysis.statistics import Floats, estimate, mean

if TYPE_CHECKING:
    import pandas as pd

# Columns of the summary before the factors.
ABOUT = (
    "job", "cell_id", "trial_id", "trial", "attempt", "block", "position", "name", "engine",
    "verdict", "reasons", "slo",
)  # fmt: skip
FACTOR_ORDER = ("deployments", "replicas", "qps", "nodes", "image", "cluster", "cache")
# Of these a trial may know only what they at least are.
_BOUNDED = ("pod_startup_p50", "pod_startup_p99", "image_pull_p50", "image_pull_p99")
_LIMITS = ("image_pull_p50_low_s", "image_pull_p50_high_s")
NOT_DONE = "not done"  # a trial that was asked for and has no record
VERDICT_ORDER = ("valid", "degraded", "invalid", "failed")


def factors(frame: pd.DataFrame) -> list[str]:
    """The factor columns: they stand between the identity of a trial and its numbers."""
    first_number = frame.columns.get_loc("pods")
    assert isinstance(first_number, int)
    return [str(column) for column in frame.columns[len(ABOUT) : first_number]]


def varied(frame: pd.DataFrame) -> list[str]:
    """The factors whose level differs between rows (unknown is a level), and so with `engine`."""
    return [name for name in (*factors(frame), "engine") if frame[name].nunique(dropna=False) > 1]


def levels(values: pd.Series[Any]) -> list[Any]:
    """The levels of a factor: numbers ascending, words in the order first seen, unknown last."""
    known = list(dict.fromkeys(value for value in values if not unknown(value)))
    if all(isinstance(value, int | float) for value in known):
        known.sort()  # blocks are run in random order, so the first seen is not the first given
    return known + [None] * any(unknown(value) for value in values)


def unknown(value: Any) -> bool:
    """Whether a level or number is not known."""
    return value is None or (isinstance(value, float) and np.isnan(value))


def level_of(value: Any) -> Any:
    """A level by which cells can be told apart: unknown ones are one."""
    return None if unknown(value) else value


def with_undone(frame: pd.DataFrame, undone: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The trials with those that were not done, of which `factors`, `cell_id`, `name`, `dir` are
    known.
    """
    if not undone:
        return frame
    engine = frame["engine"].iloc[0] if frame["engine"].nunique() == 1 else None
    rows = [
        {
            **{name: each["factors"].get(name) for name in factors(frame)},
            **{key: each[key] for key in ("cell_id", "name")},
            "job": each["dir"],
            "engine": engine,
            "verdict": NOT_DONE,
            "counts": False,
        }
        for each in undone
    ]
    import pandas as pd

    # As objects, a whole number beside an unknown one stays whole.
    further = pd.DataFrame(rows, columns=frame.columns, dtype=object)
    both = pd.concat([frame.astype(object), further], ignore_index=True)
    return both.astype({"counts": bool})


def last_attempts(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows without the attempts that were run again."""
    return frame[~frame.duplicated("job", keep="last")]


def cells(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, ordered by the levels of what varies.

    Numbers are geometric means over counted trials (NaN when none counts); `n_trials` is how many
    count, `verdicts` says what became of all, `slo_missed` how many counted trials missed their
    threshold. Where a trial's p50 or p99 is known only from below, the cell's is NaN and
    `image_pull_p99_at_least_s` has what it is over. `image_pull_p50_low_s` and `_high_s` are
    the 95 % interval, NaN where there is none.
    """
    keys, numbers = varied(frame), _numbers(frame)
    about = ["cell_id", "name", "engine", *factors(frame)]
    trials = last_attempts(frame)
    # The id leaves out what is not physical: a sweep over such a key has cells all the same.
    told = [trials[key].tolist() for key in ("cell_id", *keys)]
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, found in enumerate(zip(*told, strict=True)):
        places.setdefault(tuple(map(level_of, found)), []).append(place)
    order = {key: {level: place for place, level in enumerate(levels(frame[key]))} for key in keys}

    def rank(cell: tuple[Any, ...]) -> list[int]:
        return [order[key][level] for key, level in zip(keys, cell[1:], strict=True)]

    first = trials[about].to_dict("records")
    measured = _Measured(trials, numbers)
    rows = [
        first[places[cell][0]] | measured.cell(places[cell]) for cell in sorted(places, key=rank)
    ]
    columns = [*about, *numbers, *_LIMITS, "n_trials", "verdicts", "slo_missed"]
    import pandas as pd

    table = pd.DataFrame(rows, columns=columns)
    return table.astype(dict.fromkeys([*numbers, *_LIMITS], "float64")) if rows else table


def _numbers(frame: pd.DataFrame) -> list[str]:
    start = frame.columns.get_loc("pods")
    assert isinstance(start, int)
    return [str(column) for column in frame.columns[start:] if column != "counts"]


class _Measured:
    """The trials' numbers as arrays: a frame's rows are slow to pick by cells."""

    def __init__(self, trials: pd.DataFrame, numbers: Sequence[str]) -> None:
        self._numbers = {name: trials[name].to_numpy(float) for name in numbers}
        self._counts = trials["counts"].to_numpy(bool)
        self._verdict, self._slo = trials["verdict"].tolist(), trials["slo"].tolist()

    def cell(self, places: Sequence[int]) -> dict[str, Any]:
        """The numbers of the cell whose trials are at these places."""
        counted = [place for place in places if self._counts[place]]
        numbers = {name: values[counted] for name, values in self._numbers.items()}
        return {
            **{name: mean(values) for name, values in numbers.items()},
            **{name: found for stem in _BOUNDED for name, found in _bounded(numbers, stem).items()},
            **_limits(numbers),
            "n_trials": len(counted),
            "verdicts": verdict_words([self._verdict[place] for place in places]),
            "slo_missed": sum(self._slo[place] == "missed" for place in counted),
        }


def _bounded(counted: Mapping[str, Floats], stem: str) -> dict[str, float]:
    """A cell's number, or what it at least is where a trial's is only a bound."""
    value, at_least = f"{stem}_s", f"{stem}_at_least_s"
    exact, bound = counted[value], counted[at_least]
    open_end = bool((np.isnan(exact) & ~np.isnan(bound)).any())
    found = mean(np.where(np.isnan(exact), bound, exact))
    return {value: np.nan if open_end else found, at_least: found if open_end else np.nan}


def _limits(counted: Mapping[str, Floats]) -> dict[str, float]:
    """The interval of the image pull's p50; none where a trial's is only a bound."""
    if not np.isnan(counted["image_pull_p50_at_least_s"]).all():
        return dict.fromkeys(_LIMITS, np.nan)
    found = estimate(counted["image_pull_p50_s"].tolist())
    ends = (found.low, found.high)
    return {name: np.nan if end is None else end for name, end in zip(_LIMITS, ends, strict=True)}


def verdict_words(found: list[str]) -> str:
    """What became of trials: "valid" for a single trial, else "2 valid, 1 invalid"."""
    if len(found) == 1:
        return found[0]
    count = Counter(found)
    return ", ".join(f"{count[word]} {word}" for word in (*VERDICT_ORDER, NOT_DONE) if count[word])
