"""A comparison as a table, CSV, JSON or Markdown for a pull request.

Hides how effects, bounds and verdicts are written; what differs between the sides stands first.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from imgpull.analysis.comparing import INCONCLUSIVE, SAME, CellPair, Comparison
from imgpull.analysis.statistics import ALPHA, Estimate, Ratio
from imgpull.analysis.wording import SIMULATED, bounded_change, level_text, number, plural
from imgpull.units import GIB, MIB

if TYPE_CHECKING:
    from rich.console import Console

FORMATS = ("table", "csv", "json", "markdown")
_UNITS = {"s": ("s", 1.0), "bytes": ("GiB", GIB), "bytes/s": ("MiB/s", MIB), "1": ("", 1.0)}
_NO_WIDTH = 100_000  # characters
_SHOWN = 5  # names of cells that only one side has


def percent_interval(low: float, high: float) -> str:
    """The limits of a ratio in per cent: 1.24 and 1.39 -> "[24, 39]"; sharper when narrow."""
    ends = [(one - 1) * 100 for one in (low, high)]
    digits = 1 if abs(ends[1] - ends[0]) < 2 else 0
    return f"[{', '.join(_rounded(end, digits) for end in ends)}]"


def _rounded(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text if float(text) else "0"


def effect_text(ratio: Ratio) -> str:
    """ "+31 %", "at least +400 %" where only a bound is known, "-" for nothing."""
    return "-" if ratio.ratio is None else bounded_change(ratio.ratio, ratio.bound)


def interval_text(ratio: Ratio) -> str:
    """ "[24, 39]", or "-" where there is none."""
    if ratio.low is None or ratio.high is None:
        return "-"
    return percent_interval(ratio.low, ratio.high)


def verdict_text(cell: CellPair) -> str:
    """ "slower", "same within 3 %", "inconclusive: too few trials to tell"."""
    if cell.verdict == SAME and cell.within is not None:
        return f"same within {max(1, math.ceil(cell.within * 100 - 1e-9))} %"
    told = cell.verdict == INCONCLUSIVE and cell.ratio.enough and cell.ratio.ratio is not None
    return f"{cell.verdict}: {cell.ratio.note}" if cell.ratio.note and not told else cell.verdict


def print_comparison(found: Comparison, console: "Console") -> None:
    """What differs, then one line a cell."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    for line in heading(found):
        console.print(Text(line), soft_wrap=True)
    keys, rows = _columns(found)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for key in keys:
        last = key == "verdict"
        table.add_column(key, justify="left" if last else "right", no_wrap=not last)
    for row in rows:
        table.add_row(*(Text(text) for text in row))
    if not console.is_terminal:  # a file has no width
        wide = console.options.update(max_width=_NO_WIDTH)
        table.width = console.measure(table, options=wide).maximum
    console.print(table, crop=False)
    for line in closing(found):
        console.print(Text(line), soft_wrap=True)


def heading(found: Comparison) -> list[str]:
    """The two sides, what differs between them, and what was compared."""
    lines = [
        f"{letter}: {side.path} ({_size(side.trials, side.counted)})"
        for letter, side in (("A", found.before), ("B", found.after))
    ]
    if found.differences:
        lines += [f"differs: {one}" for one in found.differences]
    else:
        lines.append("differs: nothing that the records name")
    lines += incidents(found)
    for letter, names in (("A", found.only_before), ("B", found.only_after)):
        if names:
            more = f"; {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(f"only in {letter}: {'; '.join(names[:_SHOWN])}{more}")
    for letter, side in (("A", found.before), ("B", found.after)):
        if lacking := sum(found.quantity.of(trial) is None for trial in side.counted):
            lines.append(
                f"left out of {letter}: {plural(lacking, 'trial')} without {found.quantity.text} "
                "(never measured, or a pull was not over when the wait ended)"
            )
    return lines


def incidents(found: Comparison) -> list[str]:
    """ "B: 22 of 40 pulls throttled; 3 trials missed a limit", for each side where any were."""
    lines = []
    for letter, side in (("A", found.before), ("B", found.after)):
        counts = side.incidents
        pulls = [
            f"{counts[key]} {word}"
            for key, word in (
                ("throttled", "throttled"),
                ("failed", "failed"),
                ("censored", "not over at the deadline"),
            )
            if counts[key]
        ]
        parts = [f"of {plural(counts['pulls'], 'pull')} {', '.join(pulls)}"] if pulls else []
        if counts["slo_missed"]:
            parts.append(f"{plural(counts['slo_missed'], 'trial')} missed a limit")
        if counts["degraded"]:
            parts.append(f"{plural(counts['degraded'], 'trial')} degraded")
        if parts:
            lines.append(f"{letter}: {'; '.join(parts)}")
    return lines


def _size(trials: Sequence[Any], counted: Sequence[Any]) -> str:
    left_out = len(trials) - len(counted)
    text = plural(len(trials), "trial")
    return f"{text}, {left_out} of them invalid or failed" if left_out else text


def closing(found: Comparison) -> list[str]:
    """The mean over all cells, how it was reckoned, and whether it was simulated."""
    lines = []
    if found.overall is not None:
        text = f"{effect_text(found.overall)} {interval_text(found.overall)}"
        all_of = plural(len(found.cells), "cell")
        known = found.overall_cells == len(found.cells)
        over = all_of if known else f"{found.overall_cells} of {all_of}, known on both sides"
        lines.append(f"over {over}: {found.quantity.text} {text}")
    how = f"B against A, geometric means of trials, {100 * (1 - ALPHA):.0f} % intervals"
    family = f"; p by Holm over {plural(len(found.cells), 'cell')}" if len(found.cells) > 1 else ""
    lines.append(f"{how}{family}; {_pairing(found)}")
    engines = {trial.record.engine for side in (found.before, found.after) for trial in side.trials}
    if engines == {"sim"}:
        lines.append(SIMULATED)
    elif "sim" in engines:
        lines.append("one side is SIMULATED: a rehearsal held against a measurement")
    return lines


def _pairing(found: Comparison) -> str:
    return f"trials paired by {found.paired}" if found.paired else "trials not paired"


def _columns(found: Comparison) -> tuple[list[str], list[list[str]]]:
    keys = list(found.cells[0].levels)
    unit, size = _UNITS.get(found.quantity.unit, (found.quantity.unit, 1.0))
    after = f" {unit}" if unit else ""
    shown = keys or ["cell"]
    header = [*shown, f"A{after}", f"B{after}", "change", "95 % [%]", "trials", "verdict"]
    rows = [
        [
            *([level_text(cell.levels[key]) for key in keys] or ["all"]),
            _value(cell.before, size, cell.bounded[0]),
            _value(cell.after, size, cell.bounded[1]),
            effect_text(cell.ratio),
            interval_text(cell.ratio),
            f"{cell.ratio.n_before}/{cell.ratio.n_after}",
            verdict_text(cell),
        ]
        for cell in found.cells
    ]
    return header, rows


def _value(found: Estimate, size: float, bounded: bool) -> str:
    if math.isnan(found.value):
        return "-"
    return ("over " if bounded else "") + number(found.value / size)


def markdown(found: Comparison) -> str:
    """For a pull request: what differs as a list, then a table."""
    header, rows = _columns(found)
    lines = [f"**{found.quantity.text}**, B against A", ""]
    lines += [f"- {_escaped(line)}" for line in heading(found)]
    lines += ["", _row(header), _row(["---:"] * (len(header) - 1) + ["---"])]
    lines += [_row(row) for row in rows]
    lines += ["", *(f"{_escaped(line)}  " for line in closing(found))]
    return "\n".join(lines) + "\n"


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(_escaped(text) for text in texts)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("_", "\\_").replace("*", "\\*").replace("<", "&lt;")


def as_csv(found: Comparison) -> str:
    """One row a cell; base units, ratios (1.31, not +31 %), empty for unknown."""
    rows = [_plain(cell) for cell in found.cells]
    keys = list(found.cells[0].levels)
    out = io.StringIO()
    fields = [*keys, *(name for name in rows[0] if name != "levels")]
    writer = csv.DictWriter(out, fields, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        levels = row.pop("levels")
        texts = {key: level_text(level) for key, level in levels.items()}
        writer.writerow(texts | {key: _digits(value) for key, value in row.items()})
    return out.getvalue()


def _digits(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def as_json(found: Comparison) -> str:
    """Everything, base units; null for unknown."""
    overall = found.overall
    whole = {
        "schema": 1,
        "measurement": f"{found.quantity.measurement}/{found.quantity.statistic}",
        "unit": found.quantity.unit,
        "before": str(found.before.path),
        "after": str(found.after.path),
        "incidents": {"before": found.before.incidents, "after": found.after.incidents},
        "differences": [
            {"field": one.field, "before": one.before, "after": one.after}
            for one in found.differences
        ],
        "only_before": list(found.only_before),
        "only_after": list(found.only_after),
        "paired_by": found.paired or None,
        "overall": None if overall is None else {**_limits(overall), "cells": found.overall_cells},
        "cells": [_plain(cell) for cell in found.cells],
    }
    return json.dumps(whole, indent=2, default=str) + "\n"


def _limits(ratio: Ratio) -> dict[str, float | None]:
    return {"ratio": ratio.ratio, "low": ratio.low, "high": ratio.high}


def _plain(cell: CellPair) -> dict[str, Any]:
    ratio = cell.ratio
    return {
        "levels": dict(cell.levels),
        "before": _known(cell.before.value),
        "before_is_bound": cell.bounded[0],
        "after": _known(cell.after.value),
        "after_is_bound": cell.bounded[1],
        **_limits(ratio),
        "bound": ratio.bound or None,
        "trials_before": ratio.n_before,
        "trials_after": ratio.n_after,
        "paired": ratio.paired,
        "p": ratio.p,
        "p_holm": cell.p,
        "p_rank": ratio.rank_p,
        "verdict": cell.verdict,
        "same_within": cell.within,
        "note": ratio.note or None,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
