"""`imgpull status`: how a sweep stands, asked from another shell while it runs, or afterwards.

Hides how a page is drawn again and again.
"""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

_EVERY_S = 2.0


def status(
    directory: Annotated[
        Path | None,
        typer.Argument(help="A sweep's directory; default: the newest under multirun/."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    watch: Annotated[bool, typer.Option(help="Again every two seconds, until it ends.")] = False,
) -> None:
    """Say how a sweep stands: trials done, running and left, verdicts, time left, limits."""
    from imgpull.sweep.watching import page as status_page
    from imgpull.sweep.watching import status as sweeps

    directory = directory or sweeps.newest_sweep(Path("multirun"))
    while True:
        found = sweeps.read_status(directory)
        if watch and sys.stdout.isatty():
            typer.echo("\x1b[H\x1b[2J", nl=False)  # from the top of an empty screen
        if as_json:
            typer.echo(json.dumps(found.as_json(), sort_keys=True))
        else:
            typer.echo("\n".join(status_page.lines(found)))
        if not watch or found.state != "running":
            return
        try:
            time.sleep(_EVERY_S)
        except KeyboardInterrupt:
            return
