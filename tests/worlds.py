"""Simulated worlds for tests: a plain one, random ones, and what is asked of their traces."""

from dataclasses import replace

from hypothesis import strategies as st

from imgpull.simcluster import (
    Containerd,
    Held,
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
    simulate,
)

MB = 10**6
IMAGE = "registry.example/image:1"
QUIET = Rates(  # no luck, and a control plane that paces nothing
    gzip_unpack_bytes_s=100 * MB,
    zstd_unpack_bytes_s=400 * MB,
    plain_unpack_bytes_s=800 * MB,
    scheduler_pods_s=1e6,
    scheduler_burst=1000,
    controller_pods_s=1e6,
    controller_burst=1000,
    binding_s=0.005,
    api_call_s=0.015,
    pod_sync_s=0.05,
    hash_bytes_s=1e12,
    dirty_share=0.0,
    blob_commit_s=0.0,
    layer_commit_s=0.0,
    sandbox_s=0.15,
    network_setup_s=0.3,
    network_teardown_s=0.1,
    container_create_s=0.2,
    container_start_s=0.2,
    watch_lag_s=0.5,
    resolve_s=0.25,
    present_s=0.003,
    event_jitter_sigma=0.0,
    node_spread_sigma=0.0,
    trial_spread_sigma=0.0,
)
LUCKY = replace(QUIET, event_jitter_sigma=0.2, node_spread_sigma=0.1, trial_spread_sigma=0.1)
WIDE = Node(vcpus=4, memory_bytes=2**34, nic_bytes_s=1e9, disk_write_bytes_s=1e12, max_pods=110)
TWO_LAYERS = (Layer("a", 100 * MB, 400 * MB), Layer("b", 200 * MB, 100 * MB))


def world(
    nodes: int = 1, layers: tuple[Layer, ...] = TWO_LAYERS, warm: bool = False, **changes: object
) -> World:
    """A world where only the connection (50 MB/s) and the core (100 MB/s) matter."""
    plain = World(
        node_names=tuple(f"node-{k}" for k in range(nodes)),
        node=WIDE,
        registry=Registry(egress_bytes_s=1e12, connection_bytes_s=50 * MB, first_byte_s=0.05),
        kubelet=Kubelet(version="v1.36.0"),
        containerd=Containerd(version="2.1.9"),
        rates=QUIET,
        images={IMAGE: layers},
        held=Held(frozenset(each.digest for each in layers), images=frozenset({IMAGE}))
        if warm
        else Held(),
        seed=0,
        trial=1,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def pods(*owner_created_s: float, first: int = 0, **changes: object) -> list[PodRequest]:
    """One pod for each creation time of its Deployment."""
    return [
        replace(PodRequest(k, "ns", f"pod-{k}", f"owner-{k}", when_s, IMAGE), **changes)  # type: ignore[arg-type]
        for k, when_s in enumerate(owner_created_s, start=first)
    ]


def pull_s(pod: PodTrace) -> float:
    last = pod.attempts[-1]
    assert last.worked
    assert last.began_s is not None
    return (last.ended_s or 0.0) - last.began_s


def leads(pod: PodTrace) -> bool:
    return any(attempt.leader for attempt in pod.attempts)


def fetched_bytes(pod: PodTrace) -> int:
    return sum(attempt.fetched_bytes for attempt in pod.attempts)


def asked_s(pod: PodTrace) -> float:
    return pod.attempts[0].asked_s


def failures(pod: PodTrace) -> list[tuple[float | None, str]]:
    return [(attempt.ended_s, attempt.error) for attempt in pod.attempts if attempt.error]


def began_s(pod: PodTrace) -> float | None:
    return pod.attempts[-1].began_s


def rates_of(trace: Trace) -> dict[str, tuple[Segment, ...]]:
    return {name: node.segments for name, node in trace.nodes.items()}


def moved(segments: tuple[Segment, ...], what: str = "receive_bytes_s") -> float:
    return sum(getattr(each, what) * (each.end_s - each.begin_s) for each in segments)


sizes = st.sampled_from([32, 10_000, 3 * MB, 50 * MB, 400 * MB, 2000 * MB])
speeds = st.sampled_from([5.0 * MB, 30.0 * MB, 120.0 * MB, 1000.0 * MB])
layer_tables = st.lists(
    st.builds(
        lambda digest, size, ratio, compression: Layer(
            f"{digest}-{size}", size, int(size * ratio), compression
        ),
        st.sampled_from("abcdef"),
        sizes,
        st.sampled_from([0.5, 1.0, 2.5]),
        st.sampled_from(["gzip", "zstd", "none"]),
    ),
    min_size=1,
    max_size=6,
).map(tuple)
moments = st.lists(st.sampled_from([0.0, 0.5, 3.0, 20.0, 60.0]), min_size=1, max_size=7)


@st.composite
def worlds(draw: st.DrawFn, rates: Rates = QUIET, **changes: object) -> World:
    registry = Registry(draw(speeds), draw(speeds), draw(st.sampled_from([0.0, 0.05])))
    return world(
        nodes=draw(st.integers(1, 3)),
        node=replace(WIDE, nic_bytes_s=draw(speeds), disk_write_bytes_s=draw(speeds)),
        kubelet=Kubelet("v1.36.0", serialize_image_pulls=draw(st.booleans())),
        containerd=Containerd("2.1.9", draw(st.integers(1, 4))),
        **{"registry": registry, "layers": draw(layer_tables), "rates": rates} | changes,
    )


BASE = Layer("base", 100 * MB, 100 * MB)
FAMILY = {
    "r.example/a:1": (BASE, Layer("a", 100 * MB, 100 * MB)),
    "r.example/b:1": (BASE, Layer("b", 100 * MB, 100 * MB)),
}


def family(**changes: object) -> Trace:
    requests = [
        replace(pod, image=image) for pod, image in zip(pods(0.0, 0.0), FAMILY, strict=True)
    ]
    return simulate(world(**{"images": FAMILY} | changes), requests)
