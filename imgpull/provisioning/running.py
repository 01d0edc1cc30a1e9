"""A program that must not be cut short: its lines as they come, redacted, and signals passed on.

Hides how that is done. Terraform that is killed loses track of what it made, so Ctrl-C becomes its
own interrupt, once, and is waited for. It writes into a file without a name instead of a pipe: when
this process is killed, Terraform still writes its state to the end.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from imgpull.cluster.redaction import redactor
from imgpull.errors import EngineUnavailable

Say = Callable[[str], None]
Redact = Callable[[str], str]

_LOOK_S = 0.05
_TAIL_LINES = 200
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What Azure's programs take credentials from.
_SECRETS = (
    "ARM_CLIENT_SECRET", "ARM_CLIENT_CERTIFICATE", "ARM_CLIENT_CERTIFICATE_PASSWORD",
    "ARM_OIDC_TOKEN", "ARM_OIDC_REQUEST_TOKEN", "ARM_ACCESS_KEY", "ARM_SAS_TOKEN",
    "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PASSWORD", "AZURE_PASSWORD",
    "AZURE_CLI_ACCESS_TOKEN", "SYSTEM_ACCESSTOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """How long is waited, in seconds."""

    terraform_s: float = 7200.0  # of one command; AKS itself gives up a pool after an hour
    az_s: float = 120.0  # of one question
    nodes_s: float = 1200.0  # until nodes are Ready, once Azure says that they are there
    grace_s: float = 600.0  # of a program that was told to stop
    poll_s: float = 5.0


def limits_of(seconds: float) -> Limits:
    """The usual limits where no command of terraform may take longer than this."""
    usual = Limits()
    return Limits(
        terraform_s=seconds,
        az_s=min(usual.az_s, seconds),
        nodes_s=min(usual.nodes_s, seconds),
        grace_s=min(usual.grace_s, seconds),
        poll_s=min(usual.poll_s, seconds / 10),
    )


@dataclass(frozen=True)
class Ended:
    """How a program ended; the code is None past its limit. `tail` is redacted."""

    code: int | None
    tail: tuple[str, ...]
    interrupted: bool

    @property
    def text(self) -> str:
        """The end of what it said."""
        return "\n".join(self.tail)


def redact_environment() -> Redact:
    """A redactor that knows the credentials in this environment."""
    return redactor([os.environ[name] for name in _SECRETS if os.environ.get(name)])


def find(program: str, fix: str) -> str:
    """Where a program is; EngineUnavailable with the fix when it is not on PATH."""
    found = shutil.which(program)
    if found is None:
        raise EngineUnavailable(f"{program} is not on PATH", hint=fix)
    return found


def stream(
    command: Sequence[str],
    on_line: Say,
    *,
    redact: Redact,
    environment: Mapping[str, str],
    limit_s: float,
    grace_s: float,
    log: Path | None = None,
) -> Ended:
    """Run a program to its end, a line at a time.

    Past the limit, or at Ctrl-C, it is interrupted as its user would; only after the grace is it
    killed. EngineUnavailable when it cannot be started.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(tempfile.TemporaryFile())
        written = stack.enter_context(_opened(log)) if log is not None else None
        signals = stack.enter_context(_Signals())
        process = _start(command, sink, environment)
        reader = _Reader(sink.fileno())

        def take(*, last: bool = False) -> None:
            for line in reader.lines(last=last):
                shown = redact(line)
                tail.append(shown)
                if written is not None:
                    written.write(f"{shown}\n")
                    written.flush()
                # Nobody who reads any more (`| head`) is no reason to stop half-way.
                with contextlib.suppress(BrokenPipeError):
                    on_line(shown)

        stopping = _Stopping(process, limit_s, grace_s)
        try:
            while process.poll() is None:
                take()
                stopping.look(signals.count, on_line)
                time.sleep(_LOOK_S)
        finally:
            # An error in between (a full disk) must not leave it without anybody who waits.
            stopping.end()
        take(last=True)
    code = None if stopping.timed_out else process.returncode
    return Ended(code, tuple(tail), signals.count > 0)


def ask(
    command: Sequence[str], *, environment: Mapping[str, str], limit_s: float
) -> tuple[int | None, str, str]:
    """Exit code (None past the limit), output and errors of a short program; nothing redacted."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        try:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env=dict(environment),
                timeout=limit_s, check=False,
            )  # fmt: skip
            code: int | None = ended.returncode
        except subprocess.TimeoutExpired:
            code = None
        except OSError as error:
            raise _cannot_start(command, error) from error
        return code, _text(out), _text(errors)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _start(
    command: Sequence[str], sink: IO[bytes], environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
            env=dict(environment), start_new_session=True,  # the terminal's Ctrl-C is ours to pass
        )  # fmt: skip
    except OSError as error:
        raise _cannot_start(command, error) from error


def _cannot_start(command: Sequence[str], error: OSError) -> EngineUnavailable:
    return EngineUnavailable(
        f"{command[0]} cannot be started: {error.strerror}", hint=f"try it: {command[0]} version"
    )


@contextlib.contextmanager
def _opened(log: Path) -> Iterator[IO[str]]:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "a", encoding="utf-8") as file:
        yield file


class _Reader:
    """Whole lines of a file that another process writes."""

    def __init__(self, handle: int) -> None:
        self._handle, self._offset, self._rest = handle, 0, b""

    def lines(self, *, last: bool) -> Iterator[str]:
        while chunk := os.pread(self._handle, 2**16, self._offset):
            self._offset += len(chunk)
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            yield from (line.decode("utf-8", "replace").rstrip() for line in whole)
        if last and self._rest:
            yield self._rest.decode("utf-8", "replace").rstrip()


class _Signals:
    """Counts Ctrl-C and its like instead of raising; only the main thread can."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> "_Signals":
        if threading.current_thread() is threading.main_thread():
            for each in _SIGNALS:
                self._before[each] = signal.signal(each, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for each, before in self._before.items():
            signal.signal(each, before)  # type: ignore[arg-type]

    def _note(self, *_: object) -> None:
        self.count += 1


class _Stopping:
    """When a program is told to stop, and how."""

    def __init__(self, process: subprocess.Popen[bytes], limit_s: float, grace_s: float) -> None:
        self.timed_out = False
        self._process, self._grace_s = process, grace_s
        self._ends = time.monotonic() + limit_s
        self._kill_at: float | None = None
        self._passed = 0

    def look(self, asked: int, say: Say) -> None:
        """Pass on what was asked since, or what the clock asks."""
        now = time.monotonic()
        if asked > self._passed:
            self._passed = asked
            if asked <= 2:
                self._interrupt()
                say(_TOLD[asked])
        elif now > self._ends and not self.timed_out:
            self.timed_out = True
            self._interrupt()
            say("it takes too long: it was told to stop, and may finish what is under way")
        if self._kill_at is not None and now > self._kill_at:
            self._signal(signal.SIGKILL)

    def end(self) -> None:
        """Have it gone."""
        if self._process.poll() is None:
            self._interrupt()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self._grace_s)
        self._signal(signal.SIGKILL)  # with what it started
        self._process.wait()

    def _interrupt(self) -> None:
        # To the program alone: Terraform tells its providers itself.
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._grace_s

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


_TOLD = {
    1: "interrupted: it finishes what is under way; wait",
    2: "interrupted again: it stops at once, and may lose track of what it made",
}
