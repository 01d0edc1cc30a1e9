"""Which PromQL the simulated cluster takes: parses queries, refuses by name what it cannot answer.

Hides the parser's reach: it knows newer Prometheus releases than ClusterLoader2's 2.40, and more
functions than our evaluator. A query that passes here is answered as Prometheus would.
"""

import re
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import promql_parser as ast

from imgpull.errors import RenderError
from imgpull.simcluster import promtokens
from imgpull.simcluster.promfunctions import (
    AGGREGATIONS,
    ARITHMETIC,
    COMPARISONS,
    RANGE_FUNCTIONS,
    VALUE_FUNCTIONS,
)
from imgpull.simcluster.promvectors import NAME, SET_OPERATORS

_FUNCTIONS = {
    *RANGE_FUNCTIONS,
    *VALUE_FUNCTIONS,
    *("absent", "histogram_quantile", "quantile_over_time", "scalar", "time", "vector"),
}
_AGGREGATIONS = {*AGGREGATIONS, "bottomk", "quantile", "topk"}
_OPERATORS = {*ARITHMETIC, *COMPARISONS, *SET_OPERATORS}
_SUPPORTED = (
    f"Use only functions {', '.join(sorted(_FUNCTIONS))}; "
    f"aggregations {', '.join(sorted(_AGGREGATIONS))}; operators {' '.join(sorted(_OPERATORS))}; "
    "selectors with offset; subqueries."
)
_FILLS = ("fill", "fill_left", "fill_right")


def check(query: str) -> None:
    """Raise RenderError, with the place in the query, unless `evaluate` can answer it."""
    accepted(query)


def metric_names(query: str) -> set[str]:
    """Names of the metrics that a query selects literally, supported or not; raises RenderError if
    it does not parse.
    """
    return {name for node in _selectors(query) if (name := literal_name(node))}


def name_patterns(query: str) -> Mapping[str, Callable[[str], bool]]:
    """Selectors that name no metric, such as {__name__=~"a|b"}: as written, and the test of whether
    they take metrics of a name.
    """
    return {
        node.prettify(): name_test(node) for node in _selectors(query) if not literal_name(node)
    }


def literal_name(selector: Any) -> str | None:
    """The only metric that a selector can take."""
    if selector.name:
        return str(selector.name)
    return next(
        (
            matcher.value
            for matcher in selector.matchers.matchers
            if matcher.name == NAME and matcher.op == ast.MatchOp.Equal
        ),
        None,
    )


def name_test(selector: Any) -> Callable[[str], bool]:
    """Whether a selector takes metrics of a name."""
    tests = [matcher_test(one) for one in selector.matchers.matchers if one.name == NAME]
    return lambda name: all(test(name) for test in tests)


def matcher_test(matcher: Any) -> Callable[[str], bool]:
    """Whether a label's value passes a matcher; an absent label is an empty one."""
    wanted = matcher.value
    if matcher.op == ast.MatchOp.Equal:
        return lambda value: bool(value == wanted)
    if matcher.op == ast.MatchOp.NotEqual:
        return lambda value: bool(value != wanted)
    pattern = _compiled(wanted)
    if pattern is None:
        raise RenderError(f"unsupported PromQL: regular expression {wanted!r}", hint=_SUPPORTED)
    wants_match = bool(matcher.op == ast.MatchOp.Re)
    # A thousand nodes have twenty buckets each.
    return lru_cache(None)(lambda value: bool(pattern.fullmatch(value)) == wants_match)


@lru_cache(maxsize=256)
def accepted(query: str) -> Any:
    """Syntax tree of a query that we can evaluate."""
    tree = _parsed(query)
    found = sorted(_complaints(tree, query), key=lambda complaint: complaint[0])
    if found:
        offset, complaint = found[0]
        where = promtokens.place(query, offset)
        raise RenderError(f"unsupported PromQL: {complaint} at {where}: {query}", hint=_SUPPORTED)
    return tree


def _parsed(query: str) -> Any:
    """Syntax tree of a query, of the classes of promql_parser; raises RenderError."""
    try:
        return ast.parse(query)
    except ValueError as error:
        where = promtokens.place(query, promtokens.error_offset(query, _parser_says))
        raise RenderError(
            f"PromQL does not parse: {error} at {where}: {query}",
            hint="Correct the query in templates/; CL2's %v is put in before a query is parsed.",
        ) from error


def _parser_says(query: str) -> str:
    try:
        ast.parse(query)
    except ValueError as error:
        return str(error)
    return ""


def _nodes(tree: Any) -> list[Any]:
    nodes: list[Any] = []
    ast.walk(tree, nodes.append)
    return nodes


def _selectors(query: str) -> list[Any]:
    return [node for node in _nodes(_parsed(query)) if isinstance(node, ast.VectorSelector)]


def _complaints(tree: Any, query: str) -> Iterator[tuple[int, str]]:
    """Offset and name of all that keeps us from evaluating a query."""
    cut = promtokens.tokens(query)
    for token in cut:
        if complaint := _token_complaint(token):
            yield token.offset, complaint
    for node in _nodes(tree):
        match node:
            case ast.AggregateExpr() if (name := str(node.op)) not in _AGGREGATIONS:
                yield promtokens.called(cut, name).offset, f"aggregation {name}"
            case ast.Call() if (name := node.func.name) not in _FUNCTIONS:
                yield promtokens.called(cut, name).offset, f"function {name}"
            case ast.BinaryExpr() if (symbol := str(node.op)) not in _OPERATORS:
                yield promtokens.operator(cut, symbol).offset, f"operator {symbol}"
    if (kind := _type(tree)) != ast.ValueType.Vector:
        name = str(kind).removeprefix("ValueType.").lower()
        yield cut[0].offset, f"{name} as the result, where ClusterLoader2 wants a vector"


def _token_complaint(token: promtokens.Token) -> str:
    """What the parser takes as newer releases do, and Prometheus 2 does not; and @."""
    of_time = token.inside == "[" or "offset" in (token.before.lower(), token.second_before.lower())
    match token.kind, token.text:
        case "sign", "@":
            return "modifier @"
        case "number", text if of_time:
            return f"duration without a unit '{text}'"
        case "duration", text if not of_time:
            return f"duration as a number '{text}'"
        case "word", text if text in _FILLS and token.after == "(":
            return f"modifier {text}"
        case "word", text if token.inside == "{" and token.before not in ("{", ","):
            return f"'{text}' between matchers"
        case "string", text:
            return _string_complaint(token, text)
    return ""


def _string_complaint(token: promtokens.Token, text: str) -> str:
    if token.before in ("=~", "!~"):
        # Go's escapes are Python's too.
        pattern = text[1:-1] if text.startswith("`") else literal_eval(text)
        return "" if _compiled(pattern) else f"regular expression {pattern!r}"
    is_value = token.before in ("=", "!=")
    return "" if is_value or token.inside == "" else f"name or argument in quotes {text}"


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
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """A matcher's pattern, or None where Python reads it otherwise than Prometheus (RE2)."""
    # [[:alpha:]] is a set of other characters to Python, x++ does not give back what it took.
    if "[:" in pattern or re.search(r"[*+?}]\+", pattern):
        return None
    try:
        return re.compile(pattern, re.ASCII)  # RE2's \d, \w and \s are ASCII
    except re.error:
        return None
