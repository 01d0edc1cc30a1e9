"""Plots in a process of their own: the same files, the same errors, and no process left behind."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from standins import eventually, is_running
from test_analysis import add_trial

from imgpull.analysis import draw_plots, read_sweep, start_drawing
from imgpull.analysis.drawing import Drawing
from imgpull.errors import ReportError
from imgpull.sweep.ending import conclude


def pid_of(drawing: Drawing) -> int:
    assert drawing._process is not None  # the process is what this module hides
    return drawing._process.pid


def test_the_plots_are_those_drawn_in_this_process(tmp_path: Path) -> None:
    add_trial(tmp_path, 0)
    here = {path.name: path.read_bytes() for path in draw_plots(tmp_path, read_sweep(tmp_path))}
    for name in here:
        (tmp_path / "plots" / name).unlink()
    with start_drawing(tmp_path) as drawing:
        there = {path.name: path.read_bytes() for path in drawing.wait()}
    assert here == there
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == sorted(here)


def test_an_error_keeps_its_words_and_its_hint(tmp_path: Path) -> None:
    add_trial(tmp_path, 0)
    add_trial(tmp_path, 1, engine="docker", cell="real")
    with pytest.raises(ReportError) as here:
        draw_plots(tmp_path, read_sweep(tmp_path))
    with start_drawing(tmp_path) as drawing, pytest.raises(ReportError) as there:
        drawing.wait()
    assert (there.value.message, there.value.hint) == (here.value.message, here.value.hint)


def test_plots_that_break_are_a_warning_and_cost_no_result(tmp_path: Path) -> None:
    add_trial(tmp_path, 0)
    (tmp_path / "plots").write_text("a file where a directory belongs", "utf-8")
    end = conclude(tmp_path, Console(file=io.StringIO()))
    (warning,) = [one for one in end.warnings if one.startswith("the plots broke: ")]
    assert "File" in warning
    assert end.plots is None
    assert end.summary == tmp_path / "summary.csv"
    assert [path.name for path in end.report or ()] == ["report.html", "report.md"]


def test_a_process_that_is_killed_is_told_with_the_way_to_draw_again(tmp_path: Path) -> None:
    add_trial(tmp_path, 0)
    with start_drawing(tmp_path) as drawing:
        os.kill(pid_of(drawing), 9)
        with pytest.raises(ReportError, match="ended with status -9") as found:
            drawing.wait()
    assert found.value.hint == "`imgpull report DIR` draws them again"


def test_a_process_that_does_not_start_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with start_drawing(tmp_path) as drawing, pytest.raises(ReportError, match="did not start"):
        drawing.wait()


def test_leaving_without_the_plots_stops_their_process(tmp_path: Path) -> None:
    add_trial(tmp_path, 0)
    with pytest.raises(KeyboardInterrupt), start_drawing(tmp_path) as drawing:
        raise KeyboardInterrupt
    assert not is_running(pid_of(drawing))
    assert not (tmp_path / "plots").exists()


def test_a_killed_sweep_leaves_no_process_that_draws(tmp_path: Path) -> None:
    add_trial(tmp_path, 0)
    script = (
        "import sys, time, pathlib, imgpull.analysis as analysis\n"
        "drawing = analysis.start_drawing(pathlib.Path(sys.argv[1]))\n"
        "print(drawing._process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sweep:
        assert sweep.stdout is not None
        pid = int(sweep.stdout.readline())
        sweep.kill()
    assert eventually(lambda: not is_running(pid), within_s=20)
