"""Why a command does not continue a sweep: fields of its cells, or lines of its test, changed.

Hides where the former values stand: in the configuration that each trial of the sweep ran with, and
in its bundle.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imgpull import pipeline, render
from imgpull.config import job as jobs
from imgpull.config.job import Job
from imgpull.errors import ConfigError, ImgpullError
from imgpull.sweep.ledger import Event
from imgpull.sweep.plan import Cell
from imgpull.sweep.resume import Earlier, content
from imgpull.sweep.watching.onward import resume_command

_SHOWN = 12  # fields
_COMPARED = 50  # cells of the sweep: reading each takes some 20 ms

Fields = dict[str, Any]


def refusal(
    directory: Path, events: Sequence[Event], cells: Sequence[Cell], seed: int, *, own: bool
) -> ConfigError:
    """The error for a command whose cells are not those of the sweep in `directory`.

    `own`: it is the sweep's own command, so that conf/ is what has changed.
    """
    earlier, seeds = content(directory, events)
    lines = [f"seed: {was} -> {seed}" for was in sorted(seeds - {seed})]
    new = next((cell for cell in cells if cell.cell_id not in earlier), None)
    if new is not None:
        lines += _changes(directory, {cell.cell_id for cell in cells}, new)
    rest = len(lines) - _SHOWN
    shown = lines[:_SHOWN] + [f"and {rest} more"] * (rest > 0)
    told = "".join(f"\n    {line}" for line in shown)
    advised = "" if own else f" (the sweep's own command: {resume_command(directory)})"
    undo = "undo the change in conf/" if own else "undo the change"
    return ConfigError(
        f"{directory} holds a sweep of other cells: it is not continued{told}",
        hint=f"{undo}, or begin a sweep of its own: leave out resume and hydra.sweep.dir{advised}",
    )


def require_same_tests(earlier: Earlier, cells: Sequence[Cell]) -> None:
    """ConfigError when trials of one cell would run two tests: templates/ was edited meanwhile."""
    for cell in cells:
        ran = earlier.bundles.get(cell.cell_id)
        if ran is None or cell.files is None or ran[0] == render.bundle_sha256(cell.files):
            continue
        before = earlier.directory / ran[1] / "bundle"
        told = "".join(f"\n    {line}" for line in _edits(before, cell.files))
        raise ConfigError(
            f"'{' '.join(cell.overrides)}' renders another test than its trials in "
            f"{earlier.directory} ran: it is not continued{told}",
            hint="restore templates/, or begin a sweep of its own: leave out resume and "
            "hydra.sweep.dir",
        )


def _edits(before: Path, files: Mapping[str, str]) -> list[str]:
    """The lines that differ between a bundle that ran and one rendered now."""
    lines: list[str] = []
    for name in sorted(files):
        path = before / name
        was = path.read_text("utf-8").splitlines() if path.is_file() else []
        edits = difflib.unified_diff(was, files[name].splitlines(), name, name, n=0, lineterm="")
        lines += [line for line in edits if not line.startswith(("---", "@@"))]
    rest = len(lines) - _SHOWN
    return lines[:_SHOWN] + [f"and {rest} more lines"] * (rest > 0)


def _changes(directory: Path, asked: set[str], cell: Cell) -> list[str]:
    """field: before -> now, against the most similar cell that is asked for no more."""
    now = _fields(cell.job)
    best: list[str] | None = None
    for before in _former(directory, asked):
        changed = [
            f"{field}: {_text(before.get(field))} -> {_text(now.get(field))}"
            for field in sorted({*before, *now})
            if before.get(field) != now.get(field)
        ]
        if changed and (best is None or len(changed) < len(best)):
            best = changed
    return best or []


def _former(directory: Path, asked: set[str]) -> Iterator[Fields]:
    seen: set[str] = set()
    for path in sorted(directory.glob(f"*/{pipeline.RESOLVED}")):
        if len(seen) >= _COMPARED:
            return
        try:
            job = jobs.job_from(pipeline.read_resolved(path.parent))
        except ImgpullError:
            continue  # of another version
        if (cell_id := jobs.cell_id(job)) not in asked | seen:
            seen.add(cell_id)
            yield _fields(job)


def _fields(job: Job) -> Fields:
    """The physical fields, as JSON would have them: tuples are lists."""
    return flat(json.loads(json.dumps(jobs.physical(job), default=str)))


def _text(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
