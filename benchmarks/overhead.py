"""What a sweep costs besides its engine: start-up times, and seconds a trial by part.

Hides how the parts are told apart: functions of the running program are wrapped with a clock, and
what is left of the function around them belongs to the part named there, so nothing is left out.
Everything runs in a copy of the project with a database of its own.
"""

import argparse
import contextlib
import io
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parent.parent
PARTS = ("Hydra", "render", "engine", "results", "tracking")
OWN = ("render", "results", "tracking")
LIGHT = "import imgpull.config.schema, hydra_plugins.imgpull_matrix, imgpull.cli"


def main() -> None:
    """Measure and print the tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cells", type=int, default=100, help="cells of the long sweep")
    options.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="of that sweep")
    asked = options.parse_args()
    console = Console(highlight=False)
    with project_copy() as copy:
        console.print(start_up(copy))
    with project_copy() as copy:
        console.print(four_cells(copy))
    with project_copy() as copy:
        for table in long_sweep(copy, asked.cells, asked.clock):
            console.print(table)


@contextlib.contextmanager
def project_copy() -> Iterator[Path]:
    """The project's own files in a new directory, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="imgpull-benchmark-") as directory:
        copy = Path(directory) / "imgpull"
        copy.mkdir()
        shutil.copy(PROJECT / "run.py", copy)
        for name in ("conf", "templates", "imgpull", "hydra_plugins"):
            leave = shutil.ignore_patterns("__pycache__")
            shutil.copytree(PROJECT / name, copy / name, ignore=leave)
        run(copy, "-m", "compileall", "-q", ".")
        yield copy


def run(copy: Path, *arguments: str) -> float:
    """Wall seconds of `python ARGUMENTS` in the copy; CalledProcessError when it fails."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], cwd=copy, check=True, capture_output=True, text=True
    )
    return time.perf_counter() - begun


def start_up(copy: Path) -> Table:
    """How long it takes until a person sees something."""
    table = _table("Start-up, wall seconds (median of 5)", "command", "s")
    for name, arguments in {
        "python -c pass": ("-c", "pass"),
        "import what run.py and imgpull import": ("-c", LIGHT),
        "run.py --help": ("run.py", "--help"),
        "run.py --cfg job": ("run.py", "--cfg", "job"),
        "imgpull --help": ("-m", "imgpull.cli", "--help"),
    }.items():
        table.add_row(name, f"{median(run(copy, *arguments) for _ in range(5)):.2f}")
    table.add_row("first finished trial, tracking=none (once)", f"{_first_trial(copy):.2f}")
    return table


def _first_trial(copy: Path) -> float:
    begun = time.perf_counter()
    command = [sys.executable, "run.py", "tracking=none"]
    with subprocess.Popen(
        command, cwd=copy, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        seconds = time.perf_counter() - begun
        process.stderr.read()
    if "  1/1  " not in line or process.returncode:
        raise SystemExit(f"the first trial did not finish: {line}")
    return seconds


def four_cells(copy: Path) -> Table:
    """The README's sweep, from nothing to its last line."""
    seconds = [run(copy, "run.py", "-m", "replicas=1,5", "qps=5,10") for _ in range(2)]
    table = _table("run.py -m replicas=1,5 qps=5,10, wall seconds", "database", "s")
    table.add_row("new", f"{seconds[0]:.1f}")
    table.add_row("there already", f"{seconds[1]:.1f}")
    return table


@dataclass
class Clock:
    """Adds up the time inside named functions: `trials` by trial and part, `once` for the rest."""

    now: Callable[[], float]
    trials: list[dict[str, float]] = field(default_factory=list)
    once: dict[str, float] = field(default_factory=dict)

    def wrap(self, owner: Any, name: str, part: str, *, new_trial: bool = False) -> None:
        """Replace owner.name by itself and a clock."""
        inner = getattr(owner, name)

        def clocked(*args: Any, **kwargs: Any) -> Any:
            if new_trial:
                self.trials.append({})
            # What is called before the first trial belongs to none.
            into = self.trials[-1] if self.trials else self.once
            begun = self.now()
            try:
                return inner(*args, **kwargs)
            finally:
                into[part] = into.get(part, 0.0) + self.now() - begun

        setattr(owner, name, clocked)

    def parts(self, trial: dict[str, float]) -> dict[str, float]:
        """Seconds of each part: what is inside a part is taken off it."""
        return {
            "Hydra": trial["launch"] - trial["trial"],
            "render": trial["write"],
            "engine": trial["engine"],
            "results": trial["job"] - trial["write"] - trial["engine"],
            "tracking": trial["trial"] - trial["job"],
        }


