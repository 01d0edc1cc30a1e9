"""One sweep at a time on a cluster: imgpull/cluster/lease.py."""

import threading
import time
from collections.abc import Iterator

import pytest
from apiserver import ApiServer

from imgpull.cluster import lease
from imgpull.cluster.kube import Kube
from imgpull.cluster.ownership import ensure_system_namespace
from imgpull.errors import EngineFailed, EngineUnavailable


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become tenths: the laws are of their order, not of their length."""
    monkeypatch.setattr(lease, "LASTS_S", 1)
    monkeypatch.setattr(lease, "_RENEW_S", 0.1)
    monkeypatch.setattr(lease, "_POLL_S", 0.05)


@pytest.fixture
def kube(apiserver: ApiServer) -> Iterator[Kube]:
    made = apiserver.kube()
    ensure_system_namespace(made)
    yield made
    made.close()


def held_by(apiserver: ApiServer) -> str:
    found = apiserver.get(lease.PATH)
    return str(found["spec"]["holderIdentity"]) if found else "nobody"


def say(text: str) -> None:
    """Nobody listens."""


def dead(kube: Kube, holder: str = "gone@nowhere") -> None:
    """A lease whose holder has died just now."""
    kube.create(lease._COLLECTION, lease._body(holder, "old-sweep", None))


def test_it_is_held_while_it_lasts_and_free_afterwards(apiserver: ApiServer, kube: Kube) -> None:
    with lease.held(kube, "me", "s", 0, say) as taken:
        taken.check()
        assert held_by(apiserver) == "me"
    assert held_by(apiserver) == ""
    with lease.held(kube, "you", "t", 0, say):
        assert held_by(apiserver) == "you"


def test_a_live_holder_is_named_and_not_displaced(apiserver: ApiServer, kube: Kube) -> None:
    with lease.held(kube, "me@here pid 1", "s", 0, say):
        time.sleep(0.3)
        with (
            pytest.raises(EngineUnavailable, match="held by me@here pid 1 since") as refused,
            lease.held(kube, "you", "t", 0.4, say),
        ):
            pass
        assert "engine.wait_for_cluster" in refused.value.hint
        assert held_by(apiserver) == "me@here pid 1"


def test_it_is_renewed_for_longer_than_it_lasts(apiserver: ApiServer, kube: Kube) -> None:
    with lease.held(kube, "me", "s", 0, say) as taken:
        time.sleep(1.5)
        taken.check()
        with pytest.raises(EngineUnavailable), lease.held(kube, "you", "t", 0, say):
            pass


def test_a_dead_holder_s_lease_expires(apiserver: ApiServer, kube: Kube) -> None:
    dead(kube)
    begun_s = time.monotonic()
    with lease.held(kube, "me", "s", 10, say):
        assert held_by(apiserver) == "me"
    assert time.monotonic() - begun_s >= 1.0, "it was taken before it had expired"


def test_of_two_that_take_over_at_once_one_wins(apiserver: ApiServer, kube: Kube) -> None:
    dead(kube)
    won: list[str] = []
    lost: list[str] = []
    done = threading.Event()

    def take(name: str) -> None:
        client = apiserver.kube()
        try:
            with lease.held(client, name, name, 2.5, say):
                won.append(name)
                done.wait(10)
        except EngineUnavailable as error:
            lost.append(error.message)
            done.set()
        finally:
            client.close()

    threads = [threading.Thread(target=take, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(won) == 1
    assert len(lost) == 1
    assert f"held by {won[0]}" in lost[0]


def test_the_next_waits_until_it_is_released(apiserver: ApiServer, kube: Kube) -> None:
    said: list[str] = []
    taken = threading.Event()

    def wait() -> None:
        client = apiserver.kube()
        with lease.held(client, "next", "t", 10, said.append):
            taken.set()
        client.close()

    with lease.held(kube, "first", "s", 0, say):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.4)
        assert not taken.is_set()
    thread.join(10)
    assert taken.is_set()
    assert any("held by first" in text for text in said)


def test_who_lost_it_is_told(apiserver: ApiServer, kube: Kube) -> None:
    with lease.held(kube, "me", "s", 0, say) as taken:
        found = apiserver.get(lease.PATH)
        assert found is not None
        found["spec"] |= {"holderIdentity": "thief", "acquireTime": "2026-01-01T00:00:00.000000Z"}
        apiserver.put(found)
        time.sleep(0.5)
        with pytest.raises(EngineFailed, match="taken over by thief"):
            taken.check()
    assert held_by(apiserver) == "thief", "what is another's was released"


def test_who_cannot_renew_it_is_told_in_time(
    apiserver: ApiServer, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lease.held(kube, "me", "s", 0, say) as taken:
        apiserver.deny("update", "leases")
        time.sleep(1.3)
        with pytest.raises(EngineFailed, match="could not be renewed"):
            taken.check()
