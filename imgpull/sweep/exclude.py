"""Which combinations of a matrix `exclude` leaves out: what its expressions mean.

Hides names and kinds. A value is a number, a duration, a size, text or a truth; comparing or
computing with two that do not go together is an error, never a guess, whatever `and` and `or`
would have skipped. Values are those of a composed configuration that nobody has checked yet.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

from imgpull import units
from imgpull.errors import ConfigError
from imgpull.sweep.expression import (
    Chain,
    Comparison,
    Literal,
    Member,
    Minus,
    Node,
    Not,
    Word,
    exact,
    parse,
    wrong,
)

Value = Fraction | str | bool | None

_NUMBERS = ("number", "duration", "size")
_A = {"number": "a number", "duration": "a duration", "size": "a size", "text": "text",
      "truth": "true or false", "nothing": "no value"}  # fmt: skip

# Keys whose text is a quantity.
_DURATIONS = (
    "pod_startup_threshold", "wait_timeout", "metrics_wait", "containerd_scrape_interval",
    "trial_limit", "image_pull_progress_timeout", "settle", "wait_for_cluster", "lost_at",
    "restarted_at", "restart_takes", "lifetime",
)  # fmt: skip
# What a group is called: its level in the matrix.
_TITLES = {"image": "name", "cluster": "name", "engine": "kind", "tracking": "kind"}
# Figures that no key holds, each with what it is made of.
_DERIVED: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Any]]] = {
    "pods": ("number", lambda values: values["deployments"] * values["replicas"]),
    "image.layers": ("number", lambda values: len(values["image"]["layers"])),
    "image.compressed_bytes": ("size", lambda values: _bytes(values, "compressed_bytes")),
    "image.unpacked_bytes": ("size", lambda values: _bytes(values, "unpacked_bytes")),
}
_ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A value with its kind; `absent` says how a key without value is written (null, auto)."""

    kind: str
    value: Value
    absent: str = "null"


_NULL = Known("nothing", None)
_CONSTANTS = {
    "true": Known("truth", True), "false": Known("truth", False), "null": _NULL,
    "auto": Known("nothing", "auto", "auto"),
}  # fmt: skip


