"""A program that a kubeconfig names to log in with: kubelogin, aws, gke-gcloud-auth-plugin.

Hides the protocol between kubectl and such programs (client.authentication.k8s.io) and that they
may hang, ask questions or fail: their own words are in the error then.
"""

import collections
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from imgpull.errors import EngineUnavailable

_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_PATIENCE_S = 300.0  # for one who is asked to log in with a browser


@dataclass(frozen=True)
class Credential:
    """What a plugin gave."""

    token: str = field(default="", repr=False)
    certificate_pem: str = field(default="", repr=False)
    key_pem: str = field(default="", repr=False)
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Plugin:
    """A program to run for a credential."""

    api_version: str
    command: tuple[str, ...] = field(repr=False)  # arguments may be secrets
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    install_hint: str = ""
    interactive: str = "IfAvailable"
    cluster: str = field(default="", repr=False)  # what it is told of the cluster: JSON
    limit_s: float = 60.0  # for one that asks nobody

    @classmethod
    def of(cls, spec: Mapping[str, Any], file: Path, cluster: Mapping[str, Any]) -> "Plugin":
        """The `exec` of a kubeconfig's user; EngineUnavailable when it is none that we can run."""
        version, command = str(spec.get("apiVersion")), str(spec.get("command") or "")
        if version not in _VERSIONS or not command:
            raise EngineUnavailable(
                f"{file}: exec plugin {command or '(no command)'} speaks {version}, not one of "
                f"{', '.join(_VERSIONS)}",
                hint="update it and its kubeconfig: kubelogin convert-kubeconfig",
            )
        if "/" in command and not Path(command).is_absolute():
            command = str(file.parent / command)
        return cls(
            api_version=version,
            command=(command, *(str(each) for each in spec.get("args") or ())),
            environment=tuple(
                (str(each["name"]), str(each["value"])) for each in spec.get("env") or ()
            ),
            install_hint=str(spec.get("installHint") or ""),
            interactive=str(spec.get("interactiveMode") or "IfAvailable"),
            cluster=json.dumps(cluster) if spec.get("provideClusterInfo") else "",
        )

    @property
    def name(self) -> str:
        return Path(self.command[0]).name

    def run(self) -> Credential:
        """The credential; EngineUnavailable with the program's own words when there is none."""
        asks = self.interactive != "Never" and sys.stdin is not None and sys.stdin.isatty()
        if self.interactive == "Always" and not asks:
            raise EngineUnavailable(
                f"exec plugin {self.name} needs a terminal to log in",
                hint="run it from one, or log in without questions: kubelogin "
                "convert-kubeconfig -l azurecli",
            )
        return self._credential(self._run(asks=asks))

    def _run(self, *, asks: bool) -> bytes:
        spec: dict[str, Any] = {"interactive": asks}
        if self.cluster:
            spec["cluster"] = json.loads(self.cluster)
        told = {"apiVersion": self.api_version, "kind": "ExecCredential", "spec": spec}
        environment = {
            **os.environ, **dict(self.environment), "KUBERNETES_EXEC_INFO": json.dumps(told)
        }  # fmt: skip
        try:
            process = subprocess.Popen(
                [shutil.which(self.command[0]) or self.command[0], *self.command[1:]],
                env=environment,
                stdin=None if asks else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=not asks,  # it and what it starts can be ended then
            )
        except OSError as error:
            raise EngineUnavailable(
                f"exec plugin {self.command[0]} of the kubeconfig cannot be run: {error.strerror}",
                hint=self.install_hint.strip()
                or f"install {self.name}, or use a kubeconfig "
                "without it: az aks get-credentials --admin",
            ) from error
        return self._listen(process, asks=asks)

    def _listen(self, process: "subprocess.Popen[bytes]", *, asks: bool) -> bytes:
        """What it printed, within its time; its questions are shown as they come."""
        assert process.stdout is not None and process.stderr is not None  # noqa: PT018
        said: collections.deque[str] = collections.deque(maxlen=5)
        hearing = threading.Thread(target=_hear, args=(process.stderr, said, asks), daemon=True)
        limit_s = _PATIENCE_S if asks else self.limit_s
        end = process.kill if asks else functools.partial(_end_group, process)
        late = threading.Timer(limit_s, end)
        late.daemon = True
        with process:
            hearing.start()
            late.start()
            try:
                out = process.stdout.read()
                process.wait()
            finally:
                late.cancel()
                end()
            hearing.join(1.0)  # what it left running may keep the pipe open
        if process.returncode:
            ended = (
                f"did not end within {limit_s:.0f} s"
                if process.returncode < 0
                else f"failed with status {process.returncode}"
            )
            words = " ".join(" ".join(said).split())[-500:]
            raise EngineUnavailable(
                f"exec plugin {self.name} of the kubeconfig {ended}: {words or 'it said nothing'}",
                hint="log in again (az login), then try it: kubectl get nodes",
            )
        return out

    def _credential(self, out: bytes) -> Credential:
        try:
            told = json.loads(out)
            speaks, status = told["apiVersion"], told["status"]
            found = Credential(
                token=str(status.get("token") or ""),
                certificate_pem=str(status.get("clientCertificateData") or ""),
                key_pem=str(status.get("clientKeyData") or ""),
                expires_at=_time(status.get("expirationTimestamp")),
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            raise EngineUnavailable(
                f"exec plugin {self.name} of the kubeconfig: its answer is no ExecCredential",
                hint="update it, then try it: kubectl get nodes",
            ) from None  # never its words: the answer may be the secret
        if speaks != self.api_version:
            raise EngineUnavailable(
                f"exec plugin {self.name} of the kubeconfig answers in {speaks}, asked was "
                f"{self.api_version}",
                hint="update it and its kubeconfig: kubelogin convert-kubeconfig",
            )
        if not found.token and not (found.certificate_pem and found.key_pem):
            raise EngineUnavailable(
                f"exec plugin {self.name} of the kubeconfig gave neither a token nor a certificate",
                hint="log in again (az login), then try it: kubectl get nodes",
            )
        return found


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _hear(pipe: IO[bytes], said: "collections.deque[str]", shows: bool) -> None:
    for line in pipe:
        text = line.decode("utf-8", "replace")
        said.append(text)
        if shows:
            sys.stderr.write(text)
            sys.stderr.flush()


def _time(text: Any) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(str(text))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
