"""`imgpull status`: what is told of a sweep that runs, ended, was killed, or left half a ledger."""

import fcntl
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import write_trial
from commands import Ended, copy_project, imgpull, python, run_py
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgpull.errors import ReportError
from imgpull.sweep.ledger import NAME, Ledger
from imgpull.sweep.watching.status import newest_sweep, read_status

SWEEP = ("-m", "replicas=1,2", "deployments=2", "nodes=2", "tracking=none", "order=as_given")


def page(ended: Ended) -> dict[str, str]:
    """What `imgpull status` printed, by the title of each line; the last of each."""
    assert ended.status == 0, ended.err
    return {
        title: words.strip() for title, _, words in (x.partition(":") for x in lines(ended.out))
    }


def lines(text: str) -> list[str]:
    return text.splitlines()


def told(root: Path, sweep: Path) -> dict[str, Any]:
    """What `imgpull status --json` says."""
    ended = imgpull(root, "status", str(sweep), "--json")
    assert ended.status == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


@contextmanager
def held(sweep: Path) -> Iterator[None]:
    """As a sweep holds its ledger while it runs."""
    with (sweep / NAME).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# Sweeps that were run


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A sweep of two trials."""
    return run_py(tmp_path_factory.mktemp("swept"), *SWEEP)


def test_a_sweep_that_ended_is_told_as_its_table_has_it(tmp_path: Path, swept: Ended) -> None:
    shown = page(imgpull(tmp_path, "status", str(swept.sweep)))
    assert shown["state"] == "ended"
    assert shown["trials"] == "2 of 2 done"
    assert shown["verdicts"] == "2 valid"
    assert re.fullmatch(r"\d+s so far; on the simulated clusters' clocks \S+m\S+s", shown["time"])
    assert shown["next"] == f"imgpull report {swept.sweep}"
    assert set(shown) == {"sweep", "state", "trials", "verdicts", "time", "next"}


def test_scripts_get_the_same_and_more(tmp_path: Path, swept: Ended) -> None:
    found = told(tmp_path, swept.sweep)
    assert (found["state"], found["planned"], found["done"], found["left"]) == ("ended", 2, 2, 0)
    assert found["verdicts"] == {"valid": 2}
    assert found["virtual_s"] == sum(record.virtual_s or 0.0 for record in swept.records)
    assert (found["session"]["pid"], found["session"]["host"]) == (os.getpid(), platform.node())
    assert found["cost"] == 0.0
    assert found["schema"] == 1


def test_status_writes_nothing(tmp_path: Path, swept: Ended) -> None:
    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in swept.sweep.rglob("*")}

    before = state()
    imgpull(tmp_path, "status", str(swept.sweep))
    assert state() == before


def test_without_its_ledger_a_sweep_is_told_from_its_directories(
    tmp_path: Path, swept: Ended
) -> None:
    copy = shutil.copytree(swept.sweep, tmp_path / "copy")
    (copy / NAME).unlink()
    shown = page(imgpull(tmp_path, "status", str(copy)))
    assert "no ledger" in shown["state"]
    assert shown["trials"] == "2 of 2 done; how many were planned is not known"
    assert shown["verdicts"] == "2 valid"
    assert list(copy.glob(NAME)) == []


@pytest.mark.parametrize("keep", ["sweep", "planned", "started"])
def test_a_trial_whose_line_is_missing_is_done_when_its_job_json_is_there(
    tmp_path: Path, swept: Ended, keep: str
) -> None:
    copy = shutil.copytree(swept.sweep, tmp_path / "copy")
    kinds = ("sweep", "planned", "started")
    kept = kinds[: kinds.index(keep) + 1]
    text = (swept.sweep / NAME).read_text().splitlines(keepends=True)
    (copy / NAME).write_text("".join(line for line in text if json.loads(line)["event"] in kept))
    found = told(tmp_path, copy)
    assert (found["planned"], found["done"], found["verdicts"]) == (2, 2, {"valid": 2})
    assert found["state"] == "killed"


def test_without_a_name_it_is_the_newest_sweep(tmp_path: Path) -> None:
    for name in ("2026-11-24_10-00-00_aaaa", "2026-11-25_10-00-00_bbbb"):
        write_trial(tmp_path / "multirun" / name / "0")
    (tmp_path / "multirun" / "2026-12-01_notes").mkdir()
    assert page(imgpull(tmp_path, "status"))["sweep"] == "multirun/2026-11-25_10-00-00_bbbb"
    assert newest_sweep(tmp_path / "multirun").name == "2026-11-25_10-00-00_bbbb"


@pytest.mark.slow
def test_a_sweep_is_followed_while_it_runs_and_when_it_is_killed(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    sweep = project / "followed"
    more = (*SWEEP, "trials=40", f"hydra.sweep.dir={sweep}")
    process = subprocess.Popen(
        [sys.executable, "run.py", *more], cwd=project,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        found = _running(sweep)
        shown = python(project, "-m", "imgpull.cli", "status", str(sweep))
    finally:
        process.kill()
        process.wait()
    assert found["session"] == {
        **found["session"], "number": 1, "pid": process.pid, "host": platform.node(),
    }  # fmt: skip
    assert (found["planned"], found["done"] + len(found["running"]) + found["left"]) == (80, 80)
    assert found["eta_s"] > 0
    assert f"state:    running on {platform.node()} (pid {process.pid})" in shown.out
    assert f"next:     imgpull status --watch {sweep}" in shown.out
    killed = read_status(sweep)
    assert killed.state == "killed"
    assert killed.standing.running == ()
    assert killed.standing.left == 80 - killed.standing.done
    resumed = python(project, "run.py", *SWEEP, f"hydra.sweep.dir={sweep}", "resume=auto")
    assert resumed.status == 0, resumed.err
    after = read_status(sweep)
    assert (after.state, after.standing.session.number, after.standing.left) == ("ended", 2, 0)
    assert after.standing.done >= killed.standing.done


def _running(sweep: Path) -> dict[str, Any]:
    """The status of a sweep once a trial of it is done and another runs."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if (sweep / NAME).exists():
            status = read_status(sweep)
            if status.state == "running" and status.standing.done and status.standing.running:
                return status.as_json()
        time.sleep(0.01)
    raise AssertionError("no trial was ever done")


