"""One sweep at a time on a cluster: a Lease that its holder renews and that dies with it.

Hides how a holder is known to be dead: never by comparing two clocks, but by watching its renewals
stop for as long as it promised them; at once where its process was on this machine and is gone.
"""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from imgpull.cluster.kube import ApiError, Kube, Object
from imgpull.cluster.ownership import (
    IMGPULL,
    MANAGED_BY,
    SWEEP_LABEL,
    SYSTEM_NAMESPACE,
    ensure_system_namespace,
)
from imgpull.errors import EngineFailed, EngineUnavailable
from imgpull.units import format_duration

Say = Callable[[str], None]

_LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases"
PATH = f"{_LEASES}/imgpull"
_PROCESS = "imgpull.dev/process"  # annotation: which process holds it, of this machine's boots
_DURATION_S, _RENEW_S = 40, 10.0
_SLACK_S = 10.0  # two clocks may differ by this before a lease looks expired
_SURELY_S = 600.0  # no two clocks differ by that and still let anybody log in
_POLL_S = 2.0


@dataclass(frozen=True)
class Holder:
    """Who holds a cluster, as its Lease says."""

    identity: str  # empty: released
    sweep: str
    since: str
    renewed: str
    duration_s: float
    process: str = ""

    @property
    def silent_s(self) -> float:
        """How long ago it was renewed, if its clock and ours agree."""
        try:
            renewed = datetime.fromisoformat(self.renewed)
        except ValueError:
            return float("inf")
        return (datetime.now(UTC) - renewed).total_seconds()

    @property
    def looks_live(self) -> bool:
        """Whether it was renewed of late, if its clock and ours agree."""
        return not self.is_gone and abs(self.silent_s) < self.duration_s + _SLACK_S

    @property
    def is_gone(self) -> bool:
        """Whether it is certain, without watching, that nobody holds the cluster."""
        return not self.identity or _has_ended(self.process)

    def __str__(self) -> str:
        return f"{self.identity} (sweep {self.sweep or 'unknown'}) since {self.since}"


def look(kube: Kube) -> Holder | None:
    """Who holds the cluster; None when nobody does. Watches for 12 s where clocks may deceive."""
    found = kube.find(PATH)
    if found is None or (holder := _holder(found)).is_gone:
        return None
    if holder.looks_live:
        return holder
    if abs(holder.silent_s) < _SURELY_S:
        time.sleep(_RENEW_S + 2.0)
        again = kube.find(PATH)
        if again is not None and _holder(again).renewed != holder.renewed:
            return _holder(again)
    return None


class Lease:
    """A lease that is held, and renewed by a thread for as long as it is."""

    def __init__(
        self, kube: Kube, held: Object, asked_at_s: float, renew_s: float, duration_s: float
    ) -> None:
        self._kube, self._held = kube, held
        self._renewed_s, self._renew_s, self._duration_s = asked_at_s, renew_s, duration_s
        self._lost = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """EngineFailed when the cluster may be another's by now."""
        silent_s = _now_s() - self._renewed_s
        lost = self._lost
        if not lost and silent_s > self._duration_s:
            lost = f"it could not be renewed for {silent_s:.0f} s"
        if lost:
            raise EngineFailed(
                f"the cluster's lease was lost: {lost}",
                hint=f"kubectl get lease imgpull -n {SYSTEM_NAMESPACE} -o yaml; then the same "
                "command again",
            )

    def release(self) -> None:
        """Give it back; nothing where it is another's by now. ApiError when that did not arrive."""
        self._over.set()
        self._thread.join(self._duration_s)
        if self._lost:
            return
        spec = {**self._held["spec"], "holderIdentity": "", "renewTime": _micro_time()}
        try:
            self._kube.replace(PATH, {**self._held, "spec": spec})
        except ApiError as error:
            if not (error.is_conflict or error.is_missing):
                raise

    def _keep(self) -> None:
        while not self._over.wait(self._renew_s) and not self._lost:
            with contextlib.suppress(ApiError):  # check() sees when that lasts too long
                self._renew()

    def _renew(self) -> None:
        asked_s = _now_s()
        spec = {**self._held["spec"], "renewTime": _micro_time()}
        try:
            self._held = self._kube.replace(PATH, {**self._held, "spec": spec})
        except ApiError as error:
            if error.is_missing:
                self._lost = "somebody deleted it"
                return
            if not error.is_conflict:
                raise
            now = self._kube.find(PATH)
            if now is None or not _is_same(now, self._held):
                self._lost = f"{_holder(now)} has it" if now else "somebody deleted it"
                return
            self._held = now  # annotated by somebody, or renewed by a request of ours
        self._renewed_s = asked_s


@contextmanager
def held(
    kube: Kube,
    holder: str,
    sweep: str,
    wait_s: float,
    say: Say,
    *,
    duration_s: int = _DURATION_S,
    renew_s: float = _RENEW_S,
) -> Iterator[Lease]:
    """Hold the cluster; EngineUnavailable names who else does, after `wait_s`.

    A holder that is dead is waited for until that is certain, whatever `wait_s`.
    """
    asking = _Asking(kube, holder, sweep, duration_s, say)
    content, asked_s = asking.until_had(wait_s)
    lease = Lease(kube, content, asked_s, renew_s, duration_s)
    try:
        yield lease
    finally:
        try:
            lease.release()
        except ApiError as error:
            say(f"the lease was not given back, it ends in {duration_s} s: {error.message}")


