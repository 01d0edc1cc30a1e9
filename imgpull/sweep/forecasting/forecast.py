"""What a sweep will take before it begins, trial by trial, and what an hour of it costs.

Hides where a trial's seconds come from (predicting.py) and which trials wait longer than others
(overheads.py). Limits and the ETA ask here; the plan that people read is made from the same.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from imgpull import engines
from imgpull.config.job import Job
from imgpull.config.sweeping import SweepSettings
from imgpull.provisioning.shapes import shape_of
from imgpull.results.record import JobRecord
from imgpull.sweep.forecasting.building import hourly_of, setups
from imgpull.sweep.forecasting.history import earlier_trials
from imgpull.sweep.forecasting.overheads import occasional
from imgpull.sweep.forecasting.predicting import Prediction, Say, predict
from imgpull.sweep.forecasting.prices import Prices, read_prices
from imgpull.sweep.plan import Cell, Matrix, Planned


@dataclass(frozen=True)
class Forecast:
    """What the trials of a plan are expected to take, by trial_id; what is unknown is left out."""

    expected_s: Mapping[str, float]  # of the real clock
    basis: str  # in words, for the ledger
    cells: Mapping[str, Prediction]  # by cell_id
    setup_s: Mapping[str, float] = field(default_factory=dict)  # of it, until there is a cluster

    def lasts_s(self, plan: Sequence[Planned]) -> float | None:
        """How long these trials take one after the other; None when one is not predicted."""
        known = [self.expected_s.get(planned.trial_id) for planned in plan]
        return None if None in known else sum(each or 0.0 for each in known)


def forecast(
    plan: Sequence[Planned],
    history: Iterable[JobRecord] = (),
    say: Say = lambda step: None,
    *,
    cheap: bool = True,
) -> Forecast:
    """Predict every trial of a plan; never raises for one that cannot be predicted.

    Earlier trials of the same cell come first. A real trial that has none is simulated, once a
    cell; a simulated one only if not `cheap`, because that takes as long as running it.
    """
    cells = {planned.cell.cell_id: planned.cell for planned in plan}
    found = predict(list(cells.values()), history, say, cheap=cheap)
    expected_s: dict[str, float] = {}
    setup_s = {each.planned.trial_id: each.took_s for each in setups(plan)}
    for planned, waits in zip(plan, occasional(plan), strict=True):
        prediction = found[planned.cell.cell_id]
        if prediction.wall_s is None:
            continue
        # Measured ones hold what it took them.
        added = waits if prediction.basis == "simulated" else ()
        waiting_s = sum(each.took_s for each in added) + setup_s.get(planned.trial_id, 0.0)
        expected_s[planned.trial_id] = prediction.wall_s + waiting_s
    return Forecast(expected_s, _basis(plan, found), found, setup_s)


def _basis(plan: Sequence[Planned], found: Mapping[str, Prediction]) -> str:
    """Such as "4 trials simulated, 2 measured"."""
    kinds = Counter(found[planned.cell.cell_id].basis.split(",")[0] for planned in plan)
    parts = [f"{count} {kind}" for kind, count in kinds.most_common()]
    return f"trials: {', '.join(parts)}" if parts else "no trials"


def history_of(root: Path, cells: Iterable[Cell]) -> list[JobRecord]:
    """Earlier trials of these cells that count, from the sweeps under `root`."""
    return earlier_trials(root, {cell.cell_id for cell in cells})


def cost_per_hour(job: Job, prices: Prices | None = None, *, built: bool = False) -> float | None:
    """What the measured nodes of a trial cost an hour, from conf/prices.yaml; None is unknown.

    `built`: for this sweep, so that all of its nodes are paid for by it. 0.0 where nothing is
    rented: simulated and replayed trials. ConfigError for a broken price file.
    """
    if not engines.is_real(job):
        return 0.0
    if built:
        return hourly_of(shape_of(job).machines, job.cluster.region, prices).value
    price = (prices or read_prices()).of_node(job)
    return None if price is None else price * job.nodes


def show(
    matrix: Matrix,
    plan: Sequence[Planned],
    settings: SweepSettings,
    config: DictConfig,
    *,
    begun: Path | None = None,
) -> int:
    """Print the plan of `python run.py …` and write nothing; returns the exit status.

    `begun` is the sweep that the plan continues.
    """
    from imgpull.sweep.forecasting import page as plan_page
    from imgpull.sweep.forecasting import report as plan_report

    root = Path(config.hydra.sweep.dir).absolute().parent
    command = plan_report.command_now(begun)
    return plan_page.show(matrix, plan, settings, root, command, begun=begun)
