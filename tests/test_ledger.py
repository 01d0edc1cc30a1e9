"""The ledger survives what happens to files: crashes, half lines, foreign bytes, two writers."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT, python
from hypothesis import given
from hypothesis import strategies as st

from imgpull.errors import ConfigError, LedgerError
from imgpull.results.record import job_directories, read_record
from imgpull.sweep.ledger import NAME, Ledger

scalars = st.none() | st.booleans() | st.integers() | st.text()
values = st.recursive(scalars, lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8)
events = st.dictionaries(st.sampled_from(["trial_id", "dir", "verdict", "wall_s"]), values)


@contextmanager
def ledger() -> Iterator[Ledger]:
    """A ledger in a directory of its own, for each example of a law."""
    with tempfile.TemporaryDirectory() as directory:
        yield Ledger(Path(directory))


def told(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events without what the ledger adds to each."""
    added = ("at", "schema", "clock_s")
    return [{k: v for k, v in event.items() if k not in added} for event in found]


@given(st.lists(events, max_size=5))
def test_events_are_read_back_in_the_order_they_were_written(written: list[dict[str, Any]]) -> None:
    with ledger() as book:
        for event in written:
            book.append("finished", **event)
        assert told(book.read()) == [{"event": "finished", **event} for event in written]


def test_every_event_says_when_and_in_which_schema(tmp_path: Path) -> None:
    Ledger(tmp_path).append("ended", status=0)
    (event,) = Ledger(tmp_path).read()
    assert datetime.fromisoformat(event["at"]).tzinfo is not None
    assert event["schema"] == 1


def test_a_sweep_without_a_ledger_has_no_history(tmp_path: Path) -> None:
    assert Ledger(tmp_path).read() == []


@given(st.lists(events, min_size=1, max_size=3), events)
def test_what_is_written_is_never_changed(
    first: list[dict[str, Any]], last: dict[str, Any]
) -> None:
    with ledger() as book:
        book.append_all(first)
        before = book.path.read_bytes()
        book.append("finished", **last)
        assert book.path.read_bytes().startswith(before)


def test_an_event_is_on_disk_when_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / NAME).read_text()))
    Ledger(tmp_path).append("started", trial_id="a-t1")
    assert [json.loads(text)["trial_id"] for text in synced] == ["a-t1"]


@given(st.floats(0, 1))
def test_a_line_cut_off_by_a_crash_costs_only_itself(share: float) -> None:
    with ledger() as book:
        book.append("started", trial_id="first")
        whole = book.path.stat().st_size
        book.append("started", trial_id="cut off \N{SNOWMAN}")
        size = book.path.stat().st_size
        cut = whole + round(share * (size - 2 - whole))  # the last character is not even a newline
        os.truncate(book.path, cut)
        assert [event["trial_id"] for event in book.read()] == ["first"]
        book.append("started", trial_id="next")
        assert [event["trial_id"] for event in book.read()] == ["first", "next"]


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4))
def test_lines_that_cannot_be_read_are_passed_over(broken: list[bytes]) -> None:
    with ledger() as book:
        book.append("started", trial_id="first")
        with book.path.open("ab") as file:
            # A brace first: no line of these is an event by chance.
            file.writelines(b"{" + line.replace(b"\n", b"") + b"\n" for line in broken)
        book.append("started", trial_id="next")
        assert [event["trial_id"] for event in book.read()] == ["first", "next"]


@pytest.mark.parametrize("line", ["17", '"text"', "[1]", "null"])
def test_json_that_is_no_event_is_passed_over(tmp_path: Path, line: str) -> None:
    (tmp_path / NAME).write_text(f"{line}\n")
    assert Ledger(tmp_path).read() == []


def test_only_one_process_runs_a_sweep(tmp_path: Path) -> None:
    with Ledger(tmp_path).held():
        Ledger(tmp_path).append("started", trial_id="its own")
        with pytest.raises(ConfigError, match="still running"), Ledger(tmp_path).held():
            pytest.fail("two hold it")
    with Ledger(tmp_path).held():
        assert len(Ledger(tmp_path).read()) == 1


# A disk that fills, a file that may not be written


