"""Verdicts rolled up: from single pulls to trials, cells and the whole sweep, with counts and why.

Hides where each step is kept (flags.csv, job.json) and what counts as the same reason in two
trials: its words, whatever its figures.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from imgpull.analysis.wording import ranged
from imgpull.results.flags import read_flags
from imgpull.results.record import VERDICTS, JobRecord, read_records

LEVELS = ("sweep", "cell", "trial")


@dataclass(frozen=True)
class Rolled:
    """What became of a sweep, a cell or a trial.

    A trial that was run again counts with its last attempt; `attempts` says how many there were.
    """

    level: str  # one of LEVELS
    cell_id: str  # empty for a sweep
    name: str
    job: int | None  # the number of a trial's directory
    verdicts: dict[str, int]  # verdict -> trials
    attempts: int
    slo_missed: int  # trials that count and missed a limit
    flags: dict[str, int]  # kind -> pulls of these trials
    reasons: tuple[tuple[str, int], ...]  # (reason, trials that have it), the gravest first

    @property
    def counted(self) -> int:
        """Trials whose numbers enter comparisons."""
        return self.verdicts.get("valid", 0) + self.verdicts.get("degraded", 0)


@dataclass(frozen=True)
class _Trial:
    job: int
    record: JobRecord
    attempts: int
    flags: Counter[str]


def roll_up(sweep_dir: Path) -> list[Rolled]:
    """The sweep first, then each cell in the order of its first trial, followed by its trials."""
    trials = list(_trials(sweep_dir))
    cells: dict[tuple[str, str], list[_Trial]] = {}
    for trial in trials:
        cells.setdefault((trial.record.cell_id, trial.record.name), []).append(trial)
    rolled = [_rolled("sweep", "", sweep_dir.resolve().name, None, trials)]
    for (cell_id, name), own in cells.items():
        rolled.append(_rolled("cell", cell_id, name, None, own))
        rolled += [_rolled("trial", cell_id, name, trial.job, [trial]) for trial in own]
    return rolled


def _trials(sweep_dir: Path) -> Iterator[_Trial]:
    found: dict[int, list[tuple[Path, JobRecord]]] = {}
    for place, record in read_records(sweep_dir)[0]:
        found.setdefault(int(place.relative_to(sweep_dir).parts[0]), []).append((place, record))
    for job, attempts in found.items():
        last, record = attempts[-1]
        kinds = Counter(flag.kind for flag in read_flags(last / "flags.csv"))
        yield _Trial(job, record, len(attempts), kinds)


def _rolled(
    level: str, cell_id: str, name: str, job: int | None, trials: Iterable[_Trial]
) -> Rolled:
    trials = list(trials)
    found = Counter(trial.record.verdict for trial in trials)
    flags = sum((trial.flags for trial in trials), Counter[str]())
    missed = sum(trial.record.counts and trial.record.slo == "missed" for trial in trials)
    return Rolled(
        level=level,
        cell_id=cell_id,
        name=name,
        job=job,
        verdicts={verdict: found[verdict] for verdict in VERDICTS if found[verdict]},
        attempts=sum(trial.attempts for trial in trials),
        slo_missed=missed,
        flags=dict(flags),
        reasons=_reasons(trials),
    )


def _reasons(trials: Iterable[_Trial]) -> tuple[tuple[str, int], ...]:
    """Each reason once, its figures as ranges over its trials, with how many have it."""
    every: dict[str, list[str]] = {}
    gravest = sorted(trials, key=lambda trial: -VERDICTS.index(trial.record.verdict))
    for trial in gravest:
        record = trial.record
        said = record.reasons
        if not said and record.error:
            said = (f"{record.error.type}: {record.error.message}",)
        for key, reason in {_words(reason): reason for reason in said}.items():
            every.setdefault(key, []).append(reason)
    return tuple((ranged(told), len(told)) for told in every.values())


def _words(reason: str) -> str:
    """A reason without its figures, names of pods and nodes, and plurals."""
    return re.sub(r"\S*\d\S*", "#", re.sub(r"\b(pull|node|pod)s\b", r"\1", reason))
