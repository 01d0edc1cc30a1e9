"""A kubeconfig that works anywhere for a while, and what must never be written down.

Hides where a credential comes from: files beside a kubeconfig, tokens, programs that print one
(client.authentication.k8s.io, as Azure AD's kubelogin). ClusterLoader2's image has neither those
files nor those programs, so what they give is written into one private file outside any sweep.
"""

import base64
import binascii
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from imgpull import units
from imgpull.errors import EngineUnavailable

_EXEC_S = 120.0  # a log-in may ask a server, never a person
_FILES = {
    "certificate-authority": "certificate-authority-data",
    "client-certificate": "client-certificate-data",
    "client-key": "client-key-data",
}
_SECRET_KEYS = ("client-key-data", "client-certificate-data", "token", "password")


@dataclass(frozen=True)
class PortableKubeconfig:
    """A kubeconfig file with everything in it; gone when its context ends."""

    path: Path
    expires_at: datetime | None  # None: it does not say
    secrets: frozenset[str]


@contextmanager
def portable(
    kubeconfig: Path | None, context: str | None, lasting_s: float
) -> Iterator[PortableKubeconfig]:
    """The context's access in one private file; EngineUnavailable when it would not last.

    Programs that print a credential run here, now: each call gets a fresh one.
    """
    config, name = _chosen(kubeconfig, context)
    expires_at = _resolve(config)
    _require_lasting(expires_at, lasting_s, name)
    secrets = frozenset(_secrets(config))
    with tempfile.TemporaryDirectory(prefix="imgpull-access-") as directory:  # mode 0700
        path = Path(directory) / "kubeconfig"
        with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            yaml.safe_dump(config, file)
        yield PortableKubeconfig(path, expires_at, secrets)


def _chosen(kubeconfig: Path | None, context: str | None) -> tuple[dict[str, Any], str]:
    """A config of one context, cluster and user, with paths made absolute; and its name."""
    merged = _merged(_paths(kubeconfig))
    name = context or merged.get("current-context") or ""
    chosen = _named(merged, "contexts", name, "context", kubeconfig)
    cluster = _named(merged, "clusters", str(chosen.get("cluster")), "cluster", kubeconfig)
    user: dict[str, Any] = {}
    if chosen.get("user"):
        user = _named(merged, "users", str(chosen["user"]), "user", kubeconfig)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "imgpull",
        "contexts": [{"name": "imgpull", "context": {"cluster": "imgpull", "user": "imgpull"}}],
        "clusters": [{"name": "imgpull", "cluster": dict(cluster)}],
        "users": [{"name": "imgpull", "user": dict(user)}],
    }
    return config, name


def _paths(kubeconfig: Path | None) -> list[Path]:
    """As kubectl looks for them."""
    if kubeconfig is not None:
        return [kubeconfig.expanduser()]
    told = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return [path for path in told if path.exists()] or [Path.home() / ".kube" / "config"]


