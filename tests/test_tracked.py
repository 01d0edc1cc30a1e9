"""MLflow may be away or break: that costs a sweep one warning, and no result."""

import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import database, imgpull, run_py, runs, verdicts

from imgpull import tracking
from imgpull.config import schema
from imgpull.errors import TrackingError
from imgpull.sweep.tracked import Tracked
from imgpull.tracking.runs import MlflowTracker

TWO = ("-m", "replicas=1,2")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A working directory with a store."""
    (tmp_path / "mlflow.db").write_bytes(database())
    return tmp_path


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_without_mlflow_every_result_is_kept_and_can_be_logged_later(root: Path) -> None:
    uri = f"tracking.uri=http://127.0.0.1:{closed_port()}"
    ended = run_py(root, *TWO, "tracking=server", uri)
    assert ended.status == 0
    assert verdicts(ended.sweep) == ["valid", "valid"]
    (warning,) = [line for line in ended.err.splitlines() if line.startswith("warning")]
    assert f"imgpull log {ended.sweep}" in warning

    for _ in range(2):
        logged = imgpull(root, "log", str(ended.sweep))
        assert (logged.status, logged.err) == (0, "")
        assert [line.split(":")[0] for line in logged.out.splitlines()[:2]] == ["0", "1"]
        parent, children = runs(root)
        assert len({run.data.tags["imgpull.trial_id"] for run in children}) == len(children) == 2
        assert parent.info.status == "FINISHED"
        assert parent.data.metrics["trials/valid"] == 2
        assert "one trial a cell" in parent.data.tags["mlflow.note.content"]


def test_a_store_that_breaks_in_mid_sweep_costs_one_warning(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MlflowTracker.log_trial

    def breaking(self: MlflowTracker, job_dir: Path, parent: str | None) -> str:
        if job_dir.name == "1":
            raise sqlite3.OperationalError("database is locked")
        return log(self, job_dir, parent)

    monkeypatch.setattr(MlflowTracker, "log_trial", breaking)
    ended = run_py(root, *TWO)
    assert ended.status == 0
    assert verdicts(ended.sweep) == ["valid"] * 2
    (warning,) = [line for line in ended.err.splitlines() if line.startswith("warning")]
    assert "1 trial not logged" in warning
    assert "database is locked" in warning
    parent, children = runs(root)
    assert (parent.info.status, len(children)) == ("FINISHED", 1)


class ScriptedTracker:
    """A tracker whose log_trial raises what it is told, or works where that is None."""

    def __init__(self, errors: list[Exception | None]) -> None:
        self._errors = iter(errors)
        self.calls: list[str] = []

    def start_sweep(self, sweep_dir: Path, **_: Any) -> str:
        self.calls.append("start")
        return "parent"

    def log_trial(self, job_dir: Path, parent: str | None) -> str:
        self.calls.append("log")
        error = next(self._errors)
        if error is not None:
            raise error
        return "run"

    def finish_sweep(self, sweep_dir: Path, parent: str | None, **_: Any) -> None:
        self.calls.append("finish")

    def view(self, parent: str | None) -> None:
        self.calls.append("view")


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Tracked, ScriptedTracker]]:
    """follow(errors): a started Tracked around a tracker that fails so."""

    def make(errors: list[Exception | None]) -> tuple[Tracked, ScriptedTracker]:
        tracker = ScriptedTracker(errors)
        monkeypatch.setattr(tracking, "open_tracker", lambda settings, root: tracker)
        made = Tracked(schema.Tracking())
        made.start(Path(), {}, "command", None)
        return made, tracker

    return make


@pytest.mark.parametrize(
    "error",
    [TrackingError("the store\nis away"), OSError(5, "the store is away"),
     sqlite3.OperationalError("the store is away"), AssertionError("the store is away")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_whatever_a_tracker_raises_is_a_warning_on_one_line(
    follow: Callable[..., tuple[Tracked, ScriptedTracker]], error: Exception
) -> None:
    made, _ = follow([None, error])
    assert [made.log(Path("0")), made.log(Path("1"))] == ["run", None]
    warning = made.warning(Path("my sweep"))
    assert warning is not None
    assert warning.startswith("1 trial not logged, ")
    assert "the store is away" in warning
    assert warning.endswith("imgpull log 'my sweep'")


def test_a_store_that_is_gone_is_asked_three_times_and_once_more_at_the_end(
    follow: Callable[..., tuple[Tracked, ScriptedTracker]],
) -> None:
    made, tracker = follow([OSError("gone")] * 9)
    for _ in range(9):
        made.log(Path("0"))
    assert tracker.calls == ["start", "log", "log", "log"]
    assert "9 trials not logged" in (made.warning(Path("sweep")) or "")
    made.finish(Path(), killed=False, counts={}, note="")
    assert tracker.calls[-1] == "finish"


def test_a_store_that_hiccups_is_asked_on(
    follow: Callable[..., tuple[Tracked, ScriptedTracker]],
) -> None:
    made, tracker = follow([OSError("hiccup"), OSError("hiccup"), None] * 3)
    for _ in range(9):
        made.log(Path("0"))
    assert tracker.calls.count("log") == 9
    assert "6 trials not logged" in (made.warning(Path("sweep")) or "")
