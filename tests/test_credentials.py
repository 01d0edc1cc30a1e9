"""Credentials for ClusterLoader2, and text without them: credentials.py and redaction.py."""

import base64
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tls
import yaml
from apiserver import ApiServer
from counted import calls
from hypothesis import given
from hypothesis import strategies as st
from kubeconfigs import answer, b64, jwt, plugin, program, write

from imgpull.cluster import credentials
from imgpull.cluster.kube import Kube
from imgpull.cluster.redaction import REDACTED, redactor
from imgpull.errors import EngineUnavailable

PAIR = tls.authority().issue("ann")


def in_minutes(minutes: float) -> datetime:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).replace(microsecond=0)


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def inside(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cluster and the user of a portable kubeconfig."""
    content = yaml.safe_load(path.read_text())
    assert content["current-context"] == content["contexts"][0]["name"]
    return content["clusters"][0]["cluster"], content["users"][0]["user"]


def test_nothing_in_it_leads_to_a_file_or_program_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text(tls.authority().pair.certificate)
    (tmp_path / "ann.crt").write_text(PAIR.certificate)
    (tmp_path / "ann.key").write_text(PAIR.key)
    (tmp_path / "token").write_text("from-a-file\n")
    cluster = {
        "certificate-authority": "ca.crt", "tls-server-name": "api.example",
        "proxy-url": "http://proxy:8080",
    }  # fmt: skip
    user = {"client-certificate": "ann.crt", "client-key": "ann.key", "tokenFile": "token"}
    path = write(tmp_path / "config", "https://api:6443", cluster=cluster, user=user)
    with credentials.portable(path, None, 60) as made:
        there, who = inside(made.path)
    assert there == {
        "server": "https://api:6443",
        "certificate-authority-data": b64(tls.authority().pair.certificate),
        "tls-server-name": "api.example",
        "proxy-url": "http://proxy:8080",
    }
    assert who == {
        "client-certificate-data": b64(PAIR.certificate),
        "client-key-data": b64(PAIR.key),
        "token": "from-a-file",
    }
    assert {"from-a-file", PAIR.key, b64(PAIR.key)} <= made.secrets


def test_what_the_kubeconfig_says_of_verification_and_others_stays(tmp_path: Path) -> None:
    cluster = {"insecure-skip-tls-verify": True}
    user = {"username": "ann", "password": "secret-word", "as": "bob"}
    with credentials.portable(write(tmp_path / "c", cluster=cluster, user=user), None, 1) as made:
        there, who = inside(made.path)
    assert there["insecure-skip-tls-verify"] is True
    assert who == user


def test_a_plugin_s_credential_is_resolved_here_and_lasts_as_it_says(tmp_path: Path) -> None:
    ends = in_minutes(30)
    told = answer(token="token-of-the-plugin", expirationTimestamp=stamp(ends))
    path = write(tmp_path / "config", user=plugin(program(tmp_path / "login", f"print({told!r})")))
    with credentials.portable(path, None, 20 * 60) as made:
        assert inside(made.path)[1] == {"token": "token-of-the-plugin"}
        assert made.expires_at == ends
        assert "token-of-the-plugin" in made.secrets
    with (
        pytest.raises(
            EngineUnavailable, match=r"expires in (29|30) min, .* 2h \(trial_limit\)"
        ) as e,
        credentials.portable(path, None, 2 * 3600),
    ):
        pass
    assert "shorter trial_limit" in e.value.hint
    assert "token-of-the-plugin" not in str(e.value)


def aging(tmp_path: Path, life_min: int, *left_min: float) -> Path:
    """A kubeconfig whose plugin gives tokens of this life, with so much of it left at each call."""
    tokens = []
    for left in left_min:
        ends_s = in_minutes(0).timestamp() + 60 * left
        tokens.append(answer(token=jwt(iat=ends_s - 60 * life_min, exp=ends_s)))
    code = (
        f"path = {str(tmp_path / 'asked')!r}; open(path, 'a').write('x')\n"
        f"print({tokens!r}[min(len(open(path).read()), {len(tokens)}) - 1])"
    )
    return write(tmp_path / "config", user=plugin(program(tmp_path / "login", code)))


def test_a_plugin_s_next_credential_is_waited_for_where_it_will_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_ASK_AGAIN_S", 0.01)
    told: list[str] = []
    path = aging(tmp_path, 75, 40, 40, 75)  # kept until shortly before its end, as az does
    with credentials.portable(path, None, 50 * 60, told.append) as made:
        assert made.expires_at is not None
        assert made.expires_at > in_minutes(70)
    assert len(told) == 2
    assert "waiting up to 40 min for the next credential" in told[0]


def test_one_that_never_lasts_so_long_is_not_waited_for(tmp_path: Path) -> None:
    path = aging(tmp_path, 75, 75)
    with (
        pytest.raises(EngineUnavailable, match="expires in 75 min"),
        credentials.portable(path, None, 7200),
    ):
        pass


@pytest.mark.parametrize(
    ("left_min", "limit_min", "state"),
    [(75, 50, "ok"), (40, 50, "warning"), (75, 120, "failed"), (-1, 50, "failed")],
)
def test_preflight_says_whether_a_credential_will_last(
    tmp_path: Path, left_min: float, limit_min: int, state: str
) -> None:
    (found,) = credentials.lasting(aging(tmp_path, 75, left_min), None, 60 * limit_min)
    assert found.state == state
    assert found.check == "credential"
    assert (state == "ok") is not bool(found.fix)


def test_a_credential_that_does_not_end_is_not_spoken_of(tmp_path: Path) -> None:
    path = write(tmp_path / "config", user={"token": "a-token"})
    assert list(credentials.lasting(path, None, 3600)) == []


def test_each_time_the_plugin_is_asked_anew(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'asked')!r}, 'a').write('x'); print({answer(token='t' * 9)!r})"
    path = write(tmp_path / "config", user=plugin(program(tmp_path / "login", code)))
    for _ in range(2):
        with credentials.portable(path, None, 60) as made:
            assert made.expires_at is None
    assert (tmp_path / "asked").read_text() == "xx"


@pytest.mark.parametrize("way", ["token", "tokenFile"])
def test_a_web_token_says_when_it_ends(tmp_path: Path, way: str) -> None:
    ends = in_minutes(10)
    token = jwt(exp=ends.timestamp())
    (tmp_path / "file").write_text(token)
    path = write(tmp_path / "config", user={way: token if way == "token" else "file"})
    with credentials.portable(path, None, 60) as made:
        assert made.expires_at == ends
    with (
        pytest.raises(EngineUnavailable, match=r"expires in (9|10) min"),
        credentials.portable(path, None, 3600),
    ):
        pass
    path = write(tmp_path / "config", user={"token": jwt(exp=1e9)})
    with pytest.raises(EngineUnavailable, match="has expired"), credentials.portable(path, None, 1):
        pass


@pytest.mark.parametrize("token", ["opaque-token", "a.b.c", jwt(sub="no end"), jwt(exp="never")])
def test_a_token_that_does_not_say_lasts_as_far_as_anybody_knows(
    tmp_path: Path, token: str
) -> None:
    path = write(tmp_path / "config", user={"token": token})
    with credentials.portable(path, None, 1e6) as made:
        assert made.expires_at is None


def test_it_is_for_nobody_else_and_gone_afterwards(tmp_path: Path) -> None:
    path = write(tmp_path / "config", user={"token": "a-token-of-ann"})
    seen: list[Path] = []

    def interrupted() -> None:
        with credentials.portable(path, None, 1) as made:
            seen.append(made.path)
            assert made.path.stat().st_mode & 0o777 == 0o600
            assert made.path.parent.stat().st_mode & 0o777 == 0o700
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not seen[0].parent.exists()


def test_what_a_killed_process_left_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "config", user={"token": "a-token-of-ann"})
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    code = (
        "import os, sys; from pathlib import Path; from imgpull.cluster import credentials\n"
        f"with credentials.portable(Path({str(path)!r}), None, 1): os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    [left] = temporary.iterdir()
    assert "a-token-of-ann" in (left / "kubeconfig").read_text()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with credentials.portable(path, None, 1) as made:
        assert {*temporary.iterdir()} == {left, made.path.parent}, "it may still be in use"
    two_days_ago = time.time() - 2 * 86400
    os.utime(left, (two_days_ago, two_days_ago))
    (temporary / "imgpull-access-notes").mkdir()
    with credentials.portable(path, None, 1) as made:
        assert not left.exists()
        os.utime(made.path.parent, (two_days_ago, two_days_ago))
        with credentials.portable(path, None, 1):
            assert made.path.exists(), "this process runs"
    assert [each.name for each in temporary.iterdir()] == ["imgpull-access-notes"]


def test_it_works_as_the_kubeconfig_does(apiserver: ApiServer, tmp_path: Path) -> None:
    told = answer(token="token-of-the-plugin")
    user = plugin(program(tmp_path / "login", f"print({told!r})"))
    apiserver.tokens = {"token-of-the-plugin"}
    with credentials.portable(write(tmp_path / "c", apiserver.url, user=user), None, 1) as made:
        kube = Kube.open(made.path)
        assert kube.get("/version")
        kube.close()


# Text


def test_every_secret_of_a_kubeconfig_is_redacted_in_each_spelling(tmp_path: Path) -> None:
    user = {
        "client-certificate-data": b64(PAIR.certificate), "client-key-data": b64(PAIR.key),
        "token": "an-opaque-token", "username": "ann", "password": "pass word/1",
    }  # fmt: skip
    path = write(tmp_path / "config", user=user)
    with credentials.portable(path, None, 1) as made:
        redact = redactor(made.secrets)
        text = made.path.read_text()
    redacted = "\n".join(redact(line) for line in (text + PAIR.key).splitlines())
    for secret in ("an-opaque-token", "pass word/1", b64(PAIR.key)[:20]):
        assert secret not in redacted
    for line in PAIR.key.splitlines()[1:-1]:
        assert line not in redacted
    quoted = json.dumps({"key": PAIR.key})
    assert PAIR.key.splitlines()[1] not in redact(quoted)
    assert b64("pass word/1") not in redact(f"Authorization: x {b64('pass word/1')}")


TOKEN = jwt(iss="https://sts.windows.net/x", exp=2e9)


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        (f"I1124 round_trippers.go: Authorization: Bearer {TOKEN}", TOKEN),
        ("curl -H 'Authorization: Bearer abcdefgh12345678'", "abcdefgh12345678"),
        ('{"auths": {"x.azurecr.io": {"auth": "dXNlcjpwYXNzd29yZA=="}}}', "dXNlcjpwYXNzd29yZA"),
        ('{\\"auths\\":{\\"x\\":{\\"auth\\":\\"dXNlcjpwYXNzd29yZA==\\"}}}', "dXNlcjpwYXNzd29yZA"),
        ('{"identitytoken": "0.AXwA-of-azure"}', "0.AXwA-of-azure"),
        ('{"refresh_token":"0.AXwA-of-azure","access_token":"short-one"}', "0.AXwA-of-azure"),
        (f"token is {TOKEN}.", TOKEN.rpartition(".")[0]),
        ("GET https://x.blob.core.windows.net/y?sv=2025&se=1&sig=Zm9v%2Bbar%3D&sp=r", "Zm9v%2Bb"),
        ("https://x.blob.core.windows.net/y?sv=2025\\u0026sig=Zm9v%2Bbar%3D: 403", "Zm9v%2Bb"),
        ("https://s3.amazonaws.com/b/k?X-Amz-Signature=0123456789abcdef&x=y", "0123456789abcdef"),
        ("    client-key-data: LS0tLS1CRUdJTi==", "LS0tLS1CRUdJTi"),
        ("    client-certificate-data: LS0tLS1CRUdJTi==", "LS0tLS1CRUdJTi"),
        ("    token: abcdefgh12345678", "abcdefgh12345678"),
        ("password: 'hunter2-hunter2'", "hunter2-hunter2"),
        ("proxy http://ann:hunter2@proxy:8080/ refused", "hunter2"),
        ("proxy http://ann:hunter2@b@proxy:8080/ refused", "2@b"),
        ("POST refresh_token=0.AXwA-of-azure&grant_type=refresh_token", "0.AXwA-of-azure"),
        ("AZURE_CLIENT_SECRET=abc~defghij", "abc~defghij"),
        ('"clientSecret": "abcdefghijk"', "abcdefghijk"),
        (".dockerconfigjson: eyJhdXRocyI6eyJhIjp7", "eyJhdXRocyI6eyJhIjp7"),
        pytest.param(PAIR.key, PAIR.key.splitlines()[1], id="a private key"),  # made anew each time
    ],
)
def test_what_looks_like_a_secret_is_redacted_whoever_s_it_is(line: str, secret: str) -> None:
    redacted = redactor([])(line)
    assert secret in line
    assert secret not in redacted
    assert REDACTED in redacted


@pytest.mark.parametrize(
    "line",
    [
        'I1124 10:00:00.000000 1 simple_test_executor.go:149] Step "[step: 01] starting" started',
        "W1124 imagepreload.go:92] No images specified. Skipping image preloading",
        "sha256:6a1c0e5f3d2b4a5968778695a4b3c2d1e0f9e8d7c6b5a493827160fedcba9876 done",
        "https://mcr.microsoft.com/v2/oss/manifests/sha256:0123 pulled in 3.2s",
        "pulling user@sha256:abc from registry",
        "E1124 token expired; data: 15 GiB; author: nobody",
    ],
)
def test_what_is_no_secret_stays(line: str) -> None:
    assert redactor(["a-secret-of-ours"])(line) == line


@given(secret=st.text(min_size=8, max_size=60), before=st.text(), after=st.text())
def test_a_known_secret_never_comes_through(secret: str, before: str, after: str) -> None:
    for spelt in (secret, base64.b64encode(secret.encode()).decode()):
        redacted = redactor([secret])(before + spelt + after)
        if len(spelt.strip()) >= 8 and "\n" not in spelt:
            assert spelt.strip() not in redacted.replace(REDACTED, "")


def test_a_line_without_secrets_costs_a_handful_of_calls() -> None:
    redact = redactor([PAIR.key, b64(PAIR.key), TOKEN, "another-secret-word"])
    line = 'I1124 10:00:00.1 wait_for_pods.go:64] Pods: 900 out of 1000 running "ip0123-1/small"'
    redact(line)
    assert calls(lambda: redact(line)) <= 20
