"""Series, and the samples of them that a selector sees.

Hides matching by labels and names, and that series scraped together are read as one array. What
Prometheus marked stale is gone for an instant and skipped in a range (promql/engine.go, 2.40).
"""

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, cached_property
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from imgpull.simcluster.promfunctions import Floats, Integers, Window
from imgpull.simcluster.promsyntax import literal_name, matcher_test, name_test
from imgpull.simcluster.promvectors import NAME, Key, Labels, Vector, labelset

_LOOKBACK_MS = 300_000  # how old a sample an instant selector still takes
_STALE_BITS = 0x7FF0_0000_0000_0002  # model/value/value.go
STALE: float = struct.unpack("<d", struct.pack("<Q", _STALE_BITS))[0]  # a NaN; survives copying


@dataclass(frozen=True)
class Series:
    """One time series of a metric: labels without __name__, times ascending.

    Series scraped together share one `times_s` array; selectors look each array up only once. From
    a value that is STALE on, a series is gone until its next sample.
    """

    labels: Labels
    times_s: Floats
    values: Floats
    _named: dict[str, Labels] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def times_ms(self) -> Integers:
        """When the samples were taken, as Prometheus keeps it."""
        times_ms: Integers = np.rint(self.times_s * 1000).astype(np.int64)
        return times_ms

    def named(self, name: str) -> Labels:
        """The labels with the metric's name; made once, for a trial asks for them many times."""
        if name not in self._named:
            self._named[name] = {NAME: name, **self.labels}
        return self._named[name]


class Store(Protocol):
    """Where series come from."""

    def select(self, name: str) -> Sequence[Series]:
        """Return all series of one metric; none if it is unknown."""

    def names(self) -> Collection[str]:
        """Return the names of all metrics, cheaply."""


@dataclass(frozen=True)
class DictStore:
    """A store of series that are at hand."""

    series: Mapping[str, Sequence[Series]] = field(default_factory=dict)

    def select(self, name: str) -> Sequence[Series]:
        return self.series.get(name, ())

    def names(self) -> Collection[str]:
        return self.series.keys()


@dataclass(frozen=True)
class Rows:
    """Series with samples at the same times: a row a series, a column a time."""

    labels: list[Labels]
    times_ms: Integers
    values: Floats


def in_range(store: Store, selector: Any, begin_ms: int, end_ms: int, *, named: bool) -> list[Rows]:
    """The samples of a selector within a time, stale markers included; its offset is not applied.

    `selector` is a node that `promsyntax.accepted` let pass. Its one metric's name is only put into
    labels if they are `named`.
    """
    named = named or not literal_name(selector)
    return list(_selected(store, selector, lambda at: _within(at, begin_ms, end_ms), named=named))


def _within(times_ms: Integers, begin_ms: int, end_ms: int) -> slice:
    """The samples of a window, both ends included (from Prometheus 3.0 on the left is not)."""
    begin = int(times_ms.searchsorted(begin_ms, side="left"))
    return slice(begin, int(times_ms.searchsorted(end_ms, side="right")))


def _selected(
    store: Store, selector: Any, columns: Callable[[Integers], slice], *, named: bool
) -> Iterator[Rows]:
    together: dict[int, tuple[list[Labels], list[Series]]] = {}
    for name, series in _matched(store, selector):
        labels, group = together.setdefault(id(series.times_s), ([], []))
        labels.append(series.named(name) if named else series.labels)
        group.append(series)
    for labels, group in together.values():
        times_ms = group[0].times_ms
        kept = columns(times_ms)
        if kept.start < kept.stop:
            values = np.concatenate([series.values[kept] for series in group])
            yield Rows(labels, times_ms[kept], values.reshape(len(group), -1))


def _matched(store: Store, selector: Any) -> Iterator[tuple[str, Series]]:
    takes_name, only = name_test(selector), literal_name(selector)
    tests = [
        # Many series have the same value: a regex is tried once on each.
        (matcher.name, cache(matcher_test(matcher)))
        for matcher in selector.matchers.matchers
        if matcher.name != NAME
    ]
    for name in [only] if only else store.names():
        for series in store.select(name) if takes_name(name) else ():
            labels = series.labels
            for label, test in tests:
                if not test(labels.get(label, "")):
                    break
            else:
                yield name, series


