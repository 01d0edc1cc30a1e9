"""How many objects there are of each kind that a test declares, and what a phase does about it.

Hides CL2's rule: create the missing indexes, delete the surplus, patch each when the number is as
declared. Source: perf-tests 4b34154 clusterloader2/pkg/test/simple_test_executor.go ExecutePhase.
"""

import random
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from imgpull import cl2
from imgpull.cl2 import wording
from imgpull.simcluster import World

# client/objects.go: a patch reads the object first.
API_CALLS = {"create": 1, "delete": 1, "patch": 2}


class BundleError(Exception):
    """The objects of one bundle are not equally many: CL2 skips the phase, and says so."""


@dataclass(frozen=True)
class Change:
    """One object created, patched or deleted."""

    verb: Literal["create", "patch", "delete"]
    bundled: cl2.ObjectBundle
    index: int
    namespace: str

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.bundled.basename}-{self.index}"

    @property
    def calls(self) -> int:
        return API_CALLS[self.verb]


Action = tuple[Change, ...]  # the bundle of one index in one namespace, one after the other


@dataclass
class Declared:
    """The state that CL2 keeps between phases: objects by namespace and basename."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def actions(self, phase: cl2.Phase, prefix: str) -> list[Action]:
        """What the phase does, in its order; all namespaces, one after the other."""
        actions: list[Action] = []
        settled: dict[tuple[str, str], int] = {}
        try:
            for namespace in phase.namespaces(prefix):
                before = self._count(phase, namespace)
                settled |= {(namespace, one.basename): phase.replicas_per_namespace
                            for one in phase.objects}  # fmt: skip
                actions += _actions(phase, namespace, before)
        finally:
            # Also of the namespaces before a bundle error, though nothing is done in them.
            self.counts |= settled
        return actions

    def _count(self, phase: cl2.Phase, namespace: str) -> int:
        found = [(one, self.counts.get((namespace, one.basename), 0)) for one in phase.objects]
        for (before, count_before), (one, count) in pairwise(found):
            if count != count_before:
                names = one.basename, count, before.basename, count_before
                raise BundleError(wording.bundle_error(*names))
        return found[0][1] if found else 0


def _actions(phase: cl2.Phase, namespace: str, before: int) -> Iterator[Action]:
    wanted, objects = phase.replicas_per_namespace, phase.objects
    if not objects:
        return
    for index in range(wanted, before):
        yield tuple(Change("delete", one, index, namespace) for one in reversed(objects))
    if before == wanted:
        for index in range(wanted):
            yield tuple(Change("patch", one, index, namespace) for one in objects)
    for index in range(before, wanted):
        yield tuple(Change("create", one, index, namespace) for one in objects)


def namespace_prefix(test: cl2.TestConfig, world: World) -> str:
    """The prefix of the test's namespaces; CL2 makes up one when there is none (api/default.go)."""
    draw = random.Random(f"{world.seed}/{world.trial}/namespace prefix")
    made_up = "".join(draw.choice(string.ascii_lowercase + string.digits) for _ in range(6))
    return test.namespace_prefix or f"test-{made_up}"
