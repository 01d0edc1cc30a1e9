"""How a sweep's status reads: a line a question, the next command last.

Hides the words for each state.
"""

import shlex
from collections.abc import Iterator

from imgpull.sweep.watching.display import progress, verdicts
from imgpull.sweep.watching.onward import resume_command
from imgpull.sweep.watching.standing import Standing
from imgpull.sweep.watching.status import Status
from imgpull.sweep.watching.words import about, clock, counted, printable

_SHOWN = 10  # running trials


def lines(status: Status) -> Iterator[str]:
    """The status, line by line."""
    standing = status.standing
    for title, words in [
        ("sweep", str(status.directory)),
        ("state", _state(status)),
        ("trials", _trials(status)),
        ("verdicts", verdicts(standing)),
        *(("running", words) for words in _running(status)),
        *(("cut off", f"{each.label}, will run again") for each in standing.cut_off),
        *(("lost", why) for why in standing.session.lost),
        ("failure", _failure(standing)),
        ("time", _time(status)),
        ("limits", _limits(status)),
        ("excluded", f"{counted(standing.excluded, 'cell')}" if standing.excluded else ""),
        ("next", _next(status)),
    ]:
        if words:
            yield f"{title + ':':<10}{printable(words)}"


def _state(status: Status) -> str:
    session = status.standing.session
    said = {
        "running": f"running{_where(status)}",
        "ended": "ended",
        "stopped": f"stopped: {session.stopped}",
        "interrupted": "interrupted",
        "killed": "killed: its process is gone and said nothing",
        "broke": f"broke: it ended with trials left (exit status {session.status})",
        "unknown": "not known: " + (
            "nothing tells whether it runs" if status.ledger
            else "there is no ledger, this is from the trials' directories"
        ),
    }[status.state]  # fmt: skip
    again = session.number - 1
    return f"{said}, resumed {counted(again, 'time')}" if again > 0 else said


def _where(status: Status) -> str:
    session = status.standing.session
    pid = f" (pid {session.pid})" if session.pid else ""
    return f" on {session.host}{pid}" if session.host else ""


def _trials(status: Status) -> str:
    standing = status.standing
    if not standing.planned:
        return "none planned yet"
    rest = progress(standing)
    told = f"{standing.done} of {standing.planned} done{f', {rest}' if rest else ''}"
    if standing.again:
        told += f"; {counted(standing.again, 'further attempt')} made"
    if behind := status.behind.text():
        told += f"; {behind}"
    return told if status.ledger else f"{told}; how many were planned is not known"


def _running(status: Status) -> Iterator[str]:
    running = status.standing.running
    for trial in running[:_SHOWN]:
        step = status.steps.get(trial.trial_id)
        yield f"{trial.label}{f'  {step}' if step else ''}, for {clock(trial.elapsed_s)}"
    if len(running) > _SHOWN:
        yield f"and {len(running) - _SHOWN} more"


def _failure(standing: Standing) -> str:
    failed = standing.last_failure
    if failed is None:
        return ""
    reason = f": {failed.reason}" if failed.reason else ""
    where = f" (job {failed.directory})" if failed.directory else ""
    return f"{failed.label}  {failed.verdict}{reason}{where}"


def _time(status: Status) -> str:
    standing = status.standing
    told = f"{clock(standing.spent_s)} so far"
    if standing.session.number > 1:
        told += " in all sessions"
    if standing.done < standing.planned and standing.eta_s is not None:
        needed = about(standing.eta_s)
        told += f", {needed} left" if status.state == "running" else f", {needed} more once resumed"
    if standing.virtual_s is not None:
        told += f"; on the simulated clusters' clocks {clock(standing.virtual_s)}"
    return told


def _limits(status: Status) -> str:
    settings = status.standing.session.settings
    told = []
    if status.hours_left is not None:
        told.append(f"max_hours={settings['max_hours']:g}, {status.hours_left:.3g} h of them left")
    if isinstance(settings.get("max_cost"), int | float):
        left = status.cost_left
        rest = "what was spent is not known" if left is None else f"{left:.4g} of it left"
        told.append(f"max_cost={settings['max_cost']:g}, {rest}")
    return "; ".join(told)


def _next(status: Status) -> str:
    directory = shlex.quote(str(status.directory))
    if status.state == "running":
        return f"imgpull status --watch {directory}"
    if status.standing.left or status.state == "killed":
        return resume_command(status.directory, stopped=status.standing.session.stopped)
    if status.behind.trials:
        return resume_command(status.directory, *status.behind.further)
    return f"imgpull report {directory}"
