"""A sweep as pandas frames: one tidy table a file, ready for seaborn.

Hides where each trial's files lie and what names their rows: every frame begins with the trial's
identity and its factors, so that `hue="replicas"` works on any of them.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgpull.errors import ReportError
from imgpull.results.record import MEASUREMENT_COLUMNS, job_directories, read_records
from imgpull.tables import POD_COLUMNS, SERIES_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

# What names a row of any frame, before the factors.
IDENTITY = ("job", "cell_id", "name", "trial", "attempt", "engine", "verdict", "counts")


@dataclass(frozen=True)
class Sweep:
    """A sweep's directory; each frame is read when first asked for. Times in s, sizes in bytes.

    Invalid and failed trials are there too: `frame[frame["counts"]]` are those that count.
    """

    directory: Path

    @cached_property
    def trials(self) -> "pd.DataFrame":
        """A row an attempt of a trial: what `summary.csv` holds."""
        from imgpull.analysis.summary import read_sweep

        return read_sweep(self.directory)

    @cached_property
    def cells(self) -> "pd.DataFrame":
        """A row a cell: geometric means over its trials that count; what `cells.csv` holds."""
        from imgpull.analysis.cells import cells

        return cells(self.trials)

    @cached_property
    def pulls(self) -> "pd.DataFrame":
        """A row a pull. Only where `leader` is true were bytes moved; others waited for it."""
        from imgpull.pulls import COLUMNS

        frame = self._joined("pulls.csv", COLUMNS)
        frame["leader"] = frame["leader"].map(
            {"true": True, "false": False, True: True, False: False}
        )
        return frame

    @cached_property
    def pods(self) -> "pd.DataFrame":
        """A row a pod: the moments of its life, and `startup_s` from created to ready."""
        frame = self._joined("pods.csv", POD_COLUMNS)
        frame["startup_s"] = frame["ready"] - frame["created"]
        return frame

    @cached_property
    def series(self) -> "pd.DataFrame":
        """A row an interval of a node: rates since the node's row before it."""
        return self._joined("series.csv", SERIES_COLUMNS)

    @cached_property
    def measurements(self) -> "pd.DataFrame":
        """A row a number: measurement, statistic, subject (a node, or empty), value, unit."""
        frame = self._joined("measurements.csv", MEASUREMENT_COLUMNS)
        frame["subject"] = frame["subject"].fillna("")
        return frame

    @cached_property
    def flags(self) -> "pd.DataFrame":
        """A row a flag of a single pull: why it is warm, censored, throttled, a duplicate, …"""
        from imgpull.results.flags import COLUMNS

        return self._joined("flags.csv", COLUMNS)

    @cached_property
    def bottlenecks(self) -> "pd.DataFrame":
        """A row a cell: what held its pods up, whether that is sure, and the evidence."""
        from imgpull.analysis.bottleneck import calls

        return _frame([asdict(call) for call in calls(self.directory)])

    @cached_property
    def verdicts(self) -> "pd.DataFrame":
        """A row for the sweep, each cell and each trial: counts of verdicts and flags, reasons."""
        from imgpull.analysis.verdicts import roll_up

        return _frame([asdict(rolled) for rolled in roll_up(self.directory)])

    def _joined(self, file: str, columns: tuple[str, ...]) -> "pd.DataFrame":
        """One file of every attempt below each other, each row named by its trial."""
        import pandas as pd

        trials = self.trials
        known = [*IDENTITY, *_factors(trials)]
        tables = []
        places = [place for place, _ in read_records(self.directory)[0]]
        for place, (_, trial) in zip(places, trials.iterrows(), strict=True):
            rows = _read(place / file, columns)
            # The trial's own names win: a container's image is another thing than the factor.
            rows = rows.rename(columns={name: f"pod_{name}" for name in known if name in rows})
            for at, name in enumerate(known):
                rows.insert(at, name, trial[name])
            if len(rows):
                tables.append(rows)
        if tables:
            return pd.concat(tables, ignore_index=True)
        renamed = [f"pod_{name}" if name in known else name for name in columns]
        return pd.DataFrame(columns=[*known, *renamed])


def load_sweep(directory: str | Path) -> Sweep:
    """Read a sweep's directory as frames; ReportError when it holds no finished trial."""
    place = Path(directory)
    if not job_directories(place):
        raise ReportError(
            f"{place} holds no finished trial",
            hint="name a sweep's directory, as the last line of run.py does: multirun/DATE_TIME_…",
        )
    return Sweep(place)


def _factors(trials: "pd.DataFrame") -> list[str]:
    from imgpull.analysis.cells import factors

    return factors(trials)


def _read(path: Path, columns: tuple[str, ...]) -> "pd.DataFrame":
    import pandas as pd

    if not path.exists():
        return pd.DataFrame(columns=list(columns))
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def _frame(rows: list[dict[str, Any]]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(rows)
