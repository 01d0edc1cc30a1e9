"""Events, pods and rates become `pulls.csv`: one row per pod that needed its image.

Hides how a pull is told from kubelet's events: who on a node moved the bytes, who only waited, what
was cold. The rule for every engine: what was not seen is empty. Columns: docs/design.md 4.3.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from imgpull import pulls
from imgpull.pulls import Pull

# A leader that received this share of the image's compressed bytes fetched it; below the lower
# one it moved nothing. Between: some layers were there.
COLD_SHARE, WARM_SHARE = 0.9, 0.02


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


def read_pods(path: Path) -> list[PodRow]:
    """The rows of pods.csv; none when the engine left no such file."""
    if not path.exists():
        return []
    times = [item.name for item in fields(PodRow)][3:]
    with path.open(newline="", encoding="utf-8") as file:
        return [
            PodRow(
                row["namespace"],
                row["pod"],
                row["node"] or None,
                *(float(row[name]) if row[name] else None for name in times),
            )
            for row in csv.DictReader(file)
        ]


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
    """The receive rates of series.csv; empty when no source had any."""
    points: dict[str, list[tuple[float, float, float]]] = {}
    if path.exists():
        rows: dict[str, list[tuple[float, float]]] = {}
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["receive_bytes_per_s"]:
                    point = (float(row["at_s"]), float(row["receive_bytes_per_s"]))
                    rows.setdefault(row["node"], []).append(point)
        for node, found in rows.items():
            # Intervals are even; an idle one has no row, so the shortest step is the width.
            gaps = [after - before for (before, _), (after, _) in pairwise(found)]
            width_s = min(gaps, default=found[0][0])
            points[node] = [(at - width_s, at, rate * width_s) for at, rate in found]
    return Rates(points)


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of events.jsonl, in the order in which they were recorded."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@dataclass
class _Told:
    """What the events of one container have told so far."""

    namespace: str
    pod: str
    container: str
    uid: str | None = None
    node: str | None = None
    image: str | None = None
    simulated: bool = False
    first_pulling_s: float | None = None
    open: bool = False  # a pull was asked for and not yet answered
    failures: list[pulls.Message] = field(default_factory=list)
    last: pulls.Message | None = None


def pull_rows(
    events: Iterable[Mapping[str, Any]],
    pods: Sequence[PodRow],
    rates: Rates,
    *,
    started_at: datetime | None,
    digest: str | None = None,
    wanted: str | None = None,
    namespaces: str | None = None,
) -> list[Pull]:
    """One row per container that asked for its image.

    `wanted` keeps the pulls of that image only, `namespaces` those of namespaces that begin so.
    """
    known = {(row.namespace, row.pod): row for row in pods}
    rows = [
        _row(told, known.get((told.namespace, told.pod)), digest)
        for told in _tell(events, started_at)
        if told.image is not None
        and (wanted is None or told.image == wanted)
        and (namespaces is None or told.namespace.startswith(namespaces))
    ]
    rows.sort(key=lambda row: (row.namespace, row.pod, row.container))
    return _with_leaders(rows, rates)


def _tell(events: Iterable[Mapping[str, Any]], started_at: datetime | None) -> list[_Told]:
    containers: dict[tuple[str, str, str], _Told] = {}
    nodes: dict[tuple[str, str], str] = {}
    for event in events:
        about = event.get("involvedObject") or {}
        if about.get("kind") != "Pod":
            continue
        pod = (about.get("namespace", ""), about.get("name", ""))
        if event.get("reason") == "Scheduled":
            nodes[pod] = event.get("message", "").rpartition(" to ")[2]
            continue
        message = pulls.parse_message(event.get("reason", ""), event.get("message", ""))
        if message is None:
            continue
        container = about.get("fieldPath", "").partition("{")[2].rstrip("}")
        told = containers.setdefault((*pod, container), _Told(*pod, container))
        told.uid = about.get("uid") or told.uid
        source = event.get("source") or {}
        told.node = source.get("host") or told.node
        told.simulated = source.get("component") == pulls.SIMULATED_COMPONENT
        _hear(told, message, _seconds(event, started_at))
    for told in containers.values():
        told.node = told.node or nodes.get((told.namespace, told.pod))
    return list(containers.values())


def _hear(told: _Told, message: pulls.Message, at_s: float | None) -> None:
    told.image = message.image or told.image
    if message.kind == "pulling":
        told.open = True
        if told.first_pulling_s is None:
            told.first_pulling_s = at_s
    elif message.kind in ("failed", "refused"):
        told.open = False
        told.failures.append(message)
        told.last = message
    elif message.kind in ("pulled", "present"):
        told.open = False
        told.last = message


def _seconds(event: Mapping[str, Any], started_at: datetime | None) -> float | None:
    text = event.get("firstTimestamp") or event.get("eventTime") or event.get("lastTimestamp")
    if not text or started_at is None:
        return None
    return (datetime.fromisoformat(text) - started_at).total_seconds()


def _row(told: _Told, pod: PodRow | None, digest: str | None) -> Pull:
    last = told.last
    if told.open:
        outcome = "censored"
    elif last is not None and last.kind in ("pulled", "present"):
        outcome = last.kind
    else:
        outcome = "failed"
    ended = last if outcome in ("pulled", "present") else None
    pull_s = ended.pull_s if ended else None
    wait_s = None
    if ended and ended.total_s is not None and pull_s is not None:
        wait_s = max(0.0, ended.total_s - pull_s)
    first = told.failures[0] if told.failures else None
    asked = pod.pulling if pod is not None and pod.pulling is not None else told.first_pulling_s
    return Pull(
        namespace=told.namespace,
        pod=told.pod,
        pod_uid=told.uid,
        container=told.container,
        node=told.node or (pod.node if pod else None),
        image=told.image or "",
        digest=digest,
        requested_at=asked,
        pull_s=pull_s,
        wait_s=wait_s,
        size_bytes=ended.size_bytes if ended else None,
        fetched_bytes=None,
        leader=None,
        temperature="warm" if outcome == "present" else "unknown",
        outcome=outcome,
        failure=first.failure if first else None,
        attempts=len(told.failures) + (outcome in ("pulled", "censored")),
        message=first.text if first else None,
        source="sim" if told.simulated else "event",
    )


def _with_leaders(rows: list[Pull], rates: Rates) -> list[Pull]:
    """Name, for each node and image, the pull that moved the bytes, and how cold it was."""
    groups: dict[tuple[str | None, str], list[int]] = {}
    for index, row in enumerate(rows):
        if row.outcome in ("pulled", "censored"):
            groups.setdefault((row.node, row.image), []).append(index)
    done = list(rows)
    for (node, _), members in groups.items():
        if node is None:
            continue  # nobody can say who shared a node with whom
        leader = min(members, key=lambda i: _precedence(rows[i]))
        first = rows[leader]
        if first.outcome == "censored":
            for index in members:
                done[index] = replace(rows[index], leader=index == leader)
            continue
        begin_s, end_s = _began_s(first), _ended_s(first)
        fetched = rates.received_bytes(node, begin_s, end_s)
        temperature = _temperature(fetched, first.size_bytes)
        for index in members:
            row = rows[index]
            late = index != leader and _began_s(row) >= end_s
            done[index] = replace(
                row,
                leader=index == leader and temperature != "warm",
                fetched_bytes=fetched if index == leader else None if fetched is None else 0,
                # A pull that began after the first had ended found everything there.
                temperature="warm" if late else temperature,
            )
    return done


def _precedence(row: Pull) -> tuple[bool, float, float, str]:
    """A finished pull before an open one, then the earlier; of two in one second the longer."""
    return row.outcome != "pulled", _began_s(row), -(row.pull_s or 0.0), row.pod


def _began_s(row: Pull) -> float:
    """When the runtime was asked; from the event's stamp where nothing better is known."""
    return (row.requested_at or 0.0) + (row.wait_s or 0.0)


def _ended_s(row: Pull) -> float:
    return _began_s(row) + (row.pull_s or 0.0)


def _temperature(fetched_bytes: int | None, size_bytes: int | None) -> str:
    if fetched_bytes is None or not size_bytes:
        return "unknown"
    share = fetched_bytes / size_bytes
    if share >= COLD_SHARE:
        return "cold"
    return "warm" if share <= WARM_SHARE else "partial"


def write_pulls(path: Path, rows: Iterable[Pull]) -> None:
    """Write pulls.csv; unknown values are empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(pulls.COLUMNS)
        for row in rows:
            out.writerow(_cell(value) for value in astuple(row))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6f}" if isinstance(value, float) else str(value)
