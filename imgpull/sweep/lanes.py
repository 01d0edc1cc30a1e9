"""Several clusters side by side: each is held by a process of its own, which runs its trials.

Hides the processes. Hydra runs one job at a time and Ctrl-C reaches one thread, so a cluster gets a
process: the sweep's own command again, told by its environment that it is a lane. A lane holds its
cluster, runs one by one the trials that it is handed, and writes the ledger's lines of them. Which
trial is next, MLflow, table and progress stay with the process that runs the sweep; when that dies,
its lanes end as on Ctrl-C, so that nothing stays on a cluster.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Pipe, wait
from pathlib import Path
from typing import Any, Protocol

from imgpull import engines
from imgpull.config.job import Job
from imgpull.engines import Place, Say
from imgpull.errors import EngineFailed, ImgpullError
from imgpull.sweep.places import PROGRAM
from imgpull.sweep.plan import Planned

LANE = "IMGPULL_LANE"  # the number of the pipe's end that a lane inherits
_LAST = ("released", "broke", "gone")  # after which a lane says nothing
_ENDS_S = 30.0  # for a process that has said its last word


def lanes_of(plan: Sequence[Planned]) -> dict[Place | None, list[Planned]]:
    """The trials of each cluster in the plan's order; one lane where at most one is held."""
    found: dict[Place | None, list[Planned]] = {}
    for planned in plan:
        found.setdefault(engines.place(planned.job), []).append(planned)
    return found if len(found.keys() - {None}) > 1 else {None: list(plan)}


class Conducting(Protocol):
    """What the lanes ask and tell of who runs the sweep."""

    def next_on(self, place: Place | None) -> Planned | None:
        """The next trial of a cluster; None when no more shall begin there."""

    def ended(self, planned: Planned) -> None:
        """A trial is over, its record written."""

    def lost(self, place: Place | None, why: str) -> None:
        """A cluster runs no further trial; what it was running has no record."""

    def warn_once(self, warning: str) -> None:
        """Something to say at the end."""

    def step(self, text: str, planned: Planned | None) -> None:
        """A trial, or a cluster between its trials, has come to this step."""


