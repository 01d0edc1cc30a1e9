"""The grammar of `exclude`: text becomes a tree, or the column that is wrong is pointed at.

Hides tokens and precedence. From loosest to tightest: or, and, not, one comparison, + -, * /, sign.
Lengths and nesting are limited, so that no expression can exhaust the interpreter.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from imgpull import units
from imgpull.errors import ConfigError

LONGEST = 2000  # characters
DEEPEST = 25  # levels of parentheses, signs and negations
_SHOWN = 76  # characters of an expression beside an error

COMPARISONS = ("=", "==", "!=", "<", "<=", ">", ">=")
_KEYWORDS = ("and", "or", "not", "in")

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<quoted>'[^']*'|"[^"]*")
      | (?P<number>(?:\d+\.?\d*|\.\d+)[A-Za-zµμ0-9.]*)
      | (?P<word>[^\W\d][\w.]*)
      | (?P<sign>==|!=|<=|>=|[=<>+\-*/()\[\],])""",
    re.VERBOSE,
)
_PLAIN = re.compile(r"\d+\.?\d*|\.\d+")
_SIZE = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[kKMGT]i?B|[KMGT]i|B)")


@dataclass(frozen=True)
class Token:
    """A piece of an expression; `at` and `end` are its columns from 0."""

    kind: str
    text: str
    at: int
    end: int


@dataclass(frozen=True)
class Literal:
    """A value written out: a number, a duration in seconds, a size in bytes, or quoted text."""

    at: int
    kind: str
    value: Fraction | str


@dataclass(frozen=True)
class Word:
    """A name, or bare text where text is compared."""

    at: int
    text: str


@dataclass(frozen=True)
class Chain:
    """Operands joined by operators of one precedence; flat, however many there are."""

    at: int
    first: "Node"
    rest: tuple[tuple[str, int, "Node"], ...]  # operator, its column, operand


@dataclass(frozen=True)
class Comparison:
    """Two values and a sign between them."""

    at: int
    sign: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True)
class Member:
    """Whether a value is (or, negated, is not) one of a list."""

    at: int
    negated: bool
    value: "Node"
    items: tuple["Node", ...]


@dataclass(frozen=True)
class Not:
    """The opposite of a condition."""

    at: int
    inner: "Node"


@dataclass(frozen=True)
class Minus:
    """A value with its sign turned."""

    at: int
    inner: "Node"


Node = Literal | Word | Chain | Comparison | Member | Not | Minus


