"""What a sweep was thought to cost, and what it did: by cell, and in all.

Hides how both are had from a sweep's own files: the ledger's `budget` has estimates and prices, the
trials' job.json their own time, the ledger's `provisioned` how long a cluster stood that was built.
A price that nobody gave is unknown, and so is every sum with it; never 0.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imgpull.results.machine_time import Span, machine_spans, seconds
from imgpull.results.record import JobRecord

_EVENT = "budget"
_UNKNOWN = "unknown"
_NOT_COUNTED = "control plane, disks, registry, network"


@dataclass(frozen=True)
class Line:
    """Of a cell, or a sum: node-hours and cost, as planned and as it came."""

    what: str
    planned_hours: str
    hours: str
    planned_cost: str
    cost: str


@dataclass(frozen=True)
class Bill:
    """The section; `notes` are sentences about the figures."""

    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def bill(
    events: Sequence[Mapping[str, Any]], records: Iterable[JobRecord], names: Mapping[str, str]
) -> Bill | None:
    """The bill of a sweep; None where the ledger tells no budget: nothing was rented.

    `names` are the cells' words by cell_id.
    """
    budgets = [event for event in events if event.get("event") == _EVENT]
    if not budgets:
        return None
    told = _Told(budgets)
    by_cell: dict[str, list[JobRecord]] = {}
    for record in records:
        if told.plans(record.cell_id):
            by_cell.setdefault(record.cell_id, []).append(record)
    cells = [told.cell(cell_id, same) for cell_id, same in by_cell.items()]
    lines = [told.line(names.get(each.cell_id, each.cell_id), each) for each in cells]
    spans = machine_spans(events)
    lines.append(told.line("trials together", _sum(cells)))
    if spans:
        now_s = max(filter(None, (seconds(event.get("at")) for event in events)), default=0.0)
        lines.append(told.line("the cluster that was built, in all", told.whole(spans, now_s)))
    return Bill(tuple(lines), tuple(_notes(told, spans)))


@dataclass(frozen=True)
class _Amounts:
    """None is unknown."""

    cell_id: str
    planned_hours: float | None
    hours: float | None
    planned_cost: float | None
    cost: float | None


class _Told:
    """What the budgets of a sweep's sessions say."""

    def __init__(self, budgets: Sequence[Mapping[str, Any]]) -> None:
        self._first, self._last = budgets[0], budgets[-1]
        self.trials: dict[str, Mapping[str, Any]] = {}
        self._machines: dict[str, list[list[Any]]] = {}
        for budget in budgets:
            for trial_id, estimate in budget["trials"].items():
                self.trials.setdefault(trial_id, estimate)
            self._machines |= (budget.get("built") or {}).get("cells", {})
        self.vm_hour: Mapping[str, float] = self._last.get("vm_hour") or {}
        self.currency = str(self._last.get("currency") or "")
        self.date = self._last.get("prices_date")
        self.unpriced: dict[str, None] = {}

    def plans(self, cell_id: str) -> bool:
        """Whether these trials hold a cluster."""
        return any(x["cell_id"] == cell_id and x["node_hours"] != 0 for x in self.trials.values())

    def cell(self, cell_id: str, same: Sequence[JobRecord]) -> _Amounts:
        """A cell: every attempt counts, whatever came of it."""
        planned = [each for each in self.trials.values() if each["cell_id"] == cell_id]
        return _Amounts(
            cell_id,
            _total(each["node_hours"] for each in planned),
            _total(record.wall_s * _nodes(record) / 3600 for record in same),
            _total(each["cost"] for each in planned),
            _total(self._cost(record) for record in same),
        )

    def _cost(self, record: JobRecord) -> float | None:
        size = str(record.fingerprint.get("vm_size", ""))
        own = [["measured", size, _nodes(record)]]
        machines = self._machines.get(record.cell_id, own)
        hourly = self._hourly(machines, str(record.fingerprint.get("region", "")))
        return None if hourly is None else hourly * record.wall_s / 3600

    def _hourly(self, machines: Iterable[Sequence[Any]], region: str) -> float | None:
        amounts = []
        for _, size, count in machines:
            price = self.vm_hour.get(f"{region}/{size}", self.vm_hour.get(size))
            if price is None:
                self.unpriced[str(size)] = None
            amounts.append(None if price is None else price * count)
        return _total(amounts)

    def whole(self, spans: Sequence[Span], now_s: float) -> _Amounts:
        """The cluster that was built, set-up and idle time included."""
        built = self._first.get("built") or {}
        costs = []
        for span in spans:
            machines = [[m.what, m.vm_size, m.count] for m in span.machines]
            hourly = self._hourly(machines, span.region)
            costs.append(None if hourly is None else hourly * span.hours(now_s))
        hours = _total(span.nodes * span.hours(now_s) for span in spans)
        return _Amounts("", built.get("node_hours"), hours, built.get("cost"), _total(costs))

    def line(self, what: str, of: _Amounts) -> Line:
        """In words."""
        return Line(
            what, _figure(of.planned_hours), _figure(of.hours),
            self._money(of.planned_cost), self._money(of.cost),
        )  # fmt: skip

    def _money(self, amount: float | None) -> str:
        return _UNKNOWN if amount is None else f"{amount:.2f} {self.currency}".strip()


def _notes(told: _Told, spans: Sequence[Span]) -> Iterable[str]:
    yield f"not counted: {_NOT_COUNTED}" + ("" if spans else ", system and Prometheus nodes, and "
                                            "time around the trials")  # fmt: skip
    if told.unpriced:
        yield f"no price of {', '.join(told.unpriced)} in conf/prices.yaml when it was run"
    elif told.date:
        yield f"prices of {told.date}"
    if spans:
        yield ("cells: hours of their own nodes; their cost is that of all nodes of the cluster "
               "while their trials ran")  # fmt: skip
    if spans and spans[-1].end_s is None:
        yield ("the cluster stood yet at the ledger's last line: what came after is not in it; "
               "imgpull report counts it later")  # fmt: skip


def _sum(cells: Sequence[_Amounts]) -> _Amounts:
    return _Amounts(
        "",
        _total(each.planned_hours for each in cells),
        _total(each.hours for each in cells),
        _total(each.planned_cost for each in cells),
        _total(each.cost for each in cells),
    )


def _total(parts: Iterable[float | None]) -> float | None:
    """Unknown as a whole when one part is."""
    every = list(parts)
    known = [part for part in every if part is not None]
    return math.fsum(known) if len(known) == len(every) else None


def _nodes(record: JobRecord) -> int:
    return int(record.factors.get("nodes") or 0)


def _figure(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.2f}"