@dataclass(frozen=True)
class Exclusion:
    """One expression of `exclude`."""

    text: str
    tree: Node

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it leaves out the combination with these values; ConfigError points into it."""
        meaning = _Meaning(self.text, values)
        kind = meaning.kind(self.tree)
        if kind != "truth":
            raise wrong(
                self.text, self.tree.at, f"the whole is {_A[kind]}, not a condition",
                "compare it with something: replicas * deployments > 100",
            )  # fmt: skip
        return meaning.truth(self.tree)


def exclusion(text: str) -> Exclusion:
    """The expression that this text is; ConfigError points at what cannot be read."""
    return Exclusion(text, parse(text))


class _Meaning:
    """The tree of one expression with the values of one cell."""

    def __init__(self, text: str, values: Mapping[str, Any]) -> None:
        self._text = text
        self._values = values
        self._words: dict[str, Known | None] = {}

    def _wrong(self, at: int, message: str, hint: str) -> ConfigError:
        return wrong(self._text, at, message, hint)

    # Kinds: all of the tree, so that a mistake shows in the first cell.

    def kind(self, node: Node) -> str:
        match node:
            case Literal():
                return node.kind
            case Word():
                return self._named(node).kind
            case Comparison():
                self._check_pair(node.at, node.sign, node.left, node.right)
            case Member():
                for item in node.items:
                    self._check_pair(node.at, "=", node.value, item)
            case Not():
                self._want_truth(node.inner)
            case Minus():
                return self._number_kind(node.inner)
            case Chain():
                return self._chain_kind(node)
        return "truth"

    def _chain_kind(self, chain: Chain) -> str:
        if chain.rest[0][0] in ("and", "or"):
            for each in (chain.first, *(operand for _, _, operand in chain.rest)):
                self._want_truth(each)
            return "truth"
        kind = self._number_kind(chain.first)
        for sign, at, operand in chain.rest:
            kind = self._combined(sign, at, kind, self._number_kind(operand))
        return kind

    def _want_truth(self, node: Node) -> None:
        kind = self.kind(node)
        if kind != "truth":
            raise self._wrong(
                node.at,
                f"this is {_A[kind]}, not a condition",
                "compare it with something: qps > 5",
            )

    def _number_kind(self, node: Node) -> str:
        kind = self.kind(node)
        if kind == "nothing":
            raise self._no_value(node)
        if kind not in _NUMBERS:
            raise self._wrong(
                node.at, f"this is {_A[kind]}, nothing to compute with", "compute with numbers"
            )
        return kind

    def _combined(self, sign: str, at: int, left: str, right: str) -> str:
        """The kind of a sum, difference, product or quotient."""
        if sign in "+-" and left == right:
            return left
        if sign == "*" and "number" in (left, right):
            return left if right == "number" else right
        if sign == "/" and right in ("number", left):
            return left if right == "number" else "number"
        raise self._wrong(
            at, f"{_A[left]} {sign} {_A[right]} has no meaning",
            "durations and sizes are added to their like, and multiplied by numbers",
        )  # fmt: skip

    def _check_pair(self, at: int, sign: str, left: Node, right: Node) -> None:
        kinds = self._side(left, right), self._side(right, left)
        if sign in ("=", "!="):
            if "nothing" in kinds or kinds[0] == kinds[1]:
                return
        elif "nothing" in kinds:
            raise self._no_value((left, right)[kinds.index("nothing")])
        elif kinds[0] == kinds[1] and kinds[0] in _NUMBERS:
            return
        elif kinds[0] == kinds[1]:
            raise self._wrong(
                at, f"{_A[kinds[0]]} has no order: '{sign}' compares numbers", "use = or !="
            )
        quote = "text" in kinds and any(isinstance(side, Literal) for side in (left, right))
        raise self._wrong(
            at, f"{_A[kinds[0]]} and {_A[kinds[1]]} cannot be compared",
            "put text that looks like a number in quotes: '1.30'" if quote
            else "a duration is written 3m, a size 15GB, and text is compared with text",
        )  # fmt: skip

    def _side(self, node: Node, other: Node) -> str:
        """The kind of one side of a comparison, where an unknown word is text beside a name."""
        if isinstance(node, Word) and self._word(node.text) is None:
            known = not isinstance(other, Word) or self._word(other.text) is not None
            if known and not isinstance(other, Literal) and self.kind(other) in ("text", "nothing"):
                return "text"
        return self.kind(node)

    def _no_value(self, node: Node) -> ConfigError:
        name = node.text if isinstance(node, Word) else "this"
        known = self._word(name)
        return self._wrong(
            node.at, f"{name} is {known.absent if known else 'null'} here, and has no size",
            f"give {name} a value, or ask {name} = null" if name != "this" else "name a key",
        )  # fmt: skip

    # Values: `and` and `or` stop when they know, so that a division can be guarded.

    def truth(self, node: Node) -> bool:
        return bool(self._value(node))

    def _value(self, node: Node) -> Value:
        match node:
            case Literal():
                return node.value
            case Word():
                known = self._word(node.text)
                return known.value if known else node.text
            case Comparison():
                return self._compared(node)
            case Member():
                value = self._value(node.value)
                return (value in [self._value(item) for item in node.items]) != node.negated
            case Not():
                return not self.truth(node.inner)
            case Minus():
                return -self._number(node.inner)
        if node.rest[0][0] in ("and", "or"):
            join = all if node.rest[0][0] == "and" else any
            return join(
                self.truth(each) for each in (node.first, *(one for _, _, one in node.rest))
            )
        return self._computed(node)

    def _number(self, node: Node) -> Fraction:
        value = self._value(node)
        assert isinstance(value, Fraction)
        return value

    def _compared(self, node: Comparison) -> bool:
        left, right = self._value(node.left), self._value(node.right)
        if node.sign in _ORDER:
            return _ORDER[node.sign](left, right)
        return (left == right) == (node.sign == "=")

    def _computed(self, chain: Chain) -> Fraction:
        result = self._number(chain.first)
        for sign, at, operand in chain.rest:
            value = self._number(operand)
            if sign == "/" and value == 0:
                raise self._wrong(
                    at, "division by zero", "ask for it first: replicas > 1 and 10 / (replicas - 1)"
                )
            compute = {"+": operator.add, "-": operator.sub, "*": operator.mul}
            result = result / value if sign == "/" else compute[sign](result, value)
        return result

    # Names

    def _named(self, word: Word) -> Known:
        if word.text == "trial":  # one trial's key, which a combination has before it has trials
            raise self._wrong(
                word.at, "a combination is left out with all of its trials",
                "name a factor; for fewer trials use trials=",
            )  # fmt: skip
        known = self._word(word.text)
        if known is not None:
            return known
        names = _names(self._values)
        close = get_close_matches(word.text, names, n=1)
        beside = self._text[word.at + len(word.text) :][:1] in ("-", "/", ":")
        hint = (
            f"did you mean '{close[0]}'?" if close else f"names: {', '.join(sorted(names)[:12])}…"
        )
        raise self._wrong(
            word.at, f"unknown name '{word.text}'",
            "put text that holds other signs than letters, digits, '_' and '.' in quotes"
            if beside and not close else hint,
        )  # fmt: skip

    def _word(self, name: str) -> Known | None:
        """What a word names; None when it is no name."""
        if name not in self._words:
            try:
                self._words[name] = _look_up(name, self._values)
            except (ValueError, OverflowError) as error:
                raise self._wrong(
                    max(0, self._text.find(name)), f"{name}: {error}", "correct the value"
                ) from error
        return self._words[name]


def _look_up(name: str, values: Mapping[str, Any]) -> Known | None:
    """The value of a name; ValueError when it has one that no expression can use."""
    if name in _DERIVED:
        kind, made = _DERIVED[name]
        try:
            return _known(name, made(values), kind)
        except (KeyError, TypeError):  # of a configuration that is not checked yet
            return _NULL
    if name.lower() in _CONSTANTS:
        return _CONSTANTS[name.lower()]
    found: Any = values
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    if isinstance(found, Mapping) and name in _TITLES:
        found = found.get(_TITLES[name])
    if isinstance(found, Mapping | list):
        keys = [f"{name}.{key}" for key in found] if isinstance(found, Mapping) else []
        told = f" ({', '.join(keys[:6])})" if keys else ""
        raise OverflowError(f"it is a group or a list, not one value{told}")
    return _known(name, found, "duration" if name.rpartition(".")[2] in _DURATIONS else None)


def _known(name: str, found: Any, kind: str | None) -> Known:
    if found is None:
        return _NULL
    if kind == "duration" and str(found) == "auto":
        return _CONSTANTS["auto"]
    if kind == "duration":
        return Known(kind, exact(units.parse_duration(found)))
    if isinstance(found, bool):
        return Known("truth", found)
    if isinstance(found, int | float):
        return Known(kind or "number", exact(found))
    return Known("text", str(found))


def _bytes(values: Mapping[str, Any], key: str) -> int | None:
    """The sum over the image's layers; None when one of them is not known."""
    sizes = [layer[key] for layer in values["image"]["layers"]]
    return None if None in sizes or not sizes else sum(map(units.parse_size, sizes))


def _names(values: Mapping[str, Any], under: str = "", depth: int = 0) -> list[str]:
    """Every name that can be meant: keys to the third level, and derived figures."""
    found = list(_DERIVED) if not under else []
    for key, value in values.items():
        name = f"{under}{key}"
        if not isinstance(value, Mapping | list) or name in _TITLES:
            found.append(name)
        if isinstance(value, Mapping) and depth < 3:
            found += _names(value, f"{name}.", depth + 1)
    return found