def wrong(text: str, at: int, message: str, hint: str) -> ConfigError:
    """The error to raise about column `at` (from 0) of the expression `text`."""
    line = "".join(char if char.isprintable() else " " for char in text)
    begin = max(0, min(at - _SHOWN // 2, len(line) - _SHOWN))
    shown = line[begin : begin + _SHOWN]
    return ConfigError(f"exclude: {message}\n    {shown}\n    {' ' * (at - begin)}^", hint=hint)


def parse(text: str) -> Node:
    """The tree of an expression; ConfigError points at what cannot be read."""
    if len(text) > LONGEST:
        raise wrong(
            text, LONGEST, f"an expression of {len(text)} characters is longer than {LONGEST}",
            "split it: exclude takes a list, and one that is true is enough",
        )  # fmt: skip
    return _Parser(text).whole()


def _tokens(text: str) -> list[Token]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            if text[at] in "'\"":
                raise wrong(text, at, "a quote is never closed", f"end the text with {text[at]}")
            raise wrong(
                text, at, f"'{text[at]}' has no meaning here",
                f"put text that holds such signs in quotes; signs: {' '.join(COMPARISONS)} + - * /",
            )  # fmt: skip
        kind, end = str(match.lastgroup), match.end()
        if kind == "word" and match[0].lower() in _KEYWORDS:
            found.append(Token("keyword", match[0].lower(), at, end))
        elif kind != "space":
            found.append(Token(kind, match[0], at, end))
        at = end
    return [*found, Token("end", "", len(text), len(text))]


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> Token | None:
        """The next token, when it is one of these signs or keywords."""
        token = self._token
        if token.kind in ("sign", "keyword") and token.text in texts:
            self._next += 1
            return token
        return None

    def _wrong(self, message: str, hint: str, at: int | None = None) -> ConfigError:
        return wrong(self._text, self._token.at if at is None else at, message, hint)

    def whole(self) -> Node:
        """The whole text as one condition."""
        if self._token.kind == "end":
            raise self._wrong("an expression is empty", "leave it out, or write qps > 5")
        tree = self._any()
        if self._token.kind != "end":
            raise self._wrong(
                f"'{self._token.text}' is one too many here",
                "join conditions with 'and' or 'or', and quote text of several words",
            )
        return tree

    def _deeper(self, at: int) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._wrong(
                f"it is nested deeper than {DEEPEST} levels", "write it with less nesting", at
            )

    def _any(self) -> Node:
        return self._chain(self._all, "or")

    def _all(self) -> Node:
        return self._chain(self._negation, "and")

    def _chain(self, operand: Callable[[], Node], *operators: str) -> Node:
        first = operand()
        rest = []
        while token := self._take(*operators):
            rest.append((token.text, token.at, operand()))
        return Chain(first.at, first, tuple(rest)) if rest else first

    def _negation(self) -> Node:
        token = self._take("not")
        if token is None:
            return self._comparison()
        self._deeper(token.at)
        inner = self._negation()
        self._depth -= 1
        return Not(token.at, inner)

    def _comparison(self) -> Node:
        left = self._sum()
        if sign := self._take(*COMPARISONS):
            right = self._sum()
            if again := self._take(*COMPARISONS):
                raise self._wrong(
                    "only two values are compared at a time",
                    "write both: 1 < qps and qps < 5",
                    again.at,
                )
            return Comparison(sign.at, "=" if sign.text == "==" else sign.text, left, right)
        negated = self._take("not")
        if member := self._take("in"):
            return Member(member.at, negated is not None, left, self._list())
        if negated:
            raise self._wrong("'not' here wants an 'in'", "write qps not in (1, 5)", negated.at)
        return left

    def _list(self) -> tuple[Node, ...]:
        opening = self._take("(", "[")
        if opening is None:
            raise self._wrong("'in' wants a list", "write image in (vllm, pytorch_large)")
        items = [self._sum()]
        while self._take(","):
            items.append(self._sum())
        self._close(opening)
        return tuple(items)

    def _close(self, opening: Token) -> None:
        wanted = {"(": ")", "[": "]"}[opening.text]
        if not self._take(wanted):
            found = f"'{self._token.text}'" if self._token.text else "the end"
            raise self._wrong(
                f"'{opening.text}' in column {opening.at + 1} is not closed before {found}",
                f"add '{wanted}'",
            )

    def _sum(self) -> Node:
        return self._chain(self._product, "+", "-")

    def _product(self) -> Node:
        return self._chain(self._value, "*", "/")

    def _value(self) -> Node:
        token = self._token
        if token.kind == "end":
            raise self._wrong("a value is missing at the end", "name a key, or write a value")
        self._next += 1
        if token.kind == "word":
            return Word(token.at, token.text)
        if token.kind == "quoted":
            return Literal(token.at, "text", token.text[1:-1])
        if token.kind == "number":
            return self._number(token)
        if token.text == "(":
            self._deeper(token.at)
            inner = self._any()
            self._depth -= 1
            self._close(token)
            return inner
        if token.text == "-":
            self._deeper(token.at)
            value = self._value()
            self._depth -= 1
            return Minus(token.at, value)
        raise self._wrong(
            f"a value is wanted before '{token.text}'", "name a key, or write a value", token.at
        )

    def _number(self, token: Token) -> Literal:
        """A plain number, a size such as 15GB, or a duration such as 3m or 1h30m."""
        if _PLAIN.fullmatch(token.text):
            return Literal(token.at, "number", Fraction(token.text))
        try:
            if _SIZE.fullmatch(token.text):
                return Literal(token.at, "size", Fraction(units.parse_size(token.text)))
            seconds = units.parse_duration(token.text)
        except ValueError as error:
            raise self._wrong(
                f"'{token.text}' is no number, duration or size",
                f"write 5, 3m, 15GB, or quote it as text: '{token.text}'",
                token.at,
            ) from error
        return Literal(token.at, "duration", exact(seconds))


def exact(number: float) -> Fraction:
    """The number as it is written: 0.1 is a tenth; ValueError or OverflowError for nan and inf."""
    return Fraction(number) if isinstance(number, int) else Fraction(repr(number))
