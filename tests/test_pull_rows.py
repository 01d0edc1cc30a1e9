"""pulls.csv: who moved the bytes and who waited, from real events and from any made ones."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trials import table

from imgpull import pulls
from imgpull.engines import Subject
from imgpull.errors import ReportError
from imgpull.pulls import Pull
from imgpull.results.measure import cold_share, seen_share
from imgpull.results.pull_rows import pull_rows
from imgpull.results.pulls_file import read_pulls, write_pulls
from imgpull.results.seen import PodRow, Rates, read_events, read_pods, read_rates
from imgpull.tables import Container, write_pods

EVENTS = Path(__file__).parent / "data" / "kube-events"
BEGAN = datetime(2026, 11, 23, 21, 15, 0, tzinfo=UTC)
UNKNOWN = Subject(cell_id="c", label="recorded", factors={})
NO_RATES = Rates({})
IMAGE, SIZE = "registry.example/big:1", 264_056_486
BIG = "127.0.0.1:5000/bench/big:v1"


def recorded(name: str, subject: Subject = UNKNOWN, rates: Rates = NO_RATES) -> dict[str, Pull]:
    events = json.loads((EVENTS / name).read_text("utf-8"))
    return {row.pod: row for row in pull_rows(events, [], rates, subject, started_at=BEGAN)}


def event(pod: str, reason: str, message: str, at_s: float, **more: Any) -> dict[str, Any]:
    """A kubelet's event, stamped in whole seconds as kubelet does."""
    stamp = (BEGAN + timedelta(seconds=int(at_s))).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"kind": "Pod", "namespace": "test", "name": pod, "fieldPath": "spec.containers{c}"}
    plain = {
        "reason": reason, "message": message, "firstTimestamp": stamp, "lastTimestamp": stamp,
        "count": 1, "involvedObject": about, "source": {"component": "kubelet", "host": "node-1"},
    }  # fmt: skip
    return plain | more


def asked(pod: str, at_s: float, **more: Any) -> dict[str, Any]:
    return event(pod, "Pulling", pulls.pulling_message(IMAGE), at_s, **more)


def answered(pod: str, at_s: float, pull_s: float, **more: Any) -> dict[str, Any]:
    text = pulls.pulled_message(IMAGE, pull_s, pull_s, SIZE)
    return event(pod, "Pulled", text, at_s + pull_s, **more)


def rows_of(
    events: Sequence[dict[str, Any]], rates: Rates = NO_RATES, subject: Subject = UNKNOWN
) -> dict[str, Pull]:
    return {row.pod: row for row in pull_rows(events, [], rates, subject, started_at=BEGAN)}


# Recorded events


def test_a_recorded_cold_pull_is_told_whole() -> None:
    cold = recorded("one-node.json")["big-7bf6dbf68b-j2k7w"]
    assert cold == Pull(
        namespace="default", pod="big-7bf6dbf68b-j2k7w", container="c", node="node1", image=BIG,
        pod_uid="a9626f78-807d-4795-9868-067db2ac056b", digest=None, requested_at=6.0,
        pull_s=3.066, wait_s=0.0, size_bytes=SIZE, fetched_bytes=None, leader=True,
        temperature="unknown", outcome="pulled", failure=None, attempts=1, message=None,
        source="event",
    )  # fmt: skip


def test_recorded_pulls_end_in_every_way_that_a_pull_can() -> None:
    rows = recorded("two-nodes.json")
    told = {pod: (row.outcome, row.failure, row.attempts) for pod, row in rows.items()}
    assert told["warm-ifnot"] == ("present", None, 0)
    assert told["small-cold"] == ("pulled", None, 1)
    assert told["missing"] == ("failed", "not_found", 4)  # the event was counted, not repeated
    assert told["badnm"] == ("failed", "other", 0)  # InvalidImageName: never asked for
    assert rows["badnm"].image == "127.0.0.1:5000/bench/Bad Name"
    assert "not found" in (rows["missing"].message or "")
    assert len(rows) == 11


def test_recorded_pods_that_shared_a_node_have_one_leader() -> None:
    wave = {"59c9g": "node2", "662ss": "node1", "m4tt6": "node1", "q7tdm": "node2"}
    events = [
        item
        for item in json.loads((EVENTS / "two-nodes.json").read_text("utf-8"))
        if item["involvedObject"]["name"].rpartition("-")[2] in wave
    ]
    rows = {pod.rpartition("-")[2]: row for pod, row in rows_of(events).items()}
    assert {pod: row.node for pod, row in rows.items()} == wave
    # Asked in one second: the one that took longer was first. Its event's name says so too.
    assert {pod: row.leader for pod, row in rows.items()} == {
        "59c9g": False, "662ss": True, "m4tt6": False, "q7tdm": True,
    }  # fmt: skip


