"""What recording a trial costs: seconds and memory by the number of its pods.

Hides a stand-in API server, a process of its own, which writes the life of every pod as fast as it
can: six states of about 4 kB and five events each. Connections break now and then, and versions are
forgotten. The recorder is a process of its own too: its memory is what the kernel says of its peak,
less the peak before it began, when the client of the API was there already.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parent.parent
NAMESPACE, NODES = "ip0123456789-1", 100
BEGAN = datetime(2026, 11, 23, 21, 15, 0, tzinfo=UTC)
IMAGE = "registry.example/big:1"
BALLAST = [{"name": f"VARIABLE_{number}", "value": "x" * 40} for number in range(40)]
EVENTS_A_POD = 5
Object = dict[str, Any]


def main() -> None:
    """Record trials of several sizes and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pods", type=int, nargs="+", default=[100, 1_000, 10_000])
    options.add_argument("--server", type=int, help=argparse.SUPPRESS)
    options.add_argument("--record", help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.server:
        serve(asked.server)
    elif asked.record:
        record(asked.record, asked.pods[0])
    else:
        Console(highlight=False).print(recorded(asked.pods))


def recorded(sizes: Sequence[int]) -> Table:
    """Trials of these many pods, recorded; an AssertionError when anything was missing."""
    table = Table("pods", "events", "seconds", "peak MiB", title="Recording a trial")
    for pods in sizes:
        found = measure(pods)
        assert found["missing"] == 0, found
        assert found["doubled"] == 0, found
        table.add_row(
            f"{pods:,}", f"{found['events']:,}", f"{found['seconds']:.1f}",
            f"{found['peak_mib']:.0f}",
        )  # fmt: skip
    return table


def measure(pods: int) -> dict[str, Any]:
    """Record this many pods; what was missing or doubled, seconds and peak MiB."""
    me = [sys.executable, str(Path(__file__)), "--pods", str(pods)]
    with subprocess.Popen([*me, "--server", str(pods)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as server:  # fmt: skip
        assert server.stdout is not None
        assert server.stdin is not None
        url = server.stdout.readline().strip()
        recorder = subprocess.Popen(
            [*me, "--record", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with recorder:
            assert recorder.stdout is not None
            recorder.stdout.readline()  # its watches are open
            server.stdin.write("go\n")
            server.stdin.flush()
            server.stdout.readline()  # all is written
            found: dict[str, Any] = json.loads(recorder.communicate("stop\n")[0])
        server.communicate("end\n")
    return found


def serve(pods: int) -> None:
    """Be the API server: its address on standard output, then all pods' lives."""
    sys.path.insert(0, str(PROJECT / "tests"))
    from apiserver import ApiServer

    rng = random.Random(pods)
    with ApiServer() as server:
        server.bookmark_s = 1.0
        print(server.url, flush=True)
        sys.stdin.readline()
        for number, state in enumerate(interleaved(pods)):
            server.put(state)
            if rng.random() < 3 / (11 * pods):
                server.break_watches()
                if number % 2:
                    server.forget()
        print("written", flush=True)
        sys.stdin.readline()


def interleaved(pods: int) -> Iterator[Object]:
    """Lives of pods, a wave of a hundred at a time."""
    for first in range(0, pods, NODES):
        wave = [life(number) for number in range(first, min(first + NODES, pods))]
        for states in zip(*wave, strict=True):
            yield from states


def life(number: int) -> Iterator[Object]:
    """What the API server holds of one pod and its events, one state after the other."""
    name, begin_s = f"pull-{number // 5}-7bf6dbf68b-{number:05x}", number * 0.1
    yield pod(name, number, begin_s, 0)
    yield event(name, number, begin_s + 0.1, "Scheduled",
                f"Successfully assigned {NAMESPACE}/{name} to node-{number % NODES}")  # fmt: skip
    yield pod(name, number, begin_s, 1)
    yield pod(name, number, begin_s, 2)
    yield event(name, number, begin_s + 2.3, "Pulling", f'Pulling image "{IMAGE}"')
    yield pod(name, number, begin_s, 3)
    text = f'Successfully pulled image "{IMAGE}" in 9.5s (10.2s including waiting). '
    yield event(name, number, begin_s + 12.5, "Pulled", f"{text}Image size: 264056486 bytes.")
    yield event(name, number, begin_s + 12.6, "Created", "Container created")
    yield event(name, number, begin_s + 12.7, "Started", "Container started")
    yield pod(name, number, begin_s, 4)
    yield pod(name, number, begin_s, 5)


def pod(name: str, number: int, begin_s: float, state: int) -> Object:
    """A pod with the usual ballast: environment, volumes, managed fields."""
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": stamp(begin_s + after_s)}
        for kind, after_s, since in (
            ("PodScheduled", 0.1, 1), ("PodReadyToStartContainers", 2.2, 2), ("Ready", 12.9, 5),
        )
        if state >= since
    ]  # fmt: skip
    running = {"running": {"startedAt": stamp(begin_s + 12.7)}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": NAMESPACE, "name": name, "uid": f"{number:032x}",
            "creationTimestamp": stamp(begin_s), "labels": {"app": name.split("-", 2)[1]},
            "managedFields": managed(30),
        },
        "spec": {
            "containers": [{"name": "image", "image": IMAGE, "env": BALLAST}],
            **({"nodeName": f"node-{number % NODES}"} if state else {}),
        },
        "status": {
            "conditions": conditions,
            "containerStatuses": [{
                "name": "image", "image": IMAGE,
                "imageID": f"registry.example/big@sha256:{'a' * 64}" if state >= 4 else "",
                "state": running if state >= 4 else {"waiting": {"reason": "ContainerCreating"}},
            }],
        },
    }  # fmt: skip


def event(name: str, number: int, at_s: float, reason: str, message: str) -> Object:
    nanoseconds = int(BEGAN.timestamp()) * 10**9 + round(at_s * 1e9)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "namespace": NAMESPACE, "name": f"{name}.{nanoseconds:x}",
            "uid": f"{number:024x}{hash(reason) & 0xFFFFFFFF:08x}",
            "managedFields": managed(9),
        },
        "type": "Normal", "reason": reason, "message": message, "count": 1,
        "firstTimestamp": stamp(at_s), "lastTimestamp": stamp(at_s),
        "involvedObject": {
            "kind": "Pod", "namespace": NAMESPACE, "name": name, "uid": f"{number:032x}",
            "fieldPath": "spec.containers{image}",
        },
        "source": {"component": "kubelet", "host": f"node-{number % NODES}"},
    }  # fmt: skip


def managed(fields: int) -> list[Object]:
    return [{"manager": "kubelet", "fieldsV1": {f"f:{number}": {} for number in range(fields)}}]


def stamp(at_s: float) -> str:
    return (BEGAN + timedelta(seconds=at_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


def record(url: str, pods: int) -> None:
    """Be the recorder: ready on standard output, then what was found."""
    from imgpull.cluster.kube import Kube
    from imgpull.cluster.recorder import Recorder
    from imgpull.tables import write_pods

    with tempfile.TemporaryDirectory(prefix="imgpull-") as directory:
        kube = Kube.open(kubeconfig(Path(directory), url))
        kube.get("/version")
        path = Path(directory) / "events.jsonl"
        recorder = Recorder(kube, [NAMESPACE], path, BEGAN)
        before_mib = peak_mib()
        recorder.start()
        begun_s = time.monotonic()
        print("ready", flush=True)
        sys.stdin.readline()
        recorder.stop()
        write_pods(Path(directory) / "pods.csv", recorder.rows())
        seconds, peak = time.monotonic() - begun_s, peak_mib() - before_mib
        names = [json.loads(line)["metadata"]["name"] for line in path.open(encoding="utf-8")]
        whole = sum(
            None
            not in (row.scheduled, row.sandbox, row.pulling, row.pulled, row.started, row.ready)
            for row in recorder.rows()
        )
    kube.close()
    found = {
        "events": len(names),
        "missing": EVENTS_A_POD * pods - len(set(names)) + pods - whole,
        "doubled": len(names) - len(set(names)),
        "seconds": seconds,
        "peak_mib": peak,
        "counts": dict(recorder.counts),
        "gaps": recorder.gaps,
    }
    print(json.dumps(found), flush=True)


def kubeconfig(directory: Path, url: str) -> Path:
    named = {
        "clusters": [{"name": "x", "cluster": {"server": url}}],
        "users": [{"name": "x", "user": {"token": "stand-in"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    path = directory / "kubeconfig"
    content = {"apiVersion": "v1", "kind": "Config", "current-context": "x", **named}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def peak_mib() -> float:
    """The most memory that this process held since it began (getrusage counts its parent's)."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
