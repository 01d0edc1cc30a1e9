"""A configuration composed outside Hydra's own command line, for `imgpull doctor`.

Hides Hydra's global state: it is entered and left in here.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from imgpull.config import job as jobs
from imgpull.config import schema
from imgpull.errors import ConfigError

CONF = Path(__file__).resolve().parents[2] / "conf"


def composed_job(overrides: Sequence[str], conf: Path = CONF) -> jobs.Job:
    """The Job that `python run.py OVERRIDES` would run first; ConfigError names key and fix."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    schema.register()
    if str(conf.parent) not in sys.path:  # where Hydra finds hydra_plugins/, as beside run.py
        sys.path.append(str(conf.parent))
    try:
        with initialize_config_dir(config_dir=str(conf), version_base="1.3"):
            config = compose("config", overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(
            " ".join(str(error).split()), hint="write them as for run.py: KEY=LEVEL, no lists"
        ) from error
    return jobs.job_from(jobs.resolve(config))
