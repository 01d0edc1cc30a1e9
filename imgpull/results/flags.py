"""What is wrong or remarkable with single pulls: the first step of a verdict, one row a flag.

Hides which pull is flagged and why, and the file that keeps it (`flags.csv`). A flag is no
verdict: `verdict.py` says what they make of a trial, `analysis/verdicts.py` of cell and sweep.
"""

import csv
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from imgpull import units
from imgpull.engines import Subject
from imgpull.pulls import Pull
from imgpull.tables import PodRow

# Kind -> what it says of a pull.
KINDS = {
    "missing": "a pod that was asked for and never created, or whose pull nobody saw",
    "warm": "cache=cold was promised, and the node had the image",
    "partial": "cold or warm was promised, and the node had a part of the image",
    "cold": "cache=warm was promised, and the node fetched the image",
    "duplicate": "its node had fetched this image before: no further pull, no independent one",
    "impossible": "faster than the node's NIC, disk or one pull's unpacking",
    "censored": "not over when the wait for its pod ended: known from below",
    "throttled": "refused at first by the registry, HTTP 429",
    "qps_exceeded": "refused at first by kubelet's own registryPullQPS",
    "failed": "it never came",
}

# One pull's tar stream is hashed on one core: sha256 with SHA-NI does at most about 2 GB/s of
# unpacked bytes (ASSUMPTION, image-pull literature), and packed ones are never more than those.
ONE_PULL_BYTES_S = 2.0e9
# Durations are truncated to milliseconds and datasheets rounded.
TOLERANCE = 1.05


@dataclass(frozen=True)
class Flag:
    """One thing about one pull; without a pod it is about one that does not exist."""

    namespace: str
    pod: str
    container: str
    node: str
    kind: str  # a key of KINDS
    reason: str


COLUMNS = tuple(field.name for field in fields(Flag))


def flags(subject: Subject, rows: Sequence[Pull], pods: Sequence[PodRow]) -> list[Flag]:
    """Every flag of a trial's pulls, in the order of its pulls."""
    again, fetched = duplicates(rows), _fetched(rows)
    ceiling, what = ceiling_of(subject)
    found: list[Flag] = []
    for row in rows:
        found += _temperature(subject, row, fetched)
        found += _outcome(row)
        if id(row) in again:
            found.append(_flag(row, "duplicate", f"{row.node} had fetched it before"))
        rate = leader_rate(subject, row)
        if rate is not None and rate > ceiling * TOLERANCE:
            fast = f"{units.format_size(rate)}/s is more than {what} can do"
            found.append(_flag(row, "impossible", fast))
    return [*found, *_missing(subject, rows, pods)]


def ceiling_of(subject: Subject) -> tuple[float, str]:
    """Bytes per second that one pull on one node cannot exceed, and what forbids it."""
    limits = [(ONE_PULL_BYTES_S, "a single pull's hashing and unpacking")]
    if subject.nic_mbit_s is not None:
        limits.append((subject.nic_mbit_s * 1e6 / 8, "the node's NIC"))
    if subject.disk_ceiling_mb_s is not None:
        limits.append((subject.disk_ceiling_mb_s * 1e6, "the node's disk"))
    return min(limits)


def leader_rate(subject: Subject, row: Pull) -> float | None:
    """Compressed bytes per second of a leader's pull; None for others and where unknown."""
    size = row.size_bytes or subject.compressed_bytes
    return size / row.pull_s if row.leader and size and row.pull_s else None


def duplicates(rows: Iterable[Pull]) -> set[int]:
    """`id` of each leader whose node had fetched the same content before."""
    first: dict[tuple[str | None, str], Pull] = {}
    again: set[int] = set()
    leaders = (row for row in rows if row.leader and row.node is not None)
    for row in sorted(leaders, key=lambda row: (row.requested_at is None, row.requested_at or 0)):
        key = _content(row)
        if key in first:
            again.add(id(row))
        first.setdefault(key, row)
    return again


def _flag(row: Pull, kind: str, reason: str) -> Flag:
    return Flag(row.namespace, row.pod, row.container, row.node or "", kind, reason)


def _fetched(rows: Iterable[Pull]) -> set[tuple[str | None, str]]:
    """The nodes and contents of which a leader fetched every byte: what comes later is at home."""
    return {_content(row) for row in rows if row.leader and row.temperature == "cold"}


def _content(row: Pull) -> tuple[str | None, str]:
    return row.node, row.digest or row.image


_UNLIKE = {"cold": ("warm", "partial"), "salted": ("warm", "partial"), "warm": ("cold", "partial")}


def _temperature(
    subject: Subject, row: Pull, fetched: Container[tuple[str | None, str]]
) -> Iterator[Flag]:
    if row.outcome not in ("pulled", "present"):
        return
    if row.temperature not in _UNLIKE.get(subject.cache or "", ()):
        return
    if subject.cache in ("cold", "salted") and _content(row) in fetched:
        return
    moved = "" if row.fetched_bytes is None else f", {row.fetched_bytes} bytes were fetched"
    yield _flag(row, row.temperature, f"cache={subject.cache} was promised{moved}")


def _outcome(row: Pull) -> Iterator[Flag]:
    if row.outcome == "censored":
        yield _flag(row, "censored", "not over when the wait for its pod ended")
    if row.outcome == "failed":
        yield _flag(row, "failed", f"{row.failure or 'other'} after {row.attempts} attempts")
    if row.outcome == "unknown":
        yield _flag(row, "missing", "its container ran, and no event told how its image came")
    if row.failure in ("throttled", "qps_exceeded"):
        yield _flag(row, row.failure, f"attempts: {row.attempts}")


def _missing(subject: Subject, rows: Sequence[Pull], pods: Sequence[PodRow]) -> Iterator[Flag]:
    told = {(row.namespace, row.pod) for row in rows}
    for pod in pods:
        if pod.started is not None and (pod.namespace, pod.pod) not in told:
            reason = "it ran, and nothing told of its pull"
            yield Flag(pod.namespace, pod.pod, "", pod.node or "", "missing", reason)
    if pods and subject.pods is not None:
        for number in range(len(pods), subject.pods):
            yield Flag("", "", "", "", "missing", f"pod {number + 1} was never created")


def write_flags(path: Path, found: Iterable[Flag]) -> None:
    """Write flags.csv; a trial without flags has its header alone."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        out.writerows(astuple(flag) for flag in found)


def read_flags(path: Path) -> list[Flag]:
    """The rows of flags.csv; none where a trial failed before it had any."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Flag(**{name: row[name] for name in COLUMNS}) for row in csv.DictReader(file)]
