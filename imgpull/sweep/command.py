"""One Hydra command is one sweep: checked whole, then run trial by trial, each a Hydra job.

Hides Hydra's side of it: that the sweeper calls the launcher, that the launcher calls a task with
nothing but a configuration, and how an exit status gets past both. Whatever is wrong with the
request ends with status 2 and nothing created.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from imgpull import engines, render
from imgpull.config import job as jobs
from imgpull.config import schema
from imgpull.config.sweeping import SweepSettings, settings_from
from imgpull.engines import Say, Session
from imgpull.errors import ConfigError, ImgpullError, LedgerError
from imgpull.sweep import interrupts, shapes, workers
from imgpull.sweep.again import is_own_command
from imgpull.sweep.beginning import Request, begin
from imgpull.sweep.differing import refusal, require_same_tests
from imgpull.sweep.ending import FAILED, INTERRUPTED, OK, REFUSED
from imgpull.sweep.forecasting import forecast
from imgpull.sweep.forecasting.building import require_leave
from imgpull.sweep.lane import Lane, is_lane
from imgpull.sweep.lanes import Lanes, lanes_of, on_lanes
from imgpull.sweep.launching import launch
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.limits import Limits, cost_of_built, earlier_spending, require_prices
from imgpull.sweep.matrix import checked_matrix
from imgpull.sweep.outlets import tell
from imgpull.sweep.places import (
    begun_in_new_directory,
    is_named,
    new_directory,
    require_free,
    wanted_directory,
)
from imgpull.sweep.plan import (
    Cell,
    Matrix,
    Planned,
    factor_levels,
    matrix_id,
    names,
    plan_trials,
    sweep_name,
)
from imgpull.sweep.rebuilding import rebuild
from imgpull.sweep.resume import (
    Asked,
    Earlier,
    content,
    find_earlier,
    read_earlier,
    sweep_directories,
)
from imgpull.sweep.running import Sweep
from imgpull.sweep.tracked import Tracked
from imgpull.sweep.watching.onward import left_behind
from imgpull.sweep.watching.progress import Progress
from imgpull.sweep.watching.words import counted


class Finished(SystemExit):
    """The sweep is over; its code is imgpull's own, not Hydra's."""


# What this process runs, a sweep or a lane of one: Hydra calls the task with nothing but a
# configuration.
_active: list[Sweep | Lane] = []


def run(
    launcher: Launcher, loader: ConfigLoader, config: DictConfig, arguments: Sequence[str]
) -> None:
    """Run the matrix that the arguments span; always ends by raising Finished."""
    try:
        with interrupts.caught():
            status = _serve(launcher) if is_lane() else _run(launcher, loader, config, arguments)
    except ImgpullError as error:
        status = _refuse(error)
    except KeyboardInterrupt:
        tell("interrupted")
        status = INTERRUPTED
    raise Finished(status)


def _serve(launcher: Launcher) -> int:
    """In a process of a sweep on several clusters: run what it hands over."""
    lane = Lane()
    _active[:] = [lane]
    return lane.serve(partial(launch, launcher))


def run_task(config: DictConfig) -> None:
    """One Hydra job: the trial that was planned for its directory."""
    if not _active and workers.is_worker():
        workers.run_planned(str(HydraConfig.get().sweep.subdir))
        return
    if not _active:
        from imgpull.sweep import basic

        basic.run_task(config)
        return
    sweep = _active[-1]
    subdir = str(HydraConfig.get().sweep.subdir)
    planned = sweep.launched(subdir)
    if jobs.resolve(config) != planned.values:
        # Hydra composes again for each job; its snapshot in .hydra/ then says something else.
        sweep.warn_once(
            "Hydra composed another configuration than was checked (conf/ was edited, or a value "
            "depends on the trial): trials ran as checked, see config.resolved.yaml"
        )
    sweep.run_trial(planned)


def _refuse(error: ImgpullError) -> int:
    tell(f"error: {error}")
    return REFUSED


def _run(
    launcher: Launcher, loader: ConfigLoader, config: DictConfig, arguments: Sequence[str]
) -> int:
    matrix = checked_matrix(loader, config, arguments)
    cells, asked = matrix.cells, matrix.cells[0].values
    settings = settings_from(asked)
    if settings.until == "render":
        return _write_bundles(cells, config)
    if settings.until == "plan":
        return _show_plan(matrix, config, settings)
    with ExitStack() as held:
        earlier = _take_up(held, config, cells, settings)
        plan = plan_trials(cells, settings.trial_numbers, settings.order, settings.seed, earlier)
        if earlier:
            going_on = {planned.cell.cell_id: planned.cell for planned in plan}
            require_same_tests(earlier, list(going_on.values()))
        if earlier and earlier.ended and not plan:
            print(_nothing_to_do(earlier.directory))
            return OK
        return _conduct(held, launcher, config, Request(matrix, settings, plan, earlier))


def _nothing_to_do(directory: Path) -> str:
    behind = left_behind(Ledger(directory).read())
    if not behind.trials:
        return f"nothing to do: every trial is done in {directory}"
    return behind.told(directory)


def _conduct(held: ExitStack, launcher: Launcher, config: DictConfig, request: Request) -> int:
    """Run the trials of a plan; what nothing can be begun without is looked at first."""
    cells, settings, earlier = request.matrix.cells, request.settings, request.earlier
    serial = _is_serial(launcher, request.plan)
    require_prices(request.plan, settings.max_cost)
    with Progress() as progress:
        progress.step("predicting how long it will take")
        history = forecast.history_of(wanted_directory(config).parent, cells)
        predicted = forecast.forecast(request.plan, history, progress.step)
    require_leave(request.plan, settings, predicted.lasts_s(request.plan))
    with Progress() as progress:
        progress.step("opening tracking")
        tracked = Tracked(_tracking(cells[0].values["tracking"]))
    if earlier:
        directory = earlier.directory
    else:
        directory = held.enter_context(begun_in_new_directory(config))
        held.enter_context(Ledger(directory).held())
    shared = held.enter_context(ExitStack())
    session = shared.enter_context(_session(directory, request, predicted))
    spent_s, cost = earlier_spending(Ledger(directory).read())
    begin(config, directory, request, predicted)
    sweep = Sweep(
        directory=directory,
        plan=request.plan,
        tracked=tracked,
        factors=factor_levels([cell.factors for cell in cells]),
        session=session,
        parent=earlier.parent if earlier else None,
        earlier=earlier.unlogged if earlier else (),
        stop_after=settings.stop_after,
        retries=settings.retries,
        seed=settings.seed,
        limits=Limits(
            settings.max_hours,
            settings.max_cost,
            spent_s,
            cost,
            predicted.expected_s,
            partial(cost_of_built, directory) if predicted.setup_s else None,
        ),
    )
    _active[:] = [sweep]
    together = 1 if serial else workers.batch_size()
    try:
        status = sweep.run(partial(launch, launcher, directory), together=together)
    finally:
        _active.clear()
    try:
        shared.close()
    except ImgpullError as error:
        tell(f"error: the cluster could not be given back: {error}")
        status = status or FAILED
    return status


def _show_plan(matrix: Matrix, config: DictConfig, settings: SweepSettings) -> int:
    """until=plan: what would run now; no lock is taken and nothing is created."""
    earlier = _find_earlier(config, matrix.cells, settings)
    if not earlier:
        require_free(config)
    plan = plan_trials(matrix.cells, settings.trial_numbers, settings.order, settings.seed, earlier)
    begun = earlier.directory if earlier else None
    return forecast.show(matrix, plan, settings, config, begun=begun)


def _is_serial(launcher: Launcher, plan: Sequence[Planned]) -> bool:
    """Whether trials run one by one; ConfigError when they must and the launcher would not."""
    # By name: Hydra may load its plugins' modules more than once.
    serial = type(launcher).__name__ == "BasicLauncher"
    real = next((planned.job for planned in plan if engines.is_real(planned.job)), None)
    if real is not None and not serial:
        raise ConfigError(
            f"engine={real.engine.kind} holds a cluster: its trials run one at a time",
            hint="leave hydra/launcher at its default (basic)",
        )
    return serial


@contextmanager
def _session(
    directory: Path, request: Request, predicted: forecast.Forecast
) -> Iterator[Session | Lanes]:
    """What the sweep's trials share."""
    progress = Progress()

    def shown() -> Progress:
        """Where a person looks now: a session may have something to say in the middle of it."""
        return next((each.progress for each in _active if isinstance(each, Sweep)), progress)

    def say(step: str) -> None:
        shown().step(step)

    cells = [planned.cell for planned in request.plan]
    building = shapes.building(
        directory, cells, request.settings, predicted.lasts_s(request.plan),
        lambda line: shown().say(line),
    )  # fmt: skip

    with ExitStack() as stack:
        with progress:
            session = _opened(stack, directory, request.plan, say, building)
        yield session
        with progress:
            stack.close()


