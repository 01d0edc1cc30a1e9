"""A registry on a loopback port that can be told to misbehave: logins, refusals, slowness.

Hides HTTP, TLS and the token service (distribution docs, "Token authentication specification").
Docker's own registry, where a test needs the real thing, is `docker_registry`.
"""

import base64
import contextlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import tls
import yaml
from images import INDEX, MANIFEST, OciImage, digest, index

CUT = object()  # the connection ends without an answer


class Registry:
    """What it has, and how it behaves; settings may change at any time.

    `users` (name -> password) makes it ask for tokens, `basic` for the password itself;
    `blob_bytes_s` slows blobs down; `delete` says whether manifests may be deleted. Uploads:
    `chunk_bytes` is the least that it takes at once, after `forget_after` chunks it forgets one.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.users: dict[str, str] | None = None
        self.basic = False
        self.public = False  # tokens for everybody
        self.blob_bytes_s: float | None = None
        self.delete = True
        self.chunk_bytes: int | None = None
        self.forget_after: int | None = None
        self._uploads: dict[str, bytearray] = {}
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self._content: dict[str, tuple[str, bytes]] = {}  # path -> type, body
        self._tags: dict[str, list[str]] = {}
        self._scripts: list[tuple[re.Pattern[str], list[Any]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._tls = tls
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> "Registry":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    def put(
        self, repository: str, tag: str, *images: OciImage, as_index: bool = False,
        attested: bool = False,
    ) -> None:  # fmt: skip
        """Have an image, or an index over several, under a tag."""
        for each in images:
            for blob in (*(layer.blob for layer in each.layers), each.config):
                self.put_blob(repository, digest(blob), blob)
            self.put_manifest(repository, "", each.manifest, MANIFEST)
        if as_index:
            self.put_manifest(repository, tag, index(images, attested=attested), INDEX)
        else:
            self.put_manifest(repository, tag, images[0].manifest, MANIFEST)

    def put_manifest(self, repository: str, tag: str, body: bytes, media_type: str) -> None:
        """Have any manifest under its digest, and under a tag if there is one."""
        for name in filter(None, (tag, digest(body))):
            self._content[f"/v2/{repository}/manifests/{name}"] = media_type, body
        if tag:
            self._tags.setdefault(repository, []).append(tag)

    def put_blob(self, repository: str, name: str, blob: bytes) -> None:
        """Have bytes under a digest, theirs or not."""
        self._content[f"/v2/{repository}/blobs/{name}"] = "application/octet-stream", blob

    def tagged(self, repository: str) -> list[str]:
        """The tags that have a manifest still."""
        base = f"/v2/{repository}/manifests/"
        names = [name.removeprefix(base) for name in self._content if name.startswith(base)]
        return [name for name in names if not name.startswith("sha256:")]

    def script(self, path_regex: str, *replies: Any) -> None:
        """Answer the next requests of these paths so: (status, headers), or CUT."""
        self._scripts.append((re.compile(path_regex), list(replies)))

    def asked(self, path_regex: str) -> int:
        """How many requests there were for these paths."""
        return sum(1 for _, path, _ in self.requests if re.fullmatch(path_regex, path))

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        path, _, query = request.path.partition("?")
        self.requests.append((request.command, path, dict(request.headers.items())))
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if (reply := self._scripted(path)) is CUT:
            request.close_connection = True
        elif reply is not None:
            _send(request, reply[0], b"{}", dict(reply[1]))
        elif path == "/token":
            self._token(request, query)
        elif not self._is_let_in(request):
            self._challenge(request, path)
        elif found := re.fullmatch(r"/v2/(.+)/tags/list", path):
            tags = self._tags.get(found[1])
            told = json.dumps({"name": found[1], "tags": tags}).encode()
            _send(request, 200 if tags else 404, told, {"Content-Type": "application/json"})
        elif path in self._content:
            media_type, content = self._content[path]
            if request.command == "DELETE":
                self._delete(request, path)
            else:
                self._serve(request, content, {"Content-Type": media_type}, slow="/blobs/" in path)
        elif "/blobs/uploads/" in path:
            self._upload(request, path, query, body)
        elif request.command == "PUT" and (found := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path)):
            self.put_manifest(found[1], found[2], body, request.headers["Content-Type"])
            _send(request, 201, b"", {"Docker-Content-Digest": digest(body)})
        else:
            _send(request, 200 if path == "/v2/" else 404, b"{}", {})

    def _forgets(self, name: str) -> bool:
        if self.forget_after is None:
            return False
        self.forget_after -= 1
        return self.forget_after == -1

    def _upload(
        self, request: BaseHTTPRequestHandler, path: str, query: str, body: bytes
    ) -> None:  # fmt: skip
        """The upload of a blob, as the distribution API has it."""
        base, _, name = path.rpartition("/")
        if request.command == "POST":
            name = str(len(self.requests))
            self._uploads[name] = bytearray()
        elif (request.command == "PATCH" and self._forgets(name)) or name not in self._uploads:
            _send(request, 404, b"{}", {})
            return
        held = self._uploads[name]
        if request.command == "PATCH":
            if request.headers["Content-Range"] != f"{len(held)}-{len(held) + len(body) - 1}":
                _send(request, 416, b"{}", {})
                return
            held += body
        elif request.command == "PUT":
            told = dict(urllib.parse.parse_qsl(query))["digest"]
            if told != digest(bytes(held)):
                _send(request, 400, b"{}", {})
                return
            self.put_blob(base.removeprefix("/v2/").removesuffix("/blobs/uploads"), told,
                          bytes(self._uploads.pop(name)))  # fmt: skip
        status = {"POST": 202, "PATCH": 202, "GET": 204, "PUT": 201, "DELETE": 204}
        headers = {"Location": f"{base}/{name}", "Range": f"0-{max(0, len(held) - 1)}"}
        if self.chunk_bytes:
            headers["OCI-Chunk-Min-Length"] = str(self.chunk_bytes)
        _send(request, status[request.command], b"", headers)

    def _delete(self, request: BaseHTTPRequestHandler, path: str) -> None:
        if not self.delete:
            _send(request, 405, b"{}", {})
            return
        _, gone = self._content[path]
        for each in [name for name, (_, body) in self._content.items() if body == gone]:
            del self._content[each]
        _send(request, 202, b"", {})

    def _scripted(self, path: str) -> Any:
        for pattern, replies in self._scripts:
            if replies and pattern.fullmatch(path):
                return replies.pop(0)
        return None

    def _is_let_in(self, request: BaseHTTPRequestHandler) -> bool:
        if self.users is None and not self.public:
            return True
        kind, _, told = request.headers.get("Authorization", "").partition(" ")
        if self.basic:
            return kind == "Basic" and self._knows(told)
        token = f"token-of-{request.path.split('/')[2]}"
        reads = request.command in ("GET", "HEAD")
        return kind == "Bearer" and told in (f"{token}:push", *([token] if reads else ()))

    def _knows(self, basic: str) -> bool:
        name, _, password = base64.b64decode(basic).decode().partition(":")
        return bool(self.users) and (self.users or {}).get(name) == password

    def _challenge(self, request: BaseHTTPRequestHandler, path: str) -> None:
        repository = path.split("/")[2] if path.count("/") > 2 else ""
        challenge = 'Basic realm="the registry"'
        actions = "pull" if request.command in ("GET", "HEAD") else "pull,push"
        if not self.basic:
            challenge = (
                f'Bearer realm="https://{self.server}/token",service="the registry",'
                f'scope="repository:{repository}:{actions}"'
            )
        _send(request, 401, b"{}", {"WWW-Authenticate": challenge})

    def _token(self, request: BaseHTTPRequestHandler, query: str) -> None:
        kind, _, told = request.headers.get("Authorization", "").partition(" ")
        if not self.public and not (kind == "Basic" and self._knows(told)):
            _send(request, 401, b"{}", {"WWW-Authenticate": 'Basic realm="tokens"'})
            return
        scope = dict(urllib.parse.parse_qsl(query))["scope"]
        _, repository, actions = scope.split(":")
        token = f"token-of-{repository}" + (":push" if "push" in actions else "")
        body = json.dumps({"access_token": token}).encode()
        _send(request, 200, body, {"Content-Type": "application/json"})

    def _serve(
        self, request: BaseHTTPRequestHandler, body: bytes, headers: dict[str, str], *, slow: bool
    ) -> None:
        headers = {**headers, "Docker-Content-Digest": digest(body)}
        if not (slow and self.blob_bytes_s) or request.command == "HEAD":
            _send(request, 200, body, headers)
            return
        request.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        part = max(1, int(self.blob_bytes_s / 20))
        for begin in range(0, len(body), part):
            request.wfile.write(body[begin : begin + part])
            time.sleep(0.05)


def _handler(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):
                registry.answer(self)

        do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _send(
    request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]
) -> None:
    request.send_response(status)
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


class DockerRegistry:
    """Docker's registry, and what it was asked for."""

    def __init__(self, server: str, log: Path) -> None:
        self.server, self._log = server, log

    def fetched(self) -> list[str]:
        """Digests of the blobs that were fetched so far, in order."""
        return re.findall(r'"GET /v2/\S+/blobs/(sha256:[0-9a-f]{64})', self._log.read_text("utf-8"))


