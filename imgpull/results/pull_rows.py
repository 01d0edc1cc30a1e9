"""Events, pods and rates become `pulls.csv`: one row per container that needed its image.

Hides how a pull is told from kubelet's events: who on a node moved the bytes, who only waited, what
was cold. The rule for every engine: what was not seen is empty. Columns: docs/design.md 4.3.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from imgpull import pulls
from imgpull.engines import Subject
from imgpull.errors import ReportError
from imgpull.pulls import Pull
from imgpull.results.seen import PodRow, Rates
from imgpull.results.status_rows import digest_of, from_status

# Events are stamped in whole seconds: what seems to begin so soon after an end may overlap it.
_STAMP_S = 1.0


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
    asked: int = 0  # how often a pull was asked for
    first_asked_s: float | None = None
    last_asked_s: float | None = None
    failed: int = 0  # how many of those failed
    failure: pulls.Message | None = None  # the first
    last_failed_s: float = 0.0
    last_failure: str | None = None
    answer: pulls.Message | None = None  # the first success: what the pod waited for

    @property
    def backs_off(self) -> bool:
        """Whether every attempt failed: none is open."""
        return self.answer is None and self.asked <= self.failed


@dataclass(frozen=True)
class _Timed:
    """A row, and when its runtime was asked for the pull that counts (0 when unknown), and done."""

    row: Pull
    began_s: float
    ended_s: float  # infinite when unknown
    begun_by_s: float = math.inf  # by when it had begun for sure; infinite when nobody knows


def pull_rows(
    events: Iterable[Mapping[str, Any]],
    pods: Sequence[PodRow],
    rates: Rates,
    subject: Subject,
    *,
    started_at: datetime | None,
    namespaces: tuple[str, ...] = (),
    held: Mapping[str, str] = MappingProxyType({}),
) -> list[Pull]:
    """One row per container that asked for its image; of the subject's image only, if it has one.

    `namespaces` keeps pulls of namespaces that begin so. `held` is the temperature of the first
    pull on a node whose contents were verified beforehand; else received bytes tell it. A pull that
    was not over when the wait for its pod ended is censored, even if it was seen to end later, and
    so is one that waited to be tried again after a failure that passes.
    ReportError for an event without a readable time.
    """
    known = {(row.namespace, row.pod): row for row in pods}
    every = _tell(events, started_at)
    timed = [
        _timed(told, known.get((told.namespace, told.pod)), subject)
        for told in every
        if told.image is not None and _concerns(subject, namespaces, told.namespace, told.image)
    ]
    heard = {(told.namespace, told.pod, told.container) for told in every if told.image}
    timed += [
        _Timed(from_status(pod, container, subject), 0.0, math.inf)
        for pod in pods
        for container in pod.containers
        if (pod.namespace, pod.pod, container.name) not in heard
        and (container.image_id or pulls.parse_waiting(container.waiting))
        and _concerns(subject, namespaces, pod.namespace, container.image)
    ]
    timed.sort(key=lambda each: (each.row.namespace, each.row.pod, each.row.container))
    return [
        _censored(row, known.get((row.namespace, row.pod)), subject, each)
        for row, each in zip(_with_leaders(timed, rates, held), timed, strict=True)
    ]


def _concerns(subject: Subject, namespaces: tuple[str, ...], namespace: str, image: str) -> bool:
    """Whether a pull is of the subject's image, if it has one, in one of the test's namespaces."""
    return subject.image_reference in (None, image) and (
        not namespaces or namespace.startswith(namespaces)
    )


def _tell(events: Iterable[Mapping[str, Any]], started_at: datetime | None) -> list[_Told]:
    # A watch sees an event again each time its count grows: the last word holds.
    latest = {_identity(event, number): event for number, event in enumerate(events)}
    timed = [(_seconds(event, started_at), event) for event in latest.values()]
    containers: dict[tuple[str, str, str], _Told] = {}
    nodes: dict[tuple[str, str], str] = {}
    for (first_s, last_s), event in sorted(timed, key=lambda each: each[0][0] or 0.0):
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
        told = containers.get((*pod, container))
        if told is None:
            told = containers[(*pod, container)] = _Told(*pod, container)
        told.uid = about.get("uid") or told.uid
        source = event.get("source") or {}
        told.node = source.get("host") or told.node
        told.simulated = source.get("component") == pulls.SIMULATED_COMPONENT
        _hear(told, message, event.get("count") or 1, first_s, last_s)
    for told in containers.values():
        told.node = told.node or nodes.get((told.namespace, told.pod))
    return list(containers.values())


def _identity(event: Mapping[str, Any], number: int) -> object:
    named = event.get("metadata") or {}
    return (named.get("namespace"), named["name"]) if named.get("name") else number


def _seconds(
    event: Mapping[str, Any], started_at: datetime | None
) -> tuple[float | None, float | None]:
    """First and last time of an event, in seconds of the trial; None when unknown."""
    first = event.get("firstTimestamp") or event.get("eventTime") or event.get("lastTimestamp")
    last = event.get("lastTimestamp") or first
    if not first or not last or started_at is None:
        return None, None
    try:
        begun, ended = _moment(first), _moment(last)
        return (begun - started_at).total_seconds(), (ended - started_at).total_seconds()
    except (TypeError, ValueError) as error:
        raise ReportError(
            f"an event's time '{first}' is no RFC 3339 time", hint="record the events again"
        ) from error


@lru_cache(maxsize=4096)  # events are stamped in whole seconds: many of them alike
def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _hear(
    told: _Told, message: pulls.Message, count: int, first_s: float | None, last_s: float | None
) -> None:
    """Take in one event; the order of events within a second does not matter."""
    told.image = message.image or told.image
    if message.kind == "pulling":
        told.asked += count
        if told.first_asked_s is None:
            told.first_asked_s = first_s
        told.last_asked_s = last_s
    elif message.kind in ("failed", "refused"):
        told.failed += count if message.kind == "failed" else 0
        told.failure = told.failure or message
        if (last_s or 0.0) >= told.last_failed_s:
            told.last_failed_s, told.last_failure = last_s or 0.0, message.failure
    elif message.kind in ("pulled", "present"):
        told.answer = told.answer or message


def _outcome(told: _Told, pod: PodRow | None, subject: Subject) -> str:
    if told.answer is not None:
        return told.answer.kind
    if pod is not None and pod.started is not None:
        # It runs, so its image came: before the wait ended, or nobody knows.
        late = pod.started > subject.deadline_s(pod.created)
        return "censored" if late else "unknown"
    # What failed last and passes is tried again: the image had not come when the wait ended.
    to_come = not told.backs_off or told.last_failure in pulls.PASSING
    return "censored" if to_come else "failed"


def _timed(told: _Told, pod: PodRow | None, subject: Subject) -> _Timed:
    answer, failure = told.answer, told.failure
    outcome = _outcome(told, pod, subject)
    pull_s = answer.pull_s if answer else None
    wait_s = None
    if answer and answer.total_s is not None and pull_s is not None:
        wait_s = max(0.0, answer.total_s - pull_s)
    asked_s = pod.pulling if pod is not None and pod.pulling is not None else told.first_asked_s
    row = Pull(
        namespace=told.namespace,
        pod=told.pod,
        pod_uid=told.uid or (pod.uid if pod else None),
        container=told.container,
        node=told.node or (pod.node if pod else None),
        image=told.image or "",
        digest=digest_of(pod, told.container, subject),
        requested_at=asked_s,
        pull_s=pull_s,
        wait_s=wait_s,
        size_bytes=answer.size_bytes if answer else None,
        fetched_bytes=None,
        leader=None,
        temperature="warm" if outcome == "present" else "unknown",
        outcome=outcome,
        failure=failure.failure if failure else None,
        attempts=told.failed
        + (outcome in ("pulled", "unknown") or (outcome == "censored" and not told.backs_off)),
        message=failure.text if failure else None,
        source="sim" if told.simulated else "event",
    )
    began_s, ended_s = _window(told, pod, asked_s, row)
    return _Timed(row, began_s, ended_s, _begun_by_s(told, pod, began_s))


def _begun_by_s(told: _Told, pod: PodRow | None, began_s: float) -> float:
    """By when the attempt that counts had begun; what only events tell is cut to whole seconds."""
    if told.backs_off or not began_s:
        return math.inf
    exact = pod is not None and pod.pulling is not None and not told.failed
    return began_s if exact else began_s + _STAMP_S


def _window(
    told: _Told, pod: PodRow | None, asked_s: float | None, row: Pull
) -> tuple[float, float]:
    """When the runtime was asked for the pull that counts, and was done."""
    answer = told.answer
    # After a failure it is the last attempt that the figures are about.
    last_asked_s = (told.last_asked_s if told.failed else asked_s) or 0.0
    if answer is None or (answer.total_s is None and row.pull_s is None):
        return last_asked_s, math.inf
    if told.failed and row.pull_s is not None:
        # Events stamp the last attempt in whole seconds, which may be half of a short pull: the pod
        # tells its end to the millisecond, or the window takes in the second that was cut off.
        if pod is not None and pod.pulled is not None and len(pod.containers) <= 1:
            return pod.pulled - row.pull_s, pod.pulled
        begun_s = last_asked_s + (row.wait_s or 0.0)
        return begun_s, begun_s + row.pull_s + _STAMP_S
    begun_s = last_asked_s + (row.wait_s or 0.0)
    return begun_s, (
        last_asked_s + (answer.total_s or 0.0) if row.pull_s is None else begun_s + row.pull_s
    )


def _with_leaders(timed: Sequence[_Timed], rates: Rates, held: Mapping[str, str]) -> list[Pull]:
    """Name, for each node and digest, the pull that moved the bytes, and how cold it was."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, each in enumerate(timed):
        if each.row.outcome in ("pulled", "censored") and each.row.node is not None:
            content = each.row.digest or each.row.image
            groups.setdefault((each.row.node, content), []).append(index)
    rows = [each.row for each in timed]
    for (node, _), members in groups.items():
        for nth, wave in enumerate(_waves(members, timed)):
            leader = min(wave, key=lambda index: _precedence(timed[index]))
            fetched = _fetched_bytes(timed[leader], rates)
            verified = held.get(node) if nth == 0 else None
            _judge_wave(rows, wave, leader, fetched, verified, first=nth == 0)
    return rows


