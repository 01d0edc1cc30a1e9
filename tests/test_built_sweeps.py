"""Laws of sweeps whose cluster is built for them: once a shape, given back, and never forgotten."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from acting import IMAGE
from apiserver import ApiServer
from clouds import SECRET, Azure
from commands import Ended, database, run_py
from fleets import Fleet
from standins import REPORTS, Terminal, clusterloader, docker

from imgpull import engines
from imgpull.config.compose import composed_job

Sweep = Callable[..., Ended]
CL2 = "127.0.0.1:9/clusterloader:1"
FITS = (
    "cluster=aks_d4ds_v5", "provision=terraform", "engine=docker", f"engine.image={CL2}",
    "engine.settle=1ms", f"image.reference={IMAGE}", "image.layers=[]", "deployments=4",
    "metrics_wait=auto", "allow=[image,cluster]", "tracking=none", "provisioning.limit=10s",
)  # fmt: skip
STEPS = (
    "azurerm_resource_group.this", "azurerm_virtual_network.this", "azurerm_subnet.nodes",
    "azurerm_kubernetes_cluster.this", "azurerm_kubernetes_cluster_node_pool.prometheus",
    "azurerm_container_registry.this[0]", "azurerm_role_assignment.pull[0]",
    "azurerm_kubernetes_cluster_node_pool.measured",
)  # fmt: skip
slow = pytest.mark.slow


@pytest.fixture
def azure(apiserver: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """An Azure without anything of ours, whose nodes join the API stand-in."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    made = Azure(tmp_path, apiserver, monkeypatch)
    with Fleet(apiserver, made) as fleet:
        made.fleet = fleet
        yield made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    (made / "mlflow.db").write_bytes(database())
    return made


@pytest.fixture
def sweep(azure: Azure, root: Path, tmp_path: Path) -> Sweep:
    """Run a command whose cluster is built."""
    report = shutil.copytree(
        REPORTS / "own-2026-two-nodes", tmp_path / "recorded",
        ignore=shutil.ignore_patterns("generatedConfig*"),
    )  # fmt: skip
    program = clusterloader(tmp_path / "cl2", act="replay", report=str(report))
    docker(tmp_path / "bin", program.path, images=[CL2])
    return lambda *arguments: run_py(root, "-m", *FITS, *arguments)


def sweeps(root: Path) -> list[Path]:
    """What is left of sweeps."""
    return list((root / "multirun").glob("*"))


@slow
def test_each_shape_is_built_once_in_order_and_all_of_it_is_given_back(
    sweep: Sweep, azure: Azure
) -> None:
    ran = sweep("nodes=10,20", "trials=2", "yes=true")
    assert ran.status == 0, ran.out + ran.err
    assert azure.commands() == [
        "init", "plan", "apply", "init", "plan", "apply", "state list", "destroy",
    ]  # fmt: skip
    assert azure.groups == {}
    kinds = [e["event"] for e in ran.events]
    assert kinds.count("provisioned") == 2
    told = [e for e in ran.events if e["event"] == "provisioned"]
    assert [e["done"] for e in told] == ["created", "changed"]
    assert told[1]["changes"] == ["update azurerm_kubernetes_cluster_node_pool.measured"]
    assert {e["shape"] for e in told} == {"10 x Standard_D4ds_v5", "20 x Standard_D4ds_v5"}
    (back,) = [e for e in ran.events if e["event"] == "given back" and "cluster" in e]
    assert back["done"] == "destroyed"
    nodes = [r.factors["nodes"] for r in sorted(ran.records, key=lambda r: r.position)]
    assert nodes in ([10, 10, 20, 20], [20, 20, 10, 10])
    assert len({r.block for r in ran.records}) == 4
    for event in told:
        values = json.loads((ran.sweep / event["variables"]).read_text())
        assert f"{values['measured_node_count']} x" in event["shape"]
    assert azure.files_with(SECRET) == []
    assert "nodes cannot be told from the order of provisioning" in ran.out
    report = (ran.sweep / "report.md").read_text()
    assert "nodes cannot be told from" in report
    # An image without layers cannot be simulated: nothing was predicted.
    hours = sum(r.wall_s for r in ran.records if r.factors["nodes"] == 20) * 20 / 3600
    assert f"| unknown | {hours:.2f} | unknown | unknown |" in report
    assert "in all | unknown |" in report
    assert sum(count for x in told for _, _, count in x["machines"]) == 10 + 20 + 2 * 2
    assert back["node_hours"] > 0
    assert 'id="cost"' in (ran.sweep / "report.html").read_text()


def test_where_nobody_can_be_asked_nothing_is_made(sweep: Sweep, azure: Azure, root: Path) -> None:
    ran = sweep("nodes=2,3")
    assert ran.status == 2
    assert "yes=true agrees beforehand" in ran.err
    assert azure.calls == []
    assert sweeps(root) == []


