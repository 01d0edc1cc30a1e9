"""pods.csv and series.csv as data: the rows that every engine writes and results read back.

Hides the columns and how a value is written. None is unknown or never came to that, and empty in
the file; a pod's containers share its row, divided by semicolons, which no name of theirs contains.
"""

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class Container:
    """One container of a pod, from the pod's spec and status."""

    name: str
    image: str = ""  # as asked for
    image_id: str = ""  # what ran: REPOSITORY@DIGEST; empty until the runtime named it
    waiting: str = ""  # "REASON: message", the first reason that was about its image


@dataclass(frozen=True)
class PodRow:
    """A row of pods.csv; seconds since the trial began, None where it never came to that."""

    namespace: str
    pod: str
    node: str | None
    created: float | None
    scheduled: float | None
    sandbox: float | None
    pulling: float | None
    pulled: float | None
    started: float | None
    ready: float | None
    uid: str | None = None
    containers: tuple[Container, ...] = ()


TIMES = ("created", "scheduled", "sandbox", "pulling", "pulled", "started", "ready")
_PARTS = tuple(field.name for field in fields(Container))
_CONTAINER_COLUMNS = ("container", *_PARTS[1:])
POD_COLUMNS = ("namespace", "pod", "node", *TIMES, "uid", *_CONTAINER_COLUMNS)


class SeriesRow(NamedTuple):
    """A row of series.csv: means since the node's row before it; the first only begins one."""

    at_s: float
    node: str
    receive_bytes_per_s: float | None
    write_bytes_per_s: float | None
    containerd_cpu_cores: float | None


SERIES_COLUMNS = SeriesRow._fields
POINTS_A_NODE = 200  # at most


def write_pods(path: Path, rows: Iterable[PodRow]) -> None:
    """Write pods.csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(POD_COLUMNS)
        for row in rows:
            times = (_written(getattr(row, name), 6) for name in TIMES)
            parts = (
                ";".join(getattr(each, name).replace(";", ",") for each in row.containers)
                for name in _PARTS
            )
            named = (row.namespace, row.pod, row.node or "")
            out.writerow((*named, *times, row.uid or "", *parts))


def write_series(path: Path, rows: Iterable[SeriesRow]) -> None:
    """Write series.csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(SERIES_COLUMNS)
        for row in rows:
            rates = (row.receive_bytes_per_s, row.write_bytes_per_s)
            written = (
                *(_written(each, 0) for each in rates),
                _written(row.containerd_cpu_cores, 4),
            )
            out.writerow((_written(row.at_s, 3), row.node, *written))


def pod_row(cells: Mapping[str, str]) -> PodRow:
    """A row as it was written, before there were containers in it too.

    KeyError, TypeError or ValueError for another shape.
    """
    times = {name: float(cells[name]) if cells[name] else None for name in TIMES}
    containers: list[Container] = []
    if cells.get("container"):
        columns = [cells[name].split(";") for name in _CONTAINER_COLUMNS]
        containers = [Container(*parts) for parts in zip(*columns, strict=True)]
    return PodRow(
        cells["namespace"], cells["pod"], cells["node"] or None, **times,
        uid=cells.get("uid") or None, containers=tuple(containers),
    )  # fmt: skip


def number(text: str | None) -> float | None:
    """A cell as a number; None where it is empty, broken or infinite."""
    if not text:  # an exception a cell would take longer than all else
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _written(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
