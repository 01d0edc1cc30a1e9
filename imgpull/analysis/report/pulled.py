"""What the pulls of a sweep say beyond their quantiles: how they spread, and how they failed.

Hides that some pulls were not over at the deadline: the share of pulls that took at most so long
is Kaplan and Meier's estimate, in which such a pull counts until the moment it was last seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from imgpull.analysis.report.traces import evenly
from imgpull.analysis.trial_files import Row, TrialFiles
from imgpull.tables import number

MAX_STEPS = 120  # of one curve: more than a screen has pixels between them
_LATE = "not over at the deadline"
_NEVER_READY = "pod never became ready"


@dataclass(frozen=True)
class Curve:
    """The share of a cell's pulls that took at most so many seconds; `steps` are (s, share)."""

    steps: tuple[tuple[float, float], ...]
    pulls: int
    censored: int
    last_s: float  # when the last pull was seen


@dataclass(frozen=True)
class Failures:
    """Pulls that failed first for one reason, in one cell."""

    cell: str
    kind: str
    count: int
    recovered: int  # of them, those that worked in the end
    jobs: tuple[int, ...]
    example: str


@dataclass
class Pulled:
    """Collects trial by trial, so that no more than one trial's files are held."""

    _ended: dict[int, list[float]] = field(default_factory=dict)  # cell -> s
    _open: dict[int, list[float]] = field(default_factory=dict)
    _failed: dict[tuple[int, str], list[tuple[int, Row]]] = field(default_factory=dict)

    def add(self, cell: int, job: int, files: TrialFiles, *, counts: bool) -> None:
        """Take in a trial of the cell at this place; failures count in every verdict."""
        for row in files.pulls:
            late = _LATE if row.get("outcome") == "censored" else ""
            if kind := row.get("failure") or late:
                self._failed.setdefault((cell, kind), []).append((job, row))
        for row in files.pods:
            if not row.get("ready"):
                self._failed.setdefault((cell, _NEVER_READY), []).append((job, row))
        if counts:
            ended = [row.get("pull_s") for row in files.leaders if row.get("outcome") == "pulled"]
            told = [seconds for one in ended if (seconds := number(one)) is not None]
            for kept, found in ((self._ended, told), (self._open, files.late_s)):
                if found:
                    kept.setdefault(cell, []).extend(found)

    def curves(self) -> dict[int, Curve]:
        """The curve of each cell that has pulls."""
        return {
            cell: curve(self._ended.get(cell, []), self._open.get(cell, []))
            for cell in sorted({*self._ended, *self._open})
        }

    def failures(self, cells: Mapping[int, str]) -> list[Failures]:
        """By cell, the most frequent kind first."""
        found = []
        for (cell, kind), rows in self._failed.items():
            messages = [
                " ".join(message.split()) for _, row in rows if (message := row.get("message"))
            ]
            found.append(
                Failures(
                    cells[cell],
                    kind,
                    len(rows),
                    sum(row.get("outcome") in ("pulled", "present") for _, row in rows),
                    tuple(sorted({job for job, _ in rows})),
                    min(messages, default="")[:200],
                )
            )
        order = list(cells.values())
        return sorted(found, key=lambda one: (order.index(one.cell), -one.count, one.kind))


def curve(ended: list[float], still_open: list[float]) -> Curve:
    """Kaplan and Meier's estimate, thinned evenly by rank with both ends kept."""
    last = max([*ended, *still_open])
    if not ended:
        return Curve((), len(still_open), len(still_open), last)
    from scipy import stats

    sample = stats.CensoredData(uncensored=np.array(ended), right=np.array(still_open))
    found = stats.ecdf(sample).cdf
    moves = np.flatnonzero(np.diff(found.probabilities, prepend=0.0))
    kept = moves[evenly(len(moves), MAX_STEPS)]
    steps = tuple(
        (float(found.quantiles[place]), float(found.probabilities[place])) for place in kept
    )
    return Curve(steps, len(ended) + len(still_open), len(still_open), last)
