"""What ran, exactly: versions, digests, fingerprint, bundles; what was left out; how to repeat it.

Hides that most of it is equal in all trials and said once, and that the ledger may be lost: then
the directories tell what they can. No wall time, host or place: equal sweeps have equal reports.
"""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from imgpull.analysis.cells import last_attempts
from imgpull.analysis.wording import level_text
from imgpull.results.record import JobRecord

_LEDGER = "ledger.jsonl"
_MOST_JOBS = 12  # named beside a value that differs


@dataclass(frozen=True)
class Fact:
    """A thing that ran, its value, and the jobs that had it ("" when all did)."""

    what: str
    value: str
    jobs: str = ""


@dataclass(frozen=True)
class Left:
    """A cell or an attempt that is in no number, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Ran:
    """What the end of the report says. `planned` is None where no ledger tells."""

    facts: tuple[Fact, ...]
    bundles: tuple[Fact, ...]  # a cell, its bundle's and its configuration's sha256
    notes: tuple[str, ...]
    left_out: tuple[Left, ...]
    commands: tuple[tuple[str, str], ...]  # (what for, what to paste)
    planned: int | None
    ledger: bool


def ran(sweep_dir: Path, records: Sequence[tuple[int, JobRecord]], frame: pd.DataFrame) -> Ran:
    """Gather it; `records` are (job number, record) of every attempt."""
    events = read_events(sweep_dir)
    planned = {str(event.get("trial_id")) for event in events if event["event"] == "planned"}
    notes = dict.fromkeys(note for _, record in records for note in record.notes)
    return Ran(
        tuple(_facts(records)),
        tuple(_bundles(records)),
        tuple(notes),
        (*_excluded(events), *_attempts(frame), *_missing(events, frame)),
        tuple(_commands(events, records)),
        len(planned) if events else None,
        bool(events),
    )


def read_events(sweep_dir: Path) -> list[dict[str, Any]]:
    """The whole events of the ledger; none where there is no ledger."""
    try:
        lines = (sweep_dir / _LEDGER).read_bytes().split(b"\n")
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            found.append(event)
    return found


def _facts(records: Sequence[tuple[int, JobRecord]]) -> Iterable[Fact]:
    """Every fact once, or once a value with the jobs that had it."""
    table: dict[str, dict[str, list[int]]] = {}
    for job, record in records:
        for what, value in _flat(_told(record)):
            jobs = table.setdefault(what, {}).setdefault(value, [])
            if job not in jobs:
                jobs.append(job)
    everyone = {job for job, _ in records}
    for what, values in table.items():
        for value, jobs in values.items():
            yield Fact(what, value, "" if {*jobs} == everyone else _numbers(jobs))


def _told(record: JobRecord) -> dict[str, Any]:
    return {
        "engine": record.engine,
        "measured by": record.measured_by,
        "fingerprint": record.fingerprint,
        "version": record.versions,
        "digest": record.digests,
        "git": record.git,
        "seed": record.seed,
        "allowed mismatch": list(record.allowed) or None,
        "observed": record.observed,
    }


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        name = f"{above} {key}".strip()
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        elif value is not None or above == "digest":
            yield name, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return json.dumps(value, sort_keys=True)
    return level_text(value)


def _numbers(jobs: Sequence[int]) -> str:
    shown = ", ".join(str(job) for job in sorted(jobs)[:_MOST_JOBS])
    more = len(jobs) - _MOST_JOBS
    return f"job{'s' * (len(jobs) > 1)} {shown}" + f" and {more} more" * (more > 0)


def _bundles(records: Sequence[tuple[int, JobRecord]]) -> Iterable[Fact]:
    found: dict[tuple[str, str, str], list[int]] = {}
    for job, record in records:
        sha = record.bundle_sha256 or "none rendered"
        key = f"{record.name or record.cell_id} ({record.cell_id})", sha, record.config_sha256
        found.setdefault(key, []).append(job)
    # Trials of a cell differ in `trial` alone, so their configurations have different hashes.
    merged: dict[tuple[str, str], list[int]] = {}
    for (cell, sha, _), jobs in found.items():
        merged.setdefault((cell, sha), []).extend(jobs)
    return [Fact(cell, sha, _numbers(sorted(set(jobs)))) for (cell, sha), jobs in merged.items()]


def _excluded(events: Sequence[Mapping[str, Any]]) -> list[Left]:
    """What `exclude` left out of the matrix, once though a sweep was begun again."""
    found: dict[str, Left] = {}
    for event in events:
        listed = event.get("excluded") if event["event"] == "sweep" else None
        for each in listed if isinstance(listed, list) else []:
            told = each if isinstance(each, dict) else {}
            what = " ".join(str(one) for one in told.get("overrides", ())) or "a cell"
            found[what] = Left(f"cell {what}", f"never run: exclude '{told.get('by', '')}'")
    return list(found.values())


def _attempts(frame: pd.DataFrame) -> list[Left]:
    earlier = frame.drop(last_attempts(frame).index)
    return [
        Left(
            f"job {row['job']}, attempt {row['attempt']} ({row['name'] or row['cell_id']})",
            f"run again: {row['verdict']}, {row['reasons'] or 'no reason recorded'}",
        )
        for _, row in earlier.iterrows()
    ]


def _missing(events: Sequence[Mapping[str, Any]], frame: pd.DataFrame) -> list[Left]:
    """Trials that were planned and have no result."""
    planned = {
        str(event.get("trial_id")): f"job {event.get('dir')} ({event.get('name')})"
        for event in events
        if event["event"] == "planned"
    }
    done = set(frame["trial_id"])
    return [
        Left(where, "planned, no result: it was stopped or cut off before")
        for trial_id, where in planned.items()
        if trial_id not in done
    ]


def _commands(
    events: Sequence[Mapping[str, Any]], records: Sequence[tuple[int, JobRecord]]
) -> Iterable[tuple[str, str]]:
    """Commands to paste in the project's directory; SWEEP stands for the sweep's."""
    revisions = dict.fromkeys(str(record.git.get("revision") or "") for _, record in records)
    for revision in filter(None, revisions):
        dirty = any(
            record.git.get("dirty") and record.git.get("revision") == revision
            for _, record in records
        )
        note = ", which had uncommitted changes: it may differ" if dirty else ""
        yield (
            f"the code that ran{note}",
            f"git checkout {shlex.quote(revision)} && pip install -e .",
        )
    said: dict[str, None] = {}
    for event in events:
        arguments = event.get("arguments") if event["event"] == "sweep" else None
        if isinstance(arguments, list):
            said[shlex.join(["python", "run.py", *map(str, arguments)])] = None
    for command in said:
        yield "the sweep again", command
    if records:
        yield (
            "one trial again, bundle and report compared",
            f"imgpull reproduce SWEEP/{records[0][0]}",
        )
    yield "this report from the directories alone", "imgpull report SWEEP"