# Ledgers written by hand


def write(sweep: Path, *events: dict[str, Any], begun_s: float = 0.0) -> Path:
    """A ledger of these events; `after_s` of an event is when, `begun_s` how long ago all began."""
    sweep.mkdir(exist_ok=True)
    start = datetime.now(UTC) - timedelta(seconds=begun_s)
    with (sweep / NAME).open("a") as file:
        for event in events:
            after_s = event.pop("after_s", 0.0)
            at = start + timedelta(seconds=after_s)
            plain = {"at": at.isoformat(timespec="milliseconds"), "schema": 1}
            file.write(json.dumps({**plain, "clock_s": 50 + after_s, **event}) + "\n")
    return sweep


def of(number: int, **data: Any) -> dict[str, Any]:
    return {"trial_id": f"c{number}-t1", "attempt": 1, "dir": str(number), **data}


def begun(count: int = 3, **settings: Any) -> list[dict[str, Any]]:
    """The first lines of a sweep of so many trials."""
    return [
        {"event": "sweep", "settings": settings, "excluded": [], "pid": 4711, "host": "lab"},
        *(
            {"event": "planned", **of(n, cell_id=f"c{n}", trial=1, name=f"r{n}")}
            for n in range(count)
        ),
    ]


def over(number: int, after_s: float, **data: Any) -> list[dict[str, Any]]:
    """The lines of a trial that took 100 s."""
    told = {"verdict": "valid", "slo": "met", "reason": "", "wall_s": 100.0, "virtual_s": None}
    return [
        {"event": "started", "after_s": after_s, **of(number)},
        {"event": "finished", "after_s": after_s + 100, **of(number, **{**told, **data})},
    ]


def test_a_running_sweep_is_told_with_its_trial_step_and_time_left(tmp_path: Path) -> None:
    sweep = write(
        tmp_path / "s", *begun(4, max_hours=2, max_cost=5.0), *over(0, 0, slo="missed", cost=1.5),
        *over(1, 100, verdict="invalid", reason="the image\nwas warm", cost=1.5),
        {"event": "started", "after_s": 200.0, **of(2)}, begun_s=240,
    )  # fmt: skip
    (sweep / "2").mkdir()
    log = "2026-11-25T00:00:01+00:00 starting\n2026-11-25T00:00:02+00:00 waiting for pods\nnoise\n"
    (sweep / "2" / "run.log").write_text(log)
    with held(sweep):
        shown = page(imgpull(tmp_path, "status", str(sweep)))
    assert shown["state"] == "running on lab (pid 4711)"
    assert shown["trials"] == "2 of 4 done, 1 running, 1 left"
    assert shown["verdicts"] == "1 valid, 1 invalid, 1 slo missed"
    assert re.fullmatch(r"r2  trial 1  waiting for pods, for 4\ds", shown["running"])
    assert shown["failure"] == "r1  trial 1  invalid: the image was warm (job 1)"
    assert re.fullmatch(r"4m\d*s? so far, about [23] min left", shown["time"])
    assert shown["limits"] == "max_hours=2, 1.93 h of them left; max_cost=5, 2 of it left"
    assert shown["next"] == f"imgpull status --watch {sweep}"


