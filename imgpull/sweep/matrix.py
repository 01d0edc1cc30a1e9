"""From the arguments of a command to the cells they span, each composed, rendered and checked.

Hides Hydra's override grammar and composition. Whatever is wrong with a cell raises here, before
anything runs or is created.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from imgpull import engines, render
from imgpull.config import job as jobs
from imgpull.config import sweeping
from imgpull.config.typed import Shared
from imgpull.errors import ConfigError
from imgpull.sweep import shapes
from imgpull.sweep.composing import Composer, composer
from imgpull.sweep.exclude import Exclusion, exclusion
from imgpull.sweep.plan import Cell, Excluded, Matrix
from imgpull.sweep.watching.progress import Progress

Swept = tuple[tuple[str, str], ...]  # (key, level) of what varies in the matrix


def checked_matrix(loader: ConfigLoader, config: DictConfig, arguments: Sequence[str]) -> Matrix:
    """The cells that the arguments span, the last key varying fastest, each checked."""
    combinations = _combinations(loader, arguments)
    composed = composer(loader, config)
    cells: dict[str, Cell] = {}
    left_out, shared = _LeftOut(), Shared()
    with Progress() as progress:
        for number, (overrides, swept) in enumerate(combinations, 1):
            progress.step(f"checking cell {number} of {len(combinations)}")
            values = _composed(composed, overrides, swept)
            # Before any check: what cannot run is a good reason to leave it out.
            if left_out.takes(overrides, swept, values):
                continue
            cell = _checked(*_cell(overrides, swept, values, shared))
            if cell.cell_id in cells:
                first = " ".join(cells[cell.cell_id].overrides)
                raise ConfigError(
                    f"two cells measure the same: '{first}' and '{' '.join(overrides)}'",
                    hint="leave one out, or use trials=2 to run a cell twice",
                )
            cells[cell.cell_id] = cell
        for note in left_out.notes():
            progress.say(f"note: {note}")
    if not cells:
        raise left_out.everything()
    return Matrix(list(cells.values()), left_out.found)


def checked_cell(overrides: tuple[str, ...], swept: Swept, values: Mapping[str, Any]) -> Cell:
    """The one cell that these overrides gave these values, checked."""
    return _checked(*_cell(overrides, swept, values, Shared()))


class _LeftOut:
    """What `exclude` leaves out, and which of its expressions did it."""

    def __init__(self) -> None:
        self.found: list[Excluded] = []
        self._asked: dict[str, Exclusion] = {}
        self._counts: Counter[str] = Counter()

    def takes(self, overrides: tuple[str, ...], swept: Swept, values: Mapping[str, Any]) -> bool:
        """Whether this combination is left out, and by what; ConfigError points into the text."""
        hit = []
        for text in values["exclude"]:
            if text not in self._asked:
                self._asked[text] = exclusion(text)
            if self._asked[text].holds(values):
                hit.append(text)
        self._counts.update(hit)
        if hit:
            self.found.append(Excluded(overrides, _levels_of(values, swept), hit[0]))
        return bool(hit)

    def notes(self) -> list[str]:
        """An expression that leaves out nothing is likely a mistake."""
        return [
            f"exclude '{text}' leaves out nothing of this matrix"
            for text in self._asked
            if not self._counts[text]
        ]

    def everything(self) -> ConfigError:
        """The error to raise when no combination is left."""
        told = ", ".join(f"'{text}' {count}" for text, count in self._counts.items())
        return ConfigError(
            f"exclude leaves nothing to run: of {len(self.found)} combinations {told}",
            hint="correct or drop an expression: exclude=[]",
        )


def _combinations(
    loader: ConfigLoader, arguments: Sequence[str]
) -> list[tuple[tuple[str, ...], Swept]]:
    """The overrides of each cell, and those of them that were swept."""
    parser = OverridesParser.create(config_loader=loader)
    axes: dict[str, tuple[list[str], bool]] = {}
    for override in parser.parse_overrides(list(arguments)):
        # A key given again replaces its axis, as the command line does with an experiment's.
        axes[override.get_key_element()] = _levels(override), override.is_sweep_override()
    cells = []
    for levels in product(*(found for found, _ in axes.values())):
        pairs = list(zip(axes, levels, strict=True))
        overrides = tuple(f"{key}={level}" for key, level in pairs)
        cells.append((overrides, tuple((k.lstrip("+"), v) for k, v in pairs if axes[k][1])))
    return cells


def _levels(override: Override) -> list[str]:
    key = override.key_or_group
    if override.is_delete() and "." not in key:
        raise ConfigError(
            f"{override.input_line}: no sweep is without {key}", hint=f"give {key} a value instead"
        )
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line}: a matrix needs a list of levels, not an interval",
            hint=f"write {key}=1,2,5 or {key}=range(1,10,3)",
        )
    if key.split(".")[0] in sweeping.KEYS:
        raise ConfigError(
            f"{override.input_line}: {key} belongs to the sweep and cannot vary within it",
            hint=f"give {key} one value",
        )
    try:
        levels = [str(level) for level in override.sweep_string_iterator()]
    except ValueError as error:  # range(1,4,0)
        raise ConfigError(f"{override.input_line}: {error}", hint=f"write {key}=1,2,5") from error
    if not levels:
        raise ConfigError(
            f"{override.input_line} holds no level of {key}",
            hint=f"mend the range or pattern, or name the levels: {key}=A,B",
        )
    return levels


def _composed(composed: Composer, overrides: tuple[str, ...], swept: Swept) -> Mapping[str, Any]:
    """The resolved configuration of a combination."""
    for key, level in swept:
        if key == "experiment" and composed.spans_a_matrix(overrides):
            raise ConfigError(
                f"experiment={level} spans a matrix of its own and cannot be a level of another",
                hint=f"run it alone: experiment={level}",
            )
    return composed.values(overrides)


def _cell(
    overrides: tuple[str, ...], swept: Swept, values: Mapping[str, Any], shared: Shared
) -> tuple[Cell, engines.Engine]:
    """The cell without its bundle, and the engine that it asks for."""
    job = jobs.job_from(values, shared)
    engine = engines.build(job)
    subject = engine.subject
    # A recorded report is a factor by its name: a path would differ between machines.
    told = {*jobs.FACTORS, "engine.report"}
    further = {key: _level(values, key, text) for key, text in swept if key not in told}
    factors = {**subject.factors, **further}
    cell = Cell(overrides, subject.cell_id, subject.label, job, values, factors, None)
    return cell, engine


def _levels_of(values: Mapping[str, Any], swept: Swept) -> dict[str, Any]:
    """The factors of a combination that is not checked, so that no Job can tell them."""
    standing = {key: values.get(key) for key in jobs.FACTORS}
    named = {
        key: level.get("name") if isinstance(level, Mapping) else level
        for key, level in standing.items()
    }
    return {**named, **{key: _level(values, key, text) for key, text in swept if key not in named}}


def _level(values: Mapping[str, Any], key: str, text: str) -> Any:
    """A swept level as composed (1000, not "1000"), or as written where it is no plain value."""
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, float) and found.is_integer():
        return int(found)
    return found if isinstance(found, str | int | float) else text


def _checked(cell: Cell, engine: engines.Engine) -> Cell:
    """The cell with its bundle, once both are what its engine can run."""
    # A plan can be had before there is a cluster; `imgpull doctor` asks one.
    is_there = not shapes.is_built(cell)
    asks_one = is_there and not (engines.is_real(cell.job) and cell.values["until"] == "plan")
    if asks_one:
        engine.check()
    elif not is_there and cell.values["until"] != "plan":
        engines.check_unbuilt(cell.job)
    if not engine.renders:
        if cell.values["trials"] > 1:
            raise ConfigError(
                f"trials={cell.values['trials']}: a recorded report is one trial, not more",
                hint="leave trials=1; several reports are engine.report=DIR1,DIR2 with -m",
            )
        return cell
    files = render.render(cell.job)
    if cell.job.ready_made is None:  # else its engine compiles it
        render.check(files)
    if asks_one:
        engine.validate(files)
    return replace(cell, files=files)
