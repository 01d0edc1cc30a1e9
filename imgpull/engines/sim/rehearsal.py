"""How long a bundle takes in virtual time, and with what, without leaving any file.

Hides what can be left out for that: no query is evaluated and no report is written, which is most
of the work of a simulated trial, and takes none of its virtual time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from imgpull import cl2, render
from imgpull.config.job import Job
from imgpull.engines.sim import SimEngine, _scrape_interval_s, _world
from imgpull.engines.sim.interpreter import Interpreter
from imgpull.engines.sim.subset import require_playable
from imgpull.errors import ConfigError

_TAKES_NO_TIME = "GenericPrometheusQuery"


@dataclass(frozen=True)
class Rehearsal:
    """The virtual seconds of one trial of a bundle."""

    virtual_s: float
    waiting_s: float  # of steps that only sleep, while nothing is pulled
    pulling_s: float  # from the first pull asked for to the last one there


def rehearse(job: Job, files: Mapping[str, str]) -> Rehearsal:
    """Play a job's rendered bundle; ConfigError when the world cannot be simulated.

    `job.engine` is the simulator's. RenderError when the bundle asks for what it does not know.
    """
    _require_rates(job)
    SimEngine(job).check()
    world = _world(job)
    test = _without_queries(render.load(files))
    require_playable(test, world)
    run = Interpreter(world, test, _scrape_interval_s(files))
    sleeps: list[tuple[float, float]] = []
    for step in test.steps:
        begun_s = run.clock_s
        run.step(step)
        if _sleeps(step):
            sleeps.append((begun_s, run.clock_s))
    first_s, last_s = _pulls(run)
    waiting_s = sum(
        end_s - begin_s - max(0.0, min(end_s, last_s) - max(begin_s, first_s))
        for begin_s, end_s in sleeps
    )
    return Rehearsal(run.clock_s, waiting_s, last_s - first_s)


def sleeps_s(files: Mapping[str, str]) -> float:
    """The seconds of a bundle's steps that only sleep; RenderError when it cannot be read."""
    return sum(
        max(call.seconds("duration", "") for call in step.measurements)
        for step in render.load(files).steps
        if _sleeps(step)
    )


def _sleeps(step: cl2.Step) -> bool:
    return not step.phases and all(call.method == "Sleep" for call in step.measurements)


def _without_queries(test: cl2.TestConfig) -> cl2.TestConfig:
    steps = (
        replace(
            step,
            measurements=tuple(c for c in step.measurements if c.method != _TAKES_NO_TIME),
        )
        for step in test.steps
    )
    return replace(test, steps=tuple(s for s in steps if s.phases or s.measurements))


def _pulls(run: Interpreter) -> tuple[float, float]:
    """When the first was asked for and the last was there; nothing is waited for after the end."""
    attempts = [attempt for pod in run.trace().pods for attempt in pod.attempts]
    if not attempts:
        return 0.0, 0.0
    ended = (run.clock_s if each.ended_s is None else each.ended_s for each in attempts)
    return min(each.asked_s for each in attempts), min(run.clock_s, max(ended))


def _require_rates(job: Job) -> None:
    node = job.cluster.node
    for key in ("nic_mbit_s", "disk_write_mb_s"):
        if getattr(node, key) is None:
            raise ConfigError(
                f"cluster.node.{key} is not known, which the simulator needs",
                hint=f"give cluster.node.{key} the value of the datasheet",
            )
