"""What the measured nodes hold of the image when the load begins: as `cache` promises, verified.

Hides which work on the nodes each promise takes, and what of it a verdict needs to know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from imgpull import pulls
from imgpull.cluster import image_cache
from imgpull.cluster.image_cache import NodeCache
from imgpull.cluster.kube import Kube
from imgpull.cluster.nodes import NodeFacts
from imgpull.cluster.ownership import Owner
from imgpull.config.job import Job
from imgpull.engines.door import Remark, Say
from imgpull.errors import EngineFailed


@dataclass(frozen=True)
class Contents:
    """What was found and done on the nodes."""

    held: Mapping[str, str] = field(default_factory=dict)  # node -> cold, partial or warm
    observed: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()


def set_contents(
    kube: Kube, job: Job, nodes: Sequence[NodeFacts], owner: Owner, limit_s: float, say: Say
) -> Contents:
    """Make the nodes hold what `cache` promises, and look; EngineFailed when they do not."""
    if job.cache == "salted":
        # No node has what did not exist a minute ago: nothing to remove, no privileged pod to look.
        return Contents(held={node.name: "cold" for node in nodes})
    prepare = {"cold": image_cache.purge, "warm": image_cache.warm}.get(job.cache, image_cache.look)
    found = prepare(kube, job, [node.name for node in nodes], owner, limit_s=limit_s, say=say)
    _require_promised(job, found)
    held = {name: _held(job, cache) for name, cache in found.items()}
    return Contents(
        held={name: state for name, state in held.items() if state != "unknown"},
        observed={name: asdict(cache) for name, cache in found.items()},
        remarks=tuple(_remarks(job, found)),
    )


def _held(job: Job, cache: NodeCache) -> str:
    size = job.image.compressed_bytes
    if cache.state == "partial" and size and cache.kept_bytes is not None:
        return pulls.temperature(size - cache.kept_bytes, size)
    return cache.state


def _require_promised(job: Job, found: Mapping[str, NodeCache]) -> None:
    """Stop before hours are spent on a trial that could only be invalid."""
    unlike = {"cold": ("warm",), "warm": ("cold", "partial")}.get(job.cache, ())
    wrong = {name: cache for name, cache in found.items() if cache.state in unlike}
    if wrong:
        name, cache = next(iter(wrong.items()))
        raise EngineFailed(
            f"cache={job.cache}, but {len(wrong)} of {len(found)} nodes are {cache.state}: "
            f"{name}: {cache.note or 'no reason told'}",
            hint="see run.log; imgpull doctor looks again",
        )


def _remarks(job: Job, found: Mapping[str, NodeCache]) -> list[Remark]:
    remarks: list[Remark] = []
    partial = [name for name, cache in found.items() if cache.state == "partial"]
    if job.cache == "cold" and partial:
        first = found[partial[0]]
        remarks.append(
            Remark("valid", f"{len(partial)} nodes keep layers that other images share "
                   f"({partial[0]}: {first.note})")
        )  # fmt: skip
    undropped = [name for name, cache in found.items() if not cache.page_cache_dropped]
    if job.cache == "cold" and undropped:
        remarks.append(Remark("valid", f"the page cache of {len(undropped)} nodes was not dropped"))
    return remarks
