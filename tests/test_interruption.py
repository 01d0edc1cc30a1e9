"""What a sweep survives: trials that fail, Ctrl-C, a full disk; and how it is continued."""

import fcntl
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Ended, copy_project, database, is_told, python, run_py, runs, verdicts
from standins import eventually

from imgpull import pipeline
from imgpull.config import job as jobs
from imgpull.engines import Outcome
from imgpull.engines.sim import SimEngine
from imgpull.errors import EngineFailed
from imgpull.sweep import command, interrupts
from imgpull.sweep.ledger import Ledger
from imgpull.tracking.runs import MlflowTracker

REPORTS = Path(__file__).parent / "data" / "cl2-reports"
TWO = ("-m", "replicas=1,2")
THREE = ("-m", "replicas=1,2,3", "order=as_given")  # run as numbered

Act = Callable[[int], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A working directory with a store."""
    (tmp_path / "mlflow.db").write_bytes(database())
    return tmp_path


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[Act], None]:
    """script(act): call act(n) before the n-th trial of this test is simulated."""
    simulate = SimEngine.run

    def apply(act: Act) -> None:
        begun: list[int] = []

        def run(self: SimEngine, *args: Any) -> Outcome:
            begun.append(1)
            act(len(begun))
            return simulate(self, *args)

        monkeypatch.setattr(SimEngine, "run", run)

    return apply


def ctrl_c_in_trial(number: int) -> Act:
    def act(current: int) -> None:
        if current == number:
            signal.raise_signal(signal.SIGINT)

    return act


def fail_trial(number: int, error: Exception) -> Act:
    def act(current: int) -> None:
        if current == number:
            raise error

    return act


def only_sweep(root: Path) -> Path:
    (sweep,) = (root / "multirun").iterdir()
    return sweep


# Trials that fail


def test_a_failed_trial_is_kept_shown_and_logged_and_the_sweep_goes_on(
    root: Path, script: Callable[[Act], None]
) -> None:
    script(fail_trial(2, EngineFailed("the node\nfell over", hint="pick it up")))
    ended = run_py(root, *THREE)
    assert ended.status == 1
    assert verdicts(ended.sweep) == ["valid", "failed", "valid"]
    assert ended.records[1].error is not None
    assert "fell over" in ended.records[1].error.traceback
    summary = (ended.sweep / "summary.csv").read_text()
    assert "the node fell over" in summary
    assert len(summary.splitlines()) == 4
    assert "1 trial failed" in ended.out
    assert len([line for line in ended.out.splitlines() if line.rstrip().endswith("failed")]) == 1
    assert len(ended.told) == 3
    assert ended.told[1].endswith(": the node fell over")  # on one line
    parent, children = runs(root)
    assert parent.info.status == "FINISHED"  # it has results
    assert sorted(run.info.status for run in children) == ["FAILED", "FINISHED", "FINISHED"]
    assert parent.data.metrics["trials/failed"] == 1


def test_on_failure_stop_ends_the_sweep_after_the_failed_trial(
    tmp_path: Path, script: Callable[[Act], None]
) -> None:
    script(fail_trial(2, RuntimeError("broken")))
    ended = run_py(tmp_path, *THREE, "on_failure=stop", "tracking=none")
    assert ended.status == 1
    assert verdicts(ended.sweep) == ["valid", "failed"]
    assert "stopped: on_failure=stop: 1 trial failed or invalid" in ended.err
    (stopped,) = [event for event in ended.events if event["event"] == "stopped"]
    assert len(stopped["left"]) == 1
    assert "1 of 3 trials not done; go on with: imgpull resume" in ended.err
    assert ended.out.splitlines()[-1] == f"summary:  {ended.sweep / 'summary.csv'}"


def test_an_invalid_trial_makes_the_status_1_and_is_in_no_figure(tmp_path: Path) -> None:
    names = ("own-2026-two-nodes", "telescope-cri-resource-consumer-fail-20250503")
    reports = ",".join(str(REPORTS / name) for name in names)
    ended = run_py(tmp_path, "-m", "engine=replay", f"engine.report={reports}", "tracking=none")
    assert ended.status == 1
    assert sorted(verdicts(ended.sweep)) == ["failed", "invalid"]
    assert {record.engine for record in ended.records} == {"replay"}
    assert not (ended.sweep / "0/bundle").exists()
    for record in ended.records:
        assert record.reasons[0][:40] in ended.out


def test_what_breaks_the_sweep_itself_still_brings_the_end_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = pipeline.run_job
    calls: list[int] = []

    def full_disk(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return done(*args)

    monkeypatch.setattr(pipeline, "run_job", full_disk)
    ended = run_py(tmp_path, *THREE, "tracking=none")
    assert ended.status == 1
    assert verdicts(ended.sweep) == ["valid"]
    assert "warning: the sweep broke: OSError: [Errno 28] No space left on device" in ended.err
    assert "2 of 3 trials not done" in ended.err
    assert (ended.sweep / "summary.csv").exists()
    assert ended.events[-1]["event"] == "ended"


def test_trials_run_as_checked_when_conf_is_edited_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = jobs.resolve
    monkeypatch.setattr(
        jobs,
        "resolve",
        lambda config: resolve(config) | ({"nodes": 7} if command._active else {}),
    )
    monkeypatch.setattr(command, "_active", [])
    ended = run_py(tmp_path, *TWO, "tracking=none")
    assert ended.status == 0
    assert {record.factors["nodes"] for record in ended.records} == {10}
    assert ended.err.count("trials ran as checked") == 1


# Ctrl-C


def test_ctrl_c_in_a_callback_of_the_garbage_collector_is_not_lost(
    tmp_path: Path, script: Callable[[Act], None]
) -> None:
    class Garbage:
        pass

    def act(current: int) -> None:
        if current == 1:
            garbage = Garbage()
            seen = weakref.ref(garbage, lambda _: signal.raise_signal(signal.SIGINT))
            del garbage  # Python forgets what is raised in the callback
            assert seen() is None
            time.sleep(1)

    before = signal.getsignal(signal.SIGINT), sys.unraisablehook
    script(act)
    ended = run_py(tmp_path, *THREE, "tracking=none")
    assert ended.status == 130
    assert verdicts(ended.sweep) == []
    assert "ignored" not in ended.err
    assert (signal.getsignal(signal.SIGINT), sys.unraisablehook) == before


@pytest.mark.parametrize(("signals", "drawn"), [(1, True), (2, False)])
def test_ctrl_c_waits_for_what_is_being_drawn_and_a_second_one_does_not(
    signals: int, drawn: bool
) -> None:
    done: list[bool] = []

    def draw() -> None:
        with interrupts.held():
            for _ in range(signals):
                signal.raise_signal(signal.SIGTERM)
            done.append(True)

    with interrupts.caught(), pytest.raises(KeyboardInterrupt):
        draw()
    assert done == [True] * drawn


def test_ctrl_c_leaves_a_table_of_what_was_done_and_a_sweep_that_can_be_continued(
    root: Path, script: Callable[[Act], None]
) -> None:
    script(ctrl_c_in_trial(2))
    ended = run_py(root, *THREE)
    sweep = only_sweep(root)
    assert ended.status == 130
    assert ended.sweep == sweep
    assert verdicts(sweep) == ["valid"]
    assert len((sweep / "summary.csv").read_text().splitlines()) == 2
    assert ended.out.count("valid") == 1
    assert "2 of 3 trials not done; go on with: imgpull resume" in ended.err
    assert "Traceback" not in ended.err
    told = [event["event"] for event in ended.events]
    assert told[-2:] == ["interrupted", "ended"]
    assert told.count("finished") == 1
    parent, children = runs(root)
    assert (parent.info.status, len(children)) == ("KILLED", 1)

    again = run_py(root, *THREE, "resume=auto")
    assert again.status == 0
    assert only_sweep(root) == again.sweep == sweep
    assert len(again.told) == 2  # the missing two, and no word of what was done
    assert verdicts(sweep) == ["valid"] * 3
    assert len({record.trial_id for record in again.records}) == 3
    assert sorted(record.position for record in again.records) == [1, 2, 3]
    same, children = runs(root)
    assert same.info.run_id == parent.info.run_id
    assert (same.info.status, len(children)) == ("FINISHED", 3)
    assert same.data.metrics["trials/valid"] == 3  # of the sweep, not of the session

    more = run_py(root, *THREE, "resume=auto")
    assert (more.status, more.err) == (0, "")
    assert more.out == f"nothing to do: every trial is done in {sweep}\n"


def test_a_trial_finished_but_not_logged_is_logged_when_the_sweep_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        log = MlflowTracker.log_trial

        def interrupted(self: MlflowTracker, job_dir: Path, parent: str | None) -> str:
            if job_dir.name == "1":
                raise KeyboardInterrupt
            return log(self, job_dir, parent)

        patch.setattr(MlflowTracker, "log_trial", interrupted)
        assert run_py(root, *TWO).status == 130
    assert len(runs(root)[1]) == 1
    assert run_py(root, *TWO, "resume=auto").status == 0
    assert len({run.data.tags["imgpull.trial_id"] for run in runs(root)[1]}) == 2


def test_ctrl_c_before_the_first_trial_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "Tracked", interrupted)
    ended = run_py(tmp_path)
    assert (ended.status, ended.out, ended.err) == (130, "", "interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_second_ctrl_c_skips_the_plots_but_closes_the_sweep(
    root: Path, script: Callable[[Act], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgpull.sweep import running

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "conclude", interrupted)
    script(ctrl_c_in_trial(2))
    ended = run_py(root, *TWO)
    assert ended.status == 130
    assert runs(root)[0].info.status == "KILLED"
    assert Ledger(only_sweep(root)).read()[-1]["event"] == "ended"


# Going on


def test_more_trials_of_a_finished_sweep_run_only_the_new_blocks(tmp_path: Path) -> None:
    first = run_py(tmp_path, *TWO, "tracking=none")
    more = run_py(tmp_path, *TWO, "trials=2", "resume=auto", "tracking=none")
    assert more.sweep == first.sweep
    assert [record.block for record in more.records] == [1, 1, 2, 2]
    assert sorted(record.position for record in more.records) == [1, 2, 3, 4]
    assert len(more.told) == 2


def test_a_trial_that_does_not_count_is_attempted_again_beside_the_first(
    tmp_path: Path, script: Callable[[Act], None]
) -> None:
    script(fail_trial(2, RuntimeError("broken")))
    first = run_py(tmp_path, *TWO, "tracking=none")
    assert verdicts(first.sweep) == ["valid", "failed"]
    (first.sweep / "1/attempt-2").mkdir()
    (first.sweep / "1/attempt-2/run.log").write_text("of a session that was cut off")
    again = run_py(tmp_path, *TWO, "resume=auto", "tracking=none")
    assert again.status == 0
    assert verdicts(first.sweep) == ["valid", "failed", "valid"]
    broken, retried = again.records[1:]
    assert broken.trial_id == retried.trial_id
    assert (broken.attempt, retried.attempt) == (1, 2)
    assert (first.sweep / "1/attempt-2/report/junit.xml").exists()
    assert "cut off" in (first.sweep / "1/attempt-2/cut-off-1/run.log").read_text()
    assert "cut off" not in (first.sweep / "1/attempt-2/run.log").read_text()
    assert "attempt 2" in again.err
    assert len((again.sweep / "summary.csv").read_text().splitlines()) == 4  # all are shown


def test_only_the_same_cells_and_seed_are_continued(tmp_path: Path) -> None:
    first = run_py(tmp_path, "replicas=1", "tracking=none")
    for other in ("replicas=2", "seed=1"):
        assert run_py(tmp_path, other, "resume=auto", "tracking=none").sweep != first.sweep
    same = run_py(tmp_path, "replicas=1", "resume=auto", "tracking=none")
    assert "nothing to do" in same.out


def test_a_sweep_that_still_runs_is_not_continued(tmp_path: Path) -> None:
    first = run_py(tmp_path, "tracking=none")
    with Ledger(first.sweep).held():
        again = run_py(tmp_path, "trials=2", "resume=auto", "tracking=none")
    assert again.status == 2
    assert "still running" in again.err


def test_a_directory_that_was_named_is_the_one_that_is_continued(tmp_path: Path) -> None:
    one, two = (f"hydra.sweep.dir={tmp_path / name}" for name in ("one", "two"))
    assert run_py(tmp_path, one, "tracking=none").status == 0
    assert run_py(tmp_path, two, "resume=auto", "tracking=none").sweep == tmp_path / "two"
    again = run_py(tmp_path, one, "tracking=none")
    assert again.status == 2
    assert "holds a sweep already" in again.err
    assert "nothing to do" in run_py(tmp_path, one, "resume=auto", "tracking=none").out


# With a real process and a real signal


def interrupt(project: Path, arguments: tuple[str, ...], after: int) -> Ended:
    """run.py, stopped with SIGINT after so many finished trials."""
    with subprocess.Popen(
        [sys.executable, "run.py", *arguments],
        cwd=project, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        lines: list[str] = []
        while sum(map(is_told, lines)) < after:
            lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    return Ended(process.returncode, out, "".join(lines) + err)


@pytest.mark.slow
def test_a_long_sweep_is_interrupted_and_continued_by_the_same_command(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    matrix = ("-m", "replicas=range(1,9)", "qps=1,2,5,10,20")
    stopped = interrupt(project, matrix, after=1)
    assert stopped.status == 130
    assert "Traceback" not in stopped.err
    done = len(verdicts(stopped.sweep))
    assert 1 <= done < 40
    assert stopped.out.count(" valid") == done
    assert len((stopped.sweep / "summary.csv").read_text().splitlines()) == done + 1
    assert runs(project)[0].info.status == "KILLED"

    shutil.rmtree(stopped.sweep / str(done), ignore_errors=True)  # what the signal cut off
    resumed = python(project, "run.py", *matrix, "resume=auto", timeout_s=300)
    assert resumed.status == 0
    assert resumed.sweep == stopped.sweep
    assert len(resumed.told) == 40 - done
    assert len({record.cell_id for record in resumed.records}) == 40
    parent, children = runs(project)
    assert (parent.info.status, len(children)) == ("FINISHED", 40)


SMALL = ("-m", "image=resource_consumer", "nodes=2", "deployments=2", "replicas=1,2",
         "tracking=none")  # fmt: skip


@pytest.mark.parametrize("reader", ["leaves", "is a full disk"])
def test_a_reader_of_the_results_that_leaves_costs_the_words_alone(
    tmp_path: Path, reader: str
) -> None:
    project = copy_project(tmp_path)
    if reader == "leaves":
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open("/dev/full", os.O_WRONLY)
    ended = subprocess.run(
        [sys.executable, "run.py", *SMALL], cwd=project, stdout=write, stderr=subprocess.PIPE,
        text=True, check=False,
    )  # fmt: skip
    os.close(write)
    assert (ended.returncode, len([*filter(is_told, ended.stderr.splitlines())])) == (0, 2)
    assert "Traceback" not in ended.stderr
    (sweep,) = (project / "multirun").iterdir()
    assert (sweep / "report.html").exists()
    assert Ledger(sweep).read()[-1]["event"] == "ended"


def test_a_terminal_that_is_closed_ends_no_sweep(tmp_path: Path) -> None:
    project = copy_project(tmp_path)

    def ledgers() -> list[Path]:
        return [*project.glob("multirun/*/ledger.jsonl")]

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "run.py", *SMALL, "trials=4"],
        cwd=project, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:  # fmt: skip
        os.close(theirs)
        assert eventually(lambda: any("started" in path.read_text() for path in ledgers()), 120)
        os.close(ours)  # the kernel tells with SIGHUP
        assert process.wait(timeout=300) == 0
    (ledger,) = ledgers()
    events = Ledger(ledger.parent).read()
    assert events[-1]["event"] == "ended"
    assert sum(event["event"] == "finished" for event in events) == 8
