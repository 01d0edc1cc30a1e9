"""Laws of a cluster's life: built as described, given back whole, and never another's."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aks import not_ready
from apiserver import ApiServer
from clouds import FITS, SECRET, Azure, up
from commands import ROOT, Ended, imgpull
from standins import Terminal, eventually

GROUP = "imgpull-aks-d4ds-v5"
STEPS = (
    "azurerm_resource_group.this", "azurerm_virtual_network.this", "azurerm_subnet.nodes",
    "azurerm_kubernetes_cluster.this", "azurerm_kubernetes_cluster_node_pool.prometheus",
    "azurerm_container_registry.this[0]", "azurerm_role_assignment.pull[0]",
    "azurerm_kubernetes_cluster_node_pool.measured",
)  # fmt: skip


def down(azure: Azure, *more: str) -> Ended:
    return imgpull(azure.directory, "cluster", "down", "aks_d4ds_v5", "--yes", *more)


def place(azure: Azure) -> Path:
    return azure.state / "aks_d4ds_v5"


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"{text}\n"))


def test_up_builds_what_is_described_and_says_what_to_type_next(azure: Azure) -> None:
    ran = up(azure)
    assert ran.status == 0, ran.out + ran.err
    pools = {each["name"]: each for each in azure.groups[GROUP]["pools"]}
    assert pools["measured"] == {"name": "measured", "vmSize": "Standard_D4ds_v5", "count": 3}
    assert azure.commands() == ["init", "plan", "apply"]
    kubeconfig = place(azure) / "kubeconfig"
    assert (
        f"python run.py engine=docker engine.kubeconfig={kubeconfig} cluster=aks_d4ds_v5" in ran.out
    )
    assert "imgpull cluster down aks_d4ds_v5" in ran.out
    assert "3 measured nodes are Ready" in ran.out


def test_everything_is_tagged_as_ours_with_an_expiry(azure: Azure) -> None:
    up(azure, "cluster.azure.lifetime=3h", "cluster.azure.owner=somebody")
    tags = azure.groups[GROUP]["tags"]
    assert tags["managed-by"] == "imgpull"
    assert tags["owner"] == "somebody"
    left = datetime.fromisoformat(tags["expiry"]) - datetime.now(UTC)
    hours = left.total_seconds() / 3600
    assert 2.9 < hours <= 3


def test_what_is_made_and_its_cost_stand_there_before_the_question(
    azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, "n")
    ran = imgpull(azure.directory, "cluster", "up", *FITS)
    assert ran.status == 1
    shown, _, _ = ran.out.partition("go on?")
    assert "create   azurerm_kubernetes_cluster.this" in shown
    assert "3 Standard_D4ds_v5 (measured)" in shown
    assert "price unknown: conf/prices.yaml has none for Standard_D4ds_v5" in shown
    assert "example.azurecr.io is a placeholder" in shown


@pytest.mark.parametrize(
    ("overrides", "is_told"),
    [(["nodes=3"], False), (["nodes=10"], True),
     (["nodes=10", "cluster.azure.sku_tier=Standard"], False)],
)  # fmt: skip
def test_a_control_plane_that_is_small_for_the_nodes_is_told_of(
    azure: Azure, monkeypatch: pytest.MonkeyPatch, overrides: list[str], is_told: bool
) -> None:
    answer(monkeypatch, "n")
    ran = imgpull(azure.directory, "cluster", "up", *FITS, *overrides)
    assert ("cluster.azure.sku_tier=Standard" in ran.out) is is_told


def test_what_is_declined_leaves_nothing_anywhere(
    azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, "n")
    imgpull(azure.directory, "cluster", "up", *FITS)
    assert azure.groups == {}
    assert "apply" not in azure.commands()
    assert not list(azure.state.glob("aks_*/*.json"))


@pytest.mark.parametrize(
    "step",
    [pytest.param(step, marks=() if step in STEPS[3::4] else pytest.mark.slow) for step in STEPS],
)
def test_a_provisioning_that_fails_at_any_step_is_destroyed(azure: Azure, step: str) -> None:
    azure.behave(fail={"apply": [step, "SkuNotAvailable: no such size in westeurope"]})
    ran = up(azure, "cluster.registry.server=mine1.azurecr.io")
    assert ran.status == 2
    assert azure.groups == {}
    assert "all that was made is destroyed" in ran.err
    assert "az vm list-skus" in ran.err
    assert imgpull(azure.directory, "cluster", "status").out.startswith("no cluster was made")


@pytest.mark.parametrize("command", ["init", "plan"])
def test_what_fails_before_anything_is_made_says_so(azure: Azure, command: str) -> None:
    azure.behave(
        fail={command: "Error: Failed to query available provider packages\n\nno such host"}
    )
    ran = up(azure)
    assert ran.status == 2
    assert f"terraform {command} failed" in ran.err
    assert "terraform/README.md" in ran.err
    assert azure.groups == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken",
    [
        {"az_fail": {"aks get-credentials": "(Forbidden) not for you"}},
        {"az_hang": "aks get-credentials"},
        {"server": "http://127.0.0.1:9"},  # its API never answers
    ],
    ids=["forbidden", "hangs", "silent"],
)
def test_a_cluster_that_cannot_be_reached_is_destroyed(
    azure: Azure, broken: dict[str, str]
) -> None:
    azure.behave(**broken)
    ran = up(azure, "--limit=4s")
    assert ran.status == 2
    assert azure.groups == {}
    assert not (place(azure) / "kubeconfig").exists()


@pytest.mark.slow
def test_nodes_that_do_not_become_ready_end_the_cluster_and_are_named(
    azure: Azure, apiserver: ApiServer
) -> None:
    node = apiserver.all("/api/v1/nodes")[0]
    apiserver.put({**node, "status": {**node["status"], "conditions": not_ready()}})
    ran = up(azure, "--limit=3s")
    assert ran.status == 2
    assert node["metadata"]["name"] in ran.err
    assert azure.groups == {}


@pytest.mark.slow
def test_nodes_that_are_not_alike_are_told_of(azure: Azure, apiserver: ApiServer) -> None:
    node = apiserver.all("/api/v1/nodes")[0]
    info = {**node["status"]["nodeInfo"], "kernelVersion": "5.0.0-other"}
    apiserver.put({**node, "status": {**node["status"], "nodeInfo": info}})
    ran = up(azure, "--limit=5s")
    assert ran.status == 0, ran.err
    assert "their kernel differs" in ran.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "trouble",
    [
        {"hang": STEPS[3]},
        {"hang": STEPS[3], "ignores_interrupt": True},
        {"fail": {"apply": [STEPS[3], "broken"]}, "loses_state": True},
        {"fail": {"apply": [STEPS[3], "broken"], "destroy": [STEPS[0], "busy"]}},
    ],
    ids=["hangs", "hangs and is deaf", "loses its state", "cannot destroy"],
)
def test_what_terraform_cannot_end_goes_with_its_resource_group(
    azure: Azure, trouble: dict[str, object]
) -> None:
    azure.behave(**trouble)
    ran = up(azure, "--limit=3s")
    assert ran.status == 2, ran.out
    assert azure.groups == {}


def test_what_cannot_be_removed_is_listed_with_the_command_that_does_it_later(
    azure: Azure,
) -> None:
    azure.behave(
        fail={"apply": [STEPS[3], "broken"], "destroy": [STEPS[0], "busy"]}, group_stays=True
    )
    ran = up(azure)
    assert ran.status == 2
    assert "still there: azurerm_kubernetes_cluster" in ran.err
    assert "imgpull cluster down aks_d4ds_v5 --yes" in ran.err
    azure.behave()
    assert down(azure).status == 0
    assert azure.groups == {}


def test_a_group_that_is_not_ours_is_left_alone(azure: Azure) -> None:
    theirs = {"location": "westeurope", "tags": {}, "resources": ["theirs"], "pools": []}
    azure.save({"groups": {GROUP: theirs}})
    ran = up(azure)
    assert ran.status == 2
    assert "cluster.azure.resource_group=OTHER" in ran.err
    assert azure.groups == {GROUP: theirs}
    assert azure.commands() == []


@pytest.mark.parametrize("command", ["up", "down"])
def test_a_cluster_whose_tags_are_anothers_is_neither_changed_nor_deleted(
    azure: Azure, command: str
) -> None:
    up(azure)
    theirs = {**azure.groups[GROUP], "tags": {"managed-by": "imgpull", "imgpull-id": "other"}}
    azure.save({"groups": {GROUP: theirs}})
    azure.forget_calls()
    ran = up(azure, "nodes=2") if command == "up" else down(azure)
    assert ran.status == 2
    assert azure.groups == {GROUP: theirs}
    assert azure.commands() == []


def test_a_cluster_that_is_as_asked_for_is_not_touched(azure: Azure) -> None:
    up(azure)
    azure.forget_calls()
    ran = up(azure)
    assert ran.status == 0, ran.err
    assert azure.commands() == ["init", "plan"]


def test_only_what_differs_is_changed(azure: Azure, apiserver: ApiServer) -> None:
    up(azure)
    ran = up(
        azure, "cluster.node.vm_size=Standard_D8ds_v5", "cluster.node.os_disk=ephemeral_300gib"
    )
    assert ran.status == 0, ran.err
    shown = ran.out.partition("changed\n")[2].partition("region:")[0].split("\n")
    assert [line.split() for line in shown if line.strip()] == [
        ["update", "azurerm_kubernetes_cluster_node_pool.measured"]
    ]


def test_a_change_that_fails_keeps_the_cluster_and_says_how_to_see_it(azure: Azure) -> None:
    up(azure)
    azure.behave(fail={"apply": [STEPS[7], "ErrCode_InsufficientVCPUQuota"]})
    ran = up(azure, "nodes=2")
    assert ran.status == 2
    assert GROUP in azure.groups
    assert "imgpull cluster status aks_d4ds_v5" in ran.err


def test_resize_changes_the_number_of_measured_nodes_and_nothing_else(
    azure: Azure, apiserver: ApiServer
) -> None:
    up(azure)
    name = apiserver.all("/api/v1/nodes")[0]["metadata"]["name"]
    apiserver.kube(SECRET).delete(f"/api/v1/nodes/{name}")
    ran = imgpull(azure.directory, "cluster", "resize", "aks_d4ds_v5", "--nodes=2", "--yes")
    assert ran.status == 0, ran.err
    pools = {each["name"]: each["count"] for each in azure.groups[GROUP]["pools"]}
    assert pools == {"prometheus": 1, "measured": 2}


def test_down_removes_everything_in_azure_and_here(azure: Azure) -> None:
    up(azure)
    ran = down(azure)
    assert ran.status == 0, ran.err
    assert azure.groups == {}
    assert not place(azure).exists()
    assert "is destroyed" in ran.out


def test_down_asks_first(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    up(azure)
    answer(monkeypatch, "n")
    ran = imgpull(azure.directory, "cluster", "down", "aks_d4ds_v5")
    assert ran.status == 1
    assert GROUP in azure.groups


def test_down_of_what_was_not_made_here_is_refused(azure: Azure) -> None:
    ran = imgpull(azure.directory, "cluster", "down", "unknown", "--yes")
    assert ran.status == 2
    assert "imgpull cluster status" in ran.err
    assert azure.calls == []


def test_status_tells_what_is_there_what_it_costs_and_how_it_ends(azure: Azure) -> None:
    up(azure)
    ran = imgpull(azure.directory, "cluster", "status")
    assert "3 Standard_D4ds_v5 (measured)" in ran.out
    assert "expires in 7h59m" in ran.out
    assert "imgpull cluster down aks_d4ds_v5" in ran.out


def test_credentials_can_be_had_again(azure: Azure) -> None:
    up(azure)
    (place(azure) / "kubeconfig").unlink()
    ran = imgpull(azure.directory, "cluster", "credentials", "aks_d4ds_v5")
    assert ran.status == 0
    assert (place(azure) / "kubeconfig").stat().st_mode & 0o777 == 0o600


def test_too_few_vcpus_are_told_before_anything_is_made(azure: Azure) -> None:
    azure.behave(usage={"cores": [0, 1000], "standardDDSv5Family": [8, 16],
                        "standardDASv5Family": [0, 100]})  # fmt: skip
    ran = up(azure)
    assert ran.status == 2
    assert "8 of 16 vCPUs of standardDDSv5Family are left" in ran.err
    assert "12 are needed" in ran.err
    assert azure.commands() == []


def test_two_imgpulls_do_not_change_a_cluster_at_once(azure: Azure) -> None:
    from imgpull.provisioning.place import Place

    with Place("aks_d4ds_v5").locked():
        ran = up(azure)
    assert ran.status == 2
    assert "another imgpull works on" in ran.err


def test_credentials_are_in_the_state_and_the_kubeconfig_alone_and_private(azure: Azure) -> None:
    ran = up(azure)
    assert ran.status == 0, ran.err
    assert azure.files_with(SECRET) == [
        "state/aks_d4ds_v5/kubeconfig", "state/aks_d4ds_v5/terraform.tfstate",
    ]  # fmt: skip
    for name in azure.files_with(SECRET):
        assert (azure.directory / name).stat().st_mode & 0o777 == 0o600
    assert place(azure).stat().st_mode & 0o777 == 0o700
    assert SECRET not in ran.out + ran.err


@pytest.mark.parametrize("where", ["terraform", "az"])
def test_a_credential_in_an_error_is_blackened_in_output_and_log(azure: Azure, where: str) -> None:
    words = f"denied with client secret arm-{SECRET} today"
    azure.behave(**(
        {"fail": {"apply": [STEPS[0], words]}} if where == "terraform"
        else {"az_fail": {"aks get-credentials": words}}
    ))  # fmt: skip
    ran = up(azure)
    assert ran.status == 2
    assert "REDACTED today" in ran.err
    assert SECRET not in ran.out + ran.err
    assert azure.files_with(SECRET) == []


def test_terraform_is_given_no_variable_that_would_move_its_state_or_log_secrets(
    azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TF_LOG", "TF_DATA_DIR", "TF_WORKSPACE"):
        monkeypatch.setenv(name, "x")
    up(azure)
    seen = json.loads((azure.directory / "bin" / "environment.json").read_text())
    assert not {"TF_LOG", "TF_DATA_DIR", "TF_WORKSPACE"} & set(seen)


def begin(azure: Azure) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "imgpull.cli", "cluster", "up", *FITS, "--yes"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ),
    )  # fmt: skip


def is_at_the_cluster(azure: Azure) -> bool:
    """Whether its network is there, and it is not."""
    made = azure.groups.get(GROUP, {}).get("resources", [])
    return "azurerm_subnet.nodes" in made and "azurerm_kubernetes_cluster.this" not in made


@pytest.mark.slow
def test_ctrl_c_lets_terraform_finish_and_tells_what_exists_and_what_removes_it(
    azure: Azure,
) -> None:
    azure.behave(slow_s=0.3, hang="azurerm_kubernetes_cluster.this")
    process = begin(azure)
    assert eventually(lambda: is_at_the_cluster(azure), within_s=60)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "Gracefully shutting down" in out
    assert "Two interrupts" not in out
    told = next(line for line in out.splitlines() if "what exists:" in line)
    assert "azurerm_kubernetes_cluster.this" in told  # it was under way, and was finished
    assert "imgpull cluster down aks_d4ds_v5 --yes" in out
    azure.behave()
    assert down(azure).status == 0
    assert azure.groups == {}


@pytest.mark.slow
def test_a_killed_imgpull_leaves_a_terraform_that_writes_its_state_to_the_end(
    azure: Azure,
) -> None:
    azure.behave(slow_s=0.5)
    process = begin(azure)
    assert eventually(lambda: is_at_the_cluster(azure), within_s=60)
    process.kill()
    process.communicate()
    state = place(azure) / "terraform.tfstate"
    assert eventually(lambda: "node_pool.measured" in state.read_text(), within_s=30)
    assert down(azure).status == 0
    assert azure.groups == {}
