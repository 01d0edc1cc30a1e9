"""HTTP connections to one API server: TLS, proxies and the credential, renewed when it ends.

Hides urllib3's pools and that a private key must be a file to be loaded: it is one for as long as
that takes.
"""

import contextlib
import ipaddress
import os
import ssl
import tempfile
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from imgpull.cluster.kubeconfig import Access
from imgpull.errors import EngineUnavailable

_POOL = 16  # connections: some watches, and threads that ask meanwhile
_EARLY = timedelta(seconds=60)  # a token is renewed so long before its end
_PLUGIN_PAUSE_S = 5.0  # and its plugin is not asked more often than that
_REREAD_S = 60.0  # how often a pod's own token is read again: it rotates


class Connection:
    """A pool of connections of one access. Thread-safe."""

    def __init__(self, access: Access) -> None:
        self._lock = threading.Lock()
        self._asked = access
        self._access = access.resolved()
        self._resolved_at = datetime.now(UTC)
        self._secrets = set(self._access.secrets())
        self.pool = _pool(self._access)

    def headers(self) -> Mapping[str, str]:
        """What authenticates a request now; a credential that still counts outlives its renewal.

        EngineUnavailable when it is over and no other can be had.
        """
        with self._lock:
            if self._is_due():
                try:
                    self._renew()
                except EngineUnavailable:
                    ends = self._access.expires_at
                    if ends is not None and ends <= datetime.now(UTC):
                        raise
                    self._resolved_at = datetime.now(UTC)  # not tried again at once
            return self._access.headers()

    def refused(self, headers: Mapping[str, str]) -> bool:
        """Told that the server refused these headers: whether there are newer ones to try.

        EngineUnavailable when no other can be had.
        """
        with self._lock:
            if self._access.headers() != headers:
                return True  # another thread was quicker
            if self._asked.plugin is None and self._asked.token_file is None:
                return False
            self._renew()
            return self._access.headers() != headers

    def secrets(self) -> frozenset[str]:
        """All credentials that were in use."""
        with self._lock:
            return frozenset(self._secrets)

    def close(self) -> None:
        """Close the connections."""
        self.pool.clear()

    def _is_due(self) -> bool:
        now = datetime.now(UTC)
        if self._asked.token_file is not None:
            return (now - self._resolved_at).total_seconds() > _REREAD_S
        ends = self._access.expires_at
        if self._asked.plugin is None or ends is None or ends - now > _EARLY:
            return False
        # One that lives shorter than that is kept for some seconds all the same.
        return (now - self._resolved_at).total_seconds() > _PLUGIN_PAUSE_S

    def _renew(self) -> None:
        before, self._access = self._access, self._asked.resolved()
        self._resolved_at = datetime.now(UTC)
        self._secrets |= self._access.secrets()
        if (before.certificate_pem, before.key_pem) != (
            self._access.certificate_pem,
            self._access.key_pem,
        ):
            self.pool = _pool(self._access)


def _pool(access: Access) -> Any:
    import urllib3

    kwargs: dict[str, Any] = {"maxsize": _POOL, "num_pools": 2, "block": False}
    if access.server.startswith("https:"):
        kwargs["ssl_context"] = _tls(access)
        if access.tls_server_name:
            kwargs["server_hostname"] = access.tls_server_name
            kwargs["assert_hostname"] = access.tls_server_name
        if access.skips_verification:
            kwargs |= {"assert_hostname": False, "cert_reqs": "CERT_NONE"}
            # Asked for in the kubeconfig: one warning a request helps nobody.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    proxy = access.proxy_url or _proxy_of_environment(access.server)
    if not proxy:
        return urllib3.PoolManager(**kwargs)
    told = urlsplit(proxy)
    if told.scheme not in ("http", "https") or not told.hostname:
        raise EngineUnavailable(
            f"the proxy {told.scheme}://{told.hostname} is none that imgpull can use",
            hint="an http:// or https:// proxy in the kubeconfig's proxy-url or in HTTPS_PROXY",
        )
    where = told._replace(netloc=told.netloc.rpartition("@")[2]).geturl()
    headers = {}
    if told.username:
        pair = f"{told.username}:{told.password or ''}"
        headers = urllib3.make_headers(proxy_basic_auth=pair)
    return urllib3.ProxyManager(where, proxy_headers=headers, **kwargs)


def _proxy_of_environment(server: str) -> str:
    told = urlsplit(server)
    names = ("HTTPS_PROXY", "https_proxy") if told.scheme == "https" else ("http_proxy",)
    proxy = next((os.environ[each] for each in names if os.environ.get(each)), "")
    host = told.hostname or ""
    if not proxy or _is_local(host) or proxy_bypass(host) or _is_in_no_proxy(host):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_in_no_proxy(host: str) -> bool:
    """Whether an address is in one of NO_PROXY's networks: Go knows them, Python does not."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for each in f"{os.environ.get('NO_PROXY', '')},{os.environ.get('no_proxy', '')}".split(","):
        with contextlib.suppress(ValueError):
            if address in ipaddress.ip_network(each.strip(), strict=False):
                return True
    return False


def _is_local(host: str) -> bool:
    """As Go does, which kubectl is written in: a proxy never leads to this machine itself."""
    return host == "localhost" or host.startswith("127.") or host == "::1"


def _tls(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=access.ca_pem or None)
    except ssl.SSLError as error:
        raise EngineUnavailable(
            "the kubeconfig's certificate-authority is no PEM certificate",
            hint="get it again: az aks get-credentials …",
        ) from error
    # Clusters' own authorities lack extensions that Python 3.13 asks for.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if access.skips_verification:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if access.certificate_pem:
        _load_certificate(context, access)
    return context


def _load_certificate(context: ssl.SSLContext, access: Access) -> None:
    with tempfile.TemporaryDirectory(prefix="imgpull-") as directory:  # of mode 0700
        file = Path(directory, "pair.pem")
        file.write_text(f"{access.certificate_pem}\n{access.key_pem}\n", encoding="utf-8")
        try:
            context.load_cert_chain(file, password=lambda: "")  # never asks on the terminal
        except (ssl.SSLError, ValueError) as error:
            raise EngineUnavailable(
                f"the kubeconfig's client certificate and key do not fit: {error}",
                hint="get them again: az aks get-credentials …",
            ) from error
