"""`report.html`: one file that needs nothing else, no network and, for its first screen, no script.

Hides how the parts are put into one file: a template that escapes all text from data, style and
script inlined, and a policy that lets only that script run, so planted ones are dead twice.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from imgpull.analysis.layout import layout_of
from imgpull.analysis.report.charts import bars, spread
from imgpull.analysis.report.gathered import Gathered, gather
from imgpull.analysis.report.matrix import heat_maps
from imgpull.analysis.report.story import MEASURES, effect_text, titled
from imgpull.analysis.whole import whole
from imgpull.analysis.wording import engine_text, level_text

MAX_BYTES = 3_000_000
_SMALLEST_SCALE = 1 / 64


def write_page(sweep_dir: Path, frame: pd.DataFrame, found: Gathered) -> Path:
    """Write report.html, whole or not at all, with fewer points of each trial until it fits."""
    scale, text = 1.0, page(found)
    while len(text.encode()) > MAX_BYTES and scale > _SMALLEST_SCALE:
        scale /= 2
        found = gather(sweep_dir, frame, found.notes, scale)
        text = page(found)
    path = sweep_dir / "report.html"
    with whole(path) as temporary:
        temporary.write_text(text, "utf-8")
    return path


def page(found: Gathered) -> str:
    """The page as text."""
    frame = found.frame
    script, style = _part("page.js"), _part("page.css")
    layout = layout_of(frame)
    return _template().render(
        found=found,
        story=found.story,
        script=script,
        style=style,
        policy=_policy(script),
        traces=_json({"trials": found.trials, "how": _HOW}),
        maps=heat_maps(frame, layout, found.views),
        bars=bars(found.effects),
        spread=spread(layout, found.views, found.curves),
        measures=[(one, titled(one, frame)) for one in MEASURES],
        decides=titled(found.story.measure, frame),
        engine=engine_text(frame),
        cells={view.cell_id: view.text for view in found.views},
    )


# How a pod came by its image, in the order of `traces`.
_HOW = (
    "pulled the image", "waited on another pod's pull", "image was there", "pull failed",
    "pull not over at the deadline", "how it came by its image is not known",
)  # fmt: skip


def _json(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it closes one."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(script: str) -> str:
    """Nothing may be fetched, and no script may run but the page's own."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["level"] = level_text
    environment.filters["effect"] = effect_text
    environment.filters["jobs"] = jobs_text
    environment.filters["p"] = _p_text
    environment.filters["unbroken"] = lambda text: text.replace(" %", "\u00a0%")
    return environment.from_string(_part("page.html.j2"))


def _p_text(p: float | None) -> str:
    if p is None:
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def jobs_text(jobs: Sequence[int], most: int = 12) -> str:
    """ "job 3", "jobs 0, 1 and 7 more"."""
    shown = ", ".join(map(str, jobs[:most]))
    more = len(jobs) - most
    return f"job{'s' * (len(jobs) > 1)} {shown}" + f" and {more} more" * (more > 0)
