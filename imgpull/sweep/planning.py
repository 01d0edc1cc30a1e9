"""The plan of a command that is not running: given as overrides, or remembered by a sweep begun.

Hides how Hydra composes outside its own command line.
"""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgpull.config import schema
from imgpull.config.compose import CONF
from imgpull.config.sweeping import SweepSettings, settings_from
from imgpull.errors import ConfigError
from imgpull.sweep.again import last_command
from imgpull.sweep.differing import refusal
from imgpull.sweep.forecasting.page import show
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.matrix import checked_matrix
from imgpull.sweep.plan import Matrix, matrix_id, plan_trials
from imgpull.sweep.resume import Asked, Earlier, find_earlier

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

_NOT_OURS = ("until", "resume", "hydra.sweep.dir", "hydra.mode")


@dataclass(frozen=True)
class _Asked:
    """What a command spans, and where its sweep would lie."""

    matrix: Matrix
    settings: SweepSettings
    root: Path


def show_command(overrides: Sequence[str], form: str) -> int:
    """Print the plan of `python run.py -m OVERRIDES`; returns the exit status."""
    asked = _composed(overrides)
    earlier = None
    if asked.settings.resume == "auto":
        from imgpull.sweep.resume import sweep_directories

        earlier = _earlier(sweep_directories(asked.root), asked)
    command = shlex.join(["python", "run.py", "-m", *_kept(overrides, ("until",))])
    return _show(asked, earlier, command, form)


def show_sweep(directory: Path, form: str) -> int:
    """Print what is left of a sweep begun; ReportError where there is none.

    ConfigError, with what differs, when its command asks for other cells today.
    """
    directory = directory.absolute()
    told = last_command(directory)
    overrides = _kept(_overrides([str(each) for each in told["arguments"]]), _NOT_OURS)
    cwd = Path(str(told.get("cwd", "")))
    # Relative paths in the command mean what they meant to who typed it.
    with contextlib.chdir(cwd if cwd.is_dir() else Path.cwd()):
        asked = _composed(overrides)
        earlier = _earlier([directory], asked)
        if earlier is None:
            events = Ledger(directory).read()
            raise refusal(directory, events, asked.matrix.cells, asked.settings.seed, own=True)
        return _show(asked, earlier, shlex.join(["imgpull", "resume", str(directory)]), form)


def _show(asked: _Asked, earlier: Earlier | None, command: str, form: str) -> int:
    matrix, settings = asked.matrix, asked.settings
    trials = settings.trial_numbers
    plan = plan_trials(matrix.cells, trials, settings.order, settings.seed, earlier)
    begun = earlier.directory if earlier else None
    root = begun.parent if begun else asked.root
    return show(matrix, plan, settings, root, command, begun=begun, form=form)


def _earlier(candidates: Sequence[Path], asked: _Asked) -> Earlier | None:
    cells, seed = asked.matrix.cells, asked.settings.seed
    wanted = Asked(matrix_id(cells, seed), frozenset(cell.cell_id for cell in cells), seed)
    return find_earlier(candidates, wanted)


def _overrides(arguments: list[str]) -> list[str]:
    """The overrides among the arguments of run.py, as Hydra tells them from its flags."""
    from hydra._internal.utils import get_args_parser

    told = get_args_parser().parse_args(arguments)
    if told.config_dir or told.config_name or told.config_path:
        raise ConfigError(
            "the sweep was started with a configuration of its own (--config-…)",
            hint=f"plan it so: {shlex.join(['python', 'run.py', *arguments, 'until=plan'])}",
        )
    return [str(override) for override in told.overrides]


def _kept(overrides: Sequence[str], without: Sequence[str]) -> list[str]:
    return [o for o in overrides if o.lstrip("+~").partition("=")[0] not in without]


def _composed(overrides: Sequence[str]) -> _Asked:
    # Engines ask no cluster for a plan.
    asked = [*_kept(overrides, ("until",)), "until=plan"]
    with _hydra(asked) as (loader, config):
        params = {str(key): str(value) for key, value in config.hydra.sweeper.params.items()}
        arguments = [f"{key}={value}" for key, value in params.items()]
        arguments += [str(override) for override in config.hydra.overrides.task]
        matrix = checked_matrix(loader, config, arguments)
        root = Path(config.hydra.sweep.dir).absolute().parent
    return _Asked(matrix, settings_from(matrix.cells[0].values), root)


@contextlib.contextmanager
def _hydra(overrides: Sequence[str]) -> "Iterator[tuple[ConfigLoader, DictConfig]]":
    """Hydra's loader and the configuration that its sweeper would be given."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf.errors import OmegaConfBaseException

    schema.register()
    _find_plugins()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        try:
            config = loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)
            yield loader, config
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(
                " ".join(str(error).split()), hint="write them as for run.py: KEY=LEVEL,LEVEL"
            ) from error


def _find_plugins() -> None:
    """Let Hydra find hydra_plugins/ beside run.py."""
    import sys

    if str(CONF.parent) not in sys.path:
        sys.path.append(str(CONF.parent))