class _Lane:
    """The process of one cluster, as the sweep's process sees it."""

    def __init__(self, place: Place | None, plan: Sequence[Planned], directory: Path) -> None:
        self.place = place
        self.name = _name(place, plan[0].job)
        self.running: Planned | None = None
        self.is_open = True
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self.connection, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *sys.argv[1:]],
            env={**os.environ, LANE: str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C is passed on once, not twice
        )
        theirs.close()
        self.tell("hold", directory, [planned.job for planned in plan])

    def tell(self, kind: str, *data: Any) -> None:
        """Say something; a lane that is gone is found out by who hears it next."""
        with contextlib.suppress(OSError):
            self.connection.send((kind, *data))

    def hear(self) -> tuple[Any, ...]:
        """The next thing that it says; ("gone", why) once it can say nothing."""
        try:
            said: tuple[Any, ...] = self.connection.recv()
        except (EOFError, OSError):
            said = ("gone", f"its process ended {self._last_words()}")
        if said[0] in _LAST:
            self._close()
        return said

    def run(self, planned: Planned) -> None:
        """Hand it a trial."""
        self.running = planned
        self.tell("run", planned)

    def interrupt(self) -> None:
        """What Ctrl-C is to the sweep."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def _last_words(self) -> str:
        try:
            status = self._process.wait(_ENDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()[-5:]
        return f"with status {status}" + (": " + " | ".join(lines) if lines else "")

    def _close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._last_words()
            self.connection.close()
            self._said.close()


class Lanes:
    """The lanes of a sweep while it holds its clusters."""

    def __init__(self, lanes: Sequence[_Lane]) -> None:
        self._lanes = lanes
        self._not_given_back: list[str] = []

    def run(self, sweep: Conducting) -> None:
        """Have every trial run that the sweep hands out; a lane without one ends at once."""
        for lane in self._open():
            self._hand_on(lane, sweep)
        while lanes := self._open():
            for lane in _heard(lanes):
                self._take(lane, lane.hear(), sweep)

    def require_healthy(self, job: Job) -> None:
        """EngineUnavailable or ConfigError when the job's cluster could run no further trial."""
        (lane,) = [each for each in self._lanes if each.place == engines.place(job)]
        lane.tell("healthy", job)
        while (said := lane.hear())[0] not in ("health", *_LAST):
            pass  # the steps of looking
        if said[0] != "health":
            raise EngineFailed(f"{lane.name}: {said[1]}")
        if said[1] is not None:
            raise said[1]

    def interrupt(self, say: Say) -> None:
        """End every lane as Ctrl-C ends a sweep, and wait until its cluster is given back."""
        for lane in self._open():
            lane.interrupt()
        while lanes := self._open():
            try:
                for lane in _heard(lanes):
                    kind, *data = lane.hear()
                    if kind == "step":
                        say(f"{lane.name}: {data[0]}")
                    elif kind == "released" and data[0] is not None:
                        self._not_given_back.append(f"{lane.name}: {data[0]}")
            except KeyboardInterrupt:
                for lane in self._open():
                    lane.interrupt()

    def require_given_back(self) -> None:
        """EngineFailed names the clusters on which something was left."""
        if self._not_given_back:
            raise EngineFailed("; ".join(self._not_given_back), hint="later: imgpull janitor")

    def open(self, say: Say) -> None:
        """Wait until every cluster is held; raises what the first that cannot be raised."""
        waiting = list(self._lanes)
        while waiting:
            for lane in _heard(waiting):
                kind, *data = lane.hear()
                if kind == "step":
                    say(f"{lane.name}: {data[0]}")
                elif kind == "held":
                    waiting.remove(lane)
                elif isinstance(data[0], ImgpullError):
                    raise data[0]
                else:
                    raise EngineFailed(f"{lane.name}: {data[0]}")

    def _open(self) -> list[_Lane]:
        return [lane for lane in self._lanes if lane.is_open]

    def _hand_on(self, lane: _Lane, sweep: Conducting) -> None:
        planned = sweep.next_on(lane.place)
        if not lane.is_open:
            return  # it was found gone when it was asked for its health
        if planned is None:
            lane.tell("release")
        else:
            lane.run(planned)

    def _take(self, lane: _Lane, said: tuple[Any, ...], sweep: Conducting) -> None:
        kind, *data = said
        if kind == "step":
            sweep.step(data[0] if lane.running else f"{lane.name}: {data[0]}", lane.running)
        elif kind == "warning":
            sweep.warn_once(data[0])
        elif kind == "ended":
            planned, lane.running = lane.running, None
            assert planned is not None
            sweep.ended(planned)
            self._hand_on(lane, sweep)
        elif kind == "released" and data[0] is not None:
            self._not_given_back.append(f"{lane.name}: {data[0]}")
        elif kind in ("gone", "broke"):
            sweep.lost(lane.place, f"{lane.name}: {data[0]}")


@contextmanager
def on_lanes(directory: Path, plan: Sequence[Planned], say: Say) -> Iterator[Lanes]:
    """While this lasts, every cluster of the plan is held by a lane.

    Raises what engines.session raises when one cannot be had; the others are given back then.
    EngineFailed at the end when something could not be removed from a cluster.
    """
    lanes = Lanes([_Lane(place, part, directory) for place, part in lanes_of(plan).items()])
    try:
        lanes.open(say)
        yield lanes
    finally:
        lanes.interrupt(say)
    lanes.require_given_back()


def _heard(lanes: Sequence[_Lane]) -> list[_Lane]:
    """Those of the lanes that have something to say; waits for one."""
    ready = wait([lane.connection for lane in lanes])
    return [lane for lane in lanes if lane.connection in ready]


def _name(place: Place | None, job: Job) -> str:
    if place is None:
        return "simulated"
    return place[1] or job.cluster.name
