"""One sweep at a time on a cluster: imgpull/cluster/lease.py."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apiserver import DROP, ApiServer, wait_until

from imgpull.cluster import lease
from imgpull.cluster.kube import Kube
from imgpull.cluster.ownership import ensure_system_namespace
from imgpull.errors import EngineFailed, EngineUnavailable

LASTS_S = 1  # seconds instead of 40: the laws are of their order, not of their length


@pytest.fixture
def kube(apiserver: ApiServer) -> Iterator[Kube]:
    made = apiserver.kube()
    ensure_system_namespace(made)
    yield made
    made.close()


def silent(text: str) -> None:
    """Nobody listens."""


def hold(
    kube: Kube, holder: str, wait_s: float = 0, say: Any = silent, renew_s: float = 0.1
) -> AbstractContextManager[lease.Lease]:
    return lease.held(
        kube, holder, f"sweep-of-{holder.split('@')[0]}", wait_s, say,
        duration_s=LASTS_S, renew_s=renew_s,
    )  # fmt: skip


def held_by(apiserver: ApiServer) -> str:
    found = apiserver.get(lease.PATH)
    return str(found["spec"]["holderIdentity"]) if found else "nobody"


def put(apiserver: ApiServer, ago_s: float = 0.0, holder: str = "gone@nowhere") -> None:
    """The lease of somebody on another machine, renewed so long ago by that machine's clock."""
    stamp = (datetime.now(UTC) - timedelta(seconds=ago_s)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    apiserver.put(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": "imgpull",
                "namespace": "imgpull-system",
                "labels": {"imgpull.dev/sweep": "theirs"},
            },
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": LASTS_S,
                "acquireTime": "2026-11-24T10:00:00.000000Z",
                "renewTime": stamp,
            },
        }
    )


def renewing(apiserver: ApiServer, ago_s: float, over: threading.Event) -> threading.Thread:
    """A live holder whose clock is behind ours by so much."""

    def renew() -> None:
        while not over.wait(0.1):
            put(apiserver, ago_s, "ann@desk")

    put(apiserver, ago_s, "ann@desk")
    thread = threading.Thread(target=renew)
    thread.start()
    return thread


def test_it_is_held_while_it_lasts_and_free_afterwards(apiserver: ApiServer, kube: Kube) -> None:
    with hold(kube, "me") as taken:
        taken.check()
        assert held_by(apiserver) == "me"
    assert held_by(apiserver) == ""
    with hold(kube, "you"):
        assert held_by(apiserver) == "you"
        found = apiserver.get(lease.PATH)
        assert found is not None
        assert found["spec"]["leaseTransitions"] == 1
        assert found["metadata"]["labels"]["imgpull.dev/sweep"] == "sweep-of-you"


def test_it_is_given_back_by_an_error_too(apiserver: ApiServer, kube: Kube) -> None:
    with pytest.raises(KeyboardInterrupt), hold(kube, "me"):
        raise KeyboardInterrupt
    assert held_by(apiserver) == ""


def test_its_namespace_is_made_where_there_is_none(apiserver: ApiServer) -> None:
    client = apiserver.kube()
    with hold(client, "me"):
        assert held_by(apiserver) == "me"
    client.close()


def test_a_live_holder_is_named_and_not_displaced(apiserver: ApiServer, kube: Kube) -> None:
    with hold(kube, "me@here pid 1"):
        with (
            pytest.raises(EngineUnavailable, match=r"held by me@here pid 1 .* since") as refused,
            hold(kube, "you", wait_s=0.4),
        ):
            pass
        assert "sweep-of-me" in refused.value.message
        assert "engine.wait_for_cluster" in refused.value.hint
        assert held_by(apiserver) == "me@here pid 1"


def test_without_patience_a_live_holder_is_no_wait(apiserver: ApiServer, kube: Kube) -> None:
    with hold(kube, "me"):
        begun_s = time.monotonic()
        with pytest.raises(EngineUnavailable), hold(kube, "you"):
            pass
        assert time.monotonic() - begun_s < LASTS_S / 2


def test_it_is_renewed_for_longer_than_it_lasts(apiserver: ApiServer, kube: Kube) -> None:
    with hold(kube, "me") as taken:
        time.sleep(1.5 * LASTS_S)
        taken.check()
        with pytest.raises(EngineUnavailable), hold(kube, "you"):
            pass


def test_a_dead_holder_s_lease_is_taken_after_it_was_seen_to_expire(
    apiserver: ApiServer, kube: Kube
) -> None:
    put(apiserver, ago_s=3600)  # long ago by clocks, which need not agree
    said: list[str] = []
    begun_s = time.monotonic()
    with hold(kube, "me", say=said.append):
        assert held_by(apiserver) == "me"
    assert time.monotonic() - begun_s >= LASTS_S, "it was taken before it had expired"
    assert "gone@nowhere" in said[0]
    assert "seems dead, taking over in 1 s" in said[0]


@pytest.mark.parametrize("ago_s", [3600.0, -3600.0], ids=["behind", "ahead"])
def test_a_live_holder_whose_clock_is_wrong_is_not_displaced(
    apiserver: ApiServer, kube: Kube, ago_s: float
) -> None:
    over = threading.Event()
    thread = renewing(apiserver, ago_s, over)
    try:
        with (
            pytest.raises(EngineUnavailable, match="held by ann@desk"),
            hold(kube, "me", wait_s=1.5 * LASTS_S),
        ):
            pass
    finally:
        over.set()
        thread.join()


