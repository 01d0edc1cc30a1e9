"""How long one trial of each cell will take: from earlier trials, else from the simulator.

Hides the choice. What was measured wins. A real trial not seen before is its own bundle played in
virtual time, and constants for what surrounds it (overheads.py). How long the simulator itself
takes is timed on two cells, and estimated by nodes and pods for the others.
"""

import functools
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from imgpull import engines, pipeline, render
from imgpull.config import job as jobs
from imgpull.config import schema
from imgpull.config.compose import CONF
from imgpull.config.engine import engine_from
from imgpull.config.job import Job
from imgpull.errors import ImgpullError
from imgpull.results.record import JobRecord
from imgpull.sweep.forecasting.overheads import overheads
from imgpull.sweep.plan import Cell

if TYPE_CHECKING:
    from imgpull.engines.sim.rehearsal import Rehearsal

Say = Callable[[str], None]
UNKNOWN = "unknown"

# A cell of more nodes and pods than this is not timed: a thousand nodes take ten seconds.
_TIMED_SIZE = 500


@dataclass(frozen=True)
class Prediction:
    """One trial of a cell; None is unknown, and `reason` says why.

    `wall_s` is of the real clock. `waiting_s` (scrapes, metrics_wait, settle) and `pulling_s` (from
    the first pull asked for to the last there) are of the trial's own: virtual where simulated.
    """

    basis: str  # measured, simulated, timed or unknown, with n
    wall_s: float | None = None
    virtual_s: float | None = None
    waiting_s: float | None = None
    pulling_s: float | None = None
    reason: str = ""


def predict(
    cells: Sequence[Cell], history: Iterable[JobRecord], say: Say, *, cheap: bool = False
) -> dict[str, Prediction]:
    """cell_id -> what one trial takes, a Prometheus brought up not included.

    `cheap` simulates no simulated cell beforehand: it would take as long as the sweep. Never raises
    for a cell that cannot be predicted.
    """
    measured: dict[str, list[JobRecord]] = {}
    for record in history:
        measured.setdefault(record.cell_id, []).append(record)
    found: dict[str, Prediction] = {}
    for number, cell in enumerate(cells, 1):
        say(f"predicting cell {number} of {len(cells)}")
        seen = _of_this_machine(cell, measured.get(cell.cell_id, []))
        found[cell.cell_id] = _measured(cell, seen) if seen else _simulated(cell, cheap)
    if not cheap:
        _time(cells, found, say)
    return found


def _of_this_machine(cell: Cell, records: list[JobRecord]) -> list[JobRecord]:
    """Where time is a computer's, another computer tells nothing."""
    if engines.is_real(cell.job):
        return records
    return [record for record in records if record.host.get("name") == platform.node()]


def _measured(cell: Cell, records: list[JobRecord]) -> Prediction:
    virtual = [record.virtual_s for record in records if record.virtual_s is not None]
    return Prediction(
        basis=f"measured, n={len(records)}",
        wall_s=statistics.median(record.wall_s for record in records),
        virtual_s=statistics.median(virtual) if virtual else None,
        waiting_s=_waits_s(cell),
    )


def _waits_s(cell: Cell) -> float | None:
    """The sleeps of a cell's bundle and engine.settle; None where they cannot be read."""
    from imgpull.engines.sim.rehearsal import sleeps_s

    if cell.files is None:
        return None
    try:
        return sleeps_s(cell.files) + _settle_s(cell.job)
    except ImgpullError:
        return None


def _settle_s(job: Job) -> float:
    return sum(each.took_s for each in overheads(job) if each.name == "engine.settle")


def _simulated(cell: Cell, cheap: bool) -> Prediction:
    if cell.files is None:  # a recorded report: read, not run
        return Prediction(UNKNOWN, reason="a recorded report takes as long as reading it")
    real = engines.is_real(cell.job)
    if cheap and not real:
        return Prediction(UNKNOWN, reason="not timed")
    try:
        played = rehearsed(cell.job, cell.files)
    except ImgpullError as error:
        return Prediction(UNKNOWN, waiting_s=_waits_s(cell), reason=error.message)
    except Exception as error:  # of the simulator's, on a test that it does not know
        return Prediction(UNKNOWN, reason=f"{type(error).__name__}: {error}")
    if not real:
        return Prediction(
            UNKNOWN, None, played.virtual_s, played.waiting_s, played.pulling_s, "not timed"
        )
    around_s = sum(each.took_s for each in overheads(cell.job))
    return Prediction(
        basis="simulated",
        wall_s=played.virtual_s + around_s,
        waiting_s=played.waiting_s + _settle_s(cell.job),
        pulling_s=played.pulling_s,
    )


# Equal physics -> what came of it; an error too.
_played: "dict[tuple[str, str], Rehearsal | ImgpullError]" = {}


def rehearsed(job: Job, files: Mapping[str, str]) -> "Rehearsal":
    """The bundle played on the simulated cluster of a job, once for cells of equal physics."""
    from imgpull.engines.sim.rehearsal import rehearse

    simulated = simulated_job(job)
    key = jobs.cell_id(simulated), render.bundle_sha256(files)
    if key not in _played:
        try:
            _played[key] = rehearse(simulated, files)
        except ImgpullError as error:
            _played[key] = error
    found = _played[key]
    if isinstance(found, ImgpullError):
        raise found
    return found


def simulated_job(job: Job) -> Job:
    """The same job on a simulated cluster of the same description."""
    if isinstance(job.engine, schema.SimEngine):
        return job
    return replace(job, engine=_simulator(), ready_made=None)


@functools.cache
def _simulator() -> schema.SimEngine:
    """The simulator as conf/engine/sim.yaml has it, for a cell of another engine."""
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(OmegaConf.load(CONF / "engine" / "sim.yaml"), resolve=True)
    engine = engine_from(values)
    assert isinstance(engine, schema.SimEngine)
    return engine


def _size(cell: Cell) -> int:
    return cell.job.nodes + cell.job.pods


def _time(cells: Sequence[Cell], found: dict[str, Prediction], say: Say) -> None:
    """Time the smallest and the largest cell that may be, and estimate the others between them."""
    untimed = [
        cell
        for cell in cells
        if not engines.is_real(cell.job) and found[cell.cell_id].wall_s is None
    ]
    chosen = sorted((cell for cell in untimed if _size(cell) <= _TIMED_SIZE), key=_size)
    chosen = chosen or sorted(untimed, key=_size)[:1]
    points = []
    if chosen:
        _timed_s(chosen[0])  # a process's first trial imports and compiles
    for example in [*chosen[:1], *chosen[1:][-1:]]:
        say("timing a trial of the simulator")
        points.append((_size(example), _timed_s(example)))
    if not points:
        return
    (least, base_s), (most, top_s) = points[0], points[-1]
    per_size_s = max(0.0, (top_s - base_s) / (most - least)) if most > least else base_s / least
    for cell in untimed:
        known = found[cell.cell_id]
        wall_s = max(base_s / 2, base_s + (_size(cell) - least) * per_size_s)
        found[cell.cell_id] = replace(
            known, basis=f"timed, n={len(points)}", wall_s=wall_s, reason=""
        )


def _timed_s(cell: Cell) -> float:
    with tempfile.TemporaryDirectory(prefix="imgpull-") as directory:
        place = pipeline.Place(Path(directory), "timed", cell.cell_id, cell.factors)
        return pipeline.run_job(cell.job, cell.values, cell.files, place, lambda _: None).wall_s
