"""The ledger survives what happens to files: crashes, half lines, foreign bytes, two writers."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgpull.errors import ConfigError
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
