"""How a sweep is run, as its configuration says: order, repeats, what is left out, when to stop.

Hides the checks of these keys. None of them is physical: another value runs the same cells.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imgpull import units
from imgpull.config import checks, schema
from imgpull.config.typed import typed
from imgpull.errors import ConfigError

# Keys that are the sweep's own: one value for all cells.
KEYS = (
    "until", "trials", "trial", "seed", "order", "exclude", "resume", "on_failure", "retries",
    "max_hours", "max_cost", "target_effect", "provision", "provisioning", "keep", "yes",
    "tracking",
)  # fmt: skip

_LARGEST_TARGET = 10.0
_STOP_AFTER = re.compile(r"stop_after[=:]([1-9][0-9]*)")  # Hydra wants quotes around "="


@dataclass(frozen=True)
class Provisioning:
    """How a cluster is built for the sweep; in seconds, assumed but for the limit."""

    create_s: float
    pool_s: float
    resize_s: float
    destroy_s: float
    limit_s: float  # of one command of terraform


@dataclass(frozen=True)
class SweepSettings:
    """The sweep's own keys, checked."""

    until: str
    trials: int  # executions of each cell
    first_trial: int  # the number of the first of them
    order: str
    seed: int
    exclude: tuple[str, ...]
    resume: str
    stop_after: int | None  # so many trials that do not count end the sweep; None: never
    retries: int  # further attempts of a trial that does not count
    max_hours: float | None
    max_cost: float | None
    target_effect: float | None = None  # the smallest slowdown it should be able to show
    provisioning: Provisioning | None = None  # None: the clusters are there
    keep: bool = False  # the cluster that was built
    yes: bool = False  # build it without asking

    @property
    def trial_numbers(self) -> range:
        """The trials of each cell, by number."""
        return range(self.first_trial, self.first_trial + self.trials)


def settings_from(values: Mapping[str, Any]) -> SweepSettings:
    """The settings of a resolved configuration; ConfigError names the key and the fix."""
    return settings_of(typed(values, schema.Config))


def settings_of(config: schema.Config) -> SweepSettings:
    """The settings among these keys; ConfigError names the key and the fix."""
    for key in ("trials", "trial"):
        if getattr(config, key) < 1:
            raise ConfigError(
                f"{key}={getattr(config, key)} is not above zero", hint=f"use {key}=1"
            )
    if config.retries < 0:
        raise ConfigError(f"retries={config.retries} is below zero", hint="use retries=0")
    for key in ("max_hours", "max_cost"):
        limit = getattr(config, key)
        if limit is not None and not 0 < limit < math.inf:
            raise ConfigError(f"{key}={limit} is not above zero", hint=f"{key}=null is no limit")
    return SweepSettings(
        until=config.until.name,
        trials=config.trials,
        first_trial=config.trial,
        order=config.order.name,
        seed=config.seed,
        exclude=tuple(config.exclude),
        resume=config.resume.name,
        stop_after=_stop_after(config.on_failure),
        retries=config.retries,
        max_hours=config.max_hours,
        max_cost=config.max_cost,
        target_effect=_target(config.target_effect),
        provisioning=_provisioning(config),
        keep=config.keep,
        yes=config.yes,
    )


def _provisioning(config: schema.Config) -> Provisioning | None:
    found = {
        f"{key}_s": checks.duration_s(getattr(config.provisioning, key), f"provisioning.{key}")
        for key in ("create", "pool", "resize", "destroy", "limit")
    }
    return Provisioning(**found) if config.provision is schema.Provision.terraform else None


def _target(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        found = units.parse_share(text)
    except ValueError as error:
        raise ConfigError(f"target_effect={text}: {error}", hint="target_effect=10%") from error
    if not 0 < found <= _LARGEST_TARGET:
        raise ConfigError(
            f"target_effect={text} is not above zero and at most 1000 %", hint="target_effect=10%"
        )
    return found


def _stop_after(text: str) -> int | None:
    if text == "continue":
        return None
    if text == "stop":
        return 1
    found = _STOP_AFTER.fullmatch(text)
    if found:
        return int(found[1])
    raise ConfigError(f"on_failure={text} is unknown", hint="choose continue, stop or stop_after:3")
