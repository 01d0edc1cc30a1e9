"""What can be done again from a sweep's directories: logging to MLflow, running a trial.

Hides that the original command is gone: a trial's own snapshot (config.resolved.yaml) is enough.
"""

import hashlib
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from imgpull import engines, pipeline, render, tracking
from imgpull.config import job as jobs
from imgpull.config import schema
from imgpull.errors import ConfigError, ReportError
from imgpull.results.record import job_directories, read_record
from imgpull.sweep.ending import INTERRUPTED, review
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.plan import factor_levels, sweep_name
from imgpull.sweep.resume import ATTEMPT
from imgpull.sweep.tracked import ROOT, view_lines

# What a trial leaves that depends on nothing but its configuration, on the simulator.
_SAME_FILES = ("pulls.csv", "measurements.csv", "pods.csv", "events.jsonl", "series.csv")


def log_again(directory: Path, *, uri: str | None, experiment: str) -> Iterator[str]:
    """Log a sweep's or one trial's directory; idempotent. Yields a line for each trial."""
    directory = directory.resolve()
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
    end = review(sweep_dir)
    events = Ledger(sweep_dir).read()
    parent = tracker.start_sweep(
        sweep_dir,
        factors=factor_levels([record.factors for record in end.records]),
        command=_command(events),
    )
    for path in found:
        run_id = tracker.log_trial(path, parent)
        record = read_record(path)
        yield f"{path.relative_to(sweep_dir)}: {record.name}, {record.verdict}, run {run_id}"
    tracker.finish_sweep(
        sweep_dir,
        parent,
        status="KILLED" if _interrupted(events) else "FINISHED",
        counts=end.counts,
        note_markdown=end.markdown,
    )
    yield from view_lines(tracker.view(parent))


def _sweep_of(job_dir: Path) -> Path:
    return job_dir.parent.parent if job_dir.name.startswith(ATTEMPT) else job_dir.parent


def _command(events: Sequence[Mapping[str, Any]]) -> str:
    found = [event.get("arguments", []) for event in events if event.get("event") == "sweep"]
    return shlex.join(["python", "run.py", *(found[-1] if found else [])])


def _interrupted(events: Sequence[Mapping[str, Any]]) -> bool:
    ended = [event.get("status") for event in events if event.get("event") == "ended"]
    return bool(ended) and ended[-1] == INTERRUPTED


def reproduce(directory: Path, *, into: Path | None, run: bool) -> tuple[bool, list[str]]:
    """Render, and run unless told not to, from a trial's snapshot; whether all is as recorded."""
    before = read_record(directory)
    values = pipeline.read_resolved(directory)
    job = jobs.job_from(values)
    files = render.render(job) if engines.build(job).renders else None
    if files is None and not run:
        raise ConfigError("a replayed report has no bundle", hint="use --until run")
    target = _new_directory(into)
    if run:
        place = pipeline.Place(
            target, before.name, before.cell_id, before.factors, before.block, before.position,
            sweep=sweep_name(target),
        )  # fmt: skip
        with engines.session([job], place.sweep, _untold, _unsaid) as session:
            pipeline.run_job(job, values, files, place, _unsaid, session)
    else:
        render.write(files or {}, target / "bundle")
    same, lines = True, []
    if files is not None:
        same = render.bundle_sha256(files) == before.bundle_sha256
        lines.append(f"bundle:   {'identical' if same else 'DIFFERS: templates or code changed'}")
    if run:
        differ = _differing(directory, target)
        lines.append(f"results:  {'DIFFER: ' + ', '.join(differ) if differ else 'identical'}")
        measured_anew = files is not None and before.virtual_s is None  # real time: they differ
        same = same and (not differ or measured_anew)
    return same, [*lines, f"written:  {target}"]


def _untold(event: str, **data: Any) -> None:
    """No ledger."""


def _unsaid(step: str) -> None:
    """Nobody watches."""


def _new_directory(into: Path | None) -> Path:
    if into is not None:
        if into.exists() and (not into.is_dir() or any(into.iterdir())):
            raise ConfigError(f"--into {into} is not empty", hint="name a new directory")
        return into
    stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(2)}"
    return ROOT / "multirun" / stamp / "0"


def _differing(left: Path, right: Path) -> list[str]:
    """The files of two trials that are not the same, byte for byte."""
    names = [name for name in _SAME_FILES if _digests(left / name) != _digests(right / name)]
    return [*names, *(["report"] * (_digests(left / "report") != _digests(right / "report")))]


def _digests(path: Path) -> dict[str, str]:
    """Content hashes of a file, or of all files below a directory; none when it is missing."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {
        p.relative_to(path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }
