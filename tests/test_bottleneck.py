"""Bottleneck calls: right where the truth is known, unsure at ties, silent without evidence."""

import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from benchmarked import benchmark
from builders import pull, write_trial
from hypothesis import given
from hypothesis import strategies as st

from imgpull import tables
from imgpull.analysis.bottleneck import LIMITS, Call, calls
from imgpull.analysis.limits import Limits, limits_of, read_limits
from imgpull.analysis.stages import stages
from imgpull.pulls import Pull
from imgpull.tables import PodRow

ROOT = Path(__file__).parents[1]
MB = 10**6


@pytest.fixture(scope="module")
def scored() -> ModuleType:
    """benchmarks/bottlenecks.py, which draws cells and knows their bottleneck."""
    return benchmark("bottlenecks")


def check(scored: ModuleType, cells: int, ties: int, seed: int) -> tuple[float, int, int]:
    """Share of right calls, confident mistakes among clear cells and ties."""
    values = scored.base()
    clear = scored.score(values, scored.clear_cells(values, cells, seed))
    tied = scored.score(values, scored.ties(values, ties, seed))
    assert {limit for each in clear for limit in each.cell.truth} == set(LIMITS[:-1])
    right = sum(each.right for each in clear) / len(clear)
    mistakes = [sum(each.confidently_wrong for each in found) for found in (clear, tied)]
    return right, *mistakes


def test_a_sample_of_cells_is_called_right_and_ties_are_not_told_apart(scored: ModuleType) -> None:
    assert check(scored, cells=7, ties=2, seed=3) == (1.0, 0, 0)


@pytest.mark.slow
def test_19_of_20_cells_are_called_right_and_none_is_confidently_wrong(scored: ModuleType) -> None:
    right, wrong, told_apart = check(scored, cells=210, ties=60, seed=0)
    assert right >= 0.95
    assert (wrong, told_apart) == (0, 0)


# Without a series only what pulls and pods prove

LIFE = {"created": 0.0, "scheduled": 0.1, "sandbox": 0.5, "pulling": 0.6}


def pod(index: int, **columns: Any) -> PodRow:
    """A pod that ran half a second after its image was there."""
    times = {**LIFE, "pulled": 10.0, **columns}
    times.setdefault("started", times["pulled"] + 0.5)
    times.setdefault("ready", times["started"] + 0.5)
    node = times.pop("node", f"node-{index}")
    return PodRow("imgpull-1", f"pull-{index}", node, **times)


def sweep(
    tmp_path: Path,
    pods: Sequence[PodRow],
    pulls: Sequence[dict[str, object]],
    config: dict[str, Any] | None = None,
    **trial: Any,
) -> Call:
    """The call on a sweep of one trial with these files."""
    place = write_trial(tmp_path / "0", pulls=pulls, config=config, **trial)
    tables.write_pods(place / "pods.csv", pods)
    (call,) = calls(tmp_path)
    return call


def test_without_a_series_nobody_can_tell_what_held_a_pull_up(tmp_path: Path) -> None:
    call = sweep(tmp_path, [pod(0)], [pull(0, 9.4, requested_at=0.6, wait_s=0.0)])
    assert (call.limit, call.sure) == ("cannot_tell", False)
    assert "series.csv" in call.evidence[0]
    assert "of the time from asking to running was the image's pull" in call.evidence[1]


def test_waiting_for_other_images_pulls_is_kubelet_s_queue(tmp_path: Path) -> None:
    rows = [pull(0, 0.4, requested_at=0.6, wait_s=9.0)]
    call = sweep(tmp_path, [pod(0)], rows)
    assert (call.limit, call.sure) == ("kubelet_queue", True)
    assert "waiting for kubelet's turn" in call.evidence[0]


def test_waiting_for_the_own_image_is_its_pull_and_no_queue(tmp_path: Path) -> None:
    rows = [
        pull(0, 9.4, requested_at=0.6, wait_s=0.0, node="n"),
        pull(1, 0.01, requested_at=0.6, wait_s=9.4, node="n", leader=False),
    ]
    call = sweep(tmp_path, [pod(0, node="n"), pod(1, node="n")], rows)
    assert call.limit == "cannot_tell"


