"""Image caches of nodes: what is asked of a cluster, made of its answers, and left on it.

The nodes' part is a stand-in; the script itself meets real containerd in test_containerd.py.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import images
import pytest
from apiserver import ApiServer, Object
from conftest import MakeJob
from registries import Registry

from imgpull.cluster import image_cache, node_pods
from imgpull.cluster.image_cache import NodeCache
from imgpull.cluster.kube import ApiError, Kube
from imgpull.cluster.node_pods import NodePods
from imgpull.cluster.node_words import Words, after_purge, seen
from imgpull.cluster.ownership import Owner, ensure_system_namespace
from imgpull.cluster.registry import ImageInfo, inspect
from imgpull.config.job import Job
from imgpull.errors import EngineFailed, EngineUnavailable

NODES = ("n1", "n2", "n3")
OWNER = Owner("2026-11-24_10-00-00_ab12", "t" * 12, 2)
LAYERS = tuple(images.payload(name, 20_000 * size) for size, name in enumerate("abcde", 1))
IMAGE = images.image(LAYERS, command=["/app"])
SIZES = [len(layer.blob) for layer in LAYERS]
COLD = "images\nfreed 7000\nknown registry\nlayers 5\nsnapshots\nblobs\nwaited 1\npage-cache dropped\nend\n"  # noqa: E501
WARM = f"images {IMAGE.id}\nknown registry\nlayers 5\nsnapshots 1 2 3 4 5\nblobs 1 2 3 4 5\nend"
PODS = "/api/v1/namespaces/imgpull-system/pods"
DAEMON_SETS = "/apis/apps/v1/namespaces/imgpull-system/daemonsets"
HELPER = "reg.io/busybox:1"


def terminated(message: str, exit_code: int = 0) -> Object:
    state = {"terminated": {"exitCode": exit_code, "message": message}}
    return {"phase": "Pending", "initContainerStatuses": [{"name": "node", "state": state}]}


def waiting(reason: str, message: str = "", kind: str = "initContainerStatuses") -> Object:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", kind: [{"name": "x", "image": HELPER, "state": state}]}


def has_image(**state: Any) -> Object:
    return {"containerStatuses": [{"name": "image", "imageID": "sha256:x", "state": state}]}


@dataclass
class Nodes:
    """The nodes of a cluster, with their DaemonSet controller and kubelets.

    `says` is what the pod of a set's kind (purge, look, warm) comes to on a node: a pod's status,
    or None for no pod at all. `made` are the sets that there were.
    """

    api: ApiServer
    says: dict[str, Callable[[str], Object | None]] = field(default_factory=dict)
    made: list[Object] = field(default_factory=list)
    takes_s: float = 0.0

    def __post_init__(self) -> None:
        for name in NODES:
            labels = {"imgpull.dev/measured": "true"}
            self.api.put({"apiVersion": "v1", "kind": "Node",
                          "metadata": {"name": name, "labels": labels}})  # fmt: skip
        for kind in ("purge", "look"):
            self.says[kind] = lambda _: terminated(COLD)
        self.says["warm"] = lambda _: has_image(running={})
        self.api.on_create("DaemonSet", self._create)

    def _create(self, made: Object) -> None:
        self.made.append(made)
        meta, template = made["metadata"], made["spec"]["template"]
        for name in NODES:
            status = self.says[meta["name"].partition("-")[0]](name)
            if status is None:
                continue
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{meta['name']}-{name}",
                    "namespace": meta["namespace"],
                    "labels": template["metadata"]["labels"],
                    "ownerReferences": [
                        {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": meta["name"],
                         "uid": meta["uid"]}
                    ],
                },
                "spec": {**template["spec"], "nodeName": name},
            }  # fmt: skip
            if self.takes_s:
                self.api.put({**pod, "status": {"phase": "Pending"}})
                threading.Timer(self.takes_s, self._end, ({**pod, "status": status},)).start()
            else:
                self.api.put({**pod, "status": status})

    def _end(self, pod: Object) -> None:
        if self.api.get(f"{PODS}/{pod['metadata']['name']}"):
            self.api.put(pod)

    def refuse(self, message: str) -> None:
        """Have the controller's pods refused, as it tells in an event."""
        for kind in self.says:
            self.says[kind] = lambda _: None

        def tell(made: Object) -> None:
            name = made["metadata"]["name"]
            self.api.put({
                "apiVersion": "v1", "kind": "Event", "reason": "FailedCreate", "message": message,
                "metadata": {"name": f"{name}.1", "namespace": "imgpull-system"},
                "involvedObject": {"kind": "DaemonSet", "name": name},
            })  # fmt: skip

        self.api.on_create("DaemonSet", tell)

    def spec(self) -> Object:
        """The pods of the only set."""
        (made,) = self.made
        spec: Object = made["spec"]["template"]["spec"]
        return spec

    def script(self) -> dict[str, str]:
        """What the script of the only set is told."""
        return {each["name"]: each["value"] for each in self.spec()["initContainers"][0]["env"]}


