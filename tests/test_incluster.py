"""Laws of ClusterLoader2 as a Job: followed without gaps, its report whole, nothing of it stays."""

import hashlib
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from apiserver import ApiServer
from hypothesis import given
from hypothesis import strategies as st
from jobpods import IMAGE_ID, PODS, JobPods
from standins import REPORTS, ClusterLoader, clusterloader

from imgpull.cluster import permissions
from imgpull.cluster.kube import ApiError, Kube
from imgpull.cluster.ownership import IMGPULL, MANAGED_BY, SYSTEM_NAMESPACE, TRIAL_COLLECTIONS
from imgpull.config import schema
from imgpull.engines import incluster, jobpod, jobspec
from imgpull.engines.incluster import JobRunner
from imgpull.engines.podlog import LogReader
from imgpull.engines.running import Request, Stack, silent
from imgpull.errors import ConfigError, EngineFailed, EngineUnavailable, RenderError

IMAGE = "registry.example/clusterloader:1"
RECORDED = REPORTS / "own-2026-two-nodes"
LABELS = {"imgpull.dev/sweep": "s1", "imgpull.dev/trial": "c1-t1-a1"}
CLUSTER = schema.Cluster(
    helper_image="registry.example/helper:1", prometheus_node_selector={"prometheus": "true"}
)


class Ground:
    """A cluster of two stand-ins: its API, and who runs the pods of Jobs there."""

    def __init__(self, api: ApiServer, kube: Kube, directory: Path) -> None:
        self.api, self.kube, self.directory = api, kube, directory / "job"
        self.cl2: ClusterLoader = clusterloader(directory / "cl2")
        self.jobs = JobPods(api, directory / "pods", self.cl2.path)
        for name in ("bundle", "report"):
            (self.directory / name).mkdir(parents=True)
        for name in ("image-pull.yaml", "deployment.yaml", "overrides.yaml"):
            (self.directory / "bundle" / name).write_text(f"name: {name}\n", encoding="utf-8")

    @property
    def log(self) -> str:
        return (self.directory / "run.log").read_text("utf-8")

    @property
    def reported(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.directory / "report").iterdir()}

    def runner(self, image: str = IMAGE, digest: str | None = None) -> JobRunner:
        return JobRunner(self.kube, image, digest, CLUSTER)

    def request(self, **changes: Any) -> Request:
        values: dict[str, Any] = {
            "bundle": self.directory / "bundle", "report": self.directory / "report",
            "log": self.directory / "run.log", "kubeconfig": None, "provider": "aks",
            "nodes": 2, "namespace_prefix": "ip0123456789", "limit_s": 20.0, "redact": str,
            "stack": Stack(10257, 1, None, {"containerd.yaml": "kind: ServiceMonitor\n"}),
            "labels": LABELS,
        }  # fmt: skip
        return Request(**{**values, **changes})

    def left(self) -> list[str]:
        """What stays of ours, given a moment to go, but for the namespace that Jobs share."""
        end_s = time.monotonic() + 3
        while (left := self._there()) and time.monotonic() < end_s:
            time.sleep(0.05)
        return left

    def _there(self) -> list[str]:
        there = [each for collection in TRIAL_COLLECTIONS for each in self.api.all(collection)]
        return [
            f"{each['kind']} {each['metadata']['name']}"
            for each in there
            if (each["metadata"].get("labels") or {}).get(MANAGED_BY) == IMGPULL
            and each["metadata"]["name"] != SYSTEM_NAMESPACE
        ]


@pytest.fixture
def ground(apiserver: ApiServer, kube: Kube, tmp_path: Path) -> Iterator[Ground]:
    incluster._PROBED.clear()  # a port of an earlier test's server is another server now
    made = Ground(apiserver, kube, tmp_path)
    with made.jobs:
        yield made
    assert apiserver.errors == []


# ------------------------------------------------------------------------------ what comes back


