"""The client of an API server: imgpull/cluster/kube.py."""

import json
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from apiserver import DROP, ApiServer, wait_until

from imgpull.cluster.kube import ApiError, Kube, Object, Stream
from imgpull.cluster.kubeconfig import Access

PODS = "/api/v1/namespaces/default/pods"
SOON = {"Retry-After": "0"}


def pod(name: str, **labels: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
    }


def methods(apiserver: ApiServer) -> list[str]:
    return [each.method for each in apiserver.requests]


# Requests that fail


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_what_was_refused_for_now_is_asked_again(
    apiserver: ApiServer, kube: Kube, method: str
) -> None:
    """429: it was not done, so that a POST may be sent again too."""
    kube.get("/version")
    if method != "POST":
        apiserver.put(pod("p"))
    apiserver.script(method, ".*", (429, {}, SOON), (429, {}, SOON))
    do(kube, method)
    assert methods(apiserver).count(method) == 3 + (method == "GET")


def do(kube: Kube, method: str, kind: str = "merge") -> None:
    path = f"{PODS}/p"
    if method == "GET":
        kube.get(path)
    elif method == "POST":
        kube.create(PODS, pod("p"))
    elif method == "PUT":
        kube.replace(path, pod("p", a="b"))
    elif method == "DELETE":
        kube.delete(path)
    else:
        body: Any = {"metadata": {"labels": {"a": "b"}}}
        add = [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]
        kube.patch(path, add if kind == "json" else body, kind)


def test_the_server_says_how_long_to_wait(apiserver: ApiServer, kube: Kube) -> None:
    apiserver.script("GET", "/version", (429, {}, {"Retry-After": "1"}))
    begun_s = time.monotonic()
    kube.get("/version")
    assert 1.0 <= time.monotonic() - begun_s < 10


@pytest.mark.parametrize("failure", [(500, {}, SOON), (503, {}, SOON), (504, "", SOON), DROP],
                         ids=["500", "503", "504", "broken"])  # fmt: skip
@pytest.mark.parametrize(
    ("method", "kind", "repeats"),
    [
        ("GET", "", True),
        ("PUT", "", True),
        ("DELETE", "", True),
        ("PATCH", "merge", True),
        ("PATCH", "json", False),
        ("POST", "", False),
    ],
)
def test_what_may_have_been_done_is_repeated_only_where_twice_is_once(
    apiserver: ApiServer, kube: Kube, failure: Any, method: str, kind: str, repeats: bool
) -> None:
    kube.get("/version")
    if method != "POST":
        apiserver.put(pod("p"))
    apiserver.script(method, f"{PODS}.*", failure)
    before = len(apiserver.requests)
    if repeats:
        do(kube, method, kind)
    else:
        with pytest.raises(ApiError) as failed:
            do(kube, method, kind)
        assert failed.value.status == (0 if failure is DROP else failure[0])
    assert len(apiserver.requests) == before + 1 + repeats


def test_it_gives_up_after_some_tries(apiserver: ApiServer, kube: Kube) -> None:
    apiserver.handle("GET", "/version", (503, {"message": "etcd is away"}, SOON))
    with pytest.raises(ApiError, match="GET /version: 503 etcd is away"):
        kube.get("/version")
    assert len(apiserver.requests) == 7
    apiserver.requests.clear()
    with pytest.raises(ApiError, match="etcd is away"):
        kube.impatient().get("/version")
    assert len(apiserver.requests) == 2


@pytest.mark.parametrize(
    ("status", "reason", "hint"),
    [
        (401, "Unauthorized", "log in again"),
        (403, "Forbidden", "docs/real-clusters.md"),
        (404, "NotFound", ""),
        (409, "Conflict", ""),
        (410, "Expired", ""),
        (422, "Invalid", ""),
    ],
)
def test_a_refusal_is_final_and_says_what_the_server_said(
    apiserver: ApiServer, kube: Kube, status: int, reason: str, hint: str
) -> None:
    body = {"kind": "Status", "message": "in the server's words", "reason": reason}
    apiserver.script("GET", PODS, (status, body))
    with pytest.raises(ApiError, match=f"GET {PODS}: {status} in the server's words") as refused:
        list(kube.items(PODS))
    error = refused.value
    assert (error.status, error.reason) == (status, reason)
    assert hint in error.hint
    assert (error.is_missing, error.is_conflict, error.is_gone) == (
        status == 404, status == 409, status == 410,
    )  # fmt: skip
    assert len(apiserver.requests) == 1
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.status, again.reason) == (str(error), status, reason)


