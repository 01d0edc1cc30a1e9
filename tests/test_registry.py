"""Images read from registries: docker's own, and one that asks for logins, is busy or broken."""

import base64
import json
import shutil
import ssl
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import images
import pytest
import trustme
import yaml
from apiserver import ApiServer
from images import INDEX, MANIFEST
from omegaconf import OmegaConf
from registries import CUT, Registry, docker_registry

from imgpull.cluster import registry_client
from imgpull.cluster.kube import Kube
from imgpull.cluster.registry import ImageInfo, image_name, image_yaml, inspect, keeps_running
from imgpull.cluster.registry_login import Login, Logins, docker_logins, secret_logins
from imgpull.config import checks, schema
from imgpull.config.image import image_from
from imgpull.errors import ConfigError, EngineFailed, EngineUnavailable

LAYERS = (
    images.layer({"base": b"b" * 3000}),
    images.layer({"model": bytes(range(256)) * 40}, "zstd"),
    images.layer({"plain": b"p"}, "none"),
)
# This machine, under an address that is no loopback's: so asked with TLS, and without a resolver.
ELSEWHERE = "0.0.0.0"
IMAGE = images.image(LAYERS, entrypoint=["/bin/server"], command=["--port", "80"])


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        yield server


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry with TLS, whose authority this process trusts."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(ELSEWHERE, "127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with Registry(context) as server:
        server.put("team", "v1", IMAGE)
        yield server


@pytest.fixture(autouse=True)
def no_docker_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Docker's configuration is this test's own."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path / "config.json"


def anybody(_: str) -> None:
    return None


def as_user(name: str, password: str) -> Logins:
    return lambda _: Login(name, password)


# ------------------------------------------------------------------------- what an image is


def test_a_plain_image_is_read_whole(registry: Registry) -> None:
    registry.put("team/app", "v1", IMAGE)
    info = inspect(f"{registry.server}/team/app:v1")
    assert info == ImageInfo(
        reference=f"{registry.server}/team/app:v1",
        digest=IMAGE.digest,
        manifest_digest=IMAGE.digest,
        config_digest=IMAGE.id,
        platform="linux/amd64",
        platforms=("linux/amd64",),
        layers=info.layers,
        command=("/bin/server", "--port", "80"),
    )
    assert [(x.digest, x.diff_id, x.compressed_bytes, x.compression) for x in info.layers] == [
        (x.digest, x.diff_id, len(x.blob), x.compression) for x in LAYERS
    ]
    assert info.compressed_bytes == IMAGE.compressed_bytes


def test_of_an_index_a_pod_pins_the_index_and_pulls_the_platform(registry: Registry) -> None:
    arm = images.image(LAYERS[:1], platform="linux/arm64/v8")
    registry.put("app", "v1", IMAGE, arm, as_index=True, attested=True)
    for platform, expected in (("linux/amd64", IMAGE), ("linux/arm64", arm)):
        info = inspect(f"{registry.server}/app:v1", platform)
        assert info.digest == images.digest(images.index([IMAGE, arm], attested=True))
        assert info.manifest_digest == expected.digest
        assert info.config_digest == expected.id
        assert info.platforms == ("linux/amd64", "linux/arm64/v8")


@pytest.mark.parametrize("as_index", [False, True])
def test_another_platform_is_refused_with_those_there_are(
    registry: Registry, as_index: bool
) -> None:
    registry.put("app", "v1", IMAGE, as_index=as_index)
    with pytest.raises(ConfigError, match="not there for linux/arm64, only for linux/amd64"):
        inspect(f"{registry.server}/app:v1", "linux/arm64")


def test_a_digest_says_more_than_a_tag(registry: Registry) -> None:
    newer = images.image(LAYERS, note="newer")
    registry.put("app", "v1", IMAGE)
    registry.put("app", "v1", newer)
    pinned = inspect(f"{registry.server}/app:v1@{IMAGE.digest}")
    assert (pinned.digest, pinned.reference) == (IMAGE.digest, f"{registry.server}/app:v1")
    assert inspect(f"{registry.server}/app@{IMAGE.digest}").digest == IMAGE.digest
    assert inspect(f"{registry.server}/app:v1").digest == newer.digest


