"""node.sh against real containerd of three generations: what it proves, and what would fool it.

How cold a pull was, the registry knows: what it was asked for counts, and the disk; not time.
"""

import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import containerd
import pytest
import yaml
from conftest import MakeJob
from containerd import Node, free_port, push_base, running
from images import Layer, OciImage, busybox, image, payload, push
from registries import DockerRegistry, Registry, docker_registry

from imgpull import render
from imgpull.cluster.node_words import NodeCache, after_purge, require_able, require_removed, seen
from imgpull.cluster.registry import inspect
from imgpull.errors import EngineFailed

pytestmark = pytest.mark.containerd

MIB = 2**20
SHARED = tuple(payload(f"shared-{size}", size * MIB) for size in (4, 6))
OWN = tuple(payload(f"own-{size}", size * MIB) for size in (8, 12, 20))
COUNT = 6
COUNTED = range(1, COUNT + 1)


@pytest.fixture(scope="module")
def big() -> OciImage:
    """The image under test: six layers, of which a sibling has the lower two."""
    return image([*SHARED, *OWN, busybox("tool")], entrypoint=["/tool"])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, big: OciImage) -> Iterator[DockerRegistry]:
    """Docker's own, with the images of these tests."""
    sibling = image([*SHARED, payload("sibling", 5 * MIB)])
    elsewhere = image([payload("elsewhere", MIB), OWN[0]])
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        push_base(server.server)
        for name, pushed in (("big", big), ("sibling", sibling), ("elsewhere", elsewhere),
                             ("twin", image(big.layers, note="twin"))):  # fmt: skip
            push(server.server, name, "v1", pushed)
        yield server


@pytest.fixture(scope="module")
def slow(big: OciImage) -> Iterator[Registry]:
    """A registry that takes seconds for the image."""
    with Registry() as server:
        server.put("big", "v1", big)
        server.blob_bytes_s = 5 * MIB
        yield server


@pytest.fixture(scope="module", params=containerd.generations())
def running_node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
    registry: DockerRegistry, slow: Registry,
) -> Iterator[Node]:  # fmt: skip
    root = tmp_path_factory.mktemp("node") / "containerd"
    with running(request.param, root, (registry.server, slow.server)) as node:
        yield node


@pytest.fixture
def node(running_node: Node) -> Iterator[Node]:
    """An empty node of each generation."""
    yield running_node
    running_node.remove_everything()


@pytest.fixture
def reference(registry: DockerRegistry) -> str:
    return f"{registry.server}/big:v1"


def purged(node: Node, reference: str, big: OciImage, **limits: int) -> NodeCache:
    words = node.script("purge", reference, big.id, layers=big.table(), **limits)
    require_able("n", words)
    require_removed("n", words)
    return after_purge("n", words, inspect(reference))


def looked(node: Node, reference: str, big: OciImage) -> NodeCache:
    words = node.script("look", reference, big.id, layers=big.table())
    require_able("n", words)
    return seen("n", words, inspect(reference))


def fetched_by(registry: DockerRegistry, pull: Callable[[], object], big: OciImage) -> list[int]:
    """Numbers of the image's layers that were fetched meanwhile."""
    before = len(registry.fetched())
    pull()
    fetched = set(registry.fetched()[before:])
    return [number for number, each in enumerate(big.layers, 1) if each.digest in fetched]


def bytes_of(*layers: Layer) -> int:
    return sum(len(each.blob) for each in layers)


def test_after_a_purge_a_pull_moves_every_layer_again(
    node: Node, registry: DockerRegistry, reference: str, big: OciImage
) -> None:
    empty = node.snapshot_bytes()
    assert looked(node, reference, big) == NodeCache("n", "cold", 0, 0)
    assert fetched_by(registry, lambda: node.pull(reference), big) == list(COUNTED)
    full = node.snapshot_bytes()
    assert looked(node, reference, big).state == "warm"
    assert fetched_by(registry, lambda: node.pull(reference), big) == []

    found = purged(node, reference, big)
    assert (found.state, found.kept_layers, found.kept_bytes) == ("cold", 0, 0)
    assert found.page_cache_dropped is True
    # The runtime's word for it, and the disk's.
    assert found.freed_bytes == pytest.approx(full - empty, rel=0.01)
    assert node.snapshot_bytes() == pytest.approx(empty, abs=MIB / 4)
    assert big.id not in node.images()

    assert fetched_by(registry, lambda: node.pull(reference), big) == list(COUNTED)
    assert node.snapshot_bytes() == pytest.approx(full, abs=MIB / 4)


@pytest.mark.parametrize("exited", [False, True])
def test_an_image_removed_under_a_container_is_warm_and_told_so(
    node: Node, registry: DockerRegistry, reference: str, big: OciImage, exited: bool
) -> None:
    """What a purge that only asks for the image's removal would call cold."""
    node.pull(reference)
    _, container = node.run(reference, "/tool", "sleep", "0.1" if exited else "1000")
    if exited:
        node.wait_exited(container)
    node.crictl("rmi", reference)
    assert big.id not in node.images()

    found = looked(node, reference, big)
    assert (found.state, found.kept_layers) == ("warm", COUNT)
    assert found.note == f"{COUNT} of {COUNT} layers stay, held by container tests/load/c"
    assert fetched_by(registry, lambda: node.pull(reference), big) == []


