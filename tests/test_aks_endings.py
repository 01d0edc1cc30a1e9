"""Laws of a cluster's end: what counts as gone, what is left to others, and who is asked."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from clouds import FITS, Azure, up
from commands import ROOT, Ended, imgpull
from standins import Terminal, eventually

from imgpull.errors import EngineFailed
from imgpull.provisioning.terraform import Terraform

NAME, GROUP = "aks_d4ds_v5", "imgpull-aks-d4ds-v5"
OTHER = "00000000-0000-0000-0000-000000000002"
OUTSIDE = (
    f"/subscriptions/{OTHER}/resourceGroups/images/providers/Microsoft.ContainerRegistry/"
    "registries/shared"
)
UNSEEN = (
    "(SubscriptionNotFound) The subscription '0000' could not be found.\n"
    "Code: SubscriptionNotFound\nMessage: The subscription '0000' could not be found."
)
COLLEAGUES = {
    "managed-by": "imgpull", "imgpull-id": "aks_d4ds_v5-aaaaaa", "owner": "colleague",
    "sweep": "none", "expiry": "2030-01-01T00:00:00Z",
}  # fmt: skip
POOL, CLUSTER = "azurerm_kubernetes_cluster_node_pool.measured", "azurerm_kubernetes_cluster.this"


def down(azure: Azure) -> Ended:
    return imgpull(azure.directory, "cluster", "down", NAME, "--yes")


def janitor(azure: Azure, *more: str) -> Ended:
    return imgpull(azure.directory, "janitor", "--azure", *more)


def state(azure: Azure) -> Path:
    return azure.state / NAME / "terraform.tfstate"


def expired(identity: str = "old-1", **more: Any) -> dict[str, Any]:
    tags = {**COLLEAGUES, "imgpull-id": identity, "expiry": "2020-01-01T00:00:00Z"}
    return {"location": "eastus", "tags": tags, "resources": [], "pools": [], **more}


def test_a_cluster_in_a_subscription_that_is_not_seen_is_not_taken_to_be_gone(
    azure: Azure,
) -> None:
    assert up(azure).status == 0
    azure.behave(az_fail={"group show": UNSEEN}, fail={"destroy": [CLUSTER, UNSEEN]})
    ran = down(azure)
    assert ran.status == 2
    assert "SubscriptionNotFound" in ran.err
    assert "is destroyed" not in ran.out
    assert state(azure).exists()
    azure.behave()
    assert down(azure).status == 0
    assert azure.groups == {}


def test_a_build_that_failed_and_of_which_nothing_can_be_told_keeps_its_state(
    azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Terraform, say: object) -> None:
        azure.behave(az_fail={"group show": UNSEEN}, fail={"destroy": [CLUSTER, UNSEEN]})
        apply(self, print)
        raise EngineFailed("AllocationFailed", hint="another region")

    apply = Terraform.apply
    monkeypatch.setattr(Terraform, "apply", fails)
    ran = up(azure)
    assert ran.status == 2
    assert "cannot be told" in ran.err
    assert f"imgpull cluster down {NAME} --yes" in ran.err
    assert state(azure).exists()


def test_a_cluster_that_a_colleague_built_while_the_question_stood_is_not_touched(
    azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = {"location": "westeurope", "tags": COLLEAGUES, "resources": ["theirs"], "pools": []}

    def meanwhile(question: str) -> bool:
        azure.save({"groups": {GROUP: theirs}})
        return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(typer, "confirm", meanwhile)
    ran = imgpull(azure.directory, "cluster", "up", *FITS)
    assert ran.status == 2
    assert "cluster.azure.resource_group=OTHER" in ran.err
    assert "apply" not in azure.commands()
    assert azure.groups == {GROUP: theirs}


def test_a_colleagues_cluster_is_never_named_for_deletion_and_leaves_nothing_here(
    azure: Azure,
) -> None:
    azure.behave(rival=COLLEAGUES)
    ran = up(azure)
    assert ran.status == 2
    assert "is not ours (owner: colleague)" in ran.out
    assert "group delete" not in ran.out + ran.err
    assert "cluster down" not in ran.out + ran.err
    assert azure.groups[GROUP]["resources"] == ["theirs"]
    assert imgpull(azure.directory, "cluster", "status").out.startswith("no cluster was made")


def test_what_a_janitor_removed_elsewhere_is_made_anew_and_destroyed_when_that_fails(
    azure: Azure,
) -> None:
    assert up(azure).status == 0
    azure.save({"groups": {}})
    azure.behave(fail={"apply": [POOL, "AllocationFailed"]})
    ran = up(azure)
    assert f"cluster {NAME}: new" in ran.out
    assert "all that was made is destroyed" in ran.err
    assert azure.groups == {}


def test_the_quota_is_asked_for_all_of_what_is_made_anew(azure: Azure) -> None:
    assert up(azure).status == 0
    azure.save({"groups": {}})
    azure.behave(usage={"cores": [0, 1000], "standardDDSv5Family": [0, 8],
                        "standardDASv5Family": [0, 100]})  # fmt: skip
    ran = up(azure)
    assert ran.status == 2
    assert "12 are needed" in ran.err


@pytest.mark.parametrize("changed", [(), ("cluster.registry.server=another.azurecr.io",)])
def test_the_registry_of_a_cluster_that_stays_is_not_deleted_by_a_key_that_was_left_out(
    azure: Azure, changed: tuple[str, ...]
) -> None:
    assert up(azure, "cluster.registry.server=mynicename.azurecr.io").status == 0
    azure.forget_calls()
    ran = up(azure, *changed)
    assert ran.status == 2
    assert "repeat cluster.registry.server=mynicename.azurecr.io" in ran.err
    assert azure.commands() == ["init", "plan"]


def test_the_provider_that_began_a_cluster_is_the_one_that_changes_it(azure: Azure) -> None:
    assert up(azure).status == 0
    lock = azure.state / NAME / ".terraform.lock.hcl"
    lock.write_text("as init wrote it")
    assert up(azure).status == 0
    assert lock.read_text() == "as init wrote it"


def test_a_role_on_anothers_registry_that_is_left_is_told_with_the_command_that_deletes_it(
    azure: Azure,
) -> None:
    assert up(azure, f"cluster.azure.registry={OUTSIDE}").status == 0
    denied = "AuthorizationFailed: no Microsoft.Authorization/roleAssignments/delete"
    azure.behave(fail={"destroy": ["azurerm_role_assignment.pull[0]", denied]})
    ran = down(azure)
    assert ran.status == 2
    assert azure.groups == {}
    assert "the role AcrPull of its nodes" in ran.err
    assert f"az role assignment list --scope {OUTSIDE}" in ran.err
    assert "nothing of it is left" not in ran.out
    assert state(azure).exists()
    azure.behave()
    assert down(azure).status == 0
    assert not state(azure).exists()


def test_the_janitor_looks_into_every_subscription_of_a_cluster_made_from_here(
    azure: Azure,
) -> None:
    assert up(azure, f"cluster.azure.subscription={OTHER}").status == 0
    groups = azure.groups
    groups[GROUP]["tags"]["expiry"] = "2020-01-01T00:00:00Z"
    azure.save({"groups": groups})
    ran = janitor(azure, "--yes")
    assert ran.status == 0, ran.err
    assert azure.groups == {}


def test_the_janitor_looks_into_the_subscription_that_it_is_told(azure: Azure) -> None:
    azure.save({"groups": {"near": expired(), "far": expired(subscription=OTHER)}})
    assert janitor(azure, "--yes", "--subscription", OTHER).status == 0
    assert list(azure.groups) == ["near"]


@pytest.mark.parametrize(
    ("trouble", "told"),
    [({}, "broken: "), ({"az_fail": {"aks list": "(Throttled) later"}}, "machines of over: "),
     ({"az_fail_in": {OTHER: "(Forbidden) no"}}, f"subscription {OTHER}: ")],
)  # fmt: skip
def test_what_the_janitor_cannot_look_at_is_told_and_keeps_nothing_else_from_going(
    azure: Azure, trouble: dict[str, Any], told: str
) -> None:
    for name, text in (("broken", ""), ("other", f'{{"subscription_id": "{OTHER}", "tags": {{'
                                                 '"imgpull-id": "x"}}')):  # fmt: skip
        (azure.state / name).mkdir(parents=True)
        (azure.state / name / "terraform.tfvars.json").write_text(text)
    azure.save({"groups": {"over": expired(), "too": expired("old-2")}})
    azure.behave(**trouble)
    ran = janitor(azure, "--yes")
    assert azure.groups == {}
    assert ran.status == 1
    assert f"not looked at: {told}" in ran.err


@pytest.mark.parametrize(
    "command",
    [("cluster", "up", *FITS), ("cluster", "down", NAME), ("cluster", "resize", NAME, "--nodes=2"),
     ("janitor", "--azure")],
    ids=["up", "down", "resize", "janitor"],
)  # fmt: skip
def test_without_a_terminal_nobody_can_agree_and_yes_is_named(
    azure: Azure, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    if command[1] in ("down", "resize"):
        assert up(azure).status == 0
    azure.save({"groups": {**azure.groups, "over": expired()}})
    before = azure.groups
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        ran = imgpull(azure.directory, *command)
    assert ran.status == 2
    assert "--yes agrees beforehand" in ran.err
    assert azure.groups == before


@pytest.mark.slow
@pytest.mark.parametrize("command", [("cluster", "down", NAME), ("janitor", "--azure")])
def test_ctrl_c_while_something_is_removed_names_the_command_that_goes_on(
    azure: Azure, command: tuple[str, ...]
) -> None:
    assert up(azure).status == 0
    groups = azure.groups
    groups[GROUP]["tags"]["expiry"] = "2020-01-01T00:00:00Z"
    azure.save({"groups": groups})
    azure.behave(hang=POOL)
    azure.forget_calls()
    process = subprocess.Popen(
        [sys.executable, "-m", "imgpull.cli", *command, "--yes"], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert eventually(lambda: "destroy" in azure.commands(), within_s=60)
    assert eventually((azure.directory / "bin" / "environment.json").exists)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert f"go on: imgpull {' '.join(command)}" in out
