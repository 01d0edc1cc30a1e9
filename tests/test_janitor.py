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
RBAC = "rbac.authorization.k8s.io/v1"
CRD = "servicemonitors.monitoring.coreos.com"


def named(kind: str, api: str, name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, **metadata}}


def measured(sweep: str) -> dict[str, Any]:
    """What makes a node one of a sweep's measured ones."""
    marks = {"imgpull.dev/measured": "true"}, {"imgpull.dev/measured-by": sweep}
    return {"metadata": {"labels": marks[0], "annotations": marks[1]}}


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
    kube.patch(f"/api/v1/nodes/{cluster.names[0]}", measured(OWNER.sweep))
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


def test_what_does_not_go_is_returned_with_what_holds_it(cluster: Acting, kube: Kube) -> None:
    make_namespace(kube, "ip-stuck-1", OWNER)
    config = named("ConfigMap", "v1", "held", namespace="imgpull-system", labels=OWNER.labels())
    config["metadata"]["finalizers"] = ["example.com/never"]
    cluster.api.put(config)
    cluster.api.namespace_takes_s = 30.0
    said: list[str] = []
    still = janitor.remove(kube, janitor.leftovers(kube), said.append, limit_s=0.5)
    assert names(still) == {"ip-stuck-1", "held"}
    assert "ConfigMap held is still there: finalizers example.com/never" in said


def test_one_that_may_not_be_removed_keeps_nothing_else(cluster: Acting, kube: Kube) -> None:
    make_namespace(kube, "ip-dead-1", OWNER)
    role = named("ClusterRole", RBAC, "cl2-x", labels=OWNER.labels())
    cluster.api.put(role)
    cluster.api.put(named("ClusterRoleBinding", RBAC, "cl2-x", labels=OWNER.labels()))
    cluster.api.deny("delete", "clusterrolebindings")
    said: list[str] = []
    still = janitor.remove(kube, janitor.leftovers(kube), said.append)
    assert [each.kind for each in still] == ["ClusterRoleBinding"]
    assert any("clusterrolebindings is forbidden" in each for each in said)
    assert names(janitor.leftovers(kube)) == {"cl2-x"}


@pytest.mark.parametrize("change", ["made anew", "label lost"])
def test_what_is_no_longer_what_was_found_is_left_alone(
    cluster: Acting, kube: Kube, change: str
) -> None:
    make_namespace(kube, "ip-dead-1", OWNER)
    node = f"/api/v1/nodes/{cluster.names[0]}"
    kube.patch(node, measured("a-sweep"))
    found = janitor.leftovers(kube)
    assert names(found) == {"ip-dead-1", cluster.names[0]}
    if change == "made anew":
        kube.delete("/api/v1/namespaces/ip-dead-1")
        kube.create("/api/v1/namespaces", named("Namespace", "v1", "ip-dead-1"))
    else:
        lost = {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}
        kube.patch("/api/v1/namespaces/ip-dead-1", lost)
    kube.patch(node, measured("another-sweep"))
    assert janitor.remove(kube, found, lambda _: None) == []
    assert cluster.api.get("/api/v1/namespaces/ip-dead-1") is not None
    assert cluster.measured == [cluster.names[0]]


def test_a_node_label_of_the_user_s_own_stays(cluster: Acting, kube: Kube) -> None:
    label = {"metadata": {"labels": {"imgpull.dev/measured": "true"}}}
    kube.patch(f"/api/v1/nodes/{cluster.names[0]}", label)
    assert janitor.leftovers(kube) == []


def test_unlabelled_namespaces_beside_a_test_s_first_are_clusterloader_s(
    cluster: Acting, kube: Kube
) -> None:
    make_namespace(kube, f"{OWNER.prefix()}-1", OWNER)
    for name in (f"{OWNER.prefix()}-2", f"{OWNER.prefix()}-x", "ip0123456789-2"):
        kube.create("/api/v1/namespaces", named("Namespace", "v1", name))
    found = janitor.leftovers(kube)
    assert names(found) == {f"{OWNER.prefix()}-1", f"{OWNER.prefix()}-2"}
    assert {each.sweep for each in found} == {OWNER.sweep}
    assert janitor.remove(kube, found, lambda _: None) == []
    assert cluster.api.get(f"/api/v1/namespaces/{OWNER.prefix()}-2") is None
    assert cluster.api.get("/api/v1/namespaces/ip0123456789-2") is not None


def test_prometheus_is_left_alone_while_any_sweep_lives(cluster: Acting, kube: Kube) -> None:
    """One that an earlier sweep kept may be in use."""
    ensure_system_namespace(kube)
    prometheus.prepare(kube, "hash", Owner("earlier").labels(), lambda _: None)
    with lease.held(kube, "me", "another", 0, lambda _: None):
        assert janitor.leftovers(kube) == []
        assert names(janitor.leftovers(kube, include_live=True)) == {"monitoring"}
    assert names(janitor.leftovers(kube)) == {"monitoring"}


