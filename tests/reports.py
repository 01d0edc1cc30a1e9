"""Reports as tests read them: a sweep made once, its report written, and the page in parts.

Hides how a page is taken apart: by Python's own parser, which knows nothing of what wrote it.
"""

import atexit
import csv
import functools
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from commands import run_py

from imgpull import analysis

ARGUMENTS = (
    "image=resource_consumer", "nodes=2", "deployments=2", "replicas=1,3", "qps=5,10", "trials=3",
    "tracking=none",
)  # fmt: skip


@functools.cache
def made() -> Path:
    """A simulated sweep of 4 cells x 3 trials, as its end left it: never changed by a test."""
    root = Path(tempfile.mkdtemp(prefix="imgpull-report-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    ended = run_py(root, "-m", *ARGUMENTS)
    assert ended.status == 0, ended.err
    return ended.sweep


def written(sweep: Path, notes: tuple[str, ...] = ()) -> str:
    analysis.write_report(sweep, analysis.read_sweep(sweep), notes)
    return (sweep / "report.html").read_text("utf-8")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def edited(sweep: Path, job: int, change: Callable[[dict[str, Any]], None]) -> None:
    path = sweep / str(job) / "job.json"
    record = json.loads(path.read_text("utf-8"))
    change(record)
    path.write_text(json.dumps(record), "utf-8")


def traces(page: str) -> list[dict[str, Any]]:
    (text,) = re.findall(r'<script type="application/json" id="traces">(.*?)</script>', page)
    return list(json.loads(text)["trials"])


def headlines(page: str) -> list[str]:
    return Parsed(page).texts("p", **{"class": "headline"})


class Parsed(HTMLParser):
    """The elements of a page in order: (tag, attributes, text)."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        if tag not in ("meta", "link", "br", "img"):
            self._open.append(len(self.found) - 1)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self.found[self._open.pop()][0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for place in self._open:
            self.found[place][2].append(data)

    def texts(self, tag: str, **wanted: str) -> list[str]:
        return [
            " ".join(" ".join(text).split())
            for name, attributes, text in self.found
            if name == tag and all(attributes.get(key) == value for key, value in wanted.items())
        ]
