"""What became of each pod: the row of pods.csv, from its own status and what events told of it.

Hides how a moment is known. The API keeps whole seconds: creationTimestamp, transitions of
conditions and startedAt lie up to a second before the truth, and a condition may be noticed a
second after it (kubelet relists each second). Events are finer: `eventTime` has microseconds, and
client-go names an event POD.HEX, the nanosecond at which it was made (tools/record, kept since
2015), which is believed where it lies in the second that the event is stamped with. When an event
arrived here is not used: it would mix a third clock into two.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from imgpull import pulls
from imgpull.cluster.kube import Object
from imgpull.tables import TIMES, Container, PodRow

Redact = Callable[[str], str]

_WAITING_CHARACTERS = 300
_SECOND_S = 1.0  # of a stamp


class Moment(NamedTuple):
    """When something was, in Unix seconds; only the second is known unless exact."""

    at_s: float
    exact: bool


@dataclass(slots=True)
class _Container:
    image: str = ""
    image_id: str = ""
    waiting: str = ""
    is_main: bool = False  # no init container
    asked: Moment | None = None  # first
    asked_last: Moment | None = None
    answered: Moment | None = None  # the first pull that worked
    answered_after_s: float | None = None  # since it was asked for, waiting included
    started: Moment | None = None
    started_stamp_s: float | None = None  # by the pod's status


@dataclass(slots=True)
class _Life:
    namespace: str
    name: str
    uid: str
    node: str | None = None
    created_s: float | None = None
    scheduled: Moment | None = None
    sandbox_s: float | None = None
    ready_s: float | None = None
    containers: dict[str, _Container] = field(default_factory=dict)

    def container(self, name: str) -> _Container:
        return self.containers.setdefault(name, _Container())


class PodLives:
    """All pods of a trial, deleted ones too, in little memory. Not thread-safe."""

    def __init__(self, started_at: datetime) -> None:
        self._begin_s = started_at.timestamp()
        self._lives: dict[str, _Life] = {}
        self.disorder_s = 0.0  # by how much the worst of the moments below contradict each other
        self.disordered = 0

    def __len__(self) -> int:
        return len(self._lives)

    def take_pod(self, pod: Object, redact: Redact = str) -> None:
        """Learn from a pod's metadata, spec and status; what was learnt before stays."""
        meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
        life = self._life(meta["uid"], meta.get("namespace", ""), meta["name"])
        life.node = spec.get("nodeName") or life.node
        if life.created_s is None:
            life.created_s = _stamp_s(meta.get("creationTimestamp"))
        for each in status.get("conditions") or ():
            if each.get("status") == "True":
                _take_condition(life, each["type"], _stamp_s(each.get("lastTransitionTime")))
        for each in spec.get("containers") or ():
            container = life.container(each["name"])
            container.image, container.is_main = each.get("image", ""), True
        for each in status.get("containerStatuses") or ():
            _take_status(life.container(each["name"]), each, redact)

    def take_event(self, event: Object) -> None:
        """Learn from what kubelet and the scheduler tell about a pod."""
        about = event.get("involvedObject") or {}
        if about.get("kind") != "Pod" or not about.get("uid"):
            return
        reason = event.get("reason", "")
        container = (about.get("fieldPath") or "").partition("{")[2].rstrip("}")
        if reason == "Scheduled":
            life = self._life(about["uid"], about.get("namespace", ""), about.get("name", ""))
            life.scheduled = _moment(event)
            life.node = life.node or event.get("message", "").rpartition(" to ")[2] or None
        elif container and reason in ("Pulling", "Pulled", "Started"):
            life = self._life(about["uid"], about.get("namespace", ""), about.get("name", ""))
            life.node = life.node or (event.get("source") or {}).get("host")
            _take_told(life.container(container), reason, event)

    def rows(self) -> list[PodRow]:
        """The rows of pods.csv, by namespace and name; the order of moments is never reversed."""
        self.disorder_s, self.disordered = 0.0, 0
        lives = sorted(self._lives.values(), key=lambda life: (life.namespace, life.name))
        return [self._row(life) for life in lives]

    def _life(self, uid: str, namespace: str, name: str) -> _Life:
        found = self._lives.get(uid)
        if found is None:
            found = self._lives[uid] = _Life(namespace, name, uid)
        return found

    def _row(self, life: _Life) -> PodRow:
        containers = [each for each in life.containers.values() if each.is_main]
        pulling = [each.asked for each in life.containers.values() if each.asked]
        pulled = [answer for each in life.containers.values() if (answer := _answered(each))]
        started = [moment for each in containers if (moment := _started(each))]
        times = self._ordered(
            life.created_s,
            life.scheduled,
            life.sandbox_s,
            min(pulling, default=None),
            max(pulled, default=None),
            max(started) if started and len(started) == len(containers) else None,
            life.ready_s,
        )
        return PodRow(
            life.namespace,
            life.name,
            life.node,
            **dict(zip(TIMES, times, strict=True)),
            uid=life.uid,
            containers=tuple(
                Container(name, each.image, each.image_id, each.waiting)
                for name, each in life.containers.items()
                if each.is_main
            ),
        )

    def _ordered(
        self,
        created_s: float | None,
        scheduled: Moment | None,
        sandbox_s: float | None,
        pulling: Moment | None,
        pulled: Moment | None,
        started: Moment | None,
        ready_s: float | None,
    ) -> list[float | None]:
        """Seconds of the trial in the one order that they can have.

        A time that contradicts the one before it is moved up to it: within a second that is what
        stamps leave open, beyond it clocks differ. A sandbox is noticed late, so it moves down.
        """
        after = pulling or started
        if sandbox_s is not None and after is not None:
            sandbox_s = min(sandbox_s, after.at_s)
        moments = [
            _stamped(created_s), scheduled, _stamped(sandbox_s), pulling, pulled, started,
            _stamped(ready_s),
        ]  # fmt: skip
        found: list[float | None] = []
        last_s, disorder_s = -float("inf"), 0.0
        for moment in moments:
            if moment is None:
                found.append(None)
                continue
            latest_s = moment.at_s if moment.exact else moment.at_s + _SECOND_S
            disorder_s = max(disorder_s, last_s - latest_s)
            last_s = max(last_s, moment.at_s)
            found.append(last_s - self._begin_s)
        self.disorder_s = max(self.disorder_s, disorder_s)
        self.disordered += disorder_s > 0
        return found


