"""The command of a sweep begun, run again in its directory.

Hides where the command is remembered: in the ledger, or in multirun.yaml when that is lost; and
that Hydra's command line is a program of its own.
"""

import contextlib
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from imgpull.errors import ReportError
from imgpull.sweep.ledger import Event, Ledger
from imgpull.sweep.places import MULTIRUN, PROGRAM
from imgpull.sweep.rebuilding import first_command

_REPLACED = ("resume", "hydra.sweep.dir", "until")


def resume(directory: Path, further: Sequence[str]) -> None:
    """Run the sweep's last command again, with further overrides; ends with SystemExit.

    ReportError when the directory holds no sweep.
    """
    directory = directory.absolute()
    told = last_command(directory)
    arguments = resumed_arguments([str(each) for each in told["arguments"]], directory, further)
    cwd = Path(str(told.get("cwd", "")))
    before = sys.argv
    sys.argv = ["run.py", *arguments]
    if str(PROGRAM.parent) not in sys.path:
        sys.path.insert(0, str(PROGRAM.parent))  # hydra_plugins lies there
    try:
        # Relative paths in the command mean what they meant to who typed it.
        with contextlib.chdir(cwd if cwd.is_dir() else Path.cwd()):
            runpy.run_path(str(PROGRAM), run_name="__main__")
    finally:
        sys.argv = before


def resumed_arguments(
    arguments: Sequence[str], directory: Path, further: Sequence[str]
) -> list[str]:
    """Flags first, then the overrides of the command, then further ones, which win."""
    from hydra._internal.utils import get_args_parser

    overrides = [str(each) for each in get_args_parser().parse_args(list(arguments)).overrides]
    flags = list(arguments)
    for override in overrides:
        flags.remove(override)
    kept = [o for o in overrides if o.lstrip("+").partition("=")[0] not in _REPLACED]
    quoted = str(directory).replace("\\", "\\\\").replace("'", "\\'")
    return [*flags, *kept, *further, "resume=auto", f"hydra.sweep.dir='{quoted}'"]


def is_own_command(arguments: Sequence[str], directory: Path) -> bool:
    """Whether these arguments of run.py are `imgpull resume DIR`, with nothing further."""
    try:
        told = last_command(directory)["arguments"]
    except ReportError:
        return False
    return list(arguments) == resumed_arguments([str(each) for each in told], directory, [])


def last_command(directory: Path) -> Event:
    """The `sweep` line of the newest session, or what multirun.yaml has of it: `arguments`, `cwd`.

    ReportError when nothing remembers a command.
    """
    begun = [e for e in Ledger(directory).read() if e["event"] == "sweep" and "arguments" in e]
    told = begun[-1] if begun else first_command(directory)
    if "arguments" not in told:
        where = shlex.quote(f"hydra.sweep.dir={directory}")
        raise ReportError(
            f"{directory} remembers no command: neither ledger.jsonl nor {MULTIRUN} has it",
            hint="name a sweep's directory under multirun/, or give the command again: "
            f"python run.py ... resume=auto {where}",
        )
    return told
