"""What other processes add to a ledger while this one looks on.

Hides half-written lines: one is taken when its end has come.
"""

import json
from pathlib import Path

from imgpull.sweep.moments import Event


class Tail:
    """The end of a ledger, from what it holds now."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._offset = ledger.stat().st_size if ledger.exists() else 0

    def new(self) -> list[Event]:
        """The events since last asked; none when the file cannot be read now."""
        try:
            with self._ledger.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except OSError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        found: list[Event] = []
        for line in whole.split(b"\n"):
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict):
                found.append(event)
        return found
