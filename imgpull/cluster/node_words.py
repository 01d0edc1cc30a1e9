"""What node.sh says of a node, and what it means for the next pull of the image.

Hides the words between the script and us, and the rules that make of them cold, partial or warm:
containerd fetches and unpacks no layer whose chain of snapshots it has, and fetches no blob that it
has (containerd core/unpack/unpacker.go).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from imgpull.cluster.registry import ImageInfo
from imgpull.errors import EngineFailed, EngineUnavailable

OTHERWISE = "use cache=salted, which looks at no node"

_END = "end"  # the last word of a whole message
_NO_CTR_FREED_SHARE = 0.9  # of an image's compressed bytes: unpacked layers take more


@dataclass(frozen=True)
class NodeCache:
    """What a node holds of the image. None is unknown.

    `state`: cold (a pull moves every layer), partial, warm (it moves none) or unknown.
    """

    node: str
    state: str
    kept_layers: int | None = None  # whose fetch the next pull skips
    kept_bytes: int | None = None  # of them, compressed
    freed_bytes: int | None = None  # of snapshots
    page_cache_dropped: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Words:
    """What node.sh said, by the first word of a line."""

    lines: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, node: str, message: str) -> "Words":
        """EngineFailed when the message did not come whole."""
        *lines, last = message.rstrip().split("\n")
        if last != _END:
            raise EngineFailed(
                f"node {node} answered in part: …{message[-200:]!r}",
                hint="run it again; imgpull doctor looks at the nodes",
            )
        return cls(tuple((word, rest) for word, _, rest in (x.partition(" ") for x in lines)))

    def all(self, word: str) -> list[str]:
        return [rest for each, rest in self.lines if each == word]

    def one(self, word: str) -> str | None:
        return next(iter(self.all(word)), None)

    def numbers(self, word: str) -> list[int]:
        return [int(each) for each in (self.one(word) or "").split() if each.isdigit()]

    @property
    def has_ctr(self) -> bool:
        """Whether snapshots could be listed."""
        return self.one("no-ctr") is None

    def number(self, word: str) -> int:
        return next(iter(self.numbers(word)), 0)


def require_able(node: str, words: Words) -> None:
    """EngineUnavailable when the node lacks what this takes."""
    error = words.one("error")
    if error is None:
        return
    kind, _, rest = error.partition(" ")
    said = {
        "no-crictl": "has no crictl",
        "not-containerd": f"runs no containerd that keeps its data in {rest or 'a directory'}",
        "runtime": f"its crictl cannot ask the runtime: {rest}",
    }.get(kind, error)
    raise EngineUnavailable(
        f"node {node} {said}", hint=f"install crictl on the nodes, or {OTHERWISE}"
    )


def require_removed(node: str, words: Words) -> None:
    """EngineFailed when the image is still there."""
    if users := words.all("user"):
        space, pod, container = (*users[0].split("/"), "", "")[:3]
        more = f" (and {len(users) - 1} more)" if len(users) > 1 else ""
        raise EngineFailed(
            f"node {node}: container {container} of pod {space}/{pod}{more} still uses the image "
            f"after {words.number('waited')} s; exited or not, it keeps the next pull warm",
            hint=f"kubectl -n {space} delete pod {pod}, or another image, or cache=salted",
        )
    if (refused := words.one("refused")) is not None:
        raise EngineFailed(
            f"node {node}: crictl did not remove the image: {refused or 'it came back'}",
            hint=f"kubectl debug node/{node} …, chroot /host, and crictl rmi it by hand",
        )


def seen(node: str, words: Words, known: ImageInfo | None) -> NodeCache:
    """What the next pull will find; `known` is the layer table that the script was given."""
    count, kept = words.number("layers"), _kept(words)
    state = _state(words, count, kept)
    if state == "unknown":
        return NodeCache(node, state, note=_notes(words, count, kept))
    sizes = [layer.compressed_bytes for layer in known.layers] if known else []
    # A table of the node's own has no sizes.
    kept_bytes = sum(sizes[each - 1] for each in kept) if sizes or not kept else None
    return NodeCache(node, state, len(kept), kept_bytes, note=_notes(words, count, kept))


def after_purge(node: str, words: Words, known: ImageInfo | None) -> NodeCache:
    """What the next pull will find once the image is no longer listed, and what was freed."""
    was_listed = bool(words.one("images"))
    left = seen(node, Words(tuple(line for line in words.lines if line[0] != "images")), known)
    freed, page_cache = words.number("freed"), words.one("page-cache")
    least = _NO_CTR_FREED_SHARE * known.compressed_bytes if known else math.inf
    if not words.has_ctr and was_listed and not _kept(words) and freed >= least:
        # Neither listed nor a blob of it on the disk, which has room again for what it held.
        left = replace(left, state="cold", kept_layers=0, kept_bytes=0)
    notes = [left.note]
    if page_cache != "dropped":
        notes.append(f"the page cache was not dropped: {page_cache or 'no reason told'}")
    return replace(
        left,
        freed_bytes=freed,
        page_cache_dropped=page_cache == "dropped",
        note="; ".join(filter(None, notes)),
    )


def _kept(words: Words) -> list[int]:
    """Numbers of the layers that the next pull will not fetch."""
    return sorted({*words.numbers("snapshots"), *words.numbers("blobs")})


def _state(words: Words, count: int, kept: Sequence[int]) -> str:
    all_unpacked = len(words.numbers("snapshots")) == count
    if words.one("images") and (all_unpacked or not words.has_ctr):
        return "warm"
    if not words.has_ctr or not count:
        return "unknown"
    if all_unpacked:
        return "warm"  # though not listed: the next pull moves nothing
    on_its_way = words.number("under_way") or words.number("partly")
    return "partial" if kept or on_its_way else "cold"


def _notes(words: Words, count: int, kept: Sequence[int]) -> str:
    notes: list[str] = []
    if kept and not words.one("images"):
        users, sharers = words.all("user"), [name for name in words.all("sharer") if name]
        by = f"container {users[0]}" if users else ", ".join(sharers)
        # As of a pull that ended with its containerd: it holds them for a day.
        by = by or "no image, so by a lease: chroot /host ctr -n k8s.io leases ls, and rm"
        notes.append(f"{len(kept)} of {count} layers stay, held by {by}")
    if words.number("under_way"):
        notes.append("a pull of it is still under way")
    elif partly := words.number("partly"):
        notes.append(
            f"{partly} of {count} layers are partly fetched, by a pull that was cut off: the next "
            "one may go on from there"
        )
    if not words.has_ctr:
        notes.append("without ctr its snapshots cannot be seen")
    elif not count:
        notes.append("its layers are not known: let this machine read the registry (docker login)")
    return "; ".join(notes)
