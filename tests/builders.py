"""Directories of finished trials and sweeps, as the pipeline leaves them, for tests.

Only what a test names differs from a plain, valid, simulated trial.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from imgpull.pulls import COLUMNS
from imgpull.results.record import (
    Failure,
    JobRecord,
    Measurement,
    write_measurements,
    write_record,
)

# Unit by measurement; the statistic n is a count in each.
UNITS = {"data": "bytes", "node_throughput": "bytes/s", "containerd_throughput": "bytes/s"}
UNITS |= {"validity": "1", "containerd_pulls": "1"}
SOURCES = {"pod_startup": "PodStartupLatency", "image_pull": "pulls.csv"}

FACTORS: Mapping[str, Any] = {
    "deployments": 10, "replicas": 1, "qps": 10.0, "nodes": 10, "image": "pytorch_large",
    "cluster": "aks_d4ds_v5", "cache": "cold",
}  # fmt: skip


def measurement(
    name: str, statistic: str, value: float, *, subject: str = "", unit: str | None = None
) -> Measurement:
    """A row of measurements.csv in its usual unit."""
    usual = "1" if statistic in ("n", "success", "failure") else UNITS.get(name, "s")
    source = SOURCES.get(name, "pulls.csv")
    return Measurement(name, statistic, subject, value, unit or usual, source)


def pull(index: int, pull_s: float | None, **columns: object) -> dict[str, object]:
    """A row of pulls.csv: a cold leader pull on a node of its own unless told otherwise."""
    plain = {
        "namespace": "imgpull-1", "pod": f"pull-{index}", "pod_uid": f"uid-{index}",
        "container": "main", "node": f"node-{index}", "image": "registry/pytorch:1",
        "digest": "sha256:aa", "requested_at": 1.0, "pull_s": pull_s, "wait_s": 0.5,
        "size_bytes": 15_000_000_000, "fetched_bytes": 15_000_000_000, "leader": True,
        "temperature": "cold", "outcome": "pulled" if pull_s is not None else "censored",
        "failure": None, "attempts": 1, "message": None, "source": "sim",
    }  # fmt: skip
    return plain | columns


def write_trial(
    directory: Path,
    *,
    cell: str = "cell-a",
    trial: int = 1,
    factors: Mapping[str, Any] = FACTORS,
    values: Mapping[tuple[str, str], float] | None = None,
    rows: Sequence[Measurement] = (),
    pulls: Sequence[Mapping[str, object]] = (),
    config: Mapping[str, Any] | None = None,
    verdict: str = "valid",
    reasons: Sequence[str] = (),
    error: Failure | None = None,
    **record: Any,
) -> Path:
    """A trial's directory; `values` maps (measurement, statistic) of the whole cluster to numbers.

    `rows` adds rows of other subjects or units, `record` overrides any field of JobRecord.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if values or rows:
        whole = [measurement(*key, value) for key, value in (values or {}).items()]
        write_measurements(directory, [*whole, *rows])
    if pulls:
        with (directory / "pulls.csv").open("w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            out.writeheader()
            out.writerows(pulls)
    if config is not None:
        text = yaml.safe_dump(dict(config), sort_keys=False)
        (directory / "config.resolved.yaml").write_text(text, "utf-8")
    plain: dict[str, Any] = {
        "cell_id": cell, "trial_id": f"{cell}-{trial}", "attempt": 1, "trial": trial,
        "block": trial, "position": 1, "name": "r5 q10", "factors": dict(factors), "engine": "sim",
        "measured_by": "simcluster", "started_at": "2000-01-01T00:00:00Z", "wall_s": 2.0,
        "virtual_s": 900.0, "verdict": verdict, "reasons": tuple(reasons), "slo": "met",
        "error": error, "fingerprint": {"engine": "sim", "containerd": "2.1.9"},
        "versions": {"imgpull": "0.1.0"}, "digests": {"image": "sha256:aa"}, "seed": 0,
        "bundle_sha256": "bb", "config_sha256": "cc", "git": {"revision": "abc123", "dirty": False},
        "host": {},
    }  # fmt: skip
    assert set(record) <= {item.name for item in fields(JobRecord)}, record
    write_record(directory, JobRecord(**(plain | record)))
    return directory


def write_sweep(
    directory: Path,
    factors: Mapping[str, Sequence[Any]],
    *,
    trials: int = 1,
    value: Mapping[tuple[str, str], float] | None = None,
) -> list[Path]:
    """A sweep of one factor after another (each against the plain levels): its trials' directories.

    Every level of every factor is a cell; `value` is what each trial measured.
    """
    cells = [(key, level) for key, levels in factors.items() for level in levels]
    order = [(key, level, trial) for trial in range(1, trials + 1) for key, level in cells]
    return [
        write_trial(
            directory / str(number),
            cell=f"{key}-{level}",
            trial=trial,
            factors={**FACTORS, key: level},
            name=f"{key}{level}",
            values=value or {("image_pull", "p50"): 180.0 + number},
        )
        for number, (key, level, trial) in enumerate(order)
    ]
