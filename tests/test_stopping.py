"""When a sweep ends before its plan: retries used up, failures, limits, a broken cluster."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from commands import Ended, imgpull, run_py, verdicts
from hypothesis import given
from hypothesis import strategies as st
from trials import MakeJob

from imgpull.config import schema
from imgpull.config.job import Job
from imgpull.engines import Apart, Engine, Execution
from imgpull.errors import ConfigError, EngineUnavailable
from imgpull.results.record import JobRecord
from imgpull.sweep import workers
from imgpull.sweep.forecasting import forecast, spend
from imgpull.sweep.forecasting.prices import Prices
from imgpull.sweep.ledger import elapsed_s
from imgpull.sweep.limits import Limits, earlier_spending, require_prices
from imgpull.sweep.plan import Cell, Planned
from imgpull.sweep.stopping import Stopping

SMALL = ("nodes=2", "deployments=2", "image=resource_consumer", "tracking=none")
# No pull of these trials works: each of them fails.
FAILING = (*SMALL, "engine.faults.pull_shares.not_found=1", "wait_timeout=1m")


def of(ended: Ended, kind: str) -> list[dict[str, Any]]:
    return [event for event in ended.events if event["event"] == kind]


# Retries


def test_invalid_and_failed_trials_are_tried_again_at_the_end_of_their_block(
    tmp_path: Path,
) -> None:
    ended = run_py(tmp_path, "-m", "replicas=1,2", "trials=2", "retries=2", *FAILING)
    assert ended.status == 1
    told = [(event["trial_id"][-2:], event["attempt"]) for event in of(ended, "started")]
    each = [1, 1, 2, 2, 3, 3]
    assert told == [*(("t1", n) for n in each), *(("t2", n) for n in each)]
    assert [event["position"] for event in of(ended, "finished")] == list(range(1, 13))
    assert len(of(ended, "planned")) == 12
    assert [record.attempt for record in ended.records] == [1, 2, 3] * 4
    for number in "0123":
        for attempt in ("attempt-2", "attempt-3"):
            assert (ended.sweep / number / attempt / "report/junit.xml").exists()
        assert not (ended.sweep / number / "attempt-4").exists()
    summary = (ended.sweep / "summary.csv").read_text()
    assert len(summary.splitlines()) == 13
    assert "earlier attempts run again, in no figure" in ended.out


@pytest.mark.parametrize(
    "slow",
    [
        ("cluster.node.nic_mbit_s=20",),  # slo missed
        ("engine.faults.pull_shares.throttled=0.5", "nodes=4"),
        ("cluster.node.nic_mbit_s=1", "wait_timeout=1m"),  # censored
    ],
    ids=["slow", "throttled", "censored"],
)
def test_what_is_slow_is_a_result_and_never_tried_again(
    tmp_path: Path, slow: tuple[str, ...]
) -> None:
    ended = run_py(tmp_path, "retries=3", *SMALL, *slow)
    assert ended.status == 0, ended.err
    assert [record.attempt for record in ended.records] == [1]


# Failures


def test_a_sweep_stops_after_so_many_trials_that_do_not_count(tmp_path: Path) -> None:
    ended = run_py(tmp_path, "-m", "replicas=1,2,3,4", "on_failure=stop_after:2", *FAILING)
    assert ended.status == 1
    assert len(ended.records) == 2
    (stopped,) = of(ended, "stopped")
    assert stopped["why"] == "on_failure=stop_after:2: 2 trials failed or invalid"
    assert len(stopped["left"]) == 2
    assert of(ended, "ended")[0]["left"] == stopped["left"]
    assert "2 of 4 trials not done; go on with: imgpull resume" in ended.err
    assert "2 trials not done (stopped: on_failure=stop_after:2" in ended.out
    again = imgpull(tmp_path, "report", str(ended.sweep))
    assert "2 trials not done (stopped: on_failure=stop_after:2" in again.out
    # Each cell has its row, run or not.
    rows = [line.split() for line in again.out.splitlines() if line.strip()[:1] in tuple("1234")]
    told = [row[-1] for row in rows if row[-1] in ("failed", "done")]
    assert sorted(told) == ["done", "done", "failed", "failed"]


def test_a_trial_has_failed_when_its_last_attempt_has(tmp_path: Path) -> None:
    ended = run_py(tmp_path, "trials=3", "retries=1", "on_failure=stop", *FAILING)
    assert [(e["trial_id"][-2:], e["attempt"]) for e in of(ended, "started")] == [
        ("t1", 1), ("t1", 2),
    ]  # fmt: skip
    assert len(of(ended, "stopped")[0]["left"]) == 2


# Limits


def test_max_hours_stops_at_a_trials_edge_and_counts_all_sessions(tmp_path: Path) -> None:
    command = ("-m", "replicas=1,2", "trials=2", *SMALL)
    first = run_py(tmp_path, *command, "max_hours=1")
    assert (first.status, of(first, "stopped")) == (0, [])
    spent_h = elapsed_s(first.events) / 3600
    more = run_py(tmp_path, *command, "trials=4", "resume=auto", f"max_hours={spent_h:.7f}")
    assert more.status == 1
    assert more.sweep == first.sweep
    assert len(more.records) == 4  # none was begun
    (stopped,) = of(more, "stopped")
    assert stopped["why"].startswith("max_hours=")
    assert len(stopped["left"]) == 4
    assert "4 trials not done (stopped: max_hours=" in more.out
    assert "trials 3, 4" in more.out
    rest = imgpull(tmp_path, "resume", str(first.sweep), "max_hours=1")
    assert rest.status == 0
    assert verdicts(first.sweep) == ["valid"] * 8


cells = st.integers(1, 3)
seconds = st.floats(0, 7200)


@given(seconds, seconds, st.floats(0.01, 4))
def test_a_trial_is_begun_only_if_it_is_thought_to_fit(
    spent_s: float, expected_s: float, hours: float
) -> None:
    planned = a_trial(None)
    limits = Limits(hours, None, spent_s, expected_s={planned.trial_id: expected_s})
    fits = spent_s + expected_s < hours * 3600 - 1
    too_long = spent_s >= hours * 3600 or spent_s + expected_s > hours * 3600
    reached = limits.reached(planned, 0.0)
    assert not (fits and reached)
    assert reached or not too_long


@given(st.floats(0, 20), st.floats(0, 20), st.floats(0.1, 10), st.floats(1, 7200))
def test_cost_is_time_at_the_clusters_price(
    limit: float, cost: float, hourly: float, expected_s: float
) -> None:
    planned = a_trial(None)
    limits = Limits(None, limit or 0.1, 0.0, cost, {planned.trial_id: expected_s})
    after = cost + hourly * expected_s / 3600
    assert bool(limits.reached(planned, hourly)) == (
        after > (limit or 0.1) or cost >= (limit or 0.1)
    )
    assert limits.reached(planned, 0.0) is None  # what costs nothing never reaches it


def test_a_limit_of_cost_needs_a_price(job: MakeJob, tmp_path: Path) -> None:
    real = replace(job(), engine=schema.BinaryEngine())
    with pytest.raises(ConfigError, match="costs an hour is not known") as caught:
        require_prices([a_trial(real)], 10.0)
    assert "conf/prices.yaml" in caught.value.hint
    require_prices([a_trial(real)], None)
    require_prices([a_trial(job())], 10.0)  # simulated ones cost nothing
    assert run_py(tmp_path, "max_cost=0.01", *SMALL).status == 0


def test_max_cost_counts_the_bytes_that_the_plan_counts(
    real: Callable[[str], Planned], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = real("a")
    prices = Prices(date(2026, 11, 1), "EUR", {planned.job.cluster.node.vm_size: 0.36}, 0.1)
    monkeypatch.setattr(forecast, "read_prices", lambda: prices)
    monkeypatch.setattr(spend, "read_prices", lambda: prices)
    pulls = (planned.job.nodes * (planned.job.image.compressed_bytes or 0)) / 10**9 * 0.1
    spent = workers.cost(planned, replace(record("valid"), wall_s=100.0))
    assert spent == pytest.approx(planned.job.nodes * 0.01 + pulls)
    stops = [
        Stopping(Cluster(), Limits(max_cost=limit)).why(planned) for limit in (0.99 * pulls, pulls)
    ]
    assert [bool(why) for why in stops] == [True, False]
    unknown = replace(planned, cell=replace(planned.cell, job=replace(planned.job, cache="as_is")))
    with pytest.raises(ConfigError, match="how many bytes a trial pulls is not known"):
        require_prices([planned, unknown], 10.0)


def test_hours_are_those_of_the_monotonic_clock_though_the_other_one_jumps() -> None:
    def line(event: str, at: str, clock_s: float, **data: Any) -> dict[str, Any]:
        return {"event": event, "at": at, "clock_s": clock_s, **data}

    events = [
        line("sweep", "2026-11-23T10:00:00.000+00:00", 100.0),
        line("finished", "2031-01-01T00:00:00.000+00:00", 160.0, cost=1.5),  # jumped ahead
        line("sweep", "2019-01-01T00:00:00.000+00:00", 5000.0),  # and back, after a pause
        line("finished", "2019-01-01T00:00:01.000+00:00", 5030.0, cost=0.5),
        line("held", "2019-01-02T00:00:00.000+00:00", 7.0),  # after a reboot
        line("sweep", "2019-01-02T00:00:00.000+00:00", 8.0),
        line("ended", "2019-01-02T00:00:00.000+00:00", 17.0),
    ]
    assert earlier_spending(events) == (60.0 + 30.0 + 10.0, 2.0)


# A real cluster that breaks


class Cluster(Apart):
    """A session whose cluster can be asked how it is."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked = 0

    def engine(self, job: Job, execution: Execution) -> Engine:
        raise NotImplementedError

    def require_healthy(self, job: Job) -> None:
        self.asked += 1
        if self.error:
            raise self.error


