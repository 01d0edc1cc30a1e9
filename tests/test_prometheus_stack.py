"""ClusterLoader2's Prometheus: reused, made anew or refused; and never anybody else's."""

import base64
import contextlib
import http.server
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from apiserver import ApiServer
from test_promql_against_prometheus import is_ready, needs

from imgpull.cluster import prometheus
from imgpull.cluster.kube import ApiError, Kube, Object
from imgpull.cluster.prometheus import (
    ANNOTATION,
    CL2_LEFTOVERS,
    additional_monitors,
    adopt,
    foreign,
    prepare,
    settings_hash,
    state,
    tear_down,
)
from imgpull.errors import EngineFailed, EngineUnavailable

SPACE = "/api/v1/namespaces/monitoring"
LABELS = {"app.kubernetes.io/managed-by": "imgpull", "imgpull.dev/sweep": "s"}
HASH = "0123456789ab"
KINDS = {
    "clusterrolebindings": "ClusterRoleBinding", "clusterroles": "ClusterRole",
    "serviceaccounts": "ServiceAccount", "services": "Service", "endpoints": "Endpoints",
    "storageclasses": "StorageClass", "customresourcedefinitions": "CustomResourceDefinition",
}  # fmt: skip


def quiet(_: str) -> None:
    pass


def leftover(path: str) -> Object:
    """An object as CL2 makes it at this path."""
    *_, plural, name = path.split("/")
    parts = path.split("/")
    version = parts[2] if parts[1] == "api" else "/".join(parts[2:4])
    made: Object = {"apiVersion": version, "kind": KINDS[plural], "metadata": {"name": name}}
    if "namespaces" in parts:
        made["metadata"]["namespace"] = parts[parts.index("namespaces") + 1]
    if plural == "customresourcedefinitions":
        names = {"plural": name.partition(".")[0], "kind": name.partition(".")[0].title()}
        made["spec"] = {
            "group": "monitoring.coreos.com", "names": names, "scope": "Namespaced",
            "versions": [{"name": "v1"}],
        }  # fmt: skip
    if plural == "storageclasses":
        made["provisioner"] = "disk.csi.azure.com"
    return made


def token(age_h: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"iat": time.time() - age_h * 3600}).encode())
    jwt = f"e30.{claims.decode().rstrip('=')}.signature"
    return base64.b64encode(jwt.encode()).decode()


def bring_up(server: ApiServer, *, ready: bool = True, token_age_h: float = 0.0) -> None:
    """What CL2 makes, in its namespace and outside."""
    condition = {"type": "Ready", "status": str(ready)}
    server.put(
        {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": "monitoring", "name": "prometheus-k8s-0",
                "labels": {"prometheus": "k8s"},
            },
            "status": {"conditions": [condition]},
        }
    )  # fmt: skip
    server.put(
        {
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {
                "namespace": "monitoring", "name": "prometheus-token",
                "creationTimestamp": "2020-01-01T00:00:00Z",  # renewed in place since
            },
            "data": {"token": token(token_age_h)},
        }
    )  # fmt: skip
    for path in CL2_LEFTOVERS:
        if server.get(path) is None:
            server.put(leftover(path))


@pytest.fixture
def stack(apiserver: ApiServer, kube: Kube) -> None:
    """Ours, up and adopted."""
    assert prepare(kube, HASH, LABELS, quiet) == "created"
    bring_up(apiserver)
    adopt(kube, HASH)


def written(server: ApiServer) -> list[tuple[str, str]]:
    """What was changed, or asked to be."""
    return [(each.method, each.path) for each in server.requests if each.method != "GET"]


# Ours


def test_an_empty_cluster_gets_a_namespace_with_our_marks_before_cl2_comes(
    apiserver: ApiServer, kube: Kube
) -> None:
    assert foreign(kube) == []
    assert str(state(kube)) == "absent"
    assert prepare(kube, HASH, LABELS, quiet) == "created"
    space = apiserver.get(SPACE)
    assert space is not None
    assert space["metadata"]["annotations"][ANNOTATION] == HASH
    assert LABELS.items() <= space["metadata"]["labels"].items()
    assert str(state(kube)) == f"ours:{HASH}"


@pytest.mark.usefixtures("stack")
def test_a_stack_that_is_well_and_of_these_settings_is_not_touched(
    apiserver: ApiServer, kube: Kube
) -> None:
    apiserver.requests.clear()
    assert prepare(kube, HASH, LABELS, quiet) == "reused"
    assert written(apiserver) == []
    assert foreign(kube) == []