@pytest.fixture
def nodes(apiserver: ApiServer) -> Iterator[Nodes]:
    """The cluster; whatever a test does, nothing of ours may be left on it."""
    found = Nodes(apiserver)
    yield found
    assert apiserver.all(DAEMON_SETS) == []
    assert apiserver.all(PODS) == []


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry() as server:
        server.put("app", "v1", IMAGE)
        yield server


@pytest.fixture
def a_job(registry: Registry, job: MakeJob) -> Job:
    return job(
        f"image.reference={registry.server}/app:v1", "image.layers=[]", "image.command=[/app]",
        f"cluster.helper_image={HELPER}", "cluster.tolerations=[{key: gpu, operator: Exists}]",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_logins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Docker's configuration is empty."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def silent(_: str) -> None:
    pass


def purge(kube: Kube, job: Job, limit_s: float = 5.0) -> dict[str, NodeCache]:
    return image_cache.purge(kube, job, NODES, OWNER, limit_s=limit_s, say=silent)


# ----------------------------------------------------------------------- what is done on nodes


def test_a_purge_tells_what_each_node_still_holds(nodes: Nodes, kube: Kube, a_job: Job) -> None:
    shared = COLD.replace("snapshots", "sharer reg.io/other:1\nsnapshots 1 2")
    nodes.says["purge"] = lambda name: terminated(shared if name == "n2" else COLD)
    said: list[str] = []
    found = image_cache.purge(kube, a_job, NODES, OWNER, limit_s=5, say=said.append)
    cold = {"freed_bytes": 7000, "page_cache_dropped": True}
    assert found == {
        "n1": NodeCache("n1", "cold", 0, 0, **cold),
        "n2": NodeCache(
            "n2", "partial", 2, sum(SIZES[:2]), **cold,
            note="2 of 5 layers stay, held by reg.io/other:1",
        ),
        "n3": NodeCache("n3", "cold", 0, 0, **cold),
    }  # fmt: skip
    assert said[-1] == "removing the image: 3 of 3 nodes done"


def test_the_script_is_told_every_name_and_layer_of_the_image(
    nodes: Nodes, kube: Kube, a_job: Job, registry: Registry
) -> None:
    purge(kube, a_job)
    script = nodes.script()
    assert script["ACTION"] == "purge"
    assert script["IMAGES"].split() == [f"{registry.server}/app:v1", IMAGE.id]
    assert script["LAYERS"] == IMAGE.table()
    assert script["SCRIPT"] == image_cache.SCRIPT.read_text()


def test_a_pinned_image_is_looked_for_under_its_tag_too(
    nodes: Nodes, kube: Kube, registry: Registry, job: MakeJob
) -> None:
    reference = f"{registry.server}/app:v1"
    pinned = job(
        f"image.reference={reference}", f"image.digest='{IMAGE.digest}'", "image.layers=[]"
    )
    purge(kube, pinned)
    assert nodes.script()["IMAGES"].split() == [f"{reference}@{IMAGE.digest}", reference, IMAGE.id]


def test_only_measured_nodes_get_privileged_pods_that_are_ours_and_are_bearable(
    nodes: Nodes, kube: Kube, a_job: Job
) -> None:
    purge(kube, a_job)
    spec = nodes.spec()
    assert spec["nodeSelector"] == {"imgpull.dev/measured": "true"}
    assert spec["tolerations"] == [
        {"key": "gpu", "operator": "Exists", "value": "", "effect": "NoSchedule"}
    ]
    (script,) = spec["initContainers"]
    assert script["image"] == HELPER
    assert script["securityContext"] == {"privileged": True, "runAsUser": 0}
    assert "securityContext" not in spec["containers"][0]  # what stays has no rights
    assert spec["volumes"][0]["hostPath"] == {"path": "/", "type": "Directory"}
    for labels in (nodes.made[0]["metadata"]["labels"],
                   nodes.made[0]["spec"]["template"]["metadata"]["labels"]):  # fmt: skip
        assert OWNER.labels().items() <= labels.items()


def test_a_registry_that_only_nodes_reach_leaves_the_table_to_them(
    nodes: Nodes, kube: Kube, job: MakeJob
) -> None:
    hidden = job("image.reference=127.0.0.1:1/app:v1", "image.layers=[]")
    told = COLD.replace("known registry", "known node").replace("snapshots", "snapshots 1")
    nodes.says["purge"] = lambda _: terminated(told)
    found = purge(kube, hidden)
    assert nodes.script()["LAYERS"] == ""
    assert (found["n1"].state, found["n1"].kept_layers, found["n1"].kept_bytes) == (
        "partial", 1, None,
    )  # fmt: skip


def test_pods_that_take_their_time_are_waited_for(nodes: Nodes, kube: Kube, a_job: Job) -> None:
    nodes.takes_s = 0.7
    assert {each.state for each in purge(kube, a_job).values()} == {"cold"}


def test_a_set_left_by_a_killed_run_is_replaced(
    nodes: Nodes, apiserver: ApiServer, kube: Kube, a_job: Job
) -> None:
    name = f"purge-{OWNER.prefix()}"
    nodes.says["purge"] = lambda _: terminated("stale")
    old = {"metadata": {"name": name, "namespace": "imgpull-system", "labels": OWNER.labels()},
           "spec": {"template": {"metadata": {"labels": {node_pods.NAME_LABEL: name}},
                                 "spec": {}}}}  # fmt: skip
    ensure_system_namespace(kube)
    apiserver.put({"apiVersion": "apps/v1", "kind": "DaemonSet", **old})
    while len(apiserver.all(PODS)) < len(NODES):
        pass
    nodes.says["purge"] = lambda _: terminated(COLD)
    assert purge(kube, a_job)["n1"].state == "cold"


def test_looking_changes_nothing_and_says_what_is_there(
    nodes: Nodes, kube: Kube, a_job: Job
) -> None:
    told = {
        "n1": WARM,
        "n2": "images\nknown registry\nlayers 5\nsnapshots\nblobs\nend",
        "n3": "images\nknown registry\nlayers 5\nsnapshots 1\nblobs 1 3\nend",
    }
    nodes.says["look"] = lambda name: terminated(told[name])
    found = image_cache.look(kube, a_job, NODES, OWNER, limit_s=5, say=silent)
    assert {name: (x.state, x.kept_bytes) for name, x in found.items()} == {
        "n1": ("warm", sum(SIZES)), "n2": ("cold", 0), "n3": ("partial", SIZES[0] + SIZES[2]),
    }  # fmt: skip
    assert {(x.freed_bytes, x.page_cache_dropped) for x in found.values()} == {(None, None)}
    assert nodes.script()["ACTION"] == "look"


@pytest.mark.parametrize(
    "status",
    [
        has_image(running={}),
        has_image(terminated={"exitCode": 1}),
        # Its command is not there: for that the image had to be.
        waiting("RunContainerError", "exec: /app: not found", "containerStatuses"),
        waiting("CrashLoopBackOff", "", "containerStatuses"),
    ],
)
def test_warming_has_kubelets_pull_and_then_looks(
    nodes: Nodes, kube: Kube, a_job: Job, status: Object
) -> None:
    nodes.says["warm"] = lambda _: status
    nodes.says["look"] = lambda _: terminated(WARM)
    found = image_cache.warm(kube, a_job, NODES, OWNER, limit_s=5, say=silent)
    assert {each.state for each in found.values()} == {"warm"}
    warm, look = nodes.made
    (container,) = warm["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["command"]) == (
        a_job.image.pinned_reference, ["/app"],
    )  # fmt: skip
    assert look["metadata"]["name"].startswith("look-")


def test_warming_brings_the_pull_secret_and_takes_it_away(
    nodes: Nodes, apiserver: ApiServer, kube: Kube, job: MakeJob, registry: Registry
) -> None:
    apiserver.put({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "login", "namespace": "default"},
        "data": {".dockerconfigjson": "e30="},
    })  # fmt: skip
    there = "/api/v1/namespaces/imgpull-system/secrets/login"
    seen_then: list[Any] = []
    nodes.says["warm"] = lambda _: seen_then.append(apiserver.get(there)) or has_image(running={})
    nodes.says["look"] = lambda _: terminated(WARM)
    a_job = job(
        f"image.reference={registry.server}/app:v1", "image.layers=[]", "image.pull_secret=login"
    )
    image_cache.warm(kube, a_job, NODES, OWNER, limit_s=5, say=silent)
    assert nodes.made[0]["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "login"}]
    assert seen_then[0]["type"] == "kubernetes.io/dockerconfigjson"
    assert apiserver.get(there) is None


# ----------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    "message",
    [
        'Error creating: pods "purge-x" is forbidden: violates PodSecurity "baseline:latest": '
        "privileged (container must not set securityContext.privileged=true)",
        'Error creating: admission webhook "validation.gatekeeper.sh" denied the request: '
        "Privileged container is not allowed: node",
    ],
)
def test_an_admission_that_refuses_the_pods_is_told_at_once(
    nodes: Nodes, kube: Kube, a_job: Job, message: str
) -> None:
    nodes.refuse(message)
    with pytest.raises(EngineUnavailable, match="refuses pods of ours") as raised:
        purge(kube, a_job, limit_s=60)
    assert message in raised.value.message
    assert "cache=salted" in raised.value.hint
    assert "as_is" not in raised.value.hint  # which looks with the same pods


