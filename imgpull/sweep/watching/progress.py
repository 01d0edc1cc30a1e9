"""What a person sees while a sweep runs: a display that lives, plain lines without a terminal.

Hides Rich, threads, and terminals that go away: nothing that is shown is worth a sweep. Progress
goes to standard error; the table at the end is the result, on standard output.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from imgpull.sweep.interrupts import held
from imgpull.sweep.moments import Event
from imgpull.sweep.watching import display
from imgpull.sweep.watching.standing import Course
from imgpull.sweep.watching.tail import Tail

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.live import Live
    from rich.text import Text

    from imgpull.results.record import JobRecord
    from imgpull.sweep.plan import Planned


@dataclass(frozen=True)
class Beat:
    """How often something is shown though nothing ended; the last three without a terminal."""

    refresh_s: float = 0.5
    first_s: float = 5.0  # a trial that runs for so long is told of
    step_s: float = 30.0  # between lines when its step is another
    same_s: float = 300.0  # and when it is the same: log viewers take silence for death


class Progress:
    """Tells how the trials of `plan` go; use as a context manager. Any thread may tell it.

    `expected_s` is what trials will probably take, by trial_id; `before` are the ledger's events
    of a sweep begun earlier, whose trials that are done count. Without a plan it shows steps.
    """

    def __init__(
        self,
        plan: "Sequence[Planned]" = (),
        expected_s: Mapping[str, float] | None = None,
        *,
        before: Iterable[Event] = (),
        beat: Beat = Beat(),
        console: "Console | None" = None,
    ) -> None:
        self._console = console or _console()
        self._screen = _is_screen(self._console)
        self._course = Course(before)
        self._beat = beat
        self._lock = threading.Lock()  # never held while printing: Rich has locks of its own
        self._steps: dict[str, str] = {}  # by trial_id; "" is the sweep
        self._own_since = time.monotonic()
        self._opening = threading.Lock()
        self._showing = threading.RLock()  # two threads that draw at once wipe each other's lines
        self._live: Live | None = None  # from when there is something to show
        self._ticker: threading.Thread | None = None
        self._over = threading.Event()
        self._over.set()  # until it is entered
        self._gone = False  # nobody can be told any more
        self._tail: Tail | None = None
        self._pulse = _Pulse(beat)
        for planned in plan:
            self._course.take(planned.as_event())
        self._course.expect(expected_s or {})

    def __enter__(self) -> "Progress":
        self._over.clear()
        if self._course.planned:
            self._refresh()
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the screen to another."""
        self._over.set()
        ticker, self._ticker = self._ticker, None
        try:
            if ticker is not None:
                ticker.join(timeout=5)
        finally:  # a second Ctrl-C must not leave the cursor hidden
            with self._opening:
                live, self._live = self._live, None
            if live is not None:
                self._show(live.stop)

    @property
    def planned(self) -> int:
        """How many trials the sweep has, those of earlier sessions included."""
        return self._course.planned

    def add(self, planned: "Planned") -> None:
        """One more trial is to be run: a further attempt."""
        with self._lock:
            self._course.take(planned.as_event())

    def start(self, planned: "Planned") -> None:
        """A trial begins."""
        with self._lock:
            self._course.take({**planned.as_event(), **_now(), "event": "started"})
            self._steps.pop("", None)
            self._steps[planned.trial_id] = "starting"
        self._refresh()

    def step(self, text: str, planned: "Planned | None" = None, *, own: bool = False) -> None:
        """A trial has come to this step; without one it is the only one that runs, or the sweep.

        `own`: it is the sweep, whatever runs.
        """
        with self._lock:
            running = self._course.running
            if planned is not None:
                key = planned.trial_id
            else:
                key = running[0] if len(running) == 1 and not own else ""
            news = key not in self._steps
            if news and not key:
                self._own_since = time.monotonic()
            self._steps[key] = text
        if news:
            self._refresh()

    def lose(self, left: Sequence[str]) -> None:
        """These trials will not run in this session; those that ran have no end."""
        with self._lock:
            self._course.take({**_now(), "event": "lost", "left": list(left)})
            for trial_id in left:
                self._steps.pop(trial_id, None)
        self._refresh()

    def finish(self, planned: "Planned", record: "JobRecord") -> None:
        """A trial is over."""
        event = {
            **planned.as_event(),
            **_now(),
            "event": "finished",
            "verdict": record.verdict,
            "slo": record.slo,
            "reason": record.reasons[0] if record.reasons else "",
            "wall_s": record.wall_s,
            "virtual_s": record.virtual_s,
        }
        self._take_in(event)

    @contextmanager
    def following(self, ledger: Path) -> Iterator[None]:
        """While this lasts, trials are run by other processes, which write this ledger."""
        self._tail = Tail(ledger)
        try:
            yield
        finally:
            self._follow()
            self._tail = None

    def say(self, line: str) -> None:
        """A line of its own."""
        from rich.text import Text

        self._print(Text(line), stamped=False)

    def _take_in(self, event: Event) -> None:
        trial_id, attempt = str(event["trial_id"]), event.get("attempt", 1)
        with self._lock:
            if self._course.is_done(trial_id, attempt):
                return  # told already, by the ledger
            self._course.take(event)
            self._steps.pop(trial_id, None)
            name = self._course.label(trial_id)
            place = f"{self._course.done}/{self._course.planned}"
        self._print(display.finished(event, place, name), stamped=True)

    def _follow(self) -> None:
        """Take in what other processes have written."""
        tail = self._tail
        for event in tail.new() if tail is not None else ():
            if event.get("event") == "started":
                with self._lock:
                    self._steps.pop("", None)
                    self._course.take(event)
            elif event.get("event") == "finished" and event.get("trial_id"):
                self._take_in(event)

    def _frame(self) -> display.Frame:
        with self._lock:
            own_s = time.monotonic() - self._own_since
            return display.Frame(self._course.standing(), dict(self._steps), own_s)

    def _tick(self) -> None:
        """In a thread of its own: show that time passes."""
        while not self._over.wait(self._beat.refresh_s):
            self._follow()
            if self._live is not None:
                self._refresh()
            elif not self._screen:
                frame = self._frame()
                if self._pulse.due(frame):
                    self._print_plain(display.pulse(frame))

    def _print_plain(self, line: str) -> None:
        from rich.text import Text

        self._print(Text(line), stamped=True)

    def _refresh(self) -> None:
        """Draw the display anew, on a terminal and while this is entered."""
        if not self._screen or self._over.is_set():
            return
        with self._opening:
            if self._live is None:
                self._live = self._opened()
            live = self._live
        self._show(live.refresh)

    def _print(self, line: "Text", *, stamped: bool) -> None:
        from rich.text import Text

        if stamped and not self._screen:
            line = Text(f"{datetime.now():%Y-%m-%d %H:%M:%S}  ").append_text(line)
            self._pulse.told()
        self._show(lambda: self._console.print(line, soft_wrap=True))

    def _show(self, show: Callable[[], None]) -> None:
        """Show something; a terminal that was closed, or a reader that left, ends no sweep."""
        if self._gone:
            return
        try:
            with held(), self._showing:  # what is torn by Ctrl-C is not wiped
                show()
        except (OSError, ValueError):  # ValueError: the file is closed
            self._gone = True

    def _opened(self) -> "Live":
        from rich.live import Live

        live = Live(
            _Screen(self._frame),
            console=self._console,
            auto_refresh=False,  # the ticker does it
            transient=True,
            vertical_overflow="crop",
            redirect_stdout=sys.stdout.isatty(),  # a result that goes to a file stays there
        )
        self._show(live.start)
        return live


