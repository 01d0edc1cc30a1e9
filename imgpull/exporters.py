"""What kubelet and containerd expose about image pulls: names by version, labels, bucket edges.

Hides that names move between containerd generations. Templates ask it for names, the simulator
writes series under them, results read a histogram's bucket width from it.
"""

from bisect import bisect_left

# kubernetes 1.36 pkg/kubelet/metrics/metrics.go; seconds.
KUBELET_IMAGE_PULL = "kubelet_image_pull_duration_seconds"
KUBELET_IMAGE_PULL_EDGES_S = (
    1, 5, 10, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600,
)  # fmt: skip
KUBELET_RUNTIME_OPERATIONS = "kubelet_runtime_operations_duration_seconds"
KUBELET_RUNTIME_OPERATIONS_ERRORS = "kubelet_runtime_operations_errors_total"
KUBELET_RUNTIME_OPERATIONS_EDGES_S = tuple(0.005 * 2.5**k for k in range(14))

# containerd internal/cri/server/metrics.go: docker/go-metrics appends the unit a second time.
NETWORK_PLUGIN = "containerd_cri_network_plugin_operations_duration_seconds_seconds"
NETWORK_PLUGIN_ERRORS = "containerd_cri_network_plugin_operations_errors_total_total"

# Prometheus client's default edges; containerd uses them for its timers (s) and, unhelpfully, for
# the pulling throughput (MiB/s), which therefore saturates at 10.
DEFAULT_EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

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


def pulls_metric(containerd_version: str) -> str | None:
    """The counter of PullImage calls by `status` (success, failure) of this containerd."""
    prefix = image_metric_prefix(containerd_version)
    return prefix and f"{prefix}image_pulls_total"


def known_metrics(containerd_version: str) -> frozenset[str]:
    """Every series name that a query may use against this containerd and a current kubelet."""
    histograms = [KUBELET_IMAGE_PULL, KUBELET_RUNTIME_OPERATIONS, NETWORK_PLUGIN]
    counters = [KUBELET_RUNTIME_OPERATIONS_ERRORS, NETWORK_PLUGIN_ERRORS]
    throughput, pulls = throughput_metric(containerd_version), pulls_metric(containerd_version)
    if throughput and pulls:
        histograms.append(throughput)
        counters.append(pulls)
    series = [f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")]
    return frozenset(series + counters)


def bucket_width(edges: tuple[float, ...], value: float) -> float:
    """Width of the bucket that `value` fell in: how far a quantile read from it may be off.

    At or beyond the last edge the width is infinite: the histogram is saturated.
    """
    index = bisect_left(edges, value)
    if value >= edges[-1]:
        return float("inf")
    return edges[index] - (edges[index - 1] if index else 0.0)
