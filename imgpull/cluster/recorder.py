"""What happened to the pods of a trial, recorded while it happened.

Hides that Kubernetes forgets: events last an hour and pods are deleted, so both are watched from
before the first Deployment on. What could not be seen is said, in sentences with figures (`gaps`).
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from imgpull.cluster.collection_watch import CollectionWatch
from imgpull.cluster.credentials import redactor
from imgpull.cluster.kube import ApiError, Kube, Object
from imgpull.cluster.pod_lives import PodLives
from imgpull.errors import EngineFailed
from imgpull.tables import Container, PodRow

_OPEN_S = 60.0  # for the first lists, and as long as the trial has not begun
# A kubelet with more to tell sends 5 events a second at the slowest (AKS: --event-qps=0, which
# client-go takes for 5), so 2 s without one means that none has any left.
_QUIET_S = 2.0
# A list bridges a shorter one without doubt: what is deleted within it was not a trial's.
_LAPSE_S = 10.0


class Recorder:
    """Watches events and pods of a trial's namespaces and writes events.jsonl as they come.

    Nothing that goes wrong after `start` is raised: see `gaps`. A time without a watch that a list
    bridged is told when it was longer than `bridged_s`.
    """

    def __init__(
        self,
        kube: Kube,
        namespaces: Sequence[str],
        events_path: Path,
        started_at: datetime,
        *,
        redact: Callable[[str], str] | None = None,
        bridged_s: float = _LAPSE_S,
    ) -> None:
        self._kube, self._path, self._bridged_s = kube, events_path, bridged_s
        self._redact = redact or redactor(kube.secrets())
        self._started_at = started_at
        self._lives = PodLives(started_at)
        self._told: dict[str, int] = {}  # uid of an event -> hash of what was written of it
        self._lock = threading.Lock()
        self._file: IO[str] | None = None
        self._written = 0
        self._late = 0  # found by the last list only
        self._new_s = 0.0  # when something new was heard
        self._offset_s = 0.0  # of time.monotonic() to seconds of the trial
        self._gaps: list[str] = []
        self._watches = [
            CollectionWatch(kube, f"/api/v1/namespaces/{namespace}/{plural}", take)
            for namespace in namespaces
            for plural, take in (("events", self._take_event), ("pods", self._take_pod))
        ]

    def __enter__(self) -> "Recorder":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(look_again=error is None)

    def start(self) -> None:
        """Return once everything there was listed and the watches are open.

        EngineFailed when that cannot be: then the trial would be blind, and should not begin.
        """
        self._file = self._path.open("w", encoding="utf-8", buffering=1)
        self._new_s = time.monotonic()
        self._offset_s = datetime.now(self._started_at.tzinfo).timestamp() - (
            self._started_at.timestamp() + self._new_s
        )
        for watch in self._watches:
            watch.start()
        until_s = time.monotonic() + _OPEN_S
        for watch in self._watches:
            opened = watch.wait_until_open(max(0.0, until_s - time.monotonic()))
            if opened and watch.failed is None:
                continue
            self._end(look_again=False)
            if watch.failed is not None:
                raise watch.failed
            raise EngineFailed(
                f"{watch.path} could not be watched within {_OPEN_S:.0f} s",
                hint="kubectl get --raw /readyz",
            )

    def stop(self, drain_s: float = 30.0) -> None:
        """End: after 2 s without anything new, at the latest after `drain_s`; then list once more.

        That last list finds what a watch that seemed to live did not bring.
        """
        until_s = time.monotonic() + drain_s
        while (now_s := time.monotonic()) < until_s and now_s - self._new_s < _QUIET_S:
            time.sleep(0.05)
        self._end(look_again=True)

    def rows(self) -> list[PodRow]:
        """The rows of pods.csv; pods that were deleted meanwhile are among them."""
        with self._lock:
            return self._lives.rows()

    def statuses(self) -> Mapping[tuple[str, str], tuple[Container, ...]]:
        """By namespace and pod: what each container ran, and why it waited for its image."""
        return {(row.namespace, row.pod): row.containers for row in self.rows()}

    @property
    def gaps(self) -> tuple[str, ...]:
        """What could not be seen, or may have gone unseen."""
        return tuple(self._gaps)

    @property
    def counts(self) -> Mapping[str, float]:
        """How much was seen, and what it took."""
        watches = self._watches
        return {
            "events": self._written,
            "pods": len(self._lives),
            "lists": sum(watch.lists for watch in watches),
            "resumed": sum(watch.resumed for watch in watches),
            "found_by_the_last_list": self._late,
            "longest_break_s": round(max(watch.longest_break_s for watch in watches), 1),
        }

    def _take_event(self, kind: str, event: Object) -> None:
        if kind == "DELETED":  # by age, or with its namespace
            return
        meta = event["metadata"]
        again = event.get("series") or {}
        said = hash(
            (event.get("message"), event.get("count"), event.get("lastTimestamp"),
             again.get("count"), again.get("lastObservedTime"))
        )  # fmt: skip
        with self._lock:
            key = meta.get("uid") or f"{meta.get('namespace')}/{meta['name']}"
            if self._file is None or self._told.get(key) == said:
                return
            self._file.write(json.dumps(self._clean(event)) + "\n")
            self._told[key] = said
            self._written += 1
            self._new_s = time.monotonic()
            self._lives.take_event(event)

    def _take_pod(self, kind: str, pod: Object) -> None:
        with self._lock:
            if self._file is None:
                return
            before = len(self._lives)
            self._lives.take_pod(pod, self._redact)
            if kind != "LISTED" or len(self._lives) > before:
                self._new_s = time.monotonic()

    def _clean(self, event: Object) -> Object:
        """The event without what is nobody's business; in a list it has no kind of its own."""
        meta = {key: each for key, each in event["metadata"].items() if key != "managedFields"}
        if notes := meta.get("annotations"):
            meta["annotations"] = {key: self._redact(str(each)) for key, each in notes.items()}
        message = {"message": self._redact(event["message"])} if event.get("message") else {}
        return {"apiVersion": "v1", "kind": "Event", **event, "metadata": meta, **message}

    def _end(self, *, look_again: bool) -> None:
        if self._file is None:
            return
        for watch in self._watches:
            watch.stop()
        if look_again:
            self._look_again()
        with self._lock:
            self._file.close()
            self._file = None
            self._lives.rows()
        self._gaps += self._sum_up()

    def _look_again(self) -> None:
        written = self._written
        for watch in self._watches:
            try:
                watch.list()
            except (ApiError, OSError, ValueError) as error:
                self._gaps.append(
                    f"{_what(watch)} could not be listed once more at the end ({_brief(error)}); "
                    f"the last of it was heard {time.monotonic() - self._new_s:.0f} s before"
                )
        self._late = self._written - written

    def _sum_up(self) -> list[str]:
        found = []
        for watch in self._watches:
            for lapse in watch.lapses:
                if lapse.length_s > self._bridged_s:
                    found.append(
                        f"{_what(watch)} were not watched for up to {lapse.length_s:.0f} s from "
                        f"{lapse.begin_s + self._offset_s:.0f} s on, then listed: what was made "
                        "and deleted meanwhile is missing"
                    )
            if watch.troubles:
                found.append(
                    f"{_what(watch)} could not be recorded {len(watch.troubles)} times: "
                    f"{watch.troubles[0]}"
                )
        if self._lives.disorder_s > _STAMP_ERROR_S:
            found.append(
                f"times of {self._lives.disordered} pods contradict each other by up to "
                f"{self._lives.disorder_s:.1f} s: clocks of nodes and control plane differ"
            )
        return found


# Clocks of well-kept machines differ by less.
_STAMP_ERROR_S = 1.0


def _what(watch: CollectionWatch) -> str:
    namespace, plural = watch.path.split("/")[-2:]
    return f"{plural} of {namespace}"


def _brief(error: Any) -> str:
    return str(error).splitlines()[0]
