"""Trials side by side, in the processes of a launcher such as Hydra's joblib.

Hides how a worker learns which trial it has: Hydra hands it nothing but a configuration, so the
plan lies in a file that the environment names. A worker runs its trial and writes the ledger's
lines of it; MLflow, table and progress stay with the process that runs the sweep.
"""

import os
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from imgpull import engines, pipeline
from imgpull.engines import Say, Session
from imgpull.results.record import JobRecord
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.plan import Planned, sweep_name

_PLAN = "IMGPULL_SWEEP_PLAN"
# So many trials a processor are launched at once: between them the sweep logs and may stop.
_BATCH = 4


def batch_size() -> int:
    """How many trials to launch at once."""
    return _BATCH * (os.cpu_count() or 1)


@contextmanager
def told(directory: Path, plan: Sequence[Planned]) -> Iterator[None]:
    """While this lasts, workers that are started know the plan of the sweep in `directory`."""
    with tempfile.NamedTemporaryFile(prefix="imgpull-plan-") as file:
        pickle.dump((directory, {planned.directory: planned for planned in plan}), file)
        file.flush()
        os.environ[_PLAN] = file.name
        try:
            yield
        finally:
            del os.environ[_PLAN]


def is_worker() -> bool:
    """Whether another process runs the sweep of this one."""
    return _PLAN in os.environ


def run_planned(subdir: str) -> None:
    """In a worker: run the trial that was planned for this directory."""
    # Ours, written a moment ago by the process that started this one.
    with Path(os.environ[_PLAN]).open("rb") as file:
        directory, plan = pickle.load(file)
    run_trial(directory, plan[subdir], lambda step: None, engines.Apart())


def run_trial(directory: Path, planned: Planned, say: Say, session: Session) -> JobRecord:
    """Run one planned trial of the sweep in `directory`; the ledger knows its begin and end."""
    ledger = Ledger(directory)
    ledger.append("started", trial_id=planned.trial_id, dir=planned.directory)
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
    ledger.append(
        "finished",
        trial_id=record.trial_id,
        dir=planned.directory,
        verdict=record.verdict,
        wall_s=record.wall_s,
        virtual_s=record.virtual_s,
    )
    return record
