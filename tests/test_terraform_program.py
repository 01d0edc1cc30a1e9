"""Laws of how the real Terraform is run: with a module of its own that needs no provider.

The words and files that the stand-in leaves elsewhere are compared with the real program's here.
"""

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from imgpull.errors import EngineFailed
from imgpull.provisioning import terraform as program
from imgpull.provisioning.place import Place
from imgpull.provisioning.running import Limits
from imgpull.provisioning.terraform import Change, Terraform

MODULE = """
variable "step_s" {
  type = number
}
variable "fails" {
  type    = bool
  default = false
}
resource "terraform_data" "first" {
  input = var.step_s
}
resource "terraform_data" "second" {
  input      = terraform_data.first.output
  depends_on = [terraform_data.first]
  provisioner "local-exec" {
    command = var.fails ? "echo the quota is too small >&2; exit 3" : "sleep ${var.step_s}"
  }
}
resource "terraform_data" "third" {
  depends_on = [terraform_data.second]
}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place whose module is the one above."""
    if shutil.which("terraform") is None:
        pytest.skip("no terraform on PATH: only the stand-in was tried")
    monkeypatch.setenv("IMGPULL_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("TF_CLI_CONFIG_FILE", raising=False)
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "main.tf").write_text(MODULE)
    return Place("here")


def begin(place: Place, limits: Limits = Limits(), **values: object) -> Terraform:  # noqa: B008
    with place.locked():
        place.lay(values, place.directory.parents[1] / "module")
    terraform = Terraform(place, limits)
    terraform.init(print)
    return terraform


def resources(place: Place) -> list[str]:
    state = json.loads((place.directory / "terraform.tfstate").read_text())
    return [each["name"] for each in state["resources"]]


def test_a_life_of_plan_apply_and_destroy(place: Place) -> None:
    said: list[str] = []
    terraform = begin(place, step_s=0)
    assert [str(each.action) for each in terraform.plan(said.append)] == ["create"] * 3
    place.adopt()
    terraform.apply(said.append)
    assert terraform.resources() == [f"terraform_data.{x}" for x in ("first", "second", "third")]
    assert any("Creation complete" in line for line in said)
    terraform.destroy(said.append)
    assert terraform.resources() == []


def test_a_plan_tells_what_happens_to_each_resource(place: Place) -> None:
    terraform = begin(place, step_s=0)
    terraform.plan(print)
    place.adopt()
    terraform.apply(print)
    place.lay({"step_s": 0}, place.directory.parents[1] / "module")
    assert terraform.plan(print) == []
    place.lay({"step_s": 1}, place.directory.parents[1] / "module")
    changes = terraform.plan(print)
    assert Change("terraform_data.first", "update") in changes


def test_states_and_plans_are_for_their_owner_alone(place: Place) -> None:
    terraform = begin(place, step_s=0)
    terraform.plan(print)
    place.adopt()
    private = place.directory / "proposed.tfplan"
    assert private.stat().st_mode & 0o777 == 0o600
    terraform.apply(print)
    assert not private.exists()
    for path in (*place.directory.glob("*.tfstate*"), place.log, place.variables):
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_an_error_is_told_in_terraforms_words(place: Place) -> None:
    terraform = begin(place, step_s=0, fails=True)
    terraform.plan(print)
    place.adopt()
    with pytest.raises(EngineFailed) as failed:
        terraform.apply(print)
    assert "local-exec provisioner error" in failed.value.message
    assert "the quota is too small" in failed.value.message
    assert "terraform.log" in failed.value.hint


def test_a_variable_that_is_refused_is_told_by_plan(place: Place) -> None:
    terraform = begin(place, step_s="many")
    with pytest.raises(EngineFailed, match="terraform plan failed: Invalid value for input"):
        terraform.plan(print)


@pytest.mark.slow
def test_ctrl_c_is_passed_on_once_and_waited_for(place: Place) -> None:
    said: list[str] = []
    terraform = begin(place, step_s=20)
    terraform.plan(said.append)
    place.adopt()
    before = signal.getsignal(signal.SIGINT)
    begun = time.monotonic()

    def interrupt() -> None:
        while not any("second: Creating" in line for line in said):
            time.sleep(0.05)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        terraform.apply(said.append)
    assert time.monotonic() - begun < 15
    assert any("Gracefully shutting down" in line for line in said)
    assert not any("Two interrupts" in line for line in said)
    # What was under way is in the state, to be removed; what was not begun is not.
    assert resources(place) == ["first", "second"]
    assert signal.getsignal(signal.SIGINT) is before
    terraform.destroy(said.append)
    assert terraform.resources() == []


def test_nobody_who_reads_is_no_reason_to_stop_half_way(place: Place) -> None:
    def broken(line: str) -> None:
        raise BrokenPipeError(line)

    terraform = begin(place, step_s=0)
    terraform.plan(print)
    place.adopt()
    terraform.apply(broken)
    assert resources(place) == ["first", "second", "third"]


def test_an_error_of_ours_lets_terraform_finish_what_is_under_way(place: Place) -> None:
    def full(line: str) -> None:
        if "second: Creating" in line:
            raise OSError(28, "No space left on device")

    terraform = begin(place, step_s=20)
    terraform.plan(print)
    place.adopt()
    with pytest.raises(OSError, match="No space left"):
        terraform.apply(full)
    assert "first" in resources(place)


@pytest.mark.slow
def test_what_takes_too_long_is_interrupted_and_keeps_its_state(place: Place) -> None:
    limits = Limits(terraform_s=3, grace_s=10)
    terraform = begin(place, limits, step_s=60)
    terraform.plan(print)
    place.adopt()
    with pytest.raises(EngineFailed, match="terraform apply was stopped") as failed:
        terraform.apply(print)
    assert "--limit" in failed.value.hint
    assert "first" in resources(place)


def test_its_version_is_read(place: Place) -> None:
    assert program.version(Limits()) >= program.OLDEST
