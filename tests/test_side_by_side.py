"""hydra/launcher=joblib: trials in processes of their own leave what a serial sweep leaves."""

import json
from pathlib import Path

import pytest
from commands import Ended, copy_project, python

pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install 'imgpull[joblib]'")
pytestmark = pytest.mark.slow

MATRIX = ("-m", "nodes=2,3", "deployments=2", "image=resource_consumer", "trials=2")
# What tells when and where a sweep ran, and by which launcher.
OF_THE_RUN = {
    "job.json", "run.log", "ledger.jsonl", "hydra.yaml", "multirun.yaml", "report.html",
    "report.md",
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("sweeps"))


@pytest.fixture(scope="module")
def serial(project: Path) -> Ended:
    return python(project, "run.py", *MATRIX)


@pytest.fixture(scope="module")
def parallel(project: Path) -> Ended:
    return python(project, "run.py", *MATRIX, "hydra/launcher=joblib")


def contents(sweep: Path) -> dict[str, bytes]:
    return {
        path.relative_to(sweep).as_posix(): path.read_bytes()
        for path in sorted(sweep.rglob("*"))
        if path.is_file() and path.name not in OF_THE_RUN
    }


def test_both_leave_the_same_files(serial: Ended, parallel: Ended) -> None:
    assert (serial.status, parallel.status) == (0, 0)
    assert len(contents(serial.sweep)) > 40
    assert contents(parallel.sweep) == contents(serial.sweep)


def test_records_differ_in_when_and_where_alone(serial: Ended, parallel: Ended) -> None:
    for one, other in zip(serial.records, parallel.records, strict=True):
        left, right = (json.loads(json.dumps(vars(each), default=str)) for each in (one, other))
        apart = {key for key in left if left[key] != right[key]}
        assert apart <= {"started_at", "wall_s", "virtual_s"}


def test_each_trial_begins_and_ends_once_in_the_ledger(parallel: Ended) -> None:
    for event in ("started", "finished", "logged"):
        assert len([each for each in parallel.events if each["event"] == event]) == 4


def test_a_sweep_done_side_by_side_is_done(project: Path, parallel: Ended) -> None:
    again = python(project, "run.py", *MATRIX, "resume=auto", f"hydra.sweep.dir={parallel.sweep}")
    assert "nothing to do" in again.out


def test_a_failed_trial_stops_what_was_not_launched(project: Path) -> None:
    failing = python(
        project, "run.py", *MATRIX, "hydra/launcher=joblib", "tracking=none",
        "engine.faults.pull_shares.not_found=1", "wait_timeout=1m", "on_failure=stop",
    )  # fmt: skip
    assert failing.status == 1
    assert {record.verdict for record in failing.records} == {"failed"}


def test_failed_trials_are_tried_again_between_the_batches(project: Path) -> None:
    failing = python(
        project, "run.py", *MATRIX, "hydra/launcher=joblib", "tracking=none", "retries=1",
        "engine.faults.pull_shares.not_found=1", "wait_timeout=1m", "on_failure=stop_after:3",
    )  # fmt: skip
    assert failing.status == 1
    assert [record.attempt for record in failing.records] == [1, 2] * 4
    finished = [event for event in failing.events if event["event"] == "finished"]
    assert {event["attempt"] for event in finished[:4]} == {1}
    assert {event["attempt"] for event in finished[4:]} == {2}
    assert sorted(event["position"] for event in finished) == list(range(1, 9))


def test_a_limit_is_asked_between_the_batches(project: Path) -> None:
    limited = python(
        project, "run.py", *MATRIX, "hydra/launcher=joblib", "tracking=none", "max_hours=1e-9",
    )  # fmt: skip
    assert limited.status == 1
    (stopped,) = [event for event in limited.events if event["event"] == "stopped"]
    assert stopped["why"].startswith("max_hours=")
    assert len(stopped["left"]) == 4
    assert limited.records == []
