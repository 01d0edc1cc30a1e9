"""PromQL's instant vectors: which samples belong together, and what labels the result carries.

Hides label matching (on, ignoring, group_left, by, without) and when a metric's name is dropped, as
Prometheus 2.40's promql/engine.go does it.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imgpull.simcluster.promfunctions import (
    ARITHMETIC,
    COMPARISONS,
    Floats,
    Integers,
    histogram_quantile,
)

Labels = Mapping[str, str]
Key = tuple[str, ...] | frozenset[tuple[str, str]]

NAME = "__name__"
SET_OPERATORS = ("and", "or", "unless")


class AmbiguousError(Exception):
    """Series that a query gives the same labels, or does not tell apart by those to match on."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


_MATCH_HINT = "Match on labels that tell the series apart: on(), ignoring() or group_left()."


@dataclass(frozen=True)
class Vector:
    """An instant vector in columns: labels[i] belongs to values[i]."""

    labels: Sequence[Labels]
    values: Floats

    def where(self, keep: NDArray[np.bool_]) -> "Vector":
        kept = [labels for labels, wanted in zip(self.labels, keep.tolist(), strict=True) if wanted]
        return Vector(kept, self.values[keep])


EMPTY = Vector([], np.empty(0))


@dataclass(frozen=True)
class Grouping:
    """The labels that decide what belongs together: `names` alone, or all others but the metric's
    name.
    """

    names: tuple[str, ...]
    alone: bool

    def keys(self, labelsets: Sequence[Labels]) -> list[Key]:
        """A key for each, equal for what belongs together; an absent label is an empty one."""
        names = self.names
        if self.alone:
            return [tuple([labels.get(name, "") for name in names]) for labels in labelsets]
        others = {*names, NAME}
        return [
            frozenset([item for item in labels.items() if item[0] not in others])
            for labels in labelsets
        ]

    def kept(self, labels: Labels) -> Labels:
        """The labels of a group, from those of any member."""
        if self.alone:
            return {name: labels[name] for name in self.names if name in labels}
        others = {*self.names, NAME}
        return {name: value for name, value in labels.items() if name not in others}


_EVERYTHING = Grouping((), alone=False)


@dataclass(frozen=True)
class Operator:
    """A binary operator with its modifiers."""

    symbol: str
    matching: Grouping = _EVERYTHING
    returns_bool: bool = False
    grouped: str = ""  # "left" or "right": the side that may have many per match (group_left, ...)
    included: tuple[str, ...] = ()  # labels that grouping copies from the other side

    @property
    def drops_names(self) -> bool:
        return self.returns_bool or self.symbol in ARITHMETIC


def labelset(labels: Labels) -> Key:
    return frozenset(labels.items())


def nameless(steps: Sequence[Vector]) -> Sequence[Vector]:
    """Drop the metrics' names; two series, be it of different steps, must not become one."""
    found = {labels.get(NAME, "") for vector in steps for labels in vector.labels}
    if found <= {""}:
        return steps
    dropped: dict[int, Labels] = {}  # steps share most of their labels
    names: dict[Key, str] = {}
    for labels in (labels for vector in steps for labels in vector.labels):
        if id(labels) in dropped:
            continue
        dropped[id(labels)] = rest = _EVERYTHING.kept(labels)
        name = labels.get(NAME, "")
        if len(found) > 1 and names.setdefault(labelset(rest), name) != name:
            raise _same_labelset(rest)
    return [Vector([dropped[id(one)] for one in step.labels], step.values) for step in steps]


def _require_distinct(result: Sequence[Labels]) -> None:
    seen: set[Key] = set()
    for labels in result:
        if (key := labelset(labels)) in seen:
            raise _same_labelset(labels)
        seen.add(key)


def _same_labelset(labels: Labels) -> AmbiguousError:
    return AmbiguousError(
        f"vector cannot contain metrics with the same labelset: {dict(labels)}",
        "Functions and arithmetic drop the metric's name: ask for one name at a time, use `or`.",
    )


def extremes(vector: Vector, grouping: Grouping, k: float, *, largest: bool) -> Vector:
    """topk() and bottomk(): NaN comes last, of equals the first by labels (Prometheus: any)."""
    if not -(2.0**63) <= k <= 2.0**63:
        raise AmbiguousError(f"scalar value {k} overflows int64", "Ask for a number of series.")

    def rank(index: int) -> tuple[bool, float, list[tuple[str, str]]]:
        value = float(vector.values[index])
        order = 0.0 if math.isnan(value) else -value if largest else value
        return math.isnan(value), order, sorted(vector.labels[index].items())

    keys, taken = grouping.keys(vector.labels), Counter[Key]()
    kept = np.zeros(len(keys), dtype=bool)
    for index in sorted(range(len(keys)), key=rank):
        taken[keys[index]] += 1
        kept[index] = taken[keys[index]] <= int(k)
    return vector.where(kept)


def aggregate(
    vector: Vector, grouping: Grouping, reduce: Callable[[Floats, Integers, int], Floats]
) -> Vector:
    """Reduce each group of samples to one; groups come in the order of their first member."""
    numbers: dict[Key, int] = {}
    groups: list[Labels] = []
    group: list[int] = []
    for key, labels in zip(grouping.keys(vector.labels), vector.labels, strict=True):
        number = numbers.setdefault(key, len(groups))
        if number == len(groups):
            groups.append(grouping.kept(labels))
        group.append(number)
    return Vector(groups, reduce(vector.values, np.array(group, dtype=np.int64), len(groups)))


def quantiles_of_buckets(q: float, vector: Vector) -> Vector:
    """histogram_quantile() of every histogram in the vector; samples without `le` are left out."""
    histograms: dict[Key, tuple[Labels, list[tuple[float, float]]]] = {}
    for labels, count in zip(vector.labels, vector.values.tolist(), strict=True):
        try:
            bound = float(labels.get("le", ""))
        except ValueError:
            continue
        others = {name: value for name, value in labels.items() if name != "le"}
        histograms.setdefault(labelset(others), (others, []))[1].append((bound, count))
    values = [histogram_quantile(q, buckets) for _, buckets in histograms.values()]
    named = Vector([labels for labels, _ in histograms.values()], np.array(values, dtype=float))
    return nameless([named])[0]


def operate(operator: Operator, left: Vector | float, right: Vector | float) -> Vector | float:
    """A binary operator between two vectors, two scalars, or one of each."""
    if isinstance(left, Vector):
        if isinstance(right, Vector):
            return _combine(operator, left, right)
        return _with_scalar(operator, left, *_apply(operator, left.values, right, left.values))
    if isinstance(right, Vector):
        return _with_scalar(operator, right, *_apply(operator, left, right.values, right.values))
    return float({**COMPARISONS, **ARITHMETIC}[operator.symbol](left, right))


def _with_scalar(
    operator: Operator, vector: Vector, values: Floats, keep: NDArray[np.bool_]
) -> Vector:
    result = Vector(vector.labels, values).where(keep)
    return nameless([result])[0] if operator.drops_names else result


def _apply(
    operator: Operator, left: Floats | float, right: Floats | float, kept: Floats
) -> tuple[Floats, NDArray[np.bool_]]:
    """An operator element by element: values, and which of them stay. A comparison that filters
    leaves of `kept` what holds.
    """
    if operator.symbol in ARITHMETIC:
        return ARITHMETIC[operator.symbol](left, right), np.ones(len(kept), dtype=bool)
    holds = COMPARISONS[operator.symbol](left, right)
    if operator.returns_bool:
        return holds.astype(np.float64), np.ones(len(kept), dtype=bool)
    return kept, holds


def _combine(operator: Operator, left: Vector, right: Vector) -> Vector:
    if operator.symbol in SET_OPERATORS:
        return _set_operation(operator, left, right)
    if not left.labels or not right.labels:
        return EMPTY
    many, one = (right, left) if operator.grouped == "right" else (left, right)
    place: dict[Key, int] = {}
    for index, key in enumerate(operator.matching.keys(one.labels)):
        if place.setdefault(key, index) != index:
            side, labels = "left" if one is left else "right", dict(one.labels[index])
            raise AmbiguousError(
                f"found duplicate series for a match group on the {side}: {labels}", _MATCH_HINT
            )
    found = [(i, place.get(key)) for i, key in enumerate(operator.matching.keys(many.labels))]
    pairs = np.array([(i, j) for i, j in found if j is not None], dtype=np.int64).reshape(-1, 2)
    many_values, one_values = many.values[pairs[:, 0]], one.values[pairs[:, 1]]
    sides = (one_values, many_values) if one is left else (many_values, one_values)
    values, keep = _apply(operator, *sides, sides[0])
    kept = pairs[keep].tolist()
    joined = _joiner(operator)
    result = [joined(many.labels[i], one.labels[j]) for i, j in kept]
    shared = len({j for _, j in kept}) < len(kept)
    if shared and not operator.grouped:
        raise AmbiguousError("multiple matches for labels", _MATCH_HINT)
    if shared or NAME in operator.matching.names:  # a name that matched may be dropped
        _require_distinct(result)
    return Vector(result, values[keep])


def _joiner(operator: Operator) -> Callable[[Labels, Labels], Labels]:
    """How an operator makes a result's labels of those of the "many" and of the "one" side."""
    names = operator.matching.names
    included = [n for n in operator.included if n != NAME or not operator.returns_bool]
    lost = {*included} | ({NAME} if operator.drops_names else set())
    if operator.matching.alone and not operator.grouped:
        kept = [name for name in names if name not in lost]
        return lambda many, one: {name: many[name] for name in kept if name in many}
    if not operator.grouped:
        lost |= {*names}

    def joined(many: Labels, one: Labels) -> Labels:
        labels = {name: value for name, value in many.items() if name not in lost}
        return labels | {name: one[name] for name in included if name in one}

    return joined


def _set_operation(operator: Operator, left: Vector, right: Vector) -> Vector:
    left_keys, right_keys = map(operator.matching.keys, (left.labels, right.labels))
    if operator.symbol == "or":
        there = set(left_keys)
        added = right.where(np.array([key not in there for key in right_keys], dtype=bool))
        return Vector([*left.labels, *added.labels], np.concatenate([left.values, added.values]))
    there, wanted = set(right_keys), operator.symbol == "and"
    return left.where(np.array([(key in there) == wanted for key in left_keys], dtype=bool))
