"""Laws of preflight: a sound cluster passes, one broken thing is one finding, each has its fix."""

import hashlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aks import DATA, FITS, GIB, Aks, node, not_ready
from apiserver import DROP, ApiServer
from apistore import Place

from imgpull.cluster import clock, findings, inspect_image, nodes, permissions, preflight
from imgpull.cluster.findings import Finding
from imgpull.cluster.kube import Kube
from imgpull.cluster.ownership import MEASURED_BY, Owner
from imgpull.cluster.registry import ImageInfo
from imgpull.config.image import Layer
from imgpull.config.job import MEASURED_LABEL, Job
from imgpull.errors import ConfigError, EngineUnavailable

MakeJob = Callable[..., Job]
SIZES = (40_000_000, 60_000_000)
ORDER = [
    "API server", "permissions", "nodes", "fingerprint", "image", "command", "disk",
    "kubelet metrics", "containerd metrics", "monitoring", "Prometheus node", "leftovers", "lease",
    "clocks",
]  # fmt: skip


def registry(api: ApiServer, command: list[str] = ["/pause"]) -> str:  # noqa: B006
    """Have the stand-in serve an image too; its reference."""
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Entrypoint": command},
        "rootfs": {"diff_ids": [f"sha256:{index:064d}" for index in range(len(SIZES))]},
    }).encode()  # fmt: skip
    manifest = json.dumps({
        "schemaVersion": 2,
        "config": {"digest": f"sha256:{hashlib.sha256(config).hexdigest()}", "size": len(config)},
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": size,
             "digest": f"sha256:{size:064d}"} for size in SIZES
        ],
    }).encode()  # fmt: skip
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    headers = {
        "Content-Type": "application/vnd.oci.image.manifest.v1+json",
        "Docker-Content-Digest": digest,
    }
    api.handle("GET", r"/v2/bench/big/manifests/.*", (404, {"errors": []}))
    api.handle("GET", rf"/v2/bench/big/manifests/(v1|{digest})", (200, manifest, headers))
    api.handle("GET", r"/v2/bench/big/blobs/.*", (200, config))
    api.handle("GET", r"/v2/bench/big/tags/list", (200, {"name": "bench/big", "tags": ["v1"]}))
    return f"{api.url.removeprefix('http://')}/bench/big:v1"


DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Case:
    """A sound cluster and job; a test breaks one thing of it and looks."""

    def __init__(self, api: ApiServer, kube: Kube, job: Job) -> None:
        self.api, self.kube, self.job = api, kube, job
        self.aks = Aks(api, 3)

    def image(self, **changes: Any) -> None:
        self.job = replace(self.job, image=replace(self.job.image, **changes))

    def cluster(self, **changes: Any) -> None:
        self.job = replace(self.job, cluster=replace(self.job.cluster, **changes))

    def engine(self, **changes: Any) -> None:
        self.job = replace(self.job, engine=replace(self.job.engine, **changes))

    def look(self) -> list[Finding]:
        found = list(preflight.inspect(self.kube, self.job))
        assert all(each.fix for each in found if each.state == "failed")
        return found

    def put(self, index: int, **changes: Any) -> None:
        self.api.put(node(index, **changes))


@pytest.fixture
def case(apiserver: ApiServer, kube: Kube, job: MakeJob) -> Case:
    sound = job(*FITS, "engine=binary", "nodes=3")
    found = Case(apiserver, kube, sound)
    found.image(reference=registry(apiserver), digest=None, layers=(), command=(), args=())
    return found


def of(found: Iterable[Finding], state: str) -> list[Finding]:
    return [each for each in found if each.state == state]


# -------------------------------------------------------------------------------- a sound one


def test_a_sound_cluster_passes_every_check_in_the_order_of_their_meaning(case: Case) -> None:
    found = case.look()
    assert [each.check for each in found] == ORDER
    assert of(found, "ok") == found
    preflight.require(found)


def test_nothing_is_written(case: Case) -> None:
    case.look()
    written = {
        (request.method, request.path)
        for request in case.api.requests
        if request.method != "GET"
    }  # fmt: skip
    assert written == {("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")}


def test_a_finding_comes_before_the_next_check_is_begun(case: Case) -> None:
    found = preflight.inspect(case.kube, case.job)
    assert next(found).check == "API server"
    assert [request.path for request in case.api.requests] == ["/version"]


