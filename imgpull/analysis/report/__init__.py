"""The report of a sweep: `report.html` for readers, `report.md` for a pull request.

Both are written from the sweep's directories alone and say the same; equal sweeps get equal files.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from imgpull.analysis.report.gathered import gather
from imgpull.analysis.report.markdown import write_markdown
from imgpull.analysis.report.page import write_page

__all__ = ["write_report"]


def write_report(sweep_dir: Path, frame: pd.DataFrame, notes: Sequence[str] = ()) -> list[Path]:
    """Write both files and name them; `frame` is the sweep as `read_sweep` has it."""
    found = gather(sweep_dir, frame, notes)
    return [write_page(sweep_dir, frame, found), write_markdown(sweep_dir, found)]
