"""The rows of pods.csv: which moments are exact, what order they keep, what stays of a pod."""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubelets import (
    BEGAN,
    DIGEST,
    IMAGE,
    NAMESPACE,
    NODE,
    event,
    pod,
    pulled,
    pulling,
    scheduled,
    started,
)

from imgpull.cluster.pod_lives import PodLives
from imgpull.tables import TIMES, Container, PodRow

RECORDED = Path(__file__).parent / "data" / "kube-objects" / "one-node.json"
Object = dict[str, Any]


def lives(objects: Iterable[Object], began: datetime = BEGAN) -> PodLives:
    found = PodLives(began)
    for each in objects:
        (found.take_event if each["kind"] == "Event" else found.take_pod)(each)
    return found


def row(*objects: Object) -> PodRow:
    (found,) = lives(objects).rows()
    return found


def told(row: PodRow) -> dict[str, float | None]:
    return {name: getattr(row, name) for name in TIMES}


# Real ones


def recorded() -> list[Object]:
    found = json.loads(RECORDED.read_text("utf-8"))
    return [*found["events"], *found["pods"]]


def test_a_recorded_pod_is_known_to_the_millisecond_where_events_tell() -> None:
    began = datetime(2026, 11, 23, 21, 15, 0, tzinfo=UTC)
    rows = {each.pod: each for each in lives(recorded(), began).rows()}
    big = rows["big-7bf6dbf68b-j2k7w"]
    assert told(big) == pytest.approx(
        {
            "created": 5.0, "scheduled": 5.9031, "sandbox": 6.0, "pulling": 6.147335,
            "pulled": 9.213996, "started": 9.332485, "ready": 9.332485,
        },
        abs=1e-5,
    )  # fmt: skip
    assert big.node == "node1"
    assert [each.image_id.partition("@")[2][:14] for each in big.containers] == ["sha256:9fc1014"]
    # kubelet's own clock took 3.066 s, and the two events around it as long.
    assert (big.pulled or 0) - (big.pulling or 0) == pytest.approx(3.066, abs=1e-3)
    assert rows["warm-ifnot"].pulling is None
    assert rows["warm-ifnot"].pulled is None
    assert rows["missing"].containers[0].waiting.startswith("ErrImagePull: rpc error")
    assert rows["badnm"].containers[0].waiting.startswith("InvalidImageName: Failed to apply")
    assert rows["missing"].started is None


def test_recorded_moments_contradict_nothing() -> None:
    found = lives(recorded())
    for each in found.rows():
        known = [at_s for at_s in told(each).values() if at_s is not None]
        assert known == sorted(known), each.pod
    assert (found.disordered, found.disorder_s) == (0, 0.0)


def test_the_order_in_which_objects_arrive_does_not_matter() -> None:
    expected = lives(recorded()).rows()
    assert lives(reversed(recorded())).rows() == expected
    assert lives(recorded() * 2).rows() == expected


# Moments


def test_an_event_whose_name_is_no_time_of_its_second_is_known_by_its_stamp_and_text() -> None:
    found = row(
        pod(scheduled=1.5, started=9.5),
        pulling("a", 2.75, named=False),
        pulled("a", 9.25, 6.5, 6.75, named=False),
    )
    assert (found.pulling, found.pulled) == (2.0, 9.0)  # 2 + 6.75 s, but not before its second
    within = row(pulling("a", 2.75, named=False), pulled("a", 9.1, 6.3, 7.2, named=False))
    assert within.pulled == pytest.approx(9.2)
    beyond = row(pulling("a", 2.75, named=False), pulled("a", 9.1, 6.3, 9.9, named=False))
    assert beyond.pulled == 10.0


def test_after_failures_the_answer_counts_from_the_last_time_it_was_asked_for() -> None:
    again = pulling("a", 2.75, count=3, last_s=40.2)
    found = row(again, pulled("a", 43.4, 3.1, 3.2, named=False))
    assert (found.pulling, found.pulled) == (pytest.approx(2.75), pytest.approx(43.2))


def test_a_restarted_container_that_pulls_again_does_not_move_its_first_answer() -> None:
    first = [pulling("a", 2.0), pulled("a", 5.5, 3.5), started("a", 5.75)]
    assert row(*first, pulled("a", 99.0, 0.1), pod(started=98.0)) == row(*first, pod(started=98.0))


def test_a_sandbox_is_noticed_late_and_was_there_before_the_pull() -> None:
    found = row(pod(scheduled=1.2, sandbox=3.9, started=9.0), pulling("a", 2.5))
    assert (found.sandbox, found.pulling) == (2.5, 2.5)
    present = row(pod(scheduled=1.2, sandbox=4.0, started=3.5))
    assert (present.sandbox, present.started) == (3.0, 3.0)


def test_a_stamp_may_seem_to_be_before_what_was_before_it_and_is_not() -> None:
    found = lives([pod(started=9.9, ready=9.95), pulling("a", 2.5), pulled("a", 9.5, 7.0)])
    (only,) = found.rows()
    assert (only.pulled, only.started, only.ready) == (9.5, 9.5, 9.5)
    assert found.disordered == 0


