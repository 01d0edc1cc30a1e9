"""How a sweep stands: laws of what its events come to, whatever they are."""

import string
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgpull.results.record import COUNTED, VERDICTS
from imgpull.sweep.ledger import elapsed_s
from imgpull.sweep.watching import standing as standing_module
from imgpull.sweep.watching.eta import Coming, Pace, Past, left_s
from imgpull.sweep.watching.standing import Course
from imgpull.sweep.watching.words import about, one_line

BEGUN = datetime(2026, 11, 24, 20, tzinfo=UTC)
NOW = BEGUN.timestamp()

Event = dict[str, Any]


def told(event: str, after_s: float = 0.0, **data: Any) -> Event:
    at = (BEGUN + timedelta(seconds=after_s)).isoformat(timespec="milliseconds")
    return {"at": at, "clock_s": 1000 + after_s, "schema": 1, "event": event, **data}


def of(number: int, attempt: int = 1) -> Event:
    directory = f"{number}/attempt-{attempt}" if attempt > 1 else str(number)
    return {"trial_id": f"c{number}-t1", "attempt": attempt, "dir": directory}


def plan(*numbers: int, at_s: float = 0.0) -> list[Event]:
    return [told("planned", at_s, **of(n), cell_id=f"c{n}", trial=1, name=f"r{n}") for n in numbers]


def finished(number: int, at_s: float, wall_s: float, verdict: str = "valid", **data: Any) -> Event:
    return told("finished", at_s, **of(number), verdict=verdict, wall_s=wall_s, **data)


# Whatever happens

trials = st.integers(0, 4)
attempts = st.integers(1, 3)
walls = st.floats(0, 1e5) | st.none() | st.just("x")
moments = st.floats(-1e6, 1e6)


KINDS = ("sweep", "planned", "started", "finished", "forecast", "ended", "interrupted", "stopped",
         "logged", "held", "given back", "lost")  # fmt: skip


@st.composite
def some_event(draw: st.DrawFn) -> Event:
    """An event that may come at any time, also one that no sweep would write."""
    kind = draw(st.sampled_from(KINDS))
    event = told(kind, draw(moments))
    if kind in ("planned", "started", "finished"):
        event |= of(draw(trials), draw(attempts))
    if kind == "finished":
        event |= {
            "verdict": draw(st.sampled_from(VERDICTS)),
            "slo": draw(st.sampled_from(["met", "missed", "unknown"])),
            "wall_s": draw(walls),
            "virtual_s": draw(walls),
            "cost": draw(walls),
        }
    if kind == "lost":
        event |= {"why": "broke", "left": [f"c{n}-t1" for n in draw(st.lists(trials))]}
    if kind == "forecast":
        event["trials"] = {f"c{n}-t1": draw(walls) for n in range(3)}
    if draw(st.integers(0, 9)) == 0:
        event.pop(draw(st.sampled_from(sorted(event))))
    return event


garbage = st.dictionaries(
    st.sampled_from(["event", "at", "trial_id", "dir", "attempt", "wall_s", "trials", "settings",
                     "excluded", "clock_s", "pid"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable)
    | st.sampled_from(["sweep", "planned", "started", "finished", "forecast", "ended"])
    | st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=3), st.integers()),
)  # fmt: skip
histories = st.lists(some_event() | garbage, max_size=40)


@given(histories, st.booleans(), moments)
def test_every_trial_planned_is_done_running_or_left(
    events: list[Event], alive: bool, later_s: float
) -> None:
    stands = Course(events).standing(NOW + later_s, alive=alive)
    assert stands.done + len(stands.running) + stands.left == stands.planned
    assert min(stands.done, stands.left) >= 0
    assert sum(stands.verdicts.values()) == stands.done
    assert stands.slo_missed <= stands.done
    assert len(stands.cut_off) <= stands.left
    assert not (stands.running and stands.cut_off)


@given(histories, st.booleans(), moments)
def test_no_duration_is_negative(events: list[Event], alive: bool, later_s: float) -> None:
    stands = Course(events).standing(NOW + later_s, alive=alive)
    assert stands.eta_s is None or stands.eta_s >= 0
    assert stands.spent_s >= 0
    assert all(trial.elapsed_s >= 0 for trial in stands.running)


@given(histories)
def test_an_event_told_twice_changes_nothing(events: list[Event]) -> None:
    """A worker writes it and the sweep tells it too; a session is no such event."""
    twice = [
        copy for event in events for copy in [event] * (1 if event.get("event") == "sweep" else 2)
    ]
    once, again = Course(events).standing(NOW), Course(twice).standing(NOW)
    assert (once.verdicts, once.done, once.left, once.running, once.again) == (
        again.verdicts, again.done, again.left, again.running, again.again,
    )  # fmt: skip


@given(histories)
def test_the_time_spent_is_the_one_that_limits_count(events: list[Event]) -> None:
    stands = Course(events).standing(NOW, alive=False)
    assert stands.spent_s == pytest.approx(elapsed_s(events))


