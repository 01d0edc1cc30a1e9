"""What a sweep's run in MLflow says first: the report's answers, commands, and a table of cells."""

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from commands import database, imgpull, run_py
from reports import made

from imgpull.tracking.describing import CELLS, LIMIT, cells_table, description

RUN = "0123456789abcdef0123456789abcdef"


def commands(text: str) -> list[str]:
    fenced = re.findall(r"```sh\n(.*?)\n```", text, re.S)
    assert len(fenced) == 1
    return [line for line in fenced[0].splitlines() if not line.startswith("#")]


def test_a_description_says_what_was_compared_whether_valid_and_what_is_best() -> None:
    text = description(made(), "- a note", RUN)
    assert text.startswith("## SIMULATED")
    assert "4 cells: replicas (1, 3) × qps (5, 10), 3 trials each" in text
    assert "Valid: all 12 trials count" in text
    assert re.search(r"image pull p50 [\d.]+ s \[[\d.]+, [\d.]+\]", text)
    assert re.search(r"Slowest, .*: \+[\d.]+ %", text)
    assert "### What each factor does" in text


def test_its_commands_name_this_sweep_and_this_run(tmp_path: Path) -> None:
    place = tmp_path / "my sweep"
    place.mkdir()
    (place / "report.md").write_text((made() / "report.md").read_text())
    found = commands(description(place, "", RUN))
    assert any(line.startswith("python run.py -m image=resource_consumer") for line in found)
    assert shlex.split(found[-2])[:3] == ["imgpull", "report", str(place)]
    assert found[-1] == f"imgpull compare OTHER {RUN}"
    assert not any("SWEEP" in line for line in found)


@pytest.mark.parametrize("cells", [0, 50, 5000])
def test_a_long_report_is_cut_by_whole_sections_and_keeps_its_commands(
    tmp_path: Path, cells: int
) -> None:
    report = (made() / "report.md").read_text()
    row = "| replicas 1 | 3 valid | 1 | 2 | 3 | 4 |\n"
    before, table = report.split("### Cells", 1)
    (tmp_path / "report.md").write_text(f"{before}### Cells\n\n{row * cells}\n{table}")
    text = description(tmp_path, "", RUN)
    assert len(text) <= LIMIT
    assert commands(text)[-1].endswith(RUN)
    assert text.count(row.strip()) in (0, cells)
    assert ("### Cells" in text) == (cells <= 50)


def test_without_a_report_the_notes_and_the_command_are_what_is_said(tmp_path: Path) -> None:
    text = description(tmp_path, "- all numbers here are simulated", RUN)
    assert text.startswith("- all numbers here are simulated\n")
    assert commands(text) == [f"imgpull compare OTHER {RUN}"]
    assert cells_table(tmp_path) is None


def test_the_table_is_that_of_the_cells_with_numbers_as_numbers() -> None:
    table: Any = cells_table(made())
    with (made() / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert table["columns"] == list(rows[0])
    place = table["columns"].index("image_pull_p50_s")
    assert [row[place] for row in table["data"]] == [float(row["image_pull_p50_s"]) for row in rows]
    assert json.loads(json.dumps(table, allow_nan=False)) == table


def test_a_sweep_s_run_holds_description_table_heat_map_and_report(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    (tmp_path / "mlflow.db").write_bytes(database())
    sizes = ("image=resource_consumer", "nodes=2", "deployments=2", "replicas=1,2")
    ended = run_py(tmp_path, "-m", *sizes, "tracking=local", plots=True)
    assert ended.status == 0, ended.err
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("imgpull")
    wanted = "tags.`imgpull.kind` = 'sweep'"
    (parent,) = client.search_runs([experiment.experiment_id], wanted)
    names = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert names >= {"report.html", "report.md", "cells.csv", "plots", "tables"}
    plots = {file.path for file in client.list_artifacts(parent.info.run_id, "plots")}
    assert "plots/heat_map.png" in plots
    assert json.loads(parent.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": CELLS, "type": "table"}
    ]
    table = json.loads(Path(client.download_artifacts(parent.info.run_id, CELLS)).read_text())
    assert [row[table["columns"].index("name")] for row in table["data"]] == ["r1", "r2"]
    told = parent.data.tags["mlflow.note.content"]
    assert commands(told)[-1] == f"imgpull compare OTHER {parent.info.run_id}"

    compared = imgpull(tmp_path, "compare", parent.info.run_id, parent.info.run_id)
    assert compared.status == 0, compared.err
    assert imgpull(tmp_path, "log", str(ended.sweep)).status == 0  # again: the same, not twice
    again = client.get_run(parent.info.run_id)
    assert again.data.tags["mlflow.note.content"] == told
    assert (
        json.loads(Path(client.download_artifacts(parent.info.run_id, CELLS)).read_text()) == table
    )
