"""Settings that differ between two cells though neither a factor nor the fingerprint says so.

Hides where they are found: the configuration that each trial ran with, compared key by key.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from imgpull.analysis.likeness import Difference, Pair
from imgpull.analysis.limits import read_config
from imgpull.analysis.sides import Side, Trial, level
from imgpull.analysis.wording import level_text
from imgpull.config.sweeping import KEYS

# How a sweep is run or named.
_LEFT_OUT = frozenset({*KEYS, "hydra", "experiment", "allow", "trial_limit"})
# What the fingerprint tells by another name.
_FINGERPRINT = {
    "engine": "engine.kind",
    "vm_size": "cluster.node.vm_size",
    "disk": "cluster.node.os_disk",
    "kubernetes": "cluster.kubernetes_version",
    "containerd": "cluster.containerd_version",
    "registry": "cluster.registry.sku",
    "region": "cluster.region",
    "image_layers": "image.layers",
}
_SHOWN = 6


def other_settings(pairs: Sequence[Pair], moved: Collection[Difference]) -> list[Difference]:
    """The settings that differ, of the first two cells whose ids do; none when the ids agree.

    What `moved` names already is left out: a factor with all below it (image.layers of image), a
    field of the fingerprint by its own name (cluster.node.vm_size of vm_size).
    """
    for before, after in pairs:
        if before[0].record.cell_id != after[0].record.cell_id:
            told = {name for one in moved for name in (one.field, _FINGERPRINT.get(one.field, ""))}
            found = _between(before[0], after[0], told)
            rest = len(found) - _SHOWN
            more = [Difference(f"{rest} more settings", "config.resolved.yaml", "see both")]
            return found[:_SHOWN] + more * (rest > 0)
    return []


def with_levels(side: Side, keys: Collection[str]) -> Side:
    """The side, each trial with a level of every key: one it does not sweep is configured."""
    configs: dict[str, Mapping[str, Any]] = {}  # by cell, within which no such key varies
    trials = []
    for trial in side.trials:
        absent = [key for key in keys if key not in trial.levels]
        cell = trial.record.cell_id
        if absent and cell not in configs:
            configs[cell] = read_config(trial.directory)
        own = {key: level(_at(configs[cell], key)) for key in absent}
        trials.append(replace(trial, levels={**trial.levels, **own}))
    return replace(side, trials=tuple(trials))


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _between(before: Trial, after: Trial, moved: Collection[str]) -> list[Difference]:
    first, second = (dict(_flat(read_config(trial.directory))) for trial in (before, after))
    names = [name for name in dict.fromkeys([*first, *second]) if _told(name, moved)]
    return [
        Difference(name, level_text(first.get(name)), level_text(second.get(name)))
        for name in names
        if first.get(name) != second.get(name)
    ]


def _told(name: str, moved: Collection[str]) -> bool:
    parts = name.split(".")
    above = {".".join(parts[:place]) for place in range(1, len(parts) + 1)}
    return not above & ({*moved} | _LEFT_OUT)


def _flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name, str(value) if isinstance(value, list) else value