def test_a_later_pull_of_the_same_image_is_not_known_to_have_moved_anything() -> None:
    rows = recorded("two-nodes.json")
    assert rows["big-7bf6dbf68b-j2k7w"].leader is True
    assert rows["warm-always"].pull_s == 0.155
    assert (rows["warm-always"].leader, rows["warm-always"].temperature) == (None, "unknown")
    assert Counter(row.node for row in rows.values() if row.leader and row.image == BIG) == {
        "node1": 1, "node2": 1,
    }  # fmt: skip


def test_only_pulls_of_the_subjects_image_count() -> None:
    one = replace(UNKNOWN, image_reference="127.0.0.1:5000/bench/small:v1", image_digest="sha256:x")
    rows = recorded("one-node.json", one)
    assert {pod: row.digest for pod, row in rows.items()} == {"small-cold": "sha256:x"}


# What events can do to a reader


def test_the_order_of_events_within_a_second_does_not_matter() -> None:
    told = [asked("a", 5), answered("a", 5, 0.4)]
    assert rows_of(told) == rows_of(told[::-1])
    assert rows_of(told)["a"].outcome == "pulled"


def test_a_restarted_container_that_finds_its_image_does_not_hide_the_pull() -> None:
    present = event("a", "Pulled", pulls.present_message(IMAGE, (1, 36)), 60)
    row = rows_of([asked("a", 5), answered("a", 5, 3.0), present])["a"]
    assert (row.outcome, row.pull_s) == ("pulled", 3.0)


def test_an_event_seen_again_with_a_higher_count_is_one_event() -> None:
    failed = pulls.failed_message(IMAGE, "pull QPS exceeded")
    told = [
        event("a", "Failed", failed, 5, count=count, metadata={"namespace": "test", "name": "a.1"})
        for count in (1, 2, 3)
    ]
    row = rows_of([asked("a", 5, count=3), *told])["a"]
    assert (row.outcome, row.failure, row.attempts) == ("censored", "qps_exceeded", 3)


def test_a_pull_asked_for_once_more_than_it_failed_is_still_open() -> None:
    failed = event("a", "Failed", pulls.failed_message(IMAGE, "pull QPS exceeded"), 5)
    row = rows_of([asked("a", 5, count=2), failed])["a"]
    assert (row.outcome, row.failure, row.attempts) == ("censored", "qps_exceeded", 2)
    assert (row.pull_s, row.wait_s, row.size_bytes) == (None, None, None)


def test_the_first_failure_is_kept_when_a_later_attempt_works() -> None:
    told = [asked("a", 5)]
    for at_s, error in ((6, "429 Too Many Requests"), (20, "connection refused")):
        told += [event("a", "Failed", pulls.failed_message(IMAGE, error), at_s), asked("a", at_s)]
    row = rows_of([*told, answered("a", 40, 3.0)])["a"]
    assert (row.outcome, row.failure, row.attempts) == ("pulled", "throttled", 3)
    assert row.requested_at == 5.0


def test_a_rejected_pull_that_comes_again_never_leads() -> None:
    failed = event("b", "Failed", pulls.failed_message(IMAGE, "pull QPS exceeded"), 5)
    told = [asked("a", 5), asked("b", 5), failed, asked("b", 15), answered("a", 5, 30.0)]
    rows = rows_of([*told, answered("b", 15, 20.1)])
    assert (rows["a"].leader, rows["b"].leader) == (True, False)


def test_after_a_failure_it_is_the_last_attempt_that_overlapped_or_did_not() -> None:
    failed = event("b", "Failed", pulls.failed_message(IMAGE, "pull QPS exceeded"), 4)
    last = (BEGAN + timedelta(seconds=40)).isoformat()
    again = asked("b", 4, count=2, lastTimestamp=last)  # counted, not repeated
    rows = rows_of([asked("a", 5), answered("a", 5, 3.0), again, failed, answered("b", 40, 0.2)])
    assert (rows["a"].leader, rows["b"].leader) == (True, None)
    assert rows["b"].requested_at == 4.0


