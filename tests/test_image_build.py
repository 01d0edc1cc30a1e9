"""Images that are made: their sizes and digests, what is in them, and where they are put."""

import gzip
import hashlib
import io
import json
import platform
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import zstd

from imgpull.config.compose import composed_job
from imgpull.config.image import Image, Layer
from imgpull.errors import ConfigError, EngineUnavailable
from imgpull.images import packing, shape
from imgpull.images.building import build
from imgpull.images.layer import MadeLayer, make
from imgpull.images.layout import layout
from imgpull.images.program import sleeper
from imgpull.images.shape import LayerShape

UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress, "zstd": zstd.decompress, "none": bytes,
}  # fmt: skip
PROGRAM = ("bin/sleep", sleeper())


def made(layer: LayerShape, salt: str = "1", **more: Any) -> tuple[MadeLayer, bytes]:
    out: list[bytes] = []
    result = make(layer, salt, out.append, **more)
    return result, b"".join(out)


def a_layer(compressed: int = 400_000, unpacked: int = 1_000_000, **more: Any) -> LayerShape:
    given = {"compression": "gzip", "files": 5, "content": "layer 1"} | more
    return LayerShape(compressed, unpacked, **given)


# ------------------------------------------------------------------------------- one layer


@settings(deadline=None, max_examples=30)
@given(
    unpacked=st.integers(2_000, 4_000_000),
    ratio=st.floats(1.2, 8),
    compression=st.sampled_from(["gzip", "zstd"]),
    files=st.integers(1, 60),
)
def test_a_layer_has_the_sizes_that_were_asked_for(
    unpacked: int, ratio: float, compression: str, files: int
) -> None:
    asked = a_layer(round(unpacked / ratio), unpacked, compression=compression, files=files)
    result, blob = made(asked)
    archive = UNPACK[compression](blob)
    assert len(archive) == result.unpacked_bytes
    assert len(blob) == result.compressed_bytes
    assert result.digest == f"sha256:{hashlib.sha256(blob).hexdigest()}"
    assert result.diff_id == f"sha256:{hashlib.sha256(archive).hexdigest()}"
    # To a block of tar; below a few blocks there is no smaller archive.
    assert abs(len(archive) - unpacked) <= 512
    # To the byte, but where headers alone take more.
    least = 300 * (files + 3)
    assert len(blob) == asked.compressed_bytes or asked.compressed_bytes < least
    assert len(blob) <= max(asked.compressed_bytes, least)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize(("compressed", "unpacked"), [
    (1_000, 2_000), (30_000_000, 78_000_000), (3_000_000, 3_003_000), (1_196_000, 3_310_000),
])  # fmt: skip
def test_sizes_as_in_the_tables_of_conf_come_out_to_the_byte(
    compression: str, compressed: int, unpacked: int
) -> None:
    result, _ = made(a_layer(compressed, unpacked, compression=compression))
    assert result.compressed_bytes == compressed


def test_an_archive_that_is_not_compressed_is_stored_as_it_is() -> None:
    result, blob = made(a_layer(1_000_000, 1_000_000, compression="none"))
    assert result.digest == result.diff_id
    assert abs(len(blob) - 1_000_000) <= 512


def test_a_layer_is_a_directory_tree_of_as_many_files_and_nothing_of_this_machine() -> None:
    _, blob = made(a_layer(files=2500, unpacked=4_000_000))
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob))) as archive:
        entries = archive.getmembers()
    assert len(entries) == 2500
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)
    assert {(x.mtime, x.uid, x.gid, x.uname, x.gname) for x in entries} == {(0, 0, 0, "", "")}
    assert max(x.size for x in entries) - min(x.size for x in entries) <= 512
    assert len({x.name.rpartition("/")[0] for x in entries}) == 3  # no directory is huge


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_salt_decides_on_the_content_and_nothing_else_does(compression: str) -> None:
    asked = a_layer(unpacked=3_000_000, compression=compression)
    assert made(asked)[0] == made(asked)[0]
    assert made(asked)[1] != made(asked, "2")[1]
    assert made(asked)[0].diff_id != made(asked, "2")[0].diff_id


def test_no_stretch_of_a_layer_comes_twice() -> None:
    """Else a registry or disk that stores equal blocks once would make it smaller than it is."""
    _, blob = made(a_layer(16_000_000, 16_000_000, compression="none", files=1))
    blocks = [blob[at : at + 4096] for at in range(512, len(blob) - 8192, 4096)]
    assert len(set(blocks)) == len(blocks)


@given(st.integers(0, 3000))
def test_filling_is_passed_over_by_decoders_and_as_long_as_asked(room: int) -> None:
    for compression in ("gzip", "zstd"):
        pack = packing.packer(compression)
        body = pack.add(b"content" * 99)
        end = pack.end(room + pack.closing_bytes)
        assert UNPACK[compression](body + end) == b"content" * 99
        if room >= 20:
            assert len(end) == room + pack.closing_bytes


def test_what_takes_a_layer_may_refuse_and_that_ends_it() -> None:
    taken = 0

    def take(data: bytes) -> None:
        nonlocal taken
        taken += len(data)
        if taken > 2_000_000:
            raise EngineUnavailable("the registry is full")

    with pytest.raises(EngineUnavailable, match="is full"):
        make(a_layer(40_000_000, 80_000_000), "1", take)
    assert taken < 20_000_000


# ------------------------------------------------------------------------------- the image


