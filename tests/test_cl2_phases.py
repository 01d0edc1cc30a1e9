"""Declared objects: what a phase creates, patches and deletes, and when, as CL2 does."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from bundles import (
    WORLD,
    Played,
    controlled,
    phase,
    play,
    sleep,
    slow,
)

START = {"Start": [controlled("start")]}
WAIT = [controlled("gather")]


def alive(played: Played) -> Counter[str]:
    """Pods that were not deleted, by Deployment."""
    return Counter(pod.owner for pod in played.interpreter.pods if pod.deleted_s == math.inf)


def test_a_phase_creates_what_is_missing_and_deletes_what_is_too_much(tmp_path: Path) -> None:
    played = play(tmp_path, {"Two": [phase(2)], "Four": [phase(4)], "One": [phase(1)]})
    asked = Counter(pod.owner for pod in played.interpreter.pods)
    assert asked == {f"ns-1/web-{index}": 1 for index in range(4)}
    assert alive(played) == {"ns-1/web-0": 1}


def test_namespaces_and_basenames_are_counted_apart(tmp_path: Path) -> None:
    steps = {
        "Both": [phase(1, "a", namespaces=2), phase(2, "b")],
        "Less": [phase(0, "a")],
    }
    played = play(tmp_path, steps, namespaces=2)
    assert alive(played) == {"ns-2/a-0": 1, "ns-1/b-0": 1, "ns-1/b-1": 1}


def test_all_namespaces_are_one_list_of_actions_at_the_pace_of_the_set(tmp_path: Path) -> None:
    sets = {"Slow": {"qpsLoad": {"qps": 1}}}
    steps = {"Create": [phase(2, namespaces=2, tuning_set="Slow")]}
    played = play(tmp_path, steps, namespaces=2, sets=sets)
    asked = [(pod.owner, pod.owner_created_s) for pod in played.interpreter.pods]
    names = ("ns-1/web-0", "ns-1/web-1", "ns-2/web-0", "ns-2/web-1")
    assert asked == [(name, float(at_s)) for at_s, name in enumerate(names)]
    assert played.took_s("Create") == 4


def test_the_objects_of_a_bundle_follow_each_other_within_one_action(tmp_path: Path) -> None:
    sets = {"Slow": {"qpsLoad": {"qps": 1}}}
    played = play(tmp_path, {"Create": [phase(2, "a", "b", tuning_set="Slow")]}, sets=sets)
    asked = [(pod.owner, round(pod.owner_created_s, 6)) for pod in played.interpreter.pods]
    call_s = WORLD.rates.api_call_s
    assert asked == [
        ("ns-1/a-0", 0), ("ns-1/b-0", call_s), ("ns-1/a-1", 1), ("ns-1/b-1", 1 + call_s),
    ]  # fmt: skip


def test_a_bundle_is_deleted_in_the_opposite_order(tmp_path: Path) -> None:
    steps = {"Create": [phase(1, "a", "b")], "Delete": [phase(0, "a", "b")]}
    first, second = play(tmp_path, steps).interpreter.pods
    assert first.owner == "ns-1/a-0"
    assert first.deleted_s == pytest.approx(second.deleted_s + WORLD.rates.api_call_s)


def test_phases_of_one_step_run_side_by_side(tmp_path: Path) -> None:
    sets = {"Slow": {"qpsLoad": {"qps": 1}}}
    steps = {"Create": [phase(3, "a", tuning_set="Slow"), phase(2, "b", tuning_set="Slow")]}
    played = play(tmp_path, steps, sets=sets)
    assert played.took_s("Create") == 3
    assert [pod.owner_created_s for pod in played.interpreter.pods] == [0, 0, 1, 1, 2]


def test_parallelism_limited_load_lasts_as_long_as_its_calls(tmp_path: Path) -> None:
    sets = {"Two": {"parallelismLimitedLoad": {"parallelismLimit": 2}}}
    played = play(tmp_path, {"Create": [phase(5, tuning_set="Two")]}, sets=sets)
    assert played.took_s("Create") == pytest.approx(3 * WORLD.rates.api_call_s)


def test_bundles_of_unequal_counts_are_an_error_in_cl2s_words_and_nothing_is_done(
    tmp_path: Path,
) -> None:
    played = play(tmp_path, {"One": [phase(3, "a")], "Both": [phase(1, "a", "b")]})
    assert played.failures == ("bundle error: b has 0 replicas while a has 3",)
    assert alive(played).total() == 3
    assert played.junit.exit_code == 1
    assert played.took_s("Both") == 0


def test_equal_counts_patch_and_an_equal_patch_changes_nothing(tmp_path: Path) -> None:
    once = play(tmp_path / "once", {"Create": [phase(2)]})
    again = play(tmp_path / "again", {"Create": [phase(2)], "Again": [phase(2)]})
    assert once.interpreter.pods == again.interpreter.pods


def test_a_patch_with_more_replicas_adds_pods_from_then_on(tmp_path: Path) -> None:
    steps = {"Create": [phase(1)], "Rest": [sleep("60s")], "Grow": [phase(1, replicas=3)]}
    played = play(tmp_path, steps | {"Settle": [sleep("60s")]})
    call_s = WORLD.rates.api_call_s  # a patch reads the object first
    grown_s = played.took_s("Create") + 60 + call_s
    asked = [pod.owner_created_s for pod in played.interpreter.pods]
    assert asked == [0, pytest.approx(grown_s), pytest.approx(grown_s)]
    assert all(pod.ready_s is not None for pod in played.pods)


def test_a_patch_with_fewer_replicas_takes_pods_that_are_not_ready_first(tmp_path: Path) -> None:
    world = replace(slow(120), node_names=("n0",), node=replace(WORLD.node, max_pods=2))
    steps = {
        "Create": [phase(1, replicas=2)],
        "Rest": [sleep("10m")],
        "Grow": [phase(1, replicas=4)],  # for whom there is no room
        "Settle": [sleep("1m")],
        "Shrink": [phase(1, replicas=2)],
        "End": [sleep("1m")],
    }
    played = play(tmp_path, steps, world=world)
    deleted = [pod.index for pod in played.interpreter.pods if pod.deleted_s < math.inf]
    assert deleted == [2, 3]


def test_of_ready_pods_the_one_on_a_shared_node_goes_first_and_then_the_young(
    tmp_path: Path,
) -> None:
    steps = {
        "Create": [phase(1, replicas=4)],
        "Rest": [sleep("1m")],
        "Shrink": [phase(1, replicas=3)],
    }
    played = play(tmp_path / "a", steps)
    nodes = Counter(pod.node for pod in played.pods)
    [gone] = [pod for pod in played.pods if pod.request.deleted_s < math.inf]
    assert nodes[gone.node] == 2
    steps = {"Create": [phase(1)], "Rest": [sleep("1h")], "Grow": [phase(1, replicas=3)],
             "Settle": [sleep("1m")], "Shrink": [phase(1)]}  # fmt: skip
    played = play(tmp_path / "b", steps)
    assert [pod.index for pod in played.interpreter.pods if pod.deleted_s == math.inf] == [0]


def test_pods_that_were_never_created_are_the_first_to_be_given_up(tmp_path: Path) -> None:
    world = replace(WORLD, rates=replace(WORLD.rates, controller_pods_s=1, controller_burst=2))
    steps = {
        "Create": [phase(1, replicas=9)],
        "Shrink": [phase(1, replicas=1)],
        "End": [sleep("5m")],
    }
    played = play(tmp_path, steps, world=world)
    assert [pod.request.index for pod in played.pods if pod.ready_s] == [0]
    assert len(played.pods) < 9


def test_a_deployment_created_again_is_another_with_pods_of_its_own(tmp_path: Path) -> None:
    steps = START | {
        "Create": [phase(1)],
        "Wait": WAIT,
        "Delete": [phase(0)],
        "Create again": [phase(1)],  # while the first one's pods are still going
        "Wait again": WAIT,
    }
    played = play(tmp_path, steps)
    first, second = played.interpreter.pods
    assert first.deleted_s <= second.owner_created_s
    assert first.owner != second.owner
    assert first.name != second.name
    assert first.name.rsplit("-", 1)[0] == second.name.rsplit("-", 1)[0]  # one ReplicaSet's hash
    assert played.failures == ()
    assert played.pods[1].ready_s is not None


def test_waves_of_pods_pull_again_what_is_not_on_the_node(tmp_path: Path) -> None:
    world = replace(WORLD, node_names=("n0",))
    waves = {f"{verb} {wave}": step for wave in "abc" for verb, step in (
        ("Create", [phase(2)]), ("Run", WAIT), ("Delete", [phase(0)]), ("Gone", WAIT))}  # fmt: skip
    played = play(tmp_path, START | waves, world=world)
    assert played.failures == ()
    assert len(played.pods) == 6
    assert all(pod.gone_s is not None for pod in played.pods)
    assert [pod.present_s is not None for pod in played.pods].count(True) == 4