def test_what_is_no_pull_and_no_pod_is_passed_over() -> None:
    node = {"reason": "Pulling", "message": "x", "involvedObject": {"kind": "Node", "name": "n"}}
    assert rows_of([node, event("a", "Started", "Container started", 3), {}]) == {}


def test_without_a_beginning_times_are_unknown_and_never_zero() -> None:
    (row,) = pull_rows([asked("a", 5)], [], NO_RATES, UNKNOWN, started_at=None)
    assert row.requested_at is None


def test_an_event_with_an_unreadable_time_is_refused() -> None:
    with pytest.raises(ReportError, match="an event's time 'noon'"):
        rows_of([asked("a", 5, firstTimestamp="noon")])


# Temperature


def received(byte_count: float, begin_s: float = 4.0, end_s: float = 9.0) -> Rates:
    return Rates({"node-1": [(begin_s, end_s, byte_count)]})


@pytest.mark.parametrize(
    ("share", "temperature", "leader"),
    [(1.0, "cold", True), (0.91, "cold", True), (0.5, "partial", True), (0.01, "warm", False)],
)
def test_temperature_is_what_came_over_the_network(
    share: float, temperature: str, leader: bool
) -> None:
    told = [asked("a", 5), answered("a", 5, 3.0), asked("b", 5), answered("b", 5, 2.0)]
    rows = rows_of(told, received(SIZE * share))
    assert (rows["a"].temperature, rows["a"].leader) == (temperature, leader)
    assert (rows["b"].temperature, rows["b"].leader, rows["b"].fetched_bytes) == (
        temperature, False, 0,
    )  # fmt: skip
    assert rows["a"].fetched_bytes == round(SIZE * share)


def test_a_node_without_rates_has_no_temperature() -> None:
    row = rows_of([asked("a", 5), answered("a", 5, 3.0)], Rates({"node-2": [(0.0, 9.0, 1e9)]}))["a"]
    assert (row.temperature, row.fetched_bytes, row.leader) == ("unknown", None, True)


def test_with_rates_a_later_pull_is_known_warm_or_cold_again() -> None:
    told = [asked("a", 5), answered("a", 5, 3.0), asked("b", 50), answered("b", 50, 3.0)]
    once = Rates({"node-1": [(4.0, 9.0, SIZE), (49.0, 54.0, 0.0)]})
    twice = Rates({"node-1": [(4.0, 9.0, SIZE), (49.0, 54.0, SIZE)]})
    assert [(r.temperature, r.leader) for r in rows_of(told, once).values()] == [
        ("cold", True), ("warm", False),
    ]  # fmt: skip
    assert [(r.temperature, r.leader) for r in rows_of(told, twice).values()] == [
        ("cold", True), ("cold", True),
    ]  # fmt: skip


# Pod status, where events are missing

DIGEST = "sha256:" + "a" * 64


def seen_pod(pod: str, image_id: str = "", waiting: str = "", **moments: float) -> PodRow:
    ran = Container("c", IMAGE, image_id, waiting)
    return replace(pod_row(pod, 4.0, **moments), uid=f"uid-{pod}", containers=(ran,))


def with_status(
    told: Sequence[dict[str, Any]], *pods: PodRow, subject: Subject = UNKNOWN
) -> dict[str, Pull]:
    found = pull_rows(told, pods, NO_RATES, subject, started_at=BEGAN)
    return {row.pod: row for row in found}


def test_a_container_that_ran_without_an_event_is_known_from_its_status_and_unseen() -> None:
    pods = [seen_pod("a", f"registry.example/big@{DIGEST}", started=9.0), seen_pod("b")]
    rows = with_status([asked("b", 5), answered("b", 5, 3.0)], *pods)
    a = rows["a"]
    assert (a.source, a.outcome, a.digest, a.pod_uid) == ("status", "unknown", DIGEST, "uid-a")
    unknown = (a.requested_at, a.pull_s, a.wait_s, a.size_bytes, a.leader, a.attempts)
    assert unknown == (None,) * 6
    assert a.temperature == "unknown"
    assert (rows["b"].source, rows["b"].outcome) == ("event", "pulled")
    started = [replace(pod, started=9.0) for pod in pods]
    assert seen_share(UNKNOWN, list(rows.values()), started) == 0.5


