"""Files on their way into a container and back, as a tar stream.

Hides tar. Nothing is shared with the container, so files that come back are the user's own,
whoever wrote them, wherever the container ran.
"""

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from imgpull.errors import EngineFailed

_LARGEST = 2**30  # a report is about 100 kB; with a snapshot of Prometheus some hundred MB


def pack(files: Mapping[str, bytes], directories: Iterable[str] = ()) -> bytes:
    """A tar of files by their path, readable by their owner alone, who is root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in directories:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def unpack(data: bytes, directory: Path, below: str) -> int:
    """Write the files of a tar that stand below a folder of it; returns how many.

    EngineFailed when it is no whole tar, or one that no CL2 writes.
    """
    count = total = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for entry in tar:
                name = entry.name.removeprefix("./").removeprefix(f"{below}/")
                if not entry.isfile():
                    continue
                total += entry.size
                if total > _LARGEST:
                    raise EngineFailed(
                        f"the report holds more than {_LARGEST} bytes, {entry.size} in {name}",
                        hint="leave --experimental-prometheus-snapshot-to-report-dir out",
                    )
                entry.name, entry.mode = name, 0o644
                tar.extract(entry, directory, set_attrs=False, filter="data")
                count += 1
    except (tarfile.TarError, EOFError) as error:
        raise EngineFailed(
            f"the report that came back cannot be read: {error}", hint="run the trial again"
        ) from error
    return count