@pytest.mark.parametrize("answer", ["n", ""])
def test_what_is_not_agreed_to_is_not_made_though_its_cost_was_shown(
    sweep: Sweep, azure: Azure, root: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    ran = sweep("nodes=2,3")
    assert ran.status == 2
    assert "2 Standard_D4ds_v5 (measured), 1 Standard_D4as_v5 (system)" in ran.err
    assert "price unknown: conf/prices.yaml has none for Standard_D4ds_v5" in ran.err
    assert "not agreed to: nothing was made" in ran.err
    assert azure.calls == []
    assert sweeps(root) == []


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["cluster.kubelet.serializeImagePulls=true,false"],
         "cluster.kubelet.serializeImagePulls=true, but AKS gives no way to set it"),
        (["cluster.containerd_version=1.7.34,1.7.35"],
         "cluster.containerd_version differs between cells (1.7.34, 1.7.35), but Terraform sets"),
        (["cluster.registry.first_byte_ms=1,2"], "cluster.registry.first_byte_ms differs between"),
        (["cluster.region=eastus,westeurope"], "cluster.region differs between cells"),
        (["cluster.kubernetes_version=1.33,1.34"], "cluster.kubernetes_version differs between"),
        (["cluster.registry.server=mine1.azurecr.io", "image.reference=mine1.azurecr.io/app:1"],
         "mine1.azurecr.io is made with the cluster and holds no image then"),
        (["engine.kubeconfig=/x", "nodes=1,2"], "engine.kubeconfig=/x names a cluster that exists"),
    ],
)  # fmt: skip
def test_what_terraform_cannot_vary_is_refused_by_name(
    sweep: Sweep, azure: Azure, root: Path, asked: list[str], told: str
) -> None:
    ran = sweep("nodes=2", "deployments=2", *asked, "yes=true")
    assert ran.status == 2
    assert told in ran.err
    assert azure.calls == []
    assert sweeps(root) == []


FAILURES = [
    *({"fail": {"apply": [step, "SkuNotAvailable: not here"]}} for step in STEPS),
    {"fail": {"init": "Error: Failed to query available provider packages\n\nno such host"}},
    {"fail": {"plan": "Unsupported Terraform Core version\nrequired_version"}},
    {"fail": {"apply": [STEPS[3], "broken"]}, "loses_state": True},
    {"fail": {"apply": [STEPS[3], "broken"], "destroy": [STEPS[0], "busy"]}},
    {"hang": STEPS[3]},
    *(
        {"az_fail": {command: "(AuthorizationFailed) does not have authorization"}}
        for command in ("account show", "group show", "vm list-usage", "vm list-skus",
                        "aks get-credentials")
    ),
    {"az_hang": "aks get-credentials"},
    {"logged_out": True},
    {"server": "http://127.0.0.1:9"},
]  # fmt: skip


def named(trouble: dict[str, object]) -> str:
    return json.dumps(trouble).translate({ord(each): " " for each in '{}"[]:\\'})


@pytest.mark.parametrize(
    "trouble",
    [pytest.param(each, id=named(each), marks=() if n == 3 else slow)
     for n, each in enumerate(FAILURES)],
)  # fmt: skip
def test_a_provisioning_that_fails_anywhere_leaves_nothing_and_names_what_to_do(
    sweep: Sweep, azure: Azure, root: Path, trouble: dict[str, object]
) -> None:
    azure.behave(**trouble)
    ran = sweep(
        "nodes=2", "yes=true", "cluster.registry.server=mine1.azurecr.io",
        "provisioning.limit=4s",
    )  # fmt: skip
    assert ran.status == 2, ran.out + ran.err
    assert azure.groups == {}
    assert sweeps(root) == []
    assert not list(azure.state.glob("*/terraform.tfvars.json"))
    hint = ran.err.split("error: ")[1].splitlines()[1]
    assert hint.startswith("  "), ran.err
    assert hint.strip()
    assert SECRET not in ran.out + ran.err


@slow
def test_what_cannot_be_destroyed_is_listed_with_the_command_that_does_it_later(
    sweep: Sweep, azure: Azure
) -> None:
    azure.behave(
        fail={"apply": [STEPS[3], "broken"], "destroy": [STEPS[0], "busy"]}, group_stays=True
    )
    ran = sweep("nodes=2", "yes=true")
    assert ran.status == 2
    assert f"still there: {STEPS[3].partition('.')[0]}" in ran.err
    (name,) = (path.parent.name for path in azure.state.glob("*/terraform.tfvars.json"))
    assert f"imgpull cluster down {name}" in ran.err


