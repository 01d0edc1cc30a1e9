"""From a Hydra command line to a sweep: cells composed and checked, trials ordered and launched.

Hides Hydra's side of a sweep. Every cell is composed, rendered and checked before the first trial;
whatever is wrong ends with status 2 and nothing created. A trial is one Hydra job of its own.
"""

import secrets
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from imgpull import engines, pipeline, render
from imgpull.config import job as jobs
from imgpull.config import schema
from imgpull.errors import ConfigError, ImgpullError
from imgpull.sweep import running
from imgpull.sweep.ledger import NAME as LEDGER
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.plan import Cell, Planned, names, order_trials, swept_levels
from imgpull.sweep.progress import Progress
from imgpull.sweep.resume import Earlier, find_earlier, matrix_id

# Keys that are the sweep's own: one value for all cells.
_OF_THE_SWEEP = (
    "until", "trials", "trial", "seed", "order", "resume", "on_failure", "tracking",
)  # fmt: skip


class Finished(SystemExit):
    """The sweep is over; its code is imgpull's own, not Hydra's."""


# The sweep that this process runs: Hydra calls the task with nothing but a configuration.
_active: list[running.Sweep] = []


def run(
    launcher: Launcher, loader: ConfigLoader, config: DictConfig, arguments: Sequence[str]
) -> None:
    """Run the matrix that the arguments span; always ends by raising Finished."""
    try:
        status = _run(launcher, loader, config, arguments)
    except ImgpullError as error:
        print(f"error: {error}", file=sys.stderr)
        status = running.REFUSED
    raise Finished(status)


def run_task(config: DictConfig) -> None:
    """One Hydra job: the trial that was planned for its directory."""
    (sweep,) = _active
    subdir = str(HydraConfig.get().sweep.subdir)
    planned = next(planned for planned in sweep.plan if planned.directory == subdir)
    sweep.run_trial(jobs.resolve(config), planned)


def _run(
    launcher: Launcher, loader: ConfigLoader, config: DictConfig, arguments: Sequence[str]
) -> int:
    combinations = _combinations(loader, arguments)
    with Progress(0) as progress:
        cells = _compose(loader, config, combinations, progress)
        _check_cells([cell for cell, _ in cells], progress)
    asked = cells[0][1]
    only = [cell for cell, _ in cells]
    if asked["until"] == "render":
        return _render_all(only, _sweep_directory(config))
    earlier = None
    if asked["resume"] == "auto":
        earlier = find_earlier(Path(config.hydra.sweep.dir).parent, only)
    plan = _plan(only, asked, earlier)
    if not plan:
        print(f"nothing to do: every trial is in {earlier.directory if earlier else ''}")
        return running.OK
    tracker, away = running.open_tracker(schema.Tracking(
        kind=schema.TrackingKind[asked["tracking"]["kind"]],
        uri=asked["tracking"]["uri"],
        experiment=asked["tracking"]["experiment"],
    ))  # fmt: skip
    directory = earlier.directory if earlier else _sweep_directory(config)
    _begin(config, directory, only, plan)
    with Progress(len(plan)) as progress:
        sweep = running.Sweep(
            directory=directory,
            plan=plan,
            tracker=tracker,
            progress=progress,
            asked=asked,
            factors=_factor_levels(only),
            parent=earlier.parent if earlier else None,
            warnings=[f"MLflow: {away}"] if away else [],
        )
        _active[:] = [sweep]
        status = sweep.run(lambda planned: _launch(launcher, config, directory, planned))
    return running.finish(sweep, status)


def _combinations(
    loader: ConfigLoader, arguments: Sequence[str]
) -> list[tuple[tuple[str, ...], tuple[tuple[str, str], ...]]]:
    """(overrides, swept (key, level) pairs) of each cell, the last key varying fastest."""
    parser = OverridesParser.create(config_loader=loader)
    axes: dict[str, tuple[list[str], bool]] = {}
    for override in parser.parse_overrides(list(arguments)):
        key = override.get_key_element()
        if not override.is_sweep_override():
            axes[key] = ([override.get_value_element_as_str()], False)
            continue
        if not override.is_discrete_sweep():
            raise ConfigError(
                f"{override.input_line}: a matrix needs a list of levels, not an interval",
                hint=f"write {key}=1,2,5 or {key}=range(1,10,3)",
            )
        if key.split(".")[0] in _OF_THE_SWEEP:
            raise ConfigError(
                f"{override.input_line}: {key} belongs to the sweep and cannot vary within it",
                hint=f"give {key} one value",
            )
        axes[key] = ([str(level) for level in override.sweep_string_iterator()], True)
    cells = []
    for levels in product(*(found for found, _ in axes.values())):
        pairs = list(zip(axes, levels, strict=True))
        overrides = tuple(f"{key}={level}" for key, level in pairs)
        cells.append((overrides, tuple(pair for pair in pairs if axes[pair[0]][1])))
    return cells


