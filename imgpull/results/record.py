"""`job.json` and `measurements.csv`: the truth of one trial, written once and read by all.

Hides the two file formats. `job.json` is written last, by rename, so its presence means the trial
is over. Format history: schema 1 (0.1.0) is the first.
"""

import csv
import ctypes
import errno
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from imgpull.errors import ReportError
from imgpull.results.own_tables import read_rows

SCHEMA = 1
VERDICTS = ("valid", "degraded", "invalid", "failed")
COUNTED = ("valid", "degraded")  # verdicts whose numbers enter comparisons
SLO = ("met", "missed", "unknown")


@dataclass(frozen=True)
class Measurement:
    """One number; units are s, bytes, bytes/s and 1. `subject` is a node, or empty for all.

    A quantile of a histogram comes with rows `n` and `<statistic>_bucket_width` beside it.
    """

    measurement: str
    statistic: str
    subject: str
    value: float
    unit: str
    source: str


MEASUREMENT_COLUMNS = tuple(field.name for field in fields(Measurement))


@dataclass(frozen=True)
class Failure:
    """Why a trial has no numbers: an exception, or CL2's own words."""

    type: str
    message: str
    hint: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class JobRecord:
    """What `job.json` holds: design 4.2. Times of the trial's files count from `started_at`."""

    cell_id: str
    trial_id: str
    attempt: int
    trial: int
    block: int
    position: int
    name: str  # what differs, short: "r5 q10"
    factors: Mapping[str, Any]  # factor -> level; None is unknown
    engine: str
    measured_by: str
    started_at: str | None  # RFC 3339; the simulator's clock begins at a fixed date
    wall_s: float
    virtual_s: float | None  # None where time was real
    verdict: str
    reasons: tuple[str, ...]
    slo: str
    error: Failure | None
    fingerprint: Mapping[str, Any]
    versions: Mapping[str, str]
    digests: Mapping[str, str | None]
    seed: int
    bundle_sha256: str | None
    config_sha256: str
    git: Mapping[str, Any]
    host: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()  # fields whose mismatch with the real cluster was accepted
    observed: Mapping[str, Any] = field(default_factory=dict)  # what an engine saw of its cluster
    schema: int = field(default=SCHEMA)

    @property
    def counts(self) -> bool:
        """Whether this trial's numbers enter comparisons."""
        return self.verdict in COUNTED


def write_record(directory: Path, record: JobRecord) -> None:
    """Write `job.json` whole or not at all; it is on disk when this returns, as all it speaks of.

    A power cut must not leave a valid trial whose pulls.csv is empty.
    """
    temporary = directory / "job.json.tmp"
    temporary.write_text(json.dumps(asdict(record), indent=2, sort_keys=True) + "\n", "utf-8")
    _sync_all(directory)
    temporary.replace(directory / "job.json")
    sync_directory(directory)


def _sync_all(directory: Path) -> None:
    """Have the file system write what it holds: a trial has a hundred files, each fsync is slow."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:  # no Linux
        os.sync()
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(directory))
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot
            raise
    finally:
        os.close(descriptor)


def read_record(directory: Path) -> JobRecord:
    """The record of a finished trial; ReportError when there is none that this version can read."""
    path = directory / "job.json"
    try:
        raw = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ReportError(
            f"{directory} holds no job.json: it is no finished trial", hint="name a job's directory"
        ) from error
    except OSError as error:
        raise ReportError(
            f"{path} cannot be read: {error.strerror or error}", hint="make it readable"
        ) from error
    except (ValueError, RecursionError) as error:  # ValueError: no UTF-8 either
        raise ReportError(f"{path}: not JSON ({error})", hint="restore the file") from error
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        schema = raw.get("schema") if isinstance(raw, dict) else None
        raise ReportError(
            f"{path}: schema {schema}, this version reads {SCHEMA}",
            hint="use the imgpull that wrote it, or a newer one",
        )
    known = {item.name for item in fields(JobRecord)}
    values = {key: value for key, value in raw.items() if key in known}
    try:
        values["reasons"], values["notes"] = tuple(raw["reasons"]), tuple(raw.get("notes", ()))
        values["allowed"] = tuple(raw.get("allowed", ()))
        values["error"] = Failure(**raw["error"]) if raw["error"] else None
        return JobRecord(**values)
    except (KeyError, TypeError) as error:
        raise ReportError(f"{path}: incomplete ({error})", hint="restore the file") from error


def read_records(sweep_dir: Path) -> tuple[list[tuple[Path, JobRecord]], list[ReportError]]:
    """(directory, record) of a sweep's finished trials, and why others cannot be read.

    One damaged file must not hide the results of all the others.
    """
    found, unreadable = [], []
    for place in job_directories(sweep_dir):
        try:
            found.append((place, read_record(place)))
        except ReportError as error:
            unreadable.append(error)
    return found, unreadable


def write_measurements(directory: Path, rows: Iterable[Measurement]) -> None:
    """Write `measurements.csv`, sorted, so that equal trials have equal files."""

    def key(row: Measurement) -> tuple[str, ...]:
        return row.measurement, row.subject, row.statistic, row.source

    with (directory / "measurements.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(MEASUREMENT_COLUMNS)
        for row in sorted(rows, key=key):
            value = f"{row.value:.12g}"  # nanoseconds of hours, bytes of a terabyte
            out.writerow((row.measurement, row.statistic, row.subject, value, row.unit, row.source))


def read_measurements(directory: Path) -> list[Measurement]:
    """The rows of `measurements.csv`; none when the trial failed before it had any.

    ReportError for another file.
    """
    return read_rows(directory / "measurements.csv", MEASUREMENT_COLUMNS, _measurement)


def _measurement(cells: tuple[str, ...]) -> Measurement:
    measurement, statistic, subject, value, unit, source = cells
    return Measurement(measurement, statistic, subject, float(value), unit, source)


def job_directories(sweep_dir: Path) -> list[Path]:
    """The finished trials of a sweep, further attempts included, in the order of their numbers."""
    found = [path.parent for path in sweep_dir.glob("*/job.json")]
    found += [path.parent for path in sweep_dir.glob("*/attempt-*/job.json")]

    def numbers(path: Path) -> list[str]:
        parts = path.relative_to(sweep_dir).parts
        return [parts[0], *(part.removeprefix("attempt-") for part in parts[1:])]

    own = [path for path in found if all(re.fullmatch("[0-9]+", part) for part in numbers(path))]
    return sorted(own, key=lambda path: [int(part) for part in numbers(path)])
