"""A program on this machine, run to its end or its limit, with all that it started.

Hides process groups, pipes that an orphan holds open, and the ways to stop what does not want to:
TERM, a grace, then KILL to the whole group, on every way out. One thread does it all, so that an
exception in it (Ctrl-C, a full disk) stops the program too.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, NamedTuple, Self

from imgpull.errors import EngineUnavailable

# How often the program is looked at while it prints nothing.
_LOOK_S = 0.05
# How long a pipe is read on after the program's end, while somebody else holds it open.
_DRAIN_S = 0.5
_KILLED_S = 10.0
_CHUNK = 2**16

# On Linux the kernel ends the program when this process dies, however it dies: a killed sweep's
# CL2 would go on creating Deployments behind the janitor's back. The parent may be dead before the
# kernel is asked, hence the second look (prctl(2), PR_SET_PDEATHSIG).
_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    os._exit(128 + signal.SIGKILL)
try:
    os.execv(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"exec {sys.argv[2]}: {error.strerror}")
"""


@dataclass(frozen=True)
class Exit:
    """How a program ended; the code is None when it had to be stopped, negative for a signal."""

    code: int | None
    wall_s: float
    timed_out: bool


@dataclass(frozen=True)
class Printed:
    """What a short program left; the code is None past its limit."""

    code: int | None
    out: bytes
    errors: str

    @property
    def text(self) -> str:
        """Its output as text."""
        return self.out.decode("utf-8", "replace")

    @property
    def words(self) -> str:
        """What it says of its failure, in one line."""
        told = " ".join((self.errors or self.text).split())[-500:]
        return told or ("it did not answer" if self.code is None else f"exit {self.code}")


def run(
    command: Sequence[str],
    on_output: Callable[[bytes], None],
    *,
    limit_s: float,
    grace_s: float,
    environment: Mapping[str, str] | None = None,
    tied: bool = False,
    given: IO[bytes] | None = None,
    errors: IO[bytes] | None = None,
) -> Exit:
    """Run a program to its end; `command[0]` is a path.

    Its errors come with its output unless they have a file of their own; `given` is its input.
    `tied` ends it with this process, where the system can do that. EngineUnavailable when it
    cannot be started. Whatever happens, its process group is gone when this returns or raises.
    """
    begun = time.monotonic()
    streams = _Streams(given, errors)
    started = _tied(command) if tied else list(command)
    with _Program(started, grace_s, environment, streams) as program:
        while program.is_running():
            left_s = begun + limit_s - time.monotonic()
            if left_s <= 0:
                program.stop(on_output)
                return Exit(None, time.monotonic() - begun, timed_out=True)
            program.read(on_output, min(_LOOK_S, left_s))
        code = program.finish(on_output)
        return Exit(code, time.monotonic() - begun, timed_out=False)


def output(
    command: Sequence[str],
    *,
    limit_s: float,
    environment: Mapping[str, str] | None = None,
    given: bytes = b"",
) -> Printed:
    """All that a short program prints, its errors apart."""
    out = bytearray()
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as errors:
        source.write(given)
        source.seek(0)
        ended = run(
            command, out.extend, limit_s=limit_s, grace_s=1.0, environment=environment,
            given=source, errors=errors,
        )  # fmt: skip
        errors.seek(0)
        return Printed(ended.code, bytes(out), errors.read().decode("utf-8", "replace"))


def _tied(command: Sequence[str]) -> list[str]:
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command]


class _Streams(NamedTuple):
    given: IO[bytes] | None
    errors: IO[bytes] | None


class _Program:
    """A process that leads its own group. Leaving the context ends the group."""

    def __init__(
        self, command: Sequence[str], grace_s: float, environment: Mapping[str, str] | None,
        streams: _Streams,
    ) -> None:  # fmt: skip
        self._grace_s = grace_s
        try:
            self._process = subprocess.Popen(
                command, stdin=streams.given or subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=streams.errors or subprocess.STDOUT, start_new_session=True,
                env=None if environment is None else dict(environment),
            )  # fmt: skip
        except OSError as error:
            raise EngineUnavailable(
                f"{command[0]} cannot be started: {error.strerror or error}",
                hint="check that it is a program for this machine: file " + command[0],
            ) from error
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        os.set_blocking(self._pipe.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pipe, selectors.EVENT_READ)
        self._is_open, self._nap_s = True, 0.0005

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        try:
            if self.is_running():
                self.stop(_ignore)
        finally:  # a second Ctrl-C ends the grace
            if self._process.returncode is None:
                self._kill()
            self._selector.close()
            self._pipe.close()

    def is_running(self) -> bool:
        """Whether it runs; it is not reaped, so that its group cannot become somebody else's."""
        if self._process.returncode is not None:
            return False
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll() is None
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self._process.pid, flags) is None

    def read(self, on_output: Callable[[bytes], None], within_s: float) -> bool:
        """Take what is printed within a time; False when nothing was."""
        if not self._is_open:  # it is about to end, or has closed its output on purpose
            self._nap_s = min(2 * self._nap_s, _LOOK_S)
            time.sleep(min(within_s, self._nap_s))
            return False
        if not self._selector.select(within_s):
            return False
        try:
            data = os.read(self._pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return False
        if data:
            on_output(data)
            return True
        self._is_open = False
        self._selector.unregister(self._pipe)
        return False

    def stop(self, on_output: Callable[[bytes], None]) -> None:
        """TERM to the group, its last words within the grace, then KILL."""
        self._signal(signal.SIGTERM)
        until = time.monotonic() + self._grace_s
        while self.is_running() and time.monotonic() < until:
            self.read(on_output, _LOOK_S)
        self.finish(on_output)

    def finish(self, on_output: Callable[[bytes], None]) -> int | None:
        """Its exit code, when no process of the group is left and all they printed is taken."""
        self._kill()  # children that outlived it
        until = time.monotonic() + _DRAIN_S
        while self._is_open and time.monotonic() < until:
            self.read(on_output, _LOOK_S)
        return self._process.returncode

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        # A process that hangs in the kernel (a dead network disk) is nobody's to wait for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILLED_S)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS
            os.killpg(self._process.pid, number)


def _ignore(data: bytes) -> None:
    """What is printed on the way out of an error is nobody's."""
