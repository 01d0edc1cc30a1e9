"""What earlier trials of the same cells took: job.json of every sweep beside the one to come.

Hides how they are found without reading all that was ever measured: a sweep's ledger names its
cells, and only where it names one of these (or is gone) are its trials read.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from imgpull.results.record import JobRecord, read_records
from imgpull.sweep.ledger import NAME

# As json.dumps writes it; parsing every line of every sweep would take seconds.
_CELL = re.compile(r'"cell_id": "([^"]+)"')


def earlier_trials(root: Path, cell_ids: Collection[str]) -> list[JobRecord]:
    """The trials that count, of these cells, in the sweeps under `root`."""
    return [record for _, record in earlier_places(root, cell_ids)]


def earlier_places(root: Path, cell_ids: Collection[str]) -> Iterator[tuple[Path, JobRecord]]:
    """The same with their directories."""
    for directory in _sweeps(root):
        yield from _of(directory, cell_ids)


def _sweeps(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from (path for path in sorted(root.iterdir()) if path.is_dir())


def _of(directory: Path, cell_ids: Collection[str]) -> Iterator[tuple[Path, JobRecord]]:
    try:
        ledger = (directory / NAME).read_text("utf-8", errors="replace")
    except OSError:
        ledger = None
    if ledger is not None and set(_CELL.findall(ledger)).isdisjoint(cell_ids):
        return
    # Of another version, or broken: nothing is learned from it.
    for path, record in read_records(directory)[0]:
        if record.cell_id in cell_ids and record.counts:
            yield path, record