def test_download_counts_unpacked_bytes_of_every_compression(registry: Registry) -> None:
    registry.put("app", "v1", IMAGE)
    said: list[str] = []
    info = inspect(f"{registry.server}/app:v1", download=True, say=said.append)
    assert [x.unpacked_bytes for x in info.layers] == [x.unpacked_bytes for x in LAYERS]
    assert [each[:12] for each in said] == ["layer 1 of 3", "layer 2 of 3", "layer 3 of 3"]


def test_a_cut_download_begins_again(registry: Registry) -> None:
    registry.put("app", "v1", IMAGE)
    registry.script(f".*/blobs/{LAYERS[0].digest}", CUT)
    info = inspect(f"{registry.server}/app:v1", download=True)
    assert info.layers[0].unpacked_bytes == LAYERS[0].unpacked_bytes


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("damage", ["shorter", "other", "garbage"])
def test_a_layer_that_is_not_what_its_digest_says_is_refused(
    registry: Registry, compression: str, damage: str
) -> None:
    layer = images.layer({"file": b"content " * 500}, compression)
    other = images.layer({"file": b"another " * 500}, compression)
    blob = {
        "shorter": layer.blob[:-20], "other": other.blob, "garbage": b"?" * len(layer.blob),
    }[damage]  # fmt: skip
    registry.put("app", "v1", images.image([layer]))
    registry.put_blob("app", layer.digest, blob)
    with pytest.raises(EngineFailed, match=r"/app: .*digest|/app: layer sha256:"):
        inspect(f"{registry.server}/app:v1", download=True)


def test_an_image_that_unpacks_to_other_layers_than_it_says_is_refused(
    registry: Registry,
) -> None:
    lying = replace(LAYERS[0], diff_id=LAYERS[1].diff_id)
    registry.put("app", "v1", images.image([lying]))
    with pytest.raises(EngineFailed, match=f"unpacks to {LAYERS[0].diff_id}, not to"):
        inspect(f"{registry.server}/app:v1", download=True)


@pytest.mark.parametrize(
    ("manifest", "refusal"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, "manifest of schema 1"),
        ({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}, "only for nothing"),
    ],
)
def test_what_is_no_image_is_refused(
    registry: Registry, manifest: dict[str, Any], refusal: str
) -> None:
    registry.put_manifest("app", "v1", json.dumps(manifest).encode(), MANIFEST)
    with pytest.raises(ConfigError, match=refusal):
        inspect(f"{registry.server}/app:v1")


def test_a_layer_that_is_no_file_system_is_refused_by_its_type(registry: Registry) -> None:
    registry.put("app", "v1", IMAGE)
    manifest = json.loads(IMAGE.manifest)
    manifest["layers"][0]["mediaType"] = "application/vnd.in-toto+json"
    registry.put_manifest("app", "v1", json.dumps(manifest).encode(), MANIFEST)
    with pytest.raises(ConfigError, match=r"in-toto\+json', which is no file system"):
        inspect(f"{registry.server}/app:v1")


# ---------------------------------------------------------------------- what can go wrong


def test_a_missing_tag_is_told_with_its_neighbours(registry: Registry) -> None:
    for tag in ("2.3.0", "2.3.1", "nightly"):
        registry.put("app", tag, IMAGE)
    with pytest.raises(ConfigError) as raised:
        inspect(f"{registry.server}/app:2.3.2")
    assert raised.value.message.endswith("/app has no tag 2.3.2")
    assert "2.3.1" in raised.value.hint
    assert "nightly" not in raised.value.hint


def test_a_missing_repository_is_told(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="has no repository nothing"):
        inspect(f"{registry.server}/nothing:v1")


def test_a_tag_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"'reg\.io/app' is not registry/repository:tag"):
        inspect("reg.io/app")


