"""Configurations of many cells, equal to Hydra's own and a hundred times cheaper.

Hides where a cell's configuration comes from. Hydra composes once for each choice of groups and of
all else that is more than a plain value for a key that exists; plain values are then set in a copy
by the call that Hydra sets them with. What that refuses is put to Hydra, for its words are known.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf, ValueNode, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from imgpull.config import job as jobs
from imgpull.errors import ConfigError

Path = tuple[str | int, ...]

_KEY = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
# An interpolation of a key that is written out; the rest are relative, nested or call a resolver.
_FOLLOWED = re.compile(rf"\${{({_KEY.pattern})}}")
# Where a sweep puts a job; Hydra's own default there is an interpolation.
_PLACES = ("hydra.sweep.dir", "hydra.sweep.subdir")
_KEPT = 8  # configurations kept open for the cells to come


@dataclass(frozen=True)
class _Base:
    """What Hydra composed, with all that is read from it for each cell.

    `values` is None when some key has no value yet; `interpolated` are paths that follow other
    keys, with these keys, or None where they cannot be told.
    """

    packed: bytes
    packed_task: bytes  # without Hydra's own part
    values: Mapping[str, Any] | None
    interpolated: Mapping[Path, tuple[str, ...] | None]
    spans: bool  # an experiment with a matrix of its own

    def following(self, keys: Sequence[str]) -> list[Path]:
        """The paths that may have other values once these keys have."""
        return [
            path
            for path, followed in self.interpolated.items()
            if followed is None or any(_touch(one, key) for one in followed for key in keys)
        ]


class Composer:
    """Composes the cells of one command."""

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader = loader
        self._master = master
        self._parsed: dict[str, Override] = {}
        self._groups: dict[str, bool] = {}
        self._slow: set[str] = set()  # keys that only Hydra can set
        self._bases: dict[tuple[str, ...], _Base] = {}
        self._there: dict[tuple[tuple[str, ...], str], bool] = {}
        self._open: OrderedDict[tuple[tuple[str, ...], ...], DictConfig] = OrderedDict()

    def values(self, overrides: Sequence[str]) -> dict[str, Any]:
        """What `jobs.resolve` makes of the cell; equal parts are shared and must not be changed."""
        plain, rest, base = self._split(overrides)
        if not plain:
            return dict(
                base.values
                if base.values is not None
                else jobs.resolve(self._unpacked(base.packed))
            )
        keys = tuple(override.key_or_group for override in plain)
        config = self._opened(rest, keys, base)
        try:
            _set(config, plain)
        except OmegaConfBaseException:
            del self._open[rest, keys]
            return jobs.resolve(self._by_hydra(overrides))
        if base.values is None:
            return jobs.resolve(config)
        paths = [tuple(key.split(".")) for key in keys if not key.startswith("hydra.")]
        values = dict(base.values)
        try:
            for path in (*paths, *base.following(keys)):
                _put(values, path, _plain(config, path))
        except OmegaConfBaseException:
            return jobs.resolve(config)  # raises, and says it well
        return values

    def config(self, overrides: Sequence[str]) -> DictConfig:
        """What Hydra's load_sweep_config gives for these overrides; the caller's own."""
        plain, _, base = self._split(overrides)
        config = self._unpacked(base.packed)
        if not plain:
            return config
        try:
            _set(config, plain)
        except OmegaConfBaseException:
            return self._by_hydra(overrides)
        self._sign(config, overrides)
        return config

    def task_config(self, overrides: Sequence[str]) -> DictConfig:
        """The same without Hydra's own part, as Hydra gives it to the task."""
        plain, _, base = self._split(overrides)
        config = self._unpacked(base.packed_task)
        try:
            _set(config, [one for one in plain if not one.is_hydra_override()])
        except OmegaConfBaseException:
            return _without_hydra(self._by_hydra(overrides))
        return config

    def spans_a_matrix(self, overrides: Sequence[str]) -> bool:
        """Whether an experiment among these overrides brings factors of its own."""
        return self._split(overrides)[2].spans

    def _sign(self, config: DictConfig, overrides: Sequence[str]) -> None:
        """Say in the configuration which overrides made it, as Hydra does."""
        parsed = [(text, self._parse(text)) for text in overrides]
        own = list(self._master.hydra.overrides.hydra)
        told = config.hydra.job.config.override_dirname
        task = [text for text, override in parsed if not override.is_hydra_override()]
        named = sorted(
            text
            for text, override in parsed
            if not override.is_hydra_override() and override.key_or_group not in told.exclude_keys
        )
        with open_dict(config.hydra):
            config.hydra.overrides.hydra = own + [
                text for text, override in parsed if override.is_hydra_override()
            ]
            config.hydra.overrides.task = task
            config.hydra.job.override_dirname = told.item_sep.join(named).replace("=", told.kv_sep)

    def _by_hydra(self, overrides: Sequence[str]) -> DictConfig:
        return self._loader.load_sweep_config(self._master, list(overrides))

    def _unpacked(self, packed: bytes) -> DictConfig:
        config: DictConfig = pickle.loads(packed)  # our own bytes; copying takes five times
        # So that a time, asked twice, stays the same.
        OmegaConf.copy_cache(from_config=self._master, to_config=config)
        return config

    def _opened(self, rest: tuple[str, ...], keys: tuple[str, ...], base: _Base) -> DictConfig:
        """A copy in which just these keys are set, again and again."""
        config = self._open.pop((rest, keys), None) or self._unpacked(base.packed)
        self._open[rest, keys] = config
        if len(self._open) > _KEPT:
            self._open.popitem(last=False)
        return config

    def _split(self, overrides: Sequence[str]) -> tuple[list[Override], tuple[str, ...], _Base]:
        """The plain values among the overrides, the others, and what Hydra made of the others."""
        parsed = [(text, self._parse(text)) for text in overrides]
        keys = [override.key_or_group for _, override in parsed]
        plain = [
            (text, override)
            for text, override in parsed
            if self._is_plain(override) and not _meets(override.key_or_group, keys)
        ]
        while True:
            chosen = {text for text, _ in plain}
            rest = tuple(text for text in overrides if text not in chosen)
            try:
                base = self._base(rest)
            except Exception:
                if not plain:
                    raise
                plain = []  # perhaps one of them was wanted for it
                continue
            slow = {o.key_or_group for _, o in plain if not self._is_there(rest, o.key_or_group)}
            if not slow:
                return [override for _, override in plain], rest, base
            self._slow |= slow
            plain = [(text, o) for text, o in plain if o.key_or_group not in slow]

    def _parse(self, text: str) -> Override:
        if text not in self._parsed:
            (self._parsed[text],) = OverridesParser.create().parse_overrides([text])
        return self._parsed[text]

    def _is_plain(self, override: Override) -> bool:
        """Whether it sets one value of a key that is no group."""
        key = override.key_or_group
        if key in self._slow or override.package is not None or not _KEY.fullmatch(key):
            return False
        if override.is_add() or override.is_force_add() or override.is_delete():
            return False
        if key.startswith("hydra.") and key not in _PLACES:
            return False
        value = override.value()
        if isinstance(value, str) and ("${" in value or value == "???"):
            return False
        return isinstance(value, str | int | float | None) and not self._is_group(key)

    def _is_group(self, key: str) -> bool:
        if key not in self._groups:
            told = self._master.hydra
            self._groups[key] = bool(
                self._loader.get_group_options(
                    key.replace(".", "/"),
                    results_filter=None,
                    config_name=told.job.config_name,
                    overrides=list(told.overrides.hydra),
                )
            )
        return self._groups[key]

    def _is_there(self, rest: tuple[str, ...], key: str) -> bool:
        """Whether Hydra's part holds a value (no group, no interpolation) under this key."""
        where = rest, key
        if where not in self._there:
            self._there[where] = _holds_value(self._unpacked(self._base(rest).packed), key)
        return self._there[where]

    def _base(self, rest: tuple[str, ...]) -> _Base:
        if rest not in self._bases:
            config = self._by_hydra(rest)
            try:
                values = jobs.resolve(config)
            except ConfigError:
                values = None  # each cell tells by itself, perhaps it gives what is missing
            texts = {
                path: text
                for key in config
                if key != "hydra"
                for path, text in _interpolated(config, str(key))
            }
            spans = bool(config.hydra.sweeper.get("params"))
            packed = pickle.dumps(config, protocol=5)
            task = _without_hydra(self._unpacked(packed))
            packed_task = pickle.dumps(task, protocol=5)
            self._bases[rest] = _Base(packed, packed_task, values, _followed(texts), spans)
        return self._bases[rest]


