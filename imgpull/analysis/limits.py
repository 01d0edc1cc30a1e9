"""What a cluster's description allows a pull: the limits that a bottleneck call measures against.

Hides how `config.resolved.yaml` names and writes them. What is not described is None or infinite,
and is then said to be unknown rather than free.
"""

import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from imgpull import units
from imgpull.analysis.statistics import Floats

# ASSUMPTION (conf/engine/sim.yaml): one core hashes so many fetched bytes a second.
HASH_BYTES_S = 1.5e9
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast


@dataclass(frozen=True)
class Limits:
    """The limits of one cell, in bytes, seconds and cores."""

    nic_bytes_s: float | None = None
    disk_bytes_s: float | None = None
    disk_burst_bytes_s: float | None = None
    disk_burst_s: float = 0.0
    vcpus: float = math.inf
    egress_bytes_s: float | None = None  # of the registry, to all nodes
    connection_bytes_s: float | None = None  # of one download
    zones: int = 1
    zone_link_bytes_s: float | None = None  # to all nodes of one zone
    unpacks: int = 1  # layers of one image that a node unpacks at once
    streams: int = 3  # downloads at once
    chunked: bool = False  # a layer may use every stream
    layers: tuple[int, ...] = ()  # compressed bytes, in order; empty when unknown
    replicas: int = 1  # pods that each Deployment asks for at once
    qps: float | None = None  # Deployments a second; None: the load is not ours to know

    def disk_at(self, pulled_s: Floats) -> Floats:
        """What the disk writes after so many seconds of pulling: its burst credits run out.

        NaN where that is not described.
        """
        lasting = np.nan if self.disk_bytes_s is None else self.disk_bytes_s
        burst = lasting if self.disk_burst_bytes_s is None else self.disk_burst_bytes_s
        return np.where(pulled_s < self.disk_burst_s, burst, lasting)

    def alone_s(self, fetched_bytes: float) -> float | None:
        """The least seconds that a node's own connections need for so many bytes of the image."""
        if self.connection_bytes_s is None:
            return None
        layers = self.layers or (1,)
        per_byte = _stream_seconds(layers, self.streams, self.chunked) / sum(layers)
        return per_byte * fetched_bytes / self.connection_bytes_s


def read_config(trial_dir: Path) -> Mapping[str, Any]:
    """What a trial ran with; empty where its snapshot cannot be read."""
    try:
        found = yaml.load((trial_dir / "config.resolved.yaml").read_text("utf-8"), _LOADER)
    except (OSError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def read_limits(path: Path) -> Limits:
    """The limits in a trial's `config.resolved.yaml`; none at all where there is no such file."""
    if not path.exists():
        return Limits()
    values = yaml.load(path.read_text("utf-8"), _LOADER) or {}
    if not isinstance(values, dict) or (values.get("engine") or {}).get("kind") == "replay":
        return Limits()  # the configuration says nothing of a recorded report
    return limits_of(values)


def limits_of(values: Mapping[str, Any]) -> Limits:
    """The limits in a resolved configuration."""
    cluster = values.get("cluster") or {}
    node, registry = cluster.get("node") or {}, cluster.get("registry") or {}
    runtime = cluster.get("containerd") or {}
    version = tuple(map(int, re.findall(r"\d+", str(cluster.get("containerd_version")))[:2]))
    ready_made = (values.get("engine") or {}).get("bundle")
    return Limits(
        nic_bytes_s=_times(node.get("nic_mbit_s"), 1e6 / 8),
        disk_bytes_s=_times(node.get("disk_write_mb_s"), 1e6),
        disk_burst_bytes_s=_times(node.get("disk_burst_mb_s"), 1e6),
        disk_burst_s=60.0 * (node.get("disk_burst_minutes") or 0.0),
        vcpus=node.get("vcpus") or math.inf,
        egress_bytes_s=_times(registry.get("egress_mbit_s"), 1e6 / 8),
        connection_bytes_s=_times(registry.get("connection_mb_s"), 1e6),
        zones=cluster.get("zones") or 1,
        zone_link_bytes_s=_times(registry.get("zone_link_mbit_s"), 1e6 / 8),
        unpacks=(runtime.get("max_concurrent_unpacks") or 1) if version >= (2, 2) else 1,
        streams=runtime.get("max_concurrent_downloads") or 3,
        chunked=version >= (2, 1) and bool(runtime.get("concurrent_layer_fetch_buffer")),
        layers=tuple(
            units.parse_size(layer["compressed_bytes"])
            for layer in (values.get("image") or {}).get("layers") or ()
        ),
        replicas=values.get("replicas") or 1,
        qps=None if ready_made else values.get("qps"),
    )


def _times(value: float | None, unit: float) -> float | None:
    return None if value is None else float(value) * unit


def _stream_seconds(layers: Sequence[int], streams: int, chunked: bool) -> float:
    """Seconds of layers fetched in order, so many at once, each at one byte a second."""
    if chunked:
        return sum(layers) / streams
    waiting, now_s = deque(layers), 0.0
    busy: list[float] = []
    while waiting or busy:
        while waiting and len(busy) < streams:
            busy.append(now_s + waiting.popleft())
        now_s = min(busy)
        busy.remove(now_s)
    return now_s
