"""`imgpull …`: what is done besides a sweep: after it from its directories, around it on a cluster.

Hides Typer. Sweeps themselves are Hydra's command line: python run.py. Also: python -m imgpull.cli.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from imgpull import __version__
from imgpull.cli import clusters, compare, explain, gate, plan, report, resume, status
from imgpull.errors import ConfigError, ImgpullError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="What to do before and after a sweep. A sweep itself: python run.py --help",
)
app.add_typer(clusters.cluster, name="cluster")
app.add_typer(clusters.image, name="image")
app.command()(clusters.doctor)
app.command()(clusters.janitor)
app.command()(compare.compare)
app.command()(explain.explain)
app.command()(gate.gate)
app.command()(plan.plan)
app.command()(report.report)
app.command()(resume.resume)
app.command()(status.status)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"imgpull {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Comparable container image pull measurements on Kubernetes."""


@app.command()
def log(
    directory: Annotated[
        Path, typer.Argument(help="A sweep's directory under multirun/, or one trial's.")
    ],
    uri: Annotated[
        str | None, typer.Option(help="An MLflow server; without it mlflow.db beside run.py.")
    ] = None,
    experiment: Annotated[str, typer.Option(help="The MLflow experiment.")] = "imgpull",
) -> None:
    """Log finished trials to MLflow (again): what is there already is not doubled."""
    from imgpull.sweep import replaying

    for line in replaying.log_again(directory, uri=uri, experiment=experiment):
        typer.echo(line)


@app.command()
def reproduce(
    directory: Annotated[Path, typer.Argument(help="One trial's directory: multirun/…/0")],
    into: Annotated[
        Path | None, typer.Option(help="A new directory; default: a new one under multirun/.")
    ] = None,
    until: Annotated[str, typer.Option(help="render (compare the bundle) or run.")] = "run",
) -> None:
    """Run a trial again from its own snapshot and say whether bundle and report are the same."""
    from imgpull.sweep import replaying

    if until not in ("render", "run"):
        raise ConfigError(f"--until {until} is unknown", hint="choose render or run")
    same, lines = replaying.reproduce(directory, into=into, run=until == "run")
    for line in lines:
        typer.echo(line)
    if not same:
        raise typer.Exit(1)


def main() -> None:
    """The `imgpull` command: known errors are one line and a fix, exit status 2."""
    try:
        app()
    except ImgpullError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