@contextlib.contextmanager
def docker_registry(
    directory: Path, *, auth: str = "", certificate: tls.Pair | None = None
) -> Iterator[DockerRegistry]:
    """Debian's docker-registry, empty, with its files in a directory.

    `auth` is a file of htpasswd's, `certificate` makes it speak TLS.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{free.getsockname()[1]}"
    directory.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "version": "0.1",
        "storage": {
            "filesystem": {"rootdirectory": f"{directory}/data"}, "delete": {"enabled": True},
        },
        "http": {"addr": server},
        "log": {"accesslog": {"disabled": False}, "level": "warn"},
    }  # fmt: skip
    if certificate:
        (directory / "cert.pem").write_text(certificate.certificate)
        (directory / "key.pem").write_text(certificate.key)
        files = {"certificate": f"{directory}/cert.pem", "key": f"{directory}/key.pem"}
        settings["http"]["tls"] = files
    if auth:
        (directory / "htpasswd").write_text(auth)
        settings["auth"] = {"htpasswd": {"realm": "tests", "path": f"{directory}/htpasswd"}}
    (directory / "config.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    log = directory / "log"
    program = shutil.which("docker-registry") or "docker-registry"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, "serve", str(directory / "config.yml")], stdout=out, stderr=out
        )
    try:
        until = time.monotonic() + 20
        while not _is_up(server):
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < until, log.read_text("utf-8")
            time.sleep(0.05)
        yield DockerRegistry(server, log)
    finally:
        process.terminate()
        process.wait()


def _is_up(server: str) -> bool:
    """Whether it listens; what it answers is another matter."""
    host, _, port = server.partition(":")
    try:
        with socket.create_connection((host, int(port))):
            return True
    except OSError:
        return False
