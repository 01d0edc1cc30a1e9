"""A Kubernetes API on a loopback port, for tests of whatever talks to a real cluster.

Hides kmock (the HTTP server and API discovery) and its event loop, which runs in a thread. Objects
are apistore's, watches apiwatch's, replies apireplies'. Everything that a real server can do to a
client can be told to happen here: refusals, slowness, cut connections, versions that are gone.

    apiserver.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    apiserver.script("GET", r"/api/v1/nodes", (429, {}, {"Retry-After": "0"}), DROP, 0.2)
    apiserver.handle("GET", r"/api/v1/nodes/.*/proxy/metrics", lambda request: (200, "up 1\\n"))
    apiserver.on_create("Job", lambda job: apiserver.put({**job, "status": {"succeeded": 1}}))
"""

import asyncio
import concurrent.futures
import contextlib
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import kmock
import yaml
from aiohttp import web
from apiobjects import Object, Place, Refused, Watched
from apireplies import DROP, JSON, Reply, Request, as_json, render
from apistore import Store, wait_until
from apiwatch import Watches

from imgpull.cluster.kube import Kube
from imgpull.cluster.kubeconfig import Access

__all__ = ["DROP", "ApiServer", "Object", "Request", "wait_until"]

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


def _of(part: str, name: str) -> Any:
    """A setting that is one of a part's."""

    def read(server: "ApiServer") -> Any:
        return getattr(getattr(server, part), name)

    def write(server: "ApiServer", value: Any) -> None:
        setattr(getattr(server, part), name, value)

    return property(read, write)