@pytest.mark.parametrize("code", [0, 1])
def test_the_report_comes_back_whole_whatever_the_exit_code(ground: Ground, code: int) -> None:
    ground.cl2.behave(act="replay", report=str(RECORDED), code=code)
    told: list[str] = []
    ended = ground.runner().run(ground.request(), told.append)
    assert (ended.exit_code, ended.timed_out) == (code, False)
    expected = {path.name: path.read_bytes() for path in RECORDED.iterdir()}
    log = expected.pop("run.log").decode()
    assert ground.reported == expected
    assert all(path.stat().st_uid == os.getuid() for path in ground.directory.rglob("*"))
    assert "step 2: create" in told
    assert set(log.splitlines()) <= set(ground.log.splitlines())
    assert ground.left() == []


def test_a_crash_tells_its_reason_and_leaves_what_was_reported(ground: Ground) -> None:
    ground.cl2.behave(act="crash")
    ended = ground.runner().run(ground.request(), silent)
    assert ended.exit_code == 2
    assert ended.said.startswith("panic: runtime error")
    assert ground.left() == []


def test_cl2_sees_its_bundle_and_uses_the_pods_own_account(ground: Ground) -> None:
    (ground.directory / "bundle" / "binary.dat").write_bytes(b"\xff\x00\xfe")
    seen: dict[str, bytes] = {}

    def look(pod: str) -> None:
        def later() -> None:
            root = ground.jobs.root(pod.rpartition("/")[2]) / "config"
            seen.update({str(path.relative_to(root)): path.read_bytes()
                         for path in root.rglob("*") if path.is_file()})  # fmt: skip

        threading.Timer(0.3, later).start()

    ground.jobs.before_start = look
    ground.cl2.behave(act="hang")
    ground.runner().run(ground.request(limit_s=1.5), silent)
    assert {name: data for name, data in seen.items() if name.startswith("bundle/")} == {
        "bundle/binary.dat": b"\xff\x00\xfe",
        **{f"bundle/{name}.yaml": f"name: {name}.yaml\n".encode()
           for name in ("image-pull", "deployment", "overrides")},
    }  # fmt: skip
    assert {"extra/dialect.yaml", "extra/monitors/containerd.yaml"} <= set(seen)
    (start,) = ground.cl2.starts
    assert "--run-from-cluster=true" in start["argv"]


@pytest.mark.slow
def test_a_large_report_comes_in_slices(ground: Ground, tmp_path: Path) -> None:
    report = tmp_path / "large"
    report.mkdir()
    noise = random.Random(1).randbytes(2 * jobspec.SLICE_BYTES + 1000)
    (report / "prometheus_snapshot.tar.gz").write_bytes(noise)
    ground.cl2.behave(act="replay", report=str(report))
    ground.runner().run(ground.request(), silent)
    assert ground.reported == {"prometheus_snapshot.tar.gz": noise}


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda log: re.sub(rb"\n\S", b"\nA", log, count=2),
        lambda log: log[-200:],  # its beginning went with a rotated file
        lambda log: log.replace(b"=\nend", b"\nend").replace(b"\nend", b"*\nend"),
    ],
)
def test_a_slice_that_was_damaged_is_asked_for_again(ground: Ground, damage: Any) -> None:
    damaged: list[bytes] = []

    def mangle(log: bytes) -> bytes:
        if b"end 0-1" in log and b"begin 0-2" not in log and log.count(b"\n") > 3:
            damaged.append(log)
            last = log.splitlines(keepends=True)[-1]
            return damage(log) if len(damaged) > 1 else last
        return log

    ground.jobs.mangle = mangle
    ground.cl2.behave(act="replay", report=str(RECORDED))
    ground.runner().run(ground.request(), silent)
    assert len(damaged) > 1
    assert len(ground.reported) == len(list(RECORDED.iterdir())) - 1


# ---------------------------------------------------------------------------------- the log


@pytest.mark.parametrize(
    "zone_s", [19800, *(pytest.param(zone_s, marks=pytest.mark.slow) for zone_s in (0, -36000))]
)
def test_a_log_whose_connection_breaks_has_no_gap_and_no_double(
    ground: Ground, zone_s: int
) -> None:
    ground.cl2.behave(act="replay", report=str(RECORDED))
    ground.jobs.zone_s = zone_s
    breaks = iter([True, False, False, True] + [False] * 10 + [True] * 3 + [False] * 10**6)
    ground.jobs.cut = lambda line: next(breaks)
    ground.runner().run(ground.request(), silent)
    lines = [line for line in ground.log.splitlines() if not line.startswith("imgpull: ")]
    recorded = (RECORDED / "run.log").read_text("utf-8").splitlines()
    assert lines[-len(recorded) :] == recorded


