"""What a plan uses up: hours, node-hours, money, bytes out of the registry, in honest sums.

Hides the arithmetic. A sum with an unknown part is "at least" what is known; a cost without a price
is unknown as a whole, never 0. Only what is measured on a real cluster uses anything up.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from imgpull import engines
from imgpull.config import schema
from imgpull.config.job import EMPTY, Job
from imgpull.sweep import shapes
from imgpull.sweep.forecasting.building import Setup, assumed_s, hourly_of, setups
from imgpull.sweep.forecasting.forecast import Forecast, cost_per_hour
from imgpull.sweep.forecasting.predicting import Prediction
from imgpull.sweep.forecasting.prices import Prices, read_prices
from imgpull.sweep.lanes import lanes_of
from imgpull.sweep.plan import Planned

_HOUR_S = 3600.0


@dataclass(frozen=True)
class Total:
    """A sum; `unknown` parts are not in it. `value` None: nothing can be said."""

    value: float | None
    unknown: int = 0

    def text(self, form: Callable[[float], str]) -> str:
        """In words: "12 h", "at least 12 h", "unknown"."""
        if self.value is None:
            return "unknown"
        return f"at least {form(self.value)}" if self.unknown else form(self.value)


def total(parts: Iterable[float | None]) -> Total:
    """The sum of parts that may be unknown (None)."""
    every = list(parts)
    known = [part for part in every if part is not None]
    unknown = len(every) - len(known)
    return Total(math.fsum(known) if known or not every else None, unknown)


@dataclass(frozen=True)
class Row:
    """One trial of the plan, and what it uses up; None is unknown."""

    planned: Planned
    prediction: Prediction
    wall_s: float | None
    node_hours: float | None  # of the trial's own nodes
    per_hour: float | None  # what these cost; all nodes of the cluster where it is built
    cost: float | None
    registry_bytes: float | None  # that leave the registry, at most
    virtual_bytes: float | None  # the same in the simulator

    @property
    def real(self) -> bool:
        """Whether a cluster is held."""
        return engines.is_real(self.planned.job)


def rows(plan: Sequence[Planned], found: Forecast, prices: Prices) -> list[Row]:
    """Every trial of a plan in its order."""
    return [_row(planned, found, prices) for planned in plan]


def _row(planned: Planned, found: Forecast, prices: Prices) -> Row:
    job, real = planned.job, engines.is_real(planned.job)
    wall_s = found.expected_s.get(planned.trial_id)
    if wall_s is not None:
        wall_s -= found.setup_s.get(planned.trial_id, 0.0)
    hours = None if wall_s is None else wall_s / _HOUR_S
    built = shapes.is_built(planned.cell)
    per_hour = cost_per_hour(job, prices, built=built)
    moved = pulled_bytes(job)
    cost = None if wall_s is None else cost_of(job, wall_s, prices, built=built)
    node_hours = (None if hours is None else hours * job.nodes) if real else 0.0
    simulated = isinstance(job.engine, schema.SimEngine)
    return Row(
        planned=planned,
        prediction=found.cells[planned.cell.cell_id],
        wall_s=wall_s,
        node_hours=node_hours,
        per_hour=per_hour,
        cost=cost,
        registry_bytes=moved if real else 0.0,
        virtual_bytes=moved if simulated else 0.0,
    )


def cost_of(
    job: Job, wall_s: float, prices: Prices | None = None, *, built: bool = False
) -> float | None:
    """What a trial of so many seconds costs: its nodes, and the bytes it pulls; None is unknown."""
    per_hour, pulls = cost_per_hour(job, prices, built=built), cost_of_pulls(job, prices)
    return None if per_hour is None or pulls is None else wall_s / _HOUR_S * per_hour + pulls


def cost_of_pulls(job: Job, prices: Prices | None = None) -> float | None:
    """What the bytes cost that a trial pulls, at most; None: they have a price and no count."""
    prices = prices or read_prices()
    if not engines.is_real(job) or not prices.egress_gb:
        return 0.0
    moved = pulled_bytes(job)
    return None if moved is None else prices.of_bytes(moved)


def pulled_bytes(job: Job) -> float | None:
    """The most that a trial's load pulls: its compressed bytes once a node that gets a pod.

    Warm pulls none. What nodes lack with as_is, or an image without sizes, is unknown (None).
    """
    if job.cache == "warm":
        return 0.0
    if job.cache not in EMPTY or job.image.compressed_bytes is None:
        return None
    # A ready-made test decides itself how many pods there are.
    pulling = job.nodes if job.ready_made is not None else min(job.nodes, job.pods)
    return float(pulling * job.image.compressed_bytes)


@dataclass(frozen=True)
class Pool:
    """A cluster's measured pool, kept at its largest size for all of its trials."""

    cluster: str
    vm_size: str
    nodes: int
    hours: Total
    price: float | None

    @property
    def node_hours(self) -> Total:
        """Of all its nodes, busy or not."""
        hours = self.hours.value
        return Total(None if hours is None else hours * self.nodes, self.hours.unknown)

    @property
    def cost(self) -> Total:
        """What they cost; unknown without a price."""
        hours = self.node_hours
        if hours.value is None or self.price is None:
            return Total(None, hours.unknown)
        return Total(hours.value * self.price, hours.unknown)


