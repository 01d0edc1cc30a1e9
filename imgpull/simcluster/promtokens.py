"""Where in a query something stands: its text cut into tokens, as Prometheus' lexer cuts it.

Hides that the parser tells no positions, neither of its nodes nor of its errors.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<comment>\#[^\n]*)
    | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
    | (?P<duration>(?:\d+(?:ms|[smhdwy]))+)
    | (?P<number>0[xX][\da-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<word>:?[A-Za-z_][\w:]*)
    | (?P<sign>=~|!~|==|!=|>=|<=|\S)""",
    re.VERBOSE,
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_GRAMMAR = "invalid promql query"  # the parser looks for this before all that it words better
# Between them they finish whatever a query may have begun: within its open brackets, and after.
_WITHIN = (
    *("a", "1", "a[1m]", "[1m]", "[1m:]", "1m", ":1m", '="a"', '"a"', ",a", ",1", ",a[1m]"),
    *("1,a", "1,a[1m]", "(a)", "(1)", "()", "(a[1m])", "(1,a)", "(1,a[1m])"),
)
_AFTER = ("", " a", " (a)", " (1,a)")


@dataclass(frozen=True)
class Token:
    """A word, sign or literal; `inside` is the bracket that it stands in."""

    kind: str
    text: str
    offset: int
    inside: str
    second_before: str
    before: str  # the token before this one
    after: str

    @property
    def end(self) -> int:
        return self.offset + len(self.text)


def tokens(query: str) -> list[Token]:
    """All tokens but comments."""
    found = [match for match in _TOKEN.finditer(query) if match.lastgroup != "comment"]
    texts = ["", "", *(match.group() for match in found), ""]
    cut: list[Token] = []
    brackets = [""]
    for index, match in enumerate(found):
        text, kind = match.group(), str(match.lastgroup)
        if kind == "sign" and text in _CLOSING.values() and len(brackets) > 1:
            brackets.pop()
        second_before, before, _, after = texts[index : index + 4]
        cut.append(Token(kind, text, match.start(), brackets[-1], second_before, before, after))
        if kind == "sign" and text in _CLOSING:
            brackets.append(text)
    return cut


def called(cut: list[Token], name: str) -> Token:
    """The first call of a function or an aggregation (which take any case)."""
    return next(
        token
        for token in cut
        if token.text.lower() == name and token.after.lower() in ("(", "by", "without")
    )


def operator(cut: list[Token], symbol: str) -> Token:
    """The first use of an operator; a label in a list may have its name."""
    return next(
        token
        for token in cut
        if token.text.lower() == symbol and token.before not in ("", "(", ",", "{")
    )


def place(query: str, offset: int) -> str:
    """An offset as people count: from 1, with the line where there are several."""
    line, begin = query.count("\n", 0, offset) + 1, query.rfind("\n", 0, offset) + 1
    column = f"column {offset - begin + 1}"
    return f"line {line}, {column}" if "\n" in query.strip() else column


def error_offset(query: str, complain: Callable[[str], str]) -> int:
    """Where a query stops being the beginning of one that parses, as near as can be told.

    `complain` is the parser: its message, or "". A name that it quotes is more telling than the
    token at which it gave up.
    """
    message, cut, opened = complain(query), tokens(query), ""
    for token in cut:
        if token.kind == "sign" and token.text in _CLOSING:
            opened = _CLOSING[token.text] + opened
        elif opened and token.text == opened[0]:
            opened = opened[1:]
        begun = query[: token.end]
        if complain(begun + opened) != message:
            continue
        said = {complain(f"{begun} {more}{opened}{last}") for more in _WITHIN for last in _AFTER}
        if "" not in said and (message != _GRAMMAR or said == {_GRAMMAR}):
            quoted = re.findall(r"'([^']+)'", message)
            named = [t.offset for t in cut if t.end <= token.end and t.text in quoted]
            return named[-1] if named else token.offset
    return len(query.rstrip())
