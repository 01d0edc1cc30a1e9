"""The steps of one job, in order: write its bundle, run it, assess, record.

Hides that a trial may fail at any of them: whatever breaks is caught here and written into
job.json, and the sweep goes on.
"""

import functools
import hashlib
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

import yaml

from imgpull import __version__, engines, render, results
from imgpull.config import job as jobs
from imgpull.config.job import Job
from imgpull.engines import Engine, Execution, Outcome, Say, Session
from imgpull.errors import ImgpullError, ReportError
from imgpull.results.record import Failure, JobRecord, write_record

_APART = engines.Apart()
RESOLVED = "config.resolved.yaml"
# libyaml's are ten times faster; it is missing on few machines.
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_YAML_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_PACKAGES = (
    "hydra-core", "omegaconf", "jinja2", "promql-parser", "numpy", "pandas", "mlflow", "kubernetes",
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a trial stands in its sweep, and the directory that will hold it."""

    directory: Path
    name: str  # what differs from the other cells, short: "r5 q10"
    cell_id: str
    factors: Mapping[str, Any]
    block: int = 1
    position: int = 1
    attempt: int = 1
    sweep: str = ""  # names what is made on a cluster


def trial_id(cell_id: str, trial: int) -> str:
    """The name of one execution of a cell, however often it is attempted."""
    return f"{cell_id}-t{trial}"


def run_job(
    job: Job,
    values: Mapping[str, Any],
    files: Mapping[str, str] | None,
    place: Place,
    say: Say,
    session: Session = _APART,
) -> JobRecord:
    """Run one trial of a job and leave its complete directory.

    `values` is the configuration that the job came from, `files` its rendered bundle, `session`
    what the sweep's trials share. Raises only what keeps the record itself from being written, such
    as a full disk.
    """
    begun = time.perf_counter()
    place.directory.mkdir(parents=True, exist_ok=True)
    resolved = _write_resolved(values, place.directory)
    attempt = _Attempt()
    with (place.directory / "run.log").open("a", encoding="utf-8") as log:
        try:
            _run(job, files, place, attempt, _logged(log, say), session)
        except Exception as error:  # one bug must not cost the night's sweep
            attempt.fail(error)
            log.write(attempt.error.traceback if attempt.error else "")
    # Another trial of the cell waits for no cluster: it is no time of the trial's own.
    own_s = time.perf_counter() - begun - attempt.provisioning_s
    record = _record(job, place, attempt, resolved, own_s)
    write_record(place.directory, record)
    return record


def _write_resolved(values: Mapping[str, Any], directory: Path) -> str:
    """Keep the resolved configuration (Hydra's own snapshot is not); returns its text."""
    text: str = yaml.dump(dict(values), Dumper=_YAML_DUMPER, sort_keys=True, allow_unicode=True)
    (directory / RESOLVED).write_text(text, encoding="utf-8")
    return text


def read_resolved(directory: Path) -> dict[str, Any]:
    """The configuration that a trial ran with; ReportError when it cannot be read."""
    path = directory / RESOLVED
    try:
        values = yaml.load(path.read_text("utf-8"), Loader=_YAML_LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ReportError(f"{path} cannot be read: {error}", hint="restore the file") from error
    if not isinstance(values, dict):
        raise ReportError(f"{path} holds no configuration", hint="restore the file")
    return values


@dataclass
class _Attempt:
    """What is known of a trial while it runs, and still when it breaks."""

    engine: Engine | None = None
    bundle_sha256: str | None = None
    outcome: Outcome | None = None
    verdict: str = "failed"
    reasons: tuple[str, ...] = ()
    slo: str = "unknown"
    error: Failure | None = None
    provisioning_s: float = 0.0  # until there was a cluster of the trial's shape

    def fail(self, error: Exception) -> None:
        known = isinstance(error, ImgpullError)
        message = error.message if isinstance(error, ImgpullError) else str(error)
        self.verdict = "failed"
        self.reasons = (message if known else f"{type(error).__name__}: {message}",)
        self.error = Failure(
            type=type(error).__name__,
            message=message,
            hint=error.hint if isinstance(error, ImgpullError) else "",
            traceback="".join(traceback.format_exception(error)),
        )


def _run(
    job: Job,
    files: Mapping[str, str] | None,
    place: Place,
    attempt: _Attempt,
    say: Say,
    session: Session,
) -> None:
    say("starting")
    engine = attempt.engine = engines.build(job)  # its subject is told whatever happens to others
    execution = Execution(place.sweep, trial_id(place.cell_id, job.trial), place.attempt)
    begun = time.perf_counter()
    try:
        engine = attempt.engine = session.engine(job, execution)
    finally:
        attempt.provisioning_s = time.perf_counter() - begun
    bundle = None
    if files is not None:
        bundle = render.write(files, place.directory / "bundle")
        attempt.bundle_sha256 = bundle.sha256
    attempt.outcome = engine.run(bundle, place.directory, say)
    say("reading the report")
    assessment = results.assess(place.directory, engine.subject, attempt.outcome)
    attempt.verdict, attempt.reasons = assessment.verdict, assessment.reasons
    attempt.slo = assessment.slo


def _logged(log: TextIO, say: Say) -> Say:
    def both(step: str) -> None:
        log.write(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {step}\n")
        log.flush()
        say(step)

    return both


def _record(job: Job, place: Place, attempt: _Attempt, resolved: str, wall_s: float) -> JobRecord:
    engine, outcome = attempt.engine, attempt.outcome
    subject = engine.subject if engine else None
    started_at = outcome.started_at if outcome else None
    return JobRecord(
        cell_id=place.cell_id,
        trial_id=trial_id(place.cell_id, job.trial),
        attempt=place.attempt,
        trial=job.trial,
        block=place.block,
        position=place.position,
        name=place.name,
        factors=dict(place.factors),
        engine=job.engine.kind,
        measured_by=outcome.measured_by if outcome else "nothing: the trial failed",
        started_at=started_at.isoformat() if started_at else None,
        wall_s=round(wall_s, 3),
        virtual_s=outcome.virtual_s if outcome else None,
        verdict=attempt.verdict,
        reasons=attempt.reasons,
        slo=attempt.slo,
        error=attempt.error,
        fingerprint=subject.fingerprint if subject else {},
        versions={**package_versions(), **(outcome.versions if outcome else {})},
        digests={
            "image": subject.image_digest if subject else None,
            **(outcome.digests if outcome else {}),
        },
        seed=job.seed,
        bundle_sha256=attempt.bundle_sha256,
        config_sha256=hashlib.sha256(resolved.encode()).hexdigest(),
        git=git_state(),
        allowed=job.allow,
        observed=outcome.observed if outcome else {},
        host={"name": platform.node(), "system": platform.platform()},
        notes=jobs.notes(job) if engine and engine.renders else (),
    )


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions of what can change a result: imgpull, Python and the libraries that matter."""
    versions = {"imgpull": __version__, "python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def git_state() -> dict[str, Any]:
    """Revision and dirty flag of the checkout; unknown (None) where there is no git."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str | None:
        try:
            run = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return run.stdout.strip()

    status = git("status", "--porcelain")
    return {"revision": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}
