"""PromQL's instant vectors: which samples belong together, and what labels the result carries.

Hides label matching (on, ignoring, group_left, by, without) as Prometheus 2.40's promql/engine.go
does it. Metric names are dropped from the start: only a histogram that a query pieces together from
two metrics could tell.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from imgpull.simcluster.promfunctions import (
    ARITHMETIC,
    COMPARISONS,
    Floats,
    Integers,
    histogram_quantile,
)

Labels = Mapping[str, str]
Key = tuple[str, ...] | frozenset[tuple[str, str]]

SET_OPERATORS = ("and", "or", "unless")


class NoMatchError(Exception):
    """Two vectors whose samples cannot be told apart by the labels to match on."""


@dataclass(frozen=True)
class Vector:
    """An instant vector in columns: labels[i] belongs to values[i]."""

    labels: Sequence[Labels]
    values: Floats

    def where(self, keep: Sequence[bool]) -> "Vector":
        kept = [labels for labels, wanted in zip(self.labels, keep, strict=True) if wanted]
        return Vector(kept, self.values[np.array(keep, dtype=bool)])


EMPTY = Vector([], np.empty(0))


@dataclass(frozen=True)
class Grouping:
    """The labels that decide what belongs together: `names` alone, or all others."""

    names: tuple[str, ...]
    alone: bool

    def keys(self, labelsets: Sequence[Labels]) -> list[Key]:
        """A key for each, equal for what belongs together; an absent label is an empty one."""
        names = self.names
        if self.alone:
            return [tuple([labels.get(name, "") for name in names]) for labels in labelsets]
        if not names:
            return [frozenset(labels.items()) for labels in labelsets]
        return [
            frozenset([item for item in labels.items() if item[0] not in names])
            for labels in labelsets
        ]

    def kept(self, labels: Labels) -> Labels:
        """The labels of a group, from those of any member."""
        if self.alone:
            return {name: labels[name] for name in self.names if name in labels}
        return {name: value for name, value in labels.items() if name not in self.names}


_EVERYTHING = Grouping((), alone=False)


@dataclass(frozen=True)
class Operator:
    """A binary operator with its modifiers."""

    symbol: str
    matching: Grouping = _EVERYTHING
    returns_bool: bool = False
    grouped: str = ""  # "left" or "right": the side that may have many per match (group_left, ...)
    included: tuple[str, ...] = ()  # labels that grouping copies from the other side


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
    others = Grouping(("le",), alone=False)
    buckets: dict[Key, list[tuple[float, float]]] = {}
    kept: dict[Key, Labels] = {}
    keys = others.keys(vector.labels)
    for key, labels, count in zip(keys, vector.labels, vector.values.tolist(), strict=True):
        try:
            bound = float(labels.get("le", ""))
        except ValueError:
            continue
        if key not in buckets:
            buckets[key], kept[key] = [], others.kept(labels)
        buckets[key].append((bound, count))
    values = [histogram_quantile(q, histogram) for histogram in buckets.values()]
    return Vector(list(kept.values()), np.array(values, dtype=np.float64))


def combine(operator: Operator, left: Vector, right: Vector) -> Vector:
    """A binary operator between two vectors; raises NoMatchError where a match is ambiguous."""
    if operator.symbol in SET_OPERATORS:
        return _set_operation(operator, left, right)
    if not left.labels or not right.labels:
        return EMPTY
    many, one = (right, left) if operator.grouped == "right" else (left, right)
    place: dict[Key, int] = {}
    for index, key in enumerate(operator.matching.keys(one.labels)):
        if place.setdefault(key, index) != index:
            side, labels = "left" if one is left else "right", one.labels[index]
            raise NoMatchError(f"found duplicate series for a match group on the {side}: {labels}")
    found = [(i, place.get(key)) for i, key in enumerate(operator.matching.keys(many.labels))]
    pairs = [(i, j) for i, j in found if j is not None]
    result = [_joined(operator, many.labels[i], one.labels[j]) for i, j in pairs]
    many_values = many.values[[i for i, _ in pairs]]
    one_values = one.values[[j for _, j in pairs]]
    sides = (one_values, many_values) if one is left else (many_values, one_values)
    combined = elementwise(operator, *sides, Vector(result, sides[0]))
    shared = len({j for _, j in pairs}) < len(pairs)
    if shared and len(set(_EVERYTHING.keys(combined.labels))) < len(combined.labels):
        raise NoMatchError("multiple matches for labels")
    return combined


def elementwise(
    operator: Operator, left: Floats | float, right: Floats | float, kept: Vector
) -> Vector:
    """An operator element by element; a comparison that filters leaves of `kept` what holds."""
    if operator.symbol in ARITHMETIC:
        return Vector(kept.labels, ARITHMETIC[operator.symbol](left, right))
    holds = COMPARISONS[operator.symbol](left, right)
    if operator.returns_bool:
        return Vector(kept.labels, holds.astype(np.float64))
    return kept.where(holds)


def _joined(operator: Operator, many: Labels, one: Labels) -> Labels:
    if not operator.grouped:
        return operator.matching.kept(many)
    labels = {name: value for name, value in many.items() if name not in operator.included}
    return labels | {name: one[name] for name in operator.included if name in one}


def _set_operation(operator: Operator, left: Vector, right: Vector) -> Vector:
    left_keys, right_keys = map(operator.matching.keys, (left.labels, right.labels))
    if operator.symbol == "or":
        there = set(left_keys)
        added = right.where([key not in there for key in right_keys])
        return Vector([*left.labels, *added.labels], np.concatenate([left.values, added.values]))
    there, wanted = set(right_keys), operator.symbol == "and"
    return left.where([(key in there) == wanted for key in left_keys])