def test_a_killed_sweep_says_what_was_cut_off_and_how_to_go_on(tmp_path: Path) -> None:
    sweep = write(
        tmp_path / "s", *begun(), *over(0, 0), {"event": "started", "after_s": 100.0, **of(1)}
    )
    shown = page(imgpull(tmp_path, "status", str(sweep)))
    assert shown["state"].startswith("killed")
    assert shown["trials"] == "1 of 3 done, 2 left"
    assert shown["cut off"] == "r1  trial 1, will run again"
    assert shown["time"] == "1m40s so far, about 3 min more once resumed"
    assert shown["next"] == f"imgpull resume {sweep}"


@pytest.mark.parametrize(
    ("end", "state"),
    [
        ([{"event": "interrupted"}], "interrupted"),
        ([{"event": "interrupted"}, {"event": "ended", "status": 130}], "interrupted"),
        ([{"event": "ended", "status": 130}], "interrupted"),
        ([{"event": "stopped", "why": "max_hours=1: 1 h spent", "left": ["c1-t1"]},
          {"event": "ended", "status": 0}], "stopped: max_hours=1: 1 h spent"),
        ([{"event": "ended", "status": 1}], "broke: it ended with trials left (exit status 1)"),
        ([], "killed: its process is gone and said nothing"),
    ],
)  # fmt: skip
def test_how_a_sweep_ended_is_told(tmp_path: Path, end: list[dict[str, Any]], state: str) -> None:
    sweep = write(tmp_path / "s", *begun(), *over(0, 0), *end)
    assert page(imgpull(tmp_path, "status", str(sweep)))["state"] == state
    assert read_status(sweep).standing.left == 2


def test_sessions_are_counted_and_the_last_one_speaks(tmp_path: Path) -> None:
    sweep = write(tmp_path / "s", *begun(), *over(0, 0), {"event": "interrupted", "after_s": 100.0})
    write(sweep, *begun(3))
    write(sweep, *over(1, 0), *over(2, 100), {"event": "ended", "status": 0, "after_s": 200.0})
    shown = page(imgpull(tmp_path, "status", str(sweep)))
    assert shown["state"] == "ended, resumed 1 time"
    assert shown["time"] == "5m so far in all sessions"


def test_what_the_matrix_left_out_is_counted(tmp_path: Path) -> None:
    first, *rest = begun()
    first["excluded"] = [{"overrides": [], "factors": {}, "by": "qps>5"}] * 2
    sweep = write(tmp_path / "s", first, *rest)
    assert page(imgpull(tmp_path, "status", str(sweep)))["excluded"] == "2 cells"


def test_a_cost_that_is_not_known_is_said_so_never_zero(tmp_path: Path) -> None:
    sweep = write(tmp_path / "s", *begun(2, max_cost=5.0), *over(0, 0, cost=None))
    shown = page(imgpull(tmp_path, "status", str(sweep)))
    assert shown["limits"] == "max_cost=5, what was spent is not known"
    assert told(tmp_path, sweep)["cost_left"] is None


def test_garbage_between_lines_costs_only_itself(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain", *begun(), *over(0, 0))
    torn = tmp_path / "torn"
    torn.mkdir()
    junk = [b"\xff\x00\n", b"{\n", b"[1]\n", b"[" * 5000 + b"\n", b'{"event": 5}\n', b"\n",
            b'{"event": "finished", "trial_id": [], "wall_s": "x"}\n']  # fmt: skip
    kept = (plain / NAME).read_bytes().splitlines(keepends=True)
    with (torn / NAME).open("wb") as file:
        for number, line in enumerate(kept):
            file.write(line + junk[number % len(junk)])
        file.write(b'{"event": "fini')
    assert read_status(torn).standing == read_status(plain).standing


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300), st.integers(0, 2000))
def test_any_bytes_are_a_ledger_that_tells_something(
    tmp_path: Path, junk: bytes, where: int
) -> None:
    sweep = write(tmp_path / "s", *begun(), *over(0, 0))
    whole = (sweep / NAME).read_bytes()
    (sweep / NAME).write_bytes(whole[:where] + junk + whole[where:])
    stands = read_status(sweep).standing
    (sweep / NAME).unlink()
    assert stands.done + len(stands.running) + stands.left == stands.planned


@pytest.mark.parametrize("content", ["", "\n\n", "garbage"])
def test_a_sweep_that_has_written_nothing_yet_is_running_if_it_is_held(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / NAME).write_text(content)
    shown = page(imgpull(tmp_path, "status", str(tmp_path)))
    assert (shown["state"].split(":")[0], shown["trials"]) == ("not known", "none planned yet")
    with held(tmp_path):
        assert page(imgpull(tmp_path, "status", str(tmp_path)))["state"] == "running"


