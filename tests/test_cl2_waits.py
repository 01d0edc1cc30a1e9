"""CL2's waits: when each looks, when it gives up, and what it says then."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import (
    WORLD,
    call,
    controlled,
    phase,
    play,
    sleep,
    slow,
    template,
)

from imgpull.engines.sim.lives import status
from imgpull.simcluster import Faults

START = {"Start": [controlled("start")]}
WAIT = [controlled("gather")]


def test_a_wait_looks_each_five_seconds_from_when_the_deployment_was_seen(tmp_path: Path) -> None:
    played = play(tmp_path, START | {"Create": [phase(1)], "Wait": WAIT})
    [pod] = played.pods
    seen_s = WORLD.rates.api_call_s
    assert pod.ready_s is not None
    ended_s = played.interpreter.clock_s
    looks = (ended_s - seen_s) / 5
    assert looks == pytest.approx(round(looks), abs=1e-6)
    assert ended_s - 5 < pod.ready_s <= ended_s


def test_a_wait_takes_one_look_even_if_all_is_done(tmp_path: Path) -> None:
    steps = START | {"Create": [phase(1)], "Rest": [sleep("5m")], "Wait": WAIT}
    assert play(tmp_path, steps).took_s("Wait") == 5


def test_the_time_of_an_operation_runs_from_its_creation_and_not_from_the_gather(
    tmp_path: Path,
) -> None:
    late = {"Start": [controlled("start", operationTimeout="60s")], "Create": [phase(1)]}
    played = play(tmp_path, late | {"Rest": [sleep("50s")], "Wait": WAIT}, world=slow(300))
    begun_s = played.took_s("Create") + 50
    assert played.took_s("Wait") == pytest.approx(WORLD.rates.api_call_s + 60 - begun_s)
    whole = "measurement call WaitForControlledPodsRunning - Wait error: "
    assert played.failures == (whole + "1 objects timed out: Deployments: ns-1/web-0",)
    [failed] = played.report.failed_pods
    assert (failed.status, failed.controlled_by) == ("PendingScheduled", "ns-1/web-0")
    assert failed.host in WORLD.node_names


def test_later_steps_run_after_a_wait_in_vain_and_it_stays_timed_out(tmp_path: Path) -> None:
    steps = {"Start": [controlled("start", operationTimeout="30s")], "Create": [phase(1)],
             "Wait": WAIT, "Rest": [sleep("10m")], "Wait again": WAIT}  # fmt: skip
    played = play(tmp_path, steps, world=slow(60))
    assert played.pods[0].ready_s is not None
    failed = [case.step_name for case in played.junit.cases if case.failures]
    assert failed == ["Wait", "Wait again"]


def test_a_deletion_is_waited_for_until_the_last_pod_is_gone(tmp_path: Path) -> None:
    slow_to_go = template("Seconds: 1", "Seconds: 42")
    steps = START | {"Create": [phase(2)], "Run": WAIT, "Delete": [phase(0)], "Gone": WAIT}
    played = play(tmp_path, steps, deployment=slow_to_go)
    assert played.failures == ()
    assert played.took_s("Gone") == pytest.approx(45, abs=0.1)
    assert all(status(pod, played.interpreter.clock_s) is None for pod in played.pods)


def test_a_deletion_that_takes_too_long_names_the_terminating_pods(tmp_path: Path) -> None:
    steps = {"Start": [controlled("start", operationTimeout="30s")], "Create": [phase(1)],
             "Run": WAIT, "Delete": [phase(0)], "Gone": WAIT}  # fmt: skip
    played = play(tmp_path, steps, deployment=template("Seconds: 1", "Seconds: 100"))
    assert "1 objects timed out: Deployments: ns-1/web-0" in played.failures[0]
    assert [pod.status for pod in played.report.failed_pods] == ["Terminating"]
    assert played.interpreter.pods[0].grace_s == 100  # of all namespaces the API deletes nothing


def test_what_is_not_gone_in_time_is_deleted_without_grace_in_a_namespace(tmp_path: Path) -> None:
    start = controlled("start", operationTimeout="30s", namespace="ns-1")
    steps = {"Start": [start], "Create": [phase(2)], "Run": WAIT, "Delete": [phase(1)],
             "Gone": WAIT, "Rest": [sleep("30s")]}  # fmt: skip
    played = play(tmp_path, steps, deployment=template("Seconds: 1", "Seconds: 100"))
    kept, deleted, again = played.pods
    assert "1 objects timed out" in played.failures[0]
    assert deleted.gone_s is not None
    assert deleted.gone_s < played.interpreter.clock_s - 29
    # It selects the other Deployment's pods too; their ReplicaSet replaces them.
    assert kept.gone_s is not None
    assert again.request.owner == kept.request.owner
    assert again.ready_s is not None


def test_controllers_of_other_namespaces_make_a_wait_in_one_namespace_time_out(
    tmp_path: Path,
) -> None:
    steps = {"Start": [controlled("start", namespace="ns-1")], "Create": [phase(1, namespaces=2)],
             "Wait": WAIT}  # fmt: skip
    played = play(tmp_path, steps, namespaces=2)
    words = "timed out while waiting for controlled pods: timed out waiting for the condition"
    assert words in played.failures[0]
    assert played.took_s("Wait") == 60


def test_what_was_deleted_before_the_watch_began_is_not_waited_for(tmp_path: Path) -> None:
    steps = {
        "Create": [phase(1)],
        "Rest": [sleep("1m")],
        "Delete": [phase(0)],
        **START,
        "Gone": WAIT,
    }
    played = play(tmp_path, steps, deployment=template("Seconds: 1", "Seconds: 100"))
    assert played.took_s("Gone") == 5
    assert played.pods[0].gone_s is None


def test_a_look_that_would_come_at_the_deadline_comes_too_late(tmp_path: Path) -> None:
    wait = call("WaitForNodes", minDesiredNodeCount=3, maxDesiredNodeCount=3, timeout="30s")
    assert len(play(tmp_path, {"Wait": [wait]}).failures) == 1


def test_a_patch_restarts_the_clock_of_its_deployment_alone(tmp_path: Path) -> None:
    world = replace(slow(20), node_names=("n0",), node=replace(WORLD.node, max_pods=2))
    start = controlled("start", operationTimeout="60s")
    steps = {"Start": [start], "Create": [phase(1, replicas=2)],
             "Rest": [sleep("50s")], "Grow": [phase(1, replicas=3)], "Wait": WAIT}  # fmt: skip
    played = play(tmp_path, steps, world=world)
    assert played.took_s("Wait") == pytest.approx(60, abs=0.1)
    assert [pod.status for pod in played.report.failed_pods] == ["PendingNotScheduled"]


def test_a_margin_lets_the_last_pods_be_missing(tmp_path: Path) -> None:
    world = replace(WORLD, node_names=("n0",), node=replace(WORLD.node, max_pods=3))
    for margin, failed in (("0", 1), ("1", 0)):
        start = controlled("start", countErrorMargin=margin, operationTimeout="60s")
        steps = {"Start": [start], "Create": [phase(1, replicas=4)], "Wait": WAIT}
        assert len(play(tmp_path / margin, steps, world=world).failures) == failed


# Waiting for running pods and nodes


def test_running_pods_are_counted_by_their_own_labels_at_each_look(tmp_path: Path) -> None:
    wait = call(
        "WaitForRunningPods", desiredPodCount=3, labelSelector="group = g", refreshInterval="7s"
    )
    played = play(tmp_path, {"Create": [phase(3)], "Wait": [wait]})
    assert played.failures == ()
    assert played.took_s("Wait") % 7 == 0
    last_s = max(pod.ready_s or math.inf for pod in played.pods)
    assert last_s <= played.interpreter.clock_s < last_s + 7


def test_running_pods_that_do_not_come_are_summed_up_in_cl2s_words(tmp_path: Path) -> None:
    wait = call("WaitForRunningPods", desiredPodCount=2, labelSelector="group = g", timeout="30s")
    played = play(tmp_path, {"Create": [phase(1)], "Wait": [wait]})
    assert played.took_s("Wait") == 30
    assert played.failures == (
        "measurement call WaitForRunningPods - WaitForRunningPods error: got context deadline "
        "exceeded while waiting for 2 pods to be running in labelSelector(group = g) - summary of "
        "pods : Pods: 1 created, 2 desired, 1 running (1 updated), 0 pending scheduled, 0 not "
        "scheduled, 0 inactive, 0 terminating, 0 unknown, 0 runningButNotReady ",
    )


def test_pods_that_are_going_still_count(tmp_path: Path) -> None:
    wait = call("WaitForRunningPods", desiredPodCount=1, timeout="5m")
    steps = {"Create": [phase(2)], "Rest": [sleep("1m")], "Delete": [phase(1)], "Wait": [wait]}
    played = play(tmp_path, steps, deployment=template("Seconds: 1", "Seconds: 33"))
    assert played.failures == ()
    assert played.took_s("Wait") == 35


def test_a_fatal_wait_ends_the_test_and_keeps_what_was_gathered(tmp_path: Path) -> None:
    wait = call("WaitForRunningPods", desiredPodCount=9, timeout="20s", isFatal=True)
    timer = [call("Timer", "T", action=action, label="all") for action in ("start", "stop")]
    steps = {
        "Time": [timer[0]], "Stop": [timer[1]], "Tell": [call("Timer", "T", action="gather")],
        "Wait": [wait, call("Sleep", "Beside", duration="40s")],
        "Never": [phase(1)],
    }  # fmt: skip
    played = play(tmp_path, steps)
    assert [case.step_name for case in played.junit.cases] == [
        "Time",
        "Stop",
        "Tell",
        "Wait",
        "Wait",
    ]
    assert (
        played.failures[0]
        .split(" error: ", 1)[1]
        .startswith(
            "criticl error: got context deadline exceeded while waiting for 9 pods to be running "
            "in everything - summary of pods : Pods: 0 created, 9 desired, "
        )
    )
    assert played.interpreter.clock_s == 40  # what runs beside it is waited for
    assert len(played.files("Timer_")) == 1
    assert played.interpreter.pods == []
    assert played.junit.exit_code == 1


def test_nodes_are_waited_for_and_a_lost_one_is_not_ready_any_more(tmp_path: Path) -> None:
    wait = call("WaitForNodes", minDesiredNodeCount=3, maxDesiredNodeCount=3, timeout="100s")
    steps = {"Before": [wait], "Rest": [sleep("5m")], "After": [wait]}
    played = play(tmp_path, steps, world=replace(WORLD, faults=Faults(lost_nodes=1, lost_s=60.0)))
    assert (played.took_s("Before"), played.took_s("After")) == (30, 100)
    assert played.failures == (
        "measurement call WaitForNodes - WaitForNodes error: timeout while waiting for [3-3] Nodes "
        "with selector 'everything' to be ready - currently there is 2 Nodes",
    )