@pytest.mark.parametrize("answer", [(429, {"Retry-After": "0"}), (503, {"Retry-After": "0"}), CUT])
def test_a_busy_registry_is_asked_again(registry: Registry, answer: Any) -> None:
    registry.put("app", "v1", IMAGE)
    registry.script(".*/manifests/v1", answer)
    assert inspect(f"{registry.server}/app:v1").digest == IMAGE.digest
    assert registry.asked(".*/manifests/v1") == 2


def test_a_registry_that_stays_busy_is_given_up(registry: Registry) -> None:
    registry.script(".*", *[(429, {"Retry-After": "0"})] * 20)
    with pytest.raises(EngineUnavailable, match="answers 429"):
        inspect(f"{registry.server}/app:v1")
    assert registry.asked(".*/manifests/v1") == registry_client._TRIES


def test_a_registry_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(EngineUnavailable, match=r"127.0.0.1:1 does not answer: .*refused"):
        inspect("127.0.0.1:1/app:v1")


def test_a_registry_that_this_machine_does_not_trust_is_told(
    secure: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(EngineUnavailable, match="cannot be reached over TLS") as raised:
        inspect(f"{ELSEWHERE}:{secure.port}/team:v1")
    assert "REQUESTS_CA_BUNDLE" in raised.value.hint


def test_only_loopback_is_spoken_to_without_tls(registry: Registry) -> None:
    with pytest.raises(EngineUnavailable, match="over TLS"):
        inspect(f"{ELSEWHERE}:{registry.port}/app:v1")


# ----------------------------------------------------------------------------- logging in


def test_a_token_is_got_with_the_user_s_password(secure: Registry) -> None:
    secure.users = {"me": "secret"}
    info = inspect(f"{ELSEWHERE}:{secure.port}/team:v1", credentials=as_user("me", "secret"))
    assert info.digest == IMAGE.digest
    assert secure.asked("/token") == 1  # one token for all of it


def test_a_public_repository_needs_no_password(secure: Registry) -> None:
    secure.public = True
    assert inspect(f"{ELSEWHERE}:{secure.port}/team:v1").digest == IMAGE.digest


def test_a_registry_without_tokens_is_told_the_password(secure: Registry) -> None:
    secure.users, secure.basic = {"me": "secret"}, True
    login = as_user("me", "secret")
    info = inspect(f"{ELSEWHERE}:{secure.port}/team:v1", credentials=login)
    assert info.digest == IMAGE.digest


@pytest.mark.parametrize("basic", [False, True])
@pytest.mark.parametrize(
    ("login", "who"), [(anybody, "an anonymous user"), (as_user("me", "wrong"), "user me")]
)
def test_who_is_refused_is_told_who_they_were_and_how_to_log_in(
    secure: Registry, basic: bool, login: Logins, who: str
) -> None:
    secure.users, secure.basic = {"me": "secret"}, basic
    with pytest.raises(EngineUnavailable, match=f"does not show team to {who}") as raised:
        inspect(f"{ELSEWHERE}:{secure.port}/team:v1", credentials=login)
    assert f"docker login {ELSEWHERE}:{secure.port}" in raised.value.hint
    assert "wrong" not in str(raised.value)


def test_what_is_forbidden_is_told_as_such(registry: Registry) -> None:
    registry.script(".*", (403, {}))
    with pytest.raises(EngineUnavailable, match=r"to an anonymous user \(403\)"):
        inspect(f"{registry.server}/app:v1")


def test_a_password_is_never_sent_without_tls(registry: Registry) -> None:
    registry.users = {"me": "secret"}
    with pytest.raises(EngineUnavailable) as raised:
        inspect(f"{registry.server}/app:v1", credentials=as_user("me", "secret"))
    assert "no password is sent without TLS" in raised.value.hint
    assert not any("Authorization" in headers for _, _, headers in registry.requests)


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    ("stored", "repository", "expected"),
    [
        ({"reg.io": auth("a:b:c")}, "reg.io/team/app", ("a", "b:c")),
        ({"https://reg.io/v2/": auth("a:b")}, "reg.io/team/app", ("a", "b")),
        ({"reg.io": auth("a:b")}, "other.io/app", None),
        ({"reg.io:5000": auth("a:b")}, "reg.io/app", None),
        ({"reg.io": auth("a:b"), "reg.io/team": auth("t:u")}, "reg.io/team/app", ("t", "u")),
        ({"reg.io": auth("a:b"), "reg.io/team": auth("t:u")}, "reg.io/teams/app", ("a", "b")),
        ({"*.azurecr.io": auth("a:b")}, "mine.azurecr.io/app", ("a", "b")),
        ({"https://index.docker.io/v1/": auth("a:b")}, "docker.io/library/app", ("a", "b")),
        ({"reg.io": {"username": "a", "password": "b"}}, "reg.io/app", ("a", "b")),
        (
            {"mine.azurecr.io": {**auth("x:"), "identitytoken": "refresh"}},
            "mine.azurecr.io/app",
            ("00000000-0000-0000-0000-000000000000", "refresh"),
        ),
        ({"reg.io": {}}, "reg.io/app", None),
    ],
)
def test_docker_s_file_tells_who_to_be(
    stored: dict[str, Any], repository: str, expected: tuple[str, str] | None,
    no_docker_logins: Path,
) -> None:  # fmt: skip
    no_docker_logins.write_text(json.dumps({"auths": stored}))
    assert docker_logins()(repository) == (Login(*expected) if expected else None)