def _take_condition(life: _Life, kind: str, at_s: float | None) -> None:
    """The first time that it was true is the one that counts."""
    if kind == "PodScheduled" and life.scheduled is None:
        life.scheduled = _stamped(at_s)
    elif kind == "PodReadyToStartContainers" and life.sandbox_s is None:
        life.sandbox_s = at_s
    elif kind == "Ready" and life.ready_s is None:
        life.ready_s = at_s


def _take_status(container: _Container, status: Mapping[str, Any], redact: Redact) -> None:
    container.image_id = status.get("imageID") or container.image_id
    state, before = status.get("state") or {}, status.get("lastState") or {}
    told = (before.get("terminated"), state.get("running"), state.get("terminated"))
    for each in told:
        if each and container.started_stamp_s is None:
            container.started_stamp_s = _stamp_s(each.get("startedAt"))
    waiting = state.get("waiting")
    if waiting and not container.waiting:
        text = " ".join(f"{waiting.get('reason')}: {waiting.get('message') or ''}".split())
        if pulls.parse_waiting(text.removesuffix(":")):
            container.waiting = redact(text.removesuffix(":"))[:_WAITING_CHARACTERS]


def _take_told(container: _Container, reason: str, event: Object) -> None:
    moment = _moment(event)
    if reason == "Started":
        container.started = container.started or moment
        return
    message = pulls.parse_message(reason, event.get("message", ""))
    if message is None or moment is None:
        return
    if message.kind == "pulling":
        container.asked = min(container.asked or moment, moment)
        last = moment
        if (event.get("count") or 1) > 1:
            last = _stamped(_stamp_s(event.get("lastTimestamp"))) or moment
        container.asked_last = max(container.asked_last or last, last)
    elif message.kind == "pulled" and (
        container.answered is None or moment.at_s <= container.answered.at_s
    ):
        container.answered, container.answered_after_s = moment, message.total_s


def _answered(container: _Container) -> Moment | None:
    """When the runtime had the image: the event's moment, else what its text and stamps allow."""
    answered, asked = container.answered, container.asked_last
    if answered is None or answered.exact or asked is None or container.answered_after_s is None:
        return answered
    at_s = asked.at_s + container.answered_after_s
    return Moment(min(max(at_s, answered.at_s), answered.at_s + _SECOND_S), False)


def _started(container: _Container) -> Moment | None:
    if container.started and container.started.exact:
        return container.started
    return _stamped(container.started_stamp_s) or container.started


def _stamped(at_s: float | None) -> Moment | None:
    return None if at_s is None else Moment(at_s, False)


def _stamp_s(stamp: Any) -> float | None:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except (TypeError, ValueError):
        return None


def _moment(event: Object) -> Moment | None:
    """When an event was first told."""
    exact_s = _stamp_s(event.get("eventTime"))
    if exact_s is not None:
        return Moment(exact_s, True)
    stamp_s = _stamp_s(event.get("firstTimestamp") or event.get("lastTimestamp"))
    if stamp_s is None:
        return None
    try:
        named_s = int((event["metadata"]["name"]).rpartition(".")[2], 16) / 1e9
    except (KeyError, TypeError, ValueError):
        return Moment(stamp_s, False)
    if stamp_s <= named_s < stamp_s + _SECOND_S:
        return Moment(named_s, True)
    return Moment(stamp_s, False)