def test_what_counts_is_what_the_record_says() -> None:
    assert standing_module.COUNTED == COUNTED


# Sessions


def test_a_trial_that_is_cut_off_is_left_and_named() -> None:
    events = [told("sweep"), *plan(0, 1), told("started", 5, **of(0))]
    stands = Course(events).standing(NOW + 65, alive=False)
    assert (stands.done, stands.left, stands.running) == (0, 2, ())
    assert [trial.name for trial in stands.cut_off] == ["r0"]
    assert [t.elapsed_s for t in Course(events).standing(NOW + 65).running] == [60.0]


def test_a_resume_keeps_what_is_done_and_plans_the_rest_anew() -> None:
    course = Course([
        told("sweep"), *plan(0, 1, 2), told("started", 0, **of(0)), finished(0, 10, 10.0),
        told("started", 10, **of(1)), told("interrupted", 12), told("ended", 13, status=130),
    ])  # fmt: skip
    assert course.standing(NOW + 99, alive=False).session.interrupted
    for event in [told("sweep", 5000), *plan(1, 2, at_s=5000)]:
        course.take(event)
    stands = course.standing(NOW + 5001)
    assert (stands.planned, stands.done, stands.left, stands.cut_off) == (3, 1, 2, ())
    assert (stands.session.number, stands.session.interrupted, stands.session.status) == (
        2, False, None,
    )  # fmt: skip
    assert stands.spent_s == pytest.approx(13 + 1)  # the pause between them is not spent


def test_a_trial_cut_off_in_its_second_attempt_is_left_by_the_next_session() -> None:
    again = told("started", 20, **of(0, 2))
    before = [told("sweep"), *plan(0), told("started", 0, **of(0)), finished(0, 10, 10.0, "failed")]
    ends = finished(0, 10, 10.0, "invalid")
    for end in (before[-1], ends):
        stands = Course([*before[:-1], end, again, told("sweep", 99)]).standing(NOW + 100)
        assert (stands.planned, stands.done, stands.again) == (0, 0, 0)


def test_fewer_trials_asked_for_are_fewer_left() -> None:
    events = [told("sweep"), *plan(0, 1, 2), finished(0, 1, 1.0), told("sweep"), *plan(1)]
    stands = Course(events).standing(NOW)
    assert (stands.planned, stands.done, stands.left) == (2, 1, 1)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_trial_counts_by_its_last_attempt(verdict: str) -> None:
    again = {**plan(0)[0], **of(0, 2)}
    course = Course([told("sweep"), *plan(0), finished(0, 1, 1.0, "invalid", reason="warm"), again])
    assert (course.standing(NOW).done, course.standing(NOW).left) == (0, 1)
    course.take({**finished(0, 2, 1.0, verdict, reason="once more"), **of(0, 2)})
    stands = course.standing(NOW)
    assert (stands.verdicts, stands.again) == ({verdict: 1}, 1)
    assert stands.last_failure is not None
    assert stands.last_failure.reason == ("warm" if verdict in COUNTED else "once more")


def test_a_cost_that_is_not_known_of_one_trial_is_not_known_of_all() -> None:
    course = Course([told("sweep"), *plan(0, 1), finished(0, 1, 1.0, cost=2.5)])
    assert course.standing(NOW).cost == 2.5
    course.take(finished(1, 2, 1.0, cost=None))
    assert course.standing(NOW).cost is None


def test_a_wall_clock_that_jumps_moves_neither_hours_nor_time_left() -> None:
    def sweep(jump_s: float) -> Course:
        events = [told("sweep"), *plan(0, 1, 2)]
        for number, begin_s in ((0, 0.0), (1, 70.0)):
            events += [told("started", begin_s, **of(number)), finished(number, begin_s + 60, 60.0)]
        for event in events[-2:]:
            at = datetime.fromisoformat(event["at"]) + timedelta(seconds=jump_s)
            event["at"] = at.isoformat()
        return Course(events)

    for jump_s in (-86_400.0, 86_400.0):
        moved, plain = sweep(jump_s).standing(NOW + 130, alive=False), sweep(0).standing(
            NOW + 130, alive=False)  # fmt: skip
        assert (moved.spent_s, moved.eta_s) == (plain.spent_s, plain.eta_s) == (130.0, 65.0)


# The time that is left


def coming(*cells: str) -> list[Coming]:
    return [Coming(f"{cell}-t9", cell) for cell in cells]


def test_without_anything_known_there_is_no_time_left() -> None:
    assert left_s(coming("a"), [], {}, Pace()) is None
    assert left_s([], [], {}, Pace()) == 0.0


def test_without_expectations_it_is_the_mean_of_each_cell_and_of_all_for_new_ones() -> None:
    past = [Past("a-t1", "a", 10.0), Past("a-t2", "a", 20.0), Past("b-t1", "b", 45.0)]
    assert left_s(coming("a", "a", "b"), past, {}, Pace()) == pytest.approx(15 + 15 + 45)
    assert left_s(coming("c"), past, {}, Pace()) == pytest.approx((15 + 45) / 2)


