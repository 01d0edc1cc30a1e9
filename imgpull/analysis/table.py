"""The table at the end of a sweep: one line per cell, what differs first, what is shared said once.

Hides how a cell fits a line of a terminal: headers of a few lines that carry statistic and unit,
and footnotes for what a column has no room to say.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from imgpull.analysis.cells import NOT_DONE, cells, unknown, varied, with_undone
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

# Header, column of a cell, column with the count behind its quantile: {top} is "max" or "p99".
_COLUMNS = (
    ("startup\np50 s", "pod_startup_p50_s", ""),
    ("startup\n{top} s", "pod_startup_p99_s", "pods"),
    ("pull\np50 s", "image_pull_p50_s", ""),
    ("\n±%", "half_interval", ""),  # only where trials repeat
    ("pull\n{top} s", "image_pull_p99_s", "pulls"),
    ("wait\n{top} s", "image_pull_wait_p99_s", "image_pull_waits"),
    ("node\nMiB/s", "node_throughput_p50_mib_s", ""),
    ("data\nGiB", "data_total_gib", ""),
    ("cold\n%", "cold_share", ""),
)
_ALWAYS = 3  # of these columns, even on a terminal too narrow for them
_GAP = 2
_STYLES = {"failed": "red", "invalid": "red", "degraded": "yellow", NOT_DONE: "yellow"}


def print_table(
    frame: pd.DataFrame, console: "Console", undone: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Print one line per cell: its trials' geometric means, and "-" where nothing is known.

    `undone` are trials that were asked for and did not run. A terminal too narrow loses columns
    from the right, never digits; a file has no width.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    if frame.empty:
        console.print("no trial has finished: there is nothing to compare", highlight=False)
        return
    frame = with_undone(frame, undone)
    by_cell, keys = cells(frame), varied(frame)
    rows = [cell for _, cell in by_cell.iterrows()]
    named = [(short(key, keys), [level_text(cell[key]) for cell in rows]) for key in keys]
    named = named or [("cell", [cell_text(cell, []) for cell in rows])]
    by_cell["half_interval"] = _half_intervals(by_cell)
    rows = [cell for _, cell in by_cell.iterrows()]
    left_out = "half_interval" if not _repeats(by_cell) else "cold_share" * _all_cold(by_cell)
    known = [item for item in _COLUMNS if item[1] != left_out]
    below = "\n" * _means(by_cell)  # a line more, which names what trials are summed up by
    columns = [(f"\n{below}{name}", texts) for name, texts in named] + [
        (_header(by_cell, *item), [_number(cell, item[1]) for cell in rows]) for item in known
    ]
    verdicts = [_verdict(cell) for cell in rows]
    folded = ("verdict", [word for verdict in verdicts for word in verdict.plain.split()])
    hidden: list[str] = []
    while console.is_terminal and _width([*columns, folded]) > console.width:
        if len(columns) == len(named) + _ALWAYS:
            break
        hidden.insert(0, columns.pop()[0].removesuffix("\nmean").replace("\n", " "))
    natural = _width([*columns, ("verdict", [verdict.plain for verdict in verdicts])])
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.width = min(natural, console.width) if console.is_terminal else natural
    for header, _ in columns:
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column(f"\n{below}verdict")
    for row, verdict in enumerate(verdicts):
        table.add_row(*(Text(texts[row]) for _, texts in columns), verdict)
    console.print(table, crop=False)
    for line in _caption(frame, by_cell, hidden):
        console.print(Text(line, style="dim"))


def _half_intervals(by_cell: pd.DataFrame) -> "pd.Series[float]":
    """How far the interval of the pull's p50 reaches, in per cent; NaN where there is none."""
    ends = by_cell["image_pull_p50_high_s"] / by_cell["image_pull_p50_low_s"]
    return 100 * (ends**0.5 - 1)


def _repeats(by_cell: pd.DataFrame) -> bool:
    return bool(by_cell["image_pull_p50_low_s"].notna().any())


def _all_cold(by_cell: pd.DataFrame) -> bool:
    """Whether the column has nothing to tell, so that the interval may have its place."""
    known = by_cell.loc[by_cell["n_trials"] > 0, "cold_share"]
    return bool((known == 1).all())


def _width(columns: list[tuple[str, list[str]]]) -> int:
    """Characters of a line that folds nothing."""
    widths = [
        max(len(line) for text in (header, *texts) for line in text.split("\n"))
        for header, texts in columns
    ]
    return sum(widths) + _GAP * (len(widths) - 1)


def _means(by_cell: pd.DataFrame) -> bool:
    """Whether some number is that of several trials."""
    return bool((by_cell["n_trials"] > 1).any())


def _header(by_cell: pd.DataFrame, header: str, column: str, count: str) -> str:
    statistic = "\nmean" if _means(by_cell) and column != "half_interval" else ""
    return header.format(top=top_quantile(_counts(by_cell, count)) if count else "") + statistic


def _counts(by_cell: pd.DataFrame, column: str) -> "pd.Series[Any]":
    """How many values stand behind a quantile, in the cells that have one."""
    counts: pd.Series[Any] = by_cell.loc[by_cell["n_trials"] > 0, column]
    return counts


def _number(cell: "pd.Series[Any]", column: str) -> str:
    value = cell[column]
    bound = cell.get(f"{column.removesuffix('_s')}_at_least_s")
    if bound is not None and not unknown(bound):
        return f"over {number(bound)}"
    if unknown(value):
        return "-"
    if column == "half_interval":
        return f"{value:.1f}" if value < 10 else f"{value:.0f}"
    return number(value * 100 if column == "cold_share" else value)


def _verdict(cell: "pd.Series[Any]") -> "Text":
    from rich.text import Text

    words = str(cell["verdicts"])
    style = next((style for word, style in _STYLES.items() if word in words), "")
    return Text(words + "*" * bool(cell["slo_missed"]), style=style)


def _caption(frame: pd.DataFrame, by_cell: pd.DataFrame, hidden: list[str]) -> list[str]:
    shared = constants(frame)
    lines = [f"{shared}; {engine_text(frame)}" if shared else engine_text(frame)]
    counts = [_counts(by_cell, count) for _, _, count in _COLUMNS if count]
    if any(top_quantile(n) == "p99" and (n < MAXIMUM_BELOW).any() for n in counts):
        lines.append(f"a p99 of fewer than {MAXIMUM_BELOW} values is their maximum")
    if _means(by_cell):
        also = "; ± is its 95 % interval" * _repeats(by_cell)
        lines.append(f"mean: the geometric mean of the trials that count{also}")
    if _repeats(by_cell) and _all_cold(by_cell):
        lines.append("every pull was cold")
    if by_cell["slo_missed"].any():
        lines.append("* slo missed: a startup limit, wait or threshold; a result, no fault")
    if hidden:
        lines.append(f"too narrow here for {', '.join(hidden)}: see summary.csv")
    return lines
