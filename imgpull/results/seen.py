"""What an engine saw, besides CL2's report: pods.csv, series.csv and events.jsonl as data.

Hides how the three files are read. A file that is not there was not seen; a value that is empty is
None.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from imgpull.errors import ReportError
from imgpull.tables import PodRow as PodRow
from imgpull.tables import pod_row


def read_pods(path: Path) -> list[PodRow]:
    """The rows of pods.csv; none when the engine left no such file."""
    try:
        return [pod_row(row) for row in _rows(path)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error


@dataclass(frozen=True)
class Rates:
    """Received bytes per node over time, from series.csv."""

    points: Mapping[str, Sequence[tuple[float, float, float]]]  # node -> (begin, end, bytes)

    def received_bytes(self, node: str, begin_s: float, end_s: float) -> int | None:
        """Bytes received between two moments, whole intervals; None when the node has no series."""
        if node not in self.points:
            return None
        inside = (b for begin, end, b in self.points[node] if end > begin_s and begin < end_s)
        return round(sum(inside))


def read_rates(path: Path) -> Rates:
    """The receive rates of series.csv; empty when no source had any.

    A rate is the mean since the node's row before it, so the first row of a node only begins one.
    """
    rows: dict[str, list[tuple[float, float]]] = {}
    try:
        for row in _rows(path):
            if row["receive_bytes_per_s"]:
                point = (float(row["at_s"]), float(row["receive_bytes_per_s"]))
                rows.setdefault(row["node"], []).append(point)
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error
    return Rates(
        {
            node: [
                (begin_s, end_s, rate * (end_s - begin_s))
                for (begin_s, _), (end_s, rate) in pairwise(sorted(found))
            ]
            for node, found in rows.items()
        }
    )


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of events.jsonl as recorded; none when the engine left no such file."""
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8") as file:
            return [dict(json.loads(line)) for line in file if line.strip()]
    except (TypeError, ValueError) as error:
        raise _unreadable(path, error) from error


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _unreadable(path: Path, error: Exception) -> ReportError:
    return ReportError(
        f"{path.name} is not what an engine leaves: {type(error).__name__}: {error}",
        hint="run the trial again, or restore the file",
    )