def test_an_admission_that_refuses_the_set_is_told(
    nodes: Nodes, apiserver: ApiServer, kube: Kube, a_job: Job
) -> None:
    denied = 'admission webhook "validation.gatekeeper.sh" denied the request: privileged'
    apiserver.script("POST", DAEMON_SETS, (403, {"message": denied, "reason": "Forbidden"}))
    with pytest.raises(EngineUnavailable, match=r"refuses pods of ours .* denied the request"):
        purge(kube, a_job)


def test_a_missing_permission_is_no_refused_privilege(
    nodes: Nodes, apiserver: ApiServer, kube: Kube, a_job: Job
) -> None:
    apiserver.deny("create", "daemonsets")
    with pytest.raises(ApiError, match="cannot create") as raised:
        purge(kube, a_job)
    assert "permissions" in raised.value.hint


@pytest.mark.parametrize(
    "message",
    [
        f'failed to pull and unpack image "{HELPER}": {HELPER}: not found',
        "failed to authorize: 401 Unauthorized",
        "x509: certificate signed by unknown authority",
    ],
)
def test_a_helper_image_that_cannot_be_pulled_is_told_at_once(
    nodes: Nodes, kube: Kube, a_job: Job, message: str
) -> None:
    nodes.says["purge"] = lambda _: waiting("ErrImagePull", message)
    with pytest.raises(EngineUnavailable, match=f"cluster.helper_image {HELPER} cannot") as raised:
        purge(kube, a_job, limit_s=60)
    assert message in raised.value.message
    assert "mirror it" in raised.value.hint