def test_a_ledger_of_a_later_version_is_refused_by_name(tmp_path: Path) -> None:
    sweep = write(tmp_path / "s", *begun(), {"event": "finished", "schema": 2, **of(0)})
    ended = imgpull(tmp_path, "status", str(sweep))
    assert ended.status == 2
    assert ended.err.startswith(f"error: {sweep / NAME}: schema 2, this version reads 1")


def test_a_text_in_a_ledger_cannot_steer_the_terminal(tmp_path: Path) -> None:
    reason = "\x1b[2Jgone\r\nnext: rm"
    sweep = write(tmp_path / "s", *begun(), *over(0, 0, verdict="failed", reason=reason),
                  {"event": "stopped", "why": reason})  # fmt: skip
    ended = imgpull(tmp_path, "status", str(sweep))
    assert "\x1b" not in ended.out
    assert "\r" not in ended.out
    assert len([line for line in lines(ended.out) if line.startswith("next:")]) == 1


@pytest.mark.parametrize("what", ["nothing", "a file", "a trial", "no directory"])
def test_what_is_no_sweep_is_told_with_what_to_name(tmp_path: Path, what: str) -> None:
    asked = tmp_path / "asked"
    if what == "nothing":
        asked.mkdir()
    elif what == "a file":
        asked.write_text("")
    elif what == "a trial":
        asked = write_trial(tmp_path / "s" / "0")
    ended = imgpull(tmp_path, "status", str(asked))
    assert ended.status == 2
    where = asked.parent if what == "a trial" else "multirun/DATE_TIME_xxxx"
    assert ended.err == f"error: {asked} holds no sweep\n  imgpull status {where}\n"


def test_without_any_sweep_there_is_none_to_tell_of(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="holds no sweep"):
        newest_sweep(tmp_path / "multirun")


# The lock


def test_status_takes_no_lock_away_from_a_sweep(tmp_path: Path) -> None:
    """However often it is asked meanwhile, a sweep that begins gets its ledger."""
    sweep = write(tmp_path / "s", *begun())
    ask = "import sys; from pathlib import Path\n"
    ask += "from imgpull.sweep.watching.status import read_status\n"
    ask += "while True: read_status(Path(sys.argv[1]))"
    asking = [subprocess.Popen([sys.executable, "-c", ask, str(sweep)]) for _ in range(2)]
    try:
        time.sleep(0.5)
        for _ in range(100):
            with Ledger(sweep).held():
                assert read_status(sweep).state == "running"
    finally:
        for process in asking:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert read_status(sweep).state == "killed"


def test_a_sweep_of_another_user_is_read_who_may_not_write_it() -> None:
    with tempfile.TemporaryDirectory() as directory:
        sweep = write(Path(directory) / "s", *begun(), *over(0, 0))
        Path(directory).chmod(0o755)
        (sweep / NAME).chmod(0o444)
        sweep.chmod(0o555)
        with nobody():
            assert not os.access(sweep, os.W_OK, effective_ids=True)
            found = read_status(sweep)
            with pytest.raises(OSError, match="denied"):
                (sweep / "x").touch()
        sweep.chmod(0o755)
    assert (found.state, found.standing.done) == ("killed", 1)


@contextmanager
def nobody() -> Iterator[None]:
    """As a user who may not write, where tests are run by root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# What it costs

HEAVY = ("hydra", "omegaconf", "mlflow", "pandas", "numpy", "yaml", "rich", "kubernetes")


def test_status_imports_no_heavy_library(tmp_path: Path) -> None:
    sweep = write(tmp_path / "s", *begun())
    ask = "import sys; from imgpull.cli import app\napp(sys.argv[1:], standalone_mode=False)\n"
    ask += "print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", ask, "status", str(sweep)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert _heavy(done.stdout.splitlines()[-1].split()) == []


def _heavy(modules: Sequence[str]) -> list[str]:
    return sorted({name.split(".")[0] for name in modules} & set(HEAVY))


def test_watching_ends_with_the_sweep(tmp_path: Path) -> None:
    sweep = write(tmp_path / "s", *begun(1), begun_s=10)
    with held(sweep), subprocess.Popen(
        [sys.executable, "-m", "imgpull.cli", "status", "--watch", str(sweep)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
    ) as process:  # fmt: skip
        assert process.stdout is not None
        first = [next(process.stdout) for _ in range(2)]
        write(sweep, *over(0, 0), {"event": "ended", "status": 0})
        (sweep / NAME).replace(sweep / "held")  # the lock stays with the file that was
        shutil.copy(sweep / "held", sweep / NAME)
        rest, _ = process.communicate(timeout=30)
    assert first[1].startswith("state:    running")
    assert rest.splitlines()[-1].startswith("next:     imgpull report")
    assert process.returncode == 0
