"""A simulated cluster: pods that pull images, and PromQL over what their nodes would expose."""

from imgpull.simcluster.model import (
    Attempt,
    BrownOut,
    Containerd,
    Faults,
    Held,
    Kubelet,
    Layer,
    Node,
    NodeTrace,
    PodRequest,
    PodTrace,
    Rates,
    Registry,
    Segment,
    Trace,
    World,
)
from imgpull.simcluster.physics import simulate

__all__ = [
    "Attempt",
    "BrownOut",
    "Containerd",
    "Faults",
    "Held",
    "Kubelet",
    "Layer",
    "Node",
    "NodeTrace",
    "PodRequest",
    "PodTrace",
    "Rates",
    "Registry",
    "Segment",
    "Trace",
    "World",
    "simulate",
]