class ApiServer:
    """The stand-in. Its methods may be called from any thread.

    Settings, at any time: `namespace_takes_s` (a deleted namespace is Terminating that long),
    `tokens` (None takes everybody, else 401 without one of these bearer tokens), `version` (of
    Kubernetes), `bookmark_s` (after how much quiet a watch gets a bookmark), `gone_as_status`
    (watches of a version that is gone: HTTP 410, else an ERROR event), `skew_s` (of its clock).
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tokens: set[str] | None = None
        self.version = "v1.34.1"
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []  # of handlers and controllers: bugs of a test
        self._scripts: list[tuple[str, re.Pattern[str], list[Reply]]] = []
        self._handlers: list[tuple[str, re.Pattern[str], Callable[[Request], Reply]]] = []
        self._controllers: list[tuple[str, str, Callable[[Object], object]]] = []
        self._denied: set[tuple[str, str]] = set()
        self._pool = concurrent.futures.ThreadPoolExecutor(16, "apiserver")
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._kmock = _Handler(self)
        self.store = Store(changed=self._wake, created=self._created, deleted=self._deleted)
        self._watches = Watches(self.store)

    def __enter__(self) -> "ApiServer":
        self._thread.start()
        self._port = self._await(self._start())
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._await(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._loop.close()

    namespace_takes_s = _of("store", "namespace_takes_s")
    skew_s = _of("store", "skew_s")
    bookmark_s = _of("_watches", "bookmark_s")
    gone_as_status = _of("_watches", "gone_as_status")

    def kubeconfig(self, path: Path, token: str = "a-token-of-the-tests") -> Path:
        """Write a kubeconfig for this server, with one context `test`."""
        cluster = {"server": self.url, **({"insecure-skip-tls-verify": True} if self._tls else {})}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def kube(self, token: str = "a-token-of-the-tests") -> Kube:
        """A client of this server; the caller closes it."""
        return Kube(Access(self.url, "test", token=token, skips_verification=bool(self._tls)))

    def put(self, content: Object) -> Object:
        """Store an object as it is, status too; its namespace is made when there is none.

        New or not: what it was before is replaced. Its deletion mark does not make it go.
        """
        return self.store.put(content)

    def get(self, path: str) -> Object | None:
        """The object at a path, or None."""
        found = self.store.find(_place(path))
        return json.loads(found.json) if found else None

    def all(self, collection_path: str) -> list[Object]:
        """The objects of a collection (of all namespaces, or of one), by namespace and name."""
        return [
            json.loads(each.json) for each in self.store.select(Watched(_place(collection_path)))
        ]

    @staticmethod
    def place(path: str) -> Place:
        """Where a path leads, as `store` takes it."""
        return _place(path)

    def remove(self, path: str) -> None:
        """Take an object away at once, whatever holds it; nothing when there is none."""
        self.store.remove(_place(path))

    def script(self, method: str, path_regex: str, *replies: Reply) -> None:
        """Answer the next requests that match (the whole path, no query) with these in turn.

        One reply for each request: (status, body) or (status, body, headers), where the body is
        JSON, text, bytes, or an iterable of bytes that come one by one (in it a float is a pause
        and DROP the end of the connection); DROP; a float, after so many seconds the answer comes
        as usual; a callable(request) that returns a reply, or None for the usual answer; or a list
        of these, for one request, the first that answers counts: [0.5, (503, {})].
        """
        self._scripts.append((method, re.compile(path_regex), list(replies)))

    def handle(
        self, method: str, path_regex: str, answer: Callable[[Request], Reply] | Reply
    ) -> None:
        """Answer all requests that match so, in a thread; the newest handler counts."""
        call = answer if callable(answer) else lambda _: answer
        self._handlers.insert(0, (method, re.compile(path_regex), call))

    def on_create(self, kind: str, act: Callable[[Object], object]) -> None:
        """Call this, in a thread, with each object of a kind that is created or newly put."""
        self._controllers.append(("created", kind, act))

    def on_delete(self, kind: str, act: Callable[[Object], object]) -> None:
        """Call this, in a thread, with each object of a kind that has gone."""
        self._controllers.append(("deleted", kind, act))

    def deny(self, verb: str, resource: str) -> None:
        """Refuse a verb (get, list, watch, create, update, patch, delete, deletecollection; *).

        A resource is its plural, with its part: "pods", "nodes/proxy", "*". Access reviews say so
        too.
        """
        self._denied.add((verb, resource))

    def forget(self) -> None:
        """Make all versions until now Gone: for new watches and for lists that go on."""
        with self.store.lock:
            self.store.version += 1
            self.store.floor = self.store.version

    def break_watches(self) -> None:
        """Cut the connections of all watches."""
        self._await(self._cut_watches())

    @property
    def watching(self) -> int:
        """How many watches are open."""
        return len(self._watches.open)

    def _await(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _start(self) -> int:
        await self._kmock.__aenter__()
        self._runner = web.ServerRunner(
            web.Server(self._kmock, access_log=None), shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls, backlog=512)
        await site.start()
        port: int = self._runner.addresses[0][1]
        return port

    async def _stop(self) -> None:
        self._watches.cut()
        await self._runner.cleanup()
        await self._kmock.__aexit__(None, None, None)
        left = asyncio.all_tasks() - {asyncio.current_task()}  # answers that still wait
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _cut_watches(self) -> None:
        self._watches.cut()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop may be closed already
            self._loop.call_soon_threadsafe(lambda: self._watches.wake())

    def _created(self, content: Object) -> None:
        self._control("created", content)

    def _deleted(self, content: Object) -> None:
        self._control("deleted", content)

    def _control(self, what: str, content: Object) -> None:
        for when, kind, act in self._controllers:
            if (when, kind) == (what, content["kind"]):
                with contextlib.suppress(RuntimeError):  # the pool may be closed already
                    self._pool.submit(self._guarded, act, content)

    def _guarded(self, act: Callable[[Object], object], content: Object) -> None:
        try:
            act(content)
        except Exception as error:
            self.errors.append(error)

    async def answer(self, raw: web.BaseRequest, body: Any) -> web.StreamResponse | None:
        """The answer to one request, or None: API discovery's turn."""
        request = Request(raw.method, raw.path, body)
        request.query = dict(parse_qsl(raw.query_string, keep_blank_values=True))
        request.headers = raw.headers
        self.requests.append(request)
        try:
            self._admit(request)
            for reply in self._replies(request):
                if (response := await render(raw, request, reply, self._pool)) is not None:
                    return self._dated(response)
            response = await self._usual(raw, request)
        except Refused as refused:
            response = as_json(refused.status, refused.body)
        return self._dated(response)

    def _dated(self, response: web.StreamResponse | None) -> web.StreamResponse | None:
        if response is not None and not response.prepared and self.skew_s:
            response.headers["Date"] = formatdate(time.time() + self.skew_s, usegmt=True)
        return response

    def _admit(self, request: Request) -> None:
        told = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.tokens is not None and told not in self.tokens:
            raise Refused(401, "Unauthorized", "Unauthorized")
        place = Place.of(request.path)
        if place and self._denies(_verb(request, place), _resource_name(place)):
            raise Refused(
                403, "Forbidden", f'{place.plural} is forbidden: User "test" cannot '
                f'{_verb(request, place)} resource "{_resource_name(place)}" in API group '
                f'"{place.group.rpartition("/")[0]}"',
            )  # fmt: skip

    def _denies(self, verb: str, resource: str) -> bool:
        return any((v, r) in self._denied for v in (verb, "*") for r in (resource, "*"))

    def _replies(self, request: Request) -> Iterator[Reply]:
        for method, path, replies in self._scripts:
            if replies and method == request.method and path.fullmatch(request.path):
                reply = replies.pop(0)
                yield from reply if isinstance(reply, list) else [reply]
                break
        for method, path, call in self._handlers:
            if method == request.method and path.fullmatch(request.path):
                yield call
                break

    async def _usual(self, raw: web.BaseRequest, request: Request) -> web.StreamResponse | None:
        method, path, query = request.method, request.path, request.query
        if method == "POST" and path.startswith("/apis/authorization.k8s.io/v1/self"):
            return as_json(201, self._review(request.body))
        if path == "/version":
            major, minor = self.version.removeprefix("v").split(".")[:2]
            return as_json(200, {"major": major, "minor": minor, "gitVersion": self.version})
        if path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        place = Place.of(path)
        if place is None:
            return None
        if method == "GET" and not place.name:
            if query.get("watch") in ("true", "1"):
                return await self._watches.serve(raw, _watched(place, query), query)
            return self._list(place, query)
        if place.sub not in ("", "status", "finalize"):
            raise Refused(404, "NotFound", f"the server could not find {path}")
        return self._object(request, place)

    def _object(self, request: Request, place: Place) -> web.Response:
        dry = request.query.get("dryRun") == "All"
        body = request.body
        if request.method == "GET":
            return web.Response(body=self.store.get(place).json, headers=JSON)
        if request.method == "POST" and not place.name:
            return as_json(201, self.store.create(place, _mapping(body), dry=dry))
        if request.method == "PUT" and place.name:
            return as_json(200, self.store.replace(place, _mapping(body), dry=dry))
        if request.method == "PATCH" and place.name:
            kind = request.headers.get("Content-Type", "")
            return as_json(200, self.store.patch(place, body, kind, dry=dry))
        if request.method == "DELETE":
            options = body if isinstance(body, dict) else {}
            if place.name:
                return as_json(200, self.store.delete(place, options))
            for each in self.store.select(_watched(place, request.query)):
                self.store.delete(Place(place.group, place.plural, *each.key), options)
            return as_json(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
        raise Refused(
            405, "MethodNotAllowed", "the server does not allow this method on the resource"
        )

    def _list(self, place: Place, query: Mapping[str, str]) -> web.Response:
        resource = self.store.served(place)
        found, meta = self.store.page(
            _watched(place, query), int(query.get("limit") or 0), query.get("continue", "")
        )
        return web.Response(
            body=b'{"kind":"%sList","apiVersion":"%s","metadata":%s,"items":[%s]}'
            % (
                resource.kind.encode(),
                resource.group.encode(),
                json.dumps(meta).encode(),
                b",".join(each.json for each in found),
            ),
            headers=JSON,
        )

    def _review(self, body: Any) -> Object:
        asked = ((body or {}).get("spec") or {}).get("resourceAttributes") or {}
        name = "/".join(filter(None, (asked.get("resource", ""), asked.get("subresource", ""))))
        denied = self._denies(asked.get("verb", ""), name)
        return {**(body or {}), "status": {"allowed": not denied, "reason": "denied" * denied}}


class _Handler(kmock.KubernetesScaffold):
    """kmock, with our answers first: its parser of paths fails at /api/v1/namespaces."""

    def __init__(self, server: ApiServer) -> None:
        super().__init__()
        self.server = server

    async def __call__(self, raw: web.BaseRequest) -> web.StreamResponse:
        try:
            data = await raw.read()
            response = await self.server.answer(raw, _parsed(data))
        except ConnectionError:  # who asked has gone
            raise
        except Exception as error:
            self.server.errors.append(error)
            return as_json(500, {"kind": "Status", "code": 500, "message": repr(error)})
        if response is None:  # discovery: kmock's
            for (group, plural), each in self.server.store.resources.items():
                known = self.resources[kmock.resource(*_group_version(group), plural)]
                known.kind, known.namespaced = each.kind, each.namespaced
            response = await super().__call__(raw)
        return response


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data) if data else None
    except ValueError:
        return None


def _group_version(group: str) -> tuple[str, str]:
    name, _, version = group.rpartition("/")
    return name, version


def _place(path: str) -> Place:
    place = Place.of(path)
    assert place is not None, f"{path} is no path of a resource"
    return place


def _watched(place: Place, query: Mapping[str, str]) -> Watched:
    return Watched(place, query.get("labelSelector", ""), query.get("fieldSelector", ""))


def _verb(request: Request, place: Place) -> str:
    if request.method == "GET":
        if place.name:
            return "get"
        return "watch" if request.query.get("watch") in ("true", "1") else "list"
    if request.method == "DELETE":
        return "delete" if place.name else "deletecollection"
    return _VERBS.get(request.method, request.method.lower())


def _resource_name(place: Place) -> str:
    return f"{place.plural}/{place.sub.split('/')[0]}" if place.sub else place.plural


def _mapping(body: Any) -> Object:
    if not isinstance(body, dict):
        raise Refused(400, "BadRequest", "the body is not an object")
    return body