@pytest.mark.usefixtures("stack")
def test_other_settings_make_it_anew_with_nothing_left_of_the_old(
    apiserver: ApiServer, kube: Kube
) -> None:
    before = apiserver.get(SPACE)
    assert prepare(kube, "ba9876543210", LABELS, quiet) == "rebuilt"
    after = apiserver.get(SPACE)
    assert before is not None
    assert after is not None
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert [path for path in CL2_LEFTOVERS if apiserver.get(path)] == []
    assert str(state(kube)) == "ours:ba9876543210"


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"ready": False}, "its Prometheus is not ready"),
        ({"token_age_h": 21.0}, "its token is 21 h old"),
    ],
)
@pytest.mark.usefixtures("stack")
def test_a_stack_that_is_not_well_is_made_anew(
    apiserver: ApiServer, kube: Kube, broken: dict[str, Any], why: str
) -> None:
    bring_up(apiserver, **broken)
    assert state(kube).trouble == why
    said: list[str] = []
    assert prepare(kube, HASH, LABELS, said.append) == "rebuilt"
    assert any(why in each for each in said)


def test_a_namespace_that_cl2_never_came_to_is_no_stack(apiserver: ApiServer, kube: Kube) -> None:
    prepare(kube, HASH, LABELS, quiet)
    assert state(kube).trouble == "it has no Prometheus"
    assert prepare(kube, HASH, LABELS, quiet) == "rebuilt"


def test_a_namespace_that_is_going_is_waited_for(apiserver: ApiServer, kube: Kube) -> None:
    prepare(kube, HASH, LABELS, quiet)
    apiserver.namespace_takes_s = 0.5
    kube.delete(SPACE)
    assert state(kube).kind == "terminating"
    assert prepare(kube, HASH, LABELS, quiet) == "created"


def test_the_hash_is_of_the_settings_and_not_of_their_order() -> None:
    one = settings_hash({"port": 10257, "selector": {"a": "b", "c": "d"}})
    assert one == settings_hash({"selector": {"c": "d", "a": "b"}, "port": 10257})
    assert one != settings_hash({"selector": {"c": "d", "a": "b"}, "port": 10258})
    assert len(one) == 12


# Not ours


@pytest.mark.parametrize(
    ("made", "named", "fix"),
    [
        ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}},
         "namespace monitoring exists", "kubectl delete namespace monitoring"),
        (leftover("/apis/storage.k8s.io/v1/storageclasses/ssd"), "StorageClass ssd (disk.csi.azure",
         "kubectl delete storageclass ssd"),
        (leftover(CL2_LEFTOVERS[-2]), "servicemonitors.monitoring.coreos.com",
         "kubectl delete crd servicemonitors.monitoring.coreos.com"),
    ],
)  # fmt: skip
def test_what_cl2_would_take_or_destroy_is_refused_with_the_fix_and_untouched(
    apiserver: ApiServer, kube: Kube, made: Object, named: str, fix: str
) -> None:
    apiserver.put(made)
    (sentence,) = foreign(kube)
    assert named in sentence
    assert fix in sentence
    apiserver.requests.clear()
    with pytest.raises(EngineUnavailable, match=r"(is|are) not ours"):
        prepare(kube, HASH, LABELS, quiet)
    assert written(apiserver) == []


def test_what_was_there_before_cl2_is_neither_adopted_nor_removed(
    apiserver: ApiServer, kube: Kube
) -> None:
    theirs = [path for path in CL2_LEFTOVERS if path.endswith(("/prometheus-k8s", "/kube-proxy"))]
    assert len(theirs) == 3
    for path in theirs:
        apiserver.put(leftover(path))
    prepare(kube, HASH, LABELS, quiet)
    bring_up(apiserver)
    assert set(adopt(kube, HASH)) == set(CL2_LEFTOVERS) - set(theirs)
    tear_down(kube, quiet)
    assert [path for path in CL2_LEFTOVERS if apiserver.get(path)] == theirs
    assert all("annotations" not in (apiserver.get(path) or {})["metadata"] for path in theirs)


def test_nothing_is_adopted_without_our_namespace(apiserver: ApiServer, kube: Kube) -> None:
    bring_up(apiserver)
    apiserver.requests.clear()
    assert adopt(kube, HASH) == ()
    with pytest.raises(EngineFailed, match="not ours"):
        tear_down(kube, quiet)
    assert written(apiserver) == []


# Its end


@pytest.mark.usefixtures("stack")
def test_tearing_down_leaves_nothing_and_may_be_done_twice(
    apiserver: ApiServer, kube: Kube
) -> None:
    tear_down(kube, quiet)
    assert apiserver.get(SPACE) is None
    assert [path for path in CL2_LEFTOVERS if apiserver.get(path)] == []
    tear_down(kube, quiet)


