"""PromQL instant queries over series in memory, answered as ClusterLoader2's Prometheus 2.40 would.

Hides how a query is walked. What our templates use is evaluated exactly; anything else is refused
by name before it runs, so that a rehearsal never answers a question it did not understand.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, partial
from typing import Any, Protocol

import numpy as np
import promql_parser as ast

from imgpull.errors import RenderError
from imgpull.simcluster.promfunctions import (
    AGGREGATIONS,
    ARITHMETIC,
    COMPARISONS,
    RANGE_FUNCTIONS,
    VALUE_FUNCTIONS,
    Floats,
    Integers,
    Window,
    grouped_quantile,
)
from imgpull.simcluster.promsyntax import accepted, check, compiled, metric_names
from imgpull.simcluster.promvectors import (
    Grouping,
    Labels,
    NoMatchError,
    Operator,
    Vector,
    aggregate,
    combine,
    elementwise,
    quantiles_of_buckets,
)

__all__ = ["DictStore", "Sample", "Series", "Store", "check", "evaluate", "metric_names"]

_LOOKBACK_MS = 300_000  # how old a sample an instant selector still takes


@dataclass(frozen=True)
class Series:
    """One time series of a metric: labels without __name__, times ascending.

    Series scraped together share one `times_s` array; selectors look each array up only once.
    """

    labels: Labels
    times_s: Floats
    values: Floats


class Store(Protocol):
    """Where series come from."""

    def select(self, name: str) -> Sequence[Series]:
        """Return all series of one metric; none if it is unknown."""


@dataclass(frozen=True)
class DictStore:
    """A store of series that are at hand."""

    series: Mapping[str, Sequence[Series]] = field(default_factory=dict)

    def select(self, name: str) -> Sequence[Series]:
        return self.series.get(name, ())


@dataclass(frozen=True)
class Sample:
    """One element of a query's result; NaN is kept (0/0 is one)."""

    labels: Labels
    value: float


def evaluate(query: str, store: Store, at_s: float) -> list[Sample]:
    """Answer an instant query at `at_s` seconds, sorted by labels.

    Raises RenderError for what `check` refuses and for vectors that do not match one to one.
    """
    tree = accepted(query)
    try:
        with np.errstate(all="ignore"):  # 0/0 is NaN and 1/0 is +Inf in PromQL, not a mistake
            result = _Evaluation(store, round(at_s * 1000)).vector(tree)
    except NoMatchError as error:
        raise RenderError(
            f"PromQL cannot be evaluated: {error}: {query}",
            hint="Match on labels that tell the series apart: on(), ignoring() or group_left().",
        ) from error
    samples = map(Sample, result.labels, result.values.tolist())
    return sorted(samples, key=lambda sample: sorted(sample.labels.items()))


