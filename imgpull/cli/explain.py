"""`imgpull explain`: whether a sweep may be believed, and where its time went.

Hides how a roll-up fits a terminal: the sweep, then each cell with its reasons and its call.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from imgpull.analysis.bottleneck import Call
    from imgpull.analysis.verdicts import Rolled


def explain(
    directory: Annotated[Path, typer.Argument(help="A sweep's directory under multirun/.")],
) -> None:
    """Say which trials count and why, what is flagged, and what held each cell's pods up."""
    from imgpull.analysis.bottleneck import calls
    from imgpull.analysis.verdicts import roll_up
    from imgpull.errors import ReportError
    from imgpull.results.record import job_directories

    if not job_directories(directory):
        raise ReportError(
            f"{directory} holds no finished trial",
            hint="name a sweep's directory: multirun/DATE_TIME_…",
        )
    told = {(call.cell_id, call.name): call for call in calls(directory)}
    for rolled in roll_up(directory):
        if rolled.level == "trial":
            continue
        for line in _lines(rolled):
            typer.echo(line)
        if rolled.level == "cell":
            for line in _call(told[rolled.cell_id, rolled.name]):
                typer.echo(line)


def _lines(rolled: "Rolled") -> list[str]:
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in rolled.verdicts.items())
    head = f"{rolled.level} {rolled.name}: {verdicts}"
    if rolled.slo_missed:
        head += f"; {rolled.slo_missed} missed a limit"
    lines = [head]
    if rolled.flags:
        flags = ", ".join(f"{count} {kind}" for kind, count in sorted(rolled.flags.items()))
        lines.append(f"  pulls flagged: {flags}")
    for reason, count in rolled.reasons if rolled.level == "cell" else ():
        lines.append(f"  {count} x {reason}")
    return lines


def _call(call: "Call") -> list[str]:
    named = " or ".join((call.limit, *call.also)).replace("_", " ")
    head = f"  where the time went: {named}{'' if call.sure else ' (not sure)'}"
    return [head, *(f"    {sentence}" for sentence in call.evidence)]
