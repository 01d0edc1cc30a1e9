"""A kubeconfig that works anywhere for a while, as ClusterLoader2 needs it.

Hides where a credential comes from: CL2's image has neither the files beside a kubeconfig nor the
programs that it names, so what they give is written into one private file outside any sweep.
"""

import base64
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from imgpull import processes, units
from imgpull.cluster import kubeconfig as kubeconfigs
from imgpull.cluster.findings import Finding, of_error, ok, warning
from imgpull.cluster.kubeconfig import Access
from imgpull.cluster.redaction import redactor as redactor
from imgpull.errors import EngineUnavailable

_PREFIX = "imgpull-access-"
_ASK_AGAIN_S = 60.0
_LASTS_LONGER = (
    "az aks get-credentials --admin …, a ServiceAccount's token (kubectl create token NAME "
    "--duration=24h), a shorter trial_limit, or engine=incluster, which needs none"
)


@dataclass(frozen=True)
class PortableKubeconfig:
    """A kubeconfig file with everything in it; gone when its context ends."""

    path: Path
    expires_at: datetime | None  # None: it does not say
    secrets: frozenset[str]


@contextmanager
def portable(
    kubeconfig: Path | None,
    context: str | None,
    lasting_s: float,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[PortableKubeconfig]:
    """The context's access in one private file; EngineUnavailable when it would not last.

    Programs that print a credential run here, now. They keep theirs until shortly before its end
    (az, kubelogin): where a whole new one would last, it is waited for.
    """
    asked = kubeconfigs.read(kubeconfig, context)
    access = asked.resolved()
    while (left_s := _left_s(access)) < lasting_s and _next_lasts(access, lasting_s):
        say(f"waiting up to {left_s / 60:.0f} min for the next credential: this one ends too soon")
        time.sleep(min(_ASK_AGAIN_S, left_s))
        access = asked.resolved()
    _require_lasting(access, lasting_s)
    _remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as directory:  # mode 0700
        path = Path(directory) / "kubeconfig"
        with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            yaml.safe_dump(_content(access), file)
        yield PortableKubeconfig(path, access.expires_at, access.secrets())


def lasting(kubeconfig: Path | None, context: str | None, lasting_s: float) -> Iterator[Finding]:
    """Whether a trial of so many seconds can have a credential that lasts."""
    check, access = "credential", kubeconfigs.read(kubeconfig, context).resolved()
    if access.expires_at is None:
        return
    left_s, limit = _left_s(access), units.format_duration(round(lasting_s))
    if left_s >= lasting_s:
        yield ok(check, f"lasts {left_s / 60:.0f} min, a trial at most {limit}")
    elif _next_lasts(access, lasting_s):
        yield warning(
            check, f"it ends in {left_s / 60:.0f} min, a trial may take {limit} (trial_limit): "
            "trials wait for the next one", _LASTS_LONGER,
        )  # fmt: skip
    else:
        try:
            _require_lasting(access, lasting_s)
        except EngineUnavailable as error:
            yield of_error(check, error, _LASTS_LONGER)


def _left_s(access: Access) -> float:
    """Until its end; infinite when it does not say."""
    if access.expires_at is None:
        return math.inf
    return (access.expires_at - datetime.now(UTC)).total_seconds()


def _next_lasts(access: Access, lasting_s: float) -> bool:
    """Whether the plugin's next credential will last so long, as far as this one tells."""
    life_s = kubeconfigs.token_life_s(access.token)
    return access.plugin is not None and life_s is not None and _left_s(access) > 0 and (
        life_s >= lasting_s
    )  # fmt: skip


def _require_lasting(access: Access, lasting_s: float) -> None:
    left_s = _left_s(access)
    if access.expires_at is None or left_s >= lasting_s:
        return
    if left_s <= 0:
        raise EngineUnavailable(
            f"the credential of context {access.context} has expired "
            f"({access.expires_at:%Y-%m-%d %H:%M} UTC)",
            hint="log in again: az login; az aks get-credentials …",
        )
    raise EngineUnavailable(
        f"the credential of context {access.context} expires in {left_s / 60:.0f} min, a trial may "
        f"take {units.format_duration(round(lasting_s))} (trial_limit)",
        hint=_LASTS_LONGER,
    )


def _content(access: Access) -> dict[str, Any]:
    cluster = {
        "server": access.server,
        "certificate-authority-data": _encoded(access.ca_pem),
        "insecure-skip-tls-verify": access.skips_verification or None,
        "tls-server-name": access.tls_server_name,
        "proxy-url": access.proxy_url,
    }
    user = {
        "client-certificate-data": _encoded(access.certificate_pem),
        "client-key-data": _encoded(access.key_pem),
        "token": access.token,
        "username": access.username,
        "password": access.password,
        **{_IMPERSONATION[key]: value for key, value in access.impersonated},
    }
    place = {"cluster": "imgpull", "user": "imgpull", "namespace": access.namespace}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "imgpull",
        "contexts": [{"name": "imgpull", "context": place}],
        "clusters": [{"name": "imgpull", "cluster": _filled(cluster)}],
        "users": [{"name": "imgpull", "user": _filled(user)}],
    }


_IMPERSONATION = {"Impersonate-User": "as", "Impersonate-Uid": "as-uid"}


def _filled(section: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if value}


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _remove_abandoned(directory: Path) -> None:
    """Remove what a killed process of ours left: a credential should not outlive its use."""
    for path in directory.glob(f"{_PREFIX}*-*"):
        found = re.fullmatch(rf"{_PREFIX}(\d+)-.+", path.name)
        if found and not path.is_symlink() and _is_ours(path) and not processes.runs(int(found[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_ours(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    # A young one may be of another machine that shares this directory, or of a container.
    age = datetime.now(UTC) - datetime.fromtimestamp(status.st_mtime, UTC)
    return status.st_uid == os.getuid() and age > timedelta(days=1)
