"""Which trial is next: the plan's, and further attempts of those that did not count.

Hides where retries stand in the order. They run at the end of their block, shuffled by the seed, so
that a block stays one stretch of time in random order; an order without blocks has one block, so
that they run last. Positions are given here, because a retry moves all that come after it.
"""

import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

from imgpull.results.record import JobRecord
from imgpull.sweep.plan import Planned


class Agenda:
    """What is left of a session's trials. `retries`: further attempts that each may have.

    `positions` are those to give out, from the plan's first on where this is its only agenda.
    """

    def __init__(
        self,
        plan: Sequence[Planned],
        *,
        retries: int = 0,
        seed: int = 0,
        positions: Iterator[int] | None = None,
    ) -> None:
        self._plan = deque(plan)
        self._retries = retries
        self._seed = seed
        self._first = {planned.trial_id: planned.attempt for planned in plan}
        self._again: list[Planned] = []  # of blocks that go on
        self._due: deque[Planned] = deque()
        self._positions = positions or count(plan[0].position if plan else 1)
        self._position = 0
        self._running: dict[str, Planned] = {}
        self.final: dict[str, JobRecord] = {}  # trial_id -> the record that no attempt follows

    def __bool__(self) -> bool:
        return bool(self._plan or self._again or self._due)

    def peek(self) -> Planned | None:
        """The trial that comes next; None when all were handed out."""
        self._make_due()
        queue = self._due or self._plan
        return queue[0] if queue else None

    def take(self) -> Planned | None:
        """Hand out the next trial, in its position."""
        planned = self.peek()
        if planned is None:
            return None
        (self._due or self._plan).popleft()
        self._position = next(self._positions)
        placed = replace(planned, position=self._position)
        self._running[placed.trial_id] = placed
        return placed

    def runs(self, planned: Planned) -> bool:
        """Whether this trial was handed out here and has not ended."""
        return planned.trial_id in self._running

    def ended(self, planned: Planned, record: JobRecord) -> Planned | None:
        """Take note of how a trial ended; its further attempt, when it gets one."""
        self._running.pop(planned.trial_id, None)
        used = planned.attempt - self._first.get(planned.trial_id, 1)
        if record.counts or used >= self._retries:
            self.final[planned.trial_id] = record
            return None
        attempt = planned.attempt + 1
        directory = f"{planned.directory.split('/')[0]}/attempt-{attempt}"
        # Its place is not known yet: behind what is planned.
        behind = self._position + len(self._plan) + len(self._due) + len(self._again) + 1
        again = replace(planned, attempt=attempt, directory=directory, position=behind)
        self._again.append(again)
        return again

    @property
    def left(self) -> list[str]:
        """Trials without a last word, those that run included."""
        running = list(self._running.values())
        every = [*running, *self._due, *self._again, *self._plan]
        return list(dict.fromkeys(planned.trial_id for planned in every))

    def _make_due(self) -> None:
        """Retries of blocks of which no trial is left to begin."""
        if self._due or not self._again:
            return
        going_on = self._plan[0].block if self._plan else None
        due = [planned for planned in self._again if planned.block != going_on]
        due.sort(key=lambda planned: (planned.block, planned.attempt, planned.trial_id))
        if due:
            random.Random(f"{self._seed}/retries/{due[0].block}/{due[0].attempt}").shuffle(due)
            self._again = [planned for planned in self._again if planned.block == going_on]
            self._due.extend(due)