def test_without_docker_s_file_everybody_is_anonymous() -> None:
    assert docker_logins()("reg.io/app") is None


def program(directory: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = directory / f"docker-credential-{name}"
    path.write_text(f"#!{sys.executable} -IS\nimport sys, json\nhost = sys.stdin.read()\n{code}")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))


KNOWS = """
if host not in ("reg.io", "https://index.docker.io/v1/"):
    print("credentials not found in native keychain"); sys.exit(1)
print(json.dumps({"ServerURL": host, "Username": "me", "Secret": "of " + host}))
"""


@pytest.mark.parametrize(
    "where", [{"credsStore": "keychain"}, {"credHelpers": {"reg.io": "keychain"}}]
)
def test_a_credential_program_is_asked_for_its_host(
    where: dict[str, Any], no_docker_logins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    program(no_docker_logins.parent, "keychain", KNOWS, monkeypatch)
    no_docker_logins.write_text(json.dumps({"auths": {"reg.io": {}}, **where}))
    logins = docker_logins()
    assert logins("reg.io/app") == Login("me", "of reg.io")
    assert logins("other.io/app") is None
    if "credsStore" in where:
        assert logins("docker.io/library/app") == Login("me", "of https://index.docker.io/v1/")


def test_a_credential_program_that_is_missing_is_named(no_docker_logins: Path) -> None:
    no_docker_logins.write_text('{"credsStore": "nowhere"}')
    with pytest.raises(EngineUnavailable, match="docker-credential-nowhere, which cannot be run"):
        docker_logins()("reg.io/app")


def test_a_password_is_not_shown_by_its_login() -> None:
    assert "secret" not in repr(Login("me", "secret"))


def test_a_pull_secret_s_logins_are_those_of_the_cluster(apiserver: ApiServer, kube: Kube) -> None:
    def secret(name: str, key: str, content: Any) -> None:
        data = {key: base64.b64encode(json.dumps(content).encode()).decode()}
        meta = {"name": name, "namespace": "default"}
        apiserver.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})

    secret("new", ".dockerconfigjson", {"auths": {"reg.io": auth("a:b")}})
    secret("old", ".dockercfg", {"reg.io": auth("c:d")})
    secret("other", "password", "x")
    assert secret_logins(kube, "default", "new")("reg.io/app") == Login("a", "b")
    assert secret_logins(kube, "default", "old")("reg.io/app") == Login("c", "d")
    with pytest.raises(ConfigError, match="'other' in namespace default is no pull secret"):
        secret_logins(kube, "default", "other")
    with pytest.raises(ConfigError, match="no Secret 'none' in namespace default"):
        secret_logins(kube, "default", "none")


