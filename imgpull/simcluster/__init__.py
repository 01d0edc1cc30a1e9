"""A simulated cluster: pods that pull one image, and PromQL over what kubelet would expose."""

from imgpull.simcluster.model import (
    Containerd,
    Kubelet,
    Layer,
    Node,
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
    "Containerd",
    "Kubelet",
    "Layer",
    "Node",
    "PodRequest",
    "PodTrace",
    "Rates",
    "Registry",
    "Segment",
    "Trace",
    "World",
    "simulate",
]