def _compose(
    loader: ConfigLoader,
    config: DictConfig,
    combinations: Sequence[tuple[tuple[str, ...], tuple[tuple[str, str], ...]]],
    progress: Progress,
) -> list[tuple[Cell, dict[str, Any]]]:
    """Every cell with its resolved configuration; ConfigError for two that are the same."""
    found: dict[str, tuple[Cell, dict[str, Any]]] = {}
    for number, (overrides, swept_pairs) in enumerate(combinations, 1):
        progress.step(f"checking cell {number} of {len(combinations)}")
        values = jobs.resolve(loader.load_sweep_config(config, list(overrides)))
        job = jobs.job_from(values)
        subject = engines.build(job).subject
        swept = swept_levels(swept_pairs)
        cell = Cell(overrides, subject.cell_id, job, {**subject.factors, **swept}, swept)
        if cell.cell_id in found:
            first = " ".join(found[cell.cell_id][0].overrides)
            raise ConfigError(
                f"two cells are the same: '{first}' and '{' '.join(overrides)}'",
                hint="leave one out, or use trials=2 to run a cell twice",
            )
        found[cell.cell_id] = (cell, values)
    return list(found.values())


def _check_cells(cells: Sequence[Cell], progress: Progress) -> None:
    """Render and check each cell, as its engine would need it, before anything runs."""
    seen: set[str] = set()
    for number, cell in enumerate(cells, 1):
        progress.step(f"rendering cell {number} of {len(cells)}")
        engine = engines.build(cell.job)
        engine.check()
        if not engine.renders:
            continue
        files = render.render(cell.job)
        key = render.bundle_sha256(files)
        if key in seen:
            continue
        seen.add(key)
        render.check(files)
        with TemporaryDirectory(prefix="imgpull-") as directory:
            engine.validate(render.write(files, Path(directory)))


def _render_all(cells: Sequence[Cell], directory: Path) -> int:
    named = names(cells)
    for number, cell in enumerate(cells):
        if not engines.build(cell.job).renders:
            raise ConfigError("engine=replay renders nothing", hint="use until=run")
        bundle = render.write(render.render(cell.job), directory / str(number) / "bundle")
        print(f"{named[cell.cell_id]}: {bundle.directory}")
    return running.OK


def _plan(
    cells: Sequence[Cell], asked: Mapping[str, Any], earlier: Earlier | None
) -> list[Planned]:
    first = asked["trial"]
    trials = range(first, first + asked["trials"])
    ordered = order_trials(cells, trials, asked["order"], asked["seed"])
    named = names(cells)
    done = earlier.done if earlier else {}
    number = earlier.next_number if earlier else 0
    plan: list[Planned] = []
    for block, trial, cell in ordered:
        trial_id = f"{cell.cell_id}-t{trial}"
        before = done.get(trial_id)
        if before is not None and before.counts:
            continue
        directory = str(number)
        if before is None:
            number += 1
        else:
            directory = f"{before.directory}/attempt-{before.attempt + 1}"
        plan.append(
            Planned(
                directory=directory,
                cell_id=cell.cell_id,
                trial_id=trial_id,
                trial=trial,
                attempt=before.attempt + 1 if before else 1,
                block=block,
                position=(earlier.positions if earlier else 0) + len(plan) + 1,
                name=named[cell.cell_id],
                overrides=cell.overrides,
                swept=cell.swept,
            )
        )
    return plan


def _sweep_directory(config: DictConfig) -> Path:
    """A directory of the sweep's own: a random tail, because two may start in one second."""
    asked = Path(config.hydra.sweep.dir).absolute()
    chosen = any(o.startswith("hydra.sweep.dir=") for o in config.hydra.overrides.hydra)
    if chosen:
        if (asked / LEDGER).exists():
            raise ConfigError(
                f"hydra.sweep.dir={asked} holds a sweep already",
                hint="name another directory, or continue it with resume=auto",
            )
        asked.mkdir(parents=True, exist_ok=True)
        return asked
    while True:
        directory = asked.with_name(f"{asked.name}_{secrets.token_hex(2)}")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            continue
        return directory


def _begin(
    config: DictConfig, directory: Path, cells: Sequence[Cell], plan: Sequence[Planned]
) -> None:
    with open_dict(config):
        config.hydra.sweep.dir = str(directory)
    if not (directory / "multirun.yaml").exists():
        OmegaConf.save(config, directory / "multirun.yaml")
    ledger = Ledger(directory)
    ledger.append_all(
        [
            {
                "event": "sweep",
                "matrix": matrix_id(cells),
                "arguments": sys.argv[1:],
                "git": pipeline.git_state(),
            },
            *(planned.as_event() for planned in plan),
        ]
    )


def _launch(launcher: Launcher, config: DictConfig, directory: Path, planned: Planned) -> None:
    number = int(planned.directory.split("/")[0])
    quoted = str(directory).replace("\\", "\\\\").replace("'", "\\'")
    overrides = [
        *planned.overrides,
        f"trial={planned.trial}",
        f"hydra.sweep.dir='{quoted}'",
        f"hydra.sweep.subdir='{planned.directory}'",
    ]
    (done,) = launcher.launch([overrides], initial_job_idx=number)
    # Hydra catches what a job raises; ours never does, so this is a bug and must be seen.
    if isinstance(done._return_value, Exception):
        raise done._return_value


def _factor_levels(cells: Sequence[Cell]) -> dict[str, list[Any]]:
    """Every factor with its levels in the order given."""
    return {
        key: list(dict.fromkeys(cell.factors.get(key) for cell in cells))
        for key in cells[0].factors
    }
