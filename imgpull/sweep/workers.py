"""Trials side by side, in the processes of a launcher such as Hydra's joblib.

Hides how a worker learns which trial it has: Hydra hands it nothing but a configuration, so the
plan lies in a file that the environment names. A worker runs its trial and writes the ledger's
lines of it; MLflow, table and progress stay with the process that runs the sweep.
"""

import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imgpull import engines, pipeline, processes
from imgpull.engines import Say, Session
from imgpull.errors import ImgpullError
from imgpull.results.record import JobRecord
from imgpull.sweep import shapes
from imgpull.sweep.forecasting.spend import cost_of
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.plan import Planned, sweep_name

_PLAN = "IMGPULL_SWEEP_PLAN"
# So many trials a processor are launched at once: between them the sweep logs and may stop.
_BATCH = 4


def batch_size() -> int:
    """How many trials to launch at once."""
    return _BATCH * (os.cpu_count() or 1)


Tell = Callable[[Sequence[Planned]], None]


@contextmanager
def told(directory: Path) -> Iterator[Tell]:
    """While this lasts, workers that are started can be told what the sweep in `directory` plans.

    They may live longer than a batch, so the environment names one file that is replaced.
    """
    with tempfile.TemporaryDirectory(prefix="imgpull-plan-") as folder:
        path = Path(folder) / "plan"

        def tell(batch: Sequence[Planned]) -> None:
            told = os.getpid(), directory, {planned.directory: planned for planned in batch}
            path.with_suffix(".new").write_bytes(pickle.dumps(told))
            path.with_suffix(".new").replace(path)

        os.environ[_PLAN] = str(path)
        try:
            yield tell
        finally:
            del os.environ[_PLAN]


def is_worker() -> bool:
    """Whether another process runs the sweep of this one."""
    return _PLAN in os.environ


def run_planned(subdir: str) -> None:
    """In a worker: run the trial that was planned for this directory.

    Nothing is begun for a sweep whose process is gone: another may go on with it by now.
    """
    # Ours, written a moment ago by the process that started this one.
    with Path(os.environ[_PLAN]).open("rb") as file:
        told_by, directory, plan = pickle.load(file)
    if not processes.runs(told_by):
        return
    run_trial(directory, plan[subdir], lambda step: None, engines.Apart())


def run_trial(directory: Path, planned: Planned, say: Say, session: Session) -> JobRecord:
    """Run one planned trial of the sweep in `directory`; the ledger knows its begin and end."""
    ledger = Ledger(directory)
    which = {
        "trial_id": planned.trial_id,
        "attempt": planned.attempt,
        "dir": planned.directory,
        "position": planned.position,
    }
    ledger.append("started", **which)
    place = pipeline.Place(
        directory=directory / planned.directory,
        name=planned.name,
        cell_id=planned.cell.cell_id,
        factors=planned.cell.factors,
        block=planned.block,
        position=planned.position,
        attempt=planned.attempt,
        sweep=sweep_name(directory),
    )
    record = pipeline.run_job(planned.job, planned.values, planned.cell.files, place, say, session)
    ledger.append_all([finished_event(record, planned.directory, cost(planned, record))])
    return record


def finished_event(record: JobRecord, directory: str, cost: float | None) -> dict[str, Any]:
    """The ledger's line of a trial that is over."""
    return {
        "event": "finished",
        "trial_id": record.trial_id,
        "attempt": record.attempt,
        "dir": directory,
        "position": record.position,
        "verdict": record.verdict,
        "slo": record.slo,
        "reason": record.reasons[0] if record.reasons else "",
        "wall_s": record.wall_s,
        "virtual_s": record.virtual_s,
        "cost": cost,
    }


def cost(planned: Planned, record: JobRecord) -> float | None:
    """What a trial cost, in the currency of the prices; None where no price is known."""
    try:
        cost = cost_of(planned.job, record.wall_s, built=shapes.is_built(planned.cell))
    except ImgpullError:  # conf/prices.yaml was broken meanwhile
        return None
    return None if cost is None else round(cost, 6)
