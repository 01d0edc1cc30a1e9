"""Where a cluster is and who one is there, as kubectl would read it.

Hides the kubeconfig format: files that are merged (by the `kubernetes` package), contexts, paths
relative to the file that names them, credentials in files, and the account that a pod finds itself
with. That package's own log-in is not used: of an exec plugin that fails it only logs, and private
keys stay behind in /tmp when the process is killed.
"""

import base64
import binascii
import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from imgpull.cluster.exec_plugin import Plugin
from imgpull.errors import EngineUnavailable

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # mounted into every pod
_HINT = "az aks get-credentials …, or name one: engine.kubeconfig=FILE engine.context=NAME"


@dataclass(frozen=True)
class Access:
    """One API server and the credential for it."""

    server: str
    context: str
    namespace: str = "default"
    ca_pem: str = field(default="", repr=False)  # empty: the system's authorities
    skips_verification: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    certificate_pem: str = field(default="", repr=False)
    key_pem: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    impersonated: tuple[tuple[str, str], ...] = ()  # headers
    plugin: Plugin | None = None
    expires_at: datetime | None = None

    def resolved(self) -> "Access":
        """The same with its credential in hand: the plugin has run, the token file is read.

        EngineUnavailable when the plugin fails.
        """
        if self.plugin is not None:
            got = self.plugin.run()
            return replace(
                self,
                token=got.token,
                certificate_pem=got.certificate_pem or self.certificate_pem,
                key_pem=got.key_pem or self.key_pem,
                expires_at=got.expires_at or token_expiry(got.token),
            )
        token = self.token
        if self.token_file is not None:
            token = _read(self.token_file, "tokenFile").strip()
        return replace(self, token=token, expires_at=token_expiry(token))

    def headers(self) -> dict[str, str]:
        """What authenticates a request."""
        headers = dict(self.impersonated)
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        elif self.username:
            pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
        return headers

    def secrets(self) -> frozenset[str]:
        """What must never be written anywhere, in each way that it may be written."""
        basic = self.headers().get("Authorization", "").partition(" ")[2]
        plain = {self.token, self.password, self.key_pem, basic}
        return frozenset(
            text
            for each in plain
            if len(each) >= 8  # a shorter one would blacken words
            for text in (each, base64.b64encode(each.encode()).decode())
        )


def read(kubeconfig: Path | None = None, context: str | None = None) -> Access:
    """The access that a kubeconfig's context gives: by default as kubectl chooses it.

    EngineUnavailable when the file, the context or a part of it cannot be had. No plugin runs yet.
    """
    files = _files(kubeconfig)
    if not files and context is None and (account := in_cluster()):
        return account
    if not files:
        named = os.environ.get("KUBECONFIG") or "~/.kube/config"
        raise EngineUnavailable(f"there is no kubeconfig: {named} does not exist", hint=_HINT)
    named = " + ".join(map(str, files))
    merged = _merged(files)
    chosen = context or merged.current
    if not chosen:
        raise EngineUnavailable(f"{named} has no current-context", hint=_names(merged.contexts))
    place = merged.contexts.get(chosen)
    if place is None:
        raise EngineUnavailable(f"{named} has no context {chosen}", hint=_names(merged.contexts))
    cluster = merged.clusters.get(str(place.get("cluster")))
    if cluster is None or not cluster.get("server"):
        raise EngineUnavailable(
            f"{named}: context {chosen} names cluster {place.get('cluster')}, which has no server",
            hint=_HINT,
        )
    user = merged.users.get(str(place.get("user")), {})
    if place.get("user") and str(place["user"]) not in merged.users:
        raise EngineUnavailable(
            f"{named}: context {chosen} names user {place['user']}, who is not in it", hint=_HINT
        )
    return _access(chosen, str(place.get("namespace") or "default"), cluster, user)


def in_cluster(account: Path = _ACCOUNT) -> Access | None:
    """The access of the pod that this runs in, if it does."""
    host, port = (
        os.environ.get("KUBERNETES_SERVICE_HOST"),
        os.environ.get("KUBERNETES_SERVICE_PORT"),
    )
    if not host or not (account / "token").is_file():
        return None
    return Access(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port or 443}",
        context="in-cluster",
        ca_pem=_read(account / "ca.crt", "the service account's ca.crt"),
        token_file=account / "token",
    )


def token_expiry(token: str) -> datetime | None:
    """When a token ends by its own words; None when it does not say, or is no JWT."""
    return _claimed(token, "exp")


def token_life_s(token: str) -> float | None:
    """For how long a token counts in all, by its own words; None when it does not say."""
    begun, ends = _claimed(token, "iat"), _claimed(token, "exp")
    return (ends - begun).total_seconds() if begun and ends else None


def _claimed(token: str, claim: str) -> datetime | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    with contextlib.suppress(ValueError, TypeError, KeyError, OverflowError, binascii.Error):
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(float(claims[claim]), UTC)
    return None


@dataclass
class _Merged:
    """Several files as one: what comes first counts."""

    current: str = ""
    clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    contexts: dict[str, dict[str, Any]] = field(default_factory=dict)


def _files(kubeconfig: Path | None) -> list[Path]:
    if kubeconfig is not None:
        if not kubeconfig.expanduser().is_file():
            raise EngineUnavailable(f"{kubeconfig}: there is no such kubeconfig", hint=_HINT)
        return [kubeconfig.expanduser()]
    told = os.environ.get("KUBECONFIG")
    paths = [Path(each) for each in told.split(os.pathsep) if each] if told else []
    paths = paths or [Path("~/.kube/config").expanduser()]
    return [path for path in paths if path.is_file()]


