"""How long the trials that are left will take.

Hides the estimate. Every time here is the wall clock's: what a simulated cluster lived through is
no part of it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Past:
    """A trial that ran to its end. One that broke says nothing of how long others take."""

    trial_id: str
    cell_id: str
    wall_s: float


@dataclass(frozen=True)
class Coming:
    """A trial that is left; `elapsed_s` where it runs already."""

    trial_id: str
    cell_id: str
    elapsed_s: float | None = None


@dataclass(frozen=True)
class Pace:
    """How trials follow each other: `lanes` at once, and the pauses when none ran."""

    lanes: int = 1
    starts: int = 0
    pauses_s: tuple[float, ...] = ()

    @property
    def pause_per_trial_s(self) -> float:
        """What is spent between trials, on logging them for instance, for each trial."""
        # The median: a laptop that slept, or a clock that was set, made one pause long.
        if not self.pauses_s:
            return 0.0
        usual_s = sorted(self.pauses_s)[len(self.pauses_s) // 2]
        return usual_s * len(self.pauses_s) / self.starts


def left_s(
    coming: Sequence[Coming], past: Sequence[Past], expected_s: Mapping[str, float], pace: Pace
) -> float | None:
    """Seconds until all of `coming` is done, never below zero; None where nothing is known.

    What was expected of a trial is corrected by how finished trials compare with what was expected
    of them; without expectations it is the mean of its cell, or of all cells.
    """
    lasting = _Lasting(past, expected_s)
    rest, longest, waiting = 0.0, 0.0, 0
    for trial in coming:
        whole_s = lasting.whole_s(trial)
        if whole_s is None:
            return None
        still_s = max(whole_s - (trial.elapsed_s or 0.0), 0.0)
        rest += still_s
        longest = max(longest, still_s)
        waiting += trial.elapsed_s is None
    # Lanes share the work, but the last trial runs alone however many there are.
    return max(rest / max(pace.lanes, 1), longest) + waiting * pace.pause_per_trial_s


class _Lasting:
    """How long trials take from begin to end."""

    def __init__(self, past: Sequence[Past], expected_s: Mapping[str, float]) -> None:
        self._expected_s = expected_s
        told = [(trial.wall_s, expected_s[trial.trial_id]) for trial in past
                if trial.trial_id in expected_s]  # fmt: skip
        foreseen = sum(expected for _, expected in told)
        self._ratio = sum(actual for actual, _ in told) / foreseen if foreseen > 0 else 1.0
        by_cell: dict[str, list[float]] = defaultdict(list)
        for trial in past:
            by_cell[trial.cell_id].append(trial.wall_s)
        self._cells = {cell_id: sum(walls) / len(walls) for cell_id, walls in by_cell.items()}
        self._any = _mean(self._cells.values() or expected_s.values())

    def whole_s(self, trial: Coming) -> float | None:
        """Seconds of this one; None when nothing tells."""
        if trial.trial_id in self._expected_s:
            return self._expected_s[trial.trial_id] * self._ratio
        return self._cells.get(trial.cell_id, self._any)


def _mean(numbers: Iterable[float]) -> float | None:
    found = list(numbers)
    return sum(found) / len(found) if found else None