def test_garbage_in_the_middle_is_named_by_its_line(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    for number in range(4):
        book.append("started", trial_id=str(number))
    assert book.damage() is None
    lines = book.path.read_bytes().splitlines(keepends=True)
    book.path.write_bytes(
        lines[0] + b"\x00garbage\n" + lines[2] + b"{}\n" + lines[3] + b'{"at": "2'
    )
    assert [event["trial_id"] for event in book.read()] == ["0", "2", "3"]
    assert book.examine().broken == (2, 4)  # the half line at the end is no damage
    warning = book.damage()
    assert warning is not None
    assert "ledger.jsonl: lines 2, 4 cannot be read" in warning


@contextmanager
def small_disk(where: Path, size: str) -> Iterator[Path]:
    """A file system of this size."""
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(where)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Nobody can write this file, not even root."""
    if os.geteuid():
        mode = path.stat().st_mode
        path.chmod(0o444)
        try:
            yield
        finally:
            path.chmod(mode)
        return
    for step in (["mount", "--bind", path, path], ["mount", "-o", "remount,ro,bind", path]):
        if subprocess.run(step, capture_output=True, check=False).returncode:
            pytest.skip("this root cannot mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_a_full_disk_is_an_error_with_the_fix_and_costs_no_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        book = Ledger(disk)
        written = 0

        def fill() -> None:
            nonlocal written
            while True:
                book.append("started", trial_id=str(written), overrides="x" * 1000)
                written += 1

        with pytest.raises(LedgerError, match="No space left on device") as caught:
            fill()
        assert "free some space, then: imgpull resume" in caught.value.hint
        assert written > 10
        assert [event["trial_id"] for event in book.read()] == [str(n) for n in range(written)]
        subprocess.run(["mount", "-o", "remount,size=256k", str(disk)], check=True)
        book.append("started", trial_id="next")
        assert [event["trial_id"] for event in book.read()][-2:] == [str(written - 1), "next"]


def test_a_ledger_that_is_read_only_is_an_error_with_the_fix_and_costs_no_line(
    tmp_path: Path,
) -> None:
    book = Ledger(tmp_path)
    book.append("started", trial_id="first")
    before = book.path.read_bytes()
    with read_only(book.path):
        with pytest.raises(LedgerError, match="cannot be written") as caught:
            book.append("started", trial_id="second")
        with pytest.raises(LedgerError), book.held():
            pytest.fail("held without being able to write")
    assert "make it writable" in caught.value.hint
    assert book.path.read_bytes() == before
    book.append("started", trial_id="third")
    assert [event["trial_id"] for event in book.read()] == ["first", "third"]


MANY = (
    "run.py", "replicas=1", "trials=12", "nodes=2", "deployments=2", "image=resource_consumer",
    "tracking=none",
)  # fmt: skip


@pytest.mark.slow
def test_a_sweep_whose_ledger_becomes_read_only_stops_and_goes_on(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    command = [sys.executable, *MANY, f"hydra.sweep.dir={sweep}"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not finished(sweep):
            time.sleep(0.01)
        with read_only(sweep / NAME):
            out, err = process.communicate(timeout=120)
            told = Ledger(sweep).read()
    assert process.returncode == 1, err
    assert "ledger.jsonl cannot be written" in err
    assert f"imgpull resume {sweep}" in err
    assert "summary:" in out  # the end always comes
    assert 1 <= len(job_directories(sweep)) < 12
    goes_on(sweep, told)


@pytest.mark.slow
def test_a_sweep_whose_disk_fills_stops_and_goes_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        sweep = disk / "sweep"
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(3_300_000))
        command = [*MANY, f"hydra.sweep.dir={sweep}"]
        ended = python(ROOT, *command)
        assert ended.status == 1, ended.err
        assert "No space left on device" in ended.err
        assert "free some space" in ended.err
        told = Ledger(sweep).read()
        assert 1 <= len(job_directories(sweep)) < 12
        ballast.unlink()
        goes_on(sweep, told)


def finished(sweep: Path) -> list[str]:
    return [e["trial_id"] for e in Ledger(sweep).read() if e["event"] == "finished"]


def goes_on(sweep: Path, told: list[dict[str, Any]]) -> None:
    """Nothing recorded is lost, and the rest runs once."""
    assert Ledger(sweep).read()[: len(told)] == told
    counted = {read_record(path).trial_id for path in job_directories(sweep)
               if read_record(path).counts}  # fmt: skip
    resumed = python(ROOT, "-m", "imgpull.cli", "resume", str(sweep))
    assert resumed.status == 0, resumed.err
    events = Ledger(sweep).read()
    assert events[: len(told)] == told
    begun = [e["trial_id"] for e in events[len(told) :] if e["event"] == "started"]
    assert not counted & set(begun)
    assert len(counted) + len(begun) == 12
    assert len(finished(sweep)) >= 12
    last = {read_record(path).trial_id: read_record(path) for path in job_directories(sweep)}
    assert [record.verdict for record in last.values()] == ["valid"] * 12