def test_why_a_container_waited_is_kept_when_its_events_were_lost() -> None:
    waiting = 'ErrImagePull: failed to pull "x": 429 Too Many Requests'
    a = with_status([], seen_pod("a", waiting=waiting))["a"]
    assert (a.source, a.outcome, a.failure) == ("status", "censored", "throttled")
    assert "429" in (a.message or "")
    wrong = with_status([], seen_pod("a", waiting="ErrImagePull: 404 Not Found"))["a"]
    assert (wrong.source, wrong.outcome, wrong.failure) == ("status", "failed", "not_found")
    ran = seen_pod("a", f"x@{DIGEST}", waiting, started=50.0)
    assert with_status([], ran)["a"].outcome == "unknown"
    assert with_status([], ran)["a"].failure == "throttled"


def test_a_pod_that_only_waits_for_its_sandbox_is_no_pull() -> None:
    assert with_status([], seen_pod("a"), seen_pod("b", waiting="CreateContainerError: x")) == {}


def test_the_digest_that_ran_stands_before_the_one_that_was_asked_for() -> None:
    asked_for = replace(UNKNOWN, image_digest="sha256:asked")
    told = [asked("a", 5), answered("a", 5, 3.0), asked("b", 5), answered("b", 5, 3.0)]
    rows = with_status(told, seen_pod("a", f"r/big@{DIGEST}"), seen_pod("b"), subject=asked_for)
    assert (rows["a"].digest, rows["b"].digest) == (DIGEST, "sha256:asked")


def test_a_pull_whose_answer_was_lost_is_no_censored_pull_once_its_container_runs() -> None:
    waited = replace(UNKNOWN, wait_timeout_s=60.0)
    late, timely, open_ = seen_pod("late", started=99.0), seen_pod("timely", started=9.0), "open"
    told = [asked(pod, 5) for pod in ("late", "timely", "open")]
    rows = with_status(told, late, timely, seen_pod(open_), subject=waited)
    outcomes = {pod: row.outcome for pod, row in rows.items()}
    assert outcomes == {"late": "censored", "timely": "unknown", "open": "censored"}


def test_only_the_subjects_image_is_taken_from_status_too() -> None:
    other = replace(UNKNOWN, image_reference="another")
    assert with_status([], seen_pod("a", f"x@{DIGEST}"), subject=other) == {}