def pools(found: Sequence[Row], prices: Prices) -> list[Pool]:
    """The measured pool of each cluster that the real trials hold."""
    by_cluster: dict[tuple[object, ...], list[Row]] = {}
    for row in found:
        engine, cluster = row.planned.job.engine, row.planned.job.cluster
        if isinstance(engine, schema.RealEngine) and not shapes.is_built(row.planned.cell):
            key = engine.kubeconfig, engine.context, cluster.name, cluster.node.vm_size
            by_cluster.setdefault(key, []).append(row)
    return [_pool(same, prices) for same in by_cluster.values()]


def _pool(same: Sequence[Row], prices: Prices) -> Pool:
    job = same[0].planned.job
    return Pool(
        cluster=job.cluster.name,
        vm_size=job.cluster.node.vm_size,
        nodes=max(row.planned.job.nodes for row in same),
        hours=total(None if row.wall_s is None else row.wall_s / _HOUR_S for row in same),
        price=prices.of_node(job),
    )


@dataclass(frozen=True)
class Build:
    """A shape of a cluster that is built: its set-up, and the trials that run on it."""

    setup: Setup
    trials: int
    hours: Total  # of set-up and trials; of the last one also of destroying it
    cost_hour: float | None  # of all its machines

    @property
    def node_hours(self) -> Total:
        """Of all its nodes, those of the system and of Prometheus too."""
        return _times(self.hours, self.setup.shape.all_nodes)

    @property
    def cost(self) -> Total:
        """What they cost; unknown without a price of each."""
        return _times(self.hours, self.cost_hour)


def _times(hours: Total, factor: float | None) -> Total:
    known = hours.value is not None and factor is not None
    return Total((hours.value or 0.0) * (factor or 0.0) if known else None, hours.unknown)


def builds(found: Sequence[Row], prices: Prices) -> list[Build]:
    """The shapes that the cluster is given for these trials, in turn."""
    changes = setups([row.planned for row in found])
    starts = {id(change.planned): change for change in changes}
    turns: list[tuple[Setup, list[Row]]] = []
    for row in found:
        if change := starts.get(id(row.planned)):
            turns.append((change, []))
        if turns and shapes.is_built(row.planned.cell):
            turns[-1][1].append(row)
    return [_build(*turn, prices, last=turn is turns[-1]) for turn in turns]


