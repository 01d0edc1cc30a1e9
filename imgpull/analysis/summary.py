"""`summary.csv`, one row per attempt of a trial, and `cells.csv`, one row per cell.

Hides which measurement stands behind each headline column, and what a summary leaves out so that
two equal sweeps have equal files: wall time, host, places on disk.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from imgpull.analysis.cells import ABOUT, FACTOR_ORDER, cells, factors
from imgpull.analysis.whole import whole
from imgpull.analysis.wording import level_text
from imgpull.results.record import JobRecord, read_measurements, read_records
from imgpull.units import GIB, MIB


@dataclass(frozen=True)
class Headline:
    """A column of the summary: which whole-cluster measurement it is, and its unit's size."""

    column: str
    measurement: str
    statistic: str
    unit: float = 1.0


HEADLINES = (
    Headline("pods", "pod_startup", "n"),
    Headline("pod_startup_p50_s", "pod_startup", "p50"),
    Headline("pod_startup_p99_s", "pod_startup", "p99"),
    Headline("image_pull_p50_s", "image_pull", "p50"),
    Headline("image_pull_p99_s", "image_pull", "p99"),
    Headline("image_pull_wait_p99_s", "image_pull_wait", "p99"),
    Headline("node_throughput_p50_mib_s", "node_throughput", "p50", MIB),
    Headline("data_total_gib", "data", "total", GIB),
    Headline("cold_share", "validity", "cold_share"),
    Headline("pulls", "image_pull", "n"),
    # What the columns above leave out, without which they would mislead.
    Headline("image_pull_p50_at_least_s", "image_pull", "p50_at_least"),  # censored
    Headline("image_pull_p99_at_least_s", "image_pull", "p99_at_least"),
    Headline("pod_startup_p50_at_least_s", "pod_startup", "p50_at_least"),  # some never ran
    Headline("pod_startup_p99_at_least_s", "pod_startup", "p99_at_least"),
    Headline("image_pull_waits", "image_pull_wait", "n"),
    Headline("pods_asked", "validity", "pods_asked"),
    Headline("pulls_censored", "validity", "censored"),
    Headline("pulls_failed", "validity", "failed"),
    Headline("pulls_throttled", "validity", "throttled"),
)
NUMBERS = [headline.column for headline in HEADLINES]


def read_sweep(sweep_dir: Path) -> pd.DataFrame:
    """One row per attempt of a trial, in the order of job numbers; what is unknown is NaN or None.

    `counts` is true for the last attempt of a trial, if its verdict lets its numbers be compared.
    """
    found, _ = read_records(sweep_dir)
    names = _factor_names(record for _, record in found)
    rows = [
        {
            "job": int(place.relative_to(sweep_dir).parts[0]),
            **_about(record, sweep_dir),
            **{name: _level(record.factors.get(name)) for name in names},
            **_numbers(place),
            "counts": record.counts,
        }
        for place, record in found
    ]
    frame = pd.DataFrame(rows, columns=[*ABOUT, *names, *NUMBERS, "counts"], dtype=object)
    frame = frame.astype(dict.fromkeys(NUMBERS, "float64") | {"counts": "bool", "job": "int64"})
    frame["counts"] &= ~frame.duplicated("job", keep="last")
    return frame


def write_summary(sweep_dir: Path, frame: pd.DataFrame | None = None) -> Path:
    """Write `summary.csv` and `cells.csv`, each whole or not at all; unknown is empty, never 0.

    `frame` is the sweep as `read_sweep` has it, read where it is not given.
    """
    found = read_sweep(sweep_dir) if frame is None else frame
    names = factors(found)
    counts = found["counts"].map({True: "true", False: "false"})
    _write(cells(found), names, sweep_dir / "cells.csv")
    return _write(found.assign(counts=counts), names, sweep_dir / "summary.csv")


def _write(frame: pd.DataFrame, names: Iterable[str], path: Path) -> Path:
    said = frame.copy()
    for name in names:
        said[name] = [None if level is None else level_text(level) for level in frame[name]]
    with whole(path) as temporary:
        said.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    return path


def _factor_names(records: Iterable[JobRecord]) -> list[str]:
    """The standing factors in their own order, then further swept keys by name."""
    taken = {*ABOUT, *NUMBERS, "counts"}
    found = {name for record in records for name in record.factors} - taken
    return [name for name in FACTOR_ORDER if name in found] + sorted(found - {*FACTOR_ORDER})


def _about(record: JobRecord, sweep_dir: Path) -> dict[str, Any]:
    reasons = record.reasons
    if not reasons and record.error:
        reasons = (f"{record.error.type}: {record.error.message}",)
    about = {name: getattr(record, name) for name in ABOUT if name not in ("job", "reasons")}
    # A reason may quote a file of the trial; where the sweep lies is no part of its result.
    place = re.compile(rf"(?:[^\s'\"(]*/)?\b{re.escape(sweep_dir.resolve().name)}/")
    return about | {"reasons": "; ".join(" ".join(place.sub("", one).split()) for one in reasons)}


def _level(value: Any) -> Any:
    """A level that can be compared and grouped: lists and mappings become their JSON."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def _numbers(place: Path) -> dict[str, float | None]:
    whole = {
        (row.measurement, row.statistic): row.value
        for row in read_measurements(place)
        if not row.subject
    }
    found = ((item, whole.get((item.measurement, item.statistic))) for item in HEADLINES)
    return {item.column: None if value is None else value / item.unit for item, value in found}
