"""`max_hours` and `max_cost`: what all sessions of a sweep have spent, and what still fits.

Hides how both are counted. Hours are those of every session by the monotonic clock, as the ledger
has them, so that a clock that jumps or a pause between two sessions counts nothing. Cost is each
trial's own time at the price of its cluster, and the bytes it pulls; of a cluster that is built for
the sweep it is all of its time, idle and between sessions too. Asked between trials only: none is
stopped by it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imgpull.errors import ConfigError
from imgpull.results.machine_time import machine_spans
from imgpull.sweep import shapes
from imgpull.sweep.forecasting import forecast
from imgpull.sweep.forecasting.building import hourly_of
from imgpull.sweep.forecasting.prices import read_prices
from imgpull.sweep.forecasting.spend import cost_of_pulls
from imgpull.sweep.ledger import Event, Ledger, elapsed_s
from imgpull.sweep.plan import Planned


@dataclass
class Limits:
    """What a session may still spend. `expected_s`: trial_id -> wall seconds it should take."""

    max_hours: float | None = None
    max_cost: float | None = None
    spent_s: float = 0.0  # by earlier sessions
    cost: float = 0.0  # so far, in the currency of the prices
    expected_s: Mapping[str, float] = field(default_factory=dict)
    built: Callable[[], float] | None = None  # what a cluster that is built has cost so far
    begun_s: float = field(default_factory=time.monotonic)

    def add(self, cost: float | None) -> None:
        """A trial has cost so much; None where nobody knows."""
        self.cost += cost or 0.0

    def reached(
        self, planned: Planned, cost_per_hour: float | None, pulls: float = 0.0
    ) -> str | None:
        """Why this trial is not begun; None when it fits. `pulls` is what its bytes cost."""
        next_s = self.expected_s.get(planned.trial_id) or 0.0
        if self.max_hours is not None:
            spent_h = (self.spent_s + time.monotonic() - self.begun_s) / 3600
            if spent_h >= self.max_hours or spent_h + next_s / 3600 > self.max_hours:
                return f"max_hours={self.max_hours:g}: {_spent(spent_h, next_s / 3600, ' h')}"
        if self.max_cost is not None and (cost_per_hour or pulls):
            cost, next_cost = self._cost(), (cost_per_hour or 0.0) * next_s / 3600 + pulls
            if cost >= self.max_cost or cost + next_cost > self.max_cost:
                return f"max_cost={self.max_cost:g}: {_spent(cost, next_cost, '')}"
        return None

    def _cost(self) -> float:
        return self.cost if self.built is None else self.built()


def _spent(spent: float, expected: float, unit: str) -> str:
    further = f", the next trial needs some {expected:.2g}{unit}" if expected else ""
    return f"{spent:.2g}{unit} spent{further}"


def earlier_spending(events: Sequence[Event]) -> tuple[float, float]:
    """(seconds, cost) of the sessions that a ledger tells of."""
    cost = sum(float(e.get("cost") or 0.0) for e in events if e["event"] == "finished")
    return elapsed_s(events), cost


def price(planned: Planned) -> float | None:
    """What an hour of a trial costs; None is unknown."""
    return forecast.cost_per_hour(planned.job, built=shapes.is_built(planned.cell))


def price_of_pulls(planned: Planned) -> float | None:
    """What the bytes of a trial cost; None is unknown. A cluster that is built is hours alone."""
    return 0.0 if shapes.is_built(planned.cell) else cost_of_pulls(planned.job)


def require_prices(plan: Sequence[Planned], max_cost: float | None) -> None:
    """ConfigError when a limit of cost is asked for and a price is not known."""
    if max_cost is None:
        return
    unknown = next((planned for planned in plan if price(planned) is None), None)
    if unknown is not None:
        raise ConfigError(
            f"max_cost={max_cost:g}, but what a {_unpriced(unknown)} costs an hour is not known",
            hint="give its price in conf/prices.yaml, or limit the sweep with max_hours",
        )
    uncounted = next((planned for planned in plan if price_of_pulls(planned) is None), None)
    if uncounted is not None:
        job = uncounted.job
        raise ConfigError(
            f"max_cost={max_cost:g}, but how many bytes a trial pulls is not known "
            f"(image={job.image.name} cache={job.cache}), and they have a price",
            hint="use cache=cold and an image with a layer table, set egress_gb: null in "
            "conf/prices.yaml, or limit the sweep with max_hours",
        )


def _unpriced(planned: Planned) -> str:
    """The machines of a trial of which one has no price."""
    shape = shapes.shape_of(planned.cell)
    if shape is None:
        return planned.job.cluster.node.vm_size
    return " or ".join(hourly_of(shape.machines, shape.region).unknown)


def cost_of_built(directory: Path) -> float:
    """What the cluster of a sweep has cost until now, idle and set-up included."""
    prices = read_prices()
    spans = machine_spans(Ledger(directory).read())
    now = time.time()
    hourly = ((s.hours(now), hourly_of(s.machines, s.region, prices).value) for s in spans)
    return sum(hours * (value or 0.0) for hours, value in hourly)
