"""Rows of pulls.csv and pods.csv as results read them, for tests.

Only what a test names differs from a cold leader pull of 10 s on a node of its own.
"""

from dataclasses import replace

from imgpull.pulls import Pull
from imgpull.results.seen import PodRow

GIB = 1024**3


def pull(number: int, pull_s: float | None = 10.0, **columns: object) -> Pull:
    """A cold leader on a node of its own, unless told otherwise."""
    plain = Pull(
        namespace="ns", pod=f"p{number}", pod_uid=None, container="c", node=f"n{number}",
        image="i", digest=None, requested_at=1.0, pull_s=pull_s, wait_s=0.0, size_bytes=GIB,
        fetched_bytes=GIB, leader=True, temperature="cold", outcome="pulled", failure=None,
        attempts=1, message=None, source="event",
    )  # fmt: skip
    if pull_s is None:
        plain = replace(plain, outcome="censored", wait_s=None)
    return replace(plain, **columns)  # type: ignore[arg-type]


def pod(number: int, ready: float | None = 12.0, **columns: object) -> PodRow:
    plain = PodRow("ns", f"p{number}", f"n{number}", 1.0, 1.1, 1.5, 1.6, 11.0, 11.5, ready)
    return replace(plain, **columns)  # type: ignore[arg-type]
