"""YAML that remembers where it stood.

Hides the YAML library: a Place answers with text, numbers, items or fields, and every refusal names
file, line and path. Keys are matched without regard to case, as CL2's decoder does; unlike CL2,
which drops them in silence, unknown keys are refused.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

from imgpull.cl2.alike import compose
from imgpull.errors import RenderError
from imgpull.units import parse_duration

_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {**yaml.SafeLoader.bool_values, "y": True, "n": False}


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """CL2's reading: a bare y or n is a boolean too (go-yaml v2 resolve.go), unlike PyYAML's."""

    bool_values = _BOOLEANS


Loader.add_implicit_resolver(_TAG + "bool", re.compile("[yYnN]$"), list("yYnN"))


class _Constructor(yaml.constructor.SafeConstructor):
    bool_values = _BOOLEANS


_PLAIN_TAGS = {_TAG + kind for kind in ("bool", "int", "float")}


@dataclass(frozen=True)
class Place:
    """A value in a YAML file, or (node None) the spot where an absent or null one would stand."""

    file: str
    path: str
    line: int
    node: yaml.Node | None = None

    def error(self, reason: str, *, hint: str = "") -> RenderError:
        """The error to raise: "<file>:<line>: <path>: <reason>"."""
        where = f"{self.path}: " if self.path else ""
        return RenderError(f"{self.file}:{self.line}: {where}{reason}", hint=hint)

    def invalid(self, value: object, reason: str, *, hint: str = "") -> RenderError:
        """The same, in the words of Kubernetes field errors, which CL2 uses."""
        shown = f'"{value}"' if isinstance(value, str) else value
        return self.error(f"Invalid value: {shown}: {reason}", hint=hint)

    @property
    def present(self) -> bool:
        return self.node is not None

    def fields(
        self, *known: str, outside: Iterable[str] = (), exact: bool = False, unknown: str = ""
    ) -> dict[str, "Place"]:
        """The fields of a mapping by their canonical names, all of `known`, absent ones included.

        `outside` are names that CL2 knows and this subset does not; `exact` minds the case;
        `unknown` says why others are refused, when it is not CL2 that would drop them.
        """

        def fold(name: str) -> str:
            return name if exact else name.lower()

        found = {name: self._child(name, self.line, None) for name in known}
        canonical = {fold(name): name for name in known}
        if self.node is None:
            return found
        for key, child in self._pairs():
            name = canonical.get(fold(key))
            if name is None:
                reason = (
                    unknown or f"unknown key '{key}', which ClusterLoader2 would drop in silence"
                )
                if fold(key) in map(fold, outside):
                    reason = f"'{key}' is outside the subset of ClusterLoader2 that imgpull knows"
                raise child.error(reason, hint=f"Valid here: {', '.join(known)}.")
            if found[name].present:
                raise child.error(f"'{key}' is given twice", hint="Keep one of them.")
            found[name] = self._child(name, child.line, child.node)
        return found

    def items(self) -> list["Place"]:
        """The items of a list; none when absent."""
        if self.node is None:
            return []
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error("must be a list", hint="Begin each item with a dash.")
        return [
            Place(self.file, f"{self.path}[{index}]", node.start_mark.line + 1, _not_null(node))
            for index, node in enumerate(self.node.value)
        ]

    def text(self, default: str = "") -> str:
        return str(self._scalar("a string", {"str"}, default, hint='Quote it, like "90s".'))

    def whole(self, default: int = 0) -> int:
        return int(self._scalar("a whole number", {"int"}, default))

    def number(self, default: float = 0.0) -> float:
        return float(self._scalar("a number", {"int", "float"}, default))

    def flag(self, default: bool = False) -> bool:
        return bool(self._scalar("true or false", {"bool"}, default))

    def duration(self, default: str = "") -> str:
        """A Go duration, checked but kept as its string."""
        text = self.text(default)
        if self.present:
            try:
                parse_duration(text)
            except ValueError as error:
                raise self.invalid(text, str(error), hint="Write a Go duration.") from error
        return text

    def data(self) -> Any:
        """The plain Python value: dict, list, str, bool, int, float or None."""
        if self.node is None:
            return None
        if isinstance(self.node, yaml.MappingNode):
            values: dict[str, Any] = {}
            for key, child in self._pairs():
                if key in values:
                    raise child.error(f"'{key}' is given twice", hint="Keep one of them.")
                values[key] = child.data()
            return values
        if isinstance(self.node, yaml.SequenceNode):
            return [item.data() for item in self.items()]
        # Dates and the like reach CL2 through JSON, hence as text.
        return _construct(self.node) if self.node.tag in _PLAIN_TAGS else self.node.value

    def mapping(self) -> dict[str, Any]:
        """As data(), but of a mapping; empty when absent."""
        if self.node is not None:
            self._pairs()
        return self.data() or {}

    def _pairs(self) -> list[tuple[str, "Place"]]:
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error("must be a mapping", hint="Write it as key: value.")
        pairs = []
        for key, value in self.node.value:
            child = self._child(str(key.value), key.start_mark.line + 1, _not_null(value))
            if key.tag == _TAG + "merge":
                raise child.error("merge keys are not read here", hint="Write the keys out.")
            pairs.append((str(key.value), child))
        return pairs

    def _child(self, name: str, line: int, node: yaml.Node | None) -> "Place":
        return Place(self.file, f"{self.path}.{name}" if self.path else name, line, node)

    def _scalar(self, wanted: str, kinds: set[str], default: Any, *, hint: str = "") -> Any:
        if self.node is None:
            return default
        if self.node.tag.removeprefix(_TAG) not in kinds:
            got = self.node.value if isinstance(self.node, yaml.ScalarNode) else "a structure"
            raise self.error(f"must be {wanted}, got {got}", hint=hint or f"Write {wanted}.")
        return _construct(self.node)


def read_yaml(text: str, file: str) -> Place:
    """The root of the one document in `text`; `file` is the name that errors use."""
    try:
        documents = compose(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise RenderError(
            f"{file}:{line}: not YAML: {problem}", hint=f"Mend line {line} of {file}."
        ) from error
    if len(documents) > 1:
        line = documents[1].start_mark.line + 1
        raise RenderError(
            f"{file}:{line}: a second YAML document begins",
            hint="Keep one document a file: ClusterLoader2 versions differ on the rest.",
        )
    if not documents or _not_null(documents[0]) is None:
        raise RenderError(f"{file}:1: the file is empty", hint="Fill it, or do not name it.")
    return Place(file, "", documents[0].start_mark.line + 1, documents[0])


def _not_null(node: yaml.Node) -> yaml.Node | None:
    return None if node.tag == _TAG + "null" else node


def _construct(node: yaml.Node) -> Any:
    return _Constructor().construct_object(node, deep=True)
