"""What `imgpull status` costs, Python's start included: sweeps of several sizes, half done.

Hides how a ledger of such a sweep is made: one session, each trial planned, forecast, started,
finished and logged as a real one is, with a dozen overrides each.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parent.parent
AT = "2026-11-24T20:00:00.000+00:00"
CLOCKS = {"wall": time.perf_counter, "cpu": lambda: sum(os.times()[2:4])}  # of children
OVERRIDES = [f"key_{n}=level_{n}" for n in range(10)]


def main() -> None:
    """Measure and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--times", type=int, default=7, help="medians of so many")
    options.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu on a busy machine")
    asked = options.parse_args()
    table = Table(title=f"imgpull status, medians of {asked.times}, {asked.clock} clock")
    for column in ("cells x trials", "ledger kB", "seconds", "from directories alone, seconds"):
        table.add_column(column, justify="right")
    table.add_row("Python alone", "", f"{timed(asked, '-c', 'pass'):.2f}", "")
    for cells, trials in ((1, 1), (50, 2), (500, 2), (5000, 2)):
        with tempfile.TemporaryDirectory(prefix="imgpull-benchmark-") as directory:
            sweep = Path(directory)
            ledger = sweep / "ledger.jsonl"
            ledger.write_text("".join(json.dumps(e) + "\n" for e in events(cells, trials)))
            told = timed(asked, "-m", "imgpull.cli", "status", directory)
            size = ledger.stat().st_size / 1000
            write_records(sweep, cells * trials)
            ledger.unlink()
            lost = timed(asked, "-m", "imgpull.cli", "status", directory)
        table.add_row(f"{cells:,} x {trials}", f"{size:,.0f}", f"{told:.2f}", f"{lost:.2f}")
    Console(highlight=False).print(table)


def timed(asked: argparse.Namespace, *arguments: str) -> float:
    """Seconds of `python ARGUMENTS`."""
    clock, took = CLOCKS[asked.clock], []
    for _ in range(asked.times):
        begun = clock()
        subprocess.run(
            [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=PROJECT
        )
        took.append(clock() - begun)
    return median(took)


def events(cells: int, trials: int) -> Iterator[dict[str, Any]]:
    """The ledger of a sweep that is half done, a trial running."""
    yield event("sweep", matrix="m", arguments=["-m", *OVERRIDES], git={}, settings={},
                excluded=[], engine="sim", cells=[cell(n) for n in range(cells)])  # fmt: skip
    plan = [(n, trial) for trial in range(1, trials + 1) for n in range(cells)]
    for position, (n, trial) in enumerate(plan):
        yield event("planned", **which(n, trial, position), cell_id=f"{n:016x}", trial=trial,
                    block=trial, name=f"r{n} q{n}", overrides=OVERRIDES)  # fmt: skip
    yield event("forecast", basis="sim", trials={f"{n:016x}-t{trial}": 60.0 for n, trial in plan})
    half = len(plan) // 2
    for position, (n, trial) in enumerate(plan[: half + 1]):
        yield event("started", **which(n, trial, position))
        if position < half:
            yield event("finished", **which(n, trial, position), verdict="valid", slo="met",
                        reason="", wall_s=61.5, virtual_s=None, cost=0.0)  # fmt: skip
            yield event("logged", dir=str(position), run_id="0" * 32)


def event(event: str, /, **data: Any) -> dict[str, Any]:
    """A line of the ledger."""
    return {"at": AT, "clock_s": 1.0, "schema": 1, "event": event, **data}


def cell(number: int) -> dict[str, Any]:
    """A cell as the sweep's first line has it."""
    factors = {key.partition("=")[0]: number for key in OVERRIDES}
    return {"cell_id": f"{number:016x}", "name": f"r{number}", "factors": factors,
            "overrides": OVERRIDES}  # fmt: skip


def which(number: int, trial: int, position: int) -> dict[str, Any]:
    """Which trial an event is about."""
    return {"trial_id": f"{number:016x}-t{trial}", "attempt": 1, "dir": str(position),
            "position": position + 1}  # fmt: skip


def write_records(sweep: Path, trials: int) -> None:
    """job.json of each trial, of the size that a real one has."""
    for number in range(trials):
        record = {"schema": 1, "cell_id": f"{number:016x}", "trial_id": f"{number:016x}-t1",
                  "trial": 1, "attempt": 1, "name": f"r{number}", "verdict": "valid", "slo": "met",
                  "reasons": [], "wall_s": 61.5, "virtual_s": None,
                  "observed": {f"key_{n}": "x" * 60 for n in range(60)}}  # fmt: skip
        (sweep / str(number)).mkdir()
        (sweep / str(number) / "job.json").write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
