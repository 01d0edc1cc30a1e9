"""Measurements and the report: what CL2 would write, say and leave its shell with."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import (
    WORLD,
    Played,
    call,
    controlled,
    phase,
    play,
    query,
    sleep,
    slow,
    written,
)

from imgpull.engines.sim.declared import namespace_prefix

START = {"Start": [controlled("start")]}
WAIT = [controlled("gather")]
PULLS = 'sum(kubelet_runtime_operations_duration_seconds_count{operation_type="pull_image"})'


def items(played: Played, start: str) -> Any:
    """The data items of the one file whose name starts so."""
    [path] = played.files(start)
    return json.loads(path.read_text("utf-8"))["dataItems"]


def test_a_timer_tells_the_seconds_between_start_and_stop_by_label(tmp_path: Path) -> None:
    def timer(action: str, label: str = "") -> list[dict[str, Any]]:
        return [call("Timer", "T", action=action, **({"label": label} if label else {}))]

    steps = {"a": timer("start", "whole"), "b": [sleep("90s")], "c": timer("start", "part"),
             "d": [sleep("1500ms")], "e": timer("stop", "part") , "f": timer("stop", "whole"),
             "g": timer("gather"), "h": timer("stop", "other")}  # fmt: skip
    played = play(tmp_path, steps)
    [path] = played.files("Timer_small_2000-01-01T00:01:31Z.json")
    assert json.loads(path.read_text("utf-8")) == {
        "version": "v1",
        "dataItems": [
            {"data": {"part": 1.5, "whole": 91.5}, "unit": "s", "labels": {"test": "phases"}}
        ],
    }
    assert played.failures == ("measurement call Timer - T error: uninitialized timer other",)


def test_pod_startup_is_what_a_watch_saw_between_start_and_gather(tmp_path: Path) -> None:
    start = call("PodStartupLatency", "P", action="start", threshold="10m")
    gather = call("PodStartupLatency", "P", action="gather")
    steps = {"Early": [phase(1, "early")], "Rest": [sleep("1m")], "Start": [start],
             "Create": [phase(2)], "Settle": [sleep("1m")], "Gather": [gather],
             "Late": [phase(1, "late")], "End": [sleep("1m")]}  # fmt: skip
    played = play(tmp_path, steps)
    found = played.report.pod_startup["pod_startup"]
    took_s = [
        (pod.ready_s or math.inf) - pod.created_s
        for pod in played.pods
        if pod.request.owner.startswith("ns-1/web")
    ]
    # The pod that was there before was first seen running: it took no time.
    assert found == {
        "Perc50": pytest.approx(min(took_s)),
        "Perc90": pytest.approx(max(took_s)),
        "Perc99": pytest.approx(max(took_s)),
    }


def test_pod_startup_leaves_out_pods_of_other_labels_or_namespaces(tmp_path: Path) -> None:
    for name, params in (
        ("label", {"labelSelector": "group = x"}),
        ("space", {"namespace": "ns-2"}),
    ):
        start = call("PodStartupLatency", "P", action="start", **params)
        steps = {"Start": [start], "Create": [phase(1)], "Rest": [sleep("1m")],
                 "Gather": [call("PodStartupLatency", "P", action="gather")]}  # fmt: skip
        played = play(tmp_path / name, steps, namespaces=2)
        assert played.report.pod_startup == {}


def gathered(enabled: bool = True) -> list[dict[str, Any]]:
    return [call("GenericPrometheusQuery", "Q", action="gather", enableViolations=enabled)]


def test_a_query_is_answered_for_the_window_between_its_calls(tmp_path: Path) -> None:
    earlier = PULLS.replace(")", " offset %v)")
    steps = {"Start": [query(f"{PULLS} - ({earlier} or 0 * {PULLS})")],
             "Rest": [sleep("1m")], "Create": [phase(3)], "Settle": [sleep("2m")],
             "Gather": gathered(), "More": [phase(3, "more")], "End": [sleep("2m")]}  # fmt: skip
    played = play(tmp_path, steps)
    assert items(played, "GenericPrometheusQuery Q_") == [{"data": {"q": 3}, "unit": "1"}]
    assert played.failures == ()


def test_a_query_over_no_time_fails_after_fifteen_minutes_of_retries(tmp_path: Path) -> None:
    steps = {"Start": [query("sum(rate(kubelet_image_pull_duration_seconds_count[%v]))")],
             "Gather": [*gathered(), sleep("1s")], "After": [sleep("1s")]}  # fmt: skip
    played = play(tmp_path, steps)
    assert [case.time_s for case in played.junit.cases if case.step_name == "Gather"] == [900, 1]
    assert played.interpreter.clock_s == 901
    assert played.files("GenericPrometheusQuery") == []
    assert played.failures[0].startswith(
        "measurement call GenericPrometheusQuery - Q error: query error: the server rejected our "
        "request for an unknown reason (get services http:prometheus-k8s:9090) "
        '[body: {"status":"error","errorType":"bad_data","error":"invalid parameter \\"query\\": '
    )


def test_an_unknown_dimension_is_an_empty_label_and_a_row_of_its_own(tmp_path: Path) -> None:
    steps = {"Start": [query(PULLS, dimensions=["zone"])], "Create": [phase(1)],
             "Settle": [sleep("2m")], "Gather": gathered()}  # fmt: skip
    assert items(play(tmp_path, steps), "GenericPrometheusQuery Q_") == [
        {"data": {"q": 1}, "unit": "1", "labels": {"zone": ""}}
    ]


def test_violations_fail_a_step_only_where_they_are_enabled(tmp_path: Path) -> None:
    for enabled in (True, False):
        steps = {"Start": [query(PULLS, query_params={"threshold": 0})], "Create": [phase(1)],
                 "Settle": [sleep("2m")], "Gather": gathered(enabled)}  # fmt: skip
        played = play(tmp_path / str(enabled), steps)
        words = "Q: [q: sample above threshold: want: less or equal than 0, got: 1]"
        assert [words in text for text in played.failures] == [True] * enabled
        assert items(played, "GenericPrometheusQuery Q_")


def test_a_second_sample_of_a_row_is_told_and_judged_and_the_first_is_kept(tmp_path: Path) -> None:
    each = 'kubelet_runtime_operations_duration_seconds_count{operation_type="pull_image"}'
    steps = {"Start": [query(each, query_params={"threshold": 0})], "Create": [phase(2)],
             "Settle": [sleep("2m")], "Gather": gathered()}  # fmt: skip
    played = play(tmp_path, steps)
    above = "q: sample above threshold: want: less or equal than 0, got: 1"
    twice = "q: too many samples for []: query returned 1 and 1, expected single value."
    assert played.failures[0].endswith(f"error: Q: [{above} {twice} {above}]")
    assert items(played, "GenericPrometheusQuery Q_") == [{"data": {"q": 1}, "unit": "1"}]


# Steps and their report


def test_measurements_of_one_step_run_side_by_side(tmp_path: Path) -> None:
    long, short = sleep("60s"), call("Sleep", "Short", duration="20s")
    played = play(tmp_path, {"Both": [long, short], "Next": [sleep("1s")]})
    assert [case.time_s for case in played.junit.cases] == [60, 20, 1]
    assert played.interpreter.clock_s == 61
    assert played.junit.overall_s == 61


def test_instances_are_one_case_without_a_name_as_cl2_reports_them(tmp_path: Path) -> None:
    two = {"method": "Sleep", "instances": [
        {"identifier": "a", "params": {"duration": "5s"}},
        {"identifier": "b", "params": {"duration": "9s"}}]}  # fmt: skip
    played = play(tmp_path, {"Sleep": [two, sleep("1s")]})
    names = [(case.name.split("] ", 1)[1], case.time_s) for case in played.junit.cases]
    assert names == [("Sleep [00] - ", 9), ("Sleep [01] - Sleep", 1)]


def test_a_test_in_which_all_went_well_leaves_exit_code_0(tmp_path: Path) -> None:
    played = play(tmp_path, START | {"Create": [phase(1)], "Wait": WAIT})
    assert (played.failures, played.junit.exit_code) == ((), 0)


def test_nothing_after_the_last_step_is_told(tmp_path: Path) -> None:
    played = play(tmp_path, {"Create": [phase(1)], "Rest": [sleep("10s")]}, world=slow(60))
    [pod] = played.pods
    assert pod.attempts[0].ended_s is None
    assert pod.ready_s is None


def test_a_test_without_a_prefix_gets_one_as_cl2_makes_it_up(tmp_path: Path) -> None:
    test = {"Create": [phase(1)]}
    assert play(tmp_path / "named", test).interpreter.pods[0].namespace == "ns-1"
    bare = replace(written(tmp_path / "bare", test), namespace_prefix="")
    assert namespace_prefix(bare, WORLD) == namespace_prefix(bare, WORLD)
    assert len(namespace_prefix(bare, WORLD)) == len("test-") + 6
