"""`imgpull compare A B`: two sweeps, trials or MLflow runs held against each other.

Hides what a name on the command line may be: a directory, or the id of a run.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imgpull import units
from imgpull.errors import ConfigError, ReportError

if TYPE_CHECKING:
    from imgpull.analysis.sides import Side

Allow = Annotated[
    str | None,
    typer.Option(help="Fields that may differ, a,b,…; `cluster` stands for all of a cluster's."),
]
Uri = Annotated[str | None, typer.Option(help="The MLflow server that knows the runs.")]
Percent = Annotated[str, typer.Option(help="An interval within so much of no change is the same.")]


def compare(
    before: Annotated[
        str, typer.Argument(metavar="A", help="A sweep's or trial's directory, or an MLflow run.")
    ],
    after: Annotated[str, typer.Argument(metavar="B", help="What is held against it.")],
    measurement: Annotated[
        str, typer.Option(help="Named as in MLflow: quantity_unit/statistic.")
    ] = "image_pull_s/p50",
    allow: Allow = None,
    format: Annotated[str, typer.Option(help="table, csv, json or markdown.")] = "table",
    same_within: Percent = "5%",
    uri: Uri = None,
) -> None:
    """Say what differs between two sweeps, by how much and how sure, cell by cell."""
    one_thread()
    from imgpull.analysis import comparison_text as text
    from imgpull.analysis.comparing import compare_sides

    if format not in text.FORMATS:
        raise ConfigError(
            f"--format {format} is unknown", hint=f"choose one of {', '.join(text.FORMATS)}"
        )
    found = compare_sides(
        *sides(before, after, uri),
        measurement=measurement,
        allow=names(allow),
        same_within=share(same_within, "--same-within"),
    )
    if format == "table":
        from rich.console import Console

        text.print_comparison(found, Console(highlight=False))
        return
    write = {"csv": text.as_csv, "json": text.as_json, "markdown": text.markdown}[format]
    typer.echo(write(found), nl=False)


def one_thread() -> None:
    """Keep numpy to one processor: of matrices this small, threads only cost time.

    Before numpy is loaded, which reads it; the user's own setting wins.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def sides(before: str, after: str, uri: str | None) -> "tuple[Side, Side]":
    """Both sides, read."""
    from imgpull.analysis.sides import read_side

    return read_side(directory(before, uri)), read_side(directory(after, uri))


def names(allow: str | None) -> tuple[str, ...]:
    """The fields of a list with commas."""
    return tuple(part.strip() for part in (allow or "").split(",") if part.strip())


def share(text: str, option: str) -> float:
    """A share of an option that is written in per cent; ConfigError names the option."""
    try:
        return units.parse_share(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text}: {error}", hint=f"{option} 10%") from error


def directory(reference: str, uri: str | None) -> Path:
    """The directory of a sweep or trial, or the one that an MLflow run was logged from."""
    path = Path(reference)
    if path.is_dir():
        return path
    if not re.fullmatch(r"[0-9a-f]{32}", reference):  # as MLflow's ids all are
        raise ReportError(
            f"{reference} is no directory, nor the id of an MLflow run",
            hint="name a sweep's directory under multirun/",
        )
    from imgpull import tracking
    from imgpull.config import schema
    from imgpull.sweep.tracked import ROOT

    kind = schema.TrackingKind.server if uri else schema.TrackingKind.local
    return tracking.run_directory(reference, schema.Tracking(kind=kind, uri=uri), ROOT)
