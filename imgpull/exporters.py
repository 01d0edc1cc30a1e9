"""What kubelet and containerd expose about image pulls: names by version, labels, bucket edges.

Hides that names move between containerd generations. Templates ask it for names, the simulator
writes series under them, results read a histogram's bucket width from it.
"""

from bisect import bisect_left
from typing import NamedTuple

# kubernetes 1.36 pkg/kubelet/metrics/metrics.go; seconds.
KUBELET_IMAGE_PULL = "kubelet_image_pull_duration_seconds"
KUBELET_IMAGE_PULL_EDGES_S = (
    1, 5, 10, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600,
)  # fmt: skip
KUBELET_RUNTIME_OPERATIONS = "kubelet_runtime_operations_duration_seconds"
KUBELET_RUNTIME_OPERATIONS_ERRORS = "kubelet_runtime_operations_errors_total"
KUBELET_RUNTIME_OPERATIONS_EDGES_S = tuple(0.005 * 2.5**k for k in range(14))
KUBELET_POD_START_EDGES_S = (
    0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200,
    1800, 2700, 3600,
)  # fmt: skip

# containerd internal/cri/server/metrics.go: docker/go-metrics appends the unit a second time.
_NETWORK = "network_plugin_operations_"
NETWORK_PLUGIN = f"containerd_cri_{_NETWORK}duration_seconds_seconds"

# Prometheus client's default edges; containerd uses them for its timers (s) and, unhelpfully, for
# the pulling throughput (MiB/s), which therefore saturates at 10.
DEFAULT_EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# Of its successor (containerd commit 16ff70b86; recorded from 2.4.0-beta.0).
THROUGHPUT_EDGES_MIB_S = (0.1, 1, 10, 25, 75, 150, 300, 500, 1000, 2000, 4000)

# What cAdvisor tells of a whole node has this `id`, and of containerd's own processes this one: the
# unit's cgroup, which kubelet lets cAdvisor see (--runtime-cgroups; seen on GKE and gardener).
NODE_ID, CONTAINERD_ID = "/", "/system.slice/containerd.service"

# kubelet's label image_size_in_bytes: (upper bound in bytes, class), lower bound exclusive.
_IMAGE_SIZE_CLASSES = (
    (10, "0-10MB"), (100, "10MB-100MB"), (500, "100MB-500MB"), (1024, "500MB-1GB"),
    (5 * 1024, "1GB-5GB"), (10 * 1024, "5GB-10GB"), (20 * 1024, "10GB-20GB"),
    (30 * 1024, "20GB-30GB"), (40 * 1024, "30GB-40GB"), (60 * 1024, "40GB-60GB"),
    (100 * 1024, "60GB-100GB"),
)  # fmt: skip


def image_size_class(size_bytes: int) -> str:
    """kubelet's value of the label `image_size_in_bytes`; 0 is a size that it could not look up."""
    if size_bytes == 0:
        return "N/A"
    mebibytes = size_bytes / 1024**2
    return next((name for upper, name in _IMAGE_SIZE_CLASSES if mebibytes <= upper), "GT100GB")


