"""What a sweep that runs looks like: the lines under the cursor, and those that stay.

Hides what gives way where a terminal is small. Each line fits the width, all of them the height.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgpull import units
from imgpull.sweep.watching.standing import Standing
from imgpull.sweep.watching.words import about, clock, one_line

if TYPE_CHECKING:
    from rich.text import Text

MARKS = {"valid": "green", "degraded": "yellow", "invalid": "red", "failed": "red"}
_BAR = 40  # columns at most


@dataclass(frozen=True)
class Frame:
    """All that is shown at one moment; without trials planned it is the sweep's step alone."""

    standing: Standing
    steps: Mapping[str, str]  # what each trial does, by trial_id; "" is the sweep
    own_s: float = 0.0  # for so long the sweep has been at its step


def live(frame: Frame, width: int, height: int) -> "list[Text]":
    """The lines under the cursor: at most `height` - 1 of them, none longer than `width`."""
    from rich.text import Text

    room = max(height - 1, 1)
    standing = frame.standing
    doing = _doing(frame)
    if standing.planned:
        counts = [Text(words)] if (words := _counts(standing)) else []
        head = [_bar(standing, width)]
    else:
        head, counts = [], []
    failure = _failure(standing)
    # What tells most stays longest: the bar, one trial, the counts, the failure, further trials.
    spare = room - len(head) - 1
    counts = counts[: max(spare, 0)]
    failure = failure[: max(spare - len(counts), 0)]
    shown = _fit(doing, room - len(head) - len(counts) - len(failure))
    lines = [*head, *counts, *shown, *failure][:room]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines


def _bar(standing: Standing, width: int) -> "Text":
    from rich.text import Text

    words = f"{standing.done}/{standing.planned} trials"
    if standing.eta_s is not None and standing.done < standing.planned:
        words += f"  {about(standing.eta_s)} left"
    columns = min(_BAR, width - len(words) - 2)
    if columns < 5:
        return Text(words)
    full = columns * standing.done // standing.planned
    bar = Text("━" * full, style="green")
    bar.append("━" * (columns - full), style="bright_black")
    return bar.append(f"  {words}", style="default")


def _counts(standing: Standing) -> str:
    return "; ".join(filter(None, [verdicts(standing), progress(standing)]))


def verdicts(standing: Standing) -> str:
    """How the trials done came out: "4 valid, 1 failed, 2 slo missed"."""
    order = [*MARKS, *sorted(set(standing.verdicts) - set(MARKS))]
    told = [f"{standing.verdicts[v]} {v}" for v in order if standing.verdicts.get(v)]
    if standing.slo_missed:
        told.append(f"{standing.slo_missed} slo missed")
    return ", ".join(told)


def progress(standing: Standing) -> str:
    """What runs and what is left: "1 running, 6 left"."""
    told = [f"{len(standing.running)} running"] if standing.running else []
    return ", ".join([*told, *([f"{standing.left} left"] if standing.left else [])])


def _doing(frame: Frame) -> "list[Text]":
    """A line for each trial that runs, or for what the sweep itself does."""
    from rich.text import Text

    told = []
    if own := _step(frame, ""):
        told.append((frame.own_s, f"{own} ..."))
    for trial in frame.standing.running:
        step = _step(frame, trial.trial_id)
        told.append((trial.elapsed_s, trial.label + (f"  {step} ..." if step else "")))
    return [
        Text(f"{clock(seconds):>7}  ", style="bright_black").append(words, style="default")
        for seconds, words in told
    ]


def _step(frame: Frame, trial_id: str) -> str:
    return one_line(frame.steps.get(trial_id, ""))


def _fit(lines: "list[Text]", room: int) -> "list[Text]":
    """As many of the lines as there is room for, and how many there are besides."""
    from rich.text import Text

    if len(lines) <= room or room < 1:
        return lines[: max(room, 0)]
    if room == 1:
        return lines[:1]
    return [*lines[: room - 1], Text(f"{'':>9}and {len(lines) - room + 1} more")]


def _failure(standing: Standing) -> "list[Text]":
    from rich.text import Text

    failed = standing.last_failure
    if failed is None:
        return []
    line = Text(f"last {failed.verdict}: ", style="red")
    return [line.append(f"{failed.label}: {failed.reason}", style="default")]


def finished(event: Mapping[str, object], place: str, name: str) -> "Text":
    """The line that stays of a trial, from its `finished` event: "5/12  r5 q10  trial 2  valid"."""
    from rich.text import Text

    verdict, virtual_s, wall_s = event["verdict"], event.get("virtual_s"), event.get("wall_s")
    line = Text(f"{place}  {name}  ")
    line.append(str(verdict), style=MARKS.get(str(verdict), "red"))
    if event.get("slo") == "missed":
        line.append(", slo missed")
    if isinstance(virtual_s, int | float):
        line.append(f", {units.format_duration(round(virtual_s))} simulated")
    if isinstance(wall_s, int | float):
        line.append(f" in {wall_s:.2f} s" if wall_s < 100 else f" in {clock(wall_s)}")
    reason = one_line(str(event.get("reason") or ""))
    if verdict != "valid" and reason:
        line.append(f": {reason}")
    return line


def pulse(frame: Frame) -> str:
    """A line that shows life where there is no terminal: what runs, for how long, and how far."""
    standing = frame.standing
    parts = [
        f"{trial.label}  {_step(frame, trial.trial_id) or 'running'}, {clock(trial.elapsed_s)}"
        for trial in standing.running[:3]
    ]
    if len(standing.running) > 3:
        parts.append(f"{len(standing.running) - 3} more")
    own = _step(frame, "")
    said = "; ".join([*([own] if own else []), *parts])
    if not standing.planned:
        return said
    left = f"; {about(standing.eta_s)} left" if standing.eta_s is not None else ""
    return f"{standing.done}/{standing.planned}  {said}{left}"