_composers: WeakKeyDictionary[ConfigLoader, Composer] = WeakKeyDictionary()


def composer(loader: ConfigLoader, master: DictConfig) -> Composer:
    """The composer of a command, the same for its matrix and for its jobs."""
    if loader not in _composers:
        _composers[loader] = Composer(loader, master)
    return _composers[loader]


def _meets(key: str, keys: Sequence[str]) -> bool:
    """Whether the order of setting matters: another override is of this key, above or below it."""
    return sum(_touch(key, other) for other in keys) > 1


def _touch(one: str, other: str) -> bool:
    """Whether one of these keys is the other or lies within it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _set(config: DictConfig, plain: Sequence[Override]) -> None:
    for override in plain:
        OmegaConf.update(config, override.key_or_group, override.value(), merge=True)


def _without_hydra(config: DictConfig) -> DictConfig:
    with read_write(config), open_dict(config):
        del config["hydra"]
    return config


def _holds_value(config: DictConfig, key: str) -> bool:
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
            return False
        if node._is_interpolation():
            return False
        node = node._get_node(part, validate_access=False)
    if not isinstance(node, ValueNode):
        return False
    return key in _PLACES or not node._is_interpolation()


def _interpolated(container: Any, key: str | int) -> Iterator[tuple[Path, str]]:
    """The paths at and below container[key] that read others' values, and the text that does."""
    node = container._get_node(key)
    if node is None or node._is_none() or node._is_missing():
        return
    if node._is_interpolation():
        yield (key,), str(node._value())
    elif isinstance(node, DictConfig | ListConfig):
        inside: Any = range(len(node)) if isinstance(node, ListConfig) else list(node.keys())
        for inner in inside:
            yield from (((key, *path), text) for path, text in _interpolated(node, inner))


def _followed(texts: Mapping[Path, str]) -> dict[Path, tuple[str, ...] | None]:
    """The keys that interpolations read; None where one reads another, or is no plain key."""
    themselves = [".".join(map(str, path)) for path in texts]
    found: dict[Path, tuple[str, ...] | None] = {}
    for path, text in texts.items():
        keys = tuple(_FOLLOWED.findall(text))
        chained = any(_touch(key, other) for key in keys for other in themselves)
        found[path] = None if chained or "${" in _FOLLOWED.sub("", text) else keys
    return found


def _plain(config: DictConfig, path: Path) -> Any:
    """The value at a path, as jobs.resolve gives it."""
    container: Any = config
    for part in path[:-1]:
        container = container._get_node(part)
    value = container[path[-1]]
    if OmegaConf.is_config(value):
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True, enum_to_str=True)
    return value.name if isinstance(value, Enum) else value


def _put(values: dict[str, Any], path: Path, value: Any) -> None:
    """Set a value deep inside, in copies of what is on the way."""
    inside: Any = values
    for part in path[:-1]:
        inside[part] = inside[part].copy()
        inside = inside[part]
    inside[path[-1]] = value
