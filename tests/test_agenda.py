"""Which trial is next: laws of the order in which retries stand, and of their places."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from imgpull.config.job import Job
from imgpull.results.record import JobRecord
from imgpull.sweep.agenda import Agenda
from imgpull.sweep.plan import Cell, Planned, plan_trials

Fate = Callable[[Planned], bool]


def plan(cells: int, trials: int, order: str) -> list[Planned]:
    made = [Cell((), f"c{i}", "", cast(Job, None), {}, {"n": i}, None) for i in range(cells)]
    return plan_trials(made, range(1, trials + 1), order, 0, None)


def record(planned: Planned, *, counts: bool) -> JobRecord:
    known: dict[str, Any] = dict.fromkeys(JobRecord.__dataclass_fields__)
    told = {"trial_id": planned.trial_id, "verdict": "valid" if counts else "failed"}
    return JobRecord(**(known | told | {"schema": 1}))


def run(agenda: Agenda, counts: Fate) -> list[Planned]:
    """One trial after the other, as a serial sweep does."""
    ran = []
    while planned := agenda.take():
        ran.append(planned)
        agenda.ended(planned, record(planned, counts=counts(planned)))
    return ran


plans = st.builds(
    plan, st.integers(1, 4), st.integers(1, 3), st.sampled_from(["blocks", "shuffled", "as_given"])
)
retries = st.integers(0, 3)
# How many attempts of each trial fail before one counts, by the sum of its id.
fates = st.lists(st.integers(0, 4), min_size=1, max_size=12)


def fate(plan: list[Planned], failing: list[int]) -> Fate:
    needed = {one.trial_id: failing[i % len(failing)] for i, one in enumerate(plan)}
    return lambda planned: planned.attempt > needed[planned.trial_id]


@given(plans, retries, fates)
def test_a_trial_is_attempted_until_it_counts_and_no_oftener_than_asked(
    plan: list[Planned], retries: int, failing: list[int]
) -> None:
    counts = fate(plan, failing)
    agenda = Agenda(plan, retries=retries)
    ran = run(agenda, counts)
    for one in plan:
        mine = [each for each in ran if each.trial_id == one.trial_id]
        assert [each.attempt for each in mine] == list(range(1, len(mine) + 1))
        assert not any(counts(each) for each in mine[:-1])
        assert counts(mine[-1]) or len(mine) == 1 + retries
    assert not agenda
    assert agenda.left == []
    assert set(agenda.final) == {one.trial_id for one in plan}


@given(plans, retries, fates)
def test_positions_are_the_order_of_running(
    plan: list[Planned], retries: int, failing: list[int]
) -> None:
    ran = run(Agenda(plan, retries=retries), fate(plan, failing))
    assert [each.position for each in ran] == list(range(1, len(ran) + 1))


@given(plans, retries, fates)
def test_retries_stand_at_the_end_of_their_block(
    plan: list[Planned], retries: int, failing: list[int]
) -> None:
    ran = run(Agenda(plan, retries=retries), fate(plan, failing))
    assert [each.block for each in ran] == sorted(each.block for each in ran)
    for block in {each.block for each in ran}:
        attempts = [each.attempt for each in ran if each.block == block]
        assert attempts == sorted(attempts)


@given(plans, fates)
def test_what_counts_at_once_runs_as_planned(plan: list[Planned], failing: list[int]) -> None:
    assert run(Agenda(plan, retries=3), lambda planned: True) == plan


@given(plans, retries, fates)
def test_every_attempt_has_a_directory_of_its_own_below_its_first(
    plan: list[Planned], retries: int, failing: list[int]
) -> None:
    ran = run(Agenda(plan, retries=retries), fate(plan, failing))
    assert len({each.directory for each in ran}) == len(ran)
    first = {one.trial_id: one.directory for one in plan}
    for each in ran:
        number = first[each.trial_id]
        assert each.directory == (
            number if each.attempt == 1 else f"{number}/attempt-{each.attempt}"
        )


@given(plans, retries, fates, st.integers(1, 5))
def test_side_by_side_every_trial_still_has_its_last_word(
    plan: list[Planned], retries: int, failing: list[int], together: int
) -> None:
    counts = fate(plan, failing)
    agenda = Agenda(plan, retries=retries)
    ran = 0
    while agenda:
        batch = [each for _ in range(together) if (each := agenda.take())]
        assert len({each.trial_id for each in batch}) == len(batch)  # no two attempts at once
        for planned in batch:
            agenda.ended(planned, record(planned, counts=counts(planned)))
        ran += len(batch)
    assert set(agenda.final) == {one.trial_id for one in plan}
    assert ran <= len(plan) * (1 + retries)


def test_a_session_that_goes_on_counts_its_retries_anew() -> None:
    again = [
        replace(one, attempt=3, directory=f"{one.directory}/attempt-3")
        for one in plan(1, 1, "blocks")
    ]
    ran = run(Agenda(again, retries=1), lambda planned: False)
    assert [(each.attempt, each.directory) for each in ran] == [
        (3, "0/attempt-3"), (4, "0/attempt-4"),
    ]  # fmt: skip


def test_what_is_left_is_told_with_what_runs() -> None:
    three = plan(3, 1, "as_given")
    agenda = Agenda(three, retries=1)
    first = agenda.take()
    assert first is not None
    assert agenda.left == [one.trial_id for one in three]
    agenda.ended(first, record(first, counts=False))
    assert sorted(agenda.left) == sorted(one.trial_id for one in three)
