"""The sweeper and the callback that Hydra finds beside run.py; thin, they only call imgpull.sweep.

Hydra imports this file at every start, `--help` and shell completion included, so it imports
nothing heavy at the top.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class MatrixSweeperConf:
    """`hydra.sweeper.params` holds an experiment's factors: {replicas: "1,5"}."""

    _target_: str = "hydra_plugins.imgpull_matrix.MatrixSweeper"
    params: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="matrix", node=MatrixSweeperConf, provider="imgpull"
)


class MatrixSweeper(Sweeper):
    """Runs every trial of every cell of the matrix; see imgpull.sweep."""

    def __init__(self, params: DictConfig) -> None:
        self.params = {str(key): str(value) for key, value in params.items()}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra hands to a sweeper."""
        from hydra.core.plugins import Plugins

        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the matrix; ends by raising SystemExit with the sweep's exit status."""
        from imgpull.sweep import command

        command.run(
            launcher=self.launcher,
            loader=self.hydra_context.config_loader,
            config=self.config,
            arguments=[f"{key}={value}" for key, value in self.params.items()] + arguments,
        )


class EndOfSweep(Callback):
    """What ours does around a sweep, under another sweeper, such as Hydra's basic."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Give the sweep a directory of its own."""
        if config.hydra.runtime.choices["hydra/sweeper"] == "matrix":
            return
        from imgpull.sweep import basic

        basic.begin(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Do the end step; ends by raising SystemExit with the sweep's exit status."""
        if config.hydra.runtime.choices["hydra/sweeper"] == "matrix":
            return
        from imgpull.sweep import basic

        basic.finish(config)