def test_a_purge_leaves_the_image_of_a_container_and_names_it(
    node: Node, reference: str, big: OciImage
) -> None:
    node.pull(reference)
    _, container = node.run(reference, "/tool", "sleep", "0.1")
    node.wait_exited(container)
    with pytest.raises(EngineFailed, match="container c of pod tests/load still uses") as raised:
        purged(node, reference, big, used_s=1)
    assert "kubectl -n tests delete pod load" in raised.value.hint
    assert big.id in node.images()


def test_a_purge_waits_for_an_exited_container_to_be_removed(
    node: Node, registry: DockerRegistry, reference: str, big: OciImage
) -> None:
    node.pull(reference)
    pod, container = node.run(reference, "/tool", "sleep", "0.1")
    node.wait_exited(container)
    kubelet = threading.Timer(2.0, node.remove_pod, (pod,))
    kubelet.start()
    found = purged(node, reference, big)
    kubelet.join()
    assert found.state == "cold"
    assert fetched_by(registry, lambda: node.pull(reference), big) == list(COUNTED)


def test_layers_that_a_sibling_shares_stay_and_are_told(
    node: Node, registry: DockerRegistry, reference: str, big: OciImage
) -> None:
    node.pull(reference)
    node.pull(f"{registry.server}/sibling:v1")
    found = purged(node, reference, big)
    assert (found.state, found.kept_layers, found.kept_bytes) == ("partial", 2, bytes_of(*SHARED))
    assert found.note == f"2 of {COUNT} layers stay, held by {registry.server}/sibling:v1"
    assert fetched_by(registry, lambda: node.pull(reference), big) == [3, 4, 5, 6]


def test_a_blob_that_another_image_keeps_is_told_though_it_is_no_snapshot_of_this_one(
    node: Node, registry: DockerRegistry, reference: str, big: OciImage
) -> None:
    node.pull(f"{registry.server}/elsewhere:v1")
    for found in (looked(node, reference, big), purged(node, reference, big)):
        assert (found.state, found.kept_layers, found.kept_bytes) == (
            "partial", 1, bytes_of(OWN[0]),
        )  # fmt: skip
        assert found.note == f"1 of {COUNT} layers stay, held by {registry.server}/elsewhere:v1"
    assert fetched_by(registry, lambda: node.pull(reference), big) == [1, 2, 4, 5, 6]


def test_another_image_of_the_same_layers_leaves_nothing_to_pull(
    node: Node, registry: DockerRegistry, reference: str, big: OciImage
) -> None:
    node.pull(reference)
    node.pull(f"{registry.server}/twin:v1")
    found = purged(node, reference, big)
    assert (found.state, found.kept_layers) == ("warm", COUNT)
    assert fetched_by(registry, lambda: node.pull(reference), big) == []


def test_an_image_goes_with_all_its_names(
    node: Node, registry: DockerRegistry, reference: str, big: OciImage
) -> None:
    push(registry.server, "mirror/big", "v2", big)
    by_digest = f"{registry.server}/big@{big.digest}"
    for name in (reference, by_digest, f"{registry.server}/mirror/big:v2"):
        node.pull(name)
    # Of the three only one is told, with the ID that the registry has it under.
    found = purged(node, f"{reference}@{big.digest}", big)
    assert found.state == "cold"
    assert big.id not in node.images()


def test_a_purge_ends_after_a_pull_that_was_under_way(
    node: Node, slow: Registry, big: OciImage
) -> None:
    """As after a trial that ran into its time limit: kubelet does not call a pull off."""
    reference = f"{slow.server}/big:v1"
    pull = threading.Thread(target=node.pull, args=(reference,))
    pull.start()
    while not slow.asked(f".*/blobs/{big.layers[0].digest}"):
        time.sleep(0.01)
    found = purged(node, reference, big)
    ended = not pull.is_alive()
    pull.join()
    assert ended
    assert found.state == "cold"
    assert found.freed_bytes > 50 * MIB
    assert looked(node, reference, big).state == "cold"


def test_what_a_pull_left_that_was_cut_off_is_told_with_what_holds_it(
    node: Node, slow: Registry, big: OciImage
) -> None:
    """containerd keeps for a day what a pull had when containerd ended, and it is in no list."""
    reference = f"{slow.server}/big:v1"
    pull = threading.Thread(target=suppressed, args=(node.pull, reference))
    pull.start()
    while not node.has_blob(big.layers[0].digest):
        time.sleep(0.01)
    node.stop(kill=True)
    pull.join()
    node.start()
    found = purged(node, reference, big)
    assert found.state == "partial"
    assert 0 < found.kept_layers < COUNT
    assert (
        f"{found.kept_layers} of {COUNT} layers stay, held by no image, so by a lease" in found.note
    )
    assert "partly fetched, by a pull that was cut off" in found.note
    node.remove_leases()
    assert purged(node, reference, big).state == "cold"