def latest(store: Store, selector: Any, steps_ms: Sequence[int]) -> list[Vector]:
    """An instant selector: at each step each series' last sample, unless stale or too old."""
    at_ms = [step_ms - milliseconds(selector.offset) for step_ms in steps_ms]

    def needed(times_ms: Integers) -> slice:
        """From the last sample at the first step on."""
        kept = _within(times_ms, at_ms[0] - _LOOKBACK_MS, at_ms[-1])
        return slice(max(kept.start, _within(times_ms, 0, at_ms[0]).stop - 1), kept.stop)

    result = _Gathered(len(steps_ms))
    for rows in _selected(store, selector, needed, named=True):
        there = ~_stale(rows.values)
        for step, end_ms in enumerate(at_ms):
            seen = _within(rows.times_ms, end_ms - _LOOKBACK_MS, end_ms)
            if seen.start == seen.stop:
                continue
            column, fresh = rows.values[:, seen.stop - 1], there[:, seen.stop - 1]
            if fresh.all():
                result.add(step, rows.labels, column)
            else:
                labels = [rows.labels[row] for row in np.flatnonzero(fresh)]
                result.add(step, labels, column[fresh])
    return result.vectors()


def over_windows(
    found: Iterable[Rows],
    windows_ms: Sequence[tuple[int, int]],
    functions: Sequence[Callable[[Window], Floats | None]],
) -> list[Vector]:
    """A function of each window; series without (enough) samples in it are left out."""
    result = _Gathered(len(windows_ms))
    for rows in chain.from_iterable(map(_without_stale, found)):
        for step, (window_ms, function) in enumerate(zip(windows_ms, functions, strict=True)):
            seen = _within(rows.times_ms, *window_ms)
            if seen.start == seen.stop:
                continue
            window = Window(*window_ms, rows.times_ms[seen], rows.values[:, seen])
            if (values := function(window)) is not None:
                result.add(step, rows.labels, values)
    return result.vectors()


class _Gathered:
    """Vectors, one a step, as they grow."""

    def __init__(self, steps: int) -> None:
        self._labels: list[list[Labels]] = [[] for _ in range(steps)]
        self._values: list[list[Floats]] = [[np.empty(0)] for _ in range(steps)]

    def add(self, step: int, labels: list[Labels], values: Floats) -> None:
        self._labels[step] += labels
        self._values[step].append(values)

    def vectors(self) -> list[Vector]:
        steps = zip(self._labels, self._values, strict=True)
        return [Vector(labels, np.concatenate(values)) for labels, values in steps]


def series_of_steps(steps_ms: Sequence[int], vectors: Sequence[Vector]) -> list[Rows]:
    """What an expression was at each step, read as series: the inside of a subquery."""
    points: dict[Key, tuple[Labels, list[int], list[float]]] = {}
    previous: Sequence[Labels] = ()
    keys: list[Key] = []
    for step_ms, vector in zip(steps_ms, vectors, strict=True):
        if vector.labels != previous:
            previous, keys = vector.labels, list(map(labelset, vector.labels))
        for key, labels, value in zip(keys, vector.labels, vector.values.tolist(), strict=True):
            _, times_ms, values = points.setdefault(key, (labels, [], []))
            times_ms.append(step_ms)
            values.append(value)
    together: dict[tuple[int, ...], tuple[list[Labels], list[list[float]]]] = {}
    for labels, times_ms, values in points.values():
        group = together.setdefault(tuple(times_ms), ([], []))
        group[0].append(labels)
        group[1].append(values)
    return [
        Rows(labels, np.array(times_ms, dtype=np.int64), np.array(rows))
        for times_ms, (labels, rows) in together.items()
    ]


def milliseconds(duration: timedelta | None) -> int:
    return 0 if duration is None else duration // timedelta(milliseconds=1)


def _stale(values: Floats) -> NDArray[np.bool_]:
    stale: NDArray[np.bool_] = np.ascontiguousarray(values).view(np.uint64) == _STALE_BITS
    return stale


def _without_stale(rows: Rows) -> Iterator[Rows]:
    gone = _stale(rows.values)
    marked: NDArray[np.bool_] = np.any(gone, axis=1)
    if not marked.any():
        yield rows
        return
    whole = [labels for labels, ends in zip(rows.labels, marked, strict=True) if not ends]
    yield Rows(whole, rows.times_ms, rows.values[~marked])
    for row in np.flatnonzero(marked):
        there = ~gone[row]
        yield Rows([rows.labels[row]], rows.times_ms[there], rows.values[row : row + 1, there])