def test_a_description_with_the_registry_s_layers_passes(case: Case) -> None:
    (told,) = [each for each in case.look() if each.check == "image"]
    layers = tuple(Layer(size, None, "gzip") for size in SIZES)
    case.image(digest=DIGEST.findall(told.message)[0], layers=layers)
    assert of(case.look(), "failed") == []


# ---------------------------------------------------------------------- one thing broken at once

Break = Callable[[Case], object]


def lease(case: Case, **spec: str) -> None:
    case.api.put({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "imgpull", "namespace": "imgpull-system"},
        "spec": {"leaseDurationSeconds": 40, **spec},
    })  # fmt: skip
    case.api.put({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "imgpull-system",
                     "labels": {"app.kubernetes.io/managed-by": "imgpull"}},
    })  # fmt: skip


def namespace(name: str, **meta: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **meta}}


def secret(kind: str = "kubernetes.io/dockerconfigjson", data: str = "e30=") -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Secret", "type": kind,
        "metadata": {"name": "pull", "namespace": "default"}, "data": {".dockerconfigjson": data},
    }  # fmt: skip


def prom_node(**changes: Any) -> dict[str, Any]:
    labels = {"prometheus": "true"}
    return node(0, pool="prom", **{"metadata__labels": labels, **changes})


SMALL = {"status__allocatable": {"memory": "8000000Ki"}}
SIZE = {"node.kubernetes.io/instance-type": "Standard_D8s_v3"}
OURS = {"labels": {"app.kubernetes.io/managed-by": "imgpull", "imgpull.dev/sweep": "dead"}}
OLD_LAYERS = (Layer(41_000_000, 90_000_000, "gzip"),)
WRONG = {"kubeletconfig": {"registryPullQPS": 50, "registryBurst": 10}}

