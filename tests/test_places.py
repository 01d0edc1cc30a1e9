"""Where a sweep lies: places that cannot be written, and what is left of one that never began."""

from pathlib import Path

import pytest
from commands import Ended, imgpull, run_py

from imgpull.sweep import beginning
from imgpull.sweep.watching.status import newest_sweep

SMALL = ("nodes=2", "deployments=2", "image=resource_consumer", "tracking=none")


def refused(ended: Ended, place: Path | str) -> None:
    """Nothing ran: one error that names the place and the fix."""
    assert ended.status == 2
    assert ended.err.startswith(f"error: {place}")
    assert "name another place: hydra.sweep.dir=DIR" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("until", ["run", "render"])
def test_a_place_that_cannot_be_made_is_refused_by_name(tmp_path: Path, until: str) -> None:
    (tmp_path / "multirun").write_text("a file")  # also for root, who may write everywhere
    refused(run_py(tmp_path, *SMALL, f"until={until}"), f"{tmp_path / 'multirun'}/")
    named = run_py(tmp_path, *SMALL, f"until={until}", "hydra.sweep.dir=multirun")
    refused(named, tmp_path / "multirun")
    refused(run_py(tmp_path, *SMALL, f"until={until}", "hydra.sweep.dir=/proc/x"), "/proc/x")


@pytest.mark.parametrize("what", ["multirun.yaml", "ledger.jsonl"])
def test_a_sweep_that_cannot_begin_leaves_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    begin = beginning.OmegaConf.save

    def full(config: object, path: Path) -> None:
        if what == "multirun.yaml":
            raise OSError(28, "No space left on device")
        (path.parent / what).unlink()
        (path.parent / what).mkdir()
        begin(config, path)

    monkeypatch.setattr(beginning.OmegaConf, "save", full)
    refused(run_py(tmp_path, *SMALL), f"{tmp_path / 'multirun'}/")
    assert list((tmp_path / "multirun").iterdir()) == []


def test_a_sweep_beside_it_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    first = run_py(tmp_path, *SMALL)
    (tmp_path / "multirun/9999-01-01_empty").mkdir()
    (tmp_path / "multirun/9999-01-01_empty/ledger.jsonl").touch()
    unreadable = tmp_path / "multirun/9999-01-02_unreadable/ledger.jsonl"
    unreadable.mkdir(parents=True)  # a directory: root can read every file
    assert newest_sweep(tmp_path / "multirun") == first.sweep
    assert imgpull(tmp_path, "status").status == 0
    again = run_py(tmp_path, *SMALL, "trials=2", "resume=auto")
    assert (again.status, again.sweep) == (0, first.sweep)
    assert f"warning: not looked at: {unreadable} cannot be read" in again.err
