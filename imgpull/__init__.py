"""Container image pulls on Kubernetes as a declarative experiment matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from imgpull.analysis.frames import Sweep

__version__ = "0.1.0"
__all__ = ["__version__", "load_sweep"]


def load_sweep(directory: str | Path) -> Sweep:
    """Read a sweep's directory as pandas frames; ReportError when it holds no finished trial."""
    # Here, because pandas takes longer to load than most commands to run.
    from imgpull.analysis.frames import load_sweep as load

    return load(directory)
