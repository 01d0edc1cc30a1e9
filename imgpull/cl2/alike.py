"""YAML texts that differ in a few values are composed once.

Hides that: a matrix reads hundreds of test configs that differ in numbers and names alone, and
composing one takes most of a cell's check. A value that is one plain word, or quoted without an
escape, can be another such value without another node moving; only it and what holds it are made
anew, so that equal parts of such texts are the same nodes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

# One value on a line of its own. In block scalars such lines mean nothing: no node stands there.
_VALUE = re.compile(
    r"^(?P<before> *(?:- +)*[A-Za-z_][\w.]*: +)"
    r'(?P<value>"[ !#-\[\]-~]*"|[A-Za-z0-9][\w.-]*)(?= *$| +#)',
    re.MULTILINE | re.ASCII,
)
_CUT = "\0"  # in a value's place; no YAML may hold it
_KEPT = 64


def compose(text: str, loader: Any) -> list[yaml.Node]:
    """The documents in the text, as `loader` composes them; raises YAMLError.

    Their nodes may be those of a text alike, whose columns differ; nobody may change them.
    """
    values: list[str] = []

    def cut(match: re.Match[str]) -> str:
        values.append(match["value"])
        return match["before"] + (f'"{_CUT}"' if _is_quoted(match["value"]) else _CUT)

    shape = _VALUE.sub(cut, text)
    if (loader, shape) not in _shapes:
        if len(_shapes) >= _KEPT:
            _shapes.clear()
        _shapes[loader, shape] = _Shape.of(text, loader)
    return _shapes[loader, shape].filled(text, values)


def _composed(text: str, loader: Any) -> list[yaml.Node]:
    return [node for node in yaml.compose_all(text, Loader=loader) if node is not None]


def _is_quoted(value: str) -> bool:
    return value.startswith('"')


@dataclass(frozen=True)
class _Shape:
    """The nodes of one text, and those among them that a text alike has otherwise.

    `slots` is None when a line only looks like a value, so that such texts are composed each.
    """

    loader: Any
    documents: Sequence[yaml.Node]
    slots: Sequence[yaml.ScalarNode] | None
    values: Sequence[str]
    holders: Mapping[int, Sequence[yaml.Node]]  # by the id of what they hold: more with aliases

    @classmethod
    def of(cls, text: str, loader: Any) -> "_Shape":
        documents = _composed(text, loader)
        matches = list(_VALUE.finditer(text))
        standing = {
            (node.start_mark.index, node.end_mark.index): node
            for document in documents
            for node in _nodes(document)
            if isinstance(node, yaml.ScalarNode)
        }
        slots = [standing.get(match.span("value")) for match in matches]
        found = [
            slot
            for slot, match in zip(slots, matches, strict=True)
            if slot is not None and slot.value == match["value"].strip('"')
        ]
        values = [match["value"] for match in matches]
        if len(found) < len(matches):
            return cls(loader, (), None, values, {})
        holders: dict[int, list[yaml.Node]] = {}
        for document in documents:
            for node in _nodes(document):
                for inner in _inside(node):
                    holders.setdefault(id(inner), []).append(node)
        return cls(loader, documents, found, values, holders)

    def filled(self, text: str, values: Sequence[str]) -> list[yaml.Node]:
        """The documents of a text alike that has these values."""
        if self.slots is None:
            return _composed(text, self.loader)
        new: dict[int, yaml.Node] = {}
        touched: set[int] = set()
        for slot, before, value in zip(self.slots, self.values, values, strict=True):
            if value != before:
                new[id(slot)] = _scalar(slot, value, self.loader)
                self._climb(slot, touched)
        return [_renewed(document, touched, new) for document in self.documents]

    def _climb(self, node: yaml.Node, touched: set[int]) -> None:
        for holder in self.holders.get(id(node), ()):
            if id(holder) not in touched:
                touched.add(id(holder))
                self._climb(holder, touched)


def _renewed(node: yaml.Node, touched: set[int], new: dict[int, yaml.Node]) -> yaml.Node:
    """The node, or a copy where one below it is new."""
    if id(node) in new or id(node) not in touched:
        return new.get(id(node), node)
    value: list[Any]
    if isinstance(node, yaml.MappingNode):
        value = [(_renewed(k, touched, new), _renewed(v, touched, new)) for k, v in node.value]
    else:
        value = [_renewed(each, touched, new) for each in node.value]
    new[id(node)] = type(node)(node.tag, value, node.start_mark, node.end_mark)
    return new[id(node)]


_shapes: dict[tuple[Any, str], _Shape] = {}


def _scalar(slot: yaml.ScalarNode, value: str, loader: Any) -> yaml.ScalarNode:
    quoted = _is_quoted(value)
    text = value[1:-1] if quoted else value
    tag = loader("").resolve(yaml.ScalarNode, text, (not quoted, quoted))
    return yaml.ScalarNode(tag, text, slot.start_mark, slot.end_mark, style=slot.style)


def _inside(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _nodes(node: yaml.Node) -> Iterator[yaml.Node]:
    yield node
    for inner in _inside(node):
        yield from _nodes(inner)
