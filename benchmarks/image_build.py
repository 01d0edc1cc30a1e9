"""An image built and pushed, beside its compressor alone on the same bytes: rate and memory.

The build is the command itself, in a process of its own, into Debian's docker-registry on this
machine (whose own work competes for the processors). Alone: zlib or libzstd, one thread, at the
same level, on the archives that were built. Usage: python benchmarks/image_build.py [--size 2GB]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from images import zstd  # noqa: E402
from registries import docker_registry  # noqa: E402

from imgpull import units  # noqa: E402
from imgpull.images import packing, shape  # noqa: E402
from imgpull.images.layer import make  # noqa: E402

LAYERS, RATIO = 10, 2.5  # as image=even_5gb_10
MOST_MIB, MOST_TIMES = 200, 1.5


@dataclass
class Cost:
    """What something took."""

    wall_s: float
    cpu_s: float
    peak_mib: float = 0.0


def built(size: str, compression: str, server: str) -> Cost:
    """The command, in a process of its own."""
    command = [
        sys.executable, "-m", "imgpull.cli", "image", "build", f"{server}/made:{compression}",
        "--size", size, "--layers", str(LAYERS), "--ratio", str(RATIO),
        "--compression", compression, "--salt", "benchmark",
    ]  # fmt: skip
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the build failed: {status}")
    cpu_s = used.ru_utime + used.ru_stime
    return Cost(time.perf_counter() - begun, cpu_s, used.ru_maxrss / 1024)


class Alone:
    """The compressor, timed on what it is given of an archive."""

    def __init__(self, compression: str) -> None:
        gzip = compression == "gzip"
        self._unpack = zlib.decompressobj(31) if gzip else zstd.ZstdDecompressor()
        self._pack = (
            zlib.compressobj(packing.GZIP_LEVEL, zlib.DEFLATED, 31) if gzip
            else zstd.ZstdCompressor(packing.ZSTD_LEVEL)
        )  # fmt: skip
        self.cost = Cost(0.0, 0.0)

    def take(self, packed: bytes) -> None:
        """The next compressed bytes of a layer as it was made."""
        if getattr(self._unpack, "eof", False):
            return  # what fills the end
        data = self._unpack.decompress(packed)
        wall_s, cpu_s = time.perf_counter(), time.thread_time()
        self._pack.compress(data)
        self.cost.cpu_s += time.thread_time() - cpu_s
        self.cost.wall_s += time.perf_counter() - wall_s


def alone(size: str, compression: str) -> Cost:
    """The compressor on the same archives, one layer after the other."""
    total = Cost(0.0, 0.0)
    asked = shape.even(units.parse_size(size), LAYERS, ratio=RATIO, compression=compression)
    for layer in asked.layers:
        timed = Alone(compression)
        make(layer, "benchmark", timed.take)
        total.wall_s += timed.cost.wall_s
        total.cpu_s += timed.cost.cpu_s
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="2GB", help="compressed")
    parser.add_argument("--compression", default="gzip,zstd")
    given = parser.parse_args()
    if shutil.which("docker-registry") is None:
        raise SystemExit("Debian's docker-registry is not installed")
    for compression in given.compression.split(","):
        with tempfile.TemporaryDirectory() as folder, docker_registry(Path(folder)) as server:
            build = built(given.size, compression, server.server)
        bare = alone(given.size, compression)
        print(
            f"{compression}: {given.size} built and pushed in {build.wall_s:.1f} s, "
            f"{build.cpu_s:.1f} s CPU, peak {build.peak_mib:.0f} MiB (at most {MOST_MIB}); "
            f"the compressor alone {bare.wall_s:.1f} s, {bare.cpu_s:.1f} s CPU: "
            f"{build.wall_s / bare.wall_s:.2f} x in time, {build.cpu_s / bare.cpu_s:.2f} x in CPU "
            f"(at most {MOST_TIMES})",
            flush=True,
        )


if __name__ == "__main__":
    main()
