"""How a sweep goes on: by its content, by `imgpull resume`, without its ledger; when it may not."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import ROOT, Ended, copy_project, imgpull, python, run_py, verdicts

from imgpull.sweep.again import resumed_arguments
from imgpull.sweep.ledger import Ledger

SMALL = ("nodes=2", "deployments=2", "image=resource_consumer", "tracking=none")
TWO = ("-m", "replicas=1,2", *SMALL)
Said = Callable[[Ended], str]


def started(sweep: Path) -> list[str]:
    return [str(e["trial_id"]) for e in Ledger(sweep).read() if e["event"] == "started"]


# By content


def test_added_levels_and_trials_run_only_the_new_ones(tmp_path: Path) -> None:
    first = run_py(tmp_path, *TWO)
    wider = run_py(tmp_path, "-m", "replicas=1,2,3", *SMALL, "resume=auto")
    assert wider.sweep == first.sweep
    assert f"continuing {first.sweep}: 1 cell new to it" in wider.err
    longer = run_py(tmp_path, "-m", "replicas=1,2,3", *SMALL, "trials=2", "resume=auto")
    assert longer.sweep == first.sweep
    assert "continuing" not in longer.err  # the same cells
    assert len(started(first.sweep)) == len(set(started(first.sweep))) == 6
    done = run_py(tmp_path, "-m", "replicas=1,2,3", *SMALL, "trials=2", "resume=auto")
    assert done.out == f"nothing to do: every trial is done in {first.sweep}\n"


def test_fewer_cells_go_on_with_the_sweep_that_holds_them(tmp_path: Path) -> None:
    first = run_py(tmp_path, *TWO)
    fewer = run_py(tmp_path, "-m", "replicas=2", *SMALL, "trials=2", "resume=auto")
    assert fewer.sweep == first.sweep
    assert "1 further cell left as they are" in fewer.err
    assert len(started(first.sweep)) == 3


def test_trials_that_a_narrower_command_leaves_are_told_with_the_command_for_them(
    tmp_path: Path,
) -> None:
    first = run_py(tmp_path, *TWO, "trials=2", "max_hours=1e-9")
    assert verdicts(first.sweep) == []
    narrow = imgpull(
        tmp_path, "resume", str(first.sweep), "replicas=1", "trials=1", "max_hours=null"
    )
    again = f"imgpull resume {first.sweep} replicas=1,2 trials=2"
    told = f"what was asked is done; 3 trials of earlier commands are not: {again}"
    assert narrow.err.splitlines()[-1] == told
    assert imgpull(tmp_path, "resume", str(first.sweep)).out.splitlines() == [told]
    status = imgpull(tmp_path, "status", str(first.sweep)).out
    assert "1 of 1 done; 3 trials of earlier commands are not" in status
    assert status.splitlines()[-1] == f"next:     {again}"
    rest = imgpull(tmp_path, *again.split()[1:])
    assert verdicts(first.sweep) == ["valid"] * 4
    assert "earlier commands" not in rest.err + imgpull(tmp_path, "status", str(first.sweep)).out


@pytest.mark.parametrize(
    ("stop", "lifted"),
    [
        ("max_hours=1e-9", "max_hours=…"),
        ("on_failure=stop_after:1", "on_failure=continue"),
    ],
)
def test_the_next_step_lifts_what_stopped_the_sweep(tmp_path: Path, stop: str, lifted: str) -> None:
    none_works = ("engine.faults.pull_shares.not_found=1", "wait_timeout=1m")
    first = run_py(tmp_path, *TWO, *none_works, "on_failure=stop_after:3")
    more = imgpull(tmp_path, "resume", str(first.sweep), "trials=2", stop)
    again = f"imgpull resume {first.sweep} {lifted}"
    assert re.search(rf"\d of 4 trials not done; go on with: {re.escape(again)}$", more.err)
    status = imgpull(tmp_path, "status", str(first.sweep)).out
    assert status.splitlines()[-1] == f"next:     {again}"


def test_sweeps_that_only_overlap_are_not_continued(tmp_path: Path) -> None:
    first = run_py(tmp_path, *TWO)
    other = run_py(tmp_path, "-m", "replicas=2,3", *SMALL, "resume=auto")
    assert other.status == 0
    assert other.sweep != first.sweep
    assert len(started(other.sweep)) == 2


def test_the_same_cells_are_preferred_to_a_newer_sweep_that_holds_them(tmp_path: Path) -> None:
    same, wider = (tmp_path / "multirun" / name for name in ("2026-01-01_a", "2026-01-02_b"))
    run_py(tmp_path, "replicas=1", *SMALL, f"hydra.sweep.dir={same}")
    run_py(tmp_path, *TWO, f"hydra.sweep.dir={wider}")
    again = run_py(tmp_path, "replicas=1", *SMALL, "trials=2", "resume=auto")
    assert again.sweep == same


# imgpull resume


def cut_off(sweep: Path, number: int) -> None:
    """Leave of a trial what a killed process leaves."""
    (sweep / str(number) / "job.json").unlink()


def test_resume_runs_the_recorded_command_from_any_directory(tmp_path: Path) -> None:
    first = run_py(tmp_path, *TWO)
    cut_off(first.sweep, 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = imgpull(elsewhere, "resume", str(first.sweep))
    assert again.status == 0, again.err
    assert again.sweep == first.sweep
    assert verdicts(first.sweep) == ["valid", "valid"]
    assert list(elsewhere.iterdir()) == []
    assert (first.sweep / "1/cut-off-1/pulls.csv").exists()
    more = imgpull(tmp_path, "resume", str(first.sweep), "trials=2")
    assert more.status == 0
    assert len(verdicts(first.sweep)) == 4
    done = imgpull(tmp_path, "resume", str(first.sweep))  # the newest command: two trials
    assert "nothing to do" in done.out
    assert {r.attempt for r in more.records} == {1}


def test_resume_with_another_physical_field_is_refused_with_what_differs(tmp_path: Path) -> None:
    first = run_py(tmp_path, *TWO)
    before = (first.sweep / "ledger.jsonl").read_bytes()
    refused = imgpull(tmp_path, "resume", str(first.sweep), "cluster.node.nic_mbit_s=333", "qps=4")
    assert refused.status == 2
    assert "cluster.node.nic_mbit_s: 12500.0 -> 333.0" in refused.err
    assert "qps: 10.0 -> 4.0" in refused.err
    assert "leave out resume" in refused.err
    assert f"the sweep's own command: imgpull resume {first.sweep})" in refused.err
    assert (first.sweep / "ledger.jsonl").read_bytes() == before
    other_seed = imgpull(tmp_path, "resume", str(first.sweep), "seed=7")
    assert other_seed.status == 2
    assert "seed: 0 -> 7" in other_seed.err


def test_resume_after_conf_was_edited_is_refused_with_what_differs(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    sweep = project / "multirun" / "mine"
    assert python(project, "run.py", *TWO, f"hydra.sweep.dir={sweep}").status == 0
    conf = project / "conf/cluster/aks_d4ds_v5.yaml"
    conf.write_text(
        conf.read_text().replace("max_concurrent_downloads: 3", "max_concurrent_downloads: 7")
    )
    refused = python(project, "-m", "imgpull.cli", "resume", str(sweep))
    assert refused.status == 2
    assert "cluster.containerd.max_concurrent_downloads: 3 -> 7" in refused.err
    assert "undo the change in conf/" in refused.err
    assert "imgpull resume" not in refused.err  # that is what was refused


def test_trials_of_one_cell_never_run_two_tests(tmp_path: Path) -> None:
    """templates/ is no part of a cell's identity, so it is looked at where a sweep goes on."""
    project = copy_project(tmp_path)
    sweep = project / "multirun" / "mine"
    assert python(project, "run.py", *TWO, f"hydra.sweep.dir={sweep}").status == 0
    ledger = (sweep / "ledger.jsonl").read_bytes()
    template = project / "templates/deployment.yaml"
    before = template.read_text("utf-8")
    template.write_text(
        before.replace("  template:", "  revisionHistoryLimit: 7\n  template:", 1), "utf-8"
    )
    more = python(project, "-m", "imgpull.cli", "resume", str(sweep), "trials=2")
    assert more.status == 2
    assert "renders another test than its trials" in more.err
    assert "+  revisionHistoryLimit: 7" in more.err
    assert "restore templates/" in more.err
    assert (sweep / "ledger.jsonl").read_bytes() == ledger
    # Where nothing is left to run, nothing can differ.
    assert "nothing to do" in python(project, "-m", "imgpull.cli", "resume", str(sweep)).out
    template.write_text(before, "utf-8")
    assert python(project, "-m", "imgpull.cli", "resume", str(sweep), "trials=2").status == 0