def test_what_is_annotated_goes_though_the_namespace_is_another_s(
    cluster: Acting, kube: Kube
) -> None:
    mark = {"imgpull.dev/prometheus": "hash"}
    cluster.api.put(named("ClusterRole", RBAC, "prometheus-k8s", annotations=mark))
    cluster.api.put(named("ClusterRole", RBAC, "prometheus-operator"))
    cluster.api.put(named("Namespace", "v1", "monitoring"))
    assert janitor.remove(kube, janitor.leftovers(kube), lambda _: None) == []
    assert cluster.api.get(f"/apis/{RBAC}/clusterroles/prometheus-k8s") is None
    assert cluster.api.get(f"/apis/{RBAC}/clusterroles/prometheus-operator") is not None
    assert cluster.api.get("/api/v1/namespaces/monitoring") is not None


@pytest.mark.parametrize("used", [True, False])
def test_a_crd_that_others_use_by_now_stays_with_what_they_made(
    cluster: Acting, kube: Kube, used: bool
) -> None:
    prometheus.prepare(kube, "hash", Owner("a-sweep").labels(), lambda _: None)
    crd = named("CustomResourceDefinition", "apiextensions.k8s.io/v1", CRD)
    spec = {
        "group": "monitoring.coreos.com",
        "names": {"plural": "servicemonitors", "kind": "ServiceMonitor"},
        "scope": "Namespaced",
        "versions": [{"name": "v1", "storage": True}],
    }
    cluster.api.put({**crd, "spec": spec})
    monitor = "monitoring.coreos.com/v1"
    cluster.api.put(named("ServiceMonitor", monitor, "ours", namespace="monitoring"))
    if used:
        cluster.api.put(named("ServiceMonitor", monitor, "theirs", namespace="team"))
    said: list[str] = []
    assert janitor.remove(kube, janitor.leftovers(kube), said.append) == []
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD}"
    assert (cluster.api.get(path) is not None) is used
    assert any("ServiceMonitor team/theirs needs it" in each for each in said) is used
    assert janitor.leftovers(kube) == [], "what stays is no longer ours"


MONITORING = "/api/v1/namespaces/monitoring"
KINDS = {
    "namespaces": ("Namespace", "v1", ["a", "ip0123456789-1", "monitoring", "team"]),
    "nodes": ("Node", "v1", ["n1", "n2"]),
    f"{RBAC}/clusterroles": ("ClusterRole", RBAC, ["prometheus-k8s", "cl2-x", "admin"]),
    f"{RBAC}/clusterrolebindings": ("ClusterRoleBinding", RBAC, ["prometheus-k8s", "x"]),
    "storage.k8s.io/v1/storageclasses": ("StorageClass", "storage.k8s.io/v1", ["ssd", "fast"]),
    "namespaces/imgpull-system/configmaps": ("ConfigMap", "v1", ["c"]),
    "namespaces/team/configmaps": ("ConfigMap", "v1", ["c"]),
    "namespaces/kube-system/services": ("Service", "v1", ["kubelet", "kube-proxy", "kube-dns"]),
}
OBJECTS = st.lists(
    st.tuples(
        st.sampled_from([(kind, name) for kind, each in KINDS.items() for name in each[2]]),
        st.sampled_from([None, "imgpull", "Helm", "imgpull2", ""]),
        st.booleans(),
    ),
    max_size=12,
    unique_by=lambda each: each[0],
)


Drawn = list[tuple[tuple[str, str], str | None, bool]]


def put(apiserver: ApiServer, objects: Drawn) -> dict[str, bool]:
    """Put these on the cluster; which of them carry a mark of ours, by their paths."""
    marked: dict[str, bool] = {}
    for (collection, name), manager, annotated in objects:
        kind, api, _ = KINDS[collection]
        metadata: dict[str, Any] = {
            "labels": {} if manager is None else {"app.kubernetes.io/managed-by": manager},
            "annotations": {"imgpull.dev/prometheus": "hash"} if annotated else {},
        }
        if collection.startswith("namespaces/"):
            metadata["namespace"] = collection.split("/")[1]
        root = "/apis/" if "." in collection else "/api/v1/"
        path = f"{root}{collection}/{name}"
        marked[path] = manager == "imgpull" or annotated
        apiserver.put(named(kind, api, name, **metadata))
    space = apiserver.get(MONITORING)
    if space and space["metadata"]["annotations"]:  # as we make it: it says what was there before
        before = [path for path, is_marked in marked.items() if not is_marked]
        space["metadata"]["annotations"]["imgpull.dev/prometheus-kept"] = " ".join(before)
        apiserver.put(space)
    return marked


def clear(apiserver: ApiServer, marked: dict[str, bool]) -> None:
    for path in [*marked, "/api/v1/namespaces/team", "/api/v1/namespaces/imgpull-system"]:
        apiserver.remove(path)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(objects=OBJECTS)
def test_it_never_removes_what_carries_neither_our_label_nor_our_annotation(
    apiserver: ApiServer, kube: Kube, objects: Drawn
) -> None:
    marked = put(apiserver, objects)
    assert janitor.remove(kube, janitor.leftovers(kube), lambda _: None) == []
    spaces = [path for path in marked if path.startswith("/api/v1/namespaces/") and marked[path]]
    for path, is_marked in marked.items():
        inside = any(path.startswith(f"{space}/") for space in spaces)
        assert is_marked or inside or apiserver.get(path), f"{path} was not ours"
    assert janitor.leftovers(kube) == [], "once is not enough"
    clear(apiserver, marked)
