"""What can be done again from a sweep's directories: logging to MLflow, running a trial.

Hides that the original command is gone: a trial's own snapshot (config.resolved.yaml) is enough.
"""

import hashlib
import secrets
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from imgpull import engines, pipeline, render, tracking
from imgpull.config import job as jobs
from imgpull.config import schema
from imgpull.errors import ConfigError, ReportError
from imgpull.results.record import job_directories, read_record
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.running import ROOT, verdict_counts, view_lines

# What a trial leaves that depends on nothing but its configuration, on the simulator.
_SAME_FILES = ("pulls.csv", "measurements.csv", "pods.csv", "events.jsonl", "series.csv")


def log_again(directory: Path, *, uri: str | None, experiment: str) -> Iterator[str]:
    """Log a sweep's or one trial's directory; idempotent. Yields a line for each trial."""
    found = [directory] if (directory / "job.json").exists() else job_directories(directory)
    if not found:
        raise ReportError(
            f"{directory} holds no finished trial", hint="name a sweep's directory or a trial's"
        )
    kind = schema.TrackingKind.server if uri else schema.TrackingKind.local
    tracker = tracking.open_tracker(
        schema.Tracking(kind=kind, uri=uri, experiment=experiment), ROOT
    )
    sweep_dir = _sweep_of(found[0])
    records = {path: read_record(path) for path in found}
    factors: dict[str, list[Any]] = {}
    for record in records.values():
        for name, level in record.factors.items():
            levels = factors.setdefault(name, [])
            if level not in levels:
                levels.append(level)
    parent = tracker.start_sweep(sweep_dir, factors=factors, command=_command(sweep_dir))
    for path, record in records.items():
        run_id = tracker.log_trial(path, parent)
        yield f"{path.relative_to(sweep_dir)}: {record.name}, {record.verdict}, run {run_id}"
    counts = verdict_counts(list(records.values()))
    tracker.finish_sweep(sweep_dir, parent, status="FINISHED", counts=counts, note_markdown="")
    yield from view_lines(tracker, parent)


def _sweep_of(job_dir: Path) -> Path:
    above = job_dir.resolve().parent
    return above.parent if job_dir.name.startswith("attempt-") else above


def _command(sweep_dir: Path) -> str:
    arguments: list[str] = []
    for event in Ledger(sweep_dir).read():
        if event.get("event") == "sweep":
            arguments = event.get("arguments", [])
    return " ".join(["python", "run.py", *arguments])


def reproduce(directory: Path, *, into: Path | None, run: bool) -> tuple[bool, list[str]]:
    """Render, and run unless told not to, from a trial's snapshot; whether all is as recorded."""
    before = read_record(directory)
    snapshot = directory / pipeline.RESOLVED
    try:
        values = yaml.safe_load(snapshot.read_text("utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ReportError(f"{snapshot}: {error}", hint="restore the file") from error
    place = pipeline.Place(_new_directory(into), before.name, before.block, before.position)
    if run:
        after = pipeline.run_job(values, place, lambda step: None)
        bundle = after.bundle_sha256
    else:
        job = jobs.job_from(values)
        if not engines.build(job).renders:
            raise ConfigError("a replayed report has no bundle", hint="use --until run")
        bundle = render.write(render.render(job), place.directory / "bundle").sha256
    same = bundle == before.bundle_sha256
    lines = [f"bundle:   {'identical' if same else 'DIFFERS: the templates have changed'}"]
    if run:
        differ = [
            name for name in _SAME_FILES if not _equal(directory / name, place.directory / name)
        ]
        differ += (
            [] if _equal_trees(directory / "report", place.directory / "report") else ["report"]
        )
        lines.append(f"results:  {'identical' if not differ else 'differ: ' + ', '.join(differ)}")
        # On a real cluster results are measured anew, and so they differ.
        same = same and (not differ or after.virtual_s is None)
    lines.append(f"written:  {place.directory}")
    return same, lines


def _new_directory(into: Path | None) -> Path:
    if into is not None:
        if into.exists() and any(into.iterdir()):
            raise ConfigError(f"--into {into} is not empty", hint="name a new directory")
        return into
    stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(2)}"
    return ROOT / "multirun" / stamp / "0"


def _differing(left: Path, right: Path) -> list[str]:
    names = [name for name in _SAME_FILES if not _equal(left / name, right / name)]
    return names if _equal_trees(left / "report", right / "report") else [*names, "report"]


def _equal(left: Path, right: Path) -> bool:
    if left.exists() != right.exists():
        return False
    return not left.exists() or _digest(left) == _digest(right)


def _equal_trees(left: Path, right: Path) -> bool:
    trees = [{p.name: _digest(p) for p in root.glob("*") if p.is_file()} for root in (left, right)]
    return trees[0] == trees[1]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
