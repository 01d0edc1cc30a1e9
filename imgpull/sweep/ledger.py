"""`ledger.jsonl`: what a sweep planned and what happened, one fsynced line an event.

Hides how a file survives a crash and who may write it. The ledger is plan and history; the truth
of a trial is its job.json. Events: sweep, planned, parent, started, finished, logged, interrupted,
ended.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imgpull.errors import ConfigError

SCHEMA = 1
NAME = "ledger.jsonl"


class Ledger:
    """The ledger of one sweep's directory."""

    def __init__(self, sweep_dir: Path) -> None:
        self.path = sweep_dir / NAME

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from running this sweep; ConfigError when one does already."""
        with self.path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(
                    f"the sweep in {self.path.parent} is still running in another process",
                    hint="wait until it ends, or stop it with Ctrl-C",
                ) from error
            except OSError:
                pass  # a file system without locks
            yield

    def append(self, event: str, **data: Any) -> None:
        """Add one event; it is on disk when this returns."""
        self.append_all([{"event": event, **data}])

    def append_all(self, events: list[dict[str, Any]]) -> None:
        """Add several events with one sync."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        lines = "".join(
            json.dumps({"at": at, "schema": SCHEMA, **event}, sort_keys=True) + "\n"
            for event in events
        )
        with self.path.open("a+b") as file:
            if file.tell() and not self._ends_whole():
                file.write(b"\n")  # a line cut off by a crash must not swallow this one
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())

    def _ends_whole(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def read(self) -> list[dict[str, Any]]:
        """Every whole event; a half-written line is passed over."""
        if not self.path.exists():
            return []
        events = []
        # By "\n" alone: a broken line may hold bytes that splitlines() takes for an end.
        for line in self.path.read_bytes().split(b"\n"):
            try:
                event = json.loads(line)
            except ValueError:  # no JSON, or no UTF-8
                continue
            if isinstance(event, dict) and "event" in event:
                events.append(event)
        return events
