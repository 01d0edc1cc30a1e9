"""One trial without a sweep around it: render, edit the bundle, run the engine, assess.

What `pipeline.run_job` does, with a hand on each joint, so that tests can bend one of them.
"""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from imgpull import engines, render, results
from imgpull.config.job import Job
from imgpull.engines import Outcome, Subject
from imgpull.results.record import read_measurements

Edit = Callable[[dict[str, str]], dict[str, str]]
MakeJob = Callable[..., Job]
FILES = ("pods.csv", "pulls.csv", "series.csv", "measurements.csv", "events.jsonl")


@dataclass(frozen=True)
class Trial:
    """A finished trial's directory, and what was made of it."""

    directory: Path
    subject: Subject
    outcome: Outcome
    verdict: str
    reasons: tuple[str, ...]
    slo: str

    @cached_property
    def numbers(self) -> dict[tuple[str, str], float]:
        """(measurement, statistic) -> value, of the whole cluster."""
        rows = read_measurements(self.directory)
        return {(row.measurement, row.statistic): row.value for row in rows if not row.subject}

    def of_nodes(self, measurement: str, statistic: str) -> dict[str, float]:
        """Node -> value."""
        wanted = measurement, statistic
        return {
            row.subject: row.value
            for row in read_measurements(self.directory)
            if (row.measurement, row.statistic) == wanted and row.subject
        }

    @cached_property
    def pulls(self) -> list[dict[str, str]]:
        return table(self.directory / "pulls.csv")

    @cached_property
    def pods(self) -> list[dict[str, str]]:
        return table(self.directory / "pods.csv")

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        lines = (self.directory / "events.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def report_files(self, start: str) -> list[Path]:
        """The files of the report whose names begin so."""
        found = (self.directory / "report").iterdir()
        return sorted(path for path in found if path.name.startswith(start))

    def bytes_by_file(self) -> dict[str, bytes]:
        """Everything that a simulated trial leaves, by relative path."""
        found = [*(self.directory / "report").iterdir(), *(self.directory / f for f in FILES)]
        return {str(path.relative_to(self.directory)): path.read_bytes() for path in found}


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(
    job: Job,
    out: Path,
    *,
    edit: Edit | None = None,
    bundle_of: Job | None = None,
    judged_as: Job | None = None,
) -> Trial:
    """Run `job`'s world on the bundle of `bundle_of`, edited, and judge it as `judged_as`."""
    engine = engines.build(job)
    engine.check()
    bundle = None
    if engine.renders:
        files = render.render(bundle_of or job)
        bundle = render.write(edit(files) if edit else files, out / "bundle")
        engine.validate(render.read(bundle))
    outcome = engine.run(bundle, out, lambda step: None)
    subject = engines.build(judged_as).subject if judged_as else engine.subject
    found = results.assess(out, subject, outcome)
    return Trial(out, subject, outcome, found.verdict, found.reasons, found.slo)


def replaced(old: str, new: str, *, file: str = render.TEST_CONFIG, count: int = 1) -> Edit:
    """An edit of one file of the bundle; the text must stand there exactly `count` times."""

    def edit(files: Mapping[str, str]) -> dict[str, str]:
        assert files[file].count(old) == count, (files[file].count(old), old)
        return {**files, file: files[file].replace(old, new)}

    return edit


def moved(name: str, *, before: str) -> Edit:
    """Move one step of the test before another, each named by how its name begins."""

    def edit(files: Mapping[str, str]) -> dict[str, str]:
        head, *steps = files[render.TEST_CONFIG].split("\n- name: ")
        step = next(step for step in steps if step.startswith(name))
        steps.remove(step)
        steps.insert(next(i for i, step in enumerate(steps) if step.startswith(before)), step)
        return {**files, render.TEST_CONFIG: "\n- name: ".join([head, *steps]) + "\n"}

    return edit