FAILURES: dict[str, tuple[Break, str, str, str, str]] = {
    # what is broken: (how, check, part of the message, part of the fix, field)
    "rights": (
        lambda c: c.api.deny("delete", "customresourcedefinitions"), "permissions",
        "imgpull needs what this credential may not do: "
        "delete customresourcedefinitions.apiextensions.k8s.io",
        "kubectl create clusterrolebinding", ""),
    "rights of CL2": (
        lambda c: c.api.deny("create", "prometheuses"), "permissions",
        "clusterloader needs what this credential may not do: "
        "create prometheuses.monitoring.coreos.com in monitoring", "docs/real-clusters.md", ""),
    "a node": (
        lambda c: c.put(1, status__conditions=not_ready()), "nodes",
        "nodes=3, but 2 of the 3 nodes", "wait until they are Ready, or use nodes=2", "nodes"),
    "a node's size": (
        lambda c: c.put(1, metadata__labels=SIZE), "fingerprint",
        "cluster.node.vm_size is Standard_D4s_v3, found Standard_D4s_v3 on aks",
        "imgpull cluster describe > conf/cluster/mine.yaml), or allow=[cluster.node.vm_size]",
        "cluster.node.vm_size"),
    "a kubelet's settings": (
        lambda c: c.aks.settings.update(registryPullQPS=50), "fingerprint",
        "cluster.kubelet.registryPullQPS is 5, found 50",
        "allow=[cluster.kubelet.registryPullQPS]", "cluster.kubelet.registryPullQPS"),
    "the server's version": (
        lambda c: setattr(c.api, "version", "v1.36.0"), "fingerprint",
        "cluster.kubernetes_version is 1.34, found 1.36.0", "describe it as it is",
        "cluster.kubernetes_version"),
    "no such tag": (
        lambda c: c.image(reference=c.job.image.reference.replace("v1", "v2")), "image",
        "has no tag v2", "it has v1", "image.reference"),
    "another platform": (
        lambda c: (c.image(platform="linux/arm64"),
                   [c.put(i, status__nodeInfo={"architecture": "arm64"}) for i in range(3)]),
        "image", "only for linux/amd64", "image.platform=linux/amd64", "image.platform"),
    "another machine": (
        lambda c: [c.put(i, status__nodeInfo={"architecture": "arm64"}) for i in range(3)],
        "platform", "image.platform=linux/amd64, but aks-measured-38601234-vmss000000, ",
        "image.platform=linux/arm64", "image.platform"),
    "the digest": (
        lambda c: (c.image(digest="sha256:" + "0" * 64),
                   c.api.handle("GET", rf"/v2/bench/big/manifests/sha256:{'0' * 64}",
                                (404, {"errors": []}))), "image",
        f"has no sha256:{'0' * 64}", "it has v1", "image.reference"),
    "the layers": (
        lambda c: c.image(layers=OLD_LAYERS), "image",
        "image.layers is 1 layers of 41000000 bytes compressed, found 2 layers of 100000000 bytes",
        "imgpull image inspect REFERENCE --force), or allow=[image.layers]", "image.layers"),
    "a shell": (
        lambda c: registry(c.api, ["/bin/bash"]), "command", "'/bin/bash', exits at once",
        "image.command=[sleep,infinity]", "image.command"),
    "no command": (
        lambda c: registry(c.api, []), "command", "no command of its own",
        "image.command=[sleep,infinity]", "image.command"),
    "no pull secret": (
        lambda c: c.image(pull_secret="pull"), "pull secret",
        "no Secret pull in namespace default", "kubectl create secret docker-registry pull", ""),
    "another secret": (
        lambda c: (c.image(pull_secret="pull"), c.api.put(secret("Opaque"))), "pull secret",
        "of type Opaque, no pull secret", "kubectl create secret docker-registry pull", ""),
    "the disk": (
        lambda c: setattr(c.aks, "available_bytes", 300_000_000), "disk",
        "the image needs 400 MB (100 MB compressed, unpacked ASSUMPTION 3 times that), but on "
        "aks-measured-38601234-vmss000000, aks-measured-38601234-vmss000001, "
        "aks-measured-38601234-vmss000002 only 300 MB of 133 GB are free", "make room", ""),
    "room before eviction": (
        lambda c: (setattr(c.aks, "available_bytes", 13 * GIB),
                   c.aks.settings.update(evictionHard={"imagefs.available": "15%"})), "disk",
        "kubelet evicts pods below 20 GB", "make room", ""),
    "a kubelet": (
        lambda c: c.aks.of_node(c.aks.names[2], "metrics", (502, {"message": "no route"})),
        "kubelet metrics", "kubelets do not answer on aks-measured-38601234-vmss000002: ",
        "kubectl get --raw /api/v1/nodes/aks-measured-38601234-vmss000002/proxy/metrics", ""),
    "a node that is not measured, and scraped all the same": (
        lambda c: (setattr(c, "job", replace(c.job, nodes=2)),
                   c.aks.of_node(c.aks.names[2], "metrics", (502, {"message": "no route"}))),
        "kubelet metrics", "kubelets do not answer on aks-measured-38601234-vmss000002: ",
        "kubectl delete node aks-measured-38601234-vmss000002", ""),
    "containerd's port": (
        lambda c: c.api.handle("GET", rf"/api/v1/nodes/{c.aks.names[0]}:10257/.*",
                               (503, {"message": "connection refused"})), "containerd metrics",
        "port 10257 does not answer on aks-measured-38601234-vmss000000: ",
        'address = "0.0.0.0:10257"', ""),
    "another port": (
        lambda c: c.engine(containerd_port=1338), "containerd metrics",
        "port 1338 does not answer", "another engine.containerd_port", ""),
    "containerd's generation": (
        lambda c: setattr(c.aks, "containerd_metrics",
                          (DATA / "metrics" / "containerd-2.1.9.prom").read_text()),
        "containerd metrics", "expose no containerd_cri_image_pulling_throughput",
        "cluster.containerd_version", "cluster.containerd_version"),
    "a foreign Prometheus": (
        lambda c: c.api.put(namespace("monitoring")), "monitoring",
        "namespace monitoring exists and is not ours", "kubectl delete namespace monitoring", ""),
    "no node for Prometheus": (
        lambda c: c.api.remove("/api/v1/nodes/aks-prom-38601234-vmss000000"), "Prometheus node",
        "no node matches cluster.prometheus_node_selector (prometheus=true)",
        "kubectl label node NAME prometheus=true", ""),
    "a small node for Prometheus": (
        lambda c: c.api.put(prom_node(**SMALL)), "Prometheus node",
        "Prometheus asks for 10 GiB, and aks-prom-38601234-vmss000000, the largest node",
        "lower cluster.prometheus_memory_gib", ""),
    "a closed node for Prometheus": (
        lambda c: c.api.put(prom_node(spec__taints=[{"key": "a", "effect": "NoSchedule"}])),
        "Prometheus node", "takes Prometheus: aks-prom-38601234-vmss000000: taint a:NoSchedule",
        "kubectl label node ", ""),
    "leftovers": (
        lambda c: c.api.put(namespace("ip0123456789-1", **OURS)), "leftovers",
        "Namespace ip0123456789-1 left by an earlier sweep", "imgpull janitor", ""),
    "a left label": (
        lambda c: c.put(0, metadata__labels={MEASURED_LABEL: "true"},
                        metadata__annotations={MEASURED_BY: "dead"}), "leftovers",
        "node label aks-measured-38601234-vmss000000", "imgpull janitor", ""),
    "our namespace": (
        lambda c: c.api.put(namespace("imgpull-system")), "leftovers",
        "namespace imgpull-system exists and is not imgpull's", "kubectl label namespace", ""),
    "allow": (
        lambda c: setattr(c, "job", replace(c.job, allow=("cluster.node.vmsize",))), "request",
        "'cluster.node.vmsize' is no key", "did you mean allow=[cluster.node.vm_size]?", ""),
}  # fmt: skip