@pytest.mark.parametrize(
    ("failure", "named"), [("throttled", "429"), ("qps_exceeded", "registryPullQPS")]
)
def test_back_off_after_a_refusal_is_throttling_by_its_kind(
    tmp_path: Path, failure: str, named: str
) -> None:
    rows = [pull(0, 1.0, requested_at=0.6, wait_s=0.0, failure=failure, attempts=3)]
    call = sweep(tmp_path, [pod(0, pulled=60.0)], rows)
    assert (call.limit, call.sure) == ("throttled", True)
    assert named in call.evidence[0]


def test_the_evidence_of_several_trials_is_from_least_to_most(tmp_path: Path) -> None:
    for job, refused in enumerate((1, 3, 0)):  # of what a trial had none of, it is no evidence
        rows = [
            pull(k, 1.0, requested_at=0.6, wait_s=0.0, failure="throttled" if k < refused else None)
            for k in range(4)
        ]
        place = write_trial(tmp_path / str(job), pulls=rows, trial=job + 1)
        pods = [pod(k, pulled=60.0 if k < refused else 1.6) for k in range(4)]
        tables.write_pods(place / "pods.csv", pods)
    (call,) = calls(tmp_path)
    back_off, pulled = call.evidence
    assert "(1 to 3 pulls that the registry answered with 429)" in back_off
    assert re.match(r"\d+% to \d+% of the time", back_off)
    assert re.match(r"\d+% to \d+% of the time", pulled)


def test_pods_created_long_after_they_were_asked_for_are_the_control_plane(tmp_path: Path) -> None:
    pods = [
        pod(k, created=3.0 * k, scheduled=3.0 * k, sandbox=3.0 * k + 0.2, pulling=3.0 * k + 0.3,
            pulled=3.0 * k + 1.0)
        for k in range(20)
    ]  # fmt: skip
    rows = [pull(k, 0.7, requested_at=3.0 * k + 0.3, wait_s=0.0) for k in range(20)]
    call = sweep(tmp_path, pods, rows, config={"qps": 10.0, "replicas": 1})
    assert (call.limit, call.sure) == ("control_plane", True)
    # At the pace that was asked for nothing is late.
    slow = sweep(tmp_path / "slow", pods, rows, config={"qps": 1 / 3, "replicas": 1})
    assert slow.limit == "cannot_tell"


def test_a_trial_that_does_not_count_is_no_evidence(tmp_path: Path) -> None:
    rows = [pull(0, 0.4, requested_at=0.6, wait_s=9.0)]
    call = sweep(tmp_path, [pod(0)], rows, verdict="invalid")
    assert (call.limit, call.share) == ("cannot_tell", 0.0)


# With a series

CONFIG = {
    "qps": 10.0, "replicas": 1,
    "cluster": {
        "containerd_version": "1.7.34", "zones": 1,
        "node": {"nic_mbit_s": 800, "disk_write_mb_s": 500, "vcpus": 4},
        "registry": {"egress_mbit_s": 8000, "connection_mb_s": 100, "zone_link_mbit_s": None},
        "containerd": {"max_concurrent_downloads": 3},
    },
    "image": {"layers": [{"compressed_bytes": "300MB"}] * 3},
}  # fmt: skip


def with_series(
    tmp_path: Path, receive: float, cpu: float, config: dict[str, Any] = CONFIG, trials: int = 1
) -> Call:
    """A pull of 100 s, while the node received and unpacked at these rates."""
    for trial in range(trials):
        rows = [pull(0, 100.0, requested_at=0.6, wait_s=0.0, node="n")]
        place = write_trial(tmp_path / str(trial), trial=trial + 1, pulls=rows, config=config)
        tables.write_pods(place / "pods.csv", [pod(0, node="n", pulled=100.6)])
        points = (
            tables.SeriesRow(at_s, "n", receive * MB, receive * MB, cpu) for at_s in range(102)
        )
        tables.write_series(place / "series.csv", points)
    (call,) = calls(tmp_path)
    return call


def test_a_node_that_receives_what_its_nic_can_is_held_up_by_it(tmp_path: Path) -> None:
    call = with_series(tmp_path, 98, 0.2)
    assert (call.limit, call.sure, call.also) == ("nic", True, ())
    assert call.evidence[0].startswith("nodes received 9")
    assert "of what their NIC can" in call.evidence[0]


def test_a_core_that_never_rests_is_the_limit(tmp_path: Path) -> None:
    call = with_series(tmp_path, 20, 0.99)
    assert (call.limit, call.sure) == ("unpack", True)


