"""What a sweep's run says first: its report as a description, and its cells as a table.

Hides how `report.md` and `cells.csv` are fitted to a run's page: whole sections within MLflow's
8,000 characters, commands with the sweep's own directory and run, and a table its UI can compare.
"""

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

CELLS = "tables/cells.json"  # the same name in every parent: MLflow compares tables by name
FILES = (
    "summary.csv", "cells.csv", "report.html", "report.md", "ledger.jsonl", "multirun.yaml",
    "plots",
)  # fmt: skip
LIMIT = 8000  # characters of a tag, in MLflow 3.17
_COMMANDS = "### Run it again"
_SHOWN = ("### What each factor does", "### Cells", "### What to look at")
_SIGNS = str.maketrans({"✅": "✔", "❌": "✘", "\ufe0f": None})  # the last asks for an emoji
_MORE = "All of it: report.html, cells.csv and plots/heat_map.png under Artifacts."


def description(sweep_dir: Path, notes: str, run_id: str) -> str:
    """What was compared, whether it is valid, what is best and by how much, and the commands.

    Of the report the whole sections that fit; only the notes where no report was written.
    """
    against = (
        f"# against another sweep: its directory, or its run's id\nimgpull compare OTHER {run_id}"
    )
    try:
        report = (sweep_dir / "report.md").read_text("utf-8")
    except OSError:
        return f"{notes}\n\n```sh\n{against}\n```".strip()
    # A heading of the first size would be larger than the page's own; not all fonts have emoji.
    report = re.sub(r"^# ", "## ", report).translate(_SIGNS)
    head, *sections = re.split(r"\n(?=### )", "\n" + report)
    answers, *sections = sections or [head]
    commands = next(
        (each for each in sections if each.startswith(_COMMANDS)), f"{_COMMANDS}\n\n```sh\n```"
    )
    body, fence = commands.rstrip().rsplit("\n", 1)
    commands = f"{body}\n{against}\n{fence}".replace(" SWEEP", f" {shlex.quote(str(sweep_dir))}")
    room = max(LIMIT - len(commands) - len(_MORE) - 10, 0)
    kept = [f"{head}\n{answers}".strip()[:room]]
    for section in (each for name in _SHOWN for each in sections if each.startswith(name)):
        if sum(len(each) + 2 for each in [*kept, section]) <= room:
            kept.append(section.strip())
    return "\n\n".join([*kept, _MORE, commands])


def cells_table(sweep_dir: Path) -> dict[str, Any] | None:
    """`cells.csv` as pandas writes orient="split", which MLflow's UI reads; None without one."""
    try:
        with (sweep_dir / "cells.csv").open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
    except (OSError, ValueError):
        return None
    return {"columns": header, "data": [[_value(text) for text in row] for row in rows]}


def table_tag() -> str:
    """What client.log_table sets; that call appends to the table when a sweep is logged again."""
    return json.dumps([{"path": CELLS, "type": "table"}])


def _value(text: str) -> str | float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return text