def test_who_nobody_answers_says_so_soon_with_the_fix(unused_port: int) -> None:
    kube = Kube(Access(f"http://127.0.0.1:{unused_port}", "x"))
    begun_s = time.monotonic()
    with pytest.raises(ApiError, match="did not answer GET /version: connection refused") as failed:
        kube.get("/version")
    assert failed.value.status == 0
    assert "VPN" in failed.value.hint
    assert time.monotonic() - begun_s < 10, "a wrong address is no reason for half a minute"
    kube.close()


@pytest.fixture
def unused_port() -> Iterator[int]:
    with socket.socket() as taken:  # bound, not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_server_that_is_too_slow_is_no_wait_for_ever(apiserver: ApiServer, kube: Kube) -> None:
    apiserver.script("GET", "/slow", *[15.0] * 3)
    begun_s = time.monotonic()
    with pytest.raises(ApiError, match=r"did not answer GET /slow: .*timed out"):
        kube.impatient().text("/slow", timeout_s=0.2)
    assert time.monotonic() - begun_s < 10


def test_even_the_impatient_wait_where_the_server_asks_them_to(
    apiserver: ApiServer, kube: Kube
) -> None:
    """Who asks each of a thousand kubelets is throttled, and nothing is known of the node yet."""
    apiserver.script("GET", "/busy", *[(429, {}, SOON)] * 4, (200, "at last"))
    assert kube.impatient().text("/busy") == "at last"


def test_an_answer_that_is_no_json_is_an_error(apiserver: ApiServer, kube: Kube) -> None:
    apiserver.script("GET", PODS, (200, "<html>a proxy's log-in page</html>"))
    with pytest.raises(ApiError, match="the answer is not JSON"):
        kube.get(PODS)


def test_a_body_that_breaks_off_is_asked_for_again(apiserver: ApiServer, kube: Kube) -> None:
    kube.get("/version")
    apiserver.script("GET", "/logs", (200, iter([b"half", 0.05, DROP])), (200, "whole"))
    assert kube.text("/logs") == "whole"


# Objects


def test_objects_are_made_found_changed_and_removed(apiserver: ApiServer, kube: Kube) -> None:
    made = kube.create(PODS, pod("p"))
    assert kube.find(f"{PODS}/p") == made
    with pytest.raises(ApiError) as taken:
        kube.create(PODS, pod("p"))
    assert taken.value.is_conflict
    kube.patch(f"{PODS}/p", {"metadata": {"labels": {"x": "y"}}})
    with pytest.raises(ApiError) as stale:
        kube.replace(f"{PODS}/p", made)
    assert stale.value.is_conflict
    kube.patch(f"{PODS}/p", [{"op": "remove", "path": "/metadata/labels/x"}], "json")
    kube.patch(f"{PODS}/q", pod("q"), "apply", fieldManager="imgpull", force="true")
    assert {each["metadata"]["name"] for each in apiserver.all(PODS)} == {"p", "q"}
    assert kube.delete(f"{PODS}/q", uid="of another") is False
    assert kube.delete(f"{PODS}/q", grace_s=0) is True
    assert kube.delete(f"{PODS}/q") is False
    assert kube.find(f"{PODS}/q") is None


def test_a_list_is_read_page_by_page(apiserver: ApiServer, kube: Kube) -> None:
    for n in range(1201):
        apiserver.put(pod(f"p{n:04}", odd=str(n % 2)))
    assert len(list(kube.items(PODS))) == 1201
    assert len(apiserver.requests) == 3
    assert len(list(kube.items("/api/v1/pods", labelSelector="odd=1"))) == 600
    names = [
        each["metadata"]["name"] for each in kube.items(PODS, fieldSelector="metadata.name=p7")
    ]
    assert names == []


def test_a_list_whose_token_expires_begins_anew_and_tells_nothing_twice(
    apiserver: ApiServer, kube: Kube
) -> None:
    for n in range(1200):
        apiserver.put(pod(f"p{n:04}"))
    seen: list[str] = []
    for found in kube.items(PODS):
        seen.append(found["metadata"]["name"])
        if len(seen) == 700:
            apiserver.forget()
            apiserver.put(pod("p0000-new"))
    assert len(seen) == len(set(seen)) == 1201
    pages = kube.pages(PODS)
    next(pages)
    apiserver.forget()
    with pytest.raises(ApiError) as gone:
        next(pages)
    assert gone.value.is_gone


# Watches