def _merged(paths: Iterable[Path]) -> dict[str, Any]:
    """Files merged as kubectl does: the first that says something counts."""
    merged: dict[str, Any] = {}
    for path in paths:
        try:
            found = yaml.safe_load(path.read_text("utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise EngineUnavailable(
                f"the kubeconfig {path} cannot be read: {' '.join(str(error).split())}",
                hint="engine.kubeconfig=FILE, or az aks get-credentials …",
            ) from error
        if not isinstance(found, dict):
            raise EngineUnavailable(f"{path} is no kubeconfig", hint="engine.kubeconfig=FILE")
        merged.setdefault("current-context", found.get("current-context"))
        for part in ("contexts", "clusters", "users"):
            entries = [_absolute(entry, path.parent) for entry in found.get(part) or ()]
            merged.setdefault(part, []).extend(entries)
    return merged


def _absolute(entry: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Paths in a kubeconfig are relative to it."""
    made: dict[str, Any] = {**entry}
    for part in ("cluster", "user"):
        inner = dict(entry.get(part) or {}) if isinstance(entry.get(part), Mapping) else {}
        for key in (*_FILES, "tokenFile"):
            if inner.get(key):
                inner[key] = str(base.absolute() / inner[key])
        if isinstance(inner.get("exec"), Mapping) and "/" in str(inner["exec"].get("command", "")):
            command = str(base.absolute() / inner["exec"]["command"])
            inner["exec"] = {**inner["exec"], "command": command}
        if inner:
            made[part] = inner
    return made


def _named(
    merged: Mapping[str, Any], part: str, name: str, key: str, kubeconfig: Path | None
) -> dict[str, Any]:
    entries = merged.get(part) or []
    for entry in entries:
        if entry.get("name") == name:
            return dict(entry.get(key) or {})
    known = ", ".join(str(entry.get("name")) for entry in entries) or "none"
    raise EngineUnavailable(
        f"{kubeconfig or 'the kubeconfig'} has no {key} '{name}'",
        hint=f"engine.context=NAME; {part} there: {known}",
    )


def _resolve(config: dict[str, Any]) -> datetime | None:
    """Put what files and programs say into the config itself; when the credential expires."""
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    for section in (cluster, user):
        for key, data_key in _FILES.items():
            if path := section.pop(key, None):
                section.setdefault(data_key, _encoded(Path(path)))
    if path := user.pop("tokenFile", None):
        user["token"] = _text(Path(path)).strip()
    asked = user.pop("exec", None)
    if "auth-provider" in user:
        raise EngineUnavailable(
            "the kubeconfig's user has an auth-provider, which Kubernetes has removed",
            hint="az aks get-credentials … --overwrite-existing, then kubelogin convert-kubeconfig",
        )
    expires_at = None
    if asked is not None:
        status = _ask(asked, cluster)
        expires_at = _time(status.get("expirationTimestamp"))
        for key, source in (
            ("token", "token"),
            ("client-certificate-data", "clientCertificateData"),
            ("client-key-data", "clientKeyData"),
        ):
            if value := status.get(source):
                user[key] = value if key == "token" else base64.b64encode(value.encode()).decode()
    return expires_at or _token_end(user.get("token"))


def _encoded(path: Path) -> str:
    return base64.b64encode(_text(path).encode()).decode()


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EngineUnavailable(
            f"the kubeconfig names {path}, which cannot be read: {error}",
            hint="az aks get-credentials …, or mend the kubeconfig",
        ) from error


def _ask(plugin: Mapping[str, Any], cluster: Mapping[str, Any]) -> Mapping[str, Any]:
    """The status of the ExecCredential that a program prints."""
    command = [str(plugin.get("command", "")), *map(str, plugin.get("args") or ())]
    spec: dict[str, Any] = {"interactive": False}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = {key: value for key, value in cluster.items() if key != "extensions"}
    told = {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential", "spec": spec}
    environment = {**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(told)}
    environment |= {each["name"]: str(each["value"]) for each in plugin.get("env") or ()}
    hint = f"try it: {' '.join(command)}; log in first (az login)"
    if plugin.get("installHint"):
        hint += f"; {plugin['installHint']}"
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_EXEC_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            words = " ".join(done.stderr.split())[-300:] or "it said nothing"
            raise EngineUnavailable(
                f"the kubeconfig's {command[0]} exited {done.returncode}: {words}", hint=hint
            )
        status = json.loads(done.stdout)["status"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        raise EngineUnavailable(
            f"the kubeconfig's {command[0]} gives no credential: {' '.join(str(error).split())}",
            hint=hint,
        ) from error
    return status if isinstance(status, Mapping) else {}


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except (TypeError, ValueError):
        return None


def _token_end(token: Any) -> datetime | None:
    """When a JSON web token expires; None for tokens that do not say."""
    parts = str(token or "").split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (binascii.Error, ValueError, KeyError, TypeError):
        return None


def _require_lasting(expires_at: datetime | None, lasting_s: float, context: str) -> None:
    if expires_at is None or expires_at >= datetime.now(UTC) + timedelta(seconds=lasting_s):
        return
    left_s = (expires_at - datetime.now(UTC)).total_seconds()
    raise EngineUnavailable(
        f"the credential of context {context} expires in {max(0, left_s) / 60:.0f} min, a trial "
        f"may take {units.format_duration(round(lasting_s))} (trial_limit)",
        hint="az aks get-credentials --admin …, a ServiceAccount's token, a shorter trial_limit, "
        "or engine=incluster, which needs none",
    )


def _secrets(config: Mapping[str, Any]) -> Iterator[str]:
    """The secrets of a kubeconfig as written, and as they look decoded, line by line."""
    user = config["users"][0]["user"]
    for key in _SECRET_KEYS:
        value = str(user.get(key) or "")
        if value:
            yield value
        if key.endswith("-data") and value:
            try:
                decoded = base64.b64decode(value).decode("utf-8", "replace")
            except binascii.Error:
                continue
            yield from (line for line in decoded.splitlines() if _is_material(line))


def _is_material(line: str) -> bool:
    return len(line) >= 16 and not line.startswith("-----")


# What looks like a secret whoever's it is: the field's usual spellings.
_PATTERNS = re.compile(
    r"(?P<head>\bBearer\s+|\bsig=|\"auth\"\s*:\s*\"|\"(?:identitytoken|registrytoken)\"\s*:\s*\""
    r"|\b(?:client-key-data|client-certificate-data|token|password)\"?\s*:\s*\"?)"
    r"(?P<secret>[^\s\"'&,}]{8,})"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[^\n]*"
)
REDACTED = "REDACTED"


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that replaces these secrets, and whatever looks like one, in a text."""
    known = sorted({secret for secret in secrets if len(secret) >= 8}, key=len, reverse=True)
    exact = re.compile("|".join(map(re.escape, known))) if known else None

    def redact(text: str) -> str:
        if exact is not None:
            text = exact.sub(REDACTED, text)
        return _PATTERNS.sub(lambda found: f"{found['head'] or ''}{REDACTED}", text)

    return redact
