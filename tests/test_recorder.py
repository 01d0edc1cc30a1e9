"""The recorder against an API server that cuts, refuses, forgets and falls silent."""

import itertools
import json
import random
import re
import runpy
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from apiserver import DROP, ApiServer, Request, wait_until
from kubelets import (
    BEGAN,
    DIGEST,
    NAMESPACE,
    event,
    pod,
    pulled,
    pulling,
    scheduled,
    started,
)

from imgpull.cluster.kube import ApiError, Kube
from imgpull.cluster.recorder import Recorder
from imgpull.engines import Subject
from imgpull.results.pull_rows import pull_rows
from imgpull.results.seen import Rates, read_events

Object = dict[str, Any]
EVENTS = f"/api/v1/namespaces/{NAMESPACE}/events"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


@contextmanager
def recording(kube: Kube, path: Path, **more: Any) -> Iterator[Recorder]:
    recorder = Recorder(kube, [NAMESPACE], path, BEGAN, **more)
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.stop(drain_s=0.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def lines(path: Path) -> list[Object]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def told(path: Path) -> Counter[tuple[str, int]]:
    return Counter((each["metadata"]["name"], each["count"]) for each in lines(path))


def heard(recorder: Recorder, count: int) -> None:
    wait_until(lambda: recorder.counts["events"] >= count, 20)


def whole_life(name: str) -> list[Object]:
    return [
        pod(name, created=1.0),
        scheduled(name, 1.25),
        pulling(name, 2.5),
        pulled(name, 8.5, 5.5, 6.0),
        started(name, 8.75),
        pod(name, image_id=f"r/big@{DIGEST}", scheduled=1.2, sandbox=2.0, started=8.75, ready=9.1),
    ]


# What is written


def test_what_was_there_before_and_what_comes_later_is_written_once(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    apiserver.put(pulling("before", 1.0))
    with recording(kube, path) as recorder:
        for each in whole_life("a"):
            apiserver.put(each)
        heard(recorder, 5)
    assert Counter(each["metadata"]["name"].split(".")[0] for each in lines(path)) == {
        "before": 1, "a": 4,
    }  # fmt: skip
    assert recorder.gaps == ()
    assert recorder.counts["found_by_the_last_list"] == 0
    kinds = {(each["apiVersion"], each["kind"]) for each in lines(path)}
    assert kinds == {("v1", "Event")}  # in a list, Kubernetes gives them none
    (row,) = (each for each in recorder.rows() if each.pod == "a")
    assert (row.pulling, row.ready) == (pytest.approx(2.5), pytest.approx(9.0))
    assert recorder.statuses()[NAMESPACE, "a"][0].image_id == f"r/big@{DIGEST}"


def test_an_event_is_written_again_when_it_is_told_again_and_not_for_anything_else(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    failed = event("a", "Failed", "Error: ErrImagePull", 3.0)
    with recording(kube, path) as recorder:
        for number, count in enumerate((1, 1, 2, 2, 3), 1):
            again = {**failed, "count": count}
            again["metadata"] = {**failed["metadata"], "labels": {"touched": str(number)}}
            apiserver.put(again)
        heard(recorder, 3)
    assert list(told(path).values()) == [1, 1, 1]
    assert [each["count"] for each in lines(path)] == [1, 2, 3]


def test_only_the_trials_namespaces_are_recorded(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    with recording(kube, path) as recorder:
        apiserver.put(pulling("stranger", 1.0, namespace="default"))
        apiserver.put(pod("stranger", namespace="default"))
        apiserver.put(pulling("a", 2.0))
        heard(recorder, 1)
    assert [each["metadata"]["namespace"] for each in lines(path)] == [NAMESPACE]
    assert [row.pod for row in recorder.rows()] == ["a"]


def test_several_namespaces_are_recorded_into_one_file(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    with Recorder(kube, ["one", "two"], path, BEGAN) as recorder:
        for namespace in ("one", "two"):
            apiserver.put(pulling("a", 2.0, namespace=namespace))
        heard(recorder, 2)
    assert {each["metadata"]["namespace"] for each in lines(path)} == {"one", "two"}


def test_credentials_and_managed_fields_never_reach_the_file(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2lnbmF0dXJlLW9mLWl0"
    secrets = ("s3cr3tSig%2Bx", token, "abcdefgh12345678", "a-token-of-the-tests")
    text = (
        f'Failed to pull image "x": GET https://blob/x?se=1&sig={secrets[0]}&sv=2: '
        f"{token} Authorization: Bearer {secrets[2]}; {secrets[3]}"
    )
    note = {"note": f"Bearer {secrets[2]}"}
    waiting = ("ErrImagePull", text)
    with recording(kube, path) as recorder:
        bad = event("a", "Failed", text, 3.0)
        bad["metadata"]["annotations"] = note
        apiserver.put(bad)
        apiserver.put(pod("a", waiting=waiting))
        heard(recorder, 1)
        wait_until(lambda: recorder.statuses().get((NAMESPACE, "a")))
    written = path.read_text("utf-8") + repr(recorder.rows())
    for secret in secrets:
        assert secret not in written
    assert "https://blob/x" in written
    assert "managedFields" not in written


# What an API server can do to a watch


@pytest.mark.parametrize("seed", range(2))
def test_connections_that_break_at_any_moment_lose_and_double_nothing(
    apiserver: ApiServer, kube: Kube, path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    pods = [f"p{number}" for number in range(30)]
    with recording(kube, path) as recorder:
        for name in pods:
            for each in whole_life(name):
                apiserver.put(each)
                if rng.random() < 0.05:
                    apiserver.break_watches()
        heard(recorder, 4 * len(pods))
        wait_until(lambda: sum(row.ready is not None for row in recorder.rows()) == len(pods), 20)
    assert set(told(path).values()) == {1}
    assert len(lines(path)) == 4 * len(pods)
    assert recorder.counts["found_by_the_last_list"] == 0
    assert recorder.counts["resumed"] > 0
    assert recorder.gaps == ()


@pytest.mark.parametrize("as_status", [True, False])
def test_versions_that_are_gone_are_listed_again_without_doubles(
    apiserver: ApiServer, kube: Kube, path: Path, as_status: bool
) -> None:
    apiserver.gone_as_status = as_status
    with recording(kube, path) as recorder:
        for number in range(2):
            apiserver.put(pulling(f"a{number}", 2.0))
            heard(recorder, 2 * number + 1)
            wait_until(lambda: apiserver.watching == 2, 20)
            lists = recorder.counts["lists"]
            # The connection goes, things happen, and what was before them is forgotten.
            apiserver.script("GET", f"{EVENTS}|{PODS}", 0.1, 0.1)
            apiserver.break_watches()
            apiserver.put(pulling(f"b{number}", 3.0))
            apiserver.forget()
            heard(recorder, 2 * number + 2)
            wait_until(lambda before=lists: recorder.counts["lists"] >= before + 2, 20)
    assert set(told(path).values()) == {1}
    assert len(lines(path)) == 4
    assert recorder.counts["found_by_the_last_list"] == 0
    assert recorder.gaps == ()  # a list so soon after finds all there was


def test_a_long_time_that_only_a_list_could_bridge_is_told(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    began = datetime.now(UTC)
    recorder = Recorder(kube, [NAMESPACE], path, began, bridged_s=0.2)
    with recorder:
        apiserver.put(pulling("a", 2.0))
        heard(recorder, 1)
        apiserver.handle("GET", EVENTS, refusal_of_watches(apiserver, until=time.monotonic() + 1.0))
        apiserver.break_watches()
        apiserver.put(pulling("b", 3.0))
        apiserver.forget()
        heard(recorder, 2)
    (gap,) = (each for each in recorder.gaps if each.startswith("events"))
    figures = re.fullmatch(
        rf"events of {NAMESPACE} were not watched for up to (\d+) s from (\d+) s on, then listed: "
        "what was made and deleted meanwhile is missing", gap,
    )  # fmt: skip
    assert figures
    assert 1 <= int(figures[1]) <= 5
    assert int(figures[2]) <= 5


def refusal_of_watches(apiserver: ApiServer, until: float) -> Callable[[Request], Any]:
    def answer(request: Request) -> Any:
        refused = request.query.get("watch") and time.monotonic() < until
        return (503, {"message": "wait"}, {"Retry-After": "0"}) if refused else None

    return answer


@pytest.mark.parametrize(
    "reply", [(429, {}, {"Retry-After": "0"}), (503, {}, {"Retry-After": "0"}), DROP, (200, "no")]
)
def test_a_refusal_that_passes_only_delays(
    apiserver: ApiServer, kube: Kube, path: Path, reply: Any
) -> None:
    apiserver.put(pulling("a", 2.0))
    apiserver.script("GET", EVENTS, reply)
    apiserver.script("GET", PODS, reply)
    with recording(kube, path) as recorder:
        apiserver.script("GET", EVENTS, reply)
        apiserver.break_watches()
        apiserver.put(pulling("b", 3.0))
        heard(recorder, 2)
    assert len(lines(path)) == 2
    assert recorder.gaps == ()


def test_a_line_cut_in_two_is_heard_whole_afterwards(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    torn = json.dumps({"type": "ADDED", "object": pulling("torn", 1.0)}).encode()[:99]
    halves = iter([(200, (torn, DROP)), (200, (b'{"type":"ADDED"}\n',)), (200, (b"\n",))])

    def answer(request: Request) -> Any:
        return next(halves, None) if request.query.get("watch") else None

    apiserver.handle("GET", EVENTS, answer)
    with recording(kube, path) as recorder:
        apiserver.put(pulling("a", 2.0))
        heard(recorder, 1)
    assert [each["involvedObject"]["name"] for each in lines(path)] == ["a"]
    assert recorder.gaps == ()


def test_what_a_mute_watch_did_not_bring_the_last_list_finds(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    def mute(request: Request) -> Any:
        return (200, (0.3,)) if request.query.get("watch") else None

    apiserver.handle("GET", f"{EVENTS}|{PODS}", mute)
    with recording(kube, path) as recorder:
        for each in whole_life("a"):
            apiserver.put(each)
    time.sleep(0.4)  # the server is done with its watches
    assert len(lines(path)) == 4
    assert recorder.counts["found_by_the_last_list"] == 4
    assert [row.ready for row in recorder.rows()] == [pytest.approx(9.0)]


def test_a_trial_does_not_begin_where_events_may_not_be_watched(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    apiserver.deny("list", "events")
    with pytest.raises(ApiError, match="403"):
        Recorder(kube, [NAMESPACE], path, BEGAN).start()
    wait_until(lambda: not any("watch " in each.name for each in threading.enumerate()))


def test_what_goes_wrong_later_is_told_and_raised_by_nobody(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    with recording(kube, path) as recorder:
        apiserver.put(pulling("a", 2.0))
        heard(recorder, 1)
        apiserver.deny("*", "events")
        apiserver.break_watches()
        apiserver.put(pulling("b", 3.0))
    assert len(lines(path)) == 1
    (gap,) = recorder.gaps
    assert gap.startswith(f"events of {NAMESPACE} could not be listed once more at the end (")
    assert "403" in gap


def test_an_object_of_a_strange_shape_is_passed_over_and_told(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    with recording(kube, path) as recorder:
        strange = pulling("a", 2.0)
        strange["involvedObject"] = ["no", "mapping"]
        apiserver.put(strange)
        apiserver.put(pulling("b", 2.0))
        heard(recorder, 2)
    assert any(
        gap.startswith(f"events of {NAMESPACE} could not be recorded") for gap in recorder.gaps
    )
    assert [row.pod for row in recorder.rows()] == ["b"]


# Begin and end


def test_the_watch_is_open_before_start_returns(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    apiserver.script("GET", EVENTS, 0.4)
    with recording(kube, path):
        asked = [(each.path, each.query.get("watch")) for each in apiserver.requests]
        assert {(EVENTS, "true"), (PODS, "true")} <= set(asked)
        wait_until(lambda: apiserver.watching == 2)


def test_late_events_are_waited_for_while_they_come(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    recorder = Recorder(kube, [NAMESPACE], path, BEGAN)
    recorder.start()
    late = threading.Thread(target=trickle, args=(apiserver, 3, 0.7))
    late.start()
    recorder.stop(drain_s=20.0)
    written = len(lines(path))
    late.join()
    assert written == 3
    assert recorder.counts["found_by_the_last_list"] == 0


def trickle(apiserver: ApiServer, count: int, pause_s: float) -> None:
    for number in range(count):
        time.sleep(pause_s)
        apiserver.put(pulling(f"late{number}", 2.0))


def test_what_never_falls_quiet_is_waited_for_no_longer_than_asked(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    recorder = Recorder(kube, [NAMESPACE], path, BEGAN)
    recorder.start()
    over = threading.Event()

    def trickle_on() -> None:
        for number in itertools.count():
            if over.wait(0.3):
                return
            apiserver.put(pulling(f"late{number}", 2.0))

    late = threading.Thread(target=trickle_on)
    late.start()
    begun_s = time.monotonic()
    recorder.stop(drain_s=1.0)
    assert time.monotonic() - begun_s >= 1.0
    over.set()  # only now it falls quiet
    late.join()


def test_pods_and_events_that_are_deleted_stay_recorded(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    with recording(kube, path) as recorder:
        for each in whole_life("a"):
            apiserver.put(each)
        heard(recorder, 4)
        wait_until(lambda: recorder.rows()[0].ready)
        kube.delete(f"/api/v1/namespaces/{NAMESPACE}")
        wait_until(lambda: not apiserver.all(PODS))
    assert len(lines(path)) == 4
    assert [row.ready is not None for row in recorder.rows()] == [True]
    assert recorder.gaps == ()


def test_leaving_by_an_exception_ends_the_watches_at_once(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    def trial() -> None:
        with Recorder(kube, [NAMESPACE], path, BEGAN):
            apiserver.deny("list", "*")
            raise KeyboardInterrupt

    begun_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        trial()
    assert time.monotonic() - begun_s < 20
    wait_until(lambda: apiserver.watching == 0)
    assert not any("watch " in each.name for each in threading.enumerate())


def test_stopping_twice_is_stopping_once(apiserver: ApiServer, kube: Kube, path: Path) -> None:
    with Recorder(kube, [NAMESPACE], path, BEGAN) as recorder:
        apiserver.put(pulling("a", 2.0))
        recorder.stop(drain_s=0.0)
        recorder.stop(drain_s=0.0)
    assert len(lines(path)) == 1


# Size


@pytest.mark.slow
def test_ten_thousand_pods_lose_nothing_and_take_less_than_300_mib() -> None:
    """Connections break and versions are forgotten meanwhile: see the benchmark."""
    benchmark = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "recorder.py"))
    found = benchmark["measure"](10_000)
    assert (found["events"], found["missing"], found["doubled"]) == (50_000, 0, 0)
    assert found["peak_mib"] < 300
    assert all("were not watched for up to" in gap for gap in found["gaps"])  # a slow machine


# Who reads it


def test_results_know_a_pod_whose_events_were_lost_from_its_status(
    apiserver: ApiServer, kube: Kube, path: Path
) -> None:
    with recording(kube, path) as recorder:
        for each in whole_life("a"):
            apiserver.put(each)
        apiserver.put(whole_life("b")[-1])
        heard(recorder, 4)
    found = pull_rows(
        read_events(path), recorder.rows(), Rates({}), Subject("c", "x", {}), started_at=BEGAN
    )
    rows = {row.pod: row for row in found}
    assert (rows["a"].source, rows["a"].outcome, rows["a"].pull_s) == ("event", "pulled", 5.5)
    assert rows["a"].wait_s == pytest.approx(0.5)
    assert (rows["b"].source, rows["b"].outcome, rows["b"].pull_s) == ("status", "unknown", None)
    assert rows["a"].digest == rows["b"].digest == DIGEST