def version_tuple(version: str) -> tuple[int, ...]:
    """Leading numbers of a version for comparison: "v2.4.0-beta.0" -> (2, 4, 0)."""
    numbers: list[int] = []
    for part in version.removeprefix("v").split("-")[0].split("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def image_metric_prefix(containerd_version: str) -> str | None:
    """Prefix of containerd's image pull metrics, or None where it has none (before 1.7.14).

    Seen live on 1.6.20 (none), 1.7.24, 2.1.9 and 2.4.0-beta. 1.7.0 to 1.7.13 made a throughput
    histogram that they never registered (containerd commit 711cebd48).
    """
    version = version_tuple(containerd_version)
    if version < (1, 7, 14):
        return None
    return "containerd_cri_" if version < (2,) else "containerd_cri_sandboxed_"


def throughput_metric(containerd_version: str) -> str | None:
    """The pulling throughput histogram (MiB/s per successful pull) of this containerd."""
    prefix = image_metric_prefix(containerd_version)
    return prefix and f"{prefix}image_pulling_throughput"


def samples_every_pull(containerd_version: str) -> bool:
    """Whether each successful pull leaves a throughput sample of this containerd.

    2.4 counts the bytes that progress was reported of: a quick pull may leave none (recorded from
    2.4.0-beta.0: 9 cold pulls, 4 samples).
    """
    return version_tuple(containerd_version) < (2, 4)


def pulls_metric(containerd_version: str) -> str | None:
    """The counter of PullImage calls by `status` (success, failure) of this containerd."""
    prefix = image_metric_prefix(containerd_version)
    return prefix and f"{prefix}image_pulls_total"


def network_plugin_metric(containerd_version: str) -> str:
    """The histogram of CNI calls of this containerd, in seconds."""
    return f"{_cri_prefix(containerd_version)}{_NETWORK}duration_seconds_seconds"


def _cri_prefix(containerd_version: str) -> str:
    """Prefix of all but the image metrics; 2.0.0 to 2.0.5 had another (containerd PR 11746)."""
    renamed = (2,) <= version_tuple(containerd_version) < (2, 0, 6)
    return "containerd_cri_sandboxed_" if renamed else "containerd_cri_"


class Family(NamedTuple):
    """One metric as one program exposes it: a histogram if it has edges, else a counter or gauge.

    Most have labels, and so no series before their first observation; the others are there, at
    zero, `from_start`.
    """

    target: str  # kubelet | cadvisor | containerd
    name: str
    edges: tuple[float, ...] = ()
    from_start: bool = False

    def series_names(self) -> tuple[str, ...]:
        parts = ("_bucket", "_sum", "_count") if self.edges else ("",)
        return tuple(self.name + part for part in parts)


def families(containerd_version: str) -> dict[str, Family]:
    """Every metric that is exposed on a node, by what it tells."""
    return _KUBELET | _CADVISOR | _containerd(containerd_version)


_KUBELET = {
    "image pull": Family("kubelet", KUBELET_IMAGE_PULL, KUBELET_IMAGE_PULL_EDGES_S),
    "operations": Family("kubelet", KUBELET_RUNTIME_OPERATIONS, KUBELET_RUNTIME_OPERATIONS_EDGES_S),
    "operation count": Family("kubelet", "kubelet_runtime_operations_total"),
    "operation errors": Family("kubelet", KUBELET_RUNTIME_OPERATIONS_ERRORS),
    "run sandbox": Family("kubelet", "kubelet_run_podsandbox_duration_seconds", DEFAULT_EDGES),
    "pod start": Family(
        "kubelet", "kubelet_pod_start_total_duration_seconds", KUBELET_POD_START_EDGES_S
    ),
    "pod start without pull": Family(
        "kubelet", "kubelet_pod_start_sli_duration_seconds", KUBELET_POD_START_EDGES_S
    ),
    "started pods": Family("kubelet", "kubelet_started_pods_total", from_start=True),
    "started containers": Family("kubelet", "kubelet_started_containers_total"),
}
# google/cadvisor metrics/prometheus.go, behind kubelet's /metrics/cadvisor.
_CADVISOR = {
    "receive": Family("cadvisor", "container_network_receive_bytes_total", from_start=True),
    "write": Family("cadvisor", "container_fs_writes_bytes_total", from_start=True),
    "cpu": Family("cadvisor", "container_cpu_usage_seconds_total", from_start=True),
}


def _containerd(version: str) -> dict[str, Family]:
    """internal/cri/server/metrics.go and internal/cri/server/images/metrics.go of containerd."""

    def family(name: str, edges: tuple[float, ...] = (), *, from_start: bool = False) -> Family:
        return Family("containerd", name, edges, from_start)

    cri, image = _cri_prefix(version), image_metric_prefix(version)
    found = {
        "network": family(network_plugin_metric(version), DEFAULT_EDGES),
        "network count": family(f"{cri}{_NETWORK}total_total"),
        "network errors": family(f"{cri}{_NETWORK}errors_total_total"),
        "sandbox network": family(
            f"{cri}sandbox_create_network_seconds", DEFAULT_EDGES, from_start=True
        ),
        "container create": family(f"{cri}container_create_seconds", DEFAULT_EDGES),
        "container start": family(f"{cri}container_start_seconds", DEFAULT_EDGES),
    }
    if image is None:
        return found
    throughput = f"{image}image_pulling_throughput"
    running = f"{image}in_progress_image_pulls_total"  # a gauge, whatever its name says
    found |= {
        "pulls": family(f"{image}image_pulls_total"),
        "running pulls": family(running, from_start=True),
        "throughput": family(throughput, DEFAULT_EDGES, from_start=True),
    }
    numbers = version_tuple(version)
    if numbers >= (2, 4):
        edges = THROUGHPUT_EDGES_MIB_S
        found["throughput mibps"] = family(f"{throughput}_mibps", edges, from_start=True)
    if numbers < (2,):
        # 1.7 links two CRI servers; the second one is idle, and exposed all the same.
        for twin in ("running pulls", "throughput", "sandbox network"):
            name = found[twin].name.replace("containerd_cri_", "containerd_cri_sandboxed_")
            found[f"idle {twin}"] = found[twin]._replace(name=name)
    return found


def known_metrics(containerd_version: str) -> frozenset[str]:
    """Every series name that a query may use against this containerd and a current kubelet."""
    exposed = families(containerd_version).values()
    return frozenset(name for family in exposed for name in family.series_names()) | {"up"}


def bucket_width(edges: tuple[float, ...], value: float) -> float:
    """Width of the bucket that `value` fell in: how far a quantile read from it may be off.

    At or beyond the last edge the width is infinite: the histogram is saturated.
    """
    index = bisect_left(edges, value)
    if value >= edges[-1]:
        return float("inf")
    return edges[index] - (edges[index - 1] if index else 0.0)
