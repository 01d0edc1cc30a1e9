"""Watches of an API server: who listens to what, and how it ends.

Hides the event loop from the threads in which objects change.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web
from apiobjects import Change, Object, Place, Refused, Watched
from apireplies import JSON, cut
from apistore import Store


@dataclass
class Watches:
    """All that are open."""

    store: Store
    bookmark_s: float = 0.2  # after so much quiet there is a bookmark
    gone_as_status: bool = False  # a version that is gone is refused; else an ERROR event says so
    open: dict[int, web.BaseRequest] = field(default_factory=dict)
    _listening: set[asyncio.Event] = field(default_factory=set)

    def wake(self) -> None:
        """Something changed. Called in the loop's thread."""
        for each in self._listening:
            each.set()

    def cut(self) -> None:
        """Cut all connections. Called in the loop's thread."""
        for raw in list(self.open.values()):
            cut(raw)
        self.wake()

    async def serve(
        self, raw: web.BaseRequest, watched: Watched, query: Mapping[str, str]
    ) -> web.StreamResponse:
        self.store.served(watched.place)
        version = int(query.get("resourceVersion") or 0)
        gone = Refused(410, "Expired", f"too old resource version: {version}")
        is_gone = 0 < version < self.store.floor
        if is_gone and self.gone_as_status:
            raise gone
        response = web.StreamResponse(headers=JSON)
        await response.prepare(raw)
        if is_gone:
            await response.write(_line("ERROR", gone.body))
            return response
        woken = asyncio.Event()
        self._listening.add(woken)
        self.open[id(raw)] = raw
        try:
            with contextlib.suppress(ConnectionError):  # the client has gone, or was cut off
                await self._stream(raw, response, watched, version, query, woken)
        finally:
            self._listening.discard(woken)
            self.open.pop(id(raw), None)
        return response

    async def _stream(
        self, raw: web.BaseRequest, response: web.StreamResponse, watched: Watched, version: int,
        query: Mapping[str, str], woken: asyncio.Event,
    ) -> None:  # fmt: skip
        loop = asyncio.get_running_loop()
        until = loop.time() + float(query.get("timeoutSeconds") or 1800)
        bookmarks = query.get("allowWatchBookmarks") == "true"
        if version == 0:
            version, lines = self._first(watched)
            await response.write(b"".join(lines))
        told = version
        while raw.transport is not None and (left := until - loop.time()) > 0:
            woken.clear()
            version, lines = self.store.since(version, watched)
            if lines:
                await response.write(b"".join(lines))
                told = version
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), min(left, self.bookmark_s))
                continue
            if bookmarks and version > told:
                await response.write(self._bookmark(watched.place, version))
                told = version
        if bookmarks and raw.transport is not None:
            await response.write(self._bookmark(watched.place, version))

    def _first(self, watched: Watched) -> tuple[int, list[bytes]]:
        """What is there, for a watch from no version."""
        with self.store.lock:
            found, version = self.store.select(watched), self.store.version
        changes = (Change(version, watched.place.collection, None, each) for each in found)
        return version, [line for each in changes if (line := each.seen_by(watched))]

    def _bookmark(self, place: Place, version: int) -> bytes:
        resource = self.store.served(place)
        meta = {"resourceVersion": str(version), "creationTimestamp": None}
        return _line(
            "BOOKMARK", {"kind": resource.kind, "apiVersion": resource.group, "metadata": meta}
        )


def _line(kind: str, content: Object) -> bytes:
    return json.dumps({"type": kind, "object": content}).encode() + b"\n"