def cluster_of(azure: Azure) -> str:
    """The name of the only cluster."""
    (path,) = azure.state.glob("*/terraform.tfvars.json")
    return path.parent.name


@slow
def test_a_sweep_that_failed_keeps_its_cluster_and_goes_on_with_it(
    sweep: Sweep, azure: Azure, root: Path
) -> None:
    azure.behave(fail={"apply": [STEPS[7], "ErrCode_InsufficientVCPUQuota", "update"]})
    ran = sweep("nodes=2,3", "order=as_given", "yes=true")
    assert ran.status == 1
    assert (ran.records[0].factors["nodes"], ran.records[0].verdict) == (2, "degraded")
    assert ran.records[1].verdict == "failed"
    assert "ErrCode_InsufficientVCPUQuota" in ran.records[1].reasons[0]
    name = cluster_of(azure)
    assert f"the cluster {name} is kept: " in ran.err
    assert "price unknown" in ran.err
    assert f"imgpull cluster down {name}" in ran.err
    azure.behave()
    azure.forget_calls()
    again = sweep("nodes=2,3", "order=as_given", "yes=true", f"hydra.sweep.dir={ran.sweep}",
                  "resume=auto")  # fmt: skip
    assert again.status == 0, again.err
    assert azure.groups == {}
    told = [e for e in again.events if e["event"] == "provisioned"]
    assert [e["done"] for e in told] == ["created", "changed"]
    assert "create" not in " ".join(told[1]["changes"])


@slow
def test_a_shape_that_cannot_be_had_is_tried_once_an_attempt(sweep: Sweep, azure: Azure) -> None:
    azure.behave(fail={"apply": [STEPS[7], "broken", "update"]})
    ran = sweep("nodes=2,3", "trials=2", "order=as_given", "yes=true")
    assert ran.status == 1
    assert azure.commands().count("apply") == 2
    assert [r.verdict for r in ran.records].count("failed") == 2


@slow
def test_another_machine_is_another_pool_of_the_same_cluster(sweep: Sweep, azure: Azure) -> None:
    ran = sweep("nodes=2", "cluster=aks_d4ds_v5,aks_d8ds_v5", "yes=true", "keep=true")
    assert ran.status == 0, ran.err
    told = [e for e in ran.events if e["event"] == "provisioned"]
    assert [e["done"] for e in told] == ["created", "changed"]
    assert len(azure.groups) == 1
    assert told[1]["changes"] == ["update azurerm_kubernetes_cluster_node_pool.measured"]
    assert "cluster cannot be told from the order of provisioning" in ran.out
    assert "nothing ends it by itself" in ran.err
    assert [e["done"] for e in ran.events if e["event"] == "given back" and "done" in e] == ["kept"]


@slow
def test_the_expiry_covers_the_sweep_and_is_extended_when_a_trial_would_outlast_it(
    sweep: Sweep, azure: Azure, tmp_path: Path
) -> None:
    plain = [each for each in FITS if not each.startswith(("provision", "tracking"))]
    short, long = (
        composed_job([*plain, "nodes=2", "cluster.azure.lifetime=10m", f"trial_limit={limit}"])
        for limit in ("20m", "5h")
    )
    events: list[dict[str, object]] = []
    wishes = engines.Building(
        tmp_path, 7200.0, 10.0, keep=False, done_with=lambda: False, announce=lambda line: None,
        cost=lambda machines, region: "unknown",
    )  # fmt: skip

    def tell(event: str, **data: object) -> None:
        events.append({"event": event, **data})

    with engines.session([short, short, long], "s-1a2b3c", tell, print, wishes) as session:
        for number, job in enumerate([short, short, long], 1):
            session.engine(job, engines.Execution("s-1a2b3c", f"t{number}"))
    told = [each for each in events if each["event"] == "provisioned"]
    assert [each["done"] for each in told] == ["created", "extended"]
    first, second = (datetime.fromisoformat(str(each["expiry"])) for each in told)
    assert (first - datetime.now(UTC)).total_seconds() > 1.5 * 7200
    assert (second - datetime.now(UTC)).total_seconds() > 5 * 3600
    assert {each.split()[0] for each in told[1]["changes"]} == {"update"}  # type: ignore[attr-defined]


@slow
def test_a_cluster_that_cannot_be_given_back_is_an_error_that_names_the_command(
    sweep: Sweep, azure: Azure
) -> None:
    azure.behave(fail={"destroy": [STEPS[0], "busy"]}, group_stays=True)
    ran = sweep("nodes=2", "yes=true")
    assert ran.status == 1
    assert "could not be given back" in ran.err
    assert "still there: azurerm_" in ran.err
    assert f"imgpull cluster down {cluster_of(azure)} --yes" in ran.err
    assert [e["done"] for e in ran.events if e["event"] == "given back" and "done" in e] == [
        "failed"
    ]