@dataclass(frozen=True)
class _Screen:
    """The display under the cursor, drawn for the size that the terminal has now."""

    frame: Callable[[], display.Frame]

    def __rich_console__(
        self, console: "Console", options: "ConsoleOptions"
    ) -> "Iterator[RenderableType]":
        yield from display.live(self.frame(), options.max_width, options.size.height)


class _Pulse:
    """When a line is due where there is no terminal."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat
        self._said: dict[str, str] = {}  # what was told of each trial, "" is the sweep
        self._since: dict[str, float] = {}
        self._last = time.monotonic()

    def told(self) -> None:
        """A line was printed."""
        self._last = time.monotonic()

    def due(self, frame: display.Frame) -> bool:
        """Whether to show life now; True means that it is shown."""
        running = {trial.trial_id: "running" for trial in frame.standing.running}
        doing = {**running, **frame.steps}
        now = time.monotonic()
        self._since = {key: self._since.get(key, now) for key in doing}
        silent_s = now - self._last
        unheard = any(
            key not in self._said and now - since >= self._beat.first_s
            for key, since in self._since.items()
        )
        another = silent_s >= self._beat.step_s and self._said != doing
        due = bool(doing) and (unheard or another or silent_s >= self._beat.same_s)
        if due:
            self._said = doing
        return due


def _console() -> "Console":
    from rich.console import Console

    class Lasting(Console):
        """Rich ends the program when the reader of a pipe leaves."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Lasting(stderr=True, highlight=False)


def _is_screen(console: "Console") -> bool:
    """Whether lines can be drawn anew; FORCE_COLOR makes a log no terminal."""
    return console.is_interactive and console.file.isatty()


def _now() -> dict[str, Any]:
    return {"at": datetime.now(UTC).isoformat(), "clock_s": time.monotonic()}
