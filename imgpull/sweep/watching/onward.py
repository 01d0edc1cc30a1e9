"""How to go on with a sweep: the command that its end, its status and a refusal tell.

Hides what must be added to `imgpull resume DIR`. What stopped a sweep would stop it again at once,
and the newest command runs no trial that only an earlier one asked for.
"""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imgpull.sweep.moments import Event
from imgpull.sweep.watching.words import counted

_LIFTED = {
    "max_hours": "max_hours=…",
    "max_cost": "max_cost=…",
    "on_failure": "on_failure=continue",
}


def resume_command(directory: Path, *further: str, stopped: str = "") -> str:
    """The command that goes on with a sweep; `stopped` is why it ended, and is lifted."""
    lifted = _LIFTED.get(stopped.partition("=")[0])
    told = ["imgpull resume", shlex.quote(str(directory)), *map(shlex.quote, further)]
    return " ".join([*told, lifted] if lifted else told)


@dataclass(frozen=True)
class LeftBehind:
    """Trials that earlier commands planned, that never ended, and that the newest asks for no more.

    `further` are the overrides that ask for them again.
    """

    trials: int = 0
    further: tuple[str, ...] = ()

    def text(self) -> str:
        """Such as "3 trials of earlier commands are not"; empty without any."""
        verb = "is" if self.trials == 1 else "are"
        return f"{counted(self.trials, 'trial')} of earlier commands {verb} not" * bool(self.trials)

    def told(self, directory: Path) -> str:
        """How to go on with what was left behind in a sweep's directory."""
        again = resume_command(directory, *self.further)
        return f"what was asked is done; {self.text()}: {again}"


def left_behind(events: Iterable[Event]) -> LeftBehind:
    """What a sweep's sessions have left behind; events may be anything."""
    left: dict[str, Event] = {}
    newest: set[str] = set()  # what the newest session plans
    over: set[str] = set()
    requests = []
    for event in events:
        kind, trial_id = event.get("event"), event.get("trial_id")
        if kind == "sweep":
            requests.append(event)
            newest = set()
        elif kind == "planned" and isinstance(trial_id, str):
            left[trial_id] = event
            newest.add(trial_id)
        elif kind == "finished" and isinstance(trial_id, str):
            over.add(trial_id)
    behind = [event for trial_id, event in left.items() if trial_id not in newest | over]
    if not behind:
        return LeftBehind()
    return LeftBehind(len(behind), (*_levels(requests, behind), *_trials(requests[-1:], behind)))


def _levels(requests: Sequence[Event], behind: Sequence[Event]) -> Iterator[str]:
    """Every level of what varies, of the cells that were left and those of the newest command."""
    wanted = {str(event.get("cell_id")) for event in behind}
    wanted |= {cell_id for request in requests[-1:] for cell_id, _ in _cells(request)}
    found: dict[str, dict[str, None]] = {}
    varying = set()
    for request in requests:
        within: dict[str, set[str]] = {}
        for cell_id, overrides in _cells(request):
            for key, _, level in (override.partition("=") for override in overrides):
                within.setdefault(key, set()).add(level)
                if cell_id in wanted:
                    found.setdefault(key, {})[level] = None
        # What varied within no command is a setting, such as the limit that ended one.
        varying |= {key for key, levels in within.items() if len(levels) > 1}
    for key, levels in found.items():
        if key in varying and len(levels) > 1:
            yield f"{key}={','.join(levels)}"


def _cells(request: Event) -> Iterator[tuple[str, list[str]]]:
    cells = request.get("cells")
    for cell in cells if isinstance(cells, list) else ():
        overrides = cell.get("overrides") if isinstance(cell, dict) else None
        if isinstance(overrides, list):
            yield str(cell.get("cell_id")), [str(each) for each in overrides]


def _trials(newest: Sequence[Event], behind: Sequence[Event]) -> Iterator[str]:
    """The range of trials that holds both, where the newest command's does not."""
    settings = newest[0].get("settings") if newest else None
    if not isinstance(settings, dict):
        return
    first, asked = settings.get("first_trial", 1), settings.get("trials", 1)
    if not isinstance(first, int) or not isinstance(asked, int):
        return
    numbers = [n for event in behind if isinstance(n := event.get("trial"), int)]
    low, high = min([first, *numbers]), max([first + asked - 1, *numbers])
    if low != first:
        yield f"trial={low}"
    if high - low + 1 != asked:
        yield f"trials={high - low + 1}"
