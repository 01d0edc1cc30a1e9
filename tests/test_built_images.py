"""Images that we make, in Docker's own registry and pulled by real containerd."""

import json
import time
from collections.abc import Iterator

import containerd
import pytest
from containerd import Node, push_base, running
from registries import DockerRegistry, docker_registry

from imgpull.images import pushing
from imgpull.images.building import Built, build
from imgpull.images.shape import LayerShape, Shape

pytestmark = pytest.mark.containerd

MB = 10**6
SHAPE = Shape(
    (
        LayerShape(2 * MB, 5 * MB, "gzip", 20, "layer 1"),
        LayerShape(9 * MB, 20 * MB, "zstd", 300, "layer 2"),
        LayerShape(1000, 2000, "gzip", 1, "layer 3"),
        LayerShape(3 * MB, 3 * MB, "none", 2, "layer 4"),
        LayerShape(5 * MB, 12 * MB, "gzip", 1500, "layer 5"),
    ),
    ("sleep", "infinity"),
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        push_base(server.server)
        yield server


@pytest.fixture(scope="module", params=containerd.generations())
def running_node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
    registry: DockerRegistry,
) -> Iterator[Node]:  # fmt: skip
    root = tmp_path_factory.mktemp("node") / "containerd"
    with running(request.param, root, (registry.server,)) as node:
        yield node


@pytest.fixture
def node(running_node: Node) -> Iterator[Node]:
    yield running_node
    running_node.remove_everything()


def pushed(registry: DockerRegistry, salt: str) -> Built:
    with pushing.Destination(f"{registry.server}/made:{salt}", lambda _: None) as target:
        return build(SHAPE, salt, target)


def fetched_by_pull(node: Node, registry: DockerRegistry, built: Built) -> list[str]:
    before = len(registry.fetched())
    node.pull(f"{registry.server}/made@{built.digest}")
    made = {layer.digest for layer in built.layers}
    return sorted(made & set(registry.fetched()[before:]))


def test_each_salt_is_pulled_whole_and_unpacks_to_what_was_said(
    node: Node, registry: DockerRegistry
) -> None:
    for salt in ("1", "2"):
        built = pushed(registry, salt)
        before = node.snapshot_bytes()
        assert fetched_by_pull(node, registry, built) == sorted(x.digest for x in built.layers)
        # Whole blocks of the disk, a directory tree, but no headers of tar.
        grown = node.snapshot_bytes() - before
        assert grown == pytest.approx(SHAPE.unpacked_bytes, rel=0.15)
        assert fetched_by_pull(node, registry, built) == []


def test_a_container_of_it_runs_and_ends_when_told(node: Node, registry: DockerRegistry) -> None:
    built = pushed(registry, "runs")
    reference = f"{registry.server}/made@{built.digest}"
    node.pull(reference)
    _, container = node.run(reference, "sleep", "infinity")
    time.sleep(0.5)
    assert container in node.crictl("ps", "-q", "--state", "running").split()
    begun = time.monotonic()
    node.crictl("stop", "--timeout", "20", container)
    assert time.monotonic() - begun < 10
    status = json.loads(node.crictl("inspect", container))["status"]
    assert status["exitCode"] == 0


def test_a_deleted_image_cannot_be_pulled_any_more(node: Node, registry: DockerRegistry) -> None:
    built = pushed(registry, "gone")
    pushing.delete(f"{registry.server}/made:gone", lambda _: None)
    with pytest.raises(AssertionError, match="not found"):
        node.pull(f"{registry.server}/made@{built.digest}")
