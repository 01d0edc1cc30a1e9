"""Who one is on which cluster: imgpull/cluster/kubeconfig.py, exec_plugin.py, connection.py."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tls
from apiserver import ApiServer
from kubeconfigs import V1, answer, b64, jwt, plugin, program, write
from standins import eventually, is_running

from imgpull.cluster import connection, exchange, kubeconfig
from imgpull.cluster.kube import ApiError, Kube
from imgpull.errors import EngineUnavailable

SOON = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user with no kubeconfig, outside any pod, without proxies."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "https_proxy",
                 "http_proxy", "NO_PROXY", "no_proxy"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


def names(kube: Kube) -> list[str]:
    with_close = list(kube.items("/api/v1/namespaces"))
    kube.close()
    return [each["metadata"]["name"] for each in with_close]


def refusal(path: Path, context: str | None = None) -> EngineUnavailable:
    with pytest.raises(EngineUnavailable) as refused:
        Kube.open(path, context)
    assert refused.value.hint
    return refused.value


# Which file, which context


def test_the_named_file_then_the_environment_then_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "home" / ".kube" / "config", "http://home", user={"token": "t"})
    assert kubeconfig.read().server == "http://home"
    monkeypatch.setenv("KUBECONFIG", str(write(tmp_path / "told", "http://told")))
    assert kubeconfig.read().server == "http://told"
    named = write(tmp_path / "named", "http://named/")
    assert kubeconfig.read(named).server == "http://named"


def test_several_files_are_one_and_the_first_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write(tmp_path / "1", "http://one", context="a", current=None)
    two = write(tmp_path / "2", "http://two", context="a", current="b")
    three = write(tmp_path / "3", "http://three", context="b", current="a")
    monkeypatch.setenv(
        "KUBECONFIG", os.pathsep.join(map(str, (one, tmp_path / "none", two, three)))
    )
    assert kubeconfig.read().server == "http://three"
    assert kubeconfig.read(context="a").server == "http://one"


def test_a_context_is_chosen_by_name(tmp_path: Path, apiserver: ApiServer) -> None:
    path = write(tmp_path / "config", apiserver.url, context="mine", current=None)
    kube = Kube.open(path, "mine")
    assert kube.context == "mine"
    assert "kube-system" in names(kube)


@pytest.mark.parametrize(
    ("content", "context", "says"),
    [
        (None, None, "there is no such kubeconfig"),
        ("{", None, "it is not YAML"),
        ("token: [1, *2", None, "it is not YAML"),
        ("just text", None, "is no kubeconfig"),
        ("clusters: {a: b}", None, "clusters is not a list"),
        ("contexts: [{name: x, context: {}}]", None, "no current-context"),
        ("contexts: [{name: x, context: {}}]", "y", "has no context y"),
        (
            "contexts: [{name: x, context: {cluster: c}}]",
            "x",
            "names cluster c, which has no server",
        ),
        (
            "{contexts: [{name: x, context: {cluster: c, user: u}}], "
            "clusters: [{name: c, cluster: {server: 'http://s'}}]}",
            "x",
            "names user u, who is not in it",
        ),
    ],
)
def test_a_bad_kubeconfig_is_refused_with_what_is_wrong(
    tmp_path: Path, content: str | None, context: str | None, says: str
) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    refused = refusal(path, context)
    assert says in refused.message
    assert str(path) in refused.message
    if context == "y":
        assert "one of: x" in refused.hint


def test_without_any_kubeconfig_that_is_said() -> None:
    with pytest.raises(EngineUnavailable, match=r"~/\.kube/config does not exist"):
        Kube.open()


def test_no_refusal_quotes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("users: [{user: {token: very-secret-token}}, *x\n")
    assert "very-secret-token" not in str(refusal(path))
    write(path, user={"client-key-data": "very-secret-token!"})
    assert "very-secret-token" not in str(refusal(path))


def test_a_pod_is_who_its_service_account_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("of-the-pod\n")
    (tmp_path / "ca.crt").write_text(tls.authority().pair.certificate)
    assert kubeconfig.in_cluster(tmp_path) is None
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    access = kubeconfig.in_cluster(tmp_path)
    assert access is not None
    assert access.server == "https://[fd00::1]:6443"
    assert access.resolved().token == "of-the-pod"


# Who one is


@pytest.mark.parametrize(
    ("user", "header"),
    [
        ({"token": "a-token-in-it"}, "Bearer a-token-in-it"),
        ({"tokenFile": "beside.token", "token": "older"}, "Bearer from-the-file"),
        ({"username": "ann", "password": "secret-word"}, f"Basic {b64('ann:secret-word')}"),
        (
            {"auth-provider": {"name": "oidc", "config": {"id-token": jwt(exp=2e9)}}},
            f"Bearer {jwt(exp=2e9)}",
        ),
        ({}, None),
    ],
)
def test_each_way_to_authenticate(
    apiserver: ApiServer, tmp_path: Path, user: dict[str, Any], header: str | None
) -> None:
    (tmp_path / "beside.token").write_text("from-the-file\n")
    names(Kube.open(write(tmp_path / "config", apiserver.url, user=user)))
    assert apiserver.requests[-1].headers.get("Authorization") == header


def test_a_provider_s_expired_token_is_refused(tmp_path: Path) -> None:
    user = {"auth-provider": {"name": "oidc", "config": {"id-token": jwt(exp=1e9)}}}
    assert (
        "auth-provider oidc, and its token has expired"
        in refusal(write(tmp_path / "config", user=user)).message
    )


def test_one_may_act_as_another(apiserver: ApiServer, tmp_path: Path) -> None:
    names(Kube.open(write(tmp_path / "config", apiserver.url, user={"as": "bob"})))
    assert apiserver.requests[-1].headers["Impersonate-User"] == "bob"
    refused = refusal(write(tmp_path / "config", user={"as": "bob", "as-groups": ["x"]}))
    assert "as-groups" in refused.message


def test_a_token_file_that_changes_is_read_again(apiserver: ApiServer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("the-first-token")
    kube = Kube.open(write(tmp_path / "config", apiserver.url, user={"tokenFile": "token"}))
    apiserver.tokens = {"the-second-token"}
    file.write_text("the-second-token")
    assert names(kube)
    assert kube.secrets() >= {"the-first-token", "the-second-token"}


# Exec plugins


def test_a_plugin_is_told_and_asked_as_kubectl_does(apiserver: ApiServer, tmp_path: Path) -> None:
    code = (
        "told = json.loads(os.environ['KUBERNETES_EXEC_INFO'])\n"
        f"file = open({str(tmp_path / 'told')!r}, 'w')\n"
        "json.dump([told, sys.argv[1:], os.environ['MODE']], file)\n"
        f"print({answer(token='of-the-plugin', expirationTimestamp=SOON)!r})"
    )
    program(tmp_path / "bin" / "login", code)
    user = plugin(
        "bin/login", args=["--server-id", "x"], env=[{"name": "MODE", "value": "spn"}],
        provideClusterInfo=True,
    )  # fmt: skip
    apiserver.tokens = {"of-the-plugin"}
    assert names(Kube.open(write(tmp_path / "config", apiserver.url, user=user)))
    told, args, mode = json.loads((tmp_path / "told").read_text())
    assert told == {
        "apiVersion": V1,
        "kind": "ExecCredential",
        "spec": {"interactive": False, "cluster": {"server": apiserver.url}},
    }
    assert (args, mode) == (["--server-id", "x"], "spn")


def test_a_plugin_is_found_on_path(
    apiserver: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin" / "kubelogin-x", f"print({answer(token='t')!r})")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert names(Kube.open(write(tmp_path / "c", apiserver.url, user=plugin("kubelogin-x"))))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("sys.exit('AADSTS70043: the refresh token has expired')", "status 1: AADSTS70043: the"),
        ("sys.exit(3)", "status 3: it said nothing"),
        ("print('not json: very-secret-token')", "its answer is no ExecCredential"),
        ("print('{}')", "its answer is no ExecCredential"),
        (f"print({answer()!r})", "gave neither a token nor a certificate"),
        (f"print({answer(token='x', expirationTimestamp='soon')!r})", "is no ExecCredential"),
        (
            f"print({answer('client.authentication.k8s.io/v1beta1', token='very-secret-token')!r})",
            "answers in client.authentication.k8s.io/v1beta1",
        ),
    ],
)
def test_a_plugin_that_fails_is_heard(tmp_path: Path, code: str, says: str) -> None:
    path = program(tmp_path / "login", code)
    refused = refusal(write(tmp_path / "config", user=plugin(path)))
    assert says in refused.message
    assert "exec plugin login" in refused.message
    assert "very-secret-token" not in str(refused)


def test_a_plugin_that_is_not_there_is_named_with_how_to_install_it(tmp_path: Path) -> None:
    user = plugin("kubelogin-is-missing", installHint="brew install it")
    refused = refusal(write(tmp_path / "config", user=user))
    assert "kubelogin-is-missing of the kubeconfig cannot be run" in refused.message
    assert refused.hint == "brew install it"
    user = plugin("x", apiVersion="client.authentication.k8s.io/v1alpha1")
    assert "speaks client.authentication.k8s.io/v1alpha1" in str(
        refusal(write(tmp_path / "config", user=user))
    )


def test_a_plugin_that_needs_a_terminal_is_refused_without_one(tmp_path: Path) -> None:
    user = plugin("login", interactiveMode="Always")
    assert "needs a terminal" in refusal(write(tmp_path / "config", user=user)).message


def test_a_plugin_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess; child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "print('To sign in, open a browser', file=sys.stderr, flush=True); time.sleep(60)"
    )
    user = plugin(program(tmp_path / "login", code))
    found = kubeconfig.read(write(tmp_path / "c", user=user)).plugin
    assert found is not None
    begun_s = time.monotonic()
    with pytest.raises(EngineUnavailable, match="To sign in, open a browser") as refused:
        replace(found, limit_s=0.5).run()
    assert "did not end within" in refused.value.message
    assert time.monotonic() - begun_s < 30
    pid = int((tmp_path / "pid").read_text())
    assert eventually(lambda: not is_running(pid), within_s=2), "what it started runs on"


def counted(tmp_path: Path, ends: str) -> Path:
    """A plugin whose tokens are token-nr-1, token-nr-2, …"""
    code = (
        f"path = {str(tmp_path / 'asked')!r}\n"
        "open(path, 'a').write('x'); nr = len(open(path).read())\n"
        f"answer = json.loads({answer()!r})\n"
        f"answer['status'] = {{'token': f'token-nr-{{nr}}', 'expirationTimestamp': {ends!r}}}\n"
        "print(json.dumps(answer))"
    )
    return program(tmp_path / "login", code)


def test_a_plugin_is_asked_once_for_as_long_as_its_token_lasts(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    user = plugin(counted(tmp_path, SOON))
    kube = Kube.open(write(tmp_path / "config", apiserver.url, user=user))
    threads = [threading.Thread(target=kube.get, args=("/version",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kube.close()
    assert (tmp_path / "asked").read_text() == "x"


def test_a_token_that_the_server_no_longer_takes_is_asked_for_again(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    user = plugin(counted(tmp_path, SOON))
    kube = Kube.open(write(tmp_path / "config", apiserver.url, user=user))
    kube.get("/version")
    apiserver.tokens = {"token-nr-2"}
    kube.get("/version")
    assert apiserver.requests[-1].headers["Authorization"] == "Bearer token-nr-2"
    assert kube.secrets() >= {"token-nr-1", "token-nr-2"}
    apiserver.tokens = set()
    with pytest.raises(ApiError) as refused:
        kube.get("/version")
    kube.close()
    assert refused.value.status == 401
    assert "log in again" in refused.value.hint


def failing(tmp_path: Path, *numbers: int) -> Path:
    """A plugin whose tokens live for 66 s, and which fails at these calls."""
    code = (
        f"path = {str(tmp_path / 'asked')!r}\n"
        "open(path, 'a').write('x'); nr = len(open(path).read())\n"
        f"if nr in {numbers!r}: sys.exit('AADSTS90033: a transient error has occurred')\n"
        "ends = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() + 66))\n"
        f"answer = json.loads({answer()!r})\n"
        "answer['status'] = {'token': f'token-nr-{nr}', 'expirationTimestamp': ends}\n"
        "print(json.dumps(answer))"
    )
    return program(tmp_path / "login", code)


def test_a_token_that_still_counts_outlives_a_failed_renewal(
    apiserver: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_EARLY", timedelta(days=1))  # due for renewal at once
    monkeypatch.setattr(connection, "_PLUGIN_PAUSE_S", 0.0)
    user = plugin(failing(tmp_path, 2))
    kube = Kube.open(write(tmp_path / "config", apiserver.url, user=user))
    kube.get("/version")
    kube.get("/version")
    kube.close()
    sent = [each.headers["Authorization"] for each in apiserver.requests[-2:]]
    assert sent == ["Bearer token-nr-1", "Bearer token-nr-3"]


def test_a_renewal_that_fails_for_a_moment_is_tried_again(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    user = plugin(failing(tmp_path, 2))
    kube = Kube.open(write(tmp_path / "config", apiserver.url, user=user))
    apiserver.tokens = {"token-nr-3"}  # the first is refused, so another is asked for
    kube.get("/version")
    kube.close()


def test_a_credential_that_cannot_be_renewed_is_an_error_of_the_request(
    apiserver: ApiServer, tmp_path: Path
) -> None:
    user = plugin(failing(tmp_path, *range(2, 100)))
    kube = Kube.open(write(tmp_path / "config", apiserver.url, user=user)).impatient()
    apiserver.tokens = set()
    with pytest.raises(ApiError, match="AADSTS90033") as refused:  # as any that may pass
        kube.get("/version")
    kube.close()
    assert refused.value.status == 0


# TLS


@pytest.fixture
def secure() -> Iterator[ApiServer]:
    with ApiServer(tls.server("127.0.0.1", "api.example")) as server:
        yield server


CA = {"certificate-authority-data": b64(tls.authority().pair.certificate)}


def test_the_kubeconfig_s_authority_is_trusted_and_no_other(
    secure: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(Kube.open(write(tmp_path / "config", secure.url, cluster=CA)))
    other = {"certificate-authority-data": b64(tls.Authority.new().pair.certificate)}
    monkeypatch.setattr(exchange, "_pause_s", lambda _: pytest.fail("tried again"))
    for cluster in (other, {}):
        kube = Kube.open(write(tmp_path / "config", secure.url, cluster=cluster))
        with pytest.raises(ApiError, match="is not who the kubeconfig says") as refused:
            kube.get("/version")
        kube.close()
        assert "az aks get-credentials" in refused.value.hint


def test_verification_can_be_left_out_as_the_kubeconfig_says(
    secure: ApiServer, tmp_path: Path
) -> None:
    cluster = {"insecure-skip-tls-verify": True}
    assert names(Kube.open(write(tmp_path / "config", secure.url, cluster=cluster)))


def test_the_server_may_have_another_name(tmp_path: Path) -> None:
    with ApiServer(tls.server("api.example")) as server:
        kube = Kube.open(write(tmp_path / "config", server.url, cluster=CA))
        with pytest.raises(ApiError, match="is not who the kubeconfig says"):
            kube.get("/version")
        kube.close()
        cluster = {**CA, "tls-server-name": "api.example"}
        assert names(Kube.open(write(tmp_path / "config", server.url, cluster=cluster)))


@pytest.mark.parametrize("inline", [True, False], ids=["data", "files"])
def test_a_client_certificate_is_shown(tmp_path: Path, inline: bool) -> None:
    pair = tls.authority().issue("ann")
    if inline:
        user = {
            "client-certificate-data": b64(pair.certificate),
            "client-key-data": b64(pair.key),
        }
    else:
        user = {"client-certificate": "ann.crt", "client-key": "ann.key"}
        (tmp_path / "ann.crt").write_text(pair.certificate)
        (tmp_path / "ann.key").write_text(pair.key)
    with ApiServer(tls.server("127.0.0.1", asks=True)) as server:
        kube = Kube.open(write(tmp_path / "config", server.url, cluster=CA, user=user))
        assert names(kube)
        assert {pair.key, b64(pair.key)} <= kube.secrets()
        kube = Kube.open(write(tmp_path / "config", server.url, cluster=CA))
        with pytest.raises(ApiError, match="did not answer"):
            kube.get("/version")
        kube.close()


def test_a_plugin_s_certificate_is_shown(tmp_path: Path) -> None:
    pair = tls.authority().issue("ann")
    told = answer(clientCertificateData=pair.certificate, clientKeyData=pair.key)
    user = plugin(program(tmp_path / "login", f"print({told!r})"))
    with ApiServer(tls.server("127.0.0.1", asks=True)) as server:
        kube = Kube.open(write(tmp_path / "config", server.url, cluster=CA, user=user))
        assert names(kube)


def test_a_key_that_does_not_fit_and_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    pair, other = tls.authority().issue("ann"), tls.authority().issue("bob")
    user: dict[str, Any] = {
        "client-certificate-data": b64(pair.certificate),
        "client-key-data": b64(other.key),
    }
    path = write(tmp_path / "config", "https://x", cluster=CA, user=user)
    assert "do not fit" in refusal(path).message
    path = write(tmp_path / "config", "https://x", cluster={"certificate-authority": "no.crt"})
    assert "no.crt cannot be read: No such file" in refusal(path).message
    path = write(tmp_path / "config", "https://x", cluster={"certificate-authority-data": b64("?")})
    assert "no PEM certificate" in refusal(path).message


def test_no_private_key_stays_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    pair = tls.authority().issue("ann")
    user = {"client-certificate-data": b64(pair.certificate), "client-key-data": b64(pair.key)}
    kube = Kube.open(write(tmp_path / "config", "https://x", cluster=CA, user=user))
    assert list((tmp_path / "tmp").iterdir()) == []
    kube.close()


# Proxies


class Proxy(BaseHTTPRequestHandler):
    """Notes what it is asked for; fetches plain requests, refuses tunnels."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Proxy-Authorization")))  # type: ignore[attr-defined]
        body = b'{"items": [{"metadata": {"name": "by-proxy"}}]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Proxy-Authorization")))  # type: ignore[attr-defined]
        self.send_error(403)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def proxy() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_requests_go_through_the_kubeconfig_s_proxy(
    tmp_path: Path, proxy: ThreadingHTTPServer
) -> None:
    cluster = {"proxy-url": f"http://ann:word@127.0.0.1:{proxy.server_port}"}
    kube = Kube.open(write(tmp_path / "config", "http://api.invalid", cluster=cluster))
    assert names(kube) == ["by-proxy"]
    path, header = proxy.asked[0]  # type: ignore[attr-defined]
    assert path.startswith("http://api.invalid/api/v1/namespaces")
    assert header == f"Basic {b64('ann:word')}"


