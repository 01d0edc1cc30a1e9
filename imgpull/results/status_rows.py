"""What a pod's status still tells of a pull where kubelet's events are missing.

Hides how little that is: which digest ran, and why a container waited. It has no durations, so a
row from here has none, and its outcome is `unknown` though its image must have come somehow.
"""

from imgpull import pulls
from imgpull.engines import Subject
from imgpull.pulls import Pull
from imgpull.tables import Container, PodRow


def digest_of(pod: PodRow | None, name: str, subject: Subject) -> str | None:
    """Of the image that ran, else of the one that was asked for."""
    containers = pod.containers if pod else ()
    ran = (each.image_id.partition("@")[2] for each in containers if each.name == name)
    return next((digest for digest in ran if digest), subject.image_digest)


def from_status(pod: PodRow, container: Container, subject: Subject) -> Pull:
    """The row of a container of which no event was seen: that it ran, or why it waited."""
    failure = pulls.parse_waiting(container.waiting, container.image)
    passes = failure is not None and failure.failure in pulls.PASSING
    simulated = (pod.uid or "").startswith(pulls.SIMULATED_UID)
    return Pull(
        namespace=pod.namespace,
        pod=pod.pod,
        pod_uid=pod.uid,
        container=container.name,
        node=pod.node,
        image=container.image,
        digest=digest_of(pod, container.name, subject),
        requested_at=None,
        pull_s=None,
        wait_s=None,
        size_bytes=None,
        fetched_bytes=None,
        leader=None,
        temperature="unknown",
        outcome="unknown" if container.image_id else "censored" if passes else "failed",
        failure=failure.failure if failure else None,
        attempts=None,
        message=failure.text if failure else None,
        source="sim" if simulated else "status",
    )