@pytest.mark.parametrize("how", ["not Ready", "gone"])
def test_a_node_that_is_lost_meanwhile_is_told_long_before_the_limit(
    nodes: Nodes,
    apiserver: ApiServer,
    kube: Kube,
    a_job: Job,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_pods, "_LOOK_S", 0.1)
    nodes.says["purge"] = lambda name: (
        waiting("PodInitializing") if name == "n2" else terminated(COLD)
    )
    for name in NODES:
        ready = "False" if (name, how) == ("n2", "not Ready") else "True"
        if (name, how) != ("n2", "gone"):
            status = {"conditions": [{"type": "Ready", "status": ready}]}
            meta = {"name": name}
            node = {"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": status}
            apiserver.put(node)
        else:
            apiserver.remove("/api/v1/nodes/n2")
    with pytest.raises(EngineFailed, match="node n2 is gone or not Ready"):
        purge(kube, a_job, limit_s=60)


def test_a_pull_that_may_yet_work_is_waited_for_and_named_at_the_limit(
    nodes: Nodes, kube: Kube, a_job: Job
) -> None:
    busy = "429 Too Many Requests"
    nodes.says["purge"] = lambda name: (
        waiting("ErrImagePull", busy) if name == "n2" else terminated(COLD)
    )
    with pytest.raises(EngineFailed, match=f"1 of 3 nodes .* n2: ErrImagePull {busy}"):
        purge(kube, a_job, limit_s=0.4)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (None, "no pod was made for it"),
        ({"phase": "Pending"}, "its pod is Pending"),
        (
            {"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: taint"}]},
            "0/3 nodes: taint",
        ),
        (waiting("PodInitializing"), "its pod is Pending"),
    ],
)  # fmt: skip
def test_a_node_that_does_not_answer_is_named_with_what_its_pod_waits_for(
    nodes: Nodes, kube: Kube, a_job: Job, status: Object | None, why: str
) -> None:
    nodes.says["purge"] = lambda name: status if name == "n3" else terminated(COLD)
    with pytest.raises(EngineFailed, match=f"1 of 3 nodes did not answer in .*: n3: {why}"):
        purge(kube, a_job, limit_s=0.4)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("error no-crictl\nend", "node n1 has no crictl"),
        ("error not-containerd \nend", "node n1 runs no containerd"),
        ("error runtime connection refused\nend", "cannot ask the runtime: connection refused"),
    ],
)
def test_a_node_that_lacks_what_it_takes_is_told(
    nodes: Nodes, kube: Kube, a_job: Job, words: str, told: str
) -> None:
    nodes.says["purge"] = lambda _: terminated(words)
    with pytest.raises(EngineUnavailable, match=told) as raised:
        purge(kube, a_job)
    assert "cache=salted" in raised.value.hint
    assert "as_is" not in raised.value.hint  # which looks with the same pods