def test_expectations_are_corrected_by_what_finished_trials_took() -> None:
    expected = {"a-t1": 100.0, "a-t9": 100.0, "b-t9": 50.0}
    assert left_s(coming("a", "b"), [], expected, Pace()) == pytest.approx(150)
    past = [Past("a-t1", "a", 120.0), Past("not expected", "a", 9.0)]
    assert left_s(coming("a", "b"), past, expected, Pace()) == pytest.approx(180)


def test_a_trial_that_runs_has_less_left_and_never_less_than_nothing() -> None:
    expected = {"a-t9": 100.0}
    for run_s, rest_s in ((0.0, 100.0), (30.0, 70.0), (500.0, 0.0)):
        assert left_s([Coming("a-t9", "a", run_s)], [], expected, Pace()) == rest_s


def test_trials_at_once_share_the_time_but_one_is_never_split() -> None:
    past = [Past("a-t1", "a", 60.0)]
    assert left_s(coming(*"aaaa"), past, {}, Pace(lanes=2)) == pytest.approx(120)
    assert left_s(coming("a"), past, {}, Pace(lanes=2)) == pytest.approx(60)


def test_the_time_between_trials_is_part_of_it_and_one_long_pause_is_not() -> None:
    past = [Past("a-t1", "a", 60.0)]
    pace = Pace(starts=5, pauses_s=(5.0, 5.0, 5.0, 5.0))
    assert left_s(coming("a", "a"), past, {}, pace) == pytest.approx(120 + 2 * 4)
    slept = Pace(starts=5, pauses_s=(5.0, 5.0, 30_000.0, 5.0))
    assert left_s(coming("a", "a"), past, {}, slept) == pytest.approx(120 + 2 * 4)


def test_trials_that_broke_say_nothing_of_how_long_others_take() -> None:
    course = Course([told("sweep"), *plan(0, 1, 2), finished(0, 1, 0.1, "failed")])
    assert course.standing(NOW).eta_s is None
    course.take(finished(1, 2, 60.0, "invalid"))
    assert course.standing(NOW).eta_s == pytest.approx(60)


def test_virtual_seconds_never_enter_the_time_left() -> None:
    def eta_s(virtual_s: float | None) -> float | None:
        done = finished(0, 3, 2.0, virtual_s=virtual_s)
        return Course([told("sweep"), *plan(0, 1), done]).standing(NOW).eta_s

    assert eta_s(None) == eta_s(5e5) == pytest.approx(2.0)


def test_trials_that_overlap_are_lanes() -> None:
    events = [told("sweep"), *plan(*range(6))]
    events += [told("started", n, **of(n)) for n in (0, 1)]
    events += [finished(n, 60 + n, 60.0) for n in (0, 1)]
    assert Course(events).standing(NOW + 61, alive=False).eta_s == pytest.approx(4 * 60 / 2)


@given(
    st.lists(st.floats(0, 1e5), min_size=1, max_size=5),
    st.lists(st.floats(0, 1e5), max_size=5),
    st.integers(1, 4),
)
def test_more_to_do_never_takes_less_time(done: list[float], more: list[float], lanes: int) -> None:
    past = [Past(f"a-t{n}", "a", wall_s) for n, wall_s in enumerate(done)]
    expected = {f"x{n}-t9": wall_s for n, wall_s in enumerate(more)}
    every = [Coming(trial_id, trial_id[:-3]) for trial_id in expected]
    times = [left_s(every[:n], past, expected, Pace(lanes=lanes)) for n in range(len(every) + 1)]
    known = [time for time in times if time is not None]
    assert len(known) == len(times)
    assert known == sorted(known)


# Words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a few seconds"),
        (9.9, "a few seconds"),
        (38, "about 40 s"),
        (59, "about 1 min"),
        (140, "about 2 min"),
        (12 * 60, "about 10 min"),
        (3500, "about 1 h"),
        (3 * 3600 + 200, "about 3 h"),
        (3 * 3600 + 1300, "about 3 h 20 min"),
        (9 * 3600 + 3599, "about 10 h"),
        (25.4 * 3600, "about 25 h"),
        (5.2 * 86_400, "about 5 days"),
    ],
)
def test_a_time_is_said_in_no_more_figures_than_it_deserves(seconds: float, words: str) -> None:
    assert about(seconds) == words


@given(st.text())
def test_foreign_text_is_one_line_that_no_terminal_obeys(text: str) -> None:
    assert one_line(text).isprintable()
    assert one_line(f"a{text}b").startswith("a")


def test_words_that_are_plain_are_kept() -> None:
    kept: Mapping[str, str] = {"µs × é 15 GB": "µs × é 15 GB", "a\n  b": "a b", "\x1b[2J": "?[2J"}
    assert {text: one_line(text) for text in kept} == kept