def suppressed(call: Callable[[str], object], argument: str) -> None:
    with contextlib.suppress(AssertionError):
        call(argument)


def test_without_a_table_of_layers_the_node_s_own_serves(
    node: Node, registry: DockerRegistry, reference: str
) -> None:
    node.pull(reference)
    node.pull(f"{registry.server}/sibling:v1")
    found = after_purge("n", node.script("purge", reference), None)
    assert (found.state, found.kept_layers, found.kept_bytes) == ("partial", 2, None)
    node.crictl("rmi", f"{registry.server}/sibling:v1")
    unknown = after_purge("n", node.script("purge", reference), None)
    assert (unknown.state, unknown.kept_layers) == ("unknown", None)
    assert "its layers are not known" in unknown.note


def test_without_ctr_the_disk_tells(
    node: Node, reference: str, big: OciImage, tmp_path: Path
) -> None:
    crictl = shutil.which("crictl", path=containerd.path_of(node.generation))
    assert crictl
    (tmp_path / "crictl").symlink_to(crictl)
    path = f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin"
    node.pull(reference)
    known = inspect(reference)
    words = node.script("look", reference, big.id, layers=big.table(), path=path)
    assert seen("n", words, known).state == "warm"
    words = node.script("purge", reference, big.id, layers=big.table(), path=path)
    found = after_purge("n", words, known)
    assert (found.state, found.kept_bytes) == ("cold", 0)
    assert "without ctr its snapshots cannot be seen" in found.note
    # Nothing was freed this time: what nobody can see is not called cold.
    words = node.script("purge", reference, big.id, layers=big.table(), path=path)
    assert after_purge("n", words, known).state == "unknown"


def test_without_crictl_a_node_says_so(node: Node, tmp_path: Path) -> None:
    for program in ("chroot", "sh"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    words = node.script("look", "reg.io/app:v1", path=str(tmp_path))
    assert words.one("error") == "no-crictl"


# ------------------------------------------------------- what the rendered queries make of it


@contextlib.contextmanager
def prometheus(target: str, name: str, directory: Path) -> Iterator[Callable[[str], Any]]:
    """A real Prometheus that scrapes one containerd every second; yields what asks it."""
    address = f"127.0.0.1:{free_port()}"
    job = {
        "job_name": "containerd",
        "metrics_path": "/v1/metrics",
        "static_configs": [{"targets": [target], "labels": {"node": name}}],
    }
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))

    def ask(query: str) -> float | None:
        told = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"http://{address}/api/v1/query?{told}") as response:
            result = json.load(response)["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            ["prometheus", f"--config.file={directory}/prometheus.yml",
             f"--storage.tsdb.path={directory}/data", f"--web.listen-address={address}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                if ask("up == 1"):
                    break
            time.sleep(0.1)
        yield ask
    finally:
        server.terminate()
        server.wait()


def queries_of(job: MakeJob, version: str, directory: Path) -> dict[str, str]:
    """The rendered queries of containerd's pulls, by Identifier/name."""
    bundle = render.write(
        render.render(job(f"cluster.containerd_version={version}")), directory / "bundle"
    )
    test = yaml.safe_load(bundle.test_config.read_text("utf-8"))
    return {
        f"{call['Identifier']}/{query['name']}": query["query"]
        for step in test["steps"]
        for call in step.get("measurements", ())
        for query in call["Params"].get("queries", ())
        if call["Identifier"] in ("ContainerdPulls", "ContainerdThroughput")
    }


def test_the_rendered_queries_tell_what_was_pulled(
    node: Node, registry: DockerRegistry, reference: str, big: OciImage, job: MakeJob,
    tmp_path: Path,
) -> None:  # fmt: skip
    told = re.search(r"RuntimeVersion: *([0-9.]+)", node.crictl("version").replace(" v", " "))
    assert told
    version = told[1]
    queries = queries_of(job, version, tmp_path)
    if node.generation == "1.6":
        assert not queries
        assert "image_pull" not in node.scraped()
        return
    name = f"{job().cluster.node_prefix}0"
    with prometheus(node.metrics, name, tmp_path) as ask:
        # Before the window: what must not count.
        node.pull(reference)
        purged(node, reference, big)
        time.sleep(2.5)
        begin = time.monotonic()
        rates = []
        for _ in range(2):
            took_s = node.pull(reference)
            rates.append(big.compressed_bytes / MIB / took_s)
            purged(node, reference, big)
        with pytest.raises(AssertionError, match="not found"):
            node.pull(f"{registry.server}/none:v1")
        time.sleep(2.5)
        window = f"{round(time.monotonic() - begin)}s"
        found = {each: ask(query.replace("%v", window)) for each, query in queries.items()}
    assert found["ContainerdPulls/success"] == 2
    assert found["ContainerdPulls/failure"] == 1
    mean = found["ContainerdThroughput/mean"]
    # crictl's own time is around containerd's: a true rate is higher, but not by much.
    assert mean is not None
    assert sum(rates) / 2 <= mean <= 1.5 * sum(rates) / 2
    assert found["ContainerdThroughput/p50"] == pytest.approx(mean)