@pytest.mark.parametrize("what", FAILURES)
def test_one_broken_thing_is_one_failed_finding_with_its_fix(case: Case, what: str) -> None:
    act, check, message, fix, field = FAILURES[what]
    act(case)
    found = case.look()
    failed = of(found, "failed")
    if check == "image":  # nobody knows the command of an image that is not there
        failed = [each for each in failed if each.check != "command"]
    (only,) = failed
    assert (only.check, only.field) == (check, field)
    assert message in only.message
    assert fix in only.fix
    with pytest.raises((ConfigError, EngineUnavailable)) as caught:
        preflight.require(found)
    assert isinstance(caught.value, ConfigError) == bool(field)
    assert caught.value.message == f"{check}: {only.message}"
    assert caught.value.hint == only.fix


WARNINGS: dict[str, tuple[Break, str, str]] = {
    "a registry that only the nodes reach": (
        lambda c: c.image(reference=f"127.0.0.1:{unused_port()}/bench/big:v1"), "image",
        "could not be looked at from here"),
    "a registry that does not know us": (
        lambda c: c.api.handle("GET", "/v2/.*", (401, {"errors": []})), "image",
        "the nodes may reach it"),
    "the disk's limit": (
        lambda c: setattr(c.aks, "available_bytes", 17 * GIB), "disk",
        "kubelet removes unused images from imageGCHighThresholdPercent=85 on"),
    "a silent disk": (
        lambda c: c.aks.of_node(c.aks.names[0], "stats/summary", (200, {})), "disk",
        "kubelet does not tell the free space of aks-measured-38601234-vmss000000"),
    "a forbidden proxy": (
        lambda c: c.api.handle("GET", r"/api/v1/nodes/[^/]*:10257/.*", (403, {})),
        "containerd metrics", "the API server does not let us ask aks-"),
    "hidden settings": (
        lambda c: c.aks.of_node(c.aks.names[1], "configz", (403, {})), "fingerprint",
        "kubelets' settings cannot be seen on aks-measured-38601234-vmss000001"),
    "unlike kernels": (
        lambda c: c.put(2, status__nodeInfo={"kernelVersion": "6.8"}), "fingerprint",
        "their kernel differs: 5.15.0-1102-azure on "),
    "an old kubelet": (
        lambda c: (c.cluster(kubernetes_version="1.29"), setattr(c.api, "version", "v1.29.1"),
                   [c.put(i, status__nodeInfo={"kubeletVersion": "v1.29.1"}) for i in range(3)]),
        "kubelet metrics", "came with Kubernetes 1.30"),
    "Prometheus anywhere": (
        lambda c: c.cluster(prometheus_node_selector={}), "Prometheus node",
        "Prometheus may run on a measured node"),
    "a kept Prometheus": (
        lambda c: c.api.put(namespace("monitoring", annotations={"imgpull.dev/prometheus": "x"})),
        "leftovers", "ClusterLoader2's Prometheus of an earlier sweep is there"),
    "a holder": (
        lambda c: lease(c, holderIdentity="ann@desk", acquireTime="2026-11-24T10:00:00.000000Z",
                        renewTime=datetime.now(UTC).isoformat()), "lease",
        "ann@desk has held the cluster since 2026-11-24T10:00"),
    "our clock": (
        lambda c: setattr(c.api, "skew_s", 5.0), "clocks",
        "the API server's clock is +"),
    "a node's clock": (
        lambda c: c.aks.lease(c.aks.names[1], ahead_s=-7.0), "clocks",
        "clocks of nodes differ from the API server's: aks-measured-38601234-vmss000001"),
}  # fmt: skip


