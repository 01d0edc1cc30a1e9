"""Who to be at a registry: the logins of docker's configuration, or of a pull secret.

Hides where a login is kept: in the file, in a docker-credential-* program beside it, or in a Secret
of the cluster, which holds the same file.
"""

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from imgpull.cluster.kube import Kube
from imgpull.cluster.kubeconfig import token_expiry
from imgpull.errors import ConfigError, EngineUnavailable

# What docker calls its own registry in its configuration.
DOCKER_HUB = "docker.io"
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
# `az acr login` stores a refresh token; ACR takes it as this user's password (ACR docs,
# "Authentication options": az acr login with --expose-token).
_TOKEN_USER = "00000000-0000-0000-0000-000000000000"
_PROGRAM_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Login:
    """A user of a registry; its password is never shown."""

    username: str
    password: str = field(repr=False)

    @property
    def expires_at(self) -> datetime | None:
        """When a token's time is over; None for a password, and a token that does not tell."""
        return token_expiry(self.password)


# The login for a repository ("host/path"), or None to be anonymous there.
Logins = Callable[[str], Login | None]


def docker_logins(path: Path | None = None) -> Logins:
    """The logins of docker's configuration: by default $DOCKER_CONFIG or ~/.docker.

    ConfigError when the file cannot be read, EngineUnavailable when its program cannot be run.
    """
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    file = path or folder / "config.json"
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        if path is not None:
            raise ConfigError(f"{path} does not exist", hint="docker login writes it") from None
        content = {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file} cannot be read as docker's configuration: {error}", hint=f"mend {file}"
        ) from error
    return _logins_of(content, str(file))


def secret_logins(kube: Kube, namespace: str, name: str) -> Logins:
    """The logins of a pull secret; ConfigError when it is none, ApiError when it cannot be read."""
    path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
    secret = kube.find(path)
    if secret is None:
        raise ConfigError(
            f"there is no Secret '{name}' in namespace {namespace}",
            hint=f"kubectl create secret docker-registry {name} -n {namespace} "
            "--docker-server=… --docker-username=… --docker-password=…",
        )
    data = secret.get("data") or {}
    try:
        if ".dockerconfigjson" in data:
            content = json.loads(base64.b64decode(data[".dockerconfigjson"]))
        else:
            content = {"auths": json.loads(base64.b64decode(data[".dockercfg"]))}
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"Secret '{name}' in namespace {namespace} is no pull secret",
            hint="its type is kubernetes.io/dockerconfigjson: kubectl create secret "
            f"docker-registry {name} -n {namespace} …",
        ) from error
    return _logins_of(content, f"Secret {namespace}/{name}")


def _logins_of(content: Any, where: str) -> Logins:
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where} is not docker's configuration", hint=f"mend {where}")
    stored: Mapping[str, Any] = content.get("auths") or {}
    programs: Mapping[str, str] = content.get("credHelpers") or {}
    program_of_all: str = content.get("credsStore") or ""

    def login(repository: str) -> Login | None:
        host = repository.partition("/")[0]
        own = programs.get(host)
        return (
            (_ask(own, host, where) if own else None)
            or _written(stored, repository, where)
            or (_ask(program_of_all, host, where) if program_of_all else None)
        )

    return login


def _written(stored: Mapping[str, Any], repository: str, where: str) -> Login | None:
    """The entry that names the most of a repository (kubernetes docs, "Images": how it matches)."""
    for key in sorted(stored, key=len, reverse=True):
        if _covers(key, repository) and (found := _decode(stored[key], where)):
            return found
    return None


def _covers(key: str, repository: str) -> bool:
    host, _, path = repository.partition("/")
    if host == DOCKER_HUB and key in (_DOCKER_HUB_KEY, "index.docker.io", DOCKER_HUB):
        return True
    named = key.partition("://")[2] or key
    key_host, _, key_path = named.partition("/")
    if key_path.rstrip("/") in ("v1", "v2"):  # as old versions of docker wrote them
        key_path = ""
    within = f"{path}/".startswith(f"{key_path.rstrip('/')}/") if key_path else True
    return fnmatchcase(host, key_host) and within


def _decode(entry: Any, where: str) -> Login | None:
    entry = entry if isinstance(entry, Mapping) else {}
    if entry.get("identitytoken"):
        return Login(_TOKEN_USER, entry["identitytoken"])
    if entry.get("auth"):
        try:
            username, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
        except (binascii.Error, ValueError) as error:
            raise ConfigError(
                f"{where}: an 'auth' is not base64 of user:password", hint="docker login again"
            ) from error
        return Login(username, password.rstrip("\0"))
    if entry.get("username"):
        return Login(entry["username"], entry.get("password") or "")
    return None


def _ask(program: str, host: str, where: str) -> Login | None:
    """What docker-credential-PROGRAM knows of a host (docker/docker-credential-helpers)."""
    command = f"docker-credential-{program}"
    server = _DOCKER_HUB_KEY if host == DOCKER_HUB else host
    try:
        done = subprocess.run(
            [command, "get"], input=server, capture_output=True, text=True, check=False,
            timeout=_PROGRAM_TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineUnavailable(
            f"{where} names {command}, which cannot be run: {error}",
            hint=f"install {command}, or remove it from {where}",
        ) from error
    if done.returncode:
        return None  # it says so when it knows none
    try:
        found = json.loads(done.stdout)
        username, password = found["Username"], found["Secret"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineUnavailable(
            f"{command} did not answer as a credential program does", hint="docker login again"
        ) from error
    return Login(_TOKEN_USER if username == "<token>" else username, password)
