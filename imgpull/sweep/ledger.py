"""`ledger.jsonl`: what a sweep planned and what happened, one fsynced line an event.

Hides how a file survives a crash and who may write it. The ledger is plan and history; the truth
of a trial is its job.json. The order of lines counts, not `at`: clocks jump. `clock_s` is the
machine's monotonic clock, which measures time within one session (from one `sweep` to the next).

Events: sweep, planned, forecast, parent, started, finished, logged, interrupted, stopped, ended;
of real clusters held, given back, prometheus, lost (one of several, on which no trial begins),
budget; of one that is built for the sweep shapes, provisioned, provisioning failed, given back.
"""

import errno
import fcntl
import json
import os
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imgpull.errors import ConfigError, LedgerError
from imgpull.sweep.moments import SessionClock

SCHEMA = 1
NAME = "ledger.jsonl"

Event = dict[str, Any]

# Texts without which a line says nothing that a sweep could go on with.
_NEEDED: Mapping[str, tuple[str, ...]] = {"planned": ("trial_id", "dir"), "parent": ("run_id",)}


@dataclass(frozen=True)
class Read:
    """What a ledger holds: its events, and the numbers of lines that are none."""

    events: list[Event]
    broken: tuple[int, ...] = ()  # counted from 1; a half-written last line is not among them


class Ledger:
    """The ledger of one sweep's directory."""

    def __init__(self, sweep_dir: Path) -> None:
        self.path = sweep_dir / NAME

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from running this sweep; ConfigError when one does already.

        The lock is the kernel's: it is gone with the process, however that ends.
        """
        with self._opened() as file:
            try:
                _lock(file)
            except BlockingIOError as error:
                raise ConfigError(
                    f"the sweep in {self.path.parent} is still running in another process",
                    hint="wait until it ends, or stop it with Ctrl-C",
                ) from error
            except OSError:
                pass  # a file system without locks
            yield

    def _opened(self) -> Any:
        from imgpull.results.record import sync_directory  # slow to import for who only reads

        try:
            new = not self.path.exists()
            file = self.path.open("ab")
            if new:
                sync_directory(self.path.parent)
        except OSError as error:
            raise self._unwritable(error) from error
        return file

    def append(self, event: str, **data: Any) -> None:
        """Add one event; it is on disk when this returns. LedgerError when it cannot be."""
        self.append_all([{"event": event, **data}])

    def append_all(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Add several events with one sync; LedgerError when they cannot be written."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        stamp = {"at": at, "schema": SCHEMA, "clock_s": round(time.monotonic(), 3)}
        lines = "".join(json.dumps({**stamp, **event}, sort_keys=True) + "\n" for event in events)
        try:
            with self.path.open("a+b", buffering=0) as file:
                if file.tell() and not self._ends_whole():
                    lines = "\n" + lines  # a line cut off by a crash must not swallow this one
                _write_whole(file.fileno(), lines.encode())
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def _ends_whole(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _unwritable(self, error: OSError) -> LedgerError:
        directory = shlex.quote(str(self.path.parent))
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        mend = (
            "free some space" if full else f"make it writable (ls -l {shlex.quote(str(self.path))})"
        )
        return LedgerError(
            f"{self.path} cannot be written: {error.strerror or error}; what is recorded is kept",
            hint=f"{mend}, then: imgpull resume {directory}",
        )

    def read(self) -> list[Event]:
        """Every whole event; what is no event is passed over."""
        return self.examine().events

    def examine(self) -> Read:
        """Every whole event, and which lines cannot be read; LedgerError when the file cannot."""
        try:
            # By "\n" alone: a broken line may hold bytes that splitlines() takes for an end.
            lines = self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return Read([])
        except OSError as error:
            raise LedgerError(
                f"{self.path} cannot be read: {error.strerror or error}",
                hint=f"make it readable: chmod u+r {shlex.quote(str(self.path))}",
            ) from error
        events, broken = [], []
        for number, line in enumerate(lines, 1):
            event = _event(line)
            if event is not None:
                events.append(event)
            elif line.strip() and number < len(lines):
                broken.append(number)
        return Read(events, tuple(broken))

    def damage(self) -> str | None:
        """A warning that names the lines which cannot be read; None when there are none."""
        broken = self.examine().broken
        if not broken:
            return None
        lines = f"line{'s' * (len(broken) > 1)} {', '.join(map(str, broken))}"
        return (
            f"{self.path}: {lines} cannot be read and {'are' if len(broken) > 1 else 'is'} passed "
            "over; no trial is lost by it, each has its job.json"
        )


def _lock(file: Any) -> None:
    """Take the lock; BlockingIOError when another process keeps it."""
    for _ in range(20):
        # `imgpull status` holds it for an instant, to see whether anybody does.
        with suppress(BlockingIOError):
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.01)
    return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, or brackets without end
        return None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        return None
    needed = _NEEDED.get(event["event"], ())
    return event if all(isinstance(event.get(key), str) for key in needed) else None


def _write_whole(descriptor: int, content: bytes) -> None:
    """One write where the system does it in one, so that writers in parallel do not mix."""
    while content:
        content = content[os.write(descriptor, content) :]


def sessions(events: Iterable[Event]) -> list[list[Event]]:
    """The events cut into sessions."""
    found: list[list[Event]] = []
    clock = SessionClock()
    for event in events:
        if not found or clock.is_over_at(event):
            found.append([])
            clock = SessionClock()
        clock.take(event)
        found[-1].append(event)
    return found


def elapsed_s(events: Iterable[Event]) -> float:
    """How long the sessions lasted together, as far as their lines tell, by no wall clock."""
    total_s = 0.0
    for session in sessions(events):
        clock = SessionClock()
        for event in session:
            clock.take(event)
        total_s += clock.spent_s(None)
    return total_s
