"""The group `engine`: which engine, and what the simulated one is told beyond the datasheets.

Hides which faults and contents of nodes can be. The kinds of engine have different keys, so their
schema is chosen here; the names of rates are the simulator's own, which checks them.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from imgpull import units
from imgpull.config import checks, schema
from imgpull.config.checks import check_pinned_reference
from imgpull.config.typed import typed
from imgpull.errors import ConfigError


def engine_from(values: Any) -> schema.Engine:
    """The engine, durations in their usual spelling; ConfigError names the key and the fix."""
    kind = values.get("kind") if isinstance(values, Mapping) else values
    if not isinstance(kind, str) or kind not in schema.ENGINES:
        raise ConfigError(
            f"engine.kind is {kind!r}", hint=f"choose one of: {', '.join(schema.ENGINES)}"
        )
    engine: schema.Engine = typed(values, schema.ENGINES[kind], "engine")
    if isinstance(engine, schema.SimEngine):
        _check_held(engine.held)
        return replace(engine, faults=_checked_faults(engine.faults))
    if isinstance(engine, schema.RealEngine):
        return _checked_real(engine)
    return engine


# `--provider` of ClusterLoader2 (perf-tests clusterloader2/pkg/provider/provider.go).
PROVIDERS = (
    "aks", "aws", "autopilot", "eks", "gce", "gke", "gkekubemark", "kcp", "kind", "kubemark", "ks",
    "local", "skeleton", "vsphere",
)  # fmt: skip


def _checked_real(engine: schema.RealEngine) -> schema.RealEngine:
    if not 0 < engine.containerd_port < 65536:
        raise ConfigError(
            f"engine.containerd_port={engine.containerd_port} is no port",
            hint="AKS nodes listen on engine.containerd_port=10257",
        )
    if engine.salted_repository is not None:
        checks.check_repository(engine.salted_repository, "engine.salted_repository")
    if isinstance(engine, schema.DockerEngine | schema.InClusterEngine):
        check_pinned_reference(engine.image, "engine.image")
        if engine.digest is not None and not engine.digest.startswith("sha256:"):
            raise ConfigError(
                f"engine.digest '{engine.digest}' is no digest",
                hint="engine.digest=sha256:…, or engine.digest=null",
            )
    return replace(
        engine,
        wait_for_cluster=_duration("wait_for_cluster", engine.wait_for_cluster),
        settle=_duration("settle", engine.settle),
    )


def check_real(engine: schema.RealEngine, cluster: schema.Cluster) -> None:
    """ConfigError when ClusterLoader2 does not know the cluster's provider."""
    if cluster.provider not in PROVIDERS:
        raise ConfigError(
            f"cluster.provider={cluster.provider} is no provider that ClusterLoader2 knows",
            hint=f"choose one of: {', '.join(PROVIDERS)} (local: any cluster with a kubeconfig)",
        )


def check_fit(engine: schema.SimEngine, nodes: int, layers: int) -> None:
    """ConfigError when faults need more nodes, or nodes hold more layers, than there are."""
    faults, held = engine.faults, engine.held
    faulty = faults.slow_nodes + faults.lost_nodes + faults.restarted_nodes
    if faulty > nodes:
        raise ConfigError(
            f"engine.faults.slow_nodes={faults.slow_nodes} + lost_nodes={faults.lost_nodes} + "
            f"restarted_nodes={faults.restarted_nodes} = {faulty} are more than nodes={nodes}",
            hint=f"use fewer of them or nodes={faulty}",
        )
    if layers and held.snapshots + held.blobs > layers:
        raise ConfigError(
            f"engine.held.snapshots={held.snapshots} + blobs={held.blobs} are more than the "
            f"image's {layers} layers",
            hint="use fewer, or engine.held.images=true for the whole image",
        )


def _check_held(held: schema.Held) -> None:
    _check_count("held.snapshots", held.snapshots)
    _check_count("held.blobs", held.blobs)
    _check_share("held.nodes_share", held.nodes_share)


def _checked_faults(faults: schema.Faults) -> schema.Faults:
    shares = asdict(faults.pull_shares)
    for name, share in shares.items():
        _check_share(f"faults.pull_shares.{name}", share)
    if sum(shares.values()) > 1 + 1e-9:  # 0.2 + 0.7 + 0.1 is a hair more
        told = " + ".join(f"{name}={share:g}" for name, share in shares.items() if share)
        raise ConfigError(
            f"engine.faults.pull_shares: {told} are more than 1",
            hint="shares of the same calls: together at most 1",
        )
    for name in ("slow_nodes", "lost_nodes", "restarted_nodes"):
        _check_count(f"faults.{name}", getattr(faults, name))
    if not 0 < faults.slow_factor <= 1:
        raise ConfigError(
            f"engine.faults.slow_factor={faults.slow_factor} is no share above 0",
            hint="a number above 0 and up to 1, for example engine.faults.slow_factor=0.25",
        )
    _check_share("faults.event_loss_share", faults.event_loss_share)
    return replace(
        faults,
        lost_at=_duration("faults.lost_at", faults.lost_at),
        restarted_at=_duration("faults.restarted_at", faults.restarted_at),
        restart_takes=_duration("faults.restart_takes", faults.restart_takes),
        brown_outs=_checked_brown_outs(faults.brown_outs),
    )


def _checked_brown_outs(brown_outs: list[schema.BrownOut]) -> list[schema.BrownOut]:
    checked: list[schema.BrownOut] = []
    free_s = 0.0  # when the one before has ended
    for index, each in enumerate(brown_outs):
        key = f"faults.brown_outs[{index}]"
        _check_share(f"{key}.egress_share", each.egress_share)
        begin, end = _duration(f"{key}.begin", each.begin), _duration(f"{key}.end", each.end)
        begin_s, end_s = units.parse_duration(begin), units.parse_duration(end)
        if end_s <= begin_s:
            raise ConfigError(
                f"engine.{key}.end={end} is not after its begin={begin}",
                hint="moments of the trial, for example {begin: 90s, end: 2m, egress_share: 0.1}",
            )
        if begin_s < free_s:
            raise ConfigError(
                f"engine.{key}.begin={begin} is before the end of the one above",
                hint="list brown-outs in order, none within another",
            )
        free_s = end_s
        checked.append(replace(each, begin=begin, end=end))
    return checked


def _check_share(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"engine.{key}={value} is no share", hint="give a number from 0 to 1")


def _check_count(key: str, value: int) -> None:
    if value < 0:
        raise ConfigError(f"engine.{key}={value} is below zero", hint=f"use engine.{key}=0")


def _duration(key: str, text: str) -> str:
    return units.format_duration(checks.duration_s(text, f"engine.{key}", least_s=0))