def test_pods_are_read_as_they_were_written_and_from_files_without_containers(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pods.csv"
    sidecar = Container("proxy", "mesh/proxy:1", "", "ErrImagePull: a, b")
    pod = seen_pod("a", f"x@{DIGEST}", started=9.25)
    pod = replace(pod, containers=(*pod.containers, sidecar))
    write_pods(path, [pod])
    assert read_pods(path) == [pod]
    lines = [line.split(",")[:10] for line in path.read_text("utf-8").splitlines()]
    path.write_text("\n".join(",".join(cells) for cells in lines) + "\n", "utf-8")
    assert read_pods(path) == [replace(pod, uid=None, containers=())]


# The deadline


def pod_row(pod: str, created: float, **moments: float) -> PodRow:
    times = (
        dict.fromkeys(("scheduled", "sandbox", "pulling", "pulled", "started", "ready"), None)
        | moments
    )
    return PodRow("test", pod, "node-1", created, **times)  # type: ignore[arg-type]


def test_a_pull_that_ends_after_the_wait_is_censored_though_it_was_seen_to_end() -> None:
    told = [asked("a", 5), answered("a", 5, 100.0), asked("b", 5), answered("b", 5, 59.0)]
    pods = [pod_row("a", 4.0), pod_row("b", 4.0)]
    waited = replace(UNKNOWN, wait_timeout_s=60.0)
    a, b = pull_rows(told, pods, NO_RATES, waited, started_at=BEGAN)
    assert (a.outcome, a.pull_s, a.wait_s) == ("censored", None, None)
    assert (b.outcome, b.pull_s) == ("pulled", 59.0)


def test_without_a_known_deadline_nothing_seen_is_censored() -> None:
    told = [asked("a", 5), answered("a", 5, 1e5)]
    assert rows_of(told)["a"].outcome == "pulled"


def refused(pod: str, at_s: float, error: str = "429 Too Many Requests") -> dict[str, Any]:
    return event(pod, "Failed", pulls.failed_message(IMAGE, error), at_s)


WAITED = replace(UNKNOWN, wait_timeout_s=60.0)


@given(
    st.lists(st.tuples(st.floats(5, 90), st.sampled_from(["429", "EOF", "404"])), max_size=4),
    st.floats(5, 90),
    st.sampled_from([None, 1.5, 30.0]),
)
def test_a_bound_is_of_the_attempt_that_counts_and_never_above_what_it_took(
    failures: list[tuple[float, str]], begin_s: float, pull_s: float | None
) -> None:
    told = []
    for at_s, error in failures:
        told += [asked("a", at_s), refused("a", at_s, error)]
    last_s = max([begin_s, *(at_s for at_s, _ in failures)])
    told += [asked("a", last_s)] + ([] if pull_s is None else [answered("a", last_s, pull_s)])
    first_s = min([begin_s, *(at_s for at_s, _ in failures)])
    came = {} if pull_s is None else {"pulled": last_s + pull_s}
    row = with_status(told, pod_row("a", 4.0, pulling=first_s, **came), subject=WAITED)["a"]
    if pull_s is not None and last_s + pull_s <= 64.0:
        assert (row.outcome, row.pull_at_least_s) == ("pulled", None)
        return
    assert row.outcome == "censored"
    left_s = 64.0 - last_s  # of the wait, when the attempt that counts began
    assert row.pull_at_least_s is None or 0 < row.pull_at_least_s <= left_s + 1e-9
    if left_s > 2:  # an event is cut to its second
        assert row.pull_at_least_s == pytest.approx(left_s, abs=1e-9 + bool(failures))


@pytest.mark.parametrize(
    ("error", "outcome"),
    [("429", "censored"), ("pull QPS exceeded", "censored"), ("EOF", "censored"),
     ("404", "failed"), ("no space left on device", "failed")],
)  # fmt: skip
def test_a_pull_in_back_off_when_the_wait_ends_is_censored_if_its_last_failure_passes(
    error: str, outcome: str
) -> None:
    told = [asked("a", 5), refused("a", 6), asked("a", 16), refused("a", 17, error)]
    row = with_status(told, pod_row("a", 4.0, pulling=5.0), subject=WAITED)["a"]
    assert (row.outcome, row.failure, row.attempts) == (outcome, "throttled", 2)
    assert row.pull_at_least_s is None  # the attempt that would have worked had not begun
    assert row.leader is (True if outcome == "censored" else None)


def test_a_pull_in_back_off_leads_no_node_where_another_is_at_work() -> None:
    told = [asked("a", 5), refused("a", 6), asked("b", 8)]
    rows = with_status(
        told, pod_row("a", 4.0, pulling=5.0), pod_row("b", 4.0, pulling=8.0), subject=WAITED
    )
    assert (rows["a"].leader, rows["b"].leader) == (False, True)
    assert rows["b"].pull_at_least_s == 56.0


# Laws


@st.composite
def waves(draw: st.DrawFn) -> list[tuple[str, float, float]]:
    """(node, begin, seconds) of pulls of one image, any number on any node at any time."""
    pull = st.tuples(
        st.sampled_from(["node-1", "node-2"]), st.integers(0, 200), st.integers(1, 60_000)
    )
    return [(node, float(at), ms / 1000) for node, at, ms in draw(st.lists(pull, max_size=12))]


@given(waves())
def test_of_pulls_that_overlap_on_a_node_at_most_one_leads_and_of_the_first_exactly_one(
    found: list[tuple[str, float, float]],
) -> None:
    told = []
    for number, (node, at_s, pull_s) in enumerate(found):
        source = {"source": {"component": "kubelet", "host": node}}
        told += [
            asked(f"p{number}", at_s, **source),
            answered(f"p{number}", at_s, pull_s, **source),
        ]
    rows = rows_of(told)
    assert len(rows) == len(found)
    for node in {node for node, *_ in found}:
        mine = [(rows[f"p{n}"], at, s) for n, (where, at, s) in enumerate(found) if where == node]
        assert sum(row.leader is True for row, *_ in mine) == 1
        (begin_s, end_s) = next((at, at + s) for row, at, s in mine if row.leader)
        assert begin_s == min(at for _, at, _ in mine)
        for row, at, _ in mine:
            if begin_s <= at < end_s and row.leader is not True:
                assert row.leader is False
    share = cold_share(rows.values())
    assert share is None  # nobody saw bytes


@given(waves(), st.lists(st.sampled_from([0.0, 0.4, 1.0]), min_size=2, max_size=2))
def test_the_cold_share_is_a_share_and_fetched_bytes_are_counted_once(
    found: list[tuple[str, float, float]], shares: list[float]
) -> None:
    told = []
    for number, (node, _, pull_s) in enumerate(found):  # all asked for at once
        source = {"source": {"component": "kubelet", "host": node}}
        told += [asked(f"p{number}", 10, **source), answered(f"p{number}", 10, pull_s, **source)]
    came = {f"node-{k}": [(0.0, 300.0, SIZE * share)] for k, share in enumerate(shares, 1)}
    rows = rows_of(told, Rates(came))
    share = cold_share(rows.values())
    nodes = {row.node for row in rows.values()}
    assert (share is None) == (not rows)
    if share is not None:
        expected = sum(shares[int(str(node)[-1]) - 1] == 1.0 for node in nodes) / len(nodes)
        assert share == pytest.approx(expected)
    fetched = sum(row.fetched_bytes or 0 for row in rows.values())
    assert fetched == sum(round(came[str(node)][0][2]) for node in nodes)


# Files


def test_pulls_csv_has_the_columns_of_the_design_and_empty_cells_for_unknown(
    tmp_path: Path,
) -> None:
    write_pulls(tmp_path / "pulls.csv", recorded("one-node.json").values())
    rows = table(tmp_path / "pulls.csv")
    assert list(rows[0]) == [
        "namespace", "pod", "pod_uid", "container", "node", "image", "digest", "requested_at",
        "pull_s", "wait_s", "size_bytes", "fetched_bytes", "leader", "temperature", "outcome",
        "failure", "attempts", "message", "source", "pull_at_least_s",
    ]  # fmt: skip
    missing = next(row for row in rows if row["pod"] == "missing")
    unknown = ("digest", "pull_s", "wait_s", "size_bytes", "fetched_bytes", "leader")
    assert {missing[column] for column in unknown} == {""}
    assert missing["failure"] == "not_found"


def test_pulls_csv_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    rows = list(recorded("one-node.json").values())
    write_pulls(tmp_path / "pulls.csv", rows)
    assert read_pulls(tmp_path / "pulls.csv") == rows
    assert read_pulls(tmp_path / "none.csv") == []


def test_pulls_csv_of_earlier_trials_has_no_bounds_and_is_read(tmp_path: Path) -> None:
    path, rows = tmp_path / "pulls.csv", list(recorded("one-node.json").values())
    write_pulls(path, rows)
    with path.open(newline="", encoding="utf-8") as file:
        cells = [row[:-1] for row in csv.reader(file)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(cells)
    assert read_pulls(path) == rows


def test_another_table_is_not_read_as_pulls(tmp_path: Path) -> None:
    (tmp_path / "pulls.csv").write_text("namespace,pod\nns,p\n")
    with pytest.raises(ReportError, match="is not what this version writes"):
        read_pulls(tmp_path / "pulls.csv")


def test_a_rate_counts_from_the_row_before_it(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_text("at_s,node,receive_bytes_per_s\n10,n,99\n12,n,5\n15,n,2\n15,m,7\n20,m,\n")
    rates = read_rates(path)
    assert rates.received_bytes("n", 0, 99) == 2 * 5 + 3 * 2
    assert rates.received_bytes("n", 0, 11.9) == 10
    assert rates.received_bytes("m", 0, 99) == 0  # one row only begins an interval
    assert rates.received_bytes("x", 0, 99) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pods.csv", "namespace,pod\na,b\n"),
        ("pods.csv", "namespace,pod,node,created\na,b,c,soon\n"),
        (
            "pods.csv",
            "namespace,pod,node,created,scheduled,sandbox,pulling,pulled,started,ready,uid,"
            "container,image,image_id,waiting\na,b,c,,,,,,,,u,x;y,1,2,3\n",
        ),
        ("series.csv", "node,receive_bytes_per_s\nn,1\n"),
        ("events.jsonl", '{"kind": "Event"\n'),
        ("events.jsonl", "[1]\n"),
    ],
)
def test_a_file_of_another_shape_is_refused_by_name(tmp_path: Path, name: str, text: str) -> None:
    read: dict[str, Any] = {
        "pods.csv": read_pods, "series.csv": read_rates, "events.jsonl": read_events
    }  # fmt: skip
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(ReportError, match=name):
        read[name](tmp_path / name)


def test_files_that_are_not_there_were_not_seen(tmp_path: Path) -> None:
    assert read_pods(tmp_path / "pods.csv") == []
    assert read_events(tmp_path / "events.jsonl") == []
    assert read_rates(tmp_path / "series.csv").received_bytes("n", 0, 1) is None
