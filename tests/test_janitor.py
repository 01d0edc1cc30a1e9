"""What is found and removed on a cluster, and what never is: imgpull/cluster/janitor.py."""

from typing import Any

import pytest
from acting import Acting
from apiserver import ApiServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgpull.cluster import janitor, lease, prometheus
from imgpull.cluster.kube import Kube
from imgpull.cluster.ownership import Owner, ensure_system_namespace, make_namespace

OWNER = Owner("a-sweep", "cell-t1")


def named(kind: str, api: str, name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, **metadata}}


def names(found: list[janitor.Leftover]) -> set[str]:
    return {each.name for each in found}


@pytest.fixture
def cluster(apiserver: ApiServer) -> Acting:
    return Acting(apiserver, pods=0)


def test_nothing_is_found_on_a_cluster_that_we_never_touched(cluster: Acting, kube: Kube) -> None:
    cluster.api.put(named("Namespace", "v1", "monitoring"))
    cluster.api.put(named("Namespace", "v1", "ip0123456789-1"))
    assert janitor.leftovers(kube) == []


def test_what_a_killed_trial_left_is_found_and_removed(cluster: Acting, kube: Kube) -> None:
    ensure_system_namespace(kube)
    make_namespace(kube, f"{OWNER.prefix()}-1", OWNER)
    patch = {
        "metadata": {
            "labels": {"imgpull.dev/measured": "true"},
            "annotations": {"imgpull.dev/measured-by": OWNER.sweep},
        }
    }
    kube.patch(f"/api/v1/nodes/{cluster.names[0]}", patch)
    role = named("ClusterRole", "rbac.authorization.k8s.io/v1", "cl2-x", labels=OWNER.labels())
    cluster.api.put(role)
    found = janitor.leftovers(kube)
    assert names(found) == {f"{OWNER.prefix()}-1", cluster.names[0], "cl2-x"}
    assert {each.sweep for each in found} == {OWNER.sweep}
    assert janitor.remove(kube, found, lambda _: None) == []
    assert janitor.leftovers(kube) == []
    assert cluster.leftovers() == []
    assert cluster.api.get("/api/v1/namespaces/imgpull-system") is not None


def test_a_live_sweep_s_things_are_left_alone_unless_told(cluster: Acting, kube: Kube) -> None:
    ensure_system_namespace(kube)
    with lease.held(kube, "me", OWNER.sweep, 0, lambda _: None):
        make_namespace(kube, "ip-live-1", OWNER)
        make_namespace(kube, "ip-dead-1", Owner("another-sweep", "cell-t1"))
        assert names(janitor.leftovers(kube)) == {"ip-dead-1"}
        assert names(janitor.leftovers(kube, include_live=True)) == {"ip-live-1", "ip-dead-1"}


def test_clusterloader_s_leftovers_go_only_with_our_annotation(cluster: Acting, kube: Kube) -> None:
    hashed = prometheus.settings_hash({"a": 1})
    prometheus.prepare(kube, hashed, Owner("a-sweep").labels(), lambda _: None)
    storage = named("StorageClass", "storage.k8s.io/v1", "ssd")
    cluster.api.put({**storage, "provisioner": "kubernetes.io/gce-pd"})
    cluster.api.put(named("ClusterRole", "rbac.authorization.k8s.io/v1", "not-ours"))
    found = janitor.leftovers(kube)
    assert names(found) == {"monitoring"}
    assert janitor.remove(kube, found, lambda _: None) == []
    assert cluster.api.get("/api/v1/namespaces/monitoring") is None
    assert cluster.api.get("/apis/storage.k8s.io/v1/storageclasses/ssd") is None
    roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    assert cluster.api.get(f"{roles}/not-ours") is not None


def test_what_does_not_go_is_returned(
    cluster: Acting, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitor, "_LIMIT_S", 0.5)
    make_namespace(kube, "ip-stuck-1", OWNER)
    cluster.api.namespace_takes_s = 30.0
    found = janitor.leftovers(kube)
    assert names(janitor.remove(kube, found, lambda _: None)) == {"ip-stuck-1"}


OBJECTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                ("Namespace", "v1", "/api/v1/namespaces"),
                ("ClusterRole", "rbac.authorization.k8s.io/v1",
                 "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
                ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1",
                 "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"),
            ]
        ),
        st.sampled_from(["a", "ip0123456789-1", "imgpull-1", "prometheus-k8s", "team"]),
        st.sampled_from([None, "imgpull", "Helm", "imgpull2", ""]),
    ),
    unique_by=lambda each: (each[0][0], each[1]),
)  # fmt: skip


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(objects=OBJECTS)
def test_it_never_removes_what_does_not_carry_our_label(
    apiserver: ApiServer, kube: Kube, objects: list[tuple[tuple[str, str, str], str, str | None]]
) -> None:
    for (kind, api, _), name, manager in objects:
        labels = {} if manager is None else {"app.kubernetes.io/managed-by": manager}
        apiserver.put(named(kind, api, name, labels=labels))
    assert janitor.remove(kube, janitor.leftovers(kube), lambda _: None) == []
    for (_, _, collection), name, manager in objects:
        there = apiserver.get(f"{collection}/{name}") is not None
        assert there == (manager != "imgpull"), f"{collection}/{name} of {manager}"
        apiserver.remove(f"{collection}/{name}")