def test_a_helper_image_without_a_shell_is_told(nodes: Nodes, kube: Kube, a_job: Job) -> None:
    nodes.says["purge"] = lambda _: terminated('exec: "sh": executable file not found', 128)
    with pytest.raises(EngineUnavailable, match='ended with 128: exec: "sh"') as raised:
        purge(kube, a_job)
    assert "needs sh and chroot" in raised.value.hint


def test_a_script_that_was_killed_says_nothing_of_its_image(
    nodes: Nodes, kube: Kube, a_job: Job
) -> None:
    nodes.says["purge"] = lambda _: terminated("images", 137)
    with pytest.raises(EngineFailed, match=r"node n1: the script was killed \(137\)"):
        purge(kube, a_job)


@pytest.mark.parametrize("cut", [10, 60, len(COLD) - 2])
def test_an_answer_that_did_not_come_whole_is_not_believed(
    nodes: Nodes, kube: Kube, a_job: Job, cut: int
) -> None:
    nodes.says["purge"] = lambda _: terminated(COLD[:cut])
    with pytest.raises(EngineFailed, match="node n1 answered in part"):
        purge(kube, a_job)


def test_a_container_that_still_uses_the_image_stops_it_by_name(
    nodes: Nodes, kube: Kube, a_job: Job
) -> None:
    used = f"images {IMAGE.id}\nfreed 0\nuser team/web-1/app\nuser team/web-2/app\nknown registry\nlayers 5\nsnapshots 1 2 3 4 5\nblobs 1\nwaited 150\npage-cache dropped\nend"  # noqa: E501
    nodes.says["purge"] = lambda name: terminated(used if name == "n2" else COLD)
    with pytest.raises(EngineFailed) as raised:
        purge(kube, a_job)
    assert raised.value.message == (
        "node n2: container app of pod team/web-1 (and 1 more) still uses the image after 150 s; "
        "exited or not, it keeps the next pull warm"
    )
    assert "kubectl -n team delete pod web-1" in raised.value.hint


