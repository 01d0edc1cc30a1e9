"""Laws of what is done in Azure besides building: attach a registry, look what is left, check."""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aks import Aks
from apiserver import ApiServer
from clouds import SUBSCRIPTION, Azure
from commands import Ended, imgpull
from standins import Terminal, install

from imgpull.provisioning import expired
from imgpull.provisioning.az import Az, Group
from imgpull.provisioning.azure_words import fix_of, terraform_error
from imgpull.provisioning.costs import hourly
from imgpull.provisioning.variables import Machines

OTHER = "00000000-0000-0000-0000-000000000002"
CLUSTER = ("--cluster=theirs", "--resource-group=their-group")
KUBELET = "object-1"


@pytest.fixture
def azure(apiserver: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Azure:
    """An Azure with a cluster of somebody else's, and a registry in each of two subscriptions."""
    Aks(apiserver, nodes=3)
    made = Azure(tmp_path, apiserver, monkeypatch)
    theirs = {"location": "eastus", "tags": {}, "resources": ["theirs"], "pools": []}
    registries: dict[str, Any] = {f"{SUBSCRIPTION}/near": {}, f"{OTHER}/far": {}}
    made.save({"groups": {"their-group": theirs}, "registries": registries})
    return made


def attach(azure: Azure, *arguments: str) -> Ended:
    return imgpull(azure.directory, "cluster", "attach-acr", *arguments)


def scope(subscription: str, name: str) -> str:
    return (
        f"/subscriptions/{subscription}/resourceGroups/images/providers/"
        f"Microsoft.ContainerRegistry/registries/{name}"
    )


def test_attach_shows_the_role_before_it_asks_and_gives_nothing_when_declined(
    azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    ran = attach(azure, "near", *CLUSTER)
    shown = ran.out.partition("give this role?")[0]
    assert f"AcrPull on {scope(SUBSCRIPTION, 'near')}" in shown
    assert KUBELET in shown
    assert ran.status == 1
    assert "roles" not in azure.all


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["near"], scope(SUBSCRIPTION, "near")),
        (["near.azurecr.io"], scope(SUBSCRIPTION, "near")),
        (["far", f"--registry-subscription={OTHER}"], scope(OTHER, "far")),
        ([scope(OTHER, "far")], scope(OTHER, "far")),
    ],
)
def test_attach_gives_the_nodes_identity_the_role_wherever_the_registry_is(
    azure: Azure, arguments: list[str], where: str
) -> None:
    ran = attach(azure, *arguments, *CLUSTER, "--yes")
    assert ran.status == 0, ran.err
    assert azure.all["roles"] == [[KUBELET, "AcrPull", where]]
    assert f"az role assignment delete --assignee {KUBELET}" in ran.out


def test_a_registry_with_permissions_by_repository_is_given_the_role_that_it_looks_at(
    azure: Azure,
) -> None:
    mode = {"roleAssignmentMode": "AbacRepositoryPermissions"}
    azure.save({**azure.all, "registries": {f"{SUBSCRIPTION}/near": mode}})
    attach(azure, "near", *CLUSTER, "--yes")
    assert azure.all["roles"][0][1] == "Container Registry Repository Reader"


def test_what_is_attached_already_is_not_given_twice(azure: Azure) -> None:
    attach(azure, "near", *CLUSTER, "--yes")
    ran = attach(azure, "near", *CLUSTER, "--yes")
    assert "there already" in ran.out
    assert len(azure.all["roles"]) == 1


def test_attach_changes_nothing_but_the_role(azure: Azure) -> None:
    before = azure.groups
    attach(azure, "near", *CLUSTER, "--yes")
    assert azure.groups == before


def test_a_registry_that_is_not_there_is_named(azure: Azure) -> None:
    ran = attach(azure, "nowhere", *CLUSTER, "--yes")
    assert ran.status == 2
    assert "nowhere" in ran.err