@pytest.mark.usefixtures("stack")
def test_a_storage_class_that_cl2_made_afresh_goes_too(apiserver: ApiServer, kube: Kube) -> None:
    path = "/apis/storage.k8s.io/v1/storageclasses/ssd"
    apiserver.remove(path)
    apiserver.put(leftover(path))
    assert foreign(kube) == []
    tear_down(kube, quiet)
    assert apiserver.get(path) is None


@pytest.mark.usefixtures("stack")
def test_a_removal_that_is_cut_short_is_finished_by_the_next(
    apiserver: ApiServer, kube: Kube
) -> None:
    apiserver.script("DELETE", CL2_LEFTOVERS[3], (403, {"message": "not now"}))
    with pytest.raises(ApiError, match="not now"):
        tear_down(kube, quiet)
    assert apiserver.get(SPACE) is None
    assert any(apiserver.get(path) for path in CL2_LEFTOVERS)
    assert foreign(kube) == []  # they carry our mark
    tear_down(kube, quiet)
    assert [path for path in CL2_LEFTOVERS if apiserver.get(path)] == []


@pytest.mark.usefixtures("stack")
def test_a_namespace_that_does_not_go_is_named_with_what_holds_it(
    apiserver: ApiServer, kube: Kube
) -> None:
    meta = {"namespace": "monitoring", "name": "x", "finalizers": ["a/b"]}
    apiserver.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    with pytest.raises(EngineFailed, match="Namespace monitoring did not go within 1 s") as caught:
        tear_down(kube, quiet, limit_s=1.0)
    assert caught.value.hint == "kubectl describe Namespace monitoring"
    apiserver.remove("/api/v1/namespaces/monitoring/configmaps/x")


# containerd, with upstream CL2


def test_the_additional_monitor_is_yaml_that_cl2s_templates_leave_alone() -> None:
    (text,) = additional_monitors(10257, 15.0).values()
    assert "{{" not in text
    monitor = yaml.safe_load(text)
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["kube-system"]}
    assert monitor["spec"]["selector"] == {"matchLabels": {"k8s-app": "kubelet"}}
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["scheme"], endpoint["path"]) == (
        "https-metrics", "http", "/v1/metrics",
    )  # fmt: skip
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == ("15s", "10s")
    (quick,) = additional_monitors(10257, 0.5).values()
    assert yaml.safe_load(quick)["spec"]["endpoints"][0]["scrapeTimeout"] == "500ms"


class _Containerd(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path == "/v1/metrics"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"containerd_cri_image_pulls_total 7\n" if found else b"")

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(handler: Callable[..., Any]) -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.prometheus
@needs("prometheus")
def test_a_real_prometheus_scrapes_containerd_where_kubelets_are(tmp_path: Path) -> None:
    """With what prometheus-operator makes of the monitor: its relabelings come after `node`."""
    with served(_Containerd) as port, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        (text,) = additional_monitors(port, 1.0, nodes="aks-measured-.+").values()
        (endpoint,) = yaml.safe_load(text)["spec"]["endpoints"]
        snake = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
        job = {
            "job_name": "serviceMonitor/monitoring/containerd/0",
            "scrape_interval": endpoint["interval"],
            "scrape_timeout": endpoint["scrapeTimeout"],
            "metrics_path": endpoint["path"],
            "scheme": endpoint["scheme"],
            "static_configs": [
                {"targets": ["127.0.0.1:10250"], "labels": {"node": node, "job": "kubelet"}}
                for node in ("aks-measured-1", "aks-system-1")
            ],
            "relabel_configs": [
                {snake.get(key, key): value for key, value in each.items()}
                for each in endpoint["relabelings"]
            ],
        }
        config = tmp_path / "prometheus.yml"
        config.write_text(yaml.safe_dump({"scrape_configs": [job]}))
        with (tmp_path / "log").open("wb") as log:
            server = subprocess.Popen(
                ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data",
                 f"--web.listen-address={address}"], stdout=log, stderr=log,
            )  # fmt: skip
        try:
            found: list[Any] = []
            until = time.monotonic() + 20
            while not found and time.monotonic() < until:
                assert server.poll() is None, (tmp_path / "log").read_text("utf-8")
                if is_ready(address):
                    name = "containerd_cri_image_pulls_total"
                    found = prometheus.query(f"http://{address}", name, time.time())
                time.sleep(0.1)
            targets = prometheus.targets(f"http://{address}")
        finally:
            server.terminate()
            server.wait()
    assert [(each.job, each.node, each.trouble) for each in targets] == [
        ("monitoring/containerd", "aks-measured-1", ""),
    ]  # fmt: skip
    assert targets[0].url == f"http://127.0.0.1:{port}/v1/metrics"
    (sample,) = found
    assert sample.labels["instance"] == f"127.0.0.1:{port}"
    assert sample.points[0][1] == 7.0
