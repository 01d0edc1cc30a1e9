"""Questions before something is made or deleted, and who agrees where nobody can be asked.

Hides that a program without a terminal (cron, CI) has nobody to ask.
"""

import sys
from typing import Annotated

import typer

from imgpull.errors import ConfigError

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def agrees(question: str, yes: bool) -> bool:
    """Whether the user agrees; ConfigError where nobody can be asked."""
    if yes:
        return True
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError(
            f"'{question}' cannot be asked here: no terminal; nothing was done",
            hint="--yes agrees beforehand",
        )
    return typer.confirm(question)


def confirm(question: str, yes: bool) -> None:
    """End the command with exit status 1 unless the user agrees. Errors as of `agrees`."""
    if not agrees(question, yes):
        typer.echo("nothing was done")
        raise typer.Exit(1)
