"""The table at the end of a sweep: one line per cell, what differs first, what is shared said once.

Hides how a cell fits a line of a terminal: two-line headers that carry the unit, and footnotes for
what a column has no room to say.
"""

from typing import TYPE_CHECKING, Any

import pandas as pd

from imgpull.analysis.cells import cells, unknown, varied
from imgpull.analysis.wording import (
    MAXIMUM_BELOW,
    cell_text,
    constants,
    engine_text,
    level_text,
    number,
    short,
    top_quantile,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Header, column of a cell; {top} is "max" or "p99", by the count in the third place.
_COLUMNS = (
    ("startup\np50 s", "pod_startup_p50_s", ""),
    ("startup\n{top} s", "pod_startup_p99_s", "pods"),
    ("pull\np50 s", "image_pull_p50_s", ""),
    ("pull\n{top} s", "image_pull_p99_s", "pulls"),
    ("wait\n{top} s", "image_pull_wait_p99_s", "image_pull_waits"),
    ("node\nMiB/s", "node_throughput_p50_mib_s", ""),
    ("data\nGiB", "data_total_gib", ""),
    ("cold\n%", "cold_share", ""),
)
_STYLES = {"failed": "red", "invalid": "red", "degraded": "yellow"}


def print_table(frame: pd.DataFrame, console: "Console") -> None:
    """Print one line per cell: medians over its trials, and "-" where nothing is known."""
    from rich.box import SIMPLE_HEAD
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    if frame.empty:
        console.print("no trial has finished: there is nothing to compare", highlight=False)
        return
    by_cell, keys = cells(frame), varied(frame)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for key in keys or ["cell"]:
        table.add_column(f"\n{short(key, keys)}", justify="right", overflow="fold")
    for header, _, count in _COLUMNS:
        top = top_quantile(_counts(by_cell, count)) if count else ""
        table.add_column(header.format(top=top), justify="right", no_wrap=True)
    table.add_column("\nverdict")
    for _, cell in by_cell.iterrows():
        levels = [level_text(cell[key]) for key in keys] or [cell_text(cell, [])]
        numbers = [_number(cell, column) for _, column, _ in _COLUMNS]
        table.add_row(*map(Text, (*levels, *numbers)), _verdict(cell))
    # A log file has no width: there a long line is easier to read than a folded one.
    natural = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    table.width = min(natural, console.width) if console.is_terminal else natural
    console.print(table, crop=False)
    for line in _caption(frame, by_cell):
        console.print(Text(line, style="dim"))


def _counts(by_cell: pd.DataFrame, column: str) -> "pd.Series[Any]":
    """How many values stand behind a quantile, in the cells that have one."""
    counts: pd.Series[Any] = by_cell.loc[by_cell["n_trials"] > 0, column]
    return counts


def _number(cell: "pd.Series[Any]", column: str) -> str:
    value = cell[column]
    if column == "image_pull_p99_s" and not unknown(bound := cell["image_pull_p99_at_least_s"]):
        return f"over {number(bound)}"
    if unknown(value):
        return "-"
    return number(value * 100 if column == "cold_share" else value)


def _verdict(cell: "pd.Series[Any]") -> "Text":
    from rich.text import Text

    words = str(cell["verdicts"])
    style = next((style for word, style in _STYLES.items() if word in words), "")
    return Text(words + "*" * bool(cell["slo_missed"]), style=style)


def _caption(frame: pd.DataFrame, by_cell: pd.DataFrame) -> list[str]:
    shared = constants(frame)
    lines = [f"{shared}; {engine_text(frame)}" if shared else engine_text(frame)]
    counts = [_counts(by_cell, count) for _, _, count in _COLUMNS if count]
    if any(top_quantile(n) == "p99" and (n < MAXIMUM_BELOW).any() for n in counts):
        lines.append(f"a p99 of fewer than {MAXIMUM_BELOW} values is their maximum")
    if (by_cell["n_trials"] > 1).any():
        lines.append("numbers are medians over the trials that count")
    if by_cell["slo_missed"].any():
        lines.append("* slo missed: pod startup over its threshold, a result and no fault")
    return lines
