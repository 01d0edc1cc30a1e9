"""`imgpull gate`: an exit status for CI, 0 no regression, 3 regression, 4 cannot tell.

Hides how the answer is printed and written for a CI system.
"""

from pathlib import Path
from typing import Annotated

import typer

from imgpull.cli.compare import Allow, Uri, names, share, sides


def gate(
    after: Annotated[
        str, typer.Argument(metavar="B", help="A sweep's directory, or an MLflow run.")
    ],
    baseline: Annotated[str, typer.Option(metavar="A", help="What it is held against.")],
    max_regression: Annotated[
        str, typer.Option(help="The mean slowdown of a cell that is let through.")
    ] = "10%",
    min_effect: Annotated[
        str, typer.Option(help="A smaller mean slowdown is noise; auto: what chance shows.")
    ] = "auto",
    spread: Annotated[
        str, typer.Option(help="How much trials of a cell are expected to differ, for auto.")
    ] = "10%",
    measurement: Annotated[
        str, typer.Option(help="Named as in MLflow: quantity_unit/statistic.")
    ] = "image_pull_s/p50",
    allow: Allow = None,
    acknowledged: Annotated[
        Path | None, typer.Option(help="YAML: accepted regressions, with reason and expiry.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML there.")] = None,
    uri: Uri = None,
) -> None:
    """Exit with 3 if B is slower than A by more than is let through, 4 if that cannot be told."""
    from datetime import date

    from imgpull.analysis import gating
    from imgpull.analysis.acknowledging import read_acknowledged
    from imgpull.analysis.comparison_text import incidents
    from imgpull.analysis.junit import write_junit
    from imgpull.analysis.likeness import Unlike
    from imgpull.analysis.sides import CannotTell

    limits = gating.Limits(
        share(max_regression, "--max-regression"),
        None if min_effect == "auto" else share(min_effect, "--min-effect"),
        share(spread, "--spread"),
    )
    accepted = read_acknowledged(acknowledged) if acknowledged else []
    try:
        found = gating.gate(
            *sides(baseline, after, uri),
            measurement=measurement,
            limits=limits,
            allow=names(allow),
            acknowledged=accepted,
            today=date.today(),
        )
    except (Unlike, CannotTell) as error:
        typer.echo(f"cannot tell: {error}", err=True)
        if junit:
            refusal = gating.Judged("both sides", gating.UNKNOWN, error.message)
            write_junit(junit, measurement, [refusal], [])
        raise typer.Exit(gating.CANNOT_TELL) from error
    for line in gating.lines(found):
        typer.echo(line)
    if junit:
        remarks = [*incidents(found.comparison), *found.remarks]
        write_junit(junit, measurement, found.cells, remarks)
    raise typer.Exit(found.status)