def test_the_environment_s_proxy_is_for_tls_unless_excepted(
    tmp_path: Path, proxy: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy.server_port}")
    kube = Kube.open(write(tmp_path / "config", "https://api.invalid:6443", cluster=CA))
    with pytest.raises(ApiError, match="did not answer"):
        kube.impatient().get("/version")
    kube.close()
    assert {path for path, _ in proxy.asked} == {"api.invalid:6443"}  # type: ignore[attr-defined]
    proxy.asked.clear()  # type: ignore[attr-defined]
    monkeypatch.setenv("no_proxy", ".invalid")
    kube = Kube.open(write(tmp_path / "config", "https://api.invalid:6443", cluster=CA))
    with pytest.raises(ApiError, match="did not answer"):
        kube.impatient().get("/version")
    kube.close()
    assert proxy.asked == []  # type: ignore[attr-defined]


def test_a_network_of_no_proxy_is_excepted_as_kubectl_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8, internal")
    assert connection._proxy_of_environment("https://10.1.2.3:443") == ""
    assert connection._proxy_of_environment("https://11.1.2.3:443") == "http://proxy:3128"


def test_a_proxy_of_another_kind_is_refused(tmp_path: Path) -> None:
    cluster = {"proxy-url": "socks5://127.0.0.1:1080"}
    path = write(tmp_path / "config", "https://api.invalid", cluster=cluster)
    assert "socks5://127.0.0.1 is none that imgpull can use" in refusal(path).message


def test_nothing_of_it_is_imported_before_it_is_needed() -> None:
    """`imgpull --help` opens no connection."""
    code = "import sys, imgpull.cluster.kube; print(sorted({'urllib3', 'yarl'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