def test_one_that_looks_dead_and_is_not_is_no_wait_for_ever(
    apiserver: ApiServer, kube: Kube
) -> None:
    over = threading.Event()
    thread = renewing(apiserver, 3600.0, over)
    try:
        begun_s = time.monotonic()
        with pytest.raises(EngineUnavailable, match="held by ann@desk"), hold(kube, "me"):
            pass
        assert time.monotonic() - begun_s < LASTS_S
    finally:
        over.set()
        thread.join()


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="Linux names its processes")
def test_a_killed_process_of_this_machine_is_not_waited_for(
    apiserver: ApiServer, kube: Kube, tmp_path: Path
) -> None:
    path = apiserver.kubeconfig(tmp_path / "config")
    text = (
        "import sys, time; from pathlib import Path; from imgpull.cluster import kube, lease\n"
        f"client = kube.Kube.open(Path({str(path)!r}))\n"
        "with lease.held(client, 'killed', 's', 0, print): time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", text]) as process:
        try:
            wait_until(lambda: held_by(apiserver) == "killed", 20)
            holder = lease.look(kube)
            assert holder is not None
            assert holder.identity == "killed"
            with pytest.raises(EngineUnavailable), hold(kube, "me"):
                pass
        finally:
            process.kill()
    assert lease.look(kube) is None
    begun_s = time.monotonic()
    with hold(kube, "me"):
        assert held_by(apiserver) == "me"
    assert time.monotonic() - begun_s < LASTS_S


def test_of_many_that_take_over_at_once_one_wins(apiserver: ApiServer, kube: Kube) -> None:
    put(apiserver, ago_s=3600)
    together = threading.Barrier(4)
    won: list[str] = []
    lost: list[str] = []

    def take(name: str) -> None:
        client = apiserver.kube()
        together.wait()
        try:
            with hold(client, name, wait_s=1.5 * LASTS_S):
                won.append(name)
                wait_until(lambda: len(lost) == 3, 20)
        except EngineUnavailable as error:
            lost.append(error.message)
        finally:
            client.close()

    threads = [threading.Thread(target=take, args=(f"nr-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(won) == 1
    assert all(f"held by {won[0]}" in each for each in lost)


def test_the_next_waits_until_it_is_released(apiserver: ApiServer, kube: Kube) -> None:
    said: list[str] = []
    taken = threading.Event()

    def wait() -> None:
        client = apiserver.kube()
        with hold(client, "next", wait_s=10, say=said.append):
            taken.set()
        client.close()

    with hold(kube, "first"):
        thread = threading.Thread(target=wait)
        thread.start()
        wait_until(lambda: said)
        assert not taken.is_set()
    thread.join(10)
    assert taken.is_set()
    assert "held by first" in said[0]


def test_who_lost_it_is_told_and_does_not_release_it(apiserver: ApiServer, kube: Kube) -> None:
    with hold(kube, "me") as taken:
        put(apiserver, holder="thief")
        with pytest.raises(EngineFailed, match=r"thief .* has it"):
            until_refused(taken)
    assert held_by(apiserver) == "thief"


def test_a_deleted_lease_is_lost(apiserver: ApiServer, kube: Kube) -> None:
    with hold(kube, "me") as taken:
        apiserver.remove(lease.PATH)
        with pytest.raises(EngineFailed, match="deleted"):
            until_refused(taken)


def test_one_that_somebody_annotates_is_not_lost(apiserver: ApiServer, kube: Kube) -> None:
    with hold(kube, "me") as taken:
        kube.patch(lease.PATH, {"metadata": {"annotations": {"note": "hands off"}}})
        time.sleep(1.2 * LASTS_S)
        taken.check()
    found = apiserver.get(lease.PATH)
    assert found is not None
    assert found["metadata"]["annotations"]["note"] == "hands off"
    assert held_by(apiserver) == ""


def test_who_cannot_renew_it_is_told_in_time(apiserver: ApiServer, kube: Kube) -> None:
    with hold(kube, "me") as taken:
        apiserver.deny("update", "leases")
        with pytest.raises(EngineFailed, match="could not be renewed for 1 s"):
            until_refused(taken)


def test_an_answer_that_does_not_come_is_no_renewal(apiserver: ApiServer, kube: Kube) -> None:
    with hold(kube, "me") as taken:
        apiserver.script("PUT", lease.PATH, 2.5)
        begun_s = time.monotonic()
        with pytest.raises(EngineFailed, match="could not be renewed"):
            until_refused(taken)
        assert time.monotonic() - begun_s < 2.0, "told only when the answer had come"


def test_an_answer_that_is_lost_leaves_it_ours(apiserver: ApiServer, kube: Kube) -> None:
    """The request was done: asked again, the server speaks of a conflict, with ourselves."""

    def done_but_cut(request: Any) -> Any:
        method = apiserver.store.create if request.method == "POST" else apiserver.store.replace
        path = request.path
        method(apiserver.place(path), request.body)
        return DROP

    kube.get("/version")
    apiserver.script("POST", lease.PATH.rpartition("/")[0], done_but_cut)
    with hold(kube, "me") as taken:
        apiserver.script("PUT", lease.PATH, done_but_cut)
        time.sleep(1.5 * LASTS_S)
        taken.check()
        assert held_by(apiserver) == "me"


def test_a_release_that_fails_is_said_and_breaks_nothing(apiserver: ApiServer, kube: Kube) -> None:
    said: list[str] = []
    with hold(kube, "me", say=said.append, renew_s=60):
        apiserver.deny("update", "leases")
    assert "was not given back, it ends in 1 s" in said[0]


def until_refused(taken: lease.Lease) -> None:
    end_s = time.monotonic() + 4
    while time.monotonic() < end_s:
        taken.check()
        time.sleep(0.02)
