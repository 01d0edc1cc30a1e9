"""In the process of a lane: hold one cluster, run what the sweep's process hands over.

Hides how a lane hears. A thread reads the pipe, because a sweep that dies must reach the trial that
runs: it ends then as on Ctrl-C, as it does when the sweep passes one on.
"""

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from imgpull import engines
from imgpull.engines import Session
from imgpull.errors import ImgpullError
from imgpull.results.record import JobRecord
from imgpull.sweep import workers
from imgpull.sweep.ending import FAILED, INTERRUPTED, OK
from imgpull.sweep.lanes import LANE
from imgpull.sweep.ledger import Ledger
from imgpull.sweep.plan import Planned, sweep_name
from imgpull.sweep.stopping import why_broken

Launch = Callable[[Path, Sequence[Planned]], None]


def is_lane() -> bool:
    """Whether this process was started as one."""
    return LANE in os.environ


class Lane:
    """One cluster of a sweep, in the process that holds it."""

    def __init__(self) -> None:
        self._connection = Connection(int(os.environ.pop(LANE)))
        self._sending = threading.Lock()
        self._heard: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._planned: Planned | None = None
        self._session: Session = engines.Apart()
        self._is_over = False

    def serve(self, launch: Launch) -> int:
        """Hold the cluster and run trials until there are no more; returns the exit status."""
        threading.Thread(target=self._listen, name="lane", daemon=True).start()
        _, directory, jobs = self._heard.get()
        tell = Ledger(directory).append
        left, broken, status = None, None, OK
        try:
            with engines.session(jobs, sweep_name(directory), tell, self._step) as self._session:
                self._say("held")
                broken = self._work(launch, directory)
        except KeyboardInterrupt:
            status = INTERRUPTED
        except ImgpullError as error:  # it could not be had, or not be given back whole
            left, status = error, FAILED
        self._is_over = True
        if broken:
            self._say("broke", f"{broken}; {left}" if left else broken)
            return FAILED
        self._say("released", left)
        return status

    def launched(self, subdir: str) -> Planned:
        """The trial that was handed over."""
        assert self._planned is not None
        assert self._planned.directory == subdir
        return self._planned

    def run_trial(self, planned: Planned) -> JobRecord:
        """Run it; the sweep's process logs it."""
        return workers.run_trial(self._directory, planned, self._step, self._session)

    def warn_once(self, warning: str) -> None:
        """Have the sweep say this at its end."""
        self._say("warning", warning)

    def _work(self, launch: Launch, directory: Path) -> str | None:
        """Do what is asked until nothing is; returns why it could not go on."""
        self._directory = directory
        while True:
            kind, *data = self._heard.get()
            try:
                if kind == "release":
                    return None
                if kind == "healthy":
                    self._say("health", self._illness(data[0]))
                else:
                    self._planned = data[0]
                    launch(directory, data)
                    self._say("ended")
            except Exception as error:  # not the trial's: a full disk, a bug
                return why_broken(error, directory)

    def _illness(self, job: Any) -> ImgpullError | None:
        try:
            self._session.require_healthy(job)
        except ImgpullError as error:
            return error
        return None

    def _step(self, text: str) -> None:
        self._say("step", text)

    def _say(self, kind: str, *data: Any) -> None:
        with self._sending, contextlib.suppress(OSError):  # nobody is there to hear
            self._connection.send((kind, *data))

    def _listen(self) -> None:
        while True:
            try:
                self._heard.put(self._connection.recv())
            except (EOFError, OSError):
                if not self._is_over:
                    os.kill(os.getpid(), signal.SIGINT)
                return