@dataclass(frozen=True)
class _Evaluation:
    """One walk over a query's syntax tree, at one moment."""

    store: Store
    at_ms: int

    def vector(self, node: Any) -> Vector:
        value = self._value(node)
        assert isinstance(value, Vector)  # the parser has checked types
        return value

    def scalar(self, node: Any) -> float:
        value = self._value(node)
        assert isinstance(value, float)
        return value

    def _value(self, node: Any) -> Vector | float:
        match node:
            case ast.NumberLiteral():
                return float(node.val)
            case ast.ParenExpr():
                return self._value(node.expr)
            case ast.UnaryExpr():  # minus: the parser drops plus
                value = self._value(node.expr)
                return -value if isinstance(value, float) else Vector(value.labels, -value.values)
            case ast.VectorSelector():
                return self._latest(node)
            case ast.AggregateExpr():
                return self._aggregate(node)
            case ast.BinaryExpr():
                return self._binary(node)
            case ast.Call():
                return self._call(node)
        raise AssertionError(f"{type(node).__name__} passed the check")

    def _call(self, node: Any) -> Vector | float:
        name, arguments = node.func.name, node.args
        if name in RANGE_FUNCTIONS:
            return self._over_range(arguments[0], RANGE_FUNCTIONS[name])
        if name == "histogram_quantile":
            return quantiles_of_buckets(self.scalar(arguments[0]), self.vector(arguments[1]))
        if name == "vector":
            return Vector([{}], np.array([self.scalar(arguments[0])]))
        vector = self.vector(arguments[0])
        if name == "scalar":
            return float(vector.values[0]) if len(vector.values) == 1 else float("nan")
        limits = [self.scalar(argument) for argument in arguments[1:]]
        return Vector(vector.labels, VALUE_FUNCTIONS[name](vector.values, *limits))

    def _aggregate(self, node: Any) -> Vector:
        clause, name = node.modifier, str(node.op)
        without = clause is not None and clause.type == ast.AggModifierType.Without
        grouping = Grouping(tuple(clause.labels) if clause else (), alone=not without)
        if name == "quantile":
            quantile = partial(grouped_quantile, self.scalar(node.param))
            return aggregate(self.vector(node.expr), grouping, quantile)
        return aggregate(self.vector(node.expr), grouping, AGGREGATIONS[name])

    def _binary(self, node: Any) -> Vector | float:
        left, right, operator = self._value(node.lhs), self._value(node.rhs), _operator(node)
        if isinstance(left, Vector):
            if isinstance(right, Vector):
                return combine(operator, left, right)
            return elementwise(operator, left.values, right, left)
        if isinstance(right, Vector):
            return elementwise(operator, left, right.values, right)
        return float({**COMPARISONS, **ARITHMETIC}[operator.symbol](left, right))

    def _scraped_together(self, node: Any) -> Iterator[tuple[Integers, list[Series]]]:
        """Series of a selector by the array of times that they share, with those times in ms."""
        selected = self.store.select(node.name)
        for matcher in node.matchers.matchers:
            name, test = matcher.name, _test(matcher)
            selected = [series for series in selected if test(series.labels.get(name, ""))]
        together: dict[int, list[Series]] = {}
        for series in selected:
            together.setdefault(id(series.times_s), []).append(series)
        for group in together.values():
            yield np.rint(group[0].times_s * 1000).astype(np.int64), group

    def _latest(self, node: Any) -> Vector:
        """An instant selector: each series' last sample, unless it is older than the lookback."""
        at_ms = self.at_ms - _milliseconds(node.offset)
        labels: list[Labels] = []
        values: list[float] = []
        for times_ms, group in self._scraped_together(node):
            last = int(times_ms.searchsorted(at_ms, side="right")) - 1
            if last >= 0 and times_ms[last] >= at_ms - _LOOKBACK_MS:
                labels += [series.labels for series in group]
                values += [series.values[last] for series in group]
        return Vector(labels, np.array(values, dtype=np.float64))

    def _over_range(self, node: Any, function: Callable[[Window], Floats | None]) -> Vector:
        """A function of a range selector: series without (enough) samples in it are left out."""
        while isinstance(node, ast.ParenExpr):
            node = node.expr
        end_ms = self.at_ms - _milliseconds(node.vector_selector.offset)
        begin_ms = end_ms - _milliseconds(node.range)
        labels: list[Labels] = []
        values = [np.empty(0)]
        for times_ms, group in self._scraped_together(node.vector_selector):
            # Prometheus 2 takes both ends; from 3.0 on the left one is left out.
            begin = int(times_ms.searchsorted(begin_ms, side="left"))
            end = int(times_ms.searchsorted(end_ms, side="right"))
            if begin == end:
                continue
            rows = np.stack([series.values[begin:end] for series in group])
            result = function(Window(begin_ms, end_ms, times_ms[begin:end], rows))
            if result is not None:
                labels += [series.labels for series in group]
                values.append(result)
        return Vector(labels, np.concatenate(values))


def _milliseconds(duration: timedelta | None) -> int:
    return 0 if duration is None else duration // timedelta(milliseconds=1)


def _operator(node: Any) -> Operator:
    modifier = node.modifier
    if modifier is None:
        return Operator(str(node.op))
    clause = modifier.matching
    on = clause is not None and clause.type == ast.LabelModifierType.Include
    left = modifier.card == ast.VectorMatchCardinality.ManyToOne
    right = modifier.card == ast.VectorMatchCardinality.OneToMany
    return Operator(
        str(node.op),
        Grouping(tuple(clause.labels) if clause else (), alone=on),
        returns_bool=modifier.return_bool,
        grouped="left" if left else "right" if right else "",
        included=tuple(modifier.group_labels or ()),
    )


def _test(matcher: Any) -> Callable[[str], bool]:
    """Whether a label's value passes a matcher; an absent label is an empty one."""
    wanted = matcher.value
    if matcher.op == ast.MatchOp.Equal:
        return lambda value: value == wanted
    if matcher.op == ast.MatchOp.NotEqual:
        return lambda value: value != wanted
    pattern = compiled(wanted)
    assert pattern is not None  # the check refused the others
    wants_match = bool(matcher.op == ast.MatchOp.Re)

    @cache  # a thousand nodes have twenty buckets each
    def test(value: str) -> bool:
        return bool(pattern.fullmatch(value)) == wants_match

    return test
