"""The stand-in for a Kubernetes API: what other tests rely on, as a real API server does it."""

import json
import threading
from typing import Any

import pytest
from apiserver import DROP, ApiServer, Object, wait_until

from imgpull.cluster.kube import ApiError, Kube

SPACES = "/api/v1/namespaces"
PODS = f"{SPACES}/default/pods"


def pod(name: str, **metadata: Any) -> Object:
    made = {"name": name, "namespace": "default", **metadata}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": {"nodeName": "n1"}}


def seen(kube: Kube, path: str, since: str, **params: Any) -> list[tuple[str, str]]:
    with kube.watch(path, version=since, timeout_s=1, **params) as stream:
        events = [json.loads(line) for line in stream]
    return [
        (each["type"], each["object"]["metadata"].get("name", ""))
        for each in events
        if each["type"] != "BOOKMARK"
    ]


def version(kube: Kube) -> str:
    return str(kube.get(PODS)["metadata"]["resourceVersion"])


def test_status_is_written_apart_from_spec(apiserver: ApiServer, kube: Kube) -> None:
    kube.create(PODS, {**pod("p"), "status": {"phase": "Running"}})
    assert "status" not in kube.get(f"{PODS}/p")
    kube.patch(f"{PODS}/p/status", {"status": {"phase": "Running"}, "spec": {"nodeName": "x"}})
    kube.patch(f"{PODS}/p", {"status": {"phase": "Failed"}, "metadata": {"labels": {"a": "b"}}})
    found = kube.get(f"{PODS}/p")
    assert found["status"] == {"phase": "Running"}
    assert found["spec"] == {"nodeName": "n1"}
    assert found["metadata"]["labels"] == {"a": "b"}


def test_a_generation_counts_changes_of_the_spec(kube: Kube) -> None:
    made = kube.create(PODS, pod("p"))
    kube.patch(f"{PODS}/p", {"metadata": {"labels": {"a": "b"}}})
    found = kube.patch(f"{PODS}/p", {"spec": {"nodeName": "n2"}})
    assert (made["metadata"]["generation"], found["metadata"]["generation"]) == (1, 2)


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("a=1", "p"), ("a==1,b", "p"), ("a!=1", "qr"), ("a in (1, 2)", "pq"), ("a notin (1)", "qr"),
        ("!a", "r"), ("a,b!=x", "q"), ("", "pqr"),
    ],
)  # fmt: skip
def test_labels_select(apiserver: ApiServer, kube: Kube, selector: str, names: str) -> None:
    apiserver.put(pod("p", labels={"a": "1", "b": "x"}))
    apiserver.put(pod("q", labels={"a": "2"}))
    apiserver.put(pod("r"))
    found = kube.items(PODS, labelSelector=selector)
    assert "".join(each["metadata"]["name"] for each in found) == names


def test_fields_select(apiserver: ApiServer, kube: Kube) -> None:
    apiserver.put({**pod("p"), "status": {"phase": "Running"}})
    apiserver.put(pod("q"))
    for selector, names in (
        ("status.phase=Running", "p"), ("status.phase!=Running", "q"), ("metadata.name=q", "q"),
        ("spec.nodeName=n1,metadata.namespace=default", "pq"),
    ):  # fmt: skip
        found = kube.items("/api/v1/pods", fieldSelector=selector)
        assert "".join(each["metadata"]["name"] for each in found) == names


def test_a_watch_of_a_selection_sees_objects_enter_and_leave_it(
    apiserver: ApiServer, kube: Kube
) -> None:
    since = version(kube)
    apiserver.put(pod("p"))
    for value in ("1", "1", "2"):
        kube.patch(f"{PODS}/p", {"metadata": {"labels": {"a": value, "x": value + value}}})
    kube.patch(f"{PODS}/p", {"metadata": {"labels": {"a": "1"}}})
    kube.delete(f"{PODS}/p")
    events = [("ADDED", "p"), ("DELETED", "p"), ("ADDED", "p"), ("DELETED", "p")]
    assert seen(kube, PODS, since, labelSelector="a=1") == events
    assert seen(kube, "/api/v1/pods", since, fieldSelector="metadata.name=q") == []
    assert seen(kube, f"{SPACES}/kube-system/pods", since) == []


def test_a_finalizer_holds_what_is_deleted(apiserver: ApiServer, kube: Kube) -> None:
    kube.create(PODS, pod("p", finalizers=["x/y"]))
    assert kube.delete(f"{PODS}/p")
    assert kube.get(f"{PODS}/p")["metadata"]["deletionTimestamp"]
    kube.patch(f"{PODS}/p", {"metadata": {"finalizers": None}})
    assert kube.find(f"{PODS}/p") is None


