"""A plan for people: what runs in which order, and what it takes.

Hides how much of it is shown: a long plan is told by its cells and by the begin and end of its
order; every trial stands in the CSV.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from imgpull import units
from imgpull.config.sweeping import KEYS, SweepSettings
from imgpull.sweep.forecasting.report import PlanReport, make, notes
from imgpull.sweep.forecasting.spend import Row, Total, total
from imgpull.sweep.plan import Matrix, Planned
from imgpull.sweep.watching.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console

_MOST_CELLS = 24  # lines of the table; of more, the first and last
_LAST_CELLS = 3
_MOST_BLOCKS = 6
_MOST_IN_BLOCK = 8
_MOST_EXCLUDED = 10


def show(
    matrix: Matrix,
    plan: Sequence[Planned],
    settings: SweepSettings,
    root: Path,
    command: str,
    *,
    begun: Path | None = None,
    form: str = "table",
) -> int:
    """Print a plan as table, csv or json, and write nothing; returns the exit status."""
    with Progress() as progress:
        report = make(matrix, plan, settings, root, command, progress.step, begun=begun)
    if form == "table":
        from rich.console import Console

        print_page(report, Console(highlight=False))
    else:
        from imgpull.sweep.forecasting import files as plan_files

        print(plan_files.as_csv(report) if form == "csv" else plan_files.as_json(report), end="")
    return 0


def print_page(report: PlanReport, console: "Console") -> None:
    """Print the whole page."""

    def say(line: str = "") -> None:
        console.print(line, soft_wrap=True, markup=False)

    say(_headline(report))
    if report.rows:
        _print_cells(report, console)
        for line in [*_order(report.rows), *_built(report)]:
            say(line)
    for line in _excluded(report):
        say(line)
    if report.rows:
        say()
        for name, text in _sums(report):
            say(f"{name:<12}{text}")
        for note in notes(report):
            say(f"- {note}")
        say(_predicted(report))
        say(f"start it:   {report.command}")


def _headline(report: PlanReport) -> str:
    trials = len(report.rows)
    order = f"order={report.settings.order}, seed={report.settings.seed}"
    if report.begun is not None:
        if not trials:
            return f"plan: nothing is left to do in {report.begun}"
        return (
            f"plan: {_many(trials, 'trial')} of {_many(report.cells, 'cell')} left of "
            f"{report.begun}; {order}; nothing was run"
        )
    return (
        f"plan: {_many(trials, 'trial')} of {_many(report.cells, 'cell')}; {order}; nothing was run"
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _print_cells(report: PlanReport, console: "Console") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    cells: dict[str, list[Row]] = {}
    for row in report.rows:
        cells.setdefault(row.planned.cell.cell_id, []).append(row)
    # As the matrix was given: the order of running is told apart.
    given = sorted(cells.values(), key=_given)
    shown = [_cell(report, rows) for rows in _shown(given)]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    kept = [name for name in shown[0] if any(line[name] for line in shown)]
    for name in kept:
        if name in ("cell", "predicted"):
            table.add_column(name, no_wrap=True)
            continue
        # Digits are never cut; a long name is.
        widest = max(len(text) for line in shown for text in (line[name], *name.split()))
        table.add_column(name.replace(" ", "\n"), justify="right", min_width=widest)
    for number, line in enumerate(shown):
        if len(given) > len(shown) and number == len(shown) - _LAST_CELLS:
            table.add_row(f"… {len(given) - len(shown)} more")
        table.add_row(*(line[name] for name in kept))
    console.print()
    console.print(table)
    console.print()


def _shown(given: Sequence[list[Row]]) -> Sequence[list[Row]]:
    """All cells, or the first and the last of many."""
    if len(given) <= _MOST_CELLS:
        return given
    return [*given[: _MOST_CELLS - _LAST_CELLS], *given[-_LAST_CELLS:]]


def _given(rows: Sequence[Row]) -> int:
    """Directories are numbered as the matrix was given."""
    return min(int(row.planned.directory.split("/")[0]) for row in rows)


def _cell(report: PlanReport, rows: Sequence[Row]) -> dict[str, str]:
    """A line of the table, by header; empty where there is nothing to say."""
    first = rows[0]
    seconds = total(row.wall_s for row in rows)
    known = len(rows) - seconds.unknown
    virtual_s = first.prediction.virtual_s
    cost = total(row.cost for row in rows) if first.per_hour is not None else Total(None)
    replayed = first.planned.cell.files is None
    if replayed:
        moved = ""
    elif first.real:
        moved = total(row.registry_bytes for row in rows).text(units.format_size)
    else:
        moved = total(row.virtual_bytes for row in rows).text(lambda b: f"({units.format_size(b)})")
    return {
        "cell": first.planned.name,
        "trials": str(len(rows)),
        "nodes": "" if replayed else str(first.planned.job.nodes),
        "one trial": "unknown" if seconds.value is None else _time(seconds.value / known),
        "virtual": "" if virtual_s is None else _time(virtual_s),
        "node- hours": total(row.node_hours for row in rows).text(_figure) if first.real else "",
        "cost": cost.text(lambda value: _money(report, value)) if first.real else "",
        "registry": moved,
        "predicted": first.prediction.basis,
    }


def _order(rows: Sequence[Row]) -> list[str]:
    """The order of running: each block a line."""
    blocks = [(number, list(same)) for number, same in groupby(rows, lambda r: r.planned.block)]
    lines = ["order of running (position and cell):"]
    most = len(blocks) if len(blocks) <= _MOST_BLOCKS else _MOST_BLOCKS - 2
    for number, same in blocks[:most]:
        lines.append(f"  block {number}: {_block(same)}")
    if most < len(blocks):
        lines.append(f"  … {len(blocks) - most - 1} more blocks …")
        lines.append(f"  block {blocks[-1][0]}: {_block(blocks[-1][1])}")
    return lines


def _block(rows: Sequence[Row]) -> str:
    told = [_told(row) for row in rows]
    if len(told) > _MOST_IN_BLOCK:
        gone = len(told) - _MOST_IN_BLOCK + 1
        told = [*told[: _MOST_IN_BLOCK - 3], f"… {gone} more …", *told[-2:]]
    return ", ".join(told)


def _told(row: Row) -> str:
    planned = row.planned
    again = f" attempt {planned.attempt}" if planned.attempt > 1 else ""
    trial = "" if planned.trial == planned.block else f" trial {planned.trial}"
    return f"{planned.position} {planned.name}{trial}{again}"


def _built(report: PlanReport) -> list[str]:
    """The shapes of a cluster that is built, in turn, each with what it takes."""
    if not report.builds:
        return []
    lines = ["the cluster is built for it, shape after shape:"]
    for number, each in enumerate(report.builds, 1):
        change, nodes = each.setup, each.setup.shape.all_nodes
        cost = each.cost.text(lambda value: _money(report, value))
        hourly = "unknown" if each.cost_hour is None else _money(report, each.cost_hour)
        lines.append(
            f"  {number}. {change.shape.text}: {change.key} {_time(change.took_s)}, "
            f"{_many(each.trials, 'trial')}; {each.node_hours.text(_figure)} node-hours of "
            f"{nodes} nodes; cost {cost} ({hourly} an hour)"
        )
    return lines


def _excluded(report: PlanReport) -> list[str]:
    if not report.excluded:
        return []
    lines = [f"left out by exclude: {_many(len(report.excluded), 'cell')}"]
    for each in report.excluded[:_MOST_EXCLUDED]:
        told = (o for o in each.overrides if o.lstrip("+").partition("=")[0] not in KEYS)
        lines.append(f"  {' '.join(told)}  ({each.by})")
    more = len(report.excluded) - _MOST_EXCLUDED
    return [*lines, f"  … {more} more"] if more > 0 else lines


def _sums(report: PlanReport) -> list[tuple[str, str]]:
    sums = report.totals
    found = [("time", sums.wall_s.text(_time))]
    if sums.virtual_s.value:
        found.append(("virtual", f"{sums.virtual_s.text(_time)} of simulated clusters"))
    if sums.waiting_share is not None:
        found.append(("waiting", _waiting(report)))
    if report.builds:
        own, whole, cost = sums.node_hours, sums.built_node_hours, sums.built_cost
        found += [
            ("cluster", f"stands {sums.built_hours.text(lambda h: _time(h * 3600))}, set-up and "
                        "destroying included"),
            ("node-hours", f"{own.text(_figure)} of the nodes measured in trials; "
                           f"{whole.text(_figure)} of all nodes, set-up and idle ones included"),
            ("cost", _dated(cost.text(lambda value: _money(report, value)), report)),
            ("registry", _registry(sums.registry_bytes)),
        ]  # fmt: skip
    elif report.real:
        found += [
            ("node-hours", _with_pool(sums.node_hours, sums.pool_node_hours, _figure, report)),
            ("cost", _cost(report)),
            ("registry", _registry(sums.registry_bytes)),
        ]
    elif sums.virtual_bytes.value:
        found.append(
            ("registry", f"({sums.virtual_bytes.text(units.format_size)} in the simulator)")
        )
    return found


def _registry(moved: Total) -> str:
    if moved.value is None:
        return "unknown"
    return moved.text(lambda count: f"{units.format_size(count)} out of it") + ", at most" * (
        not moved.unknown
    )


def _waiting(report: PlanReport) -> str:
    sums = report.totals
    clock = "" if report.real else " of virtual time"
    pulling = "" if sums.pulling_share is None else f"; pulls under way {sums.pulling_share:.0%}"
    return f"{sums.waiting_share:.0%}{clock} is scrapes, metrics_wait and settle{pulling}"


def _cost(report: PlanReport) -> str:
    sums = report.totals
    text = _with_pool(sums.cost, sums.pool_cost, lambda value: _money(report, value), report)
    return _dated(text, report)


def _dated(text: str, report: PlanReport) -> str:
    return text if report.prices.date is None else f"{text}, prices of {report.prices.date}"


def _with_pool(own: Total, pool: Total, form: object, report: PlanReport) -> str:
    """The measured nodes' share, and what the whole pool comes to where that differs."""
    assert callable(form)
    if own.value is None or pool.value is None or abs(own.value - pool.value) < 1e-9:
        return own.text(form)
    nodes = ", ".join(str(each.nodes) for each in report.pools)
    return (
        f"{own.text(form)} of the nodes measured; {pool.text(form)} with {nodes} nodes throughout"
    )


def _money(report: PlanReport, value: float) -> str:
    return f"{value:.2f} {report.prices.currency or ''}".strip()


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _time(seconds: float) -> str:
    """Two units at most: 3 h 20 min, 4 min 5 s, 0.12 s."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _predicted(report: PlanReport) -> str:
    told = f"predicted {_many(report.cells, 'cell')} in {report.predicting_s:.1f} s"
    if report.simulated:
        told += f"; {report.simulated} by simulation, cells of equal physics once"
    return told
