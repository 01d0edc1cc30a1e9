"""How long the end of a sweep takes, part by part: 48 cells x 5 trials, and the README's 4 cells.

And the plots, `imgpull report` and `imgpull compare` as whole processes, Python's start included.
Hides how a part is timed alone: the end runs whole, in a process of its own, each step of it under
a clock; the plots are drawn beside it.
`python benchmarks/report.py` prints the tables; on a busy machine look at CPU seconds.
"""

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT)]
RUNS = 3
SWEEPS = {
    "48 cells x 5 trials": (
        "image=even_5gb_1,even_5gb_10", "nodes=5,10,20", "deployments=10,20,40,50",
        "replicas=1,2", "trials=5",
    ),
    "4 cells x 1 trial": ("replicas=1,5", "qps=5,10"),
}  # fmt: skip
PARTS = ("read_sweep", "notes", "write_summary", "print_table", "write_report")

Clocked = tuple[float, float]  # wall and CPU, s


def clocks() -> Clocked:
    """Now, by both clocks."""
    return time.perf_counter(), time.process_time()


def since(start: Clocked) -> Clocked:
    """What has passed."""
    now = clocks()
    return now[0] - start[0], now[1] - start[1]


def end(directory: Path) -> dict[str, Any]:
    """Write a sweep's end again, each part under both clocks; sizes in bytes."""
    begun = clocks()
    from imgpull import analysis
    from imgpull.analysis.drawing import Drawing
    from imgpull.sweep import ending

    parts: dict[str, Clocked] = {}

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def clocked(*arguments: Any, **named: Any) -> Any:
            start = clocks()
            result = call(*arguments, **named)
            parts[name] = since(start)
            return result

        return clocked

    for owner, name, part in (
        *((analysis, name, name) for name in PARTS),
        (Drawing, "wait", "waiting for the plots"),
    ):
        setattr(owner, name, timed(part, getattr(owner, name)))
    found = ending.conclude(directory, Console(file=io.StringIO()))
    assert not found.warnings, found.warnings
    sizes = {path.name: path.stat().st_size for path in found.report or ()}
    return {"parts": {**parts, "all, with imports": since(begun)}, "sizes": sizes}


def made(arguments: tuple[str, ...], into: Path) -> Path:
    """A simulated sweep's directory."""
    command = [sys.executable, str(PROJECT / "run.py"), "-m", *arguments, "tracking=none"]
    subprocess.run(command, cwd=into, check=True, capture_output=True)
    (sweep,) = (into / "multirun").iterdir()
    return sweep


def apart(directory: Path) -> dict[str, Any]:
    """`end` in a process of its own."""
    command = [sys.executable, __file__, str(directory)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def process(module: str, *arguments: str) -> Clocked:
    """`python -m MODULE ARGUMENTS` from its start to its end, with what it started."""
    command = [sys.executable, "-m", module, *arguments]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # An open standard input: the plots' process ends with the one that started it.
    with subprocess.Popen(
        command,
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as running:
        assert running.stdout is not None
        said = running.stdout.read()
    assert running.returncode == 0, said
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    return wall, spent


def main() -> None:
    """Print a table for each sweep."""
    console = Console()
    for title, arguments in SWEEPS.items():
        with tempfile.TemporaryDirectory() as directory:
            sweep = made(arguments, Path(directory))
            runs = [apart(sweep) for _ in range(RUNS)]
            cli, place = "imgpull.cli", str(sweep)
            whole = {
                name: [process(*command) for _ in range(RUNS)]
                for name, command in (
                    ("the plots alone", ["imgpull.analysis.drawing", place]),
                    ("imgpull report", [cli, "report", place]),
                    ("imgpull compare", [cli, "compare", place, place]),
                )
            }
        table = Table(title=f"The end of {title}, medians of {RUNS}")
        for header in ("part", "seconds", "CPU seconds"):
            table.add_column(header, justify="left" if header == "part" else "right")
        for part in runs[0]["parts"]:
            wall, cpu = (median(run["parts"][part][clock] for run in runs) for clock in (0, 1))
            table.add_row(part, f"{wall:.2f}", f"{cpu:.2f}")
        table.add_section()
        for name, times in whole.items():
            wall, cpu = (median(one[clock] for one in times) for clock in (0, 1))
            table.add_row(name, f"{wall:.2f}", f"{cpu:.2f}")
        console.print(table)
        for name, size in runs[0]["sizes"].items():
            console.print(f"{name}: {size / 1e6:.2f} MB", highlight=False)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(end(Path(sys.argv[1]))))
    else:
        main()
