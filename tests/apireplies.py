"""Requests as a test sees them, and the replies that it scripts.

Hides aiohttp: a reply is plain data, and everything that can happen to one on its way.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from typing import Any, NamedTuple

from aiohttp import web

DROP = object()  # the connection is cut
Reply = Any  # see ApiServer.script

JSON = {"Content-Type": "application/json"}


class _Seen(NamedTuple):
    method: str
    path: str  # without its query
    body: Any  # as JSON gives it


class Request(_Seen):
    """A request as it came: (method, path, body), and `.query`, `.headers` as mappings."""

    query: Mapping[str, str]
    headers: Mapping[str, str]


async def render(
    raw: web.BaseRequest, request: Request, reply: Reply, threads: Executor
) -> web.StreamResponse | None:
    """The answer that a reply asks for, or None: the usual one is to follow."""
    if callable(reply):  # in a thread: it may ask the server itself
        reply = await asyncio.get_running_loop().run_in_executor(threads, reply, request)
    if isinstance(reply, list):
        for each in reply:
            if (response := await render(raw, request, each, threads)) is not None:
                return response
        return None
    if reply is None:
        return None
    if isinstance(reply, (float, int)):
        await asyncio.sleep(reply)
        return None
    if reply is DROP:
        cut(raw)
        return web.Response()
    status, body, *more = reply
    return await _respond(raw, status, body, dict(more[0]) if more else {})


async def _respond(
    raw: web.BaseRequest, status: int, body: Any, headers: dict[str, str]
) -> web.StreamResponse:
    if isinstance(body, (str, bytes)):
        data = body.encode() if isinstance(body, str) else body
        return web.Response(status=status, body=data, headers=headers)
    if isinstance(body, (Mapping, list)):
        return as_json(status, body, headers)
    return await _trickle(raw, status, body, headers)


async def _trickle(
    raw: web.BaseRequest, status: int, parts: Iterable[Any], headers: dict[str, str]
) -> web.StreamResponse:
    response = web.StreamResponse(status=status, headers=headers)
    await response.prepare(raw)
    for part in parts:
        if part is DROP:
            cut(raw)
            break
        if isinstance(part, (float, int)):
            await asyncio.sleep(part)
        else:
            await response.write(part)
    return response


def as_json(status: int, body: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    data = json.dumps(body, separators=(",", ":")).encode()
    return web.Response(status=status, body=data, headers={**JSON, **(headers or {})})


def cut(raw: web.BaseRequest) -> None:
    """End the connection without a word."""
    if raw.transport:
        raw.transport.abort()
