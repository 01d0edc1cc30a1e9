"""What is known of a sweep from outside: `imgpull status`, while it runs and after.

Hides where that is read: the ledger, the kernel's lock on it, job.json of trials whose line is
missing, and run.log of those that run. Nothing is written, and no heavy library is imported.
"""

import fcntl
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imgpull.errors import ReportError
from imgpull.sweep.ledger import NAME, SCHEMA, Ledger
from imgpull.sweep.moments import Event, number
from imgpull.sweep.watching.onward import LeftBehind, left_behind
from imgpull.sweep.watching.standing import Course, Standing

INTERRUPTED = 130  # the exit status, as sweep.ending has it, which takes long to import
_LOG_TAIL = 8192  # bytes


@dataclass(frozen=True)
class Status:
    """How a sweep stands, and whether somebody runs it.

    `state` is running, ended, stopped, interrupted, killed, broke or unknown.
    """

    directory: Path
    state: str
    standing: Standing
    steps: Mapping[str, str]  # of trials that run, by trial_id
    ledger: bool  # False: lost, all is told by the directories
    behind: LeftBehind

    @property
    def hours_left(self) -> float | None:
        """What max_hours leaves; None without that limit."""
        limit = number(self.standing.session.settings.get("max_hours"))
        return None if limit is None else max(limit - self.standing.spent_s / 3600, 0.0)

    @property
    def cost_left(self) -> float | None:
        """What max_cost leaves; None without that limit, or where the cost is not known."""
        limit = number(self.standing.session.settings.get("max_cost"))
        cost = self.standing.cost
        return None if limit is None or cost is None else max(limit - cost, 0.0)

    def as_json(self) -> dict[str, Any]:
        """All of it, for scripts. Durations are seconds of the wall clock, `virtual_s` is not."""
        told = asdict(self.standing)
        running = [
            {**asdict(trial), "step": self.steps.get(trial.trial_id)}
            for trial in self.standing.running
        ]
        return {
            **told,
            "schema": 1,
            "directory": str(self.directory),
            "state": self.state,
            "ledger": self.ledger,
            "running": running,
            "hours_left": self.hours_left,
            "cost_left": self.cost_left,
            "left_behind": self.behind.trials,
        }


def newest_sweep(root: Path) -> Path:
    """The newest sweep below `root`, by name, which is a time; ReportError without one.

    One that cannot be read, or that never began, is passed over.
    """
    found = [path for path in root.glob("*") if _tells(path)]
    if not found:
        raise ReportError(
            f"{root} holds no sweep", hint="name a sweep's directory: imgpull status DIR"
        )
    return max(found, key=lambda path: path.name)


def _tells(directory: Path) -> bool:
    try:
        with (directory / NAME).open("rb") as file:
            return bool(file.read(1) or _job_dirs(directory))
    except FileNotFoundError:
        return bool(_job_dirs(directory))
    except OSError:
        return False


def read_status(directory: Path, now: float | None = None) -> Status:
    """How the sweep in `directory` stands; ReportError when it holds none that can be read.

    `now` is seconds since 1970.
    """
    path = directory / NAME
    events = Ledger(directory).read() if path.exists() else []
    _require_readable(path, events)
    course = Course(events)
    job_dirs = _job_dirs(directory)
    if not path.exists() and not job_dirs:
        sweep = directory.parent if (directory / "job.json").exists() else "multirun/DATE_TIME_xxxx"
        raise ReportError(f"{directory} holds no sweep", hint=f"imgpull status {sweep}")
    held = _is_held(path)
    for event in _untold(directory, course, job_dirs):
        course.take(event)
    now = datetime.now(UTC).timestamp() if now is None else now
    standing = course.standing(now, alive=held is True)
    steps = {trial.trial_id: _step(directory / trial.directory) for trial in standing.running}
    return Status(
        directory, _state(standing, held), standing, steps, path.exists(), left_behind(events)
    )


def _require_readable(path: Path, events: Sequence[Event]) -> None:
    newest = max((e["schema"] for e in events if isinstance(e.get("schema"), int)), default=SCHEMA)
    if newest > SCHEMA:
        raise ReportError(
            f"{path}: schema {newest}, this version reads {SCHEMA}",
            hint="use the imgpull that wrote it, or a newer one",
        )


def _is_held(path: Path) -> bool | None:
    """Whether a process runs this sweep; None where the file system has no locks."""
    try:
        with path.open("rb") as file:
            # Shared, and only for this moment: a sweep that begins just now asks again.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return False


def _state(standing: Standing, held: bool | None) -> str:
    session = standing.session
    if held:
        return "running"
    if session.interrupted or session.status == INTERRUPTED:
        return "interrupted"
    if session.stopped:
        return "stopped"
    if session.status is not None:
        return "broke" if standing.left else "ended"
    # Nobody said that it ended.
    return "killed" if held is False and session.number else "unknown"


def _job_dirs(directory: Path) -> list[Path]:
    """The directories of first attempts, by number."""
    try:
        found = [path for path in directory.iterdir() if re.fullmatch("[0-9]+", path.name)]
    except OSError:
        return []
    return sorted(found, key=lambda path: int(path.name))


def _untold(directory: Path, course: Course, job_dirs: Sequence[Path]) -> Iterator[Event]:
    """What the directories say of trials that the ledger does not know to be done."""
    missing = course.undone()
    for where in missing:
        yield from _finished(directory / where, where)
    if course.planned:
        return
    for first in job_dirs:
        attempts = sorted(first.glob("attempt-*"), key=lambda path: (len(path.name), path.name))
        found = [event for path in [first, *attempts]
                 for event in _finished(path, path.relative_to(directory).as_posix())]  # fmt: skip
        yield from found
        if not found:  # begun, and never over
            yield {"event": "planned", "trial_id": first.name, "dir": first.name}


def _finished(job_dir: Path, where: str) -> Iterator[Event]:
    """The event of a trial's job.json; none without one that can be read."""
    try:
        record = json.loads((job_dir / "job.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(record, dict) and record.get("schema") == SCHEMA:
        reasons = record.get("reasons")
        reason = reasons[0] if isinstance(reasons, list) and reasons else ""
        yield {**record, "event": "finished", "dir": where, "reason": reason}


def _step(job_dir: Path) -> str:
    """What a trial's run.log said last; "" when it said nothing yet."""
    try:
        with (job_dir / "run.log").open("rb") as file:
            file.seek(max(file.seek(0, 2) - _LOG_TAIL, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except (OSError, ValueError):  # ValueError: no name of a file
        return ""
    told = [line.partition(" ")[2] for line in lines if re.match(r"\d{4}-\d\d-\d\dT\S+ .", line)]
    return told[-1] if told else ""
