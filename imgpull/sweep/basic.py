"""Jobs of a sweeper that is not ours, such as Hydra's basic one: each is judged and recorded.

Hides what such a sweeper leaves open. It knows no trials, order, ledger, resume or limits, so what
asks for them is refused; and a job is told neither what was swept nor when all are over.
"""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from imgpull import engines, pipeline
from imgpull.config import job as jobs
from imgpull.config import schema, sweeping
from imgpull.config.sweeping import settings_from
from imgpull.engines import Apart
from imgpull.errors import ConfigError, ImgpullError
from imgpull.results.record import JobRecord, job_directories
from imgpull.sweep.command import Finished
from imgpull.sweep.ending import FAILED, OK, REFUSED, conclude
from imgpull.sweep.forecasting.report import in_directory
from imgpull.sweep.matrix import Swept, checked_cell
from imgpull.sweep.outlets import result_console, tell
from imgpull.sweep.places import is_named, with_tail
from imgpull.sweep.plan import Cell, factor_levels, sweep_name
from imgpull.sweep.tracked import Tracked

# Keys of the sweep that only our sweeper honours, with the values that ask for nothing.
_OURS: Mapping[str, tuple[object, ...]] = {
    "until": ("run",), "trials": (1,), "order": ("blocks", "as_given"), "exclude": ([],),
    "resume": ("off",), "on_failure": ("continue",), "retries": (0,), "max_hours": (None,),
    "max_cost": (None,), "target_effect": (None,),
}  # fmt: skip


def run_task(config: DictConfig) -> None:
    """Run the job that Hydra is at; Finished with status 2 when it asks for what cannot be."""
    try:
        record = _run(config)
    except ImgpullError as error:
        tell(f"error: {error}")
        raise Finished(REFUSED) from error
    tell(f"{record.name}  {record.verdict}")


def _run(config: DictConfig) -> JobRecord:
    told = HydraConfig.get()
    if told.mode != RunMode.MULTIRUN:
        raise ConfigError(
            "hydra.mode=RUN runs no sweep",
            hint="leave hydra.mode alone: one trial is a sweep of one",
        )
    directory, sweep = Path(told.runtime.output_dir), Path(told.sweep.dir).absolute()
    if (directory / "job.json").exists():
        raise ConfigError(f"{directory} holds a trial already", hint="name another hydra.sweep.dir")
    values = jobs.resolve(config)
    _require_plain(values, str(told.runtime.choices["hydra/sweeper"]))
    if engines.is_real(jobs.job_from(values)):
        raise ConfigError(
            f"engine={values['engine']['kind']} holds a cluster for a whole sweep, which only "
            "hydra/sweeper=matrix does",
            hint="leave hydra/sweeper at its default (matrix)",
        )
    swept = _swept(sweep, list(told.overrides.task))
    cell = checked_cell(tuple(told.overrides.task), swept, values)
    place = pipeline.Place(
        directory=directory,
        name=_name(cell, swept),
        cell_id=cell.cell_id,
        factors=cell.factors,
        position=int(told.job.num) + 1,
        sweep=sweep_name(sweep),
    )
    return pipeline.run_job(cell.job, values, cell.files, place, lambda step: None, Apart())


def _require_plain(values: Mapping[str, Any], sweeper: str) -> None:
    settings_from(values)
    for key, nothing in _OURS.items():
        if values[key] not in nothing:
            raise ConfigError(
                f"{key}={values[key]} means nothing to hydra/sweeper={sweeper}",
                hint="sweep over trial instead: trial=1,2,3"
                if key == "trials"
                else "leave it out, or leave hydra/sweeper at its default (matrix)",
            )


def _swept(sweep: Path, task: list[str]) -> Swept:
    """The job's levels of what varies; a sweeper saves its own arguments in multirun.yaml."""
    given = dict(override.split("=", 1) for override in task if "=" in override)
    try:
        master = OmegaConf.load(sweep / "multirun.yaml")
        asked = [
            *(
                f"{key}={value}"
                for key, value in (master.hydra.sweeper.get("params") or {}).items()
            ),
            *master.hydra.overrides.task,
        ]
    except OSError:
        return ()
    parsed = OverridesParser.create().parse_overrides(asked)
    keys = dict.fromkeys(each.get_key_element() for each in parsed if each.is_sweep_override())
    return tuple(
        (key.lstrip("+"), given[key])
        for key in keys
        if key in given and key.split(".")[0] not in sweeping.KEYS
    )


def _name(cell: Cell, swept: Swept) -> str:
    parts = [f"{key.rpartition('.')[2]}={level}" for key, level in swept]
    return " ".join(parts) or cell.label


def begin(config: DictConfig) -> None:
    """Give the sweep a directory of its own: a time alone may be that of another's start."""
    if is_named(config):
        return
    with open_dict(config):
        directory = with_tail(Path(config.hydra.sweep.dir))
        config.hydra.sweep.dir = str(directory)
        # Each job is composed again, from the overrides.
        config.hydra.overrides.hydra.append(in_directory(directory))


def finish(config: DictConfig) -> None:
    """The end step of a sweep that is over; always ends by raising Finished."""
    directory = Path(config.hydra.sweep.dir).absolute()
    console = result_console()
    end = conclude(directory, console)
    lines = _log(directory, end.records, end.counts, end.markdown)
    for warning in end.warnings:
        tell(f"warning: {warning}")
    for line in [*lines, f"summary:  {end.summary or directory}"]:
        console.print(line, soft_wrap=True, markup=False)
    counted = bool(end.records) and all(record.counts for record in end.records)
    raise Finished(OK if counted else FAILED)


def _log(
    directory: Path, records: list[JobRecord], counts: Mapping[str, int], note: str
) -> list[str]:
    """Log what there is to MLflow; the lines that say where."""
    found = job_directories(directory)
    if not found:
        return []
    asked = pipeline.read_resolved(found[0])["tracking"]
    tracked = Tracked(schema.Tracking(**{**asked, "kind": schema.TrackingKind[asked["kind"]]}))
    factors = factor_levels([record.factors for record in records])
    tracked.start(directory, factors, shlex.join(["python", *sys.argv]), None)
    for job_dir in found:
        tracked.log(job_dir)
    tracked.finish(directory, killed=False, counts=counts, note=note)
    if away := tracked.warning(directory):
        tell(f"warning: {away}")
    return tracked.view_lines()