def _opened(
    stack: ExitStack,
    directory: Path,
    plan: Sequence[Planned],
    say: Say,
    building: engines.Building | None,
) -> Session | Lanes:
    if len(lanes_of(plan)) > 1:
        return stack.enter_context(on_lanes(directory, plan, say))
    asked = [planned.job for planned in plan]
    tell = Ledger(directory).append
    name = sweep_name(directory)
    return stack.enter_context(engines.session(asked, name, tell, say, building))


def _write_bundles(cells: Sequence[Cell], config: DictConfig) -> int:
    """until=render: every cell's bundle where its first trial would have it."""
    for cell in cells:
        if cell.files is None:
            raise ConfigError(
                f"until=render: engine={cell.job.engine.kind} renders nothing", hint="use until=run"
            )
    require_free(config)
    directory = new_directory(config)
    named = names(cells)
    for number, cell in enumerate(cells):
        bundle = render.write(cell.files or {}, directory / str(number) / "bundle")
        print(f"{named[cell.cell_id]}:  {bundle.directory}")
    print(f"bundles:  {directory}")
    return OK


def _take_up(
    held: ExitStack, config: DictConfig, cells: Sequence[Cell], settings: SweepSettings
) -> Earlier | None:
    """The sweep that is continued, held so that no other process runs it; None: a new one."""
    found = _find_earlier(config, cells, settings)
    if found is None:
        require_free(config)
        return None
    directory, ledger = found.directory, Ledger(found.directory)
    held.enter_context(ledger.held())
    if rebuild(directory):
        tell(f"{ledger.path} was lost: made again from the trials' directories")
    if damage := ledger.damage():
        tell(f"warning: {damage}")
    # Read again: another process may have gone on with it until the lock was ours.
    earlier = read_earlier(directory, ledger.read())
    asked = {cell.cell_id for cell in cells}
    if new := asked - earlier.cells:
        tell(f"continuing {directory}: {counted(len(new), 'cell')} new to it")
    if more := earlier.cells - asked:
        tell(f"continuing {directory}: {counted(len(more), 'further cell')} left as they are")
    return earlier


def _pass_over(error: LedgerError) -> None:
    tell(f"warning: not looked at: {error}")


def _find_earlier(
    config: DictConfig, cells: Sequence[Cell], settings: SweepSettings
) -> Earlier | None:
    """The sweep to continue; ConfigError when the command names one of other cells."""
    if settings.resume != "auto":
        return None
    wanted = wanted_directory(config)
    asked = Asked(matrix_id(cells, settings.seed), {cell.cell_id for cell in cells}, settings.seed)
    if not is_named(config):
        return find_earlier(sweep_directories(wanted.parent), asked, _pass_over)
    found = find_earlier([wanted], asked)
    events = Ledger(wanted).read()
    if found is None and content(wanted, events)[0]:
        own = is_own_command(sys.argv[1:], wanted)
        raise refusal(wanted, events, cells, settings.seed, own=own)
    return found


def _tracking(values: Mapping[str, Any]) -> schema.Tracking:
    return schema.Tracking(**{**values, "kind": schema.TrackingKind[values["kind"]]})