def _build(setup: Setup, same: Sequence[Row], prices: Prices, *, last: bool) -> Build:
    own_s = setup.took_s + (assumed_s(setup.planned, "destroy") if last else 0.0)
    seconds = [own_s, *(row.wall_s for row in same)]
    shape = setup.shape
    return Build(
        setup=setup,
        trials=len(same),
        hours=total(None if each is None else each / _HOUR_S for each in seconds),
        cost_hour=hourly_of(shape.machines, shape.region, prices).value,
    )


@dataclass(frozen=True)
class Totals:
    """What the whole plan takes."""

    wall_s: Total  # of the longest lane
    virtual_s: Total  # of the simulated trials
    waiting_share: float | None  # of the trials' own time, where it is known
    pulling_share: float | None
    node_hours: Total
    cost: Total
    pool_node_hours: Total
    pool_cost: Total
    registry_bytes: Total
    virtual_bytes: Total
    built_hours: Total  # of a cluster that is built: set-up, trials, destroying it
    built_node_hours: Total  # of all its nodes
    built_cost: Total


def totals(found: Sequence[Row], prices: Prices) -> Totals:
    """The sums over trials, and over the pools that they are run on."""
    kept, built = pools(found, prices), builds(found, prices)
    real = [row for row in found if row.real]
    egress = prices.of_bytes(math.fsum(row.registry_bytes or 0.0 for row in real))
    return Totals(
        wall_s=_longest_lane(found),
        virtual_s=total(row.prediction.virtual_s for row in found if not row.real),
        waiting_share=_share(found, lambda row: row.prediction.waiting_s),
        pulling_share=_share(found, lambda row: row.prediction.pulling_s),
        node_hours=total(row.node_hours for row in found),
        cost=_cost(found),
        pool_node_hours=_sum(pool.node_hours for pool in kept),
        pool_cost=_pool_cost(kept, egress),
        registry_bytes=total(row.registry_bytes for row in found),
        virtual_bytes=total(row.virtual_bytes for row in found),
        built_hours=_sum(each.hours for each in built),
        built_node_hours=_sum(each.node_hours for each in built),
        built_cost=_whole_cost(built),
    )


def _whole_cost(built: Sequence[Build]) -> Total:
    """Unknown as a whole without one price."""
    if any(each.cost_hour is None for each in built):
        return Total(None, len(built))
    return _sum(each.cost for each in built)


def _longest_lane(found: Sequence[Row]) -> Total:
    """Seconds from the first trial to the last: several clusters run theirs side by side."""
    wall_s = {row.planned.trial_id: row.wall_s for row in found}
    lanes = lanes_of([row.planned for row in found]).values()
    each = [total(wall_s[planned.trial_id] for planned in lane) for lane in lanes]
    known = [lane.value for lane in each if lane.value is not None]
    return Total(max(known) if known else None, sum(lane.unknown for lane in each))


def _cost(found: Sequence[Row]) -> Total:
    """Unknown as a whole without a price: a part of the bill is no bill."""
    if any(row.per_hour is None for row in found):
        return Total(None, sum(row.cost is None for row in found))
    return total(row.cost for row in found)


def _pool_cost(kept: Sequence[Pool], egress: float) -> Total:
    if any(pool.price is None for pool in kept):
        return Total(None, len(kept))
    found = _sum(pool.cost for pool in kept)
    return found if found.value is None else Total(found.value + egress, found.unknown)


def _sum(parts: Iterable[Total]) -> Total:
    every = list(parts)
    known = total(part.value for part in every)
    return Total(known.value, sum(max(part.unknown, part.value is None) for part in every))


def _share(found: Sequence[Row], of: Callable[[Row], float | None]) -> float | None:
    """Of the time of those trials of which both are known: simulated ones by virtual time."""
    parts, wholes = [], []
    for row in found:
        whole = row.wall_s if row.real else row.prediction.virtual_s
        part = of(row)
        if part is not None and whole:
            parts.append(part)
            wholes.append(whole)
    return math.fsum(parts) / math.fsum(wholes) if parts else None