def unused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.mark.parametrize("what", WARNINGS)
def test_what_is_doubtful_is_a_warning_and_stops_nothing(case: Case, what: str) -> None:
    act, check, message = WARNINGS[what]
    act(case)
    found = case.look()
    assert of(found, "failed") == []
    warned = [each for each in of(found, "warning") if each.check == check]
    assert message in warned[0].message
    preflight.require(found)


@pytest.mark.parametrize(
    "spec",
    [{}, {"holderIdentity": ""},
     {"holderIdentity": "ann", "renewTime": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}],
)  # fmt: skip
def test_a_lease_of_nobody_alive_is_no_warning(case: Case, spec: dict[str, str]) -> None:
    lease(case, **spec)
    assert of(case.look(), "warning") == []


def test_allowed_mismatches_are_warnings_that_name_their_field(case: Case) -> None:
    case.put(1, metadata__labels=SIZE)
    case.aks.settings["registryBurst"] = 99
    case.image(layers=OLD_LAYERS)
    fields = {"cluster.node.vm_size", "cluster.kubelet.registryBurst", "image.layers"}
    assert {each.field for each in of(case.look(), "failed")} == fields
    case.job = replace(case.job, allow=("cluster", "image.layers"))
    found = case.look()
    assert of(found, "failed") == []
    assert {each.field for each in of(found, "warning")} == fields
    assert all("; allowed" in each.message for each in of(found, "warning"))


@pytest.mark.parametrize(
    ("command", "stays"),
    [
        (["/pause"], True), (["sleep", "infinity"], True), (["nginx", "-g", "daemon off;"], True),
        (["python3", "serve.py"], True), (["bash", "-c", "serve"], True),
        (["tini", "--", "serve"], True),
        (["bash"], False), (["/bin/sh", "-l"], False), (["python3"], False),
        (["/usr/bin/tini", "--", "/bin/bash"], False),
        (["/opt/nvidia/nvidia_entrypoint.sh"], False),
    ],
)  # fmt: skip
def test_a_command_that_is_known_to_end_at_once_is_refused(
    job: MakeJob, command: list[str], stays: bool
) -> None:
    image = replace(job().image, command=(), args=())
    info = ImageInfo("r", "d", "m", "c", "linux/amd64", (), (), tuple(command))
    (found,) = inspect_image.command(image, info)
    assert found.state == ("ok" if stays else "failed")


def test_a_command_that_the_user_gives_is_not_judged(job: MakeJob) -> None:
    info = ImageInfo("r", "d", "m", "c", "linux/amd64", (), (), ("bash",))
    for given in ({"command": ("bash",), "args": ()}, {"command": (), "args": ("-c", "serve")}):
        assert list(inspect_image.command(replace(job().image, **given), info)) == []


def test_an_image_that_a_node_holds_needs_no_room_there(case: Case) -> None:
    case.aks.available_bytes = 100_000_000
    for index in range(3):
        case.put(index, status__images=[{"names": [case.job.image.reference], "sizeBytes": 1}])
    assert of(case.look(), "failed") == []


def test_an_image_of_unknown_size_is_told(case: Case) -> None:
    case.image(reference=f"127.0.0.1:{unused_port()}/bench/big:v1")
    (told,) = [each for each in case.look() if each.check == "disk"]
    assert told.state == "warning"
    assert "the image's size is not known; 107 GB free on aks-" in told.message


