"""Small container images written in place, and put into a registry.

Hides the OCI formats: an image is files in layers, and what it runs.
"""

import gzip
import hashlib
import io
import json
import random
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_OCI = "application/vnd.oci.image"
MANIFEST, INDEX = f"{_OCI}.manifest.v1+json", f"{_OCI}.index.v1+json"


@dataclass(frozen=True)
class Layer:
    """A layer as a registry stores it."""

    blob: bytes
    diff_id: str
    unpacked_bytes: int
    compression: str

    @property
    def digest(self) -> str:
        return digest(self.blob)


@dataclass(frozen=True)
class OciImage:
    """An image for one platform."""

    layers: tuple[Layer, ...]
    config: bytes
    manifest: bytes
    platform: str

    @property
    def id(self) -> str:
        """What nodes know it by."""
        return digest(self.config)

    @property
    def digest(self) -> str:
        return digest(self.manifest)

    @property
    def compressed_bytes(self) -> int:
        return sum(len(layer.blob) for layer in self.layers)

    def table(self) -> str:
        """Its layers as node.sh is told them."""
        return " ".join(f"{layer.digest}={layer.diff_id}" for layer in self.layers)


def digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def layer(files: Mapping[str, bytes], compression: str = "gzip") -> Layer:
    """A layer of executable files."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    data = archive.getvalue()
    pack = {"gzip": lambda x: gzip.compress(x, 1, mtime=0), "zstd": zstd.compress, "none": bytes}
    return Layer(pack[compression](data), digest(data), len(data), compression)


def payload(name: str, size_bytes: int) -> Layer:
    """A layer of one file, half of it random: it shrinks to half. The same name, the same layer."""
    half = size_bytes // 2
    return layer({f"data/{name}": random.Random(name).randbytes(half) + bytes(half)})


def busybox(*names: str) -> Layer:
    """A layer with the machine's own static busybox, as programs of these names."""
    program = shutil.which("busybox")
    assert program, "busybox-static is not installed"
    with open(program, "rb") as file:  # noqa: PTH123
        content = file.read()
    return layer(dict.fromkeys(names, content))


def image(
    layers: Sequence[Layer],
    *,
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    platform: str = "linux/amd64",
    note: str = "",
) -> OciImage:
    """An image; another `note` makes another image of the same layers."""
    os_name, architecture, *variant = platform.split("/")
    settings = {"Entrypoint": list(entrypoint), "Cmd": list(command), "Labels": {"note": note}}
    config = _json({
        "os": os_name, "architecture": architecture, "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [each.diff_id for each in layers]},
        **({"variant": variant[0]} if variant else {}),
    })  # fmt: skip
    ends = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}
    manifest = _json({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _described(config, f"{_OCI}.config.v1+json"),
        "layers": [
            _described(each.blob, f"{_OCI}.layer.v1.tar{ends[each.compression]}")
            for each in layers
        ],
    })  # fmt: skip
    return OciImage(tuple(layers), config, manifest, platform)


def index(images: Sequence[OciImage], *, attested: bool = False) -> bytes:
    """An index over images of several platforms; `attested` as buildkit writes it."""
    listed = []
    for each in images:
        os_name, architecture, *variant = each.platform.split("/")
        platform = {"os": os_name, "architecture": architecture}
        if variant:
            platform["variant"] = variant[0]
        listed.append({**_described(each.manifest, MANIFEST), "platform": platform})
    if attested:
        unknown = {"os": "unknown", "architecture": "unknown"}
        listed.append({**_described(b"{}", MANIFEST), "platform": unknown})
    return _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed})


def push(server: str, repository: str, tag: str, *images: OciImage, as_index: bool = False) -> None:
    """Put an image, or an index over several, into a registry that takes it from anybody."""
    base = f"http://{server}/v2/{repository}"
    for each in images:
        for blob in (*(layer.blob for layer in each.layers), each.config):
            _push_blob(base, blob)
        _put(f"{base}/manifests/{each.digest}", each.manifest, MANIFEST)
    if as_index:
        _put(f"{base}/manifests/{tag}", index(images), INDEX)
    else:
        (only,) = images
        _put(f"{base}/manifests/{tag}", only.manifest, MANIFEST)


def _push_blob(base: str, blob: bytes) -> None:
    try:
        _ask("HEAD", f"{base}/blobs/{digest(blob)}")
    except urllib.error.HTTPError as error:
        error.close()
        location = _ask("POST", f"{base}/blobs/uploads/", b"")["Location"]
        joined = "&" if "?" in location else "?"
        _put(f"{location}{joined}digest={digest(blob)}", blob, "application/octet-stream")


def _put(url: str, body: bytes, media_type: str) -> None:
    _ask("PUT", url, body, media_type)


def _ask(method: str, url: str, body: bytes | None = None, media_type: str = "") -> Any:
    headers = {"Content-Type": media_type} if media_type else {}
    request = urllib.request.Request(url, body, headers, method=method)
    with urllib.request.urlopen(request) as response:
        return response.headers


def _described(blob: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(blob), "size": len(blob)}


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()
