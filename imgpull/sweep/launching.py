"""Runs planned trials as Hydra jobs, each in the directory planned for it.

Hides what Hydra wants for that. Its own launcher would compose each job a second time, so its jobs
are run here with what was composed for the check; others are handed overrides as text, quoted. And
the exceptions that Hydra swallows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict

from imgpull.sweep.composing import composer
from imgpull.sweep.hydra_job import run_job
from imgpull.sweep.plan import Planned


def launch(launcher: Launcher, directory: Path, trials: Sequence[Planned]) -> None:
    """Have these trials of the sweep in `directory` run; returns when all of them are over."""
    overrides = [_overrides(planned, directory) for planned in trials]
    number = int(trials[0].directory.split("/")[0])
    # By name: Hydra may load its plugins' modules more than once.
    if type(launcher).__name__ == "BasicLauncher":
        ended = [_run(launcher, job, number + nth) for nth, job in enumerate(overrides)]
    else:
        ended = list(launcher.launch(overrides, initial_job_idx=number))
    for done in ended:
        # Hydra catches what a job raises. Ours raises nothing of a trial's, so this must be seen.
        if isinstance(done._return_value, Exception):
            raise done._return_value


def _overrides(planned: Planned, directory: Path) -> list[str]:
    quoted = str(directory).replace("\\", "\\\\").replace("'", "\\'")
    return [
        *planned.cell.overrides,
        f"trial={planned.trial}",
        f"hydra.sweep.dir='{quoted}'",
        f"hydra.sweep.subdir='{planned.directory}'",
    ]


def _run(launcher: Any, overrides: list[str], number: int) -> JobReturn:
    """What Hydra's BasicLauncher does for one job, without composing it."""
    setup_globals()
    told = launcher.config.hydra
    configure_log(told.hydra_logging, told.verbose)
    composed = composer(launcher.hydra_context.config_loader, launcher.config)
    config = composed.config(overrides)
    with open_dict(config):
        config.hydra.job.id = number
        config.hydra.job.num = number
    task_config = composed.task_config(overrides)
    done = run_job(launcher.hydra_context, launcher.task_function, config, task_config)
    configure_log(told.hydra_logging, told.verbose)
    return done
