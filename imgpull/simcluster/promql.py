"""PromQL instant queries over series in memory, answered as ClusterLoader2's Prometheus 2.40 would.

Hides how a query is walked: each node is evaluated for all steps at once, of which an instant query
has one and a subquery many. What is not supported is refused by name before it runs, so that a
rehearsal never answers a question it did not understand.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import promql_parser as ast

from imgpull.errors import RenderError
from imgpull.simcluster.promfunctions import (
    AGGREGATIONS,
    RANGE_FUNCTIONS,
    VALUE_FUNCTIONS,
    grouped_quantile,
    quantile_over_time,
)
from imgpull.simcluster.promseries import (
    STALE,
    DictStore,
    Series,
    Store,
    in_range,
    latest,
    milliseconds,
    over_windows,
    series_of_steps,
)
from imgpull.simcluster.promsyntax import accepted, check, metric_names, name_patterns
from imgpull.simcluster.promvectors import (
    NAME,
    AmbiguousError,
    Grouping,
    Labels,
    Operator,
    Vector,
    aggregate,
    extremes,
    nameless,
    operate,
    quantiles_of_buckets,
)

__all__ = [
    "STALE",
    "DictStore",
    "Memo",
    "Sample",
    "Series",
    "Store",
    "check",
    "evaluate",
    "metric_names",
    "name_patterns",
]

# Of a subquery that names none: global.evaluation_interval, which prometheus-operator sets to 30 s
# unless told otherwise, as ClusterLoader2's manifests do not.
_DEFAULT_RESOLUTION_MS = 30_000


@dataclass(frozen=True)
class Sample:
    """One element of a query's result; NaN is kept (0/0 is one)."""

    labels: Labels  # with __name__ where PromQL keeps it
    value: float


# Aggregations that were worked out already, by text (and where subqueries in them end) and steps.
Memo = dict[tuple[str, tuple[int, ...]], list[Vector]]


def evaluate(query: str, store: Store, at_s: float, memo: Memo | None = None) -> list[Sample]:
    """Answer an instant query at `at_s` seconds, sorted by labels.

    Queries over one store may share a `memo`: the three quantiles of a histogram sum the same
    buckets. Raises RenderError for what `check` refuses and for series that a query cannot tell
    apart.
    """
    tree, at_ms = accepted(query), round(at_s * 1000)
    try:
        with np.errstate(all="ignore"):  # 0/0 is NaN and 1/0 is +Inf in PromQL, not a mistake
            (result,) = _Evaluation(store, [at_ms], at_ms, {} if memo is None else memo).vectors(
                tree
            )
    except AmbiguousError as error:
        raise RenderError(
            f"PromQL cannot be evaluated: {error}: {query}", hint=error.hint
        ) from error
    samples = map(Sample, result.labels, result.values.tolist())
    return sorted(samples, key=lambda sample: sorted(sample.labels.items()))


