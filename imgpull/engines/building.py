"""What a sweep wishes of the cluster that is built for it.

Hides nothing but Terraform: whoever opens a session says this, and need not load it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgpull.engines.door import Say


@dataclass(frozen=True)
class Building:
    """What a sweep wishes of the cluster that is built for it."""

    directory: Path  # of the sweep
    lasts_s: float | None  # as far as predicted, set-up included
    limit_s: float  # of one command of terraform
    keep: bool
    done_with: Callable[[], bool]  # it ended well, or may spend no more
    announce: Say  # what must stay on the screen
    cost: Callable[[Sequence[Any], str], object]  # of machines in a region, an hour, in words
