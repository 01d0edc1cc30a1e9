"""Hands planned trials to Hydra's launcher, each a Hydra job in the directory planned for it.

Hides what Hydra wants for that: overrides as text, quoted, and the exceptions that it swallows.
"""

from collections.abc import Sequence
from pathlib import Path

from hydra.plugins.launcher import Launcher

from imgpull.sweep.plan import Planned


def launch(launcher: Launcher, directory: Path, trials: Sequence[Planned]) -> None:
    """Have these trials of the sweep in `directory` run; returns when all of them are over."""
    quoted = str(directory).replace("\\", "\\\\").replace("'", "\\'")
    overrides = [
        [
            *planned.cell.overrides,
            f"trial={planned.trial}",
            f"hydra.sweep.dir='{quoted}'",
            f"hydra.sweep.subdir='{planned.directory}'",
        ]
        for planned in trials
    ]
    number = int(trials[0].directory.split("/")[0])
    for done in launcher.launch(overrides, initial_job_idx=number):
        # Hydra catches what a job raises. Ours raises nothing of a trial's, so this must be seen.
        if isinstance(done._return_value, Exception):
            raise done._return_value
