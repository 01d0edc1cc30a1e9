"""Which PromQL the simulated cluster takes: parses queries, refuses by name what it cannot answer.

Hides the parser's reach: it knows newer Prometheus releases than ClusterLoader2's 2.40, and more
functions than our evaluator. A query that passes here is answered as Prometheus would.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import promql_parser as ast

from imgpull.errors import RenderError
from imgpull.simcluster.promfunctions import (
    AGGREGATIONS,
    ARITHMETIC,
    COMPARISONS,
    RANGE_FUNCTIONS,
    VALUE_FUNCTIONS,
)
from imgpull.simcluster.promvectors import SET_OPERATORS

_FUNCTIONS = {*RANGE_FUNCTIONS, *VALUE_FUNCTIONS, "histogram_quantile", "scalar", "vector"}
_AGGREGATIONS = {*AGGREGATIONS, "quantile"}
_OPERATORS = {*ARITHMETIC, *COMPARISONS, *SET_OPERATORS}
_SUPPORTED = (
    f"Use only functions {', '.join(sorted(_FUNCTIONS))}; "
    f"aggregations {', '.join(sorted(_AGGREGATIONS))}; operators {' '.join(sorted(_OPERATORS))}; "
    "selectors of one named metric with offset."
)
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"' r"|'(?:\\.|[^'\\])*'|`[^`]*`")
# The parser takes durations without a unit, as Prometheus 3 does; Prometheus 2 does not.
_UNITLESS = re.compile(r"\[\s*[\d.]+\s*[\]:]|\boffset\s+-?[\d.]+(?![\w.])")


def check(query: str) -> None:
    """Raise RenderError unless `evaluate` can answer this query."""
    accepted(query)


def metric_names(query: str) -> set[str]:
    """Names of the metrics that a query selects, supported or not; raises RenderError if it does
    not parse. A selector by pattern, {__name__=~"..."}, names none.
    """
    names: set[str] = set()
    for node in _nodes(parsed(query)):
        if isinstance(node, ast.VectorSelector):
            names.update([node.name] if node.name else [])
            names.update(
                matcher.value
                for matcher in node.matchers.matchers
                if matcher.name == "__name__" and matcher.op == ast.MatchOp.Equal
            )
    return names


def parsed(query: str) -> Any:
    """Syntax tree of a query, of the classes of promql_parser; raises RenderError."""
    try:
        return ast.parse(query)
    except ValueError as error:
        raise RenderError(
            f"PromQL does not parse: {error}: {query}",
            hint="Correct the query in templates/; CL2's %v is put in before a query is parsed.",
        ) from error


@lru_cache(maxsize=256)
def accepted(query: str) -> Any:
    """Syntax tree of a query that we can evaluate."""
    tree = parsed(query)
    complaint = next(_complaints(tree, query), None)
    if complaint:
        raise RenderError(f"unsupported PromQL: {complaint}: {query}", hint=_SUPPORTED)
    return tree


def _nodes(tree: Any) -> list[Any]:
    nodes: list[Any] = []
    ast.walk(tree, nodes.append)
    return nodes


def _complaints(tree: Any, query: str) -> Iterator[str]:
    """Name what keeps us from evaluating a query."""
    if unitless := _UNITLESS.search(_QUOTED.sub('""', query)):
        yield f"duration without a unit {unitless.group()!r}"
    for node in _nodes(tree):
        match node:
            case ast.SubqueryExpr():
                yield "subquery"
            case ast.VectorSelector():
                yield from _selector_complaints(node)
            case ast.AggregateExpr():
                yield from _unknown("aggregation", str(node.op), _AGGREGATIONS)
                yield from _clause_complaints(node.modifier)
            case ast.BinaryExpr():
                yield from _unknown("operator", str(node.op), _OPERATORS)
                yield from _modifier_complaints(node.modifier)
            case ast.Call():
                yield from _unknown("function", node.func.name, _FUNCTIONS)
    if (kind := _type(tree)) != ast.ValueType.Vector:
        name = str(kind).removeprefix("ValueType.").lower()
        yield f"{name} as the result, where ClusterLoader2 wants a vector"


def _unknown(kind: str, name: str, known: set[str]) -> Iterator[str]:
    if name not in known:
        yield f"{kind} {name}"


def _selector_complaints(node: Any) -> Iterator[str]:
    if node.at is not None:
        yield "modifier @"
    if node.matchers.or_matchers:
        yield "'or' between matchers"
    if node.name is None or any(matcher.name == "__name__" for matcher in node.matchers.matchers):
        yield "selector by __name__"
    for matcher in node.matchers.matchers:
        if matcher.op in (ast.MatchOp.Re, ast.MatchOp.NotRe) and not compiled(matcher.value):
            yield f"regular expression {matcher.value!r}"


def _modifier_complaints(modifier: Any) -> Iterator[str]:
    if modifier is None:
        return
    fill = modifier.fill_values
    if fill is not None and (fill.lhs, fill.rhs) != (None, None):
        yield "modifier fill"
    yield from _clause_complaints(modifier.matching)


def _clause_complaints(clause: Any) -> Iterator[str]:
    if clause is not None and "__name__" in clause.labels:
        yield "grouping by __name__"


def _type(node: Any) -> Any:
    """PromQL's type of an expression's value."""
    match node:
        case ast.ParenExpr() | ast.UnaryExpr():
            return _type(node.expr)
        case ast.NumberLiteral():
            return ast.ValueType.Scalar
        case ast.StringLiteral():
            return ast.ValueType.String
        case ast.MatrixSelector() | ast.SubqueryExpr():
            return ast.ValueType.Matrix
        case ast.Call():
            return node.func.return_type
        case ast.BinaryExpr() if _type(node.lhs) == _type(node.rhs) == ast.ValueType.Scalar:
            return ast.ValueType.Scalar
        case _:
            return ast.ValueType.Vector


@lru_cache(maxsize=256)
def compiled(pattern: str) -> re.Pattern[str] | None:
    """A matcher's pattern, or None where Python reads it otherwise than Prometheus (RE2)."""
    if "[:" in pattern:  # [[:alpha:]] is a set of other characters to Python
        return None
    try:
        return re.compile(pattern, re.ASCII)  # RE2's \d, \w and \s are ASCII
    except re.error:
        return None
