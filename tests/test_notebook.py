"""The notebook and the page on analysis do what they say, on a real simulated sweep."""

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import PARTS, ROOT, run_py

import imgpull
from imgpull.analysis.frames import IDENTITY
from imgpull.errors import ReportError

NOTEBOOK = ROOT / "notebooks" / "run_locally.ipynb"
PAGE = ROOT / "docs" / "analysis.md"
FRAMES = ("trials", "pulls", "pods", "series", "measurements")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cells, twice each."""
    root = tmp_path_factory.mktemp("sweep")
    matrix = ("replicas=1,2", "trials=2", "nodes=2", "deployments=2", "image=resource_consumer")
    ended = run_py(root, "-m", *matrix, "tracking=none", f"hydra.sweep.dir={root / 'made'}")
    assert ended.status == 0, ended.err
    return ended.sweep if ended.sweep.is_absolute() else root / ended.sweep


# load_sweep


@pytest.mark.parametrize("frame", FRAMES)
def test_every_row_of_every_frame_names_its_trial_and_its_factors(sweep: Path, frame: str) -> None:
    rows = getattr(imgpull.load_sweep(sweep), frame)
    assert {*IDENTITY, "replicas", "nodes", "image"} <= set(rows.columns)
    assert len(rows) >= 4
    assert rows["counts"].all()
    assert set(rows.groupby(["replicas", "trial"]).groups) == {(1, 1), (1, 2), (2, 1), (2, 2)}


def test_frames_hold_every_row_of_the_trials_files(sweep: Path) -> None:
    found = imgpull.load_sweep(sweep)
    for name in ("pulls", "pods", "series", "measurements"):
        files = [pd.read_csv(path) for path in sorted(sweep.glob(f"*/{name}.csv"))]
        assert len(getattr(found, name)) == sum(map(len, files)) > 0
    assert found.pulls["pull_s"].sum() == pytest.approx(
        sum(pd.read_csv(path)["pull_s"].sum() for path in sweep.glob("*/pulls.csv"))
    )
    assert set(found.pulls["leader"]) <= {True, False}
    assert found.pods["startup_s"].min() > 0
    assert len(found.cells) == 2
    assert found.flags.empty
    assert list(found.verdicts["level"]) == ["sweep", *["cell", "trial", "trial"] * 2]
    assert len(found.bottlenecks) == 2


def test_a_directory_without_a_trial_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="holds no finished trial"):
        imgpull.load_sweep(tmp_path)


def test_the_package_loads_no_pandas_before_a_sweep_is_read() -> None:
    code = "import sys, imgpull; sys.exit(any(n in sys.modules for n in ('pandas', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# docs/analysis.md


def test_the_page_s_code_runs_and_answers(sweep: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6  # load_sweep, and five questions
    known: dict[str, Any] = {"directory": sweep}
    for block in blocks[:1]:
        exec(block, known)
    for block in blocks[1:]:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(block, known)
        assert said.getvalue().strip() or "grid" in block, block
    import matplotlib.pyplot as plt

    plt.close("all")


def test_the_page_names_every_frame(sweep: Path) -> None:
    named = set(re.findall(r"^\| `sweep\.(\w+)`", PAGE.read_text(), re.MULTILINE))
    found = imgpull.load_sweep(sweep)
    assert named == {name for name in dir(type(found)) if not name.startswith("_")} - {"directory"}


# The notebook


def cells(kind: str) -> list[dict[str, Any]]:
    found = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def test_the_committed_notebook_has_no_outputs_and_simulates() -> None:
    assert all(cell["outputs"] == [] for cell in cells("code"))
    assert all(cell["execution_count"] is None for cell in cells("code"))
    assert "".join(cells("code")[0]["source"]).startswith('ENGINE = "sim"')


def test_the_notebook_holds_what_a_real_cluster_needs_behind_its_switch() -> None:
    text = "\n".join("".join(cell["source"]) for cell in cells("code"))
    for step in ("az acr create", "--attach-acr", "az aks create", "az group delete", "doctor"):
        assert step in text
    # Whatever calls Azure does so through the switch.
    assert text.count("az ") == len(re.findall(r'only_real\(\s*f?"az ', text)) >= 7


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    for name in PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / "notebooks").mkdir()
    book = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        book, timeout=300, kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path / "notebooks")}},
    )  # fmt: skip
    client.execute()
    said = json.dumps([cell.get("outputs", []) for cell in book.cells])
    assert said.count("skipped: ENGINE is") >= 9
    assert "where the time went" in said
    assert "image/png" in said
    assert len(list((tmp_path / "multirun").glob("*/summary.csv"))) == 2
