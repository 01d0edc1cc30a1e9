"""The shapes of one cluster: what of it changes from cell to cell, and what must not.

Hides which variables of terraform/ a cluster in use can be given anew: its measured pool. All else
is another cluster. A key that Terraform sets nothing by is descriptive: sweeping it would measure
the same cluster twice under two names.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from imgpull.config.job import Job
from imgpull.errors import ConfigError
from imgpull.provisioning.variables import (
    DESCRIPTIVE,
    FURTHER,
    MAPPED,
    Asked,
    Machines,
    machines,
    variables,
)

_OF_THE_POOL = ("measured_", "image_gc_")
_ANYONE = Asked("any", "any", "any", "any", datetime(2000, 1, 1, tzinfo=UTC))


@dataclass(frozen=True)
class Shape:
    """The measured pool as cells want it; equal for cells that one build serves."""

    vm_size: str
    nodes: int
    pool: str  # a digest of everything but the number of nodes
    machines: tuple[Machines, ...]  # of the whole cluster
    region: str

    @property
    def text(self) -> str:
        """In words: "10 x Standard_D4ds_v5"."""
        return f"{self.nodes} x {self.vm_size}"

    @property
    def name(self) -> str:
        """As a file is called."""
        return f"{self.nodes}-{self.vm_size}-{self.pool}"

    @property
    def all_nodes(self) -> int:
        """With those of the system and of Prometheus."""
        return sum(each.count for each in self.machines)


def shape_of(job: Job) -> Shape:
    """The shape that a Job wants; ConfigError for what cannot be built as described."""
    values = variables(job, _ANYONE)
    pool = {key: value for key, value in values.items() if key.startswith(_OF_THE_POOL)}
    nodes = pool.pop("measured_node_count")
    digest = hashlib.sha256(json.dumps(pool, sort_keys=True).encode()).hexdigest()[:6]
    size, region = values["measured_vm_size"], values["location"]
    return Shape(size, nodes, digest, tuple(machines(values)), region)


def check_one_cluster(jobs: Sequence[Job]) -> None:
    """ConfigError unless one cluster, given shape after shape, can serve all of these Jobs."""
    frames = [_frame(job) for job in jobs]
    for variable in frames[0] if frames else ():
        levels = list(dict.fromkeys(json.dumps(frame[variable]) for frame in frames))
        if len(levels) > 1:
            key = _key_of(variable)
            raise ConfigError(
                f"{key} differs between cells ({', '.join(levels)}), and provision=terraform "
                "builds one cluster, of which only the measured pool changes",
                hint=f"one sweep for each {key}, or provision=existing with a cluster each",
            )
    _check_descriptive(jobs)


def _check_descriptive(jobs: Sequence[Job]) -> None:
    """ConfigError for a key that makes cells differ where their clusters would not."""
    by_shape: dict[Shape, dict[str, Any]] = {}
    for job in jobs:
        told = _described(job)
        first = by_shape.setdefault(shape_of(job), told)
        for key in told:
            if told[key] != first[key]:
                raise ConfigError(
                    f"cluster.{key} differs between cells ({first[key]}, {told[key]}), but "
                    f"Terraform sets nothing by it: {DESCRIPTIVE[key]}",
                    hint=f"one value for cluster.{key}, or engine=sim",
                )


def _described(job: Job) -> dict[str, Any]:
    """The descriptive keys of a Job, with dots."""
    whole = asdict(job.cluster)
    found: dict[str, Any] = {}
    for key in DESCRIPTIVE:
        value: Any = whole
        for part in key.split("."):
            value = value[part]
        found[key] = value
    return found


def _frame(job: Job) -> Mapping[str, Any]:
    """What cannot change while the cluster is in use."""
    return {
        key: value
        for key, value in variables(job, _ANYONE).items()
        if not key.startswith(_OF_THE_POOL)
    }


def _key_of(variable: str) -> str:
    """The key of the configuration that a variable is made from."""
    found: Iterable[str] = (key for key, made in MAPPED.items() if variable in made)
    return f"cluster.{next(iter(found), FURTHER.get(variable, variable))}"
