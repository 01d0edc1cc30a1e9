"""A real containerd as one node has it, with crictl, in a directory of its own.

Hides how the generations are configured, and where CI put their programs (.ci/containerd). Settings
that a machine without systemd and full capabilities needs: own root, state and sockets, cgroupfs,
and restrict_oom_score_adj. Pods use the host's network, so that no CNI is needed.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from images import OciImage, busybox, image, push

from imgpull.cluster.image_cache import SCRIPT
from imgpull.cluster.node_words import Words

PROGRAMS = Path(os.environ.get("IMGPULL_PROGRAMS", "/var/cache/imgpull-ci"))
# By Debian's suite: each has one generation.
GENERATIONS = {"1.6": "bookworm", "1.7": "trixie", "2": "sid"}
BASE_NAME = "base"  # of the registry's image for sandboxes

_V2 = """\
version = 2
root = "{root}/data"
state = "{root}/state"
[grpc]
address = "{socket}"
[ttrpc]
address = "{socket}.ttrpc"
[metrics]
address = "{metrics}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{sandbox}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{root}/certs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"
"""
_V3 = """\
version = 3
root = "{root}/data"
state = "{root}/state"
[grpc]
address = "{socket}"
[ttrpc]
address = "{socket}.ttrpc"
[metrics]
address = "{metrics}"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{sandbox}"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "{root}/certs"
[plugins."io.containerd.transfer.v1.local"]
config_path = "{root}/certs"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.nri.v1.nri"]
disable = true
[plugins."io.containerd.internal.v1.opt"]
path = "{root}/opt"
"""


def missing(generation: str) -> str:
    """What is not here of what a containerd needs; empty when all is."""
    if os.geteuid() != 0:
        return "only root can run containerd"
    if not (_programs(generation) / "containerd").exists():
        return f"containerd {generation} is not in {PROGRAMS} (.ci/containerd {PROGRAMS})"
    for program in ("crictl", "runc", "docker-registry", "busybox", "prometheus"):
        if not shutil.which(program, path=path_of(generation)):
            return f"{program} is neither on PATH nor in {PROGRAMS}"
    return ""


def generations() -> list[Any]:
    """Parameters for a fixture: each is skipped with its reason where it cannot be run."""
    return [
        pytest.param(each, marks=pytest.mark.skipif(bool(why := missing(each)), reason=why))
        for each in GENERATIONS
    ]


def _programs(generation: str) -> Path:
    return PROGRAMS / f"containerd-{GENERATIONS[generation]}" / "usr" / "bin"


def path_of(generation: str) -> str:
    # Its own first: containerd starts the shim that it finds.
    usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return f"{_programs(generation)}:{PROGRAMS / 'bin'}:{usual}"


class Node:
    """A running containerd and its crictl."""

    def __init__(self, generation: str, root: Path) -> None:
        self.generation, self.root = generation, root
        # Sockets have short names: 108 bytes in all.
        self.socket = f"/tmp/imgpull-{os.getpid()}-{generation}.sock"
        self.metrics = f"127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None
        self._crictl = shutil.which("crictl", path=path_of(generation)) or "crictl"
        self._environment = {
            "PATH": path_of(generation), "CRI_CONFIG_FILE": str(root / "crictl.yaml"), "HOME": "/",
        }  # fmt: skip

    def start(self) -> None:
        """Start containerd, and wait until it answers."""
        log = self.root / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [str(_programs(self.generation) / "containerd"), "--config",
                 str(self.root / "config.toml")],
                stdout=out, stderr=out, env={"PATH": path_of(self.generation)},
            )  # fmt: skip
        until = time.monotonic() + 30
        while True:
            assert self._process.poll() is None, log.read_text()[-3000:]
            with contextlib.suppress(AssertionError):
                self.crictl("images", "-q")
                return
            assert time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(0.1)

    def stop(self, *, kill: bool = False) -> None:
        """Stop containerd; `kill` as a power cut would."""
        if self._process:
            (self._process.kill if kill else self._process.terminate)()
            self._process.wait(30)
            self._process = None

    def crictl(self, *arguments: str) -> str:
        """What crictl prints; AssertionError with its error when it fails."""
        done = subprocess.run(
            [self._crictl, "--timeout", "60s", *arguments], env=self._environment, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"crictl {arguments}: {done.stderr}"
        return done.stdout

    def pull(self, reference: str) -> float:
        """Pull an image; seconds it took."""
        begin = time.monotonic()
        self.crictl("pull", reference)
        return time.monotonic() - begin

    def images(self) -> set[str]:
        """IDs of the listed images."""
        return set(self.crictl("images", "-q").split())

    def run(self, reference: str, *command: str, pod: str = "load") -> tuple[str, str]:
        """Run a container in a pod of its own; the IDs of both."""
        folder = self.root / "pods"
        folder.mkdir(exist_ok=True)
        host = {"network": 2, "pid": 1}  # NODE, CONTAINER
        sandbox = {
            "metadata": {"name": pod, "namespace": "tests", "uid": pod, "attempt": 1},
            "labels": {
                "io.kubernetes.pod.name": pod, "io.kubernetes.pod.namespace": "tests",
            },
            "log_directory": str(folder),
            "linux": {"security_context": {"namespace_options": host}},
        }  # fmt: skip
        container = {
            "metadata": {"name": "c"},
            "image": {"image": reference},
            "command": list(command),
            "labels": {"io.kubernetes.container.name": "c", **sandbox["labels"]},
            "log_path": f"{pod}.log",
            "linux": {},
        }
        for name, content in (("pod", sandbox), ("container", container)):
            (folder / f"{name}.json").write_text(json.dumps(content))
        pod_id = self.crictl("runp", str(folder / "pod.json")).strip()
        container_id = self.crictl(
            "create", pod_id, str(folder / "container.json"), str(folder / "pod.json")
        ).strip()
        self.crictl("start", container_id)
        return pod_id, container_id

    def wait_exited(self, container_id: str) -> None:
        """Wait until a container has ended by itself."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if container_id in self.crictl("ps", "-a", "-q", "--state", "exited").split():
                return
            time.sleep(0.05)
        raise AssertionError(f"container {container_id} still runs")

    def remove_pod(self, pod_id: str) -> None:
        """Remove a pod with its containers, as kubelet does once a pod has gone."""
        self.crictl("rmp", "-f", pod_id)

    def remove_everything(self) -> None:
        """Back to an empty node, for the next test."""
        for pod in self.crictl("pods", "-q").split():
            self.remove_pod(pod)
        for each in self.images():
            self.crictl("rmi", each)
        self.remove_leases()

    def remove_leases(self) -> None:
        """Let go of what pulls hold that were cut off; containerd would in a day."""
        ctr = [str(_programs(self.generation) / "ctr"), "-a", self.socket, "-n", "k8s.io"]
        told = subprocess.run(
            [*ctr, "leases", "ls", "-q"], text=True, capture_output=True, check=True
        )
        for lease in told.stdout.split():
            subprocess.run([*ctr, "leases", "rm", "--sync", lease], capture_output=True, check=True)

    def has_blob(self, digest: str) -> bool:
        """Whether a layer has been fetched whole."""
        blobs = self.root / "data" / "io.containerd.content.v1.content" / "blobs" / "sha256"
        return (blobs / digest.removeprefix("sha256:")).exists()

    def snapshot_bytes(self) -> int:
        """What snapshots take on the disk: containerd itself is not asked."""
        folders = list(self.root.glob("data/io.containerd.snapshotter.v1.*/snapshots"))
        done = subprocess.run(
            ["du", "-sk", *folders], text=True, capture_output=True, check=True
        ).stdout  # fmt: skip
        return sum(int(line.split()[0]) for line in done.splitlines()) * 1024

    def script(
        self,
        action: str,
        *names: str,
        layers: str = "",
        used_s: int = 60,
        limit_s: int = 60,
        path: str = "",
    ) -> Words:
        """What node.sh says, run as the DaemonSet runs it; the node's root is this machine's."""
        told = {
            "ACTION": action, "IMAGES": " ".join(names), "LAYERS": layers, "USED_S": str(used_s),
            "LIMIT_S": str(limit_s), "STILL_S": "3", "SCRIPT": SCRIPT.read_text(encoding="utf-8"),
        }  # fmt: skip
        environment = {**self._environment, **told, "PATH": path or self._environment["PATH"]}
        done = subprocess.run(
            ["/bin/sh", "-c", 'chroot / /bin/sh -c "$SCRIPT" 2>&1'], env=environment, text=True,
            capture_output=True, check=True,
        )  # fmt: skip
        return Words.of("this", done.stdout)

    def scraped(self) -> str:
        """Its metrics, as Prometheus sees them."""
        with urllib.request.urlopen(f"http://{self.metrics}/v1/metrics") as response:
            text: str = response.read().decode()
        return text


