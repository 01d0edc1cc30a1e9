"""Laws of exported names: what which containerd and kubelet tells, as recorded from real ones."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgpull import exporters

RECORDED = Path(__file__).parent / "data" / "metrics"
MIB = 2**20


def recorded_names(path: Path) -> set[str]:
    """The names of the series in a recorded exposition."""
    lines = path.read_text().splitlines()
    return {re.split(r"[{ ]", line)[0] for line in lines if line and line[0] != "#"}


@pytest.mark.parametrize("version", ["1.6.20", "1.7.24", "2.1.9", "2.4.0-beta"])
def test_a_containerd_s_names_are_those_that_one_of_its_version_exposed(version: str) -> None:
    ours = {n for n in exporters.known_metrics(version) if n.startswith("containerd_")}
    errors = {n for n in ours if n.endswith("errors_total_total")}  # appears with the first one
    assert len(errors) == 1
    assert ours - errors == recorded_names(RECORDED / f"containerd-{version}.prom")


def test_2_0_called_all_of_containerd_s_cri_metrics_sandboxed_until_2_0_6() -> None:
    network = "network_plugin_operations_duration_seconds_seconds"
    for version in ("2.0.0", "v2.0.5"):
        assert exporters.network_plugin_metric(version) == f"containerd_cri_sandboxed_{network}"
        ours = [n for n in exporters.known_metrics(version) if n.startswith("containerd_")]
        assert all(name.startswith("containerd_cri_sandboxed_") for name in ours)
    for version in ("1.6.20", "1.7.34", "2.0.6", "2.1.0", "2.4.0-beta.0"):
        assert exporters.network_plugin_metric(version) == exporters.NETWORK_PLUGIN


def test_the_successor_of_the_throughput_came_with_2_4() -> None:
    name = "containerd_cri_sandboxed_image_pulling_throughput_mibps_bucket"
    with_it = [v for v in ("1.7.34", "2.0.6", "2.3.4", "2.4.0-beta.0", "2.4.1")
               if name in exporters.known_metrics(v)]  # fmt: skip
    assert with_it == ["2.4.0-beta.0", "2.4.1"]


def test_kubelet_s_names_and_buckets_are_those_of_a_recorded_one() -> None:
    path = RECORDED / "kubelet-1.36.2.prom"
    ours = {n for n in exporters.known_metrics("2.1.9") if n.startswith("kubelet_")}
    assert ours == recorded_names(path)
    for name, edges in (
        (exporters.KUBELET_IMAGE_PULL, exporters.KUBELET_IMAGE_PULL_EDGES_S),
        (exporters.KUBELET_RUNTIME_OPERATIONS, exporters.KUBELET_RUNTIME_OPERATIONS_EDGES_S),
    ):
        found = re.findall(rf'{name}_bucket{{.*le="([0-9.e+-]+)"', path.read_text())
        assert sorted({float(edge) for edge in found}) == pytest.approx(sorted(edges))


@pytest.mark.parametrize(
    ("version", "throughput", "pulls"),
    [
        ("1.6.20", None, None),
        ("1.7.13", None, None),  # made the histogram, and never registered it
        ("1.7.14", "containerd_cri_image_pulling_throughput", "containerd_cri_image_pulls_total"),
        ("v1.7.34", "containerd_cri_image_pulling_throughput", "containerd_cri_image_pulls_total"),
        *(
            (
                version,
                "containerd_cri_sandboxed_image_pulling_throughput",
                "containerd_cri_sandboxed_image_pulls_total",
            )
            for version in ("2.0.0", "2.3.3", "v2.4.0-beta.0")
        ),
    ],
)
def test_image_metrics_are_named_by_generation_and_absent_where_there_are_none(
    version: str, throughput: str | None, pulls: str | None
) -> None:
    assert exporters.throughput_metric(version) == throughput
    assert exporters.pulls_metric(version) == pulls
    known = exporters.known_metrics(version)
    assert any("image_pull" in name for name in known if name.startswith("containerd_")) == (
        throughput is not None
    )


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1.7.34", (1, 7, 34)),
        ("v2.4.0-beta.0", (2, 4, 0)),
        ("1.36.2+k3s1", (1, 36, 2)),
        ("1.34", (1, 34)),
        ("1.34.x", (1, 34)),
    ],
)
def test_a_version_is_its_leading_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert exporters.version_tuple(text) == numbers


@pytest.mark.parametrize(
    ("size_bytes", "name"),
    [
        (0, "N/A"),
        (1, "0-10MB"),
        (10 * MIB, "0-10MB"),
        (10 * MIB + 1, "10MB-100MB"),
        (264_056_486, "100MB-500MB"),  # recorded from kubelet 1.36.2
        (1024 * MIB, "500MB-1GB"),
        (1024 * MIB + 1, "1GB-5GB"),
        (100 * 1024 * MIB, "60GB-100GB"),
        (100 * 1024 * MIB + 1, "GT100GB"),
    ],
)
def test_a_size_class_excludes_its_lower_bound(size_bytes: int, name: str) -> None:
    assert exporters.image_size_class(size_bytes) == name


def test_the_recorded_kubelet_uses_our_size_classes() -> None:
    text = (RECORDED / "kubelet-1.36.2.prom").read_text()
    used = set(re.findall(r'image_size_in_bytes="([^"]+)"', text))
    assert used
    assert used <= {exporters.image_size_class(size) for size in (16_137_644, 264_056_486)}


@given(st.floats(1e-6, 9.999))
def test_a_bucket_holds_the_value_that_fell_in_it(value: float) -> None:
    edges = exporters.DEFAULT_EDGES
    width = exporters.bucket_width(edges, value)
    upper = next(edge for edge in edges if value <= edge)
    assert upper - width < value <= upper


@pytest.mark.parametrize("value", [10, 10.5, 1e9])
def test_a_saturated_histogram_has_no_width(value: float) -> None:
    assert exporters.bucket_width(exporters.DEFAULT_EDGES, value) == float("inf")
