"""What pictures read of each trial besides its record: pods, pulls, series, and its cluster.

Hides where an attempt's files lie and that any of them may be absent or broken: a report of what
is there is worth more than none, and it says what is not.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from imgpull.analysis.limits import read_config, read_limits
from imgpull.analysis.series import Series, read_series
from imgpull.errors import ReportError
from imgpull.tables import number
from imgpull.units import MIB, parse_duration

Row = dict[str, str]


@dataclass(frozen=True)
class Limits:
    """What the description of the cluster allows, MiB/s; None is not described."""

    nic: float | None
    disk: float | None
    registry: float | None  # egress to all nodes together


@dataclass(frozen=True)
class TrialFiles:
    """The files of one attempt, each read when first asked for and forgotten with this object."""

    place: Path

    @cached_property
    def pods(self) -> list[Row]:
        """The rows of pods.csv, cells as written."""
        return list(_rows(self.place / "pods.csv"))

    @cached_property
    def pulls(self) -> list[Row]:
        """The rows of pulls.csv, cells as written."""
        return list(_rows(self.place / "pulls.csv"))

    @property
    def leaders(self) -> list[Row]:
        """The pulls that moved bytes: one a node and digest. Others waited on them."""
        return [row for row in self.pulls if row.get("leader", "").lower() == "true"]

    @cached_property
    def late_s(self) -> list[float]:
        """How long the leaders' pulls that were not over at the deadline took at least.

        Of one that was in back-off then, since it was first asked for: its last attempt had not
        begun, and a curve without it would be of the quick ones alone. The whole wait where that is
        not known; left out where nothing is.
        """
        late = [row for row in self.leaders if row.get("outcome") == "censored"]
        told = [number(row.get("pull_at_least_s")) for row in late]
        wait_s = self._wait_s() if None in told else None
        created_s = {_of(row): number(row.get("created")) for row in self.pods}
        found = []
        for row, least_s in zip(late, told, strict=True):
            begin_s, at_s = created_s.get(_of(row)), number(row.get("requested_at"))
            if least_s is None and wait_s is not None:
                least_s = wait_s
                if begin_s is not None and at_s is not None:
                    least_s = max(0.0, begin_s + wait_s - at_s)
            if least_s is not None:
                found.append(least_s)
        return found

    def _wait_s(self) -> float | None:
        """How long the trial waited for a pod; None where its configuration does not say."""
        try:
            return parse_duration(read_config(self.place)["wait_timeout"])
        except (ValueError, TypeError, KeyError):
            return None

    @cached_property
    def series(self) -> dict[str, Series]:
        """The rates in series.csv by node; {} where there is none, or another file."""
        try:
            return read_series(self.place / "series.csv")
        except (OSError, ReportError):
            return {}


def _of(row: Row) -> tuple[str | None, str | None]:
    """The pod that a row is about."""
    return row.get("namespace"), row.get("pod")


def files_of(sweep_dir: Path, trial: "pd.Series[Any]") -> TrialFiles:
    """The files of a row of the summary."""
    place = sweep_dir / str(trial["job"])
    again = place / f"attempt-{trial['attempt']}"
    return TrialFiles(again if again.exists() else place)


def limits_of(place: Path) -> Limits:
    """The limits in config.resolved.yaml; all unknown where it cannot be read."""
    try:
        told = read_limits(place / "config.resolved.yaml")
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        return Limits(None, None, None)
    return Limits(
        *(_mib(one) for one in (told.nic_bytes_s, told.disk_bytes_s, told.egress_bytes_s))
    )


def _mib(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else value / MIB


def _rows(path: Path) -> Iterator[Row]:
    """The rows of a CSV file; none where it is absent or no CSV. DictReader takes twice as long."""
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            for line in lines:
                yield dict(zip(header, line, strict=False))
    except (OSError, csv.Error):
        return
