"""Which trials a sweep consists of, and in which order they run.

Hides the randomisation: blocks hold every cell once, each shuffled by the seed, so that a drift of
the cloud does not become an effect of a factor.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from imgpull.config.job import FACTORS, Job

# How a factor is written in a run's name, where columns are narrow.
_SHORT = {"deployments": "d", "replicas": "r", "qps": "q", "nodes": "n"}
_BY_LEVEL_ALONE = ("image", "cluster", "cache")


@dataclass(frozen=True)
class Cell:
    """One combination of levels, composed and checked."""

    overrides: tuple[str, ...]
    cell_id: str
    job: Job
    factors: Mapping[str, Any]
    swept: Mapping[str, Any]  # swept keys that are no standing factor


@dataclass(frozen=True)
class Planned:
    """One trial in its place. `directory` is relative to the sweep's."""

    directory: str
    cell_id: str
    trial_id: str
    trial: int
    attempt: int
    block: int
    position: int
    name: str
    overrides: tuple[str, ...]
    swept: Mapping[str, Any] = field(default_factory=dict)

    def as_event(self) -> dict[str, Any]:
        """The ledger's line for it."""
        return {"event": "planned", **asdict(self)}


def order_trials(
    cells: Sequence[Cell], trials: Sequence[int], order: str, seed: int
) -> list[tuple[int, int, Cell]]:
    """(block, trial, cell) in running order; a block is one trial of every cell."""
    if order == "as_given":
        return [(trial, trial, cell) for cell in cells for trial in trials]
    pairs = []
    for trial in trials:
        block = [(trial, trial, cell) for cell in cells]
        random.Random(f"{seed}/order/{trial}").shuffle(block)
        pairs += block
    if order == "shuffled":
        random.Random(f"{seed}/order").shuffle(pairs)
    return pairs


def names(cells: Sequence[Cell]) -> dict[str, str]:
    """cell_id -> what differs from the other cells, short: "r5 q10"."""
    varied = [
        key for key in cells[0].factors if len({str(cell.factors.get(key)) for cell in cells}) > 1
    ]
    found = {}
    for cell in cells:
        parts = [_part(key, cell.factors[key]) for key in varied]
        job = cell.job
        found[cell.cell_id] = " ".join(parts) or f"{job.image.name} n{job.nodes} r{job.replicas}"
    return found


def _part(key: str, level: Any) -> str:
    if key in _SHORT:
        return f"{_SHORT[key]}{level}"
    return str(level) if key in _BY_LEVEL_ALONE else f"{key.rpartition('.')[2]}={level}"


def swept_levels(overrides: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Swept keys that are no standing factor, with their levels: cluster.node.nic_mbit_s=1000."""
    return {key: level for key, level in overrides if key not in FACTORS}
