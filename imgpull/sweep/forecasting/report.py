"""A plan with all that is known of it: what table, CSV and JSON are made from.

Hides what a reader must be told besides numbers: what is left out of them, and by what they stand.
"""

import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imgpull import units
from imgpull.config.sweeping import SweepSettings
from imgpull.sweep import shapes
from imgpull.sweep.forecasting.building import hourly_of
from imgpull.sweep.forecasting.forecast import forecast, history_of
from imgpull.sweep.forecasting.overheads import Overhead, occasional, overheads
from imgpull.sweep.forecasting.predicting import Say
from imgpull.sweep.forecasting.prices import Prices, read_prices
from imgpull.sweep.forecasting.sensitivity import Sensitivity, sensitivity
from imgpull.sweep.forecasting.spend import Build, Pool, Row, Totals, builds, pools, rows, totals
from imgpull.sweep.lanes import lanes_of
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.limits import cost_of_built, earlier_spending
from imgpull.sweep.plan import Excluded, Matrix, Planned

NOT_BUILT = "control plane, disks, registry, network, and a cluster that is kept after a failure"
NOT_COUNTED = "system pool, control plane, disks, registry, network, and time before and after"


@dataclass(frozen=True)
class PlanReport:
    """What would run, in order, and what it takes. `begun` is the sweep that it continues."""

    settings: SweepSettings
    cells: int  # with something to run
    excluded: Sequence[Excluded]
    rows: Sequence[Row]
    totals: Totals
    pools: Sequence[Pool]
    prices: Prices
    command: str  # that starts it
    begun: Path | None
    predicting_s: float  # what the predictions themselves took
    simulated: int  # cells that were simulated for it
    can_show: Sensitivity
    builds: Sequence[Build] = ()
    confounded: Sequence[str] = ()  # factors that follow the order of provisioning
    spent_s: float = 0.0  # by earlier sessions
    spent: float = 0.0  # in the currency of the prices

    @property
    def real(self) -> bool:
        """Whether a cluster is held."""
        return any(row.real for row in self.rows)


def make(
    matrix: Matrix,
    plan: Sequence[Planned],
    settings: SweepSettings,
    root: Path,
    command: str,
    say: Say,
    *,
    begun: Path | None = None,
) -> PlanReport:
    """Predict the plan. `root` holds earlier sweeps. ConfigError for a broken price file."""
    prices = read_prices()
    begin = time.perf_counter()
    cells = {planned.cell.cell_id: planned.cell for planned in plan}
    say("reading earlier trials")
    found = forecast(plan, history_of(root, cells.values()), say, cheap=False)
    taken_s = time.perf_counter() - begin
    every = rows(plan, found, prices)
    building = builds(every, prices)
    spent_s, spent = earlier_spending(Ledger(begun).read()) if begun else (0.0, 0.0)
    return PlanReport(
        settings=settings,
        cells=len(cells),
        excluded=matrix.excluded,
        rows=every,
        totals=totals(every, prices),
        pools=pools(every, prices),
        prices=prices,
        command=command,
        begun=begun,
        predicting_s=taken_s,
        simulated=sum(p.pulling_s is not None for p in found.cells.values()),
        can_show=sensitivity(
            list(cells.values()),
            all(row.planned.job.engine.kind == "sim" for row in every),
            settings,
            root,
        ),
        builds=building,
        confounded=shapes.confounded(matrix.cells),
        spent_s=spent_s,
        spent=cost_of_built(begun) if begun and building else spent,
    )


def command_now(begun: Path | None) -> str:
    """The command of this process without its until=plan: what starts the sweep it plans."""
    kept = [a for a in sys.argv[1:] if a.lstrip("+").partition("=")[0] != "until"]
    named = any(a.lstrip("+").startswith("hydra.sweep.dir=") for a in kept)
    if begun is not None and not named:
        kept.append(in_directory(begun))
    return shlex.join(["python", sys.argv[0], *kept])


def in_directory(begun: Path) -> str:
    """The override that names a sweep's directory, quoted where Hydra wants it."""
    text = str(begun)
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", text):
        text = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return f"hydra.sweep.dir={text}"


def overheads_of(report: PlanReport) -> list[Overhead]:
    """The constants in the predictions of real trials, each once."""
    simulated = [r.planned for r in report.rows if r.real and r.prediction.basis == "simulated"]
    every = [each for planned in simulated for each in overheads(planned.job)]
    some = [each for waits in occasional(simulated) for each in waits]
    return list({(each.name, each.took_s): each for each in [*every, *some]}.values())


def notes(report: PlanReport) -> list[str]:
    """What a reader must know of the figures, a sentence each."""
    shown = [] if _all_replayed(report) else report.can_show.notes()
    found = [*shown, *_cost_notes(report), *_cache_notes(report), *_time_notes(report)]
    reasons = {r.prediction.reason: r.planned.name for r in report.rows if r.wall_s is None}
    found += [f"not predicted, such as {name}: {reason}" for reason, name in reasons.items()]
    return found