LOG = f"{PODS}/p/log"


class Breaking:
    """An API client whose log streams break after so many lines, then no more."""

    def __init__(self, written: list[bytes], ends: list[int]) -> None:
        self.written, self.ends = written, ends

    @contextmanager
    def stream(self, path: str, **query: Any) -> Iterator[Iterator[bytes]]:
        yield self._lines(query["sinceTime"][:19], self.ends.pop(0) if self.ends else None)

    def _lines(self, since: str, end: int | None) -> Iterator[bytes]:
        yield from (line for line in self.written[:end] if line.decode()[:19] >= since)
        if end is not None:
            raise ApiError(0, "Broken", "the stream broke")


@given(
    stamps=st.lists(st.integers(0, 4), min_size=1, max_size=30).map(sorted),
    cuts=st.lists(st.integers(0, 30), max_size=6),
)
def test_each_line_of_a_log_is_read_once_however_often_it_breaks(
    stamps: list[int], cuts: list[int]
) -> None:
    # Times repeat: several lines of one instant, and the API tells whole seconds alone.
    times = [f"2026-11-24T21:00:{n // 2:02}.{n % 2 * 5}Z" for n in stamps]
    written = [f"{at} line {i}".encode() for i, at in enumerate(times)]
    breaking = cast(Kube, Breaking(written, sorted(min(cut, len(written)) for cut in cuts)))
    reader = LogReader(breaking, f"{PODS}/p", "clusterloader")
    found = [line for _ in range(len(cuts) + 1) for line in reader.follow(5.0)]
    found += list(reader.rest(5.0))
    assert found == [f"line {i}".encode() for i in range(len(written))]


def test_a_log_that_nobody_serves_is_known_for_how_long(apiserver: ApiServer, kube: Kube) -> None:
    reader = LogReader(kube, f"{PODS}/p", "clusterloader")
    apiserver.handle("GET", LOG, (400, {"message": "container is waiting to start"}))
    assert list(reader.follow(1.0)) == []
    time.sleep(0.05)
    assert list(reader.follow(1.0)) == []
    assert reader.failed_s >= 0.05
    apiserver.handle("GET", LOG, (200, b"2026-11-24T21:00:00.1Z now\n"))
    assert list(reader.follow(1.0)) == [b"now"]
    assert reader.failed_s == 0.0


# ------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize("ignores_term", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_job_that_hangs_is_removed_at_its_limit(ground: Ground, ignores_term: bool) -> None:
    ground.runner().probe()
    ground.cl2.behave(act="hang", ignores_term=ignores_term)
    ended = ground.runner().run(ground.request(limit_s=1.0), silent)
    assert ended.timed_out
    assert ended.exit_code is None
    assert 1.0 <= ended.wall_s < 2.0
    assert ended.step == "Hang"
    assert ground.left() == []


def test_the_cluster_ends_the_job_when_nobody_is_left_to_do_it(ground: Ground) -> None:
    ground.runner().run(ground.request(limit_s=20.0), silent)
    spec = ground.jobs.made[-1]["spec"]
    assert 20 <= spec["activeDeadlineSeconds"] <= 20 + 300
    assert spec["backoffLimit"] == 0
    assert spec["ttlSecondsAfterFinished"] > 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_leaving_by_an_error_leaves_nothing_in_the_cluster(
    ground: Ground, error: type[BaseException]
) -> None:
    ground.cl2.behave(act="hang")

    def interrupt(step: str) -> None:
        if "Hang" in step:
            raise error(step)

    with pytest.raises(error):
        ground.runner().run(ground.request(), interrupt)
    assert ground.left() == []


# -------------------------------------------------------------------------------- what it makes