def test_two_that_are_alike_are_both_named(tmp_path: Path) -> None:
    call = with_series(tmp_path, 95, 0.98)
    assert not call.sure
    assert {call.limit, *call.also} == {"nic", "unpack"}
    assert any("NIC" in each for each in call.evidence)
    assert any("unpacking" in each for each in call.evidence)


def test_what_is_not_described_makes_a_call_unsure(tmp_path: Path) -> None:
    node = {**CONFIG["cluster"]["node"], "nic_mbit_s": None}  # type: ignore[dict-item]
    config = CONFIG | {"cluster": {**CONFIG["cluster"], "node": node}}  # type: ignore[dict-item]
    call = with_series(tmp_path, 20, 0.99, config=config)
    assert (call.limit, call.sure) == ("unpack", False)
    assert any("not described, so not judged: nic" in each for each in call.evidence)


def test_bytes_that_come_more_slowly_than_any_limit_point_at_the_registry_without_certainty(
    tmp_path: Path,
) -> None:
    call = with_series(tmp_path, 9, 0.05)
    assert (call.limit, call.sure) == ("registry", False)
    assert "less than is described" in call.evidence[0]


def test_every_trial_that_counts_has_a_say(tmp_path: Path) -> None:
    assert with_series(tmp_path, 98, 0.2, trials=3).sure
    # One trial in which unpacking is as busy takes the certainty away.
    place = tmp_path / "1"
    points = (tables.SeriesRow(at_s, "n", 98 * MB, 98 * MB, 0.95) for at_s in range(102))
    tables.write_series(place / "series.csv", points)
    (call,) = calls(tmp_path)
    assert (call.limit, call.sure) == ("nic", False)


# Accounts


times = st.lists(st.floats(0, 100), min_size=4, max_size=4).map(sorted)


@given(lives=st.lists(times, min_size=1, max_size=5), data=st.data())
def test_the_stages_of_pods_never_last_longer_than_the_pods(
    lives: list[list[float]], data: st.DataObject
) -> None:
    pods, rows = [], []
    for k, (created, pulling, pulled, started) in enumerate(lives):
        pods.append(pod(k, node="n", created=created, scheduled=created, sandbox=created,
                        pulling=pulling, pulled=pulled, started=started))  # fmt: skip
        spent_s = pulled - pulling
        wait_s = data.draw(st.floats(0, spent_s))
        failure = data.draw(st.sampled_from([None, "throttled", "qps_exceeded"]))
        plain = pull(k, spent_s - wait_s, requested_at=pulling, wait_s=wait_s, node="n",
                     leader=k == 0, failure=failure)  # fmt: skip
        rows.append(Pull(**plain))  # type: ignore[arg-type]
    found = stages(pods, rows, Limits(), real=False)
    parts = (found.control_plane_s, found.throttled_s, found.kubelet_queue_s, found.pull_s)
    assert all(part >= 0 for part in parts)
    assert sum(parts) <= found.total_s + 1e-6


@given(
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=8),
    streams=st.integers(1, 10),
)
def test_more_streams_never_take_longer_and_no_stream_beats_the_largest_layer(
    sizes: list[int], streams: int
) -> None:
    def alone_s(streams: int, chunked: bool = False) -> float:
        limits = Limits(
            connection_bytes_s=1.0, layers=tuple(sizes), streams=streams, chunked=chunked
        )
        return limits.alone_s(sum(sizes)) or 0.0

    assert alone_s(1) == pytest.approx(sum(sizes))
    assert alone_s(streams, chunked=True) == pytest.approx(sum(sizes) / streams)
    assert max(sizes) * 0.999 <= alone_s(streams) <= sum(sizes) * 1.001
    assert alone_s(streams) >= sum(sizes) / streams * 0.999


def test_limits_are_read_from_a_resolved_configuration(compose: Any, tmp_path: Path) -> None:
    values = compose("cluster=aks_d2s_v3", "image=even_5gb_10")
    limits = limits_of(values)
    assert (limits.nic_bytes_s, limits.disk_bytes_s) == (125 * MB, 48 * MB)
    assert limits.disk_at(0) == 170 * MB
    assert limits.disk_at(1800) == 48 * MB
    assert limits.layers == (200 * MB,) * 10
    assert (limits.unpacks, limits.streams, limits.qps) == (1, 3, 10)
    assert read_limits(tmp_path / "none.yaml") == Limits()


def test_every_call_is_one_of_the_named_limits(scored: ModuleType) -> None:
    assert set(chain(scored.LEANS, ["cannot_tell"])) == set(LIMITS)