def test_a_namespace_takes_its_contents_along(apiserver: ApiServer, kube: Kube) -> None:
    apiserver.namespace_takes_s = 0.2
    kube.create(SPACES, {"metadata": {"name": "x"}})
    kube.create(f"{SPACES}/x/configmaps", {"metadata": {"name": "c"}})
    held = pod("p", finalizers=["x/y"])
    held["metadata"]["namespace"] = "x"
    apiserver.put(held)
    kube.delete(f"{SPACES}/x")
    assert kube.get(f"{SPACES}/x")["status"]["phase"] == "Terminating"
    with pytest.raises(ApiError, match="being terminated") as refused:
        kube.create(f"{SPACES}/x/configmaps", {"metadata": {"name": "late"}})
    assert refused.value.status == 403
    wait_until(lambda: not apiserver.all(f"{SPACES}/x/configmaps"))
    assert kube.find(f"{SPACES}/x"), "what has a finalizer holds it"
    kube.patch(f"{SPACES}/x/pods/p", {"metadata": {"finalizers": []}})
    assert kube.find(f"{SPACES}/x") is None
    with pytest.raises(ApiError) as missing:
        kube.create(f"{SPACES}/x/configmaps", {"metadata": {"name": "c"}})
    assert missing.value.is_missing


@pytest.mark.parametrize("propagation", ["Background", "Orphan"])
def test_dependents_go_with_their_owner(apiserver: ApiServer, kube: Kube, propagation: str) -> None:
    daemonsets = "/apis/apps/v1/namespaces/default/daemonsets"
    owner = kube.create(daemonsets, {"metadata": {"name": "d"}, "spec": {}})
    reference = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d"}
    for name in ("p", "q"):
        mine = {**reference, "uid": owner["metadata"]["uid"]}
        apiserver.put(pod(name, ownerReferences=[mine]))
    kube.delete(f"{daemonsets}/d", propagation=propagation)
    assert bool(apiserver.all(PODS)) is (propagation == "Orphan")
    # What a controller makes when its owner has gone already goes the same way.
    late = {**reference, "uid": owner["metadata"]["uid"]}
    apiserver.put(pod("late", ownerReferences=[late]))
    assert ("late" in [p["metadata"]["name"] for p in apiserver.all(PODS)]) is (
        propagation == "Orphan"
    )


def test_a_kind_is_served_once_its_crd_is_there(apiserver: ApiServer, kube: Kube) -> None:
    path = "/apis/example.com/v1/widgets"
    assert kube.find(path) is None
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "names": {"plural": "widgets", "kind": "Widget"},
            "scope": "Namespaced",
            "versions": [{"name": "v1"}],
        },
    }
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    kube.create(crds, crd)
    kube.create("/apis/example.com/v1/namespaces/default/widgets", {"metadata": {"name": "w"}})
    assert [each["kind"] for each in kube.items(path)] == ["Widget"]
    kube.delete(f"{crds}/widgets.example.com")
    assert kube.find(path) is None


def test_a_dry_run_stores_nothing(apiserver: ApiServer, kube: Kube) -> None:
    kube.create(f"{PODS}?dryRun=All", pod("p"))
    assert apiserver.all(PODS) == []


def test_what_is_denied_is_refused_and_said_in_reviews(apiserver: ApiServer, kube: Kube) -> None:
    apiserver.deny("delete", "pods")
    apiserver.deny("get", "nodes/proxy")
    apiserver.put(pod("p"))
    with pytest.raises(ApiError) as refused:
        kube.delete(f"{PODS}/p")
    assert refused.value.status == 403
    with pytest.raises(ApiError, match="nodes/proxy"):
        kube.text("/api/v1/nodes/n1/proxy/metrics")
    for verb, resource, part, allowed in (
        ("delete", "pods", "", False), ("get", "pods", "", True), ("get", "nodes", "proxy", False),
    ):  # fmt: skip
        asked = {"verb": verb, "resource": resource, "subresource": part}
        answer = kube.create(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {"spec": {"resourceAttributes": asked}},
        )
        assert answer["status"]["allowed"] is allowed


def test_scripts_come_first_then_handlers_then_the_usual_answer(
    apiserver: ApiServer, kube: Kube
) -> None:
    apiserver.put(pod("p"))
    path = f"{PODS}/p"
    apiserver.handle("GET", path, lambda request: (200, {"from": request.query.get("x", "")}))
    apiserver.script("GET", path, (200, {"from": "script"}), [0.01, lambda _: None, DROP])
    assert kube.get(path) == {"from": "script"}
    assert kube.get(path, x="y") == {"from": "y"}, "after the cut it is asked again"
    apiserver.handle("GET", path, lambda _: None)
    assert kube.get(path)["kind"] == "Pod"
    method, told, body = apiserver.requests[-1]
    assert (method, told, body) == ("GET", path, None)


def test_controllers_act_on_what_is_created_and_deleted(apiserver: ApiServer, kube: Kube) -> None:
    gone = threading.Event()

    def run(found: Object) -> None:
        apiserver.put({**found, "status": {"phase": "Running"}})

    apiserver.on_create("Pod", run)
    apiserver.on_delete("Pod", lambda _: gone.set())
    kube.create(PODS, pod("p"))
    wait_until(lambda: (apiserver.get(f"{PODS}/p") or {}).get("status"))
    kube.delete(f"{PODS}/p")
    assert gone.wait(5)


def test_discovery_names_what_is_served(apiserver: ApiServer, kube: Kube) -> None:
    names = {each["name"] for each in kube.get("/apis/apps/v1")["resources"]}
    assert {"deployments", "daemonsets"} <= names
    assert "gitVersion" in kube.get("/version")
    assert kube.text("/readyz") == "ok"
    with pytest.raises(ApiError) as missing:
        kube.get("/nothing/here")
    assert missing.value.is_missing