@slow
def test_a_cluster_that_is_not_as_described_stops_the_sweep_and_is_kept_for_its_resume(
    sweep: Sweep, azure: Azure
) -> None:
    ran = sweep("nodes=2,3", "yes=true", "allow=[image]")
    assert ran.status == 1
    assert len(ran.records) == 1
    assert "the cluster can run no further trial" in ran.err
    assert f"imgpull cluster down {cluster_of(azure)}" in ran.err
    assert f"go on:   imgpull resume {ran.sweep}" in ran.err


def test_a_shape_that_no_quota_has_room_for_is_known_before_the_first_is_built(
    sweep: Sweep, azure: Azure, root: Path
) -> None:
    azure.behave(usage={"cores": [0, 1000], "standardDDSv5Family": [0, 50],
                        "standardDASv5Family": [0, 100]})  # fmt: skip
    ran = sweep("nodes=2,20", "order=as_given", "yes=true")
    assert ran.status == 2
    assert "80 are needed" in ran.err
    assert azure.commands() == []
    assert sweeps(root) == []


@pytest.mark.parametrize("program", ["terraform", "az"])
def test_a_program_that_is_missing_is_named_before_anything_is_asked(
    sweep: Sweep, azure: Azure, root: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setenv("PATH", str(azure.directory / "bin"))
    (azure.directory / "bin" / program).unlink()
    ran = sweep("nodes=2", "yes=true")
    assert ran.status == 2
    assert f"{program} is not on PATH" in ran.err
    assert "install" in ran.err
    assert azure.calls == []
    assert sweeps(root) == []


LATER = [
    {"fail": {"init": "Error: Failed to query available provider packages\n\nno such host"}},
    {"fail": {"plan": "Provider produced inconsistent final plan"}},
    {"fail": {"apply": [STEPS[7], "ErrCode_InsufficientVCPUQuota"]}},
    {"hang": STEPS[7]},
    {"hang": STEPS[7], "ignores_interrupt": True},
    {"az_fail": {"account show": "AADSTS700082: The refresh token has expired"}},
    {"az_fail": {"group show": "(AuthorizationFailed) does not have authorization"}},
    {"az_fail": {"aks get-credentials": "(Forbidden) not for you"}},
    {"az_hang": "aks get-credentials"},
]


@slow
@pytest.mark.parametrize("trouble", [pytest.param(each, id=named(each)) for each in LATER])
def test_a_change_that_fails_in_the_middle_costs_its_trials_and_lists_the_cluster(
    sweep: Sweep, azure: Azure, trouble: dict[str, object]
) -> None:
    azure.fleet.count = lambda: azure.behave(**trouble) or 4  # from the first trial on
    ran = sweep("nodes=2,3", "order=as_given", "yes=true", "provisioning.limit=4s")
    assert ran.status == 1, ran.out + ran.err
    assert [r.verdict for r in ran.records] == ["degraded", "failed"]
    assert ran.records[1].error is not None
    assert ran.records[1].error.hint
    name = cluster_of(azure)
    assert f"the cluster {name} is kept: " in ran.err
    assert f"end it:  imgpull cluster down {name}" in ran.err
    (failed,) = (e for e in ran.events if e["event"] == "provisioning failed")
    assert failed["left"] is True
    assert SECRET not in ran.out + ran.err


AT_THE_END = [
    ({"fail": {"destroy": [STEPS[0], "busy"]}}, True),
    ({"fail": {"init": "Error: no provider"}}, True),
    ({"fail": {"destroy": [STEPS[0], "busy"]},
      "az_fail": {"group delete": "(ScopeLocked) it is locked"}}, False),
    ({"az_fail": {"group show": "(AuthorizationFailed) does not have authorization"}}, False),
    ({"logged_out": True}, False),
    ({"hang": STEPS[0]}, True),
]  # fmt: skip


@slow
@pytest.mark.parametrize(
    ("trouble", "is_gone"), [pytest.param(*each, id=named(each[0])) for each in AT_THE_END]
)
def test_what_fails_at_the_end_ends_with_nothing_or_with_a_list(
    sweep: Sweep, azure: Azure, trouble: dict[str, object], is_gone: bool
) -> None:
    azure.fleet.count = lambda: azure.behave(**trouble) or 4
    ran = sweep("nodes=2", "yes=true", "provisioning.limit=4s")
    assert (azure.groups == {}) is is_gone
    if is_gone:
        assert ran.status == 0, ran.out + ran.err
        assert not list(azure.state.glob("*/terraform.tfvars.json"))
        return
    assert ran.status == 1
    assert "the cluster could not be given back" in ran.err
    assert f"imgpull cluster down {cluster_of(azure)}" in ran.err
