"""Pull times that others published, or that were measured, beside what the simulator says of them.

Hides how each case is configured: what its source says, and by assumption what it does not. Rates
come from conf/engine/sim.yaml as they are; none is tuned to a row. docs/simulator.md holds the
table that this prints, and a test compares the two.
"""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import yaml

from imgpull import units
from imgpull.simcluster import (
    Containerd,
    Kubelet,
    Layer,
    Node,
    PodRequest,
    Rates,
    Registry,
    World,
    simulate,
)

CONF = Path(__file__).resolve().parent.parent / "conf"
MB, GIB = 10**6, 2**30
IMAGE = "registry.example/image:1"


def layers_of(image: str) -> tuple[Layer, ...]:
    """The layer table of conf/image/<image>.yaml."""
    table = yaml.safe_load((CONF / "image" / f"{image}.yaml").read_text("utf-8"))["layers"]
    return tuple(
        Layer(
            str(position),
            units.parse_size(str(layer["compressed_bytes"])),
            units.parse_size(str(layer["unpacked_bytes"])),
            layer.get("compression", "gzip"),
        )
        for position, layer in enumerate(table)
    )


def scaled(layers: tuple[Layer, ...], compressed_bytes: int) -> tuple[Layer, ...]:
    """The same shape with another size."""
    factor = compressed_bytes / sum(layer.compressed_bytes for layer in layers)
    return tuple(
        replace(
            layer,
            compressed_bytes=round(layer.compressed_bytes * factor),
            unpacked_bytes=round(layer.unpacked_bytes * factor),
        )
        for layer in layers
    )


@dataclass(frozen=True)
class Case:
    """One pull on one node, and how long it took."""

    name: str
    source: str
    took_s: float
    layers: tuple[Layer, ...]
    node: Node
    assumed: str  # what the source does not say
    containerd: Containerd = field(default_factory=lambda: Containerd("1.7.34"))
    connection_bytes_s: float = 100.0 * MB
    spread: bool = False

    def simulated_s(self, rates: Rates) -> float:
        """PullImage, from call to answer, in the simulator without luck."""
        world = World(
            node_names=("node",),
            node=self.node,
            registry=Registry(50e9 / 8, self.connection_bytes_s, 0.04),
            kubelet=Kubelet("1.34"),
            containerd=self.containerd,
            rates=rates,
            images={IMAGE: self.layers},
            seed=0,
            trial=1,
        )
        [pod] = simulate(world, [PodRequest(0, "ns", "pod", "owner", 0.0, IMAGE)]).pods
        [attempt] = pod.attempts
        assert attempt.ended_s is not None
        assert attempt.began_s is not None
        return attempt.ended_s - attempt.began_s


def quiet_rates() -> Rates:
    """The rates of conf/engine/sim.yaml, without luck."""
    written = yaml.safe_load((CONF / "engine" / "sim.yaml").read_text("utf-8"))["rates"]
    values = {each.name: float(written[each.name]) for each in fields(Rates)}
    values |= {name: 0.0 for name in values if name.endswith("_sigma")}
    return Rates(**values)  # type: ignore[arg-type]


def node(vcpus: int, memory_gib: int, nic_mbit_s: float, disk_mb_s: float, **burst: float) -> Node:
    return Node(vcpus, memory_gib * GIB, nic_mbit_s * 1e6 / 8, disk_mb_s * MB, 110, **burst)


# Half random and half constant bytes: what is random does not shrink, what is constant vanishes.
BENCH = tuple(
    Layer(f"bench-{size}", round(size * MB * 264_054_733 / 500e6), size * MB)
    for size in (40, 60, 80, 120, 200)
)
LOOPBACK = node(2, 24, 1e6, 1000)
LOOPBACK_SAYS = "disk 1 GB/s, loopback without limit, 130 MB/s a connection"
VLLM = layers_of("vllm")

CASES = (
    *(
        Case(
            f"264 MB, 5 layers, containerd {version}, registry on the same machine",
            "measured (median of 6)",
            took_s,
            BENCH,
            LOOPBACK,
            LOOPBACK_SAYS,
            Containerd(version),
            130.0 * MB,
        )
        for version, took_s in (("1.6.20", 3.93), ("1.7.24", 2.19), ("2.1.9", 2.48))
    ),
    Case(
        "vllm-openai 0.9.0, 10.31 GB, r6id.8xlarge, 32 downloads, 8 MiB chunks, 10 unpacks",
        "moby/buildkit#6358",
        54.0,
        VLLM,
        node(32, 256, 12_500, 1100),
        "small layers, ratio 2.2, disk 1.1 GB/s",
        Containerd("2.2.0", 32, 10, 8 * 2**20),
    ),
    Case(
        "vLLM image, 10.78 GB, gp3 disk of 1,000 MB/s, containerd's defaults",
        "aws-samples/karpenter-blueprints, soci-snapshotter",
        112.3,
        scaled(VLLM, 10_778_400_361),
        node(16, 64, 10_000, 1000),
        "layers (vllm's shape), instance size",
    ),
    Case(
        "23 GiB unpacked, m6id.16xlarge, unpacking alone",
        "bottlerocket-core-kit#443",
        140.6,
        (Layer("pytorch", 0, 23 * GIB),),
        node(64, 256, 25_000, 2000),
        "23 GiB is the unpacked size; disk 2 GB/s",
    ),
    Case(
        "2 GB on Standard_D2s_v3 from ACR, 2020",
        "Azure/acr#252, pangeo#753",
        793.0,
        scaled(layers_of("pytorch_large"), 2_000 * MB),
        node(2, 8, 1_000, 48, disk_burst_bytes_s=170.0 * MB, disk_burst_s=1800.0),
        "layers, P10 disk; it was docker",
    ),
)


def table() -> list[str]:
    """The comparison as Markdown, a line a row."""
    rates = quiet_rates()
    lines = [
        "| Pull | Source | Published (s) | Simulated (s) | Error | Assumed here |",
        "|---|---|---:|---:|---:|---|",
    ]
    for case in CASES:
        simulated_s = case.simulated_s(rates)
        error = simulated_s / case.took_s - 1
        lines.append(
            f"| {case.name} | {case.source} | {case.took_s:.1f} | {simulated_s:.1f} "
            f"| {error:+.0%} | {case.assumed} |"
        )
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
