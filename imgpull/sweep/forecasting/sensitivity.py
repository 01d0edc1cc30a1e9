"""What the trials of a plan can show: the smallest difference between two cells, and what it takes.

Hides where the spread between trials comes from: earlier trials of the same cells, within each
sweep, or an assumption that is called one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgpull.config.sweeping import SweepSettings
from imgpull.results.record import JobRecord, read_measurements
from imgpull.sweep.forecasting.history import earlier_places
from imgpull.sweep.plan import Cell

_PRIMARY = ("image_pull", "p50")


@dataclass(frozen=True)
class Sensitivity:
    """What so many trials a cell show with 80 % power; `smallest` is None for too few of them.

    `needed` trials show the target; None without a target, or when a thousand would not.
    """

    trials: int
    paired: bool
    spread: float
    basis: str
    smallest: float | None
    target: float | None
    needed: int | None
    simulated: bool

    def notes(self) -> list[str]:
        """In sentences."""
        from imgpull.analysis.wording import change, plural

        how = f"{self.basis}; pairs by block" if self.paired else self.basis
        trials = plural(self.trials, "trial")
        if self.smallest is None:
            found = [f"{trials} a cell cannot show any difference between two cells: trials=4"]
        else:
            found = [
                f"{trials} a cell show {change(self.smallest)} of image pull p50 between two cells "
                f"in 4 of 5 sweeps ({how})"
            ]
        if self.simulated:
            found.append("simulated cells share their luck: they show far smaller differences")
        return found + self._about_target()

    def _about_target(self) -> list[str]:
        from imgpull.analysis.wording import change

        if self.target is None:
            return []
        wanted = f"target_effect {change(self.target)}"
        if self.needed is None:
            return [f"{wanted}: a thousand trials a cell would not show it"]
        if self.needed <= self.trials:
            return [f"{wanted}: {self.needed} trials a cell are enough"]
        return [f"{wanted} needs trials={self.needed}"]


def sensitivity(
    cells: Sequence[Cell], simulated: bool, settings: SweepSettings, root: Path
) -> Sensitivity:
    """What the sweep can show; `root` holds earlier sweeps."""
    from imgpull.analysis.power import SPREAD, detectable, spread_of, trials_needed

    earlier = list(earlier_places(root, {cell.cell_id for cell in cells}))
    groups = _groups(earlier)
    spread = spread_of(groups)
    basis = "spread 10 %: ASSUMPTION, no earlier trials"
    if spread:
        count = sum(len(values) for values in groups)
        basis = f"spread {100 * spread:.2g} %, of {count} earlier trials"
    paired = settings.order == "blocks"
    last = settings.trial_numbers[-1]
    target = settings.target_effect
    return Sensitivity(
        trials=last,
        paired=paired,
        spread=spread or SPREAD,
        basis=basis,
        smallest=detectable(spread or SPREAD, last, paired),
        target=target,
        needed=None if target is None else trials_needed(target, spread or SPREAD, paired),
        simulated=simulated,
    )


def _groups(earlier: Iterable[tuple[Path, JobRecord]]) -> list[list[float]]:
    """The primary measurement of trials, by sweep and cell; groups of one say nothing."""
    found: dict[tuple[Path, str], list[float]] = {}
    for place, record in earlier:
        sweep = place.parent.parent if place.name.startswith("attempt-") else place.parent
        values = found.setdefault((sweep, record.cell_id), [])
        values += [
            row.value
            for row in read_measurements(place)
            if (row.measurement, row.statistic) == _PRIMARY and not row.subject
        ]
    return [values for values in found.values() if len(values) > 1]