def test_an_image_like_one_of_conf_has_its_layer_table() -> None:
    image = composed_job(["image=pytorch_large"]).image
    found = shape.like(image)
    assert [x.compressed_bytes for x in found.layers] == [x.compressed_bytes for x in image.layers]
    assert [x.unpacked_bytes for x in found.layers] == [x.unpacked_bytes for x in image.layers]
    assert found.command == ("sleep", "infinity")
    # 15 GB in files of 256 KiB.
    assert sum(x.files for x in found.layers) == pytest.approx(15e9 / 2**18, rel=0.01)
    assert sum(x.files for x in shape.like(image, files=1000).layers) == pytest.approx(1000, abs=10)


def an_image(*layers: Layer, **more: Any) -> Image:
    given = {"digest": None, "command": (), "args": (), "pull_secret": None,
             "platform": "linux/amd64"} | more  # fmt: skip
    return Image("mine", "reg.io/mine:1", layers=layers, **given)


@pytest.mark.parametrize(("image", "words", "fix"), [
    (an_image(), "image mine has no layer table", "imgpull image inspect reg.io/mine:1"),
    (an_image(Layer(5, None, "gzip")), "the unpacked size of layer 1 is not known", "--download"),
    (an_image(Layer(5, 9, "gzip"), platform="linux/arm64"), "made for linux/amd64 only",
     "image.platform=linux/amd64"),
    (an_image(Layer(10**6, 10**9, "zstd")), "1 GB unpacked cannot be 1 MB in zstd (layer 1)",
     "from 1 to 50"),
    (an_image(Layer(10**9, 10**6, "gzip")), "1 MB unpacked cannot be 1 GB in gzip", "from 1 to 50"),
])  # fmt: skip
def test_a_shape_that_cannot_be_made_is_refused_with_the_fix(
    image: Image, words: str, fix: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        shape.like(image)
    assert words in raised.value.message
    assert fix in raised.value.hint


def test_more_layers_than_files_are_refused() -> None:
    with pytest.raises(ConfigError, match="--files 2 is fewer"):
        shape.even(10**6, 3, files=2)


@pytest.mark.parametrize("name", ["made", "made.tar"])
def test_a_layout_holds_what_it_names(tmp_path: Path, name: str) -> None:
    with layout(tmp_path / name, "7") as target:
        built = build(shape.even(3_000_000, 3), "7", target)
    held = contents(tmp_path / name)
    index = json.loads(held["index.json"])
    assert json.loads(held["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (described,) = index["manifests"]
    assert described["digest"] == built.digest
    manifest = json.loads(blob(held, described))
    config = json.loads(blob(held, manifest["config"]))
    assert config["rootfs"]["diff_ids"] == [layer.diff_id for layer in built.layers]
    assert config["config"]["Entrypoint"] == ["/bin/sleep", "infinity"]
    for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        archive = gzip.decompress(blob(held, layer))
        assert f"sha256:{hashlib.sha256(archive).hexdigest()}" == diff_id
    assert len(held) == 2 + 1 + 1 + 3
    with pytest.raises(ConfigError, match="exists"):
        layout(tmp_path / name, "7")


def contents(place: Path) -> dict[str, bytes]:
    if place.is_dir():
        return {
            str(path.relative_to(place)): path.read_bytes()
            for path in place.rglob("*")
            if path.is_file()
        }
    with tarfile.open(place) as archive:
        return {x.name: (archive.extractfile(x) or io.BytesIO()).read() for x in archive}


def blob(held: dict[str, bytes], described: dict[str, Any]) -> bytes:
    digest = described["digest"]
    content = held[f"blobs/sha256/{digest.removeprefix('sha256:')}"]
    assert len(content) == described["size"]
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest
    return content


def test_two_salts_share_no_digest_and_one_salt_has_one(tmp_path: Path) -> None:
    found = []
    for name, salt in (("a", "1"), ("b", "1"), ("c", "2")):
        with layout(tmp_path / name, salt) as target:
            found.append(build(shape.even(600_000, 3), salt, target))
    first, same, other = found
    assert first.layers == same.layers
    assert (first.digest, first.config_digest) == (same.digest, same.config_digest)
    digests = [{x.digest for x in each.layers} | {x.diff_id for x in each.layers}
               | {each.digest, each.config_digest} for each in (first, other)]  # fmt: skip
    assert not digests[0] & digests[1]
    assert len(digests[0]) == 2 + 6  # equal layers differ from each other


def test_a_full_disk_is_told_with_the_way_around_it(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    with layout(tmp_path / "made", "1") as target:
        (tmp_path / "made" / "blobs" / "sha256" / "incomplete").symlink_to(full)
        with pytest.raises(EngineUnavailable, match="No space left on device") as raised:
            build(shape.even(30_000_000, 1), "1", target)
    assert "push to a registry" in raised.value.hint
    assert not list((tmp_path / "made").rglob("index.json"))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="a program for amd64")
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_the_program_of_an_image_sleeps_until_it_is_told_to_end(tmp_path: Path, end: int) -> None:
    program = tmp_path / "sleep"
    program.write_bytes(sleeper())
    program.chmod(0o755)
    with subprocess.Popen([str(program), "infinity"]) as running:
        time.sleep(0.2)
        running.send_signal(signal.SIGWINCH)
        time.sleep(0.1)
        assert running.poll() is None
        running.send_signal(end)
        assert running.wait(5) == 0