def _merged(files: Iterable[Path]) -> _Merged:
    from kubernetes.config.kube_config import (  # half a second: only for real clusters
        ENV_KUBECONFIG_PATH_SEPARATOR,
        KubeConfigMerger,
    )

    merged = _Merged()
    for file in files:  # what is wrong is told with its file
        content = _content(file)
        for kind in ("clusters", "users", "contexts"):
            _list(content.get(kind), file, kind)
        # It takes the last file's, kubectl the first one's.
        merged.current = merged.current or str(content.get("current-context") or "")
    found = KubeConfigMerger(ENV_KUBECONFIG_PATH_SEPARATOR.join(map(str, files))).config.value
    for kind, into in (("cluster", merged.clusters), ("user", merged.users),
                       ("context", merged.contexts)):  # fmt: skip
        for each in found[f"{kind}s"]:
            into[str(each.value.get("name"))] = {
                **(each.value.get(kind) or {}), "_in": Path(each.path)
            }  # fmt: skip
    return merged


def _content(file: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        # Never the parser's own words: they quote the line, which may be a secret.
        what = error.strerror if isinstance(error, OSError) else "it is not YAML"
        raise EngineUnavailable(f"{file} cannot be read: {what}", hint=_HINT) from None
    if not isinstance(content, dict):
        raise EngineUnavailable(f"{file} is no kubeconfig", hint=_HINT)
    return content


def _list(found: Any, file: Path, name: str) -> list[dict[str, Any]]:
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise EngineUnavailable(f"{file} is no kubeconfig: {name} is not a list", hint=_HINT)
    return found


def _access(
    context: str, namespace: str, cluster: Mapping[str, Any], user: Mapping[str, Any]
) -> Access:
    ca_pem = _pem(cluster, "certificate-authority")
    skips = bool(cluster.get("insecure-skip-tls-verify"))
    plugin = None
    if spec := user.get("exec"):
        plugin = Plugin.of(spec, user["_in"], _told_to_plugin(cluster, ca_pem))
    elif not user.get("token") and (provider := user.get("auth-provider")):
        return _legacy(context, namespace, cluster, provider)
    return Access(
        server=str(cluster["server"]).rstrip("/"),
        context=context,
        namespace=namespace,
        ca_pem=ca_pem,
        skips_verification=skips,
        tls_server_name=str(cluster.get("tls-server-name") or ""),
        proxy_url=str(cluster.get("proxy-url") or ""),
        certificate_pem=_pem(user, "client-certificate"),
        key_pem=_pem(user, "client-key"),
        token=str(user.get("token") or ""),
        token_file=_path(user, "tokenFile"),
        username=str(user.get("username") or ""),
        password=str(user.get("password") or ""),
        impersonated=_impersonated(user),
        plugin=plugin,
    )


def _legacy(
    context: str, namespace: str, cluster: Mapping[str, Any], provider: Mapping[str, Any]
) -> Access:
    """A provider of kubectl's own; what it stored is used as long as it lasts."""
    settings = provider.get("config") or {}
    token = str(settings.get("id-token") or settings.get("access-token") or "")
    ends = token_expiry(token)
    if not token or (ends is not None and ends <= datetime.now(UTC)):
        raise EngineUnavailable(
            f"context {context} logs in by auth-provider {provider.get('name')}, and its token has "
            "expired",
            hint="kubectl get nodes renews it; or use an exec plugin: kubelogin convert-kubeconfig",
        )
    return _access(context, namespace, cluster, {"token": token})


def _told_to_plugin(cluster: Mapping[str, Any], ca_pem: str) -> dict[str, Any]:
    told = {
        "server": cluster["server"],
        "tls-server-name": cluster.get("tls-server-name"),
        "insecure-skip-tls-verify": cluster.get("insecure-skip-tls-verify"),
        "certificate-authority-data": base64.b64encode(ca_pem.encode()).decode(),
        "proxy-url": cluster.get("proxy-url"),
    }
    return {key: value for key, value in told.items() if value}


def _pem(section: Mapping[str, Any], key: str) -> str:
    """Data that is in the kubeconfig, or in a file that it names."""
    if data := section.get(f"{key}-data"):
        try:
            return base64.b64decode(data).decode()
        except (ValueError, TypeError, binascii.Error):
            raise EngineUnavailable(
                f"{section['_in']}: {key}-data is not base64", hint=_HINT
            ) from None
    path = _path(section, key)
    return _read(path, key) if path else ""


def _path(section: Mapping[str, Any], key: str) -> Path | None:
    found = section.get(key)
    return section["_in"].parent / Path(str(found)).expanduser() if found else None


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else "it is not text"
        raise EngineUnavailable(f"{what} {path} cannot be read: {told}", hint=_HINT) from error


def _impersonated(user: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    if user.get("as-groups") or user.get("as-user-extra"):
        raise EngineUnavailable(
            "the kubeconfig's user impersonates groups (as-groups), which imgpull cannot",
            hint="a context without as-groups: engine.context=NAME",
        )
    told = (("Impersonate-User", user.get("as")), ("Impersonate-Uid", user.get("as-uid")))
    return tuple((key, str(value)) for key, value in told if value)


def _names(contexts: Iterable[str]) -> str:
    known = ", ".join(contexts)
    return f"engine.context=NAME, one of: {known}" if known else _HINT
