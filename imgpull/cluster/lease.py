"""One sweep at a time on a cluster: a Lease that says who holds it, and dies with its holder.

Hides renewal, take-over and clocks. A holder is dead when its lease was not renewed for as long as
it lasts by *our* clock, watched here: two machines' clocks need not agree. Between two that take
over at once the API server decides (resourceVersion).
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from imgpull import units
from imgpull.cluster.kube import ApiError, Kube, Object
from imgpull.cluster.ownership import MANAGED_BY, SWEEP_LABEL, SYSTEM_NAMESPACE
from imgpull.errors import EngineFailed, EngineUnavailable

NAME = "imgpull"
_COLLECTION = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM_NAMESPACE}/leases"
PATH = f"{_COLLECTION}/{NAME}"

LASTS_S, _RENEW_S = 40, 10.0
_POLL_S = 1.0

Say = Callable[[str], None]


class Lease:
    """The lease while we hold it; a thread renews it."""

    def __init__(self, kube: Kube, held: Object) -> None:
        self._kube, self._held = kube, held
        self._ended = threading.Event()
        self._renewed_s = time.monotonic()
        self._taken_by = ""
        self._thread = threading.Thread(target=self._renew_for_ever, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """EngineFailed when somebody else may hold the cluster by now."""
        if self._taken_by:
            raise EngineFailed(
                f"the cluster's lease was taken over by {self._taken_by}",
                hint="this machine could not renew it in time: check its connection, then "
                "resume=auto",
            )
        quiet_s = time.monotonic() - self._renewed_s
        if quiet_s > LASTS_S:
            raise EngineFailed(
                f"the cluster's lease could not be renewed for {quiet_s:.0f} s (it lasts {LASTS_S} "
                "s): another sweep may hold the cluster by now",
                hint="check the connection to the API server, then resume=auto",
            )

    def release(self) -> None:
        """Give the lease up: the next sweep need not wait for it to expire."""
        self._ended.set()
        self._thread.join(_RENEW_S * 2)
        if self._taken_by:
            return
        spec = {**self._held["spec"], "holderIdentity": "", "renewTime": _now()}
        with suppress(ApiError):  # then it expires
            self._kube.replace(PATH, {**self._held, "spec": spec})

    def _renew_for_ever(self) -> None:
        while not self._ended.wait(_RENEW_S):
            with suppress(ApiError):  # `check` tells when that lasts
                self._renew()
            if self._taken_by:
                return

    def _renew(self) -> None:
        begun_s = time.monotonic()
        spec = {**self._held["spec"], "renewTime": _now()}
        try:
            self._held = self._kube.replace(PATH, {**self._held, "spec": spec})
        except ApiError as error:
            if not (error.is_conflict or error.is_missing):
                raise
            self._look(spec)
            return
        self._renewed_s = begun_s

    def _look(self, ours: Object) -> None:
        """After a conflict: ours still, touched by somebody else, or taken."""
        found = self._kube.find(PATH)
        holder = (found or {}).get("spec", {}).get("holderIdentity", "nobody: it was deleted")
        same = found is not None and _same_term(found["spec"], ours)
        if found is not None and same:
            self._held = found  # a label was changed; the next renewal goes through
        else:
            self._taken_by = str(holder) or "nobody: it was released"


def _same_term(spec: Object, ours: Object) -> bool:
    keys = ("holderIdentity", "acquireTime")
    return all(spec.get(key) == ours.get(key) for key in keys)


@contextmanager
def held(kube: Kube, holder: str, sweep: str, wait_s: float, say: Say) -> Iterator[Lease]:
    """Hold the cluster while this lasts.

    Waits up to `wait_s` for a live holder, and always as long as it takes to see that one is dead.
    EngineUnavailable names who holds the cluster. The system namespace must exist.
    """
    lease = Lease(kube, _take(kube, holder, sweep, wait_s, say))
    try:
        yield lease
    finally:
        lease.release()


def _take(kube: Kube, holder: str, sweep: str, wait_s: float, say: Say) -> Object:
    end_s = time.monotonic() + wait_s
    seen: tuple[Any, float] = (None, time.monotonic())  # (renewTime, when it was first seen so)
    while True:
        found = kube.find(PATH)
        if found is None:
            taken = _try(partial(kube.create, _COLLECTION, _body(holder, sweep, None)))
        elif not found["spec"].get("holderIdentity") or _is_dead(found, seen):
            taken = _try(partial(kube.replace, PATH, _body(holder, sweep, found)))
        else:
            taken = None
            if found["spec"].get("renewTime") != seen[0]:
                seen = (found["spec"].get("renewTime"), time.monotonic())
            _require_patience(found, seen, end_s, say)
            time.sleep(_POLL_S)
        if taken is not None:
            return taken


def _try(act: Callable[[], Object]) -> Object | None:
    """The lease as taken, or None when another was quicker."""
    try:
        return act()
    except ApiError as error:
        if error.is_conflict or error.is_missing:
            return None
        raise


def _is_dead(found: Object, seen: tuple[Any, float]) -> bool:
    lasts_s = found["spec"].get("leaseDurationSeconds") or LASTS_S
    return found["spec"].get("renewTime") == seen[0] and time.monotonic() - seen[1] > lasts_s


def _require_patience(found: Object, seen: tuple[Any, float], end_s: float, say: Say) -> None:
    """EngineUnavailable when a holder that looks alive outlasts the wait."""
    spec = found["spec"]
    lasts_s = spec.get("leaseDurationSeconds") or LASTS_S
    told = f"the cluster is held by {spec['holderIdentity']} since {spec.get('acquireTime')}"
    if looks_dead(found):
        left_s = lasts_s - (time.monotonic() - seen[1])
        say(f"{told}; its lease was not renewed, taking over in {max(0.0, left_s):.0f} s")
        return
    if time.monotonic() >= end_s:
        raise EngineUnavailable(
            told, hint="wait for it: engine.wait_for_cluster=2h; or stop that sweep with Ctrl-C"
        )
    say(f"{told}; waiting for up to {units.format_duration(round(end_s - time.monotonic()))}")


def looks_dead(found: Object) -> bool:
    """Whether a lease seems to be nobody's, as far as our clock and the holder's agree."""
    spec = found.get("spec") or {}
    if not spec.get("holderIdentity"):
        return True
    lasts_s = spec.get("leaseDurationSeconds") or LASTS_S
    try:
        renewed = datetime.fromisoformat(spec["renewTime"])
    except (KeyError, TypeError, ValueError):
        return True
    return (datetime.now(UTC) - renewed).total_seconds() > lasts_s + _RENEW_S


def _body(holder: str, sweep: str, before: Object | None) -> Object:
    now = _now()
    transitions = ((before or {}).get("spec") or {}).get("leaseTransitions") or 0
    metadata: Object = {
        "name": NAME,
        "namespace": SYSTEM_NAMESPACE,
        "labels": {MANAGED_BY: "imgpull", SWEEP_LABEL: sweep},
    }
    if before is not None:
        metadata["resourceVersion"] = before["metadata"]["resourceVersion"]
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": LASTS_S,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions + (before is not None),
        },
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