def ours(hours: float, identity: str = "old-1", **more: Any) -> dict[str, Any]:
    until = datetime.now(UTC) + timedelta(hours=hours)
    tags = {
        "managed-by": "imgpull", "imgpull-id": identity, "owner": "me", "sweep": "s1",
        "expiry": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip
    pools = [{"name": "measured", "vmSize": "Standard_D4ds_v5", "count": 10}]
    return {"location": "eastus", "tags": tags, "resources": ["a"], "pools": pools, **more}


def janitor(azure: Azure, *arguments: str) -> Ended:
    return imgpull(azure.directory, "janitor", "--azure", *arguments)


def with_groups(azure: Azure, **groups: Any) -> None:
    named = {name.replace("_", "-"): group for name, group in groups.items()}
    azure.save({**azure.all, "groups": {**azure.groups, **named}})


def test_the_janitor_deletes_what_is_ours_and_expired_and_nothing_else(azure: Azure) -> None:
    unreadable = ours(-1)
    unreadable["tags"]["expiry"] = "soon"
    with_groups(azure, over=ours(-2), running=ours(3), strange=unreadable)
    ran = janitor(azure, "--yes")
    assert ran.status == 0, ran.err
    assert sorted(azure.groups) == ["running", "strange", "their-group"]
    assert "over: expired 2h ago; me, sweep s1; price unknown" in ran.out
    assert "gone: over" in ran.out


def test_the_janitor_asks_first_and_a_dry_run_never_deletes(
    azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_groups(azure, over=ours(-2))
    assert janitor(azure, "--dry-run", "--yes").status == 0
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert janitor(azure).status == 1
    assert "over" in azure.groups


def test_the_group_that_aks_keeps_goes_with_its_cluster_and_alone_is_found(azure: Azure) -> None:
    managed = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/over/providers/x/managedClusters/c"
    with_groups(azure, over=ours(-2), MC_over=ours(-2, managedBy=managed))
    assert [each.group.name for each in expired.look(Az(), {}, print)] == ["over"]
    with_groups(azure, over=ours(-2, tags={}))
    assert [each.group.name for each in expired.look(Az(), {}, print)] == ["MC-over"]


def test_what_the_janitor_cannot_delete_is_listed_with_exit_status_1(azure: Azure) -> None:
    with_groups(azure, over=ours(-2))
    azure.behave(group_stays=True)
    ran = janitor(azure, "--yes")
    assert ran.status == 1
    assert "still there: over: a" in ran.err


def test_the_janitor_forgets_here_what_it_deleted_there(azure: Azure) -> None:
    made = imgpull(
        azure.directory, "cluster", "up", "cluster=aks_d4ds_v5", "nodes=3", "--yes",
    )  # fmt: skip
    assert made.status == 0, made.err
    name, group = next((n, g) for n, g in azure.groups.items() if n != "their-group")
    identity = group["tags"]["imgpull-id"]
    with_groups(azure, **{name: ours(-1, identity)})
    janitor(azure, "--yes")
    assert sorted(azure.groups) == ["their-group"]
    assert imgpull(azure.directory, "cluster", "status").out.startswith("no cluster was made")


def test_a_group_that_became_anothers_meanwhile_is_left_alone(azure: Azure) -> None:
    with_groups(azure, over=ours(-2))
    from imgpull.provisioning.running import Limits

    found = expired.look(Az(), {}, print)
    with_groups(azure, over=ours(5))
    assert expired.remove(Az(), found, lambda _: None, Limits()) == []
    assert "over" in azure.groups


def test_the_cost_an_hour_is_the_sum_of_the_machines() -> None:
    machines = [Machines("measured", "A", 10), Machines("system", "B", 1)]
    prices: Mapping[str, float] = {"A": 0.25, "B": 1.5}
    assert str(hourly(machines, "eastus", lambda _, size: prices[size], "USD")) == (
        "4.00 USD an hour for machines alone"
    )


def test_a_cost_with_an_unknown_price_is_unknown_and_names_the_size() -> None:
    machines = [Machines("measured", "A", 10), Machines("system", "B", 1)]
    cost = hourly(machines, "eastus", lambda _, size: 0.25 if size == "A" else None)
    assert cost.value is None
    assert "none for B" in str(cost)


def test_an_expiry_without_a_time_zone_is_in_utc() -> None:
    group = Group("g", "eastus", {"expiry": "2026-11-25T18:00:00"})
    assert group.expiry == datetime(2026, 11, 25, 18, tzinfo=UTC)


def doctor(azure: Azure, *overrides: str) -> Ended:
    return imgpull(azure.directory, "doctor", "--azure", "cluster=aks_d4ds_v5", *overrides)


def test_doctor_says_ok_where_a_cluster_could_be_built(azure: Azure) -> None:
    ran = doctor(azure, "nodes=3")
    assert ran.status == 0, ran.out
    for check in ("description", "terraform: 1.11.4", "az: 2.80.0", "login: me@example.com",
                  "kubernetes: AKS builds 1.34 in eastus",
                  "quota: 500 of 500 vCPUs of standardDDSv5Family"):  # fmt: skip
        assert f"ok       {check}" in ran.out


@pytest.mark.parametrize(
    ("trouble", "overrides", "told", "fix"),
    [
        ({"version": "1.5.7"}, [], "terraform: 1.5.7 is too old", "install Terraform 1.9"),
        ({"az_version": "2.30.0"}, [], "az: 2.30.0 is older", "az upgrade"),
        ({"logged_out": True}, [], "login: az account show: Please run 'az login'", "az login"),
        ({"usage": {"cores": [0, 10]}}, [], "quota: 10 of 10 vCPUs of all families", "Quotas"),
        ({"restricted": {"Standard_D4ds_v5": "NotAvailableForSubscription"}}, [],
         "Standard_D4ds_v5 is not to be had in eastus", "az vm list-skus"),
        ({"kubernetes": ["1.33", "1.35"]}, [], "AKS builds no 1.34 in eastus, but 1.33, 1.35",
         "az aks get-versions --location eastus"),
        ({}, ["cluster.kubernetes_version=1.28"], "AKS builds no 1.28 in eastus, but 1.33, 1.34",
         "az aks get-versions"),
        ({}, ["cluster.kubernetes_version=1.34.7"], "AKS builds no 1.34.7", "az aks get-versions"),
        ({}, ["cluster.node.vm_size=Standard_D9x_v9"], "eastus has no Standard_D9x_v9",
         "az vm list-skus"),
        ({}, ["cluster.kubelet.registryPullQPS=0"], "registryPullQPS=0", "registryPullQPS=5"),
    ],
)  # fmt: skip
def test_doctor_names_each_failure_with_its_fix(
    azure: Azure, trouble: dict[str, Any], overrides: list[str], told: str, fix: str
) -> None:
    azure.behave(**trouble)
    ran = doctor(azure, "nodes=3", *overrides)
    assert ran.status == 2
    line = next(i for i, each in enumerate(ran.out.splitlines()) if told in each)
    assert ran.out.splitlines()[line].startswith("FAILED")
    assert fix in ran.out.splitlines()[line + 1]


@pytest.mark.parametrize("program", ["terraform", "az"])
def test_a_program_that_is_not_there_is_named_with_how_to_get_it(
    azure: Azure, program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = "az" if program == "terraform" else "terraform"
    install(other, tmp_path / "only")
    for name in ("behaviour.json", "azure.json"):
        (tmp_path / "only" / name).write_text((azure.directory / "bin" / name).read_text())
    monkeypatch.setenv("PATH", str(tmp_path / "only"))
    ran = doctor(azure, "nodes=3")
    assert ran.status == 2
    assert f"FAILED   {program}: {program} is not on PATH" in ran.out
    assert "install" in ran.out


def test_docker_is_needed_by_its_engine_alone(
    azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(azure.directory / "bin"))
    assert doctor(azure, "nodes=3").status == 0
    ran = doctor(azure, "nodes=3", "engine=docker")
    assert ran.status == 2
    assert "FAILED   docker" in ran.out


# Words as Azure, az and Terraform print them, and what the answer must begin with.
WORDS = [
    ("ERROR: Please run 'az login' to setup account.", "az login"),
    ("Error: building account: could not acquire access token to parse claims: clientCredentials"
     "Token: received HTTP status 401", "az login"),
    ("AADSTS700082: The refresh token has expired due to inactivity.", "az login"),
    ('Code="ErrCode_InsufficientVCPUQuota" Message="Insufficient vcpu quota requested 40, '
     'remaining 10 for family standardDDSv5Family for region eastus."', "use fewer nodes"),
    ("(SkuNotAvailable) The requested VM size Standard_D4ds_v5 is not available",
     "another cluster"),
    ("The VM size of Standard_D4ds_v5 is not allowed in your subscription in location 'eastus'.",
     "another cluster"),
    ('Code="K8sVersionNotSupported" Message="Managed cluster imgpull is on version 1.28"',
     "az aks get-versions"),
    ("The client 'x' does not have authorization to perform action "
     "'Microsoft.Authorization/roleAssignments/write' over scope", "cluster.azure.registry=none"),
    ("AuthorizationFailed: The client 'x' does not have authorization to perform action "
     "'Microsoft.Resources/subscriptions/resourcegroups/write'", "this login needs"),
    ("RequestDisallowedByPolicy: Resource 'x' was disallowed by policy.", "a policy"),
    ("MissingSubscriptionRegistration: The subscription is not registered to use namespace "
     "'Microsoft.ContainerService'.", "az provider register"),
    ("Error: A resource with the ID \"/subscriptions/x\" already exists - to be managed via "
     "Terraform this resource needs to be imported into the State.", "it is not ours"),
    ("Error: Error acquiring the state lock", "another imgpull"),
    ("Error: Failed to query available provider packages", "Terraform's provider"),
    ("Unsupported Terraform Core version", "install Terraform"),
    ("dial tcp: lookup management.azure.com: no such host", "Azure cannot be reached"),
    ("something nobody has seen", "otherwise"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "fix"), WORDS)
def test_every_known_failure_has_its_own_fix(words: str, fix: str) -> None:
    assert fix_of(words, "otherwise").startswith(fix)


def test_an_error_of_terraform_is_told_without_its_frame_and_its_place() -> None:
    printed = """azurerm_kubernetes_cluster.this: Creating...
╷
│ Error: creating Kubernetes Cluster: unexpected status 400
│
│   with azurerm_kubernetes_cluster.this,
│   on main.aks.tf line 1, in resource "azurerm_kubernetes_cluster" "this":
│    1: resource "azurerm_kubernetes_cluster" "this" {
│
│ the quota is too small
╵"""
    assert terraform_error(printed.splitlines()) == (
        "creating Kubernetes Cluster: unexpected status 400: the quota is too small"
    )


def test_an_answer_that_is_no_json_is_an_error_with_its_words(azure: Azure) -> None:
    (azure.directory / "bin" / "az").write_text("#!/bin/sh\necho no json\n")
    ran = janitor(azure)
    assert ran.status == 2
    assert "answered no JSON: no json" in ran.err
    assert json.loads((azure.directory / "bin" / "azure.json").read_text())["groups"]