def _all_replayed(report: PlanReport) -> bool:
    """A recorded report becomes no more by another trial."""
    return all(row.planned.job.engine.kind == "replay" for row in report.rows)


def _cost_notes(report: PlanReport) -> list[str]:
    if not report.real:
        return ["simulated and replayed trials cost nothing and pull nothing"]
    if report.builds:
        return _build_notes(report)
    found = [f"nodes are those measured; not counted: {NOT_COUNTED}"]
    unpriced = sorted({pool.vm_size for pool in report.pools if pool.price is None})
    if unpriced:
        found.append(f"no price of {', '.join(unpriced)}: fill in vm_hour in conf/prices.yaml")
    elif report.prices.egress_gb is None:
        found.append(
            "bytes out of the registry are not paid for: conf/prices.yaml has no egress_gb"
        )
    sizes = {pool.nodes for pool in report.pools}
    if {row.planned.job.nodes for row in report.rows if row.real} != sizes:
        found.append("a pool keeps its largest size while fewer of its nodes are measured")
    return found + list(report.prices.notes())


def _build_notes(report: PlanReport) -> list[str]:
    """Of a cluster that is built for the sweep."""
    shuffled = report.settings.order != "as_given"
    hidden = shapes.confounding(report.confounded, shuffled=shuffled)
    found = [
        *([hidden] if hidden else []),
        "ASSUMPTION: set-up takes as long as provisioning.create, pool, resize and destroy say; it "
        "was never timed on Azure",
        f"the cluster is paid for while it is idle too; not counted: {NOT_BUILT}",
    ]
    unknown = dict.fromkeys(
        size
        for each in report.builds
        for size in hourly_of(
            each.setup.shape.machines, each.setup.shape.region, report.prices
        ).unknown
    )
    if unknown:
        found.append(f"no price of {', '.join(unknown)}: fill in vm_hour in conf/prices.yaml")
    most, cost = report.settings.max_cost, report.totals.built_cost.value
    if most is not None and cost is not None and report.spent + cost > most:
        found.append(f"max_cost={most:g} ends it before its last trial: idle nodes count")
    return found + list(report.prices.notes())


def _cache_notes(report: PlanReport) -> list[str]:
    caches = {row.planned.job.cache for row in report.rows if row.real}
    found = []
    if "cold" in caches:
        found.append("cold: at most one pull a node; layers that other images keep are not pulled")
    salted = [row.planned.job.image.compressed_bytes or 0 for row in report.rows
              if row.real and row.planned.job.cache == "salted"]  # fmt: skip
    if salted:
        found.append(
            f"salted: {units.format_size(sum(salted))} in {len(salted)} images are pushed into the "
            f"registry, at most {units.format_size(max(salted))} at a time; each is deleted after "
            "its trial, and its bytes go when the registry collects garbage"
        )
    if "warm" in caches:
        found.append("warm: none is pulled by the load; what nodes lack is pulled before, and that "
                     "pull is in no figure")  # fmt: skip
    if "as_is" in caches:
        found.append(
            "as_is: what nodes hold is not known, nor what they pull; simulated, they hold nothing"
        )
    return found


def _time_notes(report: PlanReport) -> list[str]:
    found = []
    if not all(row.real for row in report.rows):
        found.append("simulated: time is this computer's; start-up, tracking and plots come on top")
    lanes = lanes_of([row.planned for row in report.rows])
    if len(lanes) > 1:
        found.append(f"{len(lanes)} clusters side by side: the time is that of the longest")
    constants = [f"{o.name} {o.took_s:g} s ({o.source})" for o in overheads_of(report)]
    if constants:
        found.append(f"around each simulated test: {'; '.join(constants)}")
    limit_s = [r for r in report.rows if r.real and (r.wall_s or 0) > r.planned.job.trial_limit_s]
    if limit_s:
        found.append(f"{len(limit_s)} trials are predicted to outlast trial_limit")
    if report.settings.retries:
        found.append("further attempts of trials that do not count (retries) are in no figure")
    hours, cost = report.totals.wall_s.value, report.totals.cost.value
    if hours is not None:
        hours += sum(each.setup.took_s for each in report.builds)
    most_h, most = report.settings.max_hours, report.settings.max_cost
    spent_h = report.spent_s / 3600
    if most_h is not None and hours is not None and spent_h + hours / 3600 > most_h:
        found.append(_ends_early(f"max_hours={most_h:g}", f"{spent_h:.2g} h" * bool(spent_h)))
    if most is not None and cost is not None and report.spent + cost > most and not report.builds:
        spent = f"{report.spent:.2g}" * bool(report.spent)
        found.append(_ends_early(f"max_cost={most:g}", spent))
    return found


def _ends_early(limit: str, spent: str) -> str:
    already = f" ({spent} spent by earlier sessions)" if spent else ""
    return f"{limit} ends it before its last trial{already}"