def test_clocks_that_differ_are_noticed() -> None:
    found = lives([pod(created=5.0, scheduled=5.0), pulling("a", 2.25), pulled("a", 3.25, 1.0)])
    (only,) = found.rows()
    assert (only.scheduled, only.pulling, only.pulled) == (5.0, 5.0, 5.0)
    assert (found.disordered, found.disorder_s) == (1, pytest.approx(2.75))


@given(st.lists(st.floats(0, 500), min_size=7, max_size=7), st.lists(st.booleans(), min_size=7))
def test_no_interval_is_negative_whatever_the_clocks_say(
    at_s: Sequence[float], known: Sequence[bool]
) -> None:
    created, planned, sandbox, asked, answered, begun, ready = at_s
    names = ("scheduled", "sandbox", "started", "ready")
    moments = dict(zip(names, (planned, sandbox, begun, ready), strict=True))
    moments = {name: each for (name, each), yes in zip(moments.items(), known, strict=False) if yes}
    objects = [pod(created=created, **moments)]
    objects += [scheduled("a", planned)] if known[4] else []
    objects += [pulling("a", asked)] if known[5] else []
    objects += [pulled("a", answered, 1.0)] if known[6] else []
    found = [each for each in told(row(*objects)).values() if each is not None]
    assert found == sorted(found)


@given(st.permutations(range(5)))
def test_of_a_pod_that_goes_all_that_was_seen_stays(order: Sequence[int]) -> None:
    whole = pod(image_id=f"r/big@{DIGEST}", scheduled=1.0, sandbox=2.0, started=9.0, ready=9.5)
    ended = json.loads(json.dumps(whole))
    for condition in ended["status"]["conditions"]:
        condition |= {"status": "False", "lastTransitionTime": "2026-11-23T22:00:00Z"}
    ended["status"]["containerStatuses"][0] |= {"imageID": "", "state": {"terminated": {}}}
    objects = [whole, ended, pulling("a", 2.5), pulled("a", 8.5, 6.0), started("a", 9.0)]
    expected = row(whole, *objects[2:])
    assert row(whole, *(objects[index] for index in order)) == expected


# Containers


def test_a_pod_is_started_when_all_its_containers_are() -> None:
    two = pod(started=5.0)
    two["spec"]["containers"].append({"name": "proxy", "image": "mesh:1"})
    assert row(two).started is None
    two["status"]["containerStatuses"].append(
        {
            "name": "proxy",
            "imageID": "",
            "state": {"running": {"startedAt": "2026-11-23T21:15:08Z"}},
        }
    )
    assert row(two).started == 8.0
    assert [each.name for each in row(two).containers] == ["image", "proxy"]


def test_the_first_reason_to_wait_for_an_image_is_kept_and_others_are_none() -> None:
    states: list[tuple[str, str] | None] = [
        ("ContainerCreating", ""),
        ("ErrImagePull", "429 Too Many\nRequests?sig=abc"),
        ("ImagePullBackOff", f'Back-off pulling image "{IMAGE}"'),
        None,
    ]
    found = PodLives(BEGAN)
    for waiting in states:
        found.take_pod(pod(waiting=waiting), lambda text: text.replace("abc", "REDACTED"))
    (only,) = found.rows()
    expected = "ErrImagePull: 429 Too Many Requests?sig=REDACTED"
    assert only.containers == (Container("image", IMAGE, "", expected),)


def test_a_pod_that_only_events_knew_has_a_row() -> None:
    found = row(scheduled("a", 1.25), pulling("a", 2.5), pulled("a", 8.5, 6.0))
    assert (found.namespace, found.pod, found.node, found.uid) == (NAMESPACE, "a", NODE, "uid-a")
    assert (found.created, found.scheduled, found.pulled) == (None, 1.25, 8.5)


def test_events_of_others_and_of_other_things_make_no_row() -> None:
    strange = [
        event("a", "Killing", "Stopping container image", 3.0),
        {**pulling("a", 3.0), "involvedObject": {"kind": "ReplicaSet", "name": "a", "uid": "x"}},
        {**pulling("a", 3.0), "involvedObject": {"kind": "Pod", "name": "a"}},
        {"kind": "Event"},
    ]
    assert lives(strange).rows() == []


def test_one_name_used_twice_is_two_pods() -> None:
    again = pod(created=50.0)
    again["metadata"]["uid"] = "another"
    assert [each.uid for each in lives([pod(), again]).rows()] == ["uid-a", "another"]


def test_rows_are_in_the_order_of_names() -> None:
    names = ["b", "a", "c"]
    assert [each.pod for each in lives(map(pod, names)).rows()] == sorted(names)
    for first, second in itertools.pairwise(lives(map(pod, names)).rows()):
        assert astuple(replace(first, pod="", uid="")) == astuple(replace(second, pod="", uid=""))