def test_a_pull_secret_is_what_the_registry_is_asked_with(case: Case) -> None:
    seen: list[str] = []

    def basic(request: Any) -> Any:
        seen.append(request.headers.get("Authorization", ""))

    case.image(pull_secret="pull")
    case.api.put(secret())
    case.api.script("GET", "/v2/.*", basic)
    assert [each.state for each in case.look() if each.check == "pull secret"] == ["ok"]
    assert seen == [""]  # the secret knows nobody there


# ----------------------------------------------------------------------------- refusals, errors


def test_an_api_server_that_is_not_there_is_the_only_finding(
    apiserver: ApiServer, job: MakeJob, tmp_path: Path
) -> None:
    file = apiserver.kubeconfig(tmp_path / "config")
    gone = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{unused_port()}", file.read_text())
    file.write_text(gone)
    kube = Kube.open(file).impatient()
    (only,) = preflight.inspect(kube, job(*FITS, "engine=binary"))
    kube.close()
    assert (only.check, only.state) == ("API server", "failed")
    assert "did not answer" in only.message
    assert "kubectl version" in only.fix


def test_a_credential_that_is_not_accepted_is_the_only_finding(case: Case) -> None:
    case.api.tokens = {"another"}
    (only,) = case.look()
    assert (only.check, only.state) == ("API server", "failed")
    assert "log in again" in only.fix


@pytest.mark.parametrize(
    ("path", "reply"),
    [
        ("/api/v1/nodes", (403, {})), ("/api/v1/nodes", (200, "garbage")),
        ("/api/v1/nodes/.*/proxy/.*", (404, {})), ("/api/v1/nodes/.*/proxy/.*", (200, "garbage")),
        ("/api/v1/namespaces.*", (403, {})), ("/v2/.*", (200, "garbage")),
        ("/apis/.*", (403, {})), ("/apis/.*", (200, "garbage")),
    ],
)  # fmt: skip
def test_no_refusal_or_garbage_breaks_the_look(case: Case, path: str, reply: Any) -> None:
    case.image(pull_secret="pull")
    for method in ("GET", "POST"):
        case.api.handle(method, path, reply)
    found = case.look()
    assert found[-1].check == "clocks"
    assert found[0].state == "ok"
    assert of(found, "failed")


def test_a_connection_that_is_cut_once_is_no_finding(case: Case) -> None:
    case.api.script("GET", "/api/v1/nodes/.*/proxy/.*", *[DROP] * 3)
    assert of(case.look(), "failed") == []


def test_every_failed_finding_is_listed_with_its_fix() -> None:
    found = [
        findings.ok("a", "fine"), findings.failed("b", "bad", "mend it"),
        findings.warning("c", "so so"), findings.failed("d", "worse", "mend that", "image.digest"),
    ]  # fmt: skip
    with pytest.raises(EngineUnavailable) as caught:
        findings.require(found)
    assert caught.value.message == (
        "2 checks of the cluster failed:\n  b: bad\n    mend it\n  d: worse\n    mend that"
    )
    assert "imgpull doctor" in caught.value.hint
    findings.require(each for each in found if each.state != "failed")


# --------------------------------------------------------------------------------- permissions


def test_what_is_denied_is_found_one_by_one(apiserver: ApiServer, kube: Kube) -> None:
    wanted = permissions.needed("binary", pull_secret=False)
    assert permissions.denied(kube, wanted) == []
    apiserver.deny("patch", "nodes")
    apiserver.deny("create", "serviceaccounts/token")
    found = {(verb, each.where()) for each, verb in permissions.denied(kube, wanted)}
    assert found == {("patch", "nodes"), ("create", "serviceaccounts/token in default")}


def test_only_what_the_engine_and_the_image_need_is_asked_for() -> None:
    def who(engine: str, pull_secret: bool) -> set[str]:
        return {each.who for each in permissions.needed(engine, pull_secret=pull_secret)}

    assert who("binary", False) == {"imgpull", "clusterloader"}
    assert who("docker", True) == {"imgpull", "clusterloader", "pull secret"}
    assert who("incluster", False) == {"imgpull", "incluster"}


def test_every_permission_is_in_the_table_with_why() -> None:
    rows = permissions.table().splitlines()[2:]
    assert len(rows) == len(permissions.PERMISSIONS)
    for row, each in zip(rows, permissions.PERMISSIONS, strict=True):
        assert f"`{each.where()}`" in row
        assert each.why in row
        assert all(verb.replace("*", "all") in row for verb in each.verbs)


