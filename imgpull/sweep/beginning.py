"""What is written when a sweep begins or goes on: its request, its plan, and what was cut off.

Hides how a session finds the directory of one that was killed: half a trial is moved aside, a
trial that ended without its line in the ledger gets it.
"""

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from imgpull import pipeline
from imgpull.config.sweeping import SweepSettings
from imgpull.sweep import shapes
from imgpull.sweep.forecasting import budget, forecast
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.places import MULTIRUN, unusable
from imgpull.sweep.plan import Matrix, Planned, matrix_id, names
from imgpull.sweep.rebuilding import TOLD, owed
from imgpull.sweep.resume import ATTEMPT, Earlier

CUT_OFF = "cut-off-"


@dataclass(frozen=True)
class Request:
    """What a command asks for, and the sweep that it continues."""

    matrix: Matrix
    settings: SweepSettings
    plan: Sequence[Planned]
    earlier: Earlier | None


def begin(
    config: DictConfig, directory: Path, request: Request, predicted: forecast.Forecast
) -> None:
    """Write multirun.yaml and the ledger's first lines of this session.

    ConfigError or LedgerError where they cannot be written.
    """
    with open_dict(config):
        config.hydra.sweep.dir = str(directory)
    ledger, plan = Ledger(directory), request.plan
    try:
        temporary = directory / f"{MULTIRUN}.tmp"
        OmegaConf.save(config, temporary)
        temporary.replace(directory / MULTIRUN)
        for planned in plan if request.earlier else ():
            set_aside(directory / planned.directory)
    except OSError as error:
        raise unusable(directory, error) from error
    found = owed(directory, ledger.read()) if request.earlier else []
    ahead = {
        "event": "forecast",
        "trials": {each.trial_id: predicted.expected_s.get(each.trial_id) for each in plan},
        "basis": predicted.basis,
    }
    told = [_told(request.matrix, request.settings), *found, *(each.as_event() for each in plan)]
    built = shapes.events([each.cell for each in plan], request.matrix.cells, request.settings)
    ledger.append_all([*told, *built, *budget.events(plan, predicted), ahead])


def _told(matrix: Matrix, settings: SweepSettings) -> dict[str, Any]:
    cells = matrix.cells
    named = names(cells)
    return {
        "event": "sweep",
        "matrix": matrix_id(cells, settings.seed),
        "arguments": sys.argv[1:],
        "cwd": str(Path.cwd()),
        "pid": os.getpid(),
        "host": platform.node(),
        "git": pipeline.git_state(),
        "settings": {key: getattr(settings, key) for key in TOLD},
        "cells": [
            {
                "cell_id": cell.cell_id,
                "name": named[cell.cell_id],
                "factors": dict(cell.factors),
                "overrides": list(cell.overrides),
            }
            for cell in cells
        ],
        "excluded": [asdict(each) for each in matrix.excluded],
        "engine": ",".join(sorted({cell.job.engine.kind for cell in cells})),
    }


def set_aside(job_dir: Path) -> None:
    """Move what a trial left that was cut off: the next one finds its directory empty."""
    if not job_dir.is_dir():
        return
    left = [
        path for path in sorted(job_dir.iterdir()) if not path.name.startswith((ATTEMPT, CUT_OFF))
    ]
    if not left:
        return
    aside = next(
        path for number in count(1) if not (path := job_dir / f"{CUT_OFF}{number}").exists()
    )
    aside.mkdir()
    for path in left:
        path.rename(aside / path.name)