def test_what_holds_no_sweep_cannot_be_resumed(tmp_path: Path) -> None:
    refused = imgpull(tmp_path, "resume", str(tmp_path))
    assert refused.status == 2
    assert "remembers no command" in refused.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-m", "a=1,2", "trials=2"], ["-m", "a=1,2", "trials=2", "b=3"]),
        (["a=1", "resume=auto", "hydra.sweep.dir=x", "until=run"], ["a=1", "b=3"]),
        (["--config-dir", "c", "-m", "a=1"], ["--config-dir", "c", "-m", "a=1", "b=3"]),
        (["a=1", "--multirun"], ["--multirun", "a=1", "b=3"]),
    ],
)
def test_further_overrides_come_last_so_that_they_win(
    arguments: list[str], expected: list[str]
) -> None:
    found = resumed_arguments(arguments, Path("/x/it's"), ["b=3"])
    assert found == [*expected, "resume=auto", r"hydra.sweep.dir='/x/it\'s'"]


def test_two_resumes_of_one_sweep_at_once_the_second_is_refused(tmp_path: Path) -> None:
    first = run_py(tmp_path, *TWO)
    many = [sys.executable, "-m", "imgpull.cli", "resume", str(first.sweep), "trials=40"]
    with subprocess.Popen(
        many, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as one:
        while len(started(first.sweep)) < 3 and one.poll() is None:
            pass
        second = subprocess.run(many, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert one.poll() is None
        one.kill()
    assert second.returncode == 2
    assert "still running in another process" in second.stderr
    # Killed, it holds nothing: the lock was the kernel's.
    with Ledger(first.sweep).held():
        assert len(started(first.sweep)) == len(set(started(first.sweep)))


def test_sweeps_started_at_the_same_moment_do_not_share_a_directory(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run.py"), "replicas=1", *SMALL]
    both = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120) and process.returncode for process in both] == [0, 0]
    sweeps = list((tmp_path / "multirun").iterdir())
    assert len(sweeps) == 2
    assert [verdicts(sweep) for sweep in sweeps] == [["valid"], ["valid"]]


# Without its ledger, and with a damaged one


def test_a_lost_ledger_is_made_again_from_the_directories(tmp_path: Path) -> None:
    first = run_py(tmp_path, *TWO, "trials=2")
    before = {
        kind: [e for e in first.events if e["event"] == kind] for kind in ("planned", "finished")
    }
    summary = (first.sweep / "summary.csv").read_text()
    cut_off(first.sweep, 3)
    (first.sweep / "ledger.jsonl").unlink()
    assert imgpull(tmp_path, "report", str(first.sweep)).status == 0
    assert imgpull(tmp_path, "status", str(first.sweep)).status == 0
    again = imgpull(tmp_path, "resume", str(first.sweep))
    assert again.status == 0, again.err
    assert "was lost: made again" in again.err
    assert len(started(first.sweep)) == 4  # three told again, one run
    after = [e for e in again.events if e["event"] == "finished"]
    keys = ("trial_id", "attempt", "dir", "position", "verdict", "reason", "slo", "cost")
    same = [{key: event[key] for key in keys} for event in after[:3]]
    assert same == [{k: e[k] for k in keys} for e in before["finished"] if e["dir"] != "3"]
    # The trial that was cut off keeps its number, so that the summary is as if nothing had been.
    assert sorted((e["trial_id"], e["dir"]) for e in after) == sorted(
        (e["trial_id"], e["dir"]) for e in before["planned"]
    )
    kept = [line.split(",")[:6] for line in (first.sweep / "summary.csv").read_text().splitlines()]
    assert [line.split(",")[0] for line in summary.splitlines()] == [line[0] for line in kept]


def test_the_same_command_finds_a_sweep_whose_ledger_is_lost(tmp_path: Path) -> None:
    first = run_py(tmp_path, *TWO)
    (first.sweep / "ledger.jsonl").unlink()
    again = run_py(tmp_path, *TWO, "resume=auto")
    assert (again.status, again.sweep) == (0, first.sweep)
    assert len(started(first.sweep)) == 2  # told again, none run


def test_garbage_in_the_ledger_is_named_and_costs_no_trial(tmp_path: Path) -> None:
    first = run_py(tmp_path, *TWO)
    path = first.sweep / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    finished = next(i for i, line in enumerate(lines) if b'"finished"' in line)
    lines[finished] = b"\x00\xff{garbage\n"
    lines.insert(finished + 1, b'{"event": "planned"}\n')  # a line that says nothing is garbage too
    path.write_bytes(b"".join(lines))
    again = run_py(tmp_path, *TWO, "trials=2", "resume=auto")
    assert again.status == 0
    assert f"ledger.jsonl: lines {finished + 1}, {finished + 2} cannot be read" in again.err
    assert len(started(first.sweep)) == len(set(started(first.sweep))) == 4
    told = [e["trial_id"] for e in again.events if e["event"] == "finished"]
    assert len(told) == len(set(told)) == 4  # the line that was lost is told again
    assert path.read_bytes().startswith(b"".join(lines))


@pytest.mark.parametrize("content", [b"{", b'{"a": "\xff"}', None], ids=["json", "utf-8", "os"])
def test_a_record_that_cannot_be_read_is_named_and_hides_no_other(
    tmp_path: Path, content: bytes | None
) -> None:
    first = run_py(tmp_path, *TWO)
    record = first.sweep / "0" / "job.json"
    again = shutil.copytree(first.sweep / "0", first.sweep / "0" / "attempt-2") / "job.json"
    again.write_text(record.read_text().replace('"attempt": 1', '"attempt": 2'))
    record.unlink()
    if content is None:
        record.mkdir()  # whoever is root can read every file, but no directory
    else:
        record.write_bytes(content)
    beside = run_py(tmp_path, *TWO, "until=plan")
    assert (beside.status, beside.err) == (0, "")
    more = run_py(tmp_path, *TWO, "trials=2", "resume=auto")
    assert more.status == 0, more.err
    assert f"warning: left out: {record}" in more.err
    assert "not done" not in more.out
    assert len((more.sweep / "summary.csv").read_text().splitlines()) == 1 + 4
    assert (more.sweep / "report.html").exists()


def test_a_copied_sweep_is_resumed_where_it_lies_now(tmp_path: Path) -> None:
    first = run_py(tmp_path, *TWO)
    copy = tmp_path / "copy"
    shutil.copytree(first.sweep, copy)
    again = imgpull(tmp_path, "resume", str(copy), "trials=2")
    assert (again.status, again.sweep) == (0, copy)
    assert (len(verdicts(copy)), len(verdicts(first.sweep))) == (4, 2)