def test_an_image_that_crictl_did_not_remove_is_told(nodes: Nodes, kube: Kube, a_job: Job) -> None:
    refused = COLD.replace("freed", "refused rpc error: DeadlineExceeded\nfreed")
    nodes.says["purge"] = lambda _: terminated(refused)
    with pytest.raises(EngineFailed, match="did not remove the image: rpc error: DeadlineEx"):
        purge(kube, a_job)


def test_ctrl_c_leaves_nothing_on_the_cluster(nodes: Nodes, kube: Kube, a_job: Job) -> None:
    """The fixture looks."""
    nodes.says["purge"] = lambda _: {"phase": "Pending"}

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image_cache.purge(kube, a_job, NODES, OWNER, limit_s=60, say=interrupt)
    assert len(nodes.made) == 1


def test_pods_that_do_not_go_are_told(apiserver: ApiServer, kube: Kube) -> None:
    meta = {"name": "stuck", "namespace": "imgpull-system", "labels": {node_pods.NAME_LABEL: "x"}}
    apiserver.put({"apiVersion": "v1", "kind": "Pod", "metadata": {**meta, "finalizers": ["a/b"]}})
    with pytest.raises(EngineFailed, match=r"x is still there .* with 1 pods: stuck") as raised:
        NodePods(kube, "x").remove(0.5)
    assert "delete daemonset x" in raised.value.hint


# ----------------------------------------------------------------------- what words amount to


@pytest.fixture(scope="module")
def known(registry: Registry) -> ImageInfo:
    return inspect(f"{registry.server}/app:v1", credentials=lambda _: None)


@pytest.mark.parametrize(
    ("lines", "state", "kept"),
    [
        ("layers 5\nsnapshots\nblobs", "cold", 0),
        ("layers 5\nsnapshots 1\nblobs 1", "partial", 1),
        ("layers 5\nsnapshots\nblobs 4", "partial", 1),
        ("layers 5\nsnapshots 1 2\nblobs 2 5", "partial", 3),
        ("layers 5\nsnapshots 1 2 3 4 5\nblobs", "warm", 5),
        ("layers 5\nsnapshots\nblobs 1 2 3 4 5", "partial", 5),  # all to unpack again
        ("layers 5\nsnapshots\nblobs\npartly 1", "partial", 0),
        ("layers 5\nsnapshots\nblobs\nunder_way 1", "partial", 0),
        ("layers 0\nsnapshots\nblobs", "unknown", None),
        ("layers 5\nsnapshots\nblobs\nno-ctr", "unknown", None),
    ],
)
def test_what_the_next_pull_finds_of_an_image_that_is_not_listed(
    known: ImageInfo, lines: str, state: str, kept: int | None
) -> None:
    words = Words.of("n", f"images\nknown registry\n{lines}\nend")
    found = seen("n", words, known)
    assert (found.state, found.kept_layers) == (state, kept)
    assert (state == "cold") is not bool(found.note)  # all else is explained
    assert after_purge("n", words, known).state == state


@pytest.mark.parametrize(
    ("freed", "state"), [(sum(SIZES), "cold"), (sum(SIZES) // 2, "unknown"), (0, "unknown")]
)
def test_without_ctr_only_what_the_disk_gave_back_makes_it_cold(
    known: ImageInfo, freed: int, state: str
) -> None:
    told = f"images {IMAGE.id}\nfreed {freed}\nlayers 5\nsnapshots\nblobs\nno-ctr\nend"
    assert after_purge("n", Words.of("n", told), known).state == state


def test_a_page_cache_that_stays_is_told(known: ImageInfo) -> None:
    told = COLD.replace("page-cache dropped", "page-cache sh: cannot create: Read-only file system")
    found = after_purge("n", Words.of("n", told), known)
    assert (found.state, found.page_cache_dropped) == ("cold", False)
    assert found.note.endswith("not dropped: sh: cannot create: Read-only file system")