@contextlib.contextmanager
def running(generation: str, root: Path, registries: tuple[str, ...]) -> Iterator[Node]:
    """A containerd of a generation that may pull from these registries, without TLS.

    The first has the image for sandboxes.
    """
    node = Node(generation, root)
    root.mkdir(parents=True)
    for server in registries:
        folder = root / "certs" / server
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(
            f'server = "http://{server}"\n[host."http://{server}"]\n'
            'capabilities = ["pull", "resolve"]\n'
        )
    (root / "crictl.yaml").write_text(
        f"runtime-endpoint: unix://{node.socket}\nimage-endpoint: unix://{node.socket}\n"
    )
    template = _V3 if generation == "2" else _V2
    (root / "config.toml").write_text(
        template.format(
            root=root, socket=node.socket, metrics=node.metrics,
            sandbox=f"{registries[0]}/{BASE_NAME}:1",
        )
    )  # fmt: skip
    try:
        node.start()
        yield node
    finally:
        with contextlib.suppress(AssertionError):
            node.remove_everything()
        node.stop()
        _unmount(root)
        for end in ("", ".ttrpc"):
            Path(f"{node.socket}{end}").unlink(missing_ok=True)
        shutil.rmtree(root, ignore_errors=True)


def push_base(server: str) -> OciImage:
    """Have the image for sandboxes in a registry; its layer serves for containers too."""
    base = image([busybox("sleep")], entrypoint=["/sleep", "100000"])
    push(server, BASE_NAME, "1", base)
    return base


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _unmount(root: Path) -> None:
    """What is still mounted below a directory, as of a sandbox that could not be removed."""
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        if (target := line.split()[1]).startswith(f"{root}/"):
            subprocess.run(["umount", "-l", target], check=False)