def _waves(members: Sequence[int], timed: Sequence[_Timed]) -> Iterator[list[int]]:
    """Pulls that overlapped, wave by wave."""
    wave: list[int] = []
    end_s = -math.inf
    for index in sorted(members, key=lambda index: timed[index].began_s):
        if wave and timed[index].began_s >= end_s + _STAMP_S:
            yield wave
            wave, end_s = [], -math.inf
        wave.append(index)
        end_s = max(end_s, timed[index].ended_s)
    yield wave


def _precedence(each: _Timed) -> tuple[bool, bool, float, float, str]:
    """A finished pull before an open one, that before one in back-off, then the earlier; of two in
    one second the longer.
    """
    is_open = math.isinf(each.ended_s)
    backs_off = is_open and math.isinf(each.begun_by_s)
    return is_open, backs_off, each.began_s, -each.ended_s, each.row.pod


def _fetched_bytes(leader: _Timed, rates: Rates) -> int | None:
    if math.isinf(leader.ended_s) or leader.row.node is None:
        return None
    return rates.received_bytes(leader.row.node, leader.began_s, leader.ended_s)


def _judge_wave(
    rows: list[Pull],
    wave: Sequence[int],
    leader: int,
    fetched: int | None,
    verified: str | None,
    *,
    first: bool,
) -> None:
    """Mark leader and followers of one wave.

    A later wave may have found the image there, or gone: without rates nobody knows.
    """
    temperature = verified or pulls.temperature(fetched, rows[leader].size_bytes)
    leads: bool | None = temperature != "warm"
    if temperature == "unknown" and not first:
        leads = None
    for index in wave:
        follows = index != leader
        rows[index] = replace(
            rows[index],
            leader=False if follows else leads,
            fetched_bytes=0 if follows and fetched is not None else fetched,
            temperature=temperature,
        )


def _censored(row: Pull, pod: PodRow | None, subject: Subject, timed: _Timed) -> Pull:
    """The row, without the end that came after the wait for its pod was over, and with its bound.

    The bound is of the attempt that counts, as `pull_s` is: one that had not begun has none.
    """
    deadline_s = subject.deadline_s(pod.created) if pod is not None else math.inf
    if row.outcome == "pulled":
        ended_s = timed.ended_s if pod is None or pod.pulled is None else pod.pulled
        if not deadline_s < ended_s < math.inf:
            return row
        row = replace(row, outcome="censored", pull_s=None, wait_s=None)
    if row.outcome != "censored" or not timed.begun_by_s < deadline_s < math.inf:
        return row
    return replace(row, pull_at_least_s=deadline_s - timed.begun_by_s)