class _Asking:
    """One who wants the lease."""

    def __init__(self, kube: Kube, holder: str, sweep: str, duration_s: int, say: Say) -> None:
        self._kube, self._sweep, self._say = kube, sweep, say
        self._holder, self._duration_s = holder, duration_s
        self._mark = f"{_this_process()}/{uuid.uuid4().hex[:8]}"
        self._version, self._unchanged_since_s = "", _now_s()
        self._has_renewed = False  # while we watched

    def until_had(self, wait_s: float) -> tuple[Object, float]:
        """The lease as we hold it, and when it was asked for."""
        end_s = _now_s() + wait_s
        while True:
            asked_s = _now_s()
            found = self._kube.find(PATH)
            if found is not None and _mark_of(found) == self._mark:
                return found, asked_s  # a request of ours that seemed lost
            if found is None or self._is_free(found):
                if (taken := self._take(found)) is not None:
                    return taken, asked_s
                continue
            self._wait(_holder(found), end_s)

    def _is_free(self, found: Object) -> bool:
        now = _holder(found)
        if now.is_gone:
            return True
        version = f"{found['metadata'].get('uid')}/{now.renewed}/{now.identity}"
        if version != self._version:
            self._has_renewed = bool(self._version)
            self._version, self._unchanged_since_s = version, _now_s()
        return _now_s() - self._unchanged_since_s >= now.duration_s

    def _take(self, found: Object | None) -> Object | None:
        """The lease, or None: another was quicker."""
        now = _micro_time()
        meta: Object = {
            "name": "imgpull",
            "labels": {MANAGED_BY: IMGPULL, SWEEP_LABEL: self._sweep},
            "annotations": {_PROCESS: self._mark},
        }
        spec: Object = {
            "holderIdentity": self._holder,
            "leaseDurationSeconds": self._duration_s,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": 0,
        }
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
        try:
            if found is None:
                return self._kube.create(_LEASES, {**body, "metadata": meta})
            meta["resourceVersion"] = found["metadata"]["resourceVersion"]
            spec["leaseTransitions"] = int(found["spec"].get("leaseTransitions") or 0) + 1
            return self._kube.replace(PATH, {**body, "metadata": meta})
        except ApiError as error:
            if error.is_missing:  # its namespace, or a lease deleted meanwhile
                ensure_system_namespace(self._kube)
            elif not error.is_conflict and error.status != 0:
                raise
            elif error.status == 0 and self._kube.find(PATH) is None:
                raise  # it is not there: the request did not arrive
            return None

    def _wait(self, now: Holder, end_s: float) -> None:
        watched_s = _now_s() - self._unchanged_since_s
        certain_s = max(0.0, now.duration_s - watched_s)
        left_s = end_s - _now_s()
        is_live = now.looks_live or self._has_renewed
        if left_s <= 0 and is_live:
            silent_s = watched_s if self._has_renewed else max(0.0, now.silent_s)
            raise EngineUnavailable(
                f"the cluster is held by {now}, renewed {silent_s:.0f} s ago",
                hint="wait for it: engine.wait_for_cluster=30m; or, if it is dead, try again in "
                f"{format_duration(round(now.duration_s + _SLACK_S))}",
            )
        if is_live:
            left = format_duration(round(left_s))
            self._say(f"the cluster is held by {now}: waiting for up to {left}")
        else:
            self._say(
                f"the cluster is held by {now}; its lease seems dead, taking over in "
                f"{certain_s:.0f} s"
            )
        pause_s = min(_POLL_S, now.duration_s / 4, certain_s + 0.01)
        time.sleep(max(0.01, min(pause_s, left_s)) if left_s > 0 else pause_s)


def _holder(found: Object) -> Holder:
    meta, spec = found["metadata"], found.get("spec") or {}
    return Holder(
        identity=str(spec.get("holderIdentity") or ""),
        sweep=str((meta.get("labels") or {}).get(SWEEP_LABEL, "")),
        since=str(spec.get("acquireTime") or "")[:19],
        renewed=str(spec.get("renewTime") or ""),
        duration_s=float(spec.get("leaseDurationSeconds") or _DURATION_S),
        process=_mark_of(found),
    )


def _mark_of(found: Object) -> str:
    return str((found["metadata"].get("annotations") or {}).get(_PROCESS, ""))


def _is_same(found: Object, held: Object) -> bool:
    holder = (found.get("spec") or {}).get("holderIdentity")
    return _mark_of(found) == _mark_of(held) and bool(holder)


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _now_s() -> float:
    """A clock that nobody sets; where it can be, one that counts a laptop's sleep too."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def _this_process() -> str:
    """What names this process among all that ever ran on this machine; empty where unknown."""
    return _process(os.getpid())


def _process(pid: int) -> str:
    """Boot, process namespace, process and when it began: a number alone may be used again."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").readlink().name
        began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
    return f"{boot}/{space}/{pid}/{began}"


def _has_ended(mark: str) -> bool:
    """Whether it was a process of this very machine that is no more. False when in doubt."""
    of, _, _ = mark.rpartition("/")  # without the part that tells two askers of a process apart
    here, parts = _this_process().split("/"), of.split("/")
    if len(parts) != 4 or len(here) != 4 or parts[:2] != here[:2] or not parts[2].isdigit():
        return False
    return _process(int(parts[2])) != of
