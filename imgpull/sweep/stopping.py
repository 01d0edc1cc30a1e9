"""When a sweep ends before its plan does: trials that fail, a cluster that is unhealthy, limits.

Hides what is worth going on for. One broken cell must not cost the night; a broken cluster must not
burn the rest of its trials, and stops no other cluster's. Asked between trials only.
"""

import errno
import re
import shlex
import traceback
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from imgpull import engines
from imgpull.config.job import Job
from imgpull.errors import ImgpullError
from imgpull.results.record import JobRecord
from imgpull.sweep.limits import Limits, price, price_of_pulls
from imgpull.sweep.plan import Planned

# So many trials of a real cluster in a row that failed alike, of more than one cell where there is
# more than one: a cause that they share.
ALIKE = 3
_FULL = re.compile("No space left on device|Disk quota exceeded|File too large")


class Clusters(Protocol):
    """What knows whether a cluster is well."""

    def require_healthy(self, job: Job) -> None:
        """ImgpullError when the job's cluster could run no further trial."""


@dataclass
class _Seen:
    """What was seen of one cluster."""

    cells: set[str] = field(default_factory=set)  # that are to run on it
    doubt: Planned | None = None  # its last trial did not count: is it well?
    alike: list[tuple[str, str]] = field(default_factory=list)  # (kind of failure, cell), in a row


class Stopping:
    """What has gone wrong so far. `stop_after`: so many trials may end without counting."""

    def __init__(
        self,
        clusters: Clusters,
        limits: Limits,
        stop_after: int | None = None,
        plan: Sequence[Planned] = (),
    ) -> None:
        self._clusters = clusters
        self._limits = limits
        self._stop_after = stop_after
        self._lost = 0  # trials whose last attempt does not count
        self._full: str | None = None
        self._seen: dict[engines.Place, _Seen] = defaultdict(_Seen)
        for planned in plan:
            if place := engines.place(planned.job):
                self._seen[place].cells.add(planned.cell.cell_id)

    def note(self, planned: Planned, record: JobRecord, *, final: bool) -> None:
        """A trial has ended; `final`: no attempt follows."""
        place = engines.place(planned.job)
        seen = self._seen[place] if place else _Seen()
        if record.counts:
            seen.alike.clear()
            seen.doubt = None
            return
        self._lost += final
        if _FULL.search(" ".join(record.reasons)):
            self._full = record.reasons[0]
        seen.doubt = planned
        kind = _kind(record)
        if seen.alike and seen.alike[-1][0] != kind:
            seen.alike.clear()
        seen.alike.append((kind, planned.cell.cell_id))

    def why(self, upcoming: Planned) -> str | None:
        """Why this trial, and all after it, are not begun; None to go on."""
        return self._failures() or self._disk() or self._limit(upcoming)

    def why_here(self, upcoming: Planned) -> str | None:
        """Why no further trial is begun on the cluster of this one; None to go on."""
        place = engines.place(upcoming.job)
        if place is None:
            return None
        return self._same_again(self._seen[place]) or self._unhealthy(self._seen[place])

    def _failures(self) -> str | None:
        if self._stop_after is None or self._lost < self._stop_after:
            return None
        asked = "stop" if self._stop_after == 1 else f"stop_after:{self._stop_after}"
        return f"on_failure={asked}: {self._lost} trial{'s' * (self._lost > 1)} failed or invalid"

    def _disk(self) -> str | None:
        return f"the disk is full ({self._full}): free some space" if self._full else None

    def _limit(self, upcoming: Planned) -> str | None:
        if self._limits.max_cost is None:
            return self._limits.reached(upcoming, None)
        return self._limits.reached(upcoming, price(upcoming), price_of_pulls(upcoming) or 0.0)

    def _same_again(self, seen: _Seen) -> str | None:
        failed = {cell for _, cell in seen.alike}
        if len(seen.alike) < ALIKE or (len(seen.cells) > 1 and len(failed) == 1):
            return None
        return f"{len(seen.alike)} trials in a row failed alike: {seen.alike[-1][0]}"

    def _unhealthy(self, seen: _Seen) -> str | None:
        planned, seen.doubt = seen.doubt, None
        if planned is None:
            return None
        try:
            self._clusters.require_healthy(planned.job)
        except ImgpullError as error:
            fix = f" ({error.hint})" if error.hint else ""
            return f"the cluster can run no further trial: {error.message}{fix}"
        return None


def why_broken(error: Exception, directory: Path) -> str:
    """What ended a sweep in `directory` that is no trial's: a full disk, a conf/ broken, a bug."""
    if isinstance(error, ImgpullError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        again = f"imgpull resume {shlex.quote(str(directory))}"
        return f"{type(error).__name__}: {error}\n  free some space, then: {again}"
    traceback.print_exc()
    return f"{type(error).__name__}: {error}"


def _kind(record: JobRecord) -> str:
    """What failures of one cause have in common: their words, without numbers and names in them."""
    told = record.reasons[0] if record.reasons else (record.error.type if record.error else "")
    return re.sub(r"\s+", " ", re.sub(r"[0-9]+", "N", f"{record.verdict}: {told}"))[:300]
