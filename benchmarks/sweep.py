"""What a matrix costs before its first trial, and what a sweep adds to each trial.

Hides how the parts are told apart: the engine and the reading of its report are clocked and taken
off the time from one trial's launch to the next; what is left is the sweep's own (Hydra, composing,
ledger, directories). Trials are simulated, tracking is off, everything runs in a copy.
"""

import argparse
import contextlib
import io
import json
import os
import resource
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from overhead import project_copy
from rich.console import Console
from rich.table import Table

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    """Measure and print the tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cells", type=int, default=500, help="of the matrix that is checked")
    options.add_argument("--trials", type=int, default=60, help="of the sweep that is run")
    options.add_argument("--times", type=int, default=3, help="that the matrix is checked")
    options.add_argument("--part", choices=("check", "trials"), help=argparse.SUPPRESS)
    options.add_argument("--copy", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.part:  # in a process of its own, whose peak is its own
        os.chdir(asked.copy)
        sys.path.insert(0, asked.copy)
        print(json.dumps(PARTS[asked.part](Path(asked.copy), asked.cells, asked.trials)))
        return
    console = Console(highlight=False)
    with project_copy() as copy:
        console.print(_checks(copy, asked.cells, asked.times))
        console.print(_overheads(_measured("trials", copy, asked.cells, asked.trials)))


def _measured(part: str, copy: Path, cells: int, trials: int) -> Any:
    command = [
        sys.executable, __file__, "--part", part, "--copy", str(copy),
        "--cells", str(cells), "--trials", str(trials),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _checks(copy: Path, cells: int, times: int) -> Table:
    found = [_measured("check", copy, cells, 1) for _ in range(times)]
    title = f"{cells} cells x 2 trials composed, checked and ordered (median of {times})"
    table = _table(title, "wall s", "cpu s", "peak MiB")
    table.add_row(*(f"{median(one[key] for one in found):.2f}" for key in ("wall", "cpu", "mib")))
    return table


def check(copy: Path, cells: int, trials: int) -> dict[str, float]:
    """Seconds of composing, checking and ordering in this process, and its peak."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from imgpull.config import schema
    from imgpull.sweep import matrix, plan

    schema.register()
    side = max(1, int(cells**0.5))
    arguments = [f"replicas=range(1,{side + 1})", f"qps=range(1,{-(-cells // side) + 1})"]
    with initialize_config_dir(config_dir=str(copy / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", arguments, RunMode.MULTIRUN, from_shell=False)
        begun = {name: clock() for name, clock in CLOCKS.items()}
        found = matrix.checked_matrix(loader, master, arguments).cells[:cells]
        ordered = plan.plan_trials(found, range(1, 3), "blocks", 0, None)
        seconds = {name: clock() - begun[name] for name, clock in CLOCKS.items()}
    if len(ordered) != 2 * cells:
        raise SystemExit(f"{len(ordered)} trials were ordered, not {2 * cells}")
    return {**seconds, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def trials(copy: Path, cells: int, count: int) -> dict[str, list[float]]:
    """Seconds that the sweep itself adds to each trial, by clock, in the order of running."""
    from imgpull import results
    from imgpull.engines.sim import SimEngine
    from imgpull.sweep import command

    launched: list[dict[str, float]] = []
    others: list[dict[str, float]] = []

    def clocked(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = {key: clock() for key, clock in CLOCKS.items()}
            try:
                return inner(*args, **kwargs)
            finally:
                for key, clock in CLOCKS.items():
                    others[-1][key] += clock() - begun[key]

        setattr(owner, name, timed)

    launch = vars(command)["launch"]

    def launching(*args: Any, **kwargs: Any) -> Any:
        launched.append({key: clock() for key, clock in CLOCKS.items()})
        others.append(dict.fromkeys(CLOCKS, 0.0))
        return launch(*args, **kwargs)

    clocked(SimEngine, "run")
    clocked(results, "assess")
    setattr(command, "launch", launching)  # noqa: B010 - it is no export
    sys.argv = ["run.py", "-m", f"replicas=range(1,{count + 1})", "tracking=none", "nodes=100"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        runpy.run_path(str(copy / "run.py"), run_name="__main__")
    pairs = list(zip(launched, launched[1:], others, strict=False))
    return {key: [after[key] - begun[key] - o[key] for begun, after, o in pairs] for key in CLOCKS}


PARTS: dict[str, Callable[[Path, int, int], Any]] = {"check": check, "trials": trials}


def _overheads(found: dict[str, list[float]]) -> Table:
    count = len(found["wall"]) + 1
    tenth = max(1, count // 10)
    middle = (count - tenth) // 2
    title = f"What a sweep of {count} trials adds to each, ms (median of {tenth})"
    table = _table(title, "trials", "wall ms", "cpu ms")
    for name, part in {
        "first tenth": slice(0, tenth),
        "middle tenth": slice(middle, middle + tenth),
        "last tenth": slice(-tenth, None),
    }.items():
        table.add_row(name, *(f"{1000 * median(found[key][part]):.0f}" for key in CLOCKS))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right")
    return table


if __name__ == "__main__":
    main()