def long_sweep(copy: Path, cells: int, clock_name: str) -> list[Table]:
    """A sweep of replicas x qps in this process, its functions clocked."""
    side = max(1, int(cells**0.5))
    arguments = [f"replicas=range(1,{side + 1})", f"qps=range(1,{-(-cells // side) + 1})"]
    sys.path.insert(0, str(copy))
    os.chdir(copy)
    from imgpull import pipeline, render
    from imgpull.engines.sim import SimEngine
    from imgpull.sweep import command, matrix, running, tracked

    clock = Clock(time.perf_counter if clock_name == "wall" else time.process_time)
    clock.wrap(command, "launch", "launch", new_trial=True)
    clock.wrap(running.Sweep, "run_trial", "trial")
    clock.wrap(pipeline, "run_job", "job")
    clock.wrap(SimEngine, "run", "engine")
    clock.wrap(render, "write", "write")
    clock.wrap(matrix, "_composed", "compose")
    clock.wrap(matrix, "_checked", "check")
    clock.wrap(render, "render", "render")
    clock.wrap(tracked.Tracked, "__init__", "open")
    ended: dict[str, float] = {}
    end = Clock(clock.now, once=ended)
    end.wrap(running.Sweep, "_finish", "end")
    sys.argv = ["run.py", "-m", *arguments]
    begun = clock.now()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            runpy.run_path(str(copy / "run.py"), run_name="__main__")
        except SystemExit as finished:
            status = finished.code
    total = clock.now() - begun
    if status:
        raise SystemExit(f"the sweep ended with {status}")
    return [_by_trial(clock, clock_name), _by_stage(clock, ended["end"], total, clock_name)]


def _by_trial(clock: Clock, clock_name: str) -> Table:
    trials = [clock.parts(trial) for trial in clock.trials]
    ten = min(10, max(1, len(trials) // 3))
    middle = (len(trials) - ten) // 2
    title = f"Seconds a trial in a sweep of {len(trials)} cells, {clock_name} (median of {ten})"
    table = _table(title, "trials", *PARTS, "own overhead", "all")
    for name, some in {
        "first": trials[:ten],
        "middle": trials[middle : middle + ten],
        "last": trials[-ten:],
    }.items():
        own = median(sum(trial[part] for part in OWN) for trial in some)
        every = median(sum(trial.values()) for trial in some)
        parts = [median(trial[part] for trial in some) for part in PARTS]
        table.add_row(name, *(f"{seconds:.3f}" for seconds in (*parts, own, every)))
    return table


def _by_stage(clock: Clock, end: float, total: float, clock_name: str) -> Table:
    table = _table(f"The whole sweep, {clock_name} seconds", "stage", "s", "s a cell")
    cells = len(clock.trials)
    once = clock.once
    stages = {
        "composing every cell": once["compose"],
        "rendering every cell": once["render"],
        "checking every cell": once["check"] - once["render"],
        "opening MLflow, with a new database": once["open"],
        "trials": sum(trial["launch"] for trial in clock.trials),
        "end step (summary, table, plots)": end,
    }
    for name, seconds in stages.items():
        table.add_row(name, f"{seconds:.2f}", f"{seconds / cells:.3f}")
    table.add_row("imports and the rest", f"{total - sum(stages.values()):.2f}", "")
    table.add_row("all", f"{total:.2f}", f"{total / cells:.3f}")
    return table


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


if __name__ == "__main__":
    main()
