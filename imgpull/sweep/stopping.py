"""When a sweep ends before its plan does: trials that fail, a cluster that is unhealthy, limits.

Hides what is worth going on for. One broken cell must not cost the night; a broken cluster must not
burn the rest of the matrix. Asked between trials only.
"""

import re
from dataclasses import dataclass, field

from imgpull import engines
from imgpull.engines import Session
from imgpull.errors import ImgpullError
from imgpull.results.record import JobRecord
from imgpull.sweep.limits import Limits, price
from imgpull.sweep.plan import Planned

# So many trials of a real cluster in a row that failed alike, of more than one cell where there is
# more than one: a cause that they share.
ALIKE = 3
_FULL = re.compile("No space left on device|Disk quota exceeded|File too large")


@dataclass
class Stopping:
    """What has gone wrong so far. `stop_after`: so many trials may end without counting."""

    session: Session
    limits: Limits
    stop_after: int | None = None
    cells: int = 1
    _lost: int = 0  # trials whose last attempt does not count
    _doubt: Planned | None = None  # the last trial did not count: is its cluster well?
    _alike: list[tuple[str, str]] = field(default_factory=list)  # (kind of failure, cell), in a row
    _full: str | None = None

    def note(self, planned: Planned, record: JobRecord, *, final: bool) -> None:
        """A trial has ended; `final`: no attempt follows."""
        if record.counts:
            self._alike.clear()
            self._doubt = None
            return
        self._lost += final
        if _FULL.search(" ".join(record.reasons)):
            self._full = record.reasons[0]
        if engines.is_real(planned.job):
            self._doubt = planned
            kind = _kind(record)
            if self._alike and self._alike[-1][0] != kind:
                self._alike.clear()
            self._alike.append((kind, planned.cell.cell_id))

    def why(self, upcoming: Planned) -> str | None:
        """Why this trial, and all after it, are not begun; None to go on."""
        return (
            self._failures()
            or self._disk()
            or self._limit(upcoming)
            or self._same_again()
            or self._unhealthy()
        )

    def _failures(self) -> str | None:
        if self.stop_after is None or self._lost < self.stop_after:
            return None
        asked = "stop" if self.stop_after == 1 else f"stop_after:{self.stop_after}"
        return f"on_failure={asked}: {self._lost} trial{'s' * (self._lost > 1)} failed or invalid"

    def _disk(self) -> str | None:
        return f"the disk is full ({self._full}): free some space" if self._full else None

    def _limit(self, upcoming: Planned) -> str | None:
        hourly = None if self.limits.max_cost is None else price(upcoming)
        return self.limits.reached(upcoming, hourly)

    def _same_again(self) -> str | None:
        cells = {cell for _, cell in self._alike}
        if len(self._alike) < ALIKE or (self.cells > 1 and len(cells) == 1):
            return None
        return f"{len(self._alike)} trials in a row failed alike: {self._alike[-1][0]}"

    def _unhealthy(self) -> str | None:
        planned, self._doubt = self._doubt, None
        if planned is None:
            return None
        try:
            self.session.require_healthy(planned.job)
        except ImgpullError as error:
            fix = f" ({error.hint})" if error.hint else ""
            return f"the cluster can run no further trial: {error.message}{fix}"
        return None


def _kind(record: JobRecord) -> str:
    """What failures of one cause have in common: their words, without numbers and names in them."""
    told = record.reasons[0] if record.reasons else (record.error.type if record.error else "")
    return re.sub(r"\s+", " ", re.sub(r"[0-9]+", "N", f"{record.verdict}: {told}"))[:300]
