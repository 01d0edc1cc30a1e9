"""The arithmetic of PromQL on plain arrays: rates over windows, aggregations, quantiles.

Hides the formulas of Prometheus 2.40 (promql/functions.go, quantile.go, engine.go), the release
that ClusterLoader2 deploys; `promql.py` decides which numbers they are applied to.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """What a range selector sees of series scraped together: a row a series, a column a scrape."""

    begin_ms: int
    end_ms: int
    times_ms: Integers  # at least one
    values: Floats


def _extrapolated(window: Window, *, counter: bool, per_second: bool) -> Floats | None:
    """Growth over the whole window, as extrapolatedRate computes it; None below two samples."""
    values, times_ms = window.values, window.times_ms
    intervals = len(times_ms) - 1
    if intervals < 1:
        return None
    first, growth = values[:, 0], values[:, -1] - values[:, 0]
    to_begin_s = np.full(len(values), float(times_ms[0] - window.begin_ms) / 1000)
    to_end_s = float(window.end_ms - times_ms[-1]) / 1000
    sampled_s = float(times_ms[-1] - times_ms[0]) / 1000
    average_s = sampled_s / intervals
    if counter:
        before, after = values[:, :-1], values[:, 1:]
        resets = np.where(after < before, before, 0.0)
        for at in np.flatnonzero(resets.any(axis=0)):  # one by one: rounds as Prometheus does
            growth = growth + resets[:, at]
        # A counter that grew was never below zero: do not extrapolate past where it was zero.
        to_zero_s = np.where((growth > 0) & (first >= 0), sampled_s * (first / growth), np.inf)
        to_begin_s = np.minimum(to_begin_s, to_zero_s)
    threshold_s = average_s * 1.1  # farther from the edge than this, the series began or ended here
    covered_s = sampled_s + np.where(to_begin_s < threshold_s, to_begin_s, average_s / 2)
    covered_s += to_end_s if to_end_s < threshold_s else average_s / 2
    factor = covered_s / sampled_s
    if per_second:
        factor /= (window.end_ms - window.begin_ms) / 1000
    extrapolated: Floats = growth * factor
    return extrapolated


def _irate(window: Window) -> Floats | None:
    """Rate between the last two samples alone."""
    if len(window.times_ms) < 2:
        return None
    before, last = window.values[:, -2], window.values[:, -1]
    growth = np.where(last < before, last, last - before)
    rate: Floats = growth / (float(window.times_ms[-1] - window.times_ms[-2]) / 1000)
    return rate


def _row_sums(values: Floats) -> Floats:
    """Sums that forget nothing small beside the great (Prometheus: Kahan's)."""
    if not (np.abs(values) < 1e300).all():  # fsum raises where floats would be infinite or NaN
        return np.asarray(values.sum(axis=1))
    return np.array([math.fsum(row) for row in values.tolist()])


def quantile_over_time(q: float, window: Window) -> Floats:
    """Each series' own quantile, as the aggregation quantile() over its samples."""
    return np.array([_quantile(q, row) for row in window.values])


# fmax and fmin as Prometheus: NaN counts only where there is nothing else.
RANGE_FUNCTIONS: Mapping[str, Callable[[Window], Floats | None]] = {
    "rate": partial(_extrapolated, counter=True, per_second=True),
    "increase": partial(_extrapolated, counter=True, per_second=False),
    "delta": partial(_extrapolated, counter=False, per_second=False),
    "irate": _irate,
    "avg_over_time": lambda window: _row_sums(window.values) / len(window.times_ms),
    "count_over_time": lambda window: np.full(len(window.values), float(len(window.times_ms))),
    "last_over_time": lambda window: window.values[:, -1],
    "max_over_time": lambda window: np.fmax.reduce(window.values, axis=1),
    "min_over_time": lambda window: np.fmin.reduce(window.values, axis=1),
    "sum_over_time": lambda window: _row_sums(window.values),
}


def _clamp(pick: np.ufunc, extreme: float, values: Floats, limit: float) -> Floats:
    """Go's math.Min and math.Max: NaN wins over every number but the extreme one."""
    wins = (values == extreme) | (limit == extreme)
    clamped: Floats = np.where(wins, extreme, pick(values, limit))
    return clamped


def _round(values: Floats, to: float = 1.0) -> Floats:
    """To the nearest multiple, halves upwards, by the inverse as Prometheus does."""
    inverse = np.divide(1.0, to)
    rounded: Floats = np.floor(values * inverse + 0.5) / inverse
    return rounded


# Functions of a vector's values, and then of scalars.
VALUE_FUNCTIONS: Mapping[str, Callable[..., Floats]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "clamp_max": partial(_clamp, np.minimum, -np.inf),
    "clamp_min": partial(_clamp, np.maximum, np.inf),
    "floor": np.floor,
    "round": _round,
}

ARITHMETIC: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,  # the sign of the dividend, as Go's math.Mod
    "^": np.float_power,
}

COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}


def _extreme(pick: np.ufunc, values: Floats, group: Integers, groups: int) -> Floats:
    result = np.full(groups, np.nan)
    pick.at(result, group, values)
    return result


def _sum(values: Floats, group: Integers, groups: int) -> Floats:
    return np.bincount(group, weights=values, minlength=groups).astype(np.float64)


def _count(group: Integers, groups: int) -> Floats:
    return np.bincount(group, minlength=groups).astype(np.float64)


# Each takes the values, the group that each value belongs to, and how many groups there are.
AGGREGATIONS: Mapping[str, Callable[[Floats, Integers, int], Floats]] = {
    "sum": _sum,
    "avg": lambda values, group, groups: _sum(values, group, groups) / _count(group, groups),
    "min": lambda values, group, groups: _extreme(np.fmin, values, group, groups),
    "max": lambda values, group, groups: _extreme(np.fmax, values, group, groups),
    "count": lambda values, group, groups: _count(group, groups),
}


def grouped_quantile(q: float, values: Floats, group: Integers, groups: int) -> Floats:
    """The aggregation quantile(): of each group's values, weighted between the two nearest."""
    members = np.split(
        values[np.argsort(group, kind="stable")],
        np.cumsum(np.bincount(group, minlength=groups))[:-1],
    )
    return np.array([_quantile(q, member) for member in members[:groups]])


def _beyond(q: float) -> float | None:
    """What every quantile answers to a q that is none."""
    if np.isnan(q):
        return float("nan")
    if q < 0:
        return float("-inf")
    return float("inf") if q > 1 else None


def _quantile(q: float, values: Floats) -> float:
    if (answer := _beyond(q)) is not None:
        return answer
    ordered = values[np.lexsort((values, ~np.isnan(values)))]  # NaN sorts first
    rank = q * (len(ordered) - 1)
    lower = int(np.floor(rank))
    upper = min(len(ordered) - 1, lower + 1)
    weight = rank - lower
    return float(ordered[lower] * (1 - weight) + ordered[upper] * weight)


def _monotonic(counts: Iterable[float]) -> list[float]:
    """Raise what lies below an earlier bucket: subtracted or extrapolated counts may dip."""
    raised: list[float] = []
    most = float("-inf")
    for count in counts:
        most = max(most, count)
        raised.append(most if count < most else count)
    return raised


def histogram_quantile(q: float, buckets: Sequence[tuple[float, float]]) -> float:
    """Read a quantile from cumulative (upper bound, count) buckets, linear within a bucket.

    In the bucket +Inf the answer is the highest finite bound; the first bucket begins at 0. NaN
    without observations, without a bucket +Inf, or with that bucket alone.
    """
    if (answer := _beyond(q)) is not None:
        return answer
    merged: dict[float, float] = {}
    for bound, count in sorted(buckets, key=lambda bucket: bucket[0]):
        merged[bound] = merged.get(bound, 0.0) + count
    bounds, counts = list(merged), _monotonic(merged.values())
    last = len(bounds) - 1
    if bounds[last] != float("inf") or last == 0 or counts[last] == 0:
        return float("nan")
    rank = q * counts[last]
    index = bisect_left(range(last), True, key=lambda i: counts[i] >= rank)
    if index == last:
        return bounds[last - 1]
    if index == 0 and bounds[0] <= 0:
        return bounds[0]
    begin, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    inside = counts[index] - below
    if inside == 0:  # q = 0 with an empty first bucket: 0/0
        return float("nan")
    return begin + (bounds[index] - begin) * ((rank - below) / inside)