def test_everything_it_makes_carries_its_owner(ground: Ground) -> None:
    ground.cl2.behave(act="nothing")
    ground.runner().run(ground.request(), silent)
    made = [each.body for each in ground.api.requests
            if each.method == "POST" and each.body.get("kind") != "Namespace"]  # fmt: skip
    of_the_run = [each for each in made if LABELS.items() <= each["metadata"]["labels"].items()]
    assert {each["kind"] for each in of_the_run} == {
        "Job", "ConfigMap", "ServiceAccount", "ClusterRole", "ClusterRoleBinding",
    }  # fmt: skip
    for each in made:
        assert each["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "imgpull"


def test_its_rights_are_those_listed_and_last_as_long_as_the_job(ground: Ground) -> None:
    ground.runner().run(ground.request(), silent)
    (role,) = [each.body for each in ground.api.requests
               if each.method == "POST" and each.body.get("kind") == "ClusterRole"]  # fmt: skip
    given = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule.get("apiGroups", [""])
        for resource in rule.get("resources") or rule["nonResourceURLs"]
        for verb in rule["verbs"]
    }
    assert given == {
        (each.group, each.resource, verb)
        for each in permissions.PERMISSIONS
        for verb in each.verbs
        if each.who == "clusterloader"
    }
    # JobPods itself asserts that they are there when the Job is made.
    assert ground.api.all("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings") == []


def test_who_only_tells_what_it_is_has_no_rights(ground: Ground) -> None:
    ground.runner().probe()
    (job,) = ground.jobs.made
    spec = job["spec"]["template"]["spec"]
    assert "serviceAccountName" not in spec
    assert spec["automountServiceAccountToken"] is False


def test_it_runs_where_prometheus_does(ground: Ground) -> None:
    ground.runner().run(ground.request(), silent)
    spec = ground.jobs.made[-1]["spec"]["template"]["spec"]
    assert spec["nodeSelector"]["prometheus"] == "true"
    assert {"key": "monitoring", "operator": "Exists", "effect": "NoSchedule"} in spec[
        "tolerations"
    ]
    cl2 = next(each for each in spec["containers"] if each["name"] == "clusterloader")
    assert "command" not in cl2, "the image's own entrypoint is CL2"


def test_a_digest_pins_the_image(ground: Ground) -> None:
    digest = "sha256:" + "d" * 64
    ground.runner(IMAGE, digest).probe()
    (job,) = ground.jobs.made
    containers = job["spec"]["template"]["spec"]["containers"]
    assert containers[0]["image"] == f"registry.example/clusterloader@{digest}"


def test_the_dialect_and_digest_are_asked_once_for_all_trials(ground: Ground) -> None:
    ground.cl2.behave(dialect="azure")
    found = ground.runner().probe()
    assert found.name == "azure"
    assert found.digest == IMAGE_ID.partition("@")[2]
    assert ground.runner().probe() is found
    assert len(ground.jobs.made) == 1
    assert ground.left() == []


def test_a_bundle_beyond_a_config_map_is_refused_before_anything_is_made(ground: Ground) -> None:
    ground.runner().probe()
    (ground.directory / "bundle" / "huge.yaml").write_text("#" * 2**20, encoding="utf-8")
    before = len(ground.api.requests)
    with pytest.raises(ConfigError, match=r"does not fit into a ConfigMap.*bundle/huge\.yaml"):
        ground.runner().run(ground.request(), silent)
    assert not [each for each in ground.api.requests[before:] if each.method == "POST"]


# ------------------------------------------------------------------------------------- refusals


def test_who_may_not_give_rights_is_told_so_and_nothing_stays(ground: Ground) -> None:
    ground.runner().probe()
    ground.api.deny("create", "clusterroles")
    with pytest.raises(EngineUnavailable, match="clusterroles is forbidden") as caught:
        ground.runner().run(ground.request(), silent)
    assert "engine=docker" in caught.value.hint
    assert ground.left() == []


def test_a_dry_run_refuses_a_test_in_cl2s_words(ground: Ground) -> None:
    ground.runner().dry_run(ground.request())
    ground.cl2.behave(refuses="steps[2]: Forbidden: x")
    with pytest.raises(RenderError, match=r"does not take the test: \[steps\[2\]: Forbidden: x\]"):
        ground.runner().dry_run(ground.request())
    assert ground.reported == {}
    assert ground.left() == []


