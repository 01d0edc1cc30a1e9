"""Laws of ClusterLoader2's command line: nothing in it can bend the test or stop the program."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from imgpull.engines import running
from imgpull.engines.running import Dialect, Places, Request, Stack
from imgpull.errors import ConfigError, EngineUnavailable

HELP = (Path(__file__).parent / "data" / "cl2-help" / "upstream.txt").read_text("utf-8")
UPSTREAM = running.dialect_of(HELP, "clusterloader")
# Flags of Azure's fork (perf-tests pull 3655, f1933d032), as far as they matter here.
AZURE = running.dialect_of(
    "\n".join(
        f"      --{name} string"
        for name in sorted(
            UPSTREAM.flags - {"prometheus-scrape-apiserver-only", "master-endpoint"}
            | {"prometheus-scrape-containerd"}
        )
    ),
    "clusterloader2",
)
DIALECTS = pytest.mark.parametrize("dialect", [UPSTREAM, AZURE], ids=lambda each: each.name)
PLACES = Places(
    PurePosixPath("/b"), PurePosixPath("/x"), PurePosixPath("/r"), PurePosixPath("/kubeconfig")
)


def request(**changes: Any) -> Request:
    values: dict[str, Any] = {
        "bundle": Path("/b"), "report": Path("/r"), "log": Path("/l"), "kubeconfig": Path("/k"),
        "provider": "aks", "nodes": 10, "namespace_prefix": "ip0123456789", "limit_s": 60.0,
        "redact": str, "stack": Stack(10257, 10, None, {"containerd.yaml": "kind: X\n"}),
    }  # fmt: skip
    return Request(**{**values, **changes})


def overrides(asked: Request, dialect: Dialect) -> Mapping[str, Any]:
    found: Mapping[str, Any] = yaml.safe_load(running.extra_files(asked, dialect)["dialect.yaml"])
    return found


# -------------------------------------------------------------------------------------- dialects


def test_what_a_program_is_shows_in_its_help() -> None:
    assert UPSTREAM.name == "upstream"
    assert {"testconfig", "report-dir", "v", "prometheus-ready-timeout"} <= UPSTREAM.flags
    assert "about" not in UPSTREAM.flags
    assert "kubeconfig" in UPSTREAM.flags
    assert AZURE.name == "azure"


@pytest.mark.parametrize("text", ["", "usage: ls [--all]", "      --testconfig x\n"])
def test_a_program_without_cl2s_flags_is_no_cl2(text: str) -> None:
    with pytest.raises(EngineUnavailable, match="/bin/ls is no ClusterLoader2"):
        running.dialect_of(text, "/bin/ls")


def test_the_meaning_of_pod_startup_follows_from_the_age_of_the_program() -> None:
    assert UPSTREAM.pod_startup_semantics == "watch"
    assert AZURE.pod_startup_semantics == "mixed"
    between = HELP.replace("--prometheus-scrape-apiserver-only", "--another")
    assert running.dialect_of(between, "x").pod_startup_semantics == ""


# ----------------------------------------------------------------------------------------- flags


@DIALECTS
@pytest.mark.parametrize("stack", [None, Stack(10257, 10), Stack(1, 1, "fast", {"a.yaml": ""})])
@pytest.mark.parametrize("dry", [True, False])
def test_no_program_gets_a_flag_that_it_does_not_have(
    dialect: Dialect, stack: Stack | None, dry: bool
) -> None:
    given_flags = running.arguments(request(stack=stack), dialect, PLACES, dry=dry)
    assert {flag[2:].partition("=")[0] for flag in given_flags} <= dialect.flags
    assert all("=" in flag for flag in given_flags), (
        "a boolean's value in a word of its own is lost"
    )


def test_each_dialect_gets_containerds_metrics_in_its_own_way() -> None:
    upstream = running.arguments(request(), UPSTREAM, PLACES)
    azure = running.arguments(request(), AZURE, PLACES)
    assert "--prometheus-additional-monitors-path=/x/monitors" in upstream
    assert "--prometheus-scrape-containerd=true" in azure
    assert not any("monitors" in flag for flag in azure)
    assert set(running.extra_files(request(), UPSTREAM)) == {
        "dialect.yaml", "monitors/containerd.yaml",
    }  # fmt: skip
    assert set(running.extra_files(request(), AZURE)) == {"dialect.yaml"}
    assert overrides(request(), AZURE)["CONTAINERD_METRICS_PORT"] == "10257"


@DIALECTS
def test_the_bundles_overrides_come_first_and_ours_win(dialect: Dialect) -> None:
    flags = running.arguments(request(), dialect, PLACES)
    named = [flag for flag in flags if flag.startswith("--testoverrides=")]
    assert named == ["--testoverrides=/b/overrides.yaml", "--testoverrides=/x/dialect.yaml"]


@DIALECTS
def test_namespaces_are_ours_to_make_and_to_remove(dialect: Dialect) -> None:
    flags = running.arguments(request(), dialect, PLACES)
    told = [flag for flag in flags if flag.startswith("--overwrite-test-config=Namespace.")]
    assert [flag.partition("Namespace.")[2] for flag in told] == [
        "Prefix=ip0123456789", "EnableExistingNamespaces=true",
        "DeleteAutomanagedNamespaces=false", "DeleteStaleNamespaces=false",
    ]  # fmt: skip


@given(
    nodes=st.integers(1, 6000),
    memory=st.integers(1, 400),
    dialect=st.sampled_from([UPSTREAM, AZURE]),
)
def test_prometheus_gets_its_memory_for_each_begun_thousand_nodes_as_request_and_limit(
    nodes: int, memory: int, dialect: Dialect
) -> None:
    asked = request(nodes=nodes, stack=Stack(10257, memory))
    told, thousands = overrides(asked, dialect), 1 + nodes // 1000  # manifests multiply by it
    if dialect is UPSTREAM:  # its request is its limit
        assert told["CL2_PROMETHEUS_KUBELET_MEMORY_SCALE_FACTOR"] == memory
        return
    flags = running.arguments(asked, dialect, PLACES)
    assert f"--prometheus-memory-request={memory * thousands}Gi" in flags
    assert told["CL2_PROMETHEUS_MEMORY_SCALE_FACTOR"] == memory


@DIALECTS
def test_a_volume_is_claimed_only_from_a_storage_class_that_was_named(dialect: Dialect) -> None:
    with_class = request(stack=Stack(10257, 10, "managed-csi"))
    assert overrides(request(), dialect)["CL2_PROMETHEUS_PVC_ENABLED"] is False
    assert overrides(with_class, dialect)["CL2_PROMETHEUS_PVC_ENABLED"] is True
    flags = running.arguments(with_class, dialect, PLACES)
    assert "--prometheus-pvc-storage-class=managed-csi" in flags


@DIALECTS
def test_targets_that_may_be_down_are_not_scraped(dialect: Dialect) -> None:
    # Only an override reaches kube-proxy: the flag is overwritten by the provider's default.
    assert overrides(request(), dialect)["PROMETHEUS_SCRAPE_KUBE_PROXY"] is False
    assert overrides(request(), dialect)["PROMETHEUS_SCRAPE_APISERVER_ONLY"] is True


def test_without_a_kubeconfig_the_pods_own_account_is_used() -> None:
    inside = Places(PLACES.bundle, PLACES.extra, PLACES.report, None)
    flags = running.arguments(request(), UPSTREAM, inside)
    assert "--run-from-cluster=true" in flags
    assert not any(flag.startswith("--kubeconfig") for flag in flags)


@DIALECTS
def test_the_users_flags_come_last(dialect: Dialect) -> None:
    own = ("--prometheus-ready-timeout=20m", "-v=4", "--testoverrides=/mine.yaml")
    flags = running.arguments(request(flags=own), dialect, PLACES)
    assert tuple(flags[-3:]) == own


@pytest.mark.parametrize(
    ("flag", "message", "hint"),
    [
        ("--report-dir=/tmp", "--report-dir is decided by imgpull", "leave --report-dir out"),
        ("--kubeconfig=/tmp", "--kubeconfig is decided by imgpull", "leave --kubeconfig out"),
        ("--testsuite=x", "--testsuite is decided by imgpull", "leave"),
        ("--dry-run", "--dry-run is decided by imgpull", "leave"),
        ("--prometheus-ready-timeou=1m", "has no flag --prometheus-ready-timeou", "did you mean"),
        ("--prometheus-scrape-containerd=true", "(upstream) has no flag", "did you mean"),
    ],
)
def test_a_flag_of_the_users_that_would_break_the_run_is_refused(
    flag: str, message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        running.arguments(request(flags=[flag]), UPSTREAM, PLACES)
    assert message in caught.value.message
    assert hint in caught.value.hint


# ----------------------------------------------------------------------------------- environment


def test_nothing_in_the_environment_can_bend_the_test() -> None:
    own = {
        "PATH": "/bin", "HOME": "/root", "https_proxy": "http://p", "NO_PROXY": "x", "LC_ALL": "C",
        "CL2_OPERATION_TIMEOUT": "1m", "KUBECONFIG": "/k", "DELETE_STALE_NAMESPACES": "true",
        "PROMETHEUS_SCRAPE_ETCD": "true", "NUM_NODES": "3", "EDITOR": "vi", "PROVIDER": "gce",
    }  # fmt: skip
    passed, left_out = running.environment(own)
    assert set(passed) == {"PATH", "HOME", "https_proxy", "NO_PROXY", "LC_ALL"}
    assert left_out == (
        "CL2_OPERATION_TIMEOUT", "DELETE_STALE_NAMESPACES", "KUBECONFIG", "NUM_NODES",
        "PROMETHEUS_SCRAPE_ETCD", "PROVIDER",
    )  # fmt: skip


def test_overrides_keep_the_types_that_cl2_gives_them() -> None:
    # Numbers reach CL2's templates as floats, where a large one would be printed as 1e+06.
    text = running.extra_files(request(), AZURE)["dialect.yaml"]
    assert json.dumps("10257") in text
    assert all(not isinstance(v, int) or v < 10**6 for v in overrides(request(), AZURE).values())


def test_a_flag_is_taken_or_refused_alike_in_the_dry_run_and_in_the_run() -> None:
    own = request(flags=["--skip-cluster-verification=true"])
    for dry in (True, False):
        assert running.arguments(own, UPSTREAM, PLACES, dry=dry)[-1] == own.flags[0]