@dataclass(frozen=True)
class _Evaluation:
    """One walk over a query's syntax tree; every node has a value a step."""

    store: Store
    steps_ms: Sequence[int]  # ascending, at least one
    end_ms: int  # not before the last step; subqueries within go on to here
    memo: Memo

    def vectors(self, node: Any) -> list[Vector]:
        return [value for value in self._values(node) if isinstance(value, Vector)]

    def scalars(self, node: Any) -> list[float]:
        return [value for value in self._values(node) if isinstance(value, float)]

    def _values(self, node: Any) -> Sequence[Vector | float]:
        match node:
            case ast.NumberLiteral():
                return [float(node.val)] * len(self.steps_ms)
            case ast.ParenExpr():
                return self._values(node.expr)
            case ast.UnaryExpr():  # minus: the parser drops plus
                return self._negated(self._values(node.expr))
            case ast.VectorSelector():
                return latest(self.store, node, self.steps_ms)
            case ast.AggregateExpr():
                return self._aggregate(node)
            case ast.BinaryExpr():
                sides = zip(self._values(node.lhs), self._values(node.rhs), strict=True)
                operator = _operator(node)
                return [operate(operator, left, right) for left, right in sides]
            case ast.Call():
                return self._call(node)
        raise AssertionError(f"{type(node).__name__} passed the check")

    def _negated(self, values: Sequence[Vector | float]) -> Sequence[Vector | float]:
        vectors = [Vector(one.labels, -one.values) for one in values if isinstance(one, Vector)]
        return nameless(vectors) or [-one for one in values if isinstance(one, float)]

    def _call(self, node: Any) -> Sequence[Vector | float]:
        name, arguments = node.func.name, node.args
        match name:
            case "quantile_over_time":
                quantiles = [partial(quantile_over_time, q) for q in self.scalars(arguments[0])]
                return nameless(self._over_range(arguments[1], quantiles))
            case "last_over_time":  # acts as offset does: keeps the name
                functions = [RANGE_FUNCTIONS[name]] * len(self.steps_ms)
                return self._over_range(arguments[0], functions, named=True)
            case _ if name in RANGE_FUNCTIONS:
                functions = [RANGE_FUNCTIONS[name]] * len(self.steps_ms)
                return nameless(self._over_range(arguments[0], functions))
            case "histogram_quantile":
                pairs = zip(self.scalars(arguments[0]), self.vectors(arguments[1]), strict=True)
                return [quantiles_of_buckets(q, vector) for q, vector in pairs]
            case "absent":
                there, labels = self.vectors(arguments[0]), _labels_of_absent(arguments[0])
                return [
                    Vector([] if v.labels else [labels], np.ones(0 if v.labels else 1))
                    for v in there
                ]
            case "time":
                return [step_ms / 1000 for step_ms in self.steps_ms]
            case "vector":
                return [Vector([{}], np.array([one])) for one in self.scalars(arguments[0])]
            case "scalar":
                return [
                    float(one.values[0]) if len(one.values) == 1 else float("nan")
                    for one in self.vectors(arguments[0])
                ]
        limits = [self.scalars(argument) for argument in arguments[1:]]
        return [
            nameless([Vector(vector.labels, VALUE_FUNCTIONS[name](vector.values, *per_step))])[0]
            for vector, *per_step in zip(self.vectors(arguments[0]), *limits, strict=True)
        ]

    def _aggregate(self, node: Any) -> list[Vector]:
        key = f"{node} {self.end_ms}", tuple(self.steps_ms)
        if key not in self.memo:
            self.memo[key] = self._aggregated(node)
        return self.memo[key]

    def _aggregated(self, node: Any) -> list[Vector]:
        clause, name = node.modifier, str(node.op)
        without = clause is not None and clause.type == ast.AggModifierType.Without
        grouping = Grouping(tuple(clause.labels) if clause else (), alone=not without)
        vectors = self.vectors(node.expr)
        if name in AGGREGATIONS:
            return [aggregate(vector, grouping, AGGREGATIONS[name]) for vector in vectors]
        pairs = zip(self.scalars(node.param), vectors, strict=True)
        if name == "quantile":
            return [
                aggregate(vector, grouping, partial(grouped_quantile, q)) for q, vector in pairs
            ]
        return [extremes(vector, grouping, k, largest=name == "topk") for k, vector in pairs]

    def _over_range(
        self, node: Any, functions: Sequence[Any], *, named: bool = False
    ) -> list[Vector]:
        """A function a step of a range selector or a subquery."""
        node = _unwrapped(node)
        selector = node.vector_selector if isinstance(node, ast.MatrixSelector) else None
        offset_ms = milliseconds((selector or node).offset)
        range_ms = milliseconds(node.range)
        windows_ms = [(at - offset_ms - range_ms, at - offset_ms) for at in self.steps_ms]
        begin_ms, end_ms = windows_ms[0][0], windows_ms[-1][1]
        if selector:
            rows = in_range(self.store, selector, begin_ms, end_ms, named=named)
            return over_windows(rows, windows_ms, functions)
        # Steps are multiples of the resolution since 1970, wherever the window begins.
        step_ms = milliseconds(node.step) or _DEFAULT_RESOLUTION_MS
        inner_end_ms = self.end_ms - offset_ms
        steps_ms = range(-(-begin_ms // step_ms) * step_ms, inner_end_ms + 1, step_ms)
        within = replace(self, steps_ms=steps_ms, end_ms=inner_end_ms)
        inner = within.vectors(node.expr) if steps_ms else []
        return over_windows(series_of_steps(steps_ms, inner), windows_ms, functions)


def _unwrapped(node: Any) -> Any:
    while isinstance(node, ast.ParenExpr):
        node = node.expr
    return node


def _labels_of_absent(node: Any) -> Labels:
    """What a selector says of the labels of its series; a label that it tests twice is unknown."""
    node = _unwrapped(node)
    if not isinstance(node, ast.VectorSelector):
        return {}
    matchers = [matcher for matcher in node.matchers.matchers if matcher.name != NAME]
    names = [matcher.name for matcher in matchers]
    return {
        matcher.name: matcher.value
        for matcher in matchers
        if matcher.op == ast.MatchOp.Equal and matcher.value and names.count(matcher.name) == 1
    }


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
