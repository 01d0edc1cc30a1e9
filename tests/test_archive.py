"""Laws of files that come back from a container, and of what a Go program says of its making."""

import contextlib
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgpull.engines import archive, gobuild
from imgpull.errors import EngineFailed

NAMES = st.text("abcXYZ 0_:-é", min_size=1, max_size=20).map(lambda text: f"f{text}.json")


@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=8))
def test_what_is_packed_is_unpacked(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    directory = tmp_path_factory.mktemp("report")
    packed = archive.pack({f"report/{name}": data for name, data in files.items()}, ["report"])
    assert archive.unpack(packed, directory, "report") == len(files)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == files
    assert all(path.stat().st_uid == os.getuid() for path in directory.iterdir())


def test_a_credential_is_for_its_owner_alone() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive.pack({"imgpull/kubeconfig": b"x"}))) as tar:
        assert tar.getmember("imgpull/kubeconfig").mode == 0o600


def test_a_tar_that_was_cut_short_is_no_report(tmp_path: Path) -> None:
    packed = archive.pack({"report/junit.xml": b"x" * 5000})
    with pytest.raises(EngineFailed, match="cannot be read"):
        archive.unpack(packed[:3000], tmp_path, "report")


@pytest.mark.parametrize("name", ["../out.json", "report/../../out.json", "/out.json"])
def test_no_file_lands_outside_the_report(tmp_path: Path, name: str) -> None:
    report = tmp_path / "above" / "report"
    report.mkdir(parents=True)
    with contextlib.suppress(EngineFailed):
        archive.unpack(archive.pack({name: b"x"}), report, "report")
    assert all(path.is_relative_to(report) for path in tmp_path.rglob("out.json"))
    assert not Path("/out.json").exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("report/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert archive.unpack(buffer.getvalue(), tmp_path, "report") == 0
    assert list(tmp_path.iterdir()) == []


def test_an_absurd_report_is_refused_before_it_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_LARGEST", 3000)
    packed = archive.pack({f"report/{i}": b"x" * 1000 for i in range(4)})
    with pytest.raises(EngineFailed, match="the report holds"):
        archive.unpack(packed, tmp_path, "report")


# --------------------------------------------------------------------------------- Go's own word

MODULE = (
    "path\tk8s.io/perf-tests/clusterloader2/cmd\nmod\tk8s.io/perf-tests/clusterloader2\t(devel)\t\n"
    "dep\tk8s.io/client-go\tv0.36.3\th1:x=\n{}build\tGOOS=linux\n"
)


def program(path: Path, module: str) -> Path:
    """A file with build information where Go (src/debug/buildinfo) would put it."""

    def prefixed(data: bytes) -> bytes:
        length, head = len(data), b""
        while length >= 0x80:
            head, length = head + bytes([length & 0x7F | 0x80]), length >> 7
        return head + bytes([length]) + data

    header = (b"\xff Go buildinf:" + bytes([8, 2])).ljust(32, b"\0")
    text = b"a" * 16 + module.encode() + b"b" * 16
    path.write_bytes(
        b"\x7fELF" * 1000 + header + prefixed(b"go1.26.8") + prefixed(text) + b"\0" * 9
    )
    return path


@pytest.mark.parametrize(
    ("lines", "version"),
    [
        ("", "client-go v0.36.3, go1.26.8"),
        (
            "build\tvcs.revision=4b3415444f4c62406d508539732abee3eadd3aa8\n"
            "build\tvcs.time=2026-08-07T16:16:53Z\nbuild\tvcs.modified=true\n",
            "perf-tests 4b3415444f4c+changes 2026-08-07, go1.26.8",
        ),
    ],
)
def test_a_go_program_tells_its_revision_or_its_age(
    tmp_path: Path, lines: str, version: str
) -> None:
    info = gobuild.build_info(program(tmp_path / "cl2", MODULE.format(lines)))
    assert info["GOOS"] == "linux"
    assert gobuild.version_text(info) == version


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\xff Go buildinf:\x08\x02"])
def test_a_program_that_tells_nothing_has_no_version(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "program"
    path.write_bytes(content)
    assert gobuild.version_text(gobuild.build_info(path)) == ""
    assert not gobuild.contains(path, b"create_to_run")
