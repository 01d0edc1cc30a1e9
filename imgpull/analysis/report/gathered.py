"""All that a report says of a sweep, gathered once; page and Markdown only write it down.

Hides the order of reading: each trial's files are read once and dropped, so that a thousand trials
need no more room than one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from imgpull.analysis.bottleneck import Call, calls
from imgpull.analysis.cells import last_attempts, varied
from imgpull.analysis.effects import Effect, effects, interactions
from imgpull.analysis.report.bill import Bill, bill
from imgpull.analysis.report.pulled import Curve, Failures, Pulled
from imgpull.analysis.report.ran import Ran, ran, read_events
from imgpull.analysis.report.story import CellView, Story, deciding, story, views_of
from imgpull.analysis.report.traces import Budget, budget, trace
from imgpull.analysis.trial_files import Limits, files_of, limits_of
from imgpull.analysis.wording import cell_text
from imgpull.errors import ImgpullError
from imgpull.results.record import read_records

T = TypeVar("T")


@dataclass(frozen=True)
class Gathered:
    """What the report says. `trials` are drawn by the page's script."""

    frame: pd.DataFrame
    views: list[CellView]
    story: Story
    effects: list[Effect]
    interactions: list[str]
    calls: list[Call]
    curves: Mapping[int, Curve]  # by place among the views
    failures: list[Failures]
    ran: Ran
    bill: Bill | None
    notes: tuple[str, ...]
    trials: list[dict[str, Any]]
    budget: Budget
    broken: tuple[str, ...]  # parts that could not be made


def gather(
    sweep_dir: Path, frame: pd.DataFrame, notes: Sequence[str], scale: float = 1.0
) -> Gathered:
    """Read the sweep's directories; `scale` below 1 keeps fewer points of each trial."""
    broken: list[str] = []
    views = views_of(frame)
    kept = budget(frame, scale)
    pulled, trials = _read_trials(sweep_dir, frame, views, kept)
    column = deciding(views).column
    records = [
        (int(place.relative_to(sweep_dir).parts[0]), record)
        for place, record in read_records(sweep_dir)[0]
    ]
    told = ran(sweep_dir, records, frame)
    one_engine = frame["engine"].nunique() == 1
    changes: list[Effect] = []
    if one_engine:
        changes = _attempt("effects", lambda: effects(frame, column), broken, changes)
    return Gathered(
        frame,
        views,
        story(frame, views, changes, told.planned),
        changes,
        _attempt("interactions", lambda: interactions(frame, column), broken, [])
        if one_engine
        else [],
        _ordered(views, _attempt("where the time went", lambda: calls(sweep_dir), broken, [])),
        pulled.curves(),
        pulled.failures({place: view.text for place, view in enumerate(views)}),
        told,
        _attempt(
            "cost",
            lambda: bill(
                read_events(sweep_dir),
                [record for _, record in records],
                {view.cell_id: view.text for view in views},
            ),
            broken,
            None,
        ),
        tuple(notes),
        trials,
        kept,
        tuple(broken),
    )


def _ordered(views: Sequence[CellView], found: list[Call]) -> list[Call]:
    places = {view.cell_id: place for place, view in reversed(list(enumerate(views)))}
    return sorted(found, key=lambda call: places.get(call.cell_id, len(places)))


def _read_trials(
    sweep_dir: Path, frame: pd.DataFrame, views: Sequence[CellView], kept: Budget
) -> tuple[Pulled, list[dict[str, Any]]]:
    places = {row: place for place, view in enumerate(views) for row in view.rows.index}
    keys = varied(frame)
    limits: dict[int, Limits] = {}
    pulled, trials = Pulled(), []
    for row, trial in last_attempts(frame).iterrows():
        files, cell, job = files_of(sweep_dir, trial), places[row], int(trial["job"])
        pulled.add(cell, job, files, counts=bool(trial["counts"]))
        if job in kept.jobs:
            if cell not in limits:
                limits[cell] = limits_of(files.place)
            words = f"{cell_text(trial, keys)} · trial {trial['trial']} · {trial['verdict']}"
            label = {"job": job, "label": f"job {job} · {words}", "engine": str(trial["engine"])}
            trials.append(label | trace(files, limits[cell], kept))
    return pulled, trials


def _attempt(what: str, make: Callable[[], T], broken: list[str], instead: T) -> T:
    """What `make` makes; a part that cannot be made is named and costs no other."""
    try:
        return make()
    except ImgpullError as error:
        broken.append(f"{what}: {error.message}")
    except Exception as error:  # one figure less is better than no report
        broken.append(f"{what}: {type(error).__name__}: {error}")
    return instead