def a_trial(job: Job | None, cell_id: str = "c") -> Planned:
    made: Any = job
    return Planned(Cell((), cell_id, "", made, {}, {}, None), cell_id, "0", 1, 1, 1, 1)


def record(verdict: str, reason: str = "") -> JobRecord:
    known: dict[str, Any] = dict.fromkeys(JobRecord.__dataclass_fields__)
    return JobRecord(**(known | {"verdict": verdict, "reasons": (reason,) if reason else ()}))


@pytest.fixture
def real(job: MakeJob) -> Callable[[str], Planned]:
    """A trial on a real cluster of this cell."""
    made = replace(job(), engine=schema.BinaryEngine())
    return lambda cell_id: a_trial(made, cell_id)


def test_after_a_trial_that_does_not_count_the_cluster_is_asked_once(
    real: Callable[[str], Planned],
) -> None:
    cluster = Cluster()
    stopping = Stopping(cluster, Limits(), plan=[real("a"), real("b")])
    assert stopping.why_here(real("a")) is None
    assert cluster.asked == 0
    stopping.note(real("a"), record("failed", "it broke"), final=True)
    assert stopping.why_here(real("b")) is None
    assert stopping.why_here(real("b")) is None
    assert cluster.asked == 1
    stopping.note(real("b"), record("valid"), final=True)
    assert stopping.why_here(real("a")) is None
    assert cluster.asked == 1


