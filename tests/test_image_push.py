"""Made images on their way into a registry: logins, refusals, and what gets lost half-way."""

import io
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tls
import trustme
from commands import Ended, imgpull
from images import image, payload
from registries import CUT, Registry, docker_registry
from standins import Terminal

from imgpull.cluster.registry import inspect
from imgpull.cluster.registry_login import Login, Logins
from imgpull.errors import ConfigError, EngineUnavailable
from imgpull.images import pushing, shape
from imgpull.images.building import Built, build

# Three layers, each of two chunks and a bit.
IMAGE = shape.even(27_000_000, 3, ratio=1.5)
SMALL = shape.even(60_000, 2)
UPLOADS = r"/v2/team/made/blobs/uploads/.+"
# "open sesame", by bcrypt
HTPASSWD = "ali:$2b$04$qRiuij0dLxQChEauFPK0E.ZNSjUBUMd9Ui2yOB0fzCRqh5NL3YNdq\n"


def anybody(_: str) -> None:
    return None


def as_user(name: str, password: str) -> Logins:
    return lambda _: Login(name, password)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        yield server


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No long pauses, and no login of this machine's."""
    monkeypatch.setattr(pushing, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(pushing, "_PATIENCE_S", 1.0)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry with TLS, under an address that is no loopback's."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("0.0.0.0", "127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with Registry(context) as server:
        server.users = {"ali": "open sesame"}
        yield server


def pushed(
    server: str, what: shape.Shape = SMALL, logins: Logins = anybody, salt: str = "1"
) -> Built:
    with pushing.Destination(f"{server}/team/made:{salt}", logins) as target:
        return build(what, salt, target)


def test_what_was_pushed_is_what_a_registry_shows(registry: Registry) -> None:
    built = pushed(registry.server, IMAGE)
    info = inspect(f"{registry.server}/team/made:1", credentials=anybody, download=True)
    assert info.digest == built.digest
    assert info.command == ("/bin/sleep", "infinity")
    assert [(x.digest, x.diff_id, x.compressed_bytes, x.unpacked_bytes) for x in info.layers] == [
        (x.digest, x.diff_id, x.compressed_bytes, x.unpacked_bytes) for x in built.layers
    ]
    assert info.compressed_bytes == 27_000_000


def test_a_layer_goes_out_in_chunks_while_it_is_made(registry: Registry) -> None:
    pushed(registry.server, IMAGE)
    sizes = [
        int(headers["Content-Length"])
        for method, _, headers in registry.requests
        if method == "PATCH"
    ]
    assert max(sizes) == 4 * 2**20
    assert len(sizes) == 3 * 3 + 1


def test_a_registry_may_ask_for_larger_chunks(registry: Registry) -> None:
    registry.chunk_bytes = 6 * 2**20
    pushed(registry.server, IMAGE)
    assert max(int(headers["Content-Length"]) for method, _, headers in registry.requests
               if method == "PATCH") == 6 * 2**20  # fmt: skip


@pytest.mark.parametrize("reply", [(503, {}), (429, {"Retry-After": "0"}), (500, {}), CUT])
def test_a_chunk_that_did_not_arrive_is_sent_again(registry: Registry, reply: object) -> None:
    expected = pushed(registry.server, IMAGE)
    before = registry.asked(UPLOADS)
    registry.script(UPLOADS, reply, reply)
    assert pushed(registry.server, IMAGE).layers == expected.layers
    # Twice that chunk, and to ask how far it came: no layer was made again.
    assert registry.asked(UPLOADS) <= 2 * before + 6
    assert inspect(f"{registry.server}/team/made:1", credentials=anybody, download=True)


@pytest.mark.parametrize("status", [429, 503])
def test_a_registry_that_throttles_is_waited_for_as_long_as_it_asks(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(pushing, "_PATIENCE_S", 300.0)
    monkeypatch.setattr(pushing.time, "sleep", pauses.append)
    registry.script(UPLOADS, *[(status, {"Retry-After": "20"})] * 8)
    assert pushed(registry.server)
    assert pauses == [20.0] * 8
    registry.script(UPLOADS, *[(status, {"Retry-After": "20"})] * 20)
    with pytest.raises(EngineUnavailable, match=f"answers {status}"):
        pushed(registry.server, salt="2")
    assert 250 < sum(pauses[8:]) <= 300


def test_an_upload_that_a_registry_forgot_begins_again(registry: Registry) -> None:
    registry.forget_after = 4
    built = pushed(registry.server, IMAGE)
    # Three layers, the configuration, and once again.
    assert registry.asked(r"/v2/team/made/blobs/uploads/") == 3 + 1 + 1
    assert inspect(f"{registry.server}/team/made:1", credentials=anybody).digest == built.digest


def test_a_registry_that_forgets_every_upload_is_named(registry: Registry) -> None:
    registry.script(r".*/blobs/uploads/.+", *[(404, {})] * 50)
    with pytest.raises(EngineUnavailable, match="the registry lost a layer of 9 MB 3 times"):
        pushed(registry.server, IMAGE)


def test_a_registry_that_stays_broken_is_named_with_its_status(registry: Registry) -> None:
    registry.script(r".*/blobs/uploads/.+", *[(503, {"Retry-After": "0"})] * 50)
    with pytest.raises(EngineUnavailable, match="answers 503"):
        pushed(registry.server, IMAGE)


@pytest.mark.parametrize(("status", "words", "fix"), [
    (413, "answers 413", "client_max_body_size"),
    (403, "does not let an anonymous user write to team/made (403)", "no password is sent"),
    (405, "answers 405", "try again later"),
])  # fmt: skip
def test_a_refusal_half_way_is_told_at_once_with_the_fix(
    registry: Registry, status: int, words: str, fix: str
) -> None:
    registry.script(r".*/blobs/uploads/.+", (status, {}))
    with pytest.raises(EngineUnavailable) as raised:
        pushed(registry.server, IMAGE)
    assert words in raised.value.message
    assert fix in raised.value.hint
    assert [method for method, _, _ in registry.requests].count("PATCH") == 1
    # What was begun is called off.
    assert registry.requests[-1][0] == "DELETE"


@pytest.mark.parametrize("basic", [True, False])
def test_a_login_that_may_write_writes(secure: Registry, basic: bool) -> None:
    secure.basic = basic
    user = as_user("ali", "open sesame")
    built = pushed(f"0.0.0.0:{secure.port}", IMAGE, user)
    shown = inspect(f"0.0.0.0:{secure.port}/team/made:1", credentials=user)
    assert shown.digest == built.digest
    with pytest.raises(EngineUnavailable) as raised:
        pushed(f"0.0.0.0:{secure.port}", IMAGE, as_user("ali", "sesame open"))
    assert "does not let user ali write to team/made" in raised.value.message
    assert "sesame" not in str(raised.value)


def test_a_deleted_image_is_gone_and_so_is_nothing_else(registry: Registry) -> None:
    pushed(registry.server, salt="1")
    other = pushed(registry.server, salt="2")
    pushing.delete(f"{registry.server}/team/made:1", anybody)
    with pytest.raises(ConfigError):
        inspect(f"{registry.server}/team/made:1", credentials=anybody)
    assert inspect(f"{registry.server}/team/made:2", credentials=anybody).digest == other.digest
    with pytest.raises(ConfigError, match="is not there"):
        pushing.delete(f"{registry.server}/team/made:1", anybody)


def delete(reference: str, *more: str) -> Ended:
    return imgpull(Path.cwd(), "image", "delete", reference, *more)


def test_delete_asks_first_and_names_yes_where_nobody_can_be_asked(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed(registry.server)
    name = f"{registry.server}/team/made:1"
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert delete(name).status == 1
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    ran = delete(name)
    assert ran.status == 2
    assert "--yes" in ran.err
    assert registry.tagged("team/made") == ["1"]
    assert delete(name, "--yes").status == 0
    assert registry.tagged("team/made") == []


@pytest.mark.parametrize("as_index", [False, True])
def test_delete_takes_nothing_that_imgpull_did_not_make(registry: Registry, as_index: bool) -> None:
    registry.put("team/theirs", "1", image([payload("theirs", 1000)]), as_index=as_index)
    ran = delete(f"{registry.server}/team/theirs:1", "--yes")
    assert ran.status == 2
    assert "was not made by imgpull" in ran.err
    assert registry.tagged("team/theirs") == ["1"]


def test_a_registry_that_deletes_nothing_says_so(registry: Registry) -> None:
    registry.delete = False
    pushed(registry.server)
    with pytest.raises(EngineUnavailable, match="deletes nothing") as raised:
        pushing.delete(f"{registry.server}/team/made:1", anybody)
    assert "REGISTRY_STORAGE_DELETE_ENABLED" in raised.value.hint


def test_a_digest_is_no_place_to_push_to() -> None:
    with pytest.raises(ConfigError, match="names a digest"):
        pushing.Destination(f"reg.io/made@sha256:{'0' * 64}")


# ------------------------------------------------------------------------------ docker's own


@pytest.mark.containerd
def test_docker_s_registry_takes_an_image_from_whoever_has_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.pem").write_text(tls.authority().pair.certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    certificate = tls.authority().issue("registry", "0.0.0.0", "127.0.0.1")
    with docker_registry(tmp_path / "r", auth=HTPASSWD, certificate=certificate) as server:
        place = server.server.replace("127.0.0.1", "0.0.0.0")
        user = as_user("ali", "open sesame")
        built = pushed(place, IMAGE, user)
        shown = inspect(f"{place}/team/made:1", credentials=user, download=True)
        assert [x.digest for x in shown.layers] == [x.digest for x in built.layers]
        with pytest.raises(EngineUnavailable, match="does not let user ali write"):
            pushed(place, IMAGE, as_user("ali", "wrong"))
        pushing.delete(f"{place}/team/made:1", user)
        with pytest.raises(ConfigError):
            inspect(f"{place}/team/made:1", credentials=user)
