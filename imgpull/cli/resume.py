"""`imgpull resume DIR`: go on with a sweep, by its own command."""

from pathlib import Path
from typing import Annotated

import typer


def resume(
    directory: Annotated[Path, typer.Argument(help="A sweep's directory under multirun/.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Further overrides: trials=5, max_hours=8, more levels of a factor."),
    ] = None,
) -> None:
    """Run what is missing, failed or invalid of a sweep, by the command that began it."""
    from imgpull.sweep import again

    again.resume(directory, overrides or [])