# --------------------------------------------------------------------- the file of an image


def as_configured(text: str) -> schema.Image:
    merged = OmegaConf.merge(schema.open_schema(schema.Image), yaml.safe_load(text))
    found = OmegaConf.to_object(merged)
    assert isinstance(found, schema.Image)
    return found


@pytest.mark.parametrize("download", [False, True])
def test_the_file_of_an_image_is_taken_as_configuration(registry: Registry, download: bool) -> None:
    registry.put("team/app", "v1", IMAGE)
    info = inspect(f"{registry.server}/team/app:v1", download=download)
    text = image_yaml(info, "mine")
    assert f"{IMAGE.compressed_bytes} B compressed, of the manifest" in text  # see test_conf.py
    configured = as_configured(text)
    checks.check_image(configured)
    image = image_from(configured)
    assert (image.name, image.pinned_reference) == (
        "mine", f"{registry.server}/team/app:v1@{IMAGE.digest}",
    )  # fmt: skip
    assert image.compressed_bytes == IMAGE.compressed_bytes
    assert [layer.digest for layer in image.layers] == [layer.digest for layer in LAYERS]
    expected = [x.unpacked_bytes if download else None for x in LAYERS]
    assert [layer.unpacked_bytes for layer in image.layers] == expected


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        (("/pause",), True),
        (("/usr/bin/sleep", "infinity"), True),
        (("sleep", "10"), False),
        (("python", "-m", "server"), False),
        ((), False),
    ],
)
def test_a_command_that_may_end_is_replaced_by_one_that_does_not(
    registry: Registry, command: tuple[str, ...], kept: bool
) -> None:
    registry.put("app", "v1", images.image(LAYERS, command=command))
    info = inspect(f"{registry.server}/app:v1")
    assert info.command == command
    assert keeps_running(command) is kept
    text = image_yaml(info, "app")
    assert as_configured(text).command == ([] if kept else ["sleep", "infinity"])
    assert ("the image must have `sleep`" in text) is not kept


@pytest.mark.parametrize(
    ("reference", "name"),
    [("reg.io/team/PyTorch-big:2.3", "pytorch_big"), ("nginx:1", "nginx"),
     ("127.0.0.1:5000/a/vllm.openai@sha256:" + "0" * 64, "vllm_openai")],
)  # fmt: skip
def test_an_image_s_file_is_called_as_its_repository(reference: str, name: str) -> None:
    assert image_name(reference.replace("PyTorch", "pytorch")) == name


# ---------------------------------------------------------------------- docker's registry


@pytest.mark.containerd
@pytest.mark.skipif(not shutil.which("docker-registry"), reason="docker-registry is not on PATH")
def test_docker_s_own_registry_is_read(tmp_path: Path) -> None:
    arm = images.image(LAYERS[:1], platform="linux/arm64")
    gzipped = images.image([LAYERS[0], images.payload("big", 2_000_000)], command=["/sleep", "1"])
    with docker_registry(tmp_path / "registry") as server:
        images.push(server.server, "team/app", "v1", gzipped)
        images.push(server.server, "team/app", "v2", gzipped, arm, as_index=True)
        plain = inspect(f"{server.server}/team/app:v1", download=True)
        indexed = inspect(f"{server.server}/team/app:v2")
        with pytest.raises(ConfigError, match="no tag v3") as raised:
            inspect(f"{server.server}/team/app:v3")
    assert plain.digest == indexed.manifest_digest == gzipped.digest
    assert indexed.digest == images.digest(images.index([gzipped, arm]))
    assert indexed.platforms == ("linux/amd64", "linux/arm64")
    assert [x.unpacked_bytes for x in plain.layers] == [x.unpacked_bytes for x in gzipped.layers]
    assert "v1" in raised.value.hint
    assert "v2" in raised.value.hint
