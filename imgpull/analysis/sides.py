"""One side of a comparison: the finished trials under a directory, and any number they measured.

Hides the files: a sweep's directory stands for all its trials, a job's for its own one, and of a
trial that was run again only the last attempt is taken.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgpull.analysis.statistics import Reading
from imgpull.errors import ConfigError, ReportError
from imgpull.results.record import JobRecord, job_directories, read_measurements, read_record

PRIMARY = "image_pull_s/p50"
_UNIT_SUFFIXES = ("_mib_s", "_gib", "_s")  # of MLflow's metric names
_AT_LEAST = "_at_least"
_MORE_IS_WORSE = {"s": True, "bytes": True, "bytes/s": False}


class CannotTell(ReportError):
    """No two numbers can be held against each other."""


@dataclass(frozen=True)
class Trial:
    """A finished trial: its record and what it measured of the whole cluster."""

    directory: Path
    record: JobRecord
    numbers: Mapping[tuple[str, str], tuple[float, str]]  # (measurement, statistic): value, unit
    levels: Mapping[str, Any]  # its factors; lists and mappings as JSON, so that levels compare


@dataclass(frozen=True)
class Side:
    """The trials under `path`."""

    path: Path
    trials: tuple[Trial, ...]

    @property
    def counted(self) -> tuple[Trial, ...]:
        """Those whose verdict lets them be compared."""
        return tuple(trial for trial in self.trials if trial.record.counts)

    @property
    def incidents(self) -> dict[str, int]:
        """What its numbers alone do not tell: of pulls and trials that count, how many were so."""

        def pulls(*statistics: str) -> int:
            known = [
                trial.numbers.get(("validity", one)) for trial in self.counted for one in statistics
            ]
            return int(sum(number for number, _ in filter(None, known)))

        return {
            "pulls": pulls("pulls", "failed", "censored"),
            **{name: pulls(name) for name in ("throttled", "failed", "censored")},
            "slo_missed": sum(trial.record.slo == "missed" for trial in self.counted),
            "degraded": sum(trial.record.verdict == "degraded" for trial in self.counted),
        }


@dataclass(frozen=True)
class Quantity:
    """Which number of a trial is compared."""

    measurement: str
    statistic: str
    unit: str

    @property
    def text(self) -> str:
        """As a person reads it: "image pull p50"."""
        return f"{self.measurement.replace('_', ' ')} {self.statistic}"

    @property
    def more_is_worse(self) -> bool | None:
        """Whether growth is a slowdown: of times and sizes, not of rates; None of counts."""
        return _MORE_IS_WORSE.get(self.unit)

    def named(self, name: str) -> bool:
        """Whether a name like MLflow's, or one without a unit, is this quantity's."""
        return self.measurement in _stems(name) and self.statistic == name.partition("/")[2]

    def of(self, trial: Trial) -> Reading | None:
        """A trial's number, or what it at least is; None when unknown."""
        found = trial.numbers.get((self.measurement, self.statistic))
        if found is not None:
            return Reading(found[0])
        bound = trial.numbers.get((self.measurement, self.statistic + _AT_LEAST))
        return None if bound is None else Reading(bound[0], at_least=True)


def read_side(path: Path) -> Side:
    """The trials of a sweep's or a job's directory; ReportError when there are none."""
    if (path / "job.json").exists():
        places = [path]
        if not path.name.startswith("attempt-"):
            further = [place.parent for place in path.glob("attempt-*/job.json")]
            places += sorted(further, key=lambda place: int(place.name.rpartition("-")[2]))
        return Side(path, (_trial(places[-1]),))
    last = {place.relative_to(path).parts[0]: place for place in job_directories(path)}
    if not last:
        raise ReportError(
            f"{path} holds no finished trial", hint="name a sweep's directory, or a job's in it"
        )
    return Side(path, tuple(_trial(place) for place in last.values()))


def _trial(place: Path) -> Trial:
    numbers = {
        (row.measurement, row.statistic): (row.value, row.unit)
        for row in read_measurements(place)
        if not row.subject
    }
    record = read_record(place)
    return Trial(place, record, numbers, {key: level(one) for key, one in record.factors.items()})


def level(value: Any) -> Any:
    """A level that compares: lists and mappings as JSON."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def quantity(name: str, sides: Sequence[Side]) -> Quantity:
    """The quantity of a name like MLflow's, image_pull_s/p50; ConfigError lists what there is."""
    known = _known(sides)
    statistic = name.partition("/")[2]
    for measurement in _stems(name):
        for found in (statistic, statistic + _AT_LEAST):
            if (measurement, found) in known:
                return Quantity(measurement, statistic, known[measurement, found])
    if not known:
        raise CannotTell(
            "no trial on either side counts: all failed or were invalid",
            hint="look at their verdicts: imgpull report DIR",
        )
    raise ConfigError(
        f"no trial measured '{name}'", hint=f"choose one of {', '.join(_names(known))}"
    )


def _stems(name: str) -> list[str]:
    """What a name may call its measurement: as it is written, and without a unit."""
    stem = name.partition("/")[0]
    return [stem, *(stem.removesuffix(end) for end in _UNIT_SUFFIXES if stem.endswith(end))]


def directed(sides: Sequence[Side]) -> list[str]:
    """The names of quantities of which more is a slowdown, or less."""
    return _names(key for key, unit in _known(sides).items() if unit in _MORE_IS_WORSE)


def _known(sides: Sequence[Side]) -> dict[tuple[str, str], str]:
    """The unit of every number that some trial which counts has."""
    trials = [trial for side in sides for trial in side.counted]
    return {key: unit for trial in trials for key, (_, unit) in trial.numbers.items()}


def _names(known: Iterable[tuple[str, str]]) -> list[str]:
    names = {
        f"{measurement}/{statistic.removesuffix(_AT_LEAST)}" for measurement, statistic in known
    }
    return sorted(name for name in names if not name.endswith(("_bucket_width", "/n")))
