"""A ledger made again from a sweep's directories, and lines that a killed process owed.

Hides where else the history of a sweep stands: job.json and config.resolved.yaml of its trials,
Hydra's snapshots, multirun.yaml. job.json is the truth; what no file tells is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imgpull import engines, pipeline
from imgpull.config import job as jobs
from imgpull.config.sweeping import settings_from
from imgpull.errors import ImgpullError
from imgpull.results.record import JobRecord, read_records
from imgpull.sweep.forecasting.spend import cost_of
from imgpull.sweep.ledger import Event, Ledger
from imgpull.sweep.places import MULTIRUN
from imgpull.sweep.workers import finished_event

# Of a sweep's settings, what its `sweep` line tells.
TOLD = (
    "order", "seed", "trials", "first_trial", "retries", "stop_after", "max_hours", "max_cost",
)  # fmt: skip
_OVERRIDES = Path(".hydra") / "overrides.yaml"


def rebuild(directory: Path) -> bool:
    """Write a ledger that is lost again, as far as it can be known; whether it was lost.

    Only by who holds the sweep.
    """
    ledger = Ledger(directory)
    if any(event["event"] == "sweep" for event in ledger.read()):
        return False
    records = _records(directory)
    cut_off = list(_cut_off(directory, {where for where, _ in records}))
    if records or cut_off:
        ledger.append_all([_request(directory, records), *cut_off, *_history(directory, records)])
    return bool(records or cut_off)


def owed(directory: Path, events: Sequence[Event]) -> list[Event]:
    """The `finished` lines of trials that have a record and no line: killed in between."""
    told = {(e.get("trial_id"), e.get("attempt", 1)) for e in events if e["event"] == "finished"}
    return [
        finished_event(record, where, _cost(directory / where, record))
        for where, record in _records(directory)
        if (record.trial_id, record.attempt) not in told
    ]


def _records(directory: Path) -> list[tuple[str, JobRecord]]:
    """(directory, record) of every attempt, in the order of running."""
    read, _ = read_records(directory)  # unreadable is not done
    found = [(job_dir.relative_to(directory).as_posix(), record) for job_dir, record in read]
    return sorted(found, key=lambda each: each[1].position)


def _request(directory: Path, records: Sequence[tuple[str, JobRecord]]) -> Event:
    cells: dict[str, dict[str, Any]] = {}
    for where, record in records:
        overrides = [o for o in _overrides(directory / where) if not o.startswith("trial=")]
        cells.setdefault(
            record.cell_id,
            {
                "cell_id": record.cell_id,
                "name": record.name,
                "factors": dict(record.factors),
                "overrides": overrides,
            },
        )
    return {
        "event": "sweep",
        "rebuilt": True,
        **first_command(directory),
        "git": dict(records[-1][1].git) if records else {},
        "settings": _settings(directory, records),
        "cells": list(cells.values()),
        "excluded": [],
        "engine": ",".join(sorted({record.engine for _, record in records})),
    }


def first_command(directory: Path) -> dict[str, Any]:
    """The arguments of the first session and where it was started, from multirun.yaml."""
    from omegaconf import OmegaConf

    try:
        hydra = OmegaConf.load(directory / MULTIRUN).hydra
        told = [*hydra.overrides.hydra, *hydra.overrides.task]
        cwd = {"cwd": str(hydra.runtime.cwd)}
    except Exception:  # half a file, or none: the command is not known
        return {}
    arguments = [str(o) for o in told if not str(o).startswith(("hydra.mode=", "hydra.sweep.dir="))]
    return {"arguments": arguments, **cwd}


def _settings(directory: Path, records: Sequence[tuple[str, JobRecord]]) -> dict[str, Any]:
    for where, record in records:
        try:
            settings = asdict(settings_from(pipeline.read_resolved(directory / where)))
        except ImgpullError:
            continue
        # A trial's own configuration names its own number.
        return {key: settings[key] for key in TOLD} | {"seed": record.seed, "first_trial": 1}
    return {"seed": records[0][1].seed} if records else {}


def _history(directory: Path, records: Sequence[tuple[str, JobRecord]]) -> Iterator[Event]:
    for where, record in records:
        which = {
            "trial_id": record.trial_id, "attempt": record.attempt, "dir": where,
            "position": record.position,
        }  # fmt: skip
        yield {
            "event": "planned", **which, "cell_id": record.cell_id, "trial": record.trial,
            "block": record.block, "name": record.name, "overrides": [],
        }  # fmt: skip
        yield {"event": "started", **which}
        yield finished_event(record, where, _cost(directory / where, record))


def _cost(job_dir: Path, record: JobRecord) -> float | None:
    """At today's price; None where it is not known."""
    try:
        cost = cost_of(jobs.job_from(pipeline.read_resolved(job_dir)), record.wall_s)
    except ImgpullError:
        return None
    return None if cost is None else round(cost, 6)


def _cut_off(directory: Path, recorded: set[str]) -> Iterator[Event]:
    """What is known of trials that were begun and have no record."""
    for path in sorted(directory.glob(f"*/{pipeline.RESOLVED}")):
        where = path.parent.name
        if where in recorded or not where.isdigit():
            continue
        try:
            job = jobs.job_from(pipeline.read_resolved(path.parent))
        except ImgpullError:
            continue
        cell_id = engines.build(job).subject.cell_id
        yield {
            "event": "planned", "trial_id": pipeline.trial_id(cell_id, job.trial),
            "cell_id": cell_id, "trial": job.trial, "attempt": 1, "dir": where,
            "name": where, "overrides": _overrides(path.parent),
        }  # fmt: skip


def _overrides(job_dir: Path) -> list[str]:
    from omegaconf import OmegaConf

    try:
        told: Any = OmegaConf.to_container(OmegaConf.load(job_dir / _OVERRIDES))
    except Exception:  # half a file, or none
        return []
    return [str(each) for each in told] if isinstance(told, list) else []
