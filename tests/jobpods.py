"""Who runs a Job where the API is a stand-in: its pod's containers are programs of this machine.

Hides the Job controller, the kubelet and its logs. Paths below /imgpull in commands and mounts are
those of a folder; the image's entrypoint is a stand-in of tests/programs, and the shell script of
the second container runs as it is.
"""

import base64
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apiserver import DROP, ApiServer, Object, Request

NAMESPACE = "imgpull-system"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
IMAGE_ID = "registry.example/clusterloader@sha256:" + "c" * 64


class Program:
    """One container: its process, and each line that it has printed with the time of it."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.lines: list[tuple[int, bytes]] = []  # nanoseconds since the epoch, text
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=environment, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.lines.append((time.time_ns(), line.rstrip(b"\n")))
        self.process.wait()

    @property
    def ended(self) -> bool:
        return not self._reader.is_alive()

    def kill(self, grace_s: float = 0.0) -> None:
        for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
            if self.process.poll() is None and wait_s:
                os.killpg(self.process.pid, number)
                try:
                    self.process.wait(wait_s)
                except subprocess.TimeoutExpired:
                    continue
        self._reader.join(5)


class JobPods:
    """The pods of all Jobs that are made at a stand-in API server.

    Change `zone_s` (of the nodes' clocks), `entrypoint`, `before_start` (called with the pod's
    path; what it returns replaces the pod's start when it is not None) and `cut` (called with each
    log line that is sent; True cuts the connection there) before a Job is made.
    """

    def __init__(self, api: ApiServer, directory: Path, entrypoint: Path) -> None:
        self.api, self.directory, self.entrypoint = api, directory, entrypoint
        self.zone_s = 0
        self.before_start: Callable[[str], bool | None] = lambda pod: None
        self.cut: Callable[[bytes], bool] = lambda line: False
        self.mangle: Callable[[bytes], bytes] = lambda log: log  # of the second container
        self.pods: dict[str, dict[str, Program]] = {}
        self.made: list[Object] = []  # Jobs
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        api.on_create("Job", self._start)
        api.on_delete("Job", self._job_gone)
        api.handle("GET", rf"{PODS}/[^/]+/log", self._log)

    def __enter__(self) -> "JobPods":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for programs in self.pods.values():
            for program in programs.values():
                program.kill()
        for thread in self._threads:
            thread.join(5)

    def root(self, pod: str) -> Path:
        """Where /imgpull of a pod is."""
        return self.directory / pod / "imgpull"

    def _start(self, job: Object) -> None:
        self.made.append(job)
        pod, spec = f"{job['metadata']['name']}-x7k2p", job["spec"]["template"]["spec"]
        self.api.put({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod, "namespace": NAMESPACE,
                "labels": {**job["metadata"]["labels"], "job-name": job["metadata"]["name"]},
            },
            "spec": spec,
            "status": {"phase": "Pending"},
        })  # fmt: skip
        if self.before_start(f"{PODS}/{pod}") is not None:
            return
        self._mount(pod, spec)
        programs = self.pods.setdefault(pod, {})
        for container in spec["containers"]:
            programs[container["name"]] = self._program(pod, container)
        self._tell(pod)
        watcher = threading.Thread(target=self._watch, args=(pod,), daemon=True)
        self._threads.append(watcher)
        watcher.start()

    def _program(self, pod: str, container: Object) -> Program:
        root, scratch = self.root(pod), self.directory / pod / "tmp"
        told = [
            each.replace("/tmp/", f"{scratch}/").replace("/imgpull", str(root))
            for each in [*container.get("command", ()), *container.get("args", ())]
        ]
        if "command" not in container:
            told.insert(0, str(self.entrypoint))
        environment = {"PATH": os.environ["PATH"], "KUBERNETES_SERVICE_HOST": "test"}
        return Program(told, environment)

    def _mount(self, pod: str, spec: Object) -> None:
        root = self.root(pod)
        for name in ("report", "pod", "config"):
            (root / name).mkdir(parents=True)
        (self.directory / pod / "tmp").mkdir()
        (root / "pod" / "annotations").touch()
        for volume in spec["volumes"]:
            if source := volume.get("configMap"):
                found = self.api.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/{source['name']}")
                assert found is not None, "the Job was made before its ConfigMap"
                for item in source["items"]:
                    path = root / "config" / item["path"]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(_content(found, item["key"]))
        if account := spec.get("serviceAccountName"):
            binding = f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{account}"
            assert self.api.get(binding) is not None, "the Job was made before its rights"

    def _watch(self, pod: str) -> None:
        """Renew the file of annotations, and the status when CL2 has ended."""
        told = False
        file = self.root(pod) / "pod" / "annotations"
        while not self._stopping.is_set():
            found = self.api.get(f"{PODS}/{pod}")
            if found is None:
                return
            annotations = found["metadata"].get("annotations") or {}
            text = "".join(f"{key}={json.dumps(value)}\n" for key, value in annotations.items())
            if text != file.read_text("utf-8"):
                file.with_suffix(".new").write_text(text, encoding="utf-8")
                file.with_suffix(".new").rename(file)
            if not told and self.pods[pod]["clusterloader"].ended:
                told = True
                self._tell(pod)
            time.sleep(0.02)

    def _tell(self, pod: str) -> None:
        found = self.api.get(f"{PODS}/{pod}")
        if found is None or found["status"]["phase"] == "Failed":
            return
        statuses = []
        for name, program in self.pods[pod].items():
            state: Object = {"running": {}}
            if program.ended:
                code = program.process.returncode
                code = 128 - code if code < 0 else code
                state = {
                    "terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}
                }
            statuses.append({"name": name, "state": state, "imageID": IMAGE_ID})
        found["status"] = {"phase": "Running", "containerStatuses": statuses}
        self.api.put(found)

    def _job_gone(self, job: Object) -> None:
        pod = f"{job['metadata']['name']}-x7k2p"
        for program in self.pods.get(pod, {}).values():
            program.kill(grace_s=1.0)
        self.api.remove(f"{PODS}/{pod}")

    def _log(self, request: Request) -> Any:
        pod, query = request.path.split("/")[-2], request.query
        program = self.pods.get(pod, {}).get(query["container"])
        if self.api.get(f"{PODS}/{pod}") is None or program is None:
            return (404, {"kind": "Status", "message": f"pods {pod} not found"})
        if query.get("timestamps") == "true":
            return (200, self._stream(program, query.get("sinceTime"), query["follow"] == "true"))
        lines = [text for _, text in list(program.lines)]
        log = self.mangle(b"".join(line + b"\n" for line in lines))
        tail = log.splitlines(keepends=True)[-int(query.get("tailLines", 10**9)) :]
        return (200, b"".join(tail))

    def _stream(self, program: Program, since: str | None, follow: bool) -> Iterator[Any]:
        begin_ns = int(datetime.fromisoformat(since).timestamp()) * 10**9 if since else 0
        sent = 0
        while True:
            ended = program.ended
            for at_ns, text in list(program.lines)[sent:]:
                sent += 1
                if at_ns >= begin_ns:
                    if self.cut(text):
                        yield DROP
                        return
                    yield self._stamp(at_ns) + b" " + text + b"\n"
            if ended or not follow or self._stopping.is_set():
                return
            yield 0.02

    def _stamp(self, at_ns: int) -> bytes:
        seconds, rest = divmod(at_ns, 10**9)
        head = datetime.fromtimestamp(seconds + self.zone_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        hours, minutes = divmod(self.zone_s // 60, 60)
        zone = f"{hours:+03}:{minutes:02}" if self.zone_s else "Z"
        return f"{head}.{rest:09}{zone}".encode()


def _content(config: Object, key: str) -> bytes:
    if key in (config.get("data") or {}):
        text: str = config["data"][key]
        return text.encode()
    return base64.b64decode(config["binaryData"][key])
