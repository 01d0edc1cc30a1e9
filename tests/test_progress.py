"""What a person sees while a sweep runs: on a terminal, in a log, and when either goes away."""

import io
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
from commands import copy_project
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from screens import Screen, rows, run_on_terminal
from test_results import RECORD

from imgpull.config.job import Job
from imgpull.results.record import JobRecord
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.plan import Cell, Planned
from imgpull.sweep.watching.display import Frame, live
from imgpull.sweep.watching.progress import Beat, Progress
from imgpull.sweep.watching.standing import Course

QUICK = Beat(refresh_s=0.01, first_s=0.05, step_s=0.1, same_s=0.3)
STILL = Beat(refresh_s=60)  # nothing is shown but what is told


class Terminal(io.StringIO):
    """A stream that shows what it is given on a screen."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self.screen = screen

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.screen.feed(text.replace("\n", "\r\n"))  # as a terminal's driver does
        return len(text)


def planned(number: int, *, trial: int = 1, attempt: int = 1, name: str = "") -> Planned:
    cell = Cell((), f"c{number}", "a cell", cast(Job, None), {}, {}, None)
    directory = f"{number}/attempt-{attempt}" if attempt > 1 else str(number)
    return Planned(cell, name or f"r{number}", directory, trial, attempt, 1, number + 1)


def record(of: Planned, verdict: str = "valid", reason: str = "", **fields: object) -> JobRecord:
    told = {**vars(RECORD), "verdict": verdict, "reasons": (reason,) if reason else (), **fields}
    return JobRecord(**{**told, "trial_id": of.trial_id, "attempt": of.attempt})


def on(screen: Screen) -> Console:
    # Sizes by hand: a stream in memory has none to ask for.
    return Console(
        file=Terminal(screen), force_terminal=True, width=screen.width, height=screen.height
    )


def log() -> tuple[Console, io.StringIO]:
    """A console that is no terminal."""
    stream = io.StringIO()
    return Console(file=stream, width=80), stream


def wait_for(condition: "object", timeout_s: float = 5) -> None:
    """Until a condition holds; AssertionError when it never does."""
    assert callable(condition)
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


# On a terminal

PLAN = [planned(number) for number in range(4)]


def test_a_terminal_shows_what_is_done_runs_and_is_left() -> None:
    screen = Screen()
    with Progress(PLAN, beat=STILL, console=on(screen)) as progress:
        progress.start(PLAN[0])
        progress.finish(PLAN[0], record(PLAN[0], "failed", "the node\nfell over"))
        progress.start(PLAN[1])
        progress.step("waiting for pods")
        progress.finish(PLAN[1], record(PLAN[1], slo="missed", wall_s=2.0))
        progress.start(PLAN[2])
        progress.step("pulling", PLAN[2])
        progress.say("by the way")
        shown = screen.lines
    assert shown[:3] == [
        "1/4  r0  trial 1  failed in 0.50 s: the node fell over",
        "2/4  r1  trial 1  valid, slo missed in 2.00 s",
        "by the way",
    ]
    assert re.fullmatch(r"━{40}  2/4 trials  a few seconds left", shown[3])
    assert shown[4] == "1 valid, 1 failed, 1 slo missed; 1 running, 1 left"
    assert shown[5] == "     0s  r2  trial 1  pulling ..."
    assert shown[6] == "last failed: r0  trial 1: the node fell over"


def test_what_stays_when_it_is_over_are_the_lines_of_trials() -> None:
    screen = Screen()
    with Progress(PLAN, beat=QUICK, console=on(screen)) as progress:
        for trial in PLAN:
            progress.start(trial)
            progress.finish(trial, record(trial, wall_s=1.0))
    assert screen.all_lines == [f"{n + 1}/4  r{n}  trial 1  valid in 1.00 s" for n in range(4)]
    assert not screen.cursor_hidden


def test_time_goes_on_while_nothing_happens() -> None:
    screen = Screen()
    with Progress(PLAN, beat=QUICK, console=on(screen)) as progress:
        progress.start(PLAN[0])
        wait_for(lambda: rows(screen.lines, "1s  r0  trial 1"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_cursor_comes_back_however_a_sweep_ends(error: type[BaseException]) -> None:
    screen = Screen()
    progress = Progress(PLAN, beat=QUICK, console=on(screen))

    def sweep() -> None:
        with progress:
            progress.start(PLAN[0])
            assert screen.cursor_hidden
            raise error

    with pytest.raises(error):
        sweep()
    assert not screen.cursor_hidden
    assert screen.lines == []


def test_a_retry_is_the_same_trial_again() -> None:
    screen = Screen()
    again = planned(0, attempt=2)
    with Progress(PLAN[:2], beat=STILL, console=on(screen)) as progress:
        progress.start(PLAN[0])
        progress.finish(PLAN[0], record(PLAN[0], "invalid", "it was warm"))
        progress.add(again)
        progress.start(PLAN[1])
        progress.finish(PLAN[1], record(PLAN[1]))
        progress.start(again)
        shown = screen.lines
        progress.finish(again, record(again))
    assert rows(shown, "━  1/2 trials")
    assert rows(shown, "^1 valid; 1 running$")
    assert rows(shown, "0s  r0  trial 1, attempt 2  starting")
    assert screen.lines[-1].startswith("2/2  r0  trial 1, attempt 2  valid")


def test_what_an_earlier_session_did_counts() -> None:
    first = Course()
    events = [
        {"event": "sweep"},
        *(trial.as_event() for trial in PLAN),
        {**PLAN[0].as_event(), "event": "started"},
        {**PLAN[0].as_event(), "event": "finished", "verdict": "valid", "wall_s": 600.0},
        {"event": "interrupted"},
        {"event": "sweep"},
        *(trial.as_event() for trial in PLAN[1:]),
    ]
    for event in events:
        first.take(event)
    screen = Screen()
    with Progress(PLAN[1:], before=events, beat=STILL, console=on(screen)) as progress:
        progress.start(PLAN[1])
        assert rows(screen.lines, "1/4 trials  about 30 min left")
        progress.finish(PLAN[1], record(PLAN[1]))
    assert screen.lines[-1].startswith("2/4  r1")


def test_expected_durations_make_the_time_left_and_what_happened_corrects_it() -> None:
    screen = Screen()
    expected = {trial.trial_id: 3600.0 for trial in PLAN}
    with Progress(PLAN, expected, beat=STILL, console=on(screen)) as progress:
        assert rows(screen.lines, "0/4 trials  about 4 h left")
        progress.start(PLAN[0])
        progress.finish(PLAN[0], record(PLAN[0], wall_s=1800.0))
        progress.start(PLAN[1])
        assert rows(screen.lines, "1/4 trials  about 1 h 30 min left")


def test_simulated_time_is_no_time_left() -> None:
    screen = Screen()
    with Progress(PLAN, beat=STILL, console=on(screen)) as progress:
        progress.start(PLAN[0])
        progress.finish(PLAN[0], record(PLAN[0], wall_s=60.0, virtual_s=36_000.0))
        progress.start(PLAN[1])
        assert rows(screen.lines, "valid, 10h simulated in 60.00 s")
        assert rows(screen.lines, "1/4 trials  about 3 min left")


def test_nothing_is_said_of_time_while_nothing_is_known() -> None:
    screen = Screen()
    with Progress(PLAN, beat=STILL, console=on(screen)) as progress:
        progress.start(PLAN[0])
        assert rows(screen.lines, r"━  0/4 trials$")


def test_without_a_plan_the_step_is_shown_and_wiped() -> None:
    screen = Screen()
    with Progress(beat=STILL, console=on(screen)) as progress:
        progress.step("opening tracking")
        assert screen.lines == ["     0s  opening tracking ..."]
    assert screen.lines == []


def test_a_terminal_that_is_made_smaller_gets_a_display_of_its_size() -> None:
    screen = Screen(100, 24)
    console = on(screen)
    with Progress(PLAN, beat=STILL, console=console) as progress:
        progress.start(PLAN[0])
        screen.width, screen.height = console.size = (44, 6)  # type: ignore[assignment]
        progress.step("one", PLAN[0])
        progress.finish(PLAN[0], record(PLAN[0], wall_s=30.0))
        progress.start(PLAN[1])
        assert rows(screen.lines, "^━+  1/4 trials  about 2 min left$")
        assert all(len(line) <= 44 for line in screen.lines)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(
    width=st.integers(1, 120),
    height=st.integers(1, 30),
    running=st.integers(0, 12),
    steps=st.lists(names, min_size=12, max_size=12),
    reason=names,
    total=st.integers(0, 12),
)
def test_the_display_fits_any_terminal(
    width: int, height: int, running: int, steps: list[str], reason: str, total: int
) -> None:
    plan = [planned(number, name=step) for number, step in enumerate(steps[:total])]
    course = Course(trial.as_event() for trial in plan)
    if plan:
        failed = {"event": "finished", "verdict": "failed", "reason": reason, "wall_s": 1.0}
        course.take({**plan[0].as_event(), **failed})
    for trial in plan[1 : 1 + running]:
        course.take({**trial.as_event(), "event": "started"})
    frame = Frame(course.standing(), {trial.trial_id: trial.name for trial in plan} | {"": "own"})
    lines = live(frame, width, height)
    assert len(lines) <= max(height - 1, 1)
    console = Console(file=io.StringIO(), width=width, height=height)
    for line in lines:
        assert line.cell_len <= width
        assert len(console.render_lines(line, pad=False)) == 1


@pytest.mark.parametrize("height", range(2, 12))
def test_on_a_low_terminal_the_bar_and_a_trial_stay_longest(height: int) -> None:
    plan = [planned(number) for number in range(8)]
    course = Course(trial.as_event() for trial in plan)
    for trial in plan[:5]:
        course.take({**trial.as_event(), "event": "started"})
    course.take({**plan[0].as_event(), "event": "finished", "verdict": "failed", "reason": "why"})
    lines = [line.plain for line in live(Frame(course.standing(), {}), 80, height)]
    assert "1/8 trials" in lines[0]
    assert len(rows(lines, "r[1-4]  trial 1")) == {2: 0, 3: 1, 4: 1, 5: 1}.get(
        height, min(height - 4 if height >= 8 else height - 5, 4)
    )
    if height > 5:
        assert lines[-1] == "last failed: r0  trial 1: why"


# Several trials at once


def test_trials_that_run_at_once_are_shown_each_with_its_step() -> None:
    screen = Screen()
    with Progress(PLAN, beat=STILL, console=on(screen)) as progress:
        for trial in PLAN[:3]:
            progress.start(trial)
        for number, trial in enumerate(PLAN[:3]):
            progress.step(f"step {number}", trial)
        progress.step("looking on")
        assert screen.lines[1:] == [
            "3 running, 1 left",
            "     0s  looking on ...",
            "     0s  r0  trial 1  step 0 ...",
            "     0s  r1  trial 1  step 1 ...",
            "     0s  r2  trial 1  step 2 ...",
        ]


def test_many_threads_may_tell_it_at_once() -> None:
    screen = Screen(100, 40)
    plan = [planned(number) for number in range(60)]

    def run(trials: Sequence[Planned]) -> None:
        for trial in trials:
            progress.start(trial)
            for step in ("one", "two"):
                progress.step(step, trial)
            progress.finish(trial, record(trial, wall_s=1.0))

    with Progress(plan, beat=QUICK, console=on(screen)) as progress:
        threads = [threading.Thread(target=run, args=(plan[n::6],)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
    told = [re.fullmatch(r"(\d+)/60  r(\d+)  trial 1  valid in 1.00 s", line)
            for line in screen.all_lines]  # fmt: skip
    assert sorted(int(match[2]) for match in told if match) == list(range(60))
    assert sorted(int(match[1]) for match in told if match) == list(range(1, 61))
    assert None not in told


def test_trials_of_other_processes_are_followed_by_their_ledger(tmp_path: Path) -> None:
    ledger, screen = Ledger(tmp_path), Screen()
    ledger.append("sweep")
    with Progress(PLAN, beat=QUICK, console=on(screen)) as progress:
        with progress.following(ledger.path):
            ledger.append("started", trial_id="c2-t1", dir="2", attempt=1)
            wait_for(lambda: rows(screen.lines, "r2  trial 1"))
            told = {"verdict": "valid", "slo": "met", "reason": "", "wall_s": 7.0}
            ledger.append("finished", trial_id="c2-t1", dir="2", attempt=1, **told)
            wait_for(lambda: rows(screen.lines, "^1/4  r2  trial 1  valid in 7.00 s"))
        progress.finish(PLAN[2], record(PLAN[2], wall_s=7.0))  # taken in by who launched it
    assert screen.all_lines == ["1/4  r2  trial 1  valid in 7.00 s"]


# Without a terminal

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "


def test_a_log_gets_one_line_a_trial_with_its_time() -> None:
    console, stream = log()
    with Progress(PLAN, beat=STILL, console=console) as progress:
        progress.step("opening tracking")
        for trial in PLAN:
            progress.start(trial)
            progress.step("pulling")
            progress.finish(trial, record(trial, wall_s=1.0))
        progress.say("the end")
    *trials, last = stream.getvalue().splitlines()
    assert len(trials) == 4
    for number, line in enumerate(trials):
        assert re.fullmatch(rf"{STAMP}{number + 1}/4  r{number}  trial 1  valid in 1\.00 s", line)
    assert last == "the end"


def test_a_log_shows_that_a_long_trial_lives() -> None:
    console, stream = log()
    with Progress(PLAN, beat=QUICK, console=console) as progress:
        progress.start(PLAN[0])
        progress.step("pulling")
        wait_for(lambda: stream.getvalue().count("pulling, ") == 2)  # the second: time alone passed
        progress.step("gathering")
        wait_for(lambda: "gathering" in stream.getvalue())
    for line in stream.getvalue().splitlines():
        assert re.fullmatch(rf"{STAMP}0/4  r0  trial 1  (pulling|gathering), \d+(ms|s)", line)


def test_a_log_is_not_told_more_often_than_the_beat_allows() -> None:
    console, stream = log()
    beat = Beat(refresh_s=0.005, first_s=0.0, step_s=60, same_s=60)
    with Progress(PLAN, beat=beat, console=console) as progress:
        progress.start(PLAN[0])
        wait_for(stream.getvalue)
        for number in range(30):
            progress.step(f"step {number}")
            time.sleep(0.01)
    assert len(stream.getvalue().splitlines()) == 1


def test_forced_colours_make_a_log_no_terminal() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    with Progress(PLAN, beat=QUICK, console=console) as progress:
        progress.start(PLAN[0])
        progress.finish(PLAN[0], record(PLAN[0]))
    assert "\x1b[32mvalid" in stream.getvalue()
    assert not re.search(r"\x1b\[[^m]*[A-Za-ln-z]", stream.getvalue())


class Broken(io.StringIO):
    """A terminal that is closed after so many writes."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.left = writes

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(5, "Input/output error")
        return len(text)


