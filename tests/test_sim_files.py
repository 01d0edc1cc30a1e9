"""The files of a simulated trial: what its events say, count and leave out, its pods and series."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgpull import pulls
from imgpull.engines.sim import files
from imgpull.simcluster.model import (
    Attempt,
    Containerd,
    Faults,
    Kubelet,
    Layer,
    Node,
    NodeTrace,
    PodRequest,
    PodTrace,
    Rates,
    Registry,
    Segment,
    Trace,
    World,
)

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
IMAGE = "registry.example/image:1"
RECORDED = Path(__file__).parent / "data" / "kube-events"
WORLD = World(
    node_names=("node-0",),
    node=Node(4, 16 * 10**9, 1e9, 1e9, 110),
    registry=Registry(1e9, 1e9, 0.05),
    kubelet=Kubelet("1.36.2"),
    containerd=Containerd("2.1.9"),
    rates=Rates(*[1.0] * len(Rates.__dataclass_fields__)),
    images={IMAGE: (Layer("sha256:a", 264_056_486, 525_000_000),)},
    seed=7,
    trial=1,
)
Event = dict[str, Any]
Written = Callable[..., list[Event]]


def pod(*attempts: Attempt, index: int = 0, **moments: float | None) -> PodTrace:
    """On node-0 from the second second on; it runs if its last attempt worked."""
    done_s = attempts[-1].ended_s if attempts and attempts[-1].worked else moments.get("present_s")
    plain: dict[str, float | None] = {"scheduled_s": 2.25, "synced_s": 2.3, "sandbox_s": 3.0}
    if done_s is not None:
        plain |= {"container_s": done_s + 0.1, "started_s": done_s + 0.2, "ready_s": done_s + 0.5}
    request = PodRequest(index, "ns", f"pull-0-x-{index}", "ns/pull-0", 1.0, IMAGE)
    return PodTrace(
        request, created_s=2.0, node="node-0", attempts=[*attempts], **(plain | moments)
    )


def failed(asked_s: float, error: str = "not found") -> Attempt:
    return Attempt(asked_s, asked_s, asked_s + 0.5, error)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """The events that a trial of these pods leaves."""

    def write(*pods: PodTrace, world: World = WORLD, node: NodeTrace = NodeTrace()) -> list[Event]:  # noqa: B008
        path = tmp_path / "events.jsonl"
        files.write_events(path, world, Trace(pods, {"node-0": node}), EPOCH)
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    return write


def said(events: list[Event]) -> list[tuple[str, str, str]]:
    return [(event["type"], event["reason"], event["message"]) for event in events]


# ----------------------------------------------------------------------------------- words


def test_a_pull_that_worked_is_told_from_scheduling_to_start(written: Written) -> None:
    assert said(written(pod(Attempt(3.0, 3.5, 6.566)))) == [
        ("Normal", "Scheduled", "Successfully assigned ns/pull-0-x-0 to node-0"),
        ("Normal", "Pulling", f'Pulling image "{IMAGE}"'),
        ("Normal", "Pulled", f'Successfully pulled image "{IMAGE}" in 3.066s (3.566s including '
         "waiting). Image size: 264056486 bytes."),
        ("Normal", "Created", "Container created"),
        ("Normal", "Started", "Container started"),
    ]  # fmt: skip


def test_a_pull_that_failed_is_told_in_four_events_of_one_second(written: Written) -> None:
    events = written(pod(failed(3.0, "rpc error: code = NotFound")))[1:]
    assert said(events) == [
        ("Normal", "Pulling", f'Pulling image "{IMAGE}"'),
        ("Warning", "Failed", f'Failed to pull image "{IMAGE}": rpc error: code = NotFound'),
        ("Warning", "Failed", "Error: ErrImagePull"),
        ("Normal", "BackOff", f'Back-off pulling image "{IMAGE}"'),
        ("Warning", "Failed", "Error: ImagePullBackOff"),
    ]
    assert {event["lastTimestamp"] for event in events} == {"2000-01-01T00:00:03Z"}


def test_an_image_that_was_there_is_not_pulled(written: Written) -> None:
    reasons = [event["reason"] for event in written(pod(present_s=3.0))]
    assert reasons == ["Scheduled", "Pulled", "Created", "Started"]


@pytest.mark.parametrize(
    ("version", "created", "started", "present"),
    [
        ("1.30.0", "Created container image", "Started container image", ""),
        ("1.34.2", "Created container: image", "Started container image", ""),
        ("v1.35.0", "Container created", "Container started", " and can be accessed by the pod"),
    ],
)
def test_words_follow_the_version_of_kubelet(
    written: Written, version: str, created: str, started: str, present: str
) -> None:
    world = replace(WORLD, kubelet=Kubelet(version))
    assert [message for _, _, message in said(written(pod(present_s=3.0), world=world))[1:]] == [
        f'Container image "{IMAGE}" already present on machine{present}', created, started
    ]  # fmt: skip


def test_every_text_is_one_that_a_kubelet_1_36_wrote(written: Written) -> None:
    def known(events: list[Event]) -> set[tuple[str, str, str]]:
        """Texts without what differs: images, durations, sizes, errors, names."""
        shapes = set()
        for kind, reason, message in said(events):
            told = pulls.parse_message(reason, message)
            words = told.kind if told else message.split(" ns/")[0].split(" default/")[0]
            shapes.add((kind, reason, words.removesuffix(" image").removesuffix(" c")))
        return shapes

    real = [event for path in RECORDED.glob("*.json") for event in json.loads(path.read_text())]
    killed = replace(pod(Attempt(3.0, 3.0, 4.0), index=1), stopped_s=60.0)
    events = written(pod(failed(3.0)), killed, pod(present_s=3.0, index=2))
    assert known(real) >= known(events)


# ---------------------------------------------------------------------------------- shapes


def test_kubelet_stamps_whole_seconds_and_the_scheduler_microseconds(written: Written) -> None:
    scheduled, pulling = written(pod(Attempt(3.75)))
    assert scheduled["eventTime"] == "2000-01-01T00:00:02.250000Z"
    assert scheduled["firstTimestamp"] is scheduled["lastTimestamp"] is None
    assert pulling["firstTimestamp"] == pulling["lastTimestamp"] == "2000-01-01T00:00:03Z"
    assert pulling["eventTime"] is None
    assert pulling["involvedObject"]["fieldPath"] == "spec.containers{image}"


def test_every_event_says_that_it_is_simulated(written: Written) -> None:
    for event in written(pod(failed(3.0), Attempt(14.0, 14.0, 20.0))):
        assert event["reportingComponent"].endswith("-simulated")
        assert event["source"]["component"] == event["reportingComponent"]


def test_what_is_told_again_is_the_same_event_with_a_higher_count(written: Written) -> None:
    events = written(pod(failed(3.0), failed(14.0), Attempt(35.0, 35.0, 40.0)))
    pulling = [event for event in events if event["reason"] == "Pulling"]
    assert [event["count"] for event in pulling] == [1, 2, 3]
    assert len({event["metadata"]["name"] for event in pulling}) == 1
    assert {event["firstTimestamp"] for event in pulling} == {"2000-01-01T00:00:03Z"}
    assert [event["lastTimestamp"][-3:] for event in pulling] == ["03Z", "14Z", "35Z"]
    names = {event["metadata"]["name"] for event in events}
    assert len(names) == len(set(said(events)))  # those of one moment too


def test_a_restarted_kubelet_has_forgotten_what_it_told(written: Written) -> None:
    attempts = pod(failed(3.0), failed(40.0))
    events = written(attempts, node=NodeTrace(restarted_s=30.0))
    pulling = [event for event in events if event["reason"] == "Pulling"]
    assert [event["count"] for event in pulling] == [1, 1]
    assert len({event["metadata"]["name"] for event in pulling}) == 2


@pytest.mark.parametrize(("stopped_s", "killed"), [(61.0, True), (4.5, False), (None, False)])
def test_a_running_container_is_killed_when_its_pod_is_deleted(
    written: Written, stopped_s: float | None, killed: bool
) -> None:
    events = written(replace(pod(Attempt(3.0, 3.0, 4.0)), stopped_s=stopped_s))
    killing = [event for event in events if event["reason"] == "Killing"]
    assert [event["message"] for event in killing] == ["Stopping container image"] * killed
    assert all(event["lastTimestamp"] == "2000-01-01T00:01:00Z" for event in killing)


# ------------------------------------------------------------------------- spam and losses


def test_kubelet_says_no_more_than_25_things_of_a_kind_at_once_about_a_pod(
    written: Written,
) -> None:
    attempts = [failed(3.0 + 0.01 * n) for n in range(20)]
    events = written(pod(*attempts), pod(*attempts, index=1))
    kubelets = [event for event in events if event["reason"] != "Scheduled"]
    told = Counter((event["involvedObject"]["name"], event["type"]) for event in kubelets)
    assert set(told.values()) == {25}  # of 40 Normal (Pulling, BackOff) and 60 Warning
    assert len(told) == 4


def test_budgets_are_refilled_by_one_in_five_minutes(written: Written) -> None:
    attempts = [failed(3.0 + 0.01 * n) for n in range(20)]
    late = [failed(400.0), failed(700.0), failed(701.0)]
    events = written(pod(*attempts, *late))
    after = [event for event in events if (event["lastTimestamp"] or "") > "2000-01-01T00:01:00Z"]
    assert Counter(event["type"] for event in after) == {"Normal": 2, "Warning": 2}
    assert after[0]["count"] == 21  # those that were dropped are counted


def test_a_recorder_misses_the_share_of_events_that_it_is_told_to(written: Written) -> None:
    pods = [pod(Attempt(3.0, 3.0, 4.0), index=index) for index in range(500)]
    whole = written(*pods)
    world = replace(WORLD, faults=Faults(event_loss_share=0.25))
    left = written(*pods, world=world)
    assert left == written(*pods, world=world)
    assert [event for event in whole if event in left] == left
    lost = Counter(event["reason"] for event in whole) - Counter(event["reason"] for event in left)
    assert lost.keys() == {"Pulling", "Pulled", "Created", "Started"}
    assert all(90 < count < 160 for count in lost.values())  # 125 of 500 each
    about = Counter(event["involvedObject"]["name"] for event in left)
    assert set(about.values()) >= {2, 3, 4, 5}  # each event by its own luck


# --------------------------------------------------------------------------- pods and series


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_pods_tell_the_first_time_that_they_asked_and_the_answer_they_got(tmp_path: Path) -> None:
    path = tmp_path / "pods.csv"
    trace = Trace((pod(failed(3.0), Attempt(14.0, 15.0, 20.0)), pod(present_s=3.0, index=1)), {})
    files.write_pods(path, trace)
    pulled, present = rows(path)
    assert (pulled["pulling"], pulled["pulled"]) == ("3.000000", "20.000000")
    assert (present["pulling"], present["pulled"], present["started"]) == ("", "", "3.200000")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 300), st.floats(0.01, 300), st.floats(0, 1e9)),
        min_size=1, max_size=8,
    )
)  # fmt: skip
def test_series_hold_what_a_node_moved(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[float, float, float]]
) -> None:
    segments, at_s = [], 0.0
    for gap_s, length_s, rate in told:
        at_s += gap_s
        segments.append(Segment(at_s, at_s + length_s, rate, 2 * rate, 1.5))
        at_s += length_s
    path = tmp_path_factory.mktemp("series") / "series.csv"
    nodes = {"node-0": NodeTrace(tuple(segments)), "idle": NodeTrace()}
    files.write_series(path, Trace((), nodes))
    written = rows(path)
    assert {row["node"] for row in written} == {"node-0"}
    assert written[0]["receive_bytes_per_s"] == "0"
    times = [float(row["at_s"]) for row in written]
    width_s = max(1.0, at_s / 198)
    assert times[-1] >= segments[-1].end_s - 1e-3
    assert len(times) <= 200
    for column, share in (("receive_bytes_per_s", 1), ("write_bytes_per_s", 2)):
        moved = sum(float(row[column]) for row in written) * width_s
        whole = sum(share * rate * length_s for _, length_s, rate in told)
        assert moved == pytest.approx(whole, abs=width_s * len(written))
