"""`imgpull report`: a sweep's summary, plots and report written again from its directories alone.

Hides nothing but the command line: what is written is the end of a sweep's, in sweep/ending.py.
"""

from pathlib import Path
from typing import Annotated

import typer

from imgpull.cli.compare import one_thread
from imgpull.errors import ReportError


def report(
    directory: Annotated[Path, typer.Argument(help="A sweep's directory under multirun/.")],
) -> None:
    """Write summary.csv, plots, report.html and report.md again, from the directories alone."""
    one_thread()
    from rich.console import Console

    from imgpull.results.record import job_directories
    from imgpull.sweep.ending import conclude

    if not job_directories(directory):
        raise ReportError(
            f"{directory} holds no finished trial", hint="name a sweep's directory under multirun/"
        )
    end = conclude(directory, Console(highlight=False))
    for warning in end.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for path in end.plots or ():
        typer.echo(f"plot:     {path}")
    for path in end.report or ():
        typer.echo(f"report:   {path}")
    typer.echo(f"summary:  {end.summary or directory}")