@pytest.mark.parametrize("writes", range(0, 12, 3))
def test_a_terminal_that_goes_away_does_not_end_the_sweep(writes: int) -> None:
    console = Console(file=Broken(writes), force_terminal=True)
    with Progress(PLAN, beat=QUICK, console=console) as progress:
        for trial in PLAN:
            progress.start(trial)
            progress.finish(trial, record(trial))
        progress.say("the end")


# The command itself


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("watched"))


SWEEP = ("run.py", "-m", "replicas=1,2", "qps=5,10", "deployments=2", "nodes=2", "tracking=none",
         "order=as_given")  # fmt: skip


def test_a_sweep_on_a_terminal_leaves_lines_table_and_cursor(project: Path) -> None:
    screen = Screen(100, 30)
    seen: list[str] = []
    status = run_on_terminal(
        project, *SWEEP, screen=screen, watch=lambda _: seen.extend(screen.lines)
    )
    assert status == 0
    assert not screen.cursor_hidden
    trials = rows(screen.all_lines, r"^\d/4  r\d q\d+  trial 1  valid, \S+ simulated in \S+ s$")
    assert [line[:12] for line in trials] == ["1/4  r1 q5  ", "2/4  r1 q10 ", "3/4  r2 q5  ",
                                              "4/4  r2 q10 "]  # fmt: skip
    assert rows(seen, r"^ +\S+s  (checking|opening)")
    assert rows(seen, r"^━+  \d/4 trials  a few seconds left$")
    assert rows(seen, r"^\d valid; 1 running, \d left$")
    assert not rows(screen.all_lines, "━")  # the display is wiped
    assert rows(screen.lines, "^summary:")


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_gives_the_cursor_back(project: Path) -> None:
    screen = Screen(100, 30)
    sent: list[int] = []

    def interrupt(process: subprocess.Popen[bytes]) -> None:
        if rows(screen.lines, r"━  [1-9]/\d+ trials") and not sent:
            sent.append(process.pid)
            os.kill(process.pid, signal.SIGINT)

    status = run_on_terminal(project, *SWEEP, "trials=9", screen=screen, watch=interrupt)
    assert (status, screen.cursor_hidden) == (130, False)
    assert not rows(screen.all_lines, "━")


@pytest.mark.slow
def test_a_small_terminal_without_colour_is_enough(project: Path) -> None:
    screen = Screen(40, 5)
    widest = itertools.count()
    status = run_on_terminal(
        project, *SWEEP, screen=screen, watch=lambda _: next(widest),
        environment={"NO_COLOR": "1"},
    )  # fmt: skip
    assert status == 0
    assert rows(screen.all_lines, r"^4/4  r2 q10  trial 1  valid")
    assert not rows(screen.all_lines, "━  ")


@pytest.mark.slow
def test_a_reader_of_the_log_that_leaves_does_not_end_the_sweep(project: Path) -> None:
    with subprocess.Popen(
        [sys.executable, *SWEEP, "hydra.sweep.dir=unread"], cwd=project,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(timeout=60) == 0
    finished = [each for each in Ledger(project / "unread").read() if each["event"] == "finished"]
    assert len(finished) == 4
