"""Where a sweep lies: the directory that its command names, or a new one of its own.

Hides that two sweeps may start in one second, that a named directory may hold something, and that a
place may not be written.
"""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from imgpull.errors import ConfigError, LedgerError
from imgpull.results.record import sync_directory
from imgpull.sweep.ledger import NAME as LEDGER
from imgpull.sweep.ledger import Ledger

MULTIRUN = "multirun.yaml"
PROGRAM = Path(__file__).resolve().parents[2] / "run.py"


def wanted_directory(config: DictConfig) -> Path:
    """Where the command wants its sweep, a random tail aside."""
    return Path(config.hydra.sweep.dir).absolute()


def is_named(config: DictConfig) -> bool:
    """Whether the command names the sweep's directory; otherwise it is a time and needs a tail."""
    return any(o.lstrip("+").startswith("hydra.sweep.dir=") for o in config.hydra.overrides.hydra)


def require_free(config: DictConfig) -> None:
    """ConfigError when the directory that the command names holds something."""
    wanted = wanted_directory(config)
    try:
        taken = is_named(config) and wanted.is_dir() and not _is_unused(wanted)
    except OSError as error:
        raise unusable(wanted, error) from error
    if taken:
        sweep = (wanted / LEDGER).exists()
        raise ConfigError(
            f"hydra.sweep.dir={wanted} {'holds a sweep already' if sweep else 'is not empty'}",
            hint="name another directory"
            + (", or continue the same sweep with resume=auto" if sweep else ""),
        )


def _is_unused(directory: Path) -> bool:
    """Whether nothing is in it, or what a sweep leaves that was killed before its first line."""
    names = {path.name for path in directory.iterdir()}
    return names <= {LEDGER, MULTIRUN, f"{MULTIRUN}.tmp"} and not Ledger(directory).read()


def unusable(place: Path, error: OSError) -> ConfigError:
    """The error for a place that a sweep cannot be written to."""
    return ConfigError(
        f"{place} cannot be written: {error.strerror or error}",
        hint="free it or name another place: hydra.sweep.dir=DIR",
    )


@contextmanager
def begun_in_new_directory(config: DictConfig) -> Iterator[Path]:
    """As `new_directory`; it is gone again when this ends before the sweep has begun in it."""
    directory = new_directory(config)
    try:
        yield directory
    except BaseException as error:
        if _has_begun(directory):
            raise
        shutil.rmtree(directory, ignore_errors=True)
        if isinstance(error, LedgerError) and isinstance(error.__cause__, OSError):
            # Its own hint is to resume, which there is nothing of.
            raise unusable(directory, error.__cause__) from error
        raise


def _has_begun(directory: Path) -> bool:
    try:
        return any(event["event"] == "sweep" for event in Ledger(directory).read())
    except LedgerError:
        return False


def new_directory(config: DictConfig) -> Path:
    """A directory of the sweep's own: a random tail, because two may start in one second.

    ConfigError where it cannot be made.
    """
    try:
        return _made(config)
    except OSError as error:
        raise unusable(wanted_directory(config), error) from error


def with_tail(wanted: Path) -> Path:
    """A place named after a time, with a random tail: two sweeps may start in one second."""
    return wanted.with_name(f"{wanted.name}_{secrets.token_hex(2)}")


def _made(config: DictConfig) -> Path:
    wanted = wanted_directory(config)
    if is_named(config):
        wanted.mkdir(parents=True, exist_ok=True)
        sync_directory(wanted.parent)
        return wanted
    while True:
        directory = with_tail(wanted)
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            continue
        sync_directory(directory.parent)
        return directory