def test_another_program_is_no_cl2_in_the_cluster_either(ground: Ground) -> None:
    ground.cl2.behave(act="other_program")
    with pytest.raises(EngineUnavailable, match="is no ClusterLoader2"):
        ground.runner().probe()
    assert ground.left() == []


def test_without_a_cluster_it_checks_and_no_more() -> None:
    runner = JobRunner(None, IMAGE, None, CLUSTER)
    runner.check()
    with pytest.raises(EngineUnavailable, match="runs on a cluster that is held"):
        runner.probe()


def _status(ground: Ground, pod: str, status: Mapping[str, Any]) -> bool:
    found = ground.api.get(pod)
    assert found is not None
    ground.api.put({**found, "status": status})
    return True


def _waiting(reason: str, message: str, name: str = "clusterloader") -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"name": name, "state": state}]}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            _waiting("ErrImagePull", f"failed to resolve reference {IMAGE}: {IMAGE}: not found"),
            "engine.image=registry.example/clusterloader:1 cannot be pulled: .*not found",
        ),
        (
            _waiting("InvalidImageName", "bad", name="report"),
            "cluster.helper_image=registry.example/helper:1 cannot be pulled",
        ),
        (
            {"phase": "Failed", "reason": "OutOfmemory", "message": "no memory on the node"},
            "the pod of CL2 cannot run: no memory on the node",
        ),
    ],
)  # fmt: skip
def test_a_pod_that_will_never_run_is_told_at_once(
    ground: Ground, status: Mapping[str, Any], message: str
) -> None:
    ground.runner().probe()
    ground.jobs.before_start = lambda pod: _status(ground, pod, status)
    with pytest.raises(EngineUnavailable, match=message):
        ground.runner().run(ground.request(), silent)
    assert ground.left() == []


def test_why_a_pod_waits_is_told(ground: Ground) -> None:
    ground.runner().probe()
    unplaced = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}
    ground.jobs.before_start = lambda pod: _status(
        ground, pod, {"phase": "Pending", "conditions": [unplaced]}
    )
    told: list[str] = []
    ended = ground.runner().run(ground.request(limit_s=1.0), told.append)
    assert ended.timed_out
    assert "the Job's pod waits: 0/2 nodes are available" in told
    assert len(told) == len(set(told))


def test_a_pod_that_is_taken_away_fails_the_trial(ground: Ground) -> None:
    ground.runner().probe()
    ground.cl2.behave(act="hang")

    def drain(step: str) -> None:
        if "Hang" in step:
            (pod,) = ground.jobs.pods.keys() - before
            ground.api.remove(f"{PODS}/{pod}")
            ground.api.break_watches()
            ground.jobs.pods[pod]["clusterloader"].kill()

    before = set(ground.jobs.pods)
    with pytest.raises(EngineFailed, match="was deleted while it ran"):
        ground.runner().run(ground.request(), drain)
    assert ground.left() == []


def test_a_pod_that_is_evicted_fails_the_trial_with_the_nodes_words(ground: Ground) -> None:
    ground.runner().probe()
    ground.cl2.behave(act="hang")

    def evict(step: str) -> None:
        if "Hang" in step:
            (pod,) = ground.jobs.pods.keys() - before
            told = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"}
            _status(ground, f"{PODS}/{pod}", told)
            ground.jobs.pods[pod]["clusterloader"].process.kill()

    before = set(ground.jobs.pods)
    with pytest.raises(EngineFailed, match=r"failed: Evicted The node was low on memory"):
        ground.runner().run(ground.request(), evict)
    assert ground.left() == []


# ----------------------------------------------------------------------------------- slices


def test_a_slice_is_read_only_when_it_is_whole() -> None:
    data = b"x" * 100
    digest = hashlib.sha256(data).hexdigest()
    log = f"begin 0-1\nZGFtYWdlZA\nbegin 0-2\n{'eHh4' * 33}eA==\nend 0-2 {digest} 4711\n"
    assert jobpod.slice_of(log, "0-2") == (data, 4711)
    assert jobpod.slice_of(log, "0-1") is None
    assert jobpod.slice_of(log.replace("eHh4", "eHh5", 1), "0-2") is None
    assert jobpod.slice_of(log[:60], "0-2") is None
    assert jobpod.slice_of("", "0-1") is None
