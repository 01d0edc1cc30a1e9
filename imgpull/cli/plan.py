"""`imgpull plan`: what a sweep would take, before it runs or when it is half done.

Hides how a directory and a matrix are told apart. `-m` is taken, so that a command can be pasted.
"""

from pathlib import Path
from typing import Annotated

import typer

from imgpull.errors import ConfigError

FORMATS = ("table", "csv", "json")


def plan(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DIR | KEY=LEVEL[,LEVEL...] ...",
            help="A sweep's directory: what is left of it. Or a matrix, as for run.py -m.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="table, csv (a line a trial) or json.")
    ] = "table",
    multirun: Annotated[bool, typer.Option("-m", "--multirun", hidden=True)] = False,
) -> None:
    """Print trials in order, hours, node-hours, cost and bytes; run nothing, write nothing."""
    from imgpull.sweep import planning

    if form not in FORMATS:
        raise ConfigError(f"--format {form} is unknown", hint=f"choose {', '.join(FORMATS)}")
    asked = list(what or [])
    if len(asked) == 1 and "=" not in asked[0]:
        raise typer.Exit(planning.show_sweep(Path(asked[0]), form))
    raise typer.Exit(planning.show_command(asked, form))