# Everybody may ask these, or they are no more than nice to know.
FREE = {("list", "leases", "kube-node-lease"), ("create", "selfsubjectaccessreviews", "")}
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def asked_for(request: Any) -> tuple[str, str, str] | None:
    """Verb, resource and namespace that a request needs; None for what is no resource."""
    place = Place.of(request.path)
    if place is None:
        return None
    verb = VERBS.get(request.method, "get" if place.name else "list")
    resource = f"{place.plural}/{place.sub.partition('/')[0]}".rstrip("/")
    return verb, resource, place.namespace


def test_what_is_asked_of_the_cluster_is_in_the_table(case: Case) -> None:
    case.image(pull_secret="pull")
    case.api.put(secret())
    case.look()
    nodes.select(case.kube, case.job.cluster, 2, Owner("sweep-1"))
    nodes.release(case.kube)
    granted = {
        (verb, each.resource, each.namespace)
        for each in permissions.needed("binary", pull_secret=True)
        for verb in each.verbs
        if each.who in ("imgpull", "pull secret")
    }
    lacking = {
        asked
        for request in case.api.requests
        if (asked := asked_for(request)) is not None
        and asked not in FREE | granted
        and (asked[0], asked[1], "") not in granted
    }
    assert lacking == set()


def test_a_path_of_the_server_is_asked_for_as_such(apiserver: ApiServer, kube: Kube) -> None:
    path = permissions.Permission("clusterloader", ("get",), "/metrics", "why")
    permissions.denied(kube, [path])
    (asked,) = [request.body["spec"] for request in apiserver.requests]
    assert asked == {"nonResourceAttributes": {"verb": "get", "path": "/metrics"}}


# -------------------------------------------------------------------------------------- clocks


@pytest.mark.parametrize("skew_s", [-30.0, -1.6, 0.0, 1.6, 30.0])
def test_the_skew_is_found_to_a_fraction_of_a_second(
    apiserver: ApiServer, kube: Kube, skew_s: float
) -> None:
    apiserver.skew_s = skew_s
    assert clock.clock_skew_s(kube) == pytest.approx(skew_s, abs=0.4)


@pytest.mark.parametrize("skew_s", [-0.4, 0.4])
def test_clocks_that_may_agree_cost_one_question(
    apiserver: ApiServer, kube: Kube, skew_s: float
) -> None:
    apiserver.skew_s = skew_s
    found = clock.clock_skew_s(kube)
    assert found == pytest.approx(skew_s, abs=0.5)
    if found == 0:
        assert len(apiserver.requests) == 1


def test_a_server_that_tells_no_time_has_no_skew(apiserver: ApiServer, kube: Kube) -> None:
    apiserver.handle("GET", "/version", (200, {}, {"Date": "soon"}))
    assert clock.clock_skew_s(kube) is None


@pytest.mark.parametrize(("ahead_s", "told"), [(0, False), (-5, True), (5, True), (0.5, False)])
def test_a_kubelet_s_clock_is_judged_by_its_lease(
    apiserver: ApiServer, kube: Kube, ahead_s: float, told: bool
) -> None:
    cluster = Aks(apiserver, 2)
    cluster.lease(cluster.names[0], ahead_s)
    found = clock.node_skews_s(kube, cluster.names)
    assert found[cluster.names[1]] == 0
    assert found[cluster.names[0]] == pytest.approx(ahead_s, abs=1)
    assert (abs(found[cluster.names[0]]) > 1) == told
    assert clock.node_skews_s(kube, ["another"]) == {}


# --------------------------------------------------------------------------------------- speed


@pytest.mark.slow
def test_a_thousand_nodes_take_less_than_thirty_seconds(case: Case) -> None:
    for index in range(3, 1000):
        case.put(index)
    for each in case.api.all("/api/v1/nodes"):
        case.aks.lease(each["metadata"]["name"])
    case.job = replace(case.job, nodes=1000)
    begun_s = time.monotonic()
    found = case.look()
    took_s = time.monotonic() - begun_s
    assert of(found, "failed") == []
    assert took_s < 30
