"""What a sweep will take before it begins: hours, node-hours, money, bytes out of the registry."""

from collections.abc import Sequence

from omegaconf import DictConfig

from imgpull.config.sweeping import SweepSettings
from imgpull.errors import ConfigError
from imgpull.sweep.plan import Matrix, Planned


def show(
    matrix: Matrix, plan: Sequence[Planned], settings: SweepSettings, config: DictConfig
) -> int:
    """Print the plan and write nothing; returns the exit status."""
    raise ConfigError(
        "until=plan is not available in this version", hint="choose until=render or until=run"
    )