class Listener:
    """A thread that listens to a stream until it ends; `error` is what ended it."""

    def __init__(self, stream: Stream) -> None:
        self.events: list[Object] = []
        self.error: ApiError | None = None
        self._stream = stream
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for line in self._stream:
                self.events.append(json.loads(line))
        except ApiError as error:
            self.error = error
        finally:
            self._stream.close()

    def join(self) -> None:
        self._thread.join(5)
        assert not self._thread.is_alive()


def watching(apiserver: ApiServer, kube: Kube, **params: Any) -> Listener:
    version = str(kube.get(PODS)["metadata"]["resourceVersion"])
    listener = Listener(kube.watch(PODS, version=version, **params))
    wait_until(lambda: apiserver.watching)
    return listener


def test_a_watch_tells_every_change_in_turn(apiserver: ApiServer, kube: Kube) -> None:
    apiserver.put(pod("before"))
    listener = watching(apiserver, kube, timeout_s=1)
    apiserver.put(pod("p"))
    kube.patch(f"{PODS}/p", {"metadata": {"labels": {"x": "y"}}})
    kube.delete(f"{PODS}/p")
    listener.join()
    assert listener.error is None, "an end at its time is no error"
    kinds = [each["type"] for each in listener.events]
    assert kinds[:3] == ["ADDED", "MODIFIED", "DELETED"]
    assert set(kinds[3:]) == {"BOOKMARK"}
    marks = [int(e["object"]["metadata"]["resourceVersion"]) for e in listener.events]
    assert marks == sorted(marks)


def test_a_quiet_watch_is_ended_at_once_from_another_thread(
    apiserver: ApiServer, kube: Kube
) -> None:
    stream = kube.watch(PODS, version="1", timeout_s=60)
    listener = Listener(stream)
    wait_until(lambda: apiserver.watching)
    time.sleep(0.1)
    begun_s = time.monotonic()
    stream.close()
    listener.join()
    assert time.monotonic() - begun_s < 20
    assert listener.error is None
    stream.close()


def test_a_watch_that_breaks_is_an_error_that_may_be_resumed(
    apiserver: ApiServer, kube: Kube
) -> None:
    listener = watching(apiserver, kube)
    apiserver.put(pod("p"))
    wait_until(lambda: listener.events)
    apiserver.break_watches()
    listener.join()
    assert listener.error is not None
    assert listener.error.status == 0
    assert listener.events[0]["object"]["metadata"]["name"] == "p"


def test_a_server_that_falls_silent_breaks_the_stream(apiserver: ApiServer, kube: Kube) -> None:
    apiserver.script("GET", "/logs", (200, iter([b"one\ntwo", 15.0])))
    lines: list[bytes] = []
    begun_s = time.monotonic()
    with kube.stream("/logs", timeout_s=0.3) as stream, pytest.raises(ApiError) as broken:
        lines.extend(stream)
    assert broken.value.status == 0
    assert lines == [b"one"], "what had come whole is there, and no more"
    assert time.monotonic() - begun_s < 10


def test_lines_come_whole_however_they_are_cut(apiserver: ApiServer, kube: Kube) -> None:
    parts = [b"on", b"e\ntwo\nth", 0.02, b"ree\n", "größe\n".encode()[:4], "größe\n".encode()[4:]]
    apiserver.script("GET", "/logs", (200, iter([*parts, b"last"])))
    with kube.stream("/logs") as stream:
        assert [line.decode() for line in stream] == ["one", "two", "three", "größe", "last"]


@pytest.mark.parametrize("as_status", [True, False], ids=["refused", "told"])
def test_a_version_that_is_gone_is_told(apiserver: ApiServer, kube: Kube, as_status: bool) -> None:
    apiserver.gone_as_status = as_status
    apiserver.forget()
    if as_status:
        with pytest.raises(ApiError) as gone:
            kube.watch(PODS, version="1")
        assert gone.value.is_gone
    else:
        with kube.watch(PODS, version="1") as stream:
            events = [json.loads(line) for line in stream]
        assert [(e["type"], e["object"]["code"]) for e in events] == [("ERROR", 410)]


def test_many_threads_share_one_client(apiserver: ApiServer, kube: Kube) -> None:
    errors: list[BaseException] = []

    def work(nr: int) -> None:
        try:
            for n in range(20):
                kube.create(PODS, pod(f"p-{nr}-{n}"))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(nr,)) for nr in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(apiserver.all(PODS)) == 160


def test_the_server_s_clock_is_read(apiserver: ApiServer, kube: Kube) -> None:
    apiserver.skew_s = 100.0
    told = kube.server_time_s()
    assert told is not None
    assert 98 < told - time.time() < 101
