"""Plain data becomes the schema's frozen dataclasses, or the key that is wrong is named.

Hides how a type is told from its annotation. OmegaConf checks what Hydra composes, but keeps keys
added with `+` in silence, loses the path of a nested key, and takes 50 ms for one configuration.
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin

from imgpull.errors import ConfigError


class Shared:
    """What was last made of each part of a configuration, while its values are the same object.

    Configurations of one matrix share most of their parts, which nobody changes (composing.py).
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[Any, Any]] = {}

    def made(self, part: str, values: Any, make: Callable[[Any], Any]) -> Any:
        """`make(values)`, or what it gave when this part was last these very values."""
        last = self._last.get(part)
        if last is None or last[0] is not values:
            self._last[part] = last = values, make(values)
        return last[1]


def typed(values: Any, kind: Any, path: str = "", shared: Shared | None = None) -> Any:
    """`values` as a `kind` of the schema; ConfigError names the key under `path` and the fix."""
    if kind is Any:
        return values
    if _is_group(kind):
        if shared is None or not path:
            return _group(values, kind, path, shared)
        return shared.made(path, values, lambda new: _group(new, kind, path, shared))
    origin, inner = _parts(kind)
    if origin in (types.UnionType, Union):
        (wanted,) = (one for one in inner if one is not types.NoneType)
        return None if values is None else typed(values, wanted, path)
    if origin is list and isinstance(values, list):
        return [typed(item, inner[0], f"{path}[{index}]") for index, item in enumerate(values)]
    if origin is dict and isinstance(values, Mapping):
        return {str(key): typed(item, inner[1], f"{path}.{key}") for key, item in values.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _choice(values, kind, path)
    return _scalar(values, origin or kind, path)


@cache
def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


@cache
def _parts(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    return get_origin(kind), get_args(kind)


@cache
def _fields(kind: Any) -> Mapping[str, Any]:
    return {item.name: item for item in fields(kind)}


def _group(values: Any, kind: Any, path: str, shared: Shared | None) -> Any:
    known = _fields(kind)
    valid = f"valid keys here: {', '.join(sorted(known))}"
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} is {values!r}, not a group of keys", hint=valid)
    begin = f"{path}." if path else ""
    for key in values:
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            raise ConfigError(
                f"unknown key '{begin}{key}'",
                hint=f"did you mean '{begin}{close[0]}'?" if close else valid,
            )
    for name, item in known.items():
        if values.get(name, item.default) == "???":
            raise no_value(f"{begin}{name}")
        if name not in values and is_dataclass(item.type) and item.default is MISSING:
            typed({}, item.type, f"{begin}{name}")  # a whole group that has no defaults
    return kind(
        **{
            name: typed(item, known[name].type, f"{begin}{name}", shared)
            for name, item in values.items()
        }
    )


def no_value(key: str) -> ConfigError:
    """The error to raise about a key that must be given and is not."""
    return ConfigError(f"{key} has no value", hint=f"give one: {key}=VALUE")


def _choice(value: Any, kind: type[Enum], path: str) -> Enum:
    if isinstance(value, kind):
        return value
    if str(value) not in kind.__members__:
        raise ConfigError(
            f"{path}={value} is unknown", hint=f"choose one of: {', '.join(kind.__members__)}"
        )
    return kind[str(value)]


# What a key may hold, by its annotation, and what a person calls it.
_SCALARS: Mapping[Any, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str, int, float), "text"),  # sizes and versions are often written bare
    bool: ((bool,), "true or false"),
    list: ((list,), "a list"),
    dict: ((dict,), "a map"),
}


def _scalar(value: Any, kind: Any, path: str) -> Any:
    accepted, called = _SCALARS[kind]
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{path}={value!r} is not {called}", hint=f"give {path} {called}")
    return kind(value)