def test_an_unhealthy_cluster_ends_the_sweep_with_what_is_wrong_and_the_fix(
    real: Callable[[str], Planned],
) -> None:
    stopping = Stopping(
        Cluster(EngineUnavailable("2 nodes are not ready", hint="mend them")), Limits()
    )
    stopping.note(real("a"), record("invalid", "nodes were lost"), final=False)
    why = stopping.why_here(real("b"))
    assert why == "the cluster can run no further trial: 2 nodes are not ready (mend them)"


def test_three_failures_alike_of_different_cells_end_the_sweep(
    real: Callable[[str], Planned],
) -> None:
    stopping = Stopping(Cluster(), Limits(), plan=[real("a"), real("b")])
    for number, cell_id in enumerate("ab"):
        stopping.note(real(cell_id), record("failed", f"timeout after {number} s"), final=True)
        assert stopping.why_here(real("a")) is None
    stopping.note(real("a"), record("failed", "timeout after 7 s"), final=True)
    assert (
        stopping.why_here(real("b")) == "3 trials in a row failed alike: failed: timeout after N s"
    )


@pytest.mark.parametrize(
    "told",
    [
        [("a", "failed", "x"), ("b", "failed", "y"), ("a", "failed", "z")],  # not alike
        [("a", "failed", "x"), ("b", "valid", ""), ("a", "failed", "x"), ("b", "failed", "x")],
        [("a", "failed", "x"), ("a", "failed", "x"), ("a", "failed", "x")],  # one broken cell
    ],
)
def test_other_failures_do_not_cost_the_night(
    real: Callable[[str], Planned], told: list[tuple[str, str, str]]
) -> None:
    stopping = Stopping(Cluster(), Limits(), plan=[real("a"), real("b")])
    for cell_id, verdict, reason in told:
        stopping.note(real(cell_id), record(verdict, reason), final=True)
    assert stopping.why_here(real("b")) is None


def test_a_broken_cluster_stops_no_other(real: Callable[[str], Planned]) -> None:
    """Each of several clusters is judged by its own trials."""
    there = real("a")
    elsewhere = replace(
        there,
        cell=replace(there.cell, job=replace(there.job, engine=schema.BinaryEngine(context="b"))),
    )
    cluster = Cluster(EngineUnavailable("2 nodes are not ready", hint="mend them"))
    stopping = Stopping(cluster, Limits(), plan=[there, elsewhere])
    stopping.note(there, record("failed", "it broke"), final=True)
    assert stopping.why_here(elsewhere) is None
    assert cluster.asked == 0
    for _ in range(2):
        stopping.note(elsewhere, record("valid"), final=True)
    assert stopping.why_here(there) is not None


def test_simulated_trials_that_fail_alike_go_on(job: MakeJob) -> None:
    cluster = Cluster(EngineUnavailable("never asked"))
    stopping = Stopping(cluster, Limits(), plan=[a_trial(job(), each) for each in "ab"])
    for cell_id in "abab":
        stopping.note(a_trial(job(), cell_id), record("failed", "x"), final=True)
    assert stopping.why_here(a_trial(job())) is None
    assert cluster.asked == 0


def test_a_worker_begins_no_trial_for_a_sweep_whose_process_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    begun: list[Planned] = []
    monkeypatch.setattr(workers, "run_trial", lambda directory, planned, *_: begun.append(planned))
    planned = a_trial(None)
    with workers.told(tmp_path) as tell:
        tell([planned])
        workers.run_planned("0")
        monkeypatch.setattr(workers.os, "getpid", lambda: gone.pid)
        tell([planned])
        workers.run_planned("0")
    assert begun == [planned]


def test_limits_count_from_when_they_are_made() -> None:
    limits = Limits(max_hours=1e-9)
    time.sleep(0.001)
    assert limits.reached(a_trial(None), None)
