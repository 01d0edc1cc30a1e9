"""Laws of the one description: what conf/cluster says is what terraform/ is told, or is refused."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import pytest

from imgpull.config import schema
from imgpull.config.compose import composed_job
from imgpull.errors import ConfigError
from imgpull.provisioning import variables as described
from imgpull.provisioning.variables import DESCRIPTIVE, FURTHER, MAPPED, Asked, variables

ROOT = Path(__file__).parents[1]
TERRAFORM = ROOT / "terraform"
CLUSTERS = sorted(path.stem for path in (ROOT / "conf" / "cluster").glob("*.yaml"))
SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
REGISTRY_ID = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/images/providers/"
    "Microsoft.ContainerRegistry/registries/shared"
)
EXPIRY = datetime(2026, 11, 25, 18, tzinfo=UTC)

# A change of each mapped key, and more that it needs.
CHANGES: Mapping[str, list[str]] = {
    "name": ["cluster.name=other"],
    "region": ["cluster.region=westeurope"],
    "kubernetes_version": ['cluster.kubernetes_version="1.33"'],
    "node_selector": ["++cluster.node_selector={pool: user}"],
    "tolerations": ["cluster.tolerations=[{key: pulls, value: only}]"],
    "prometheus_node_selector": ["++cluster.prometheus_node_selector={prometheus: here}"],
    "zones": ["cluster.zones=3"],
    "node.vm_size": ["cluster.node.vm_size=Standard_D32ds_v5"],
    "node.os_disk": ["cluster.node.os_disk=managed_p20_512gib"],
    "node.max_pods": ["cluster.node.max_pods=200"],
    "registry.server": ["cluster.registry.server=another.azurecr.io"],
    "registry.sku": ["cluster.registry.sku=Standard"],
    "azure.subscription": [],  # by who asks, below
    "azure.resource_group": ["cluster.azure.resource_group=mine"],
    "azure.owner": [],
    "azure.lifetime": [],
    "azure.registry": [f"cluster.azure.registry={REGISTRY_ID}"],
    "azure.anonymous_pull": ["cluster.azure.anonymous_pull=true"],
    "azure.replica_regions": ["cluster.azure.replica_regions=[northeurope]"],
    "azure.os_sku": ["cluster.azure.os_sku=AzureLinux3"],
    "azure.sku_tier": ["cluster.azure.sku_tier=Standard"],
    "azure.system_vm_size": ["cluster.azure.system_vm_size=Standard_D8s_v5"],
    "azure.system_nodes": ["cluster.azure.system_nodes=3"],
    "azure.prometheus_vm_size": ["cluster.azure.prometheus_vm_size=Standard_E8s_v5"],
    "azure.image_gc_high_percent": ["cluster.azure.image_gc_high_percent=95"],
    "azure.image_gc_low_percent": ["cluster.azure.image_gc_low_percent=60"],
}
BY_WHO_ASKS = ("azure.subscription", "azure.owner", "azure.lifetime", "name")
BASE = ("cluster=aks_d16ds_v5", "cluster.registry.server=mine1.azurecr.io")


def asked(**changes: Any) -> Asked:
    told = {
        "name": "test", "subscription": SUBSCRIPTION, "owner": "me", "identity": "test-1",
        "expiry": EXPIRY, "sweep": "",
    }  # fmt: skip
    return Asked(**{**told, **changes})


job_of = cache(lambda *overrides: composed_job(overrides))  # composing takes 0.2 s


def of(*overrides: str, **changes: Any) -> dict[str, Any]:
    return variables(job_of(*overrides), asked(**changes))


def leaves(kind: Any, above: str = "") -> set[str]:
    found: set[str] = set()
    for item in fields(kind):
        name = f"{above}{item.name}"
        found |= leaves(item.type, f"{name}.") if is_dataclass(item.type) else {name}
    return found


def declared() -> dict[str, dict[str, Any]]:
    """Each variable of variables.tf, as python-hcl2 reads it."""
    parsed = hcl2.loads((TERRAFORM / "variables.tf").read_text("utf-8"))
    return {name.strip('"'): body for block in parsed["variable"] for name, body in block.items()}


def test_each_key_of_a_cluster_is_mapped_or_descriptive_with_its_reason_and_never_both() -> None:
    assert leaves(schema.Cluster) == set(MAPPED) | set(DESCRIPTIVE)
    assert not set(MAPPED) & set(DESCRIPTIVE)
    assert all(len(reason) > 15 for reason in DESCRIPTIVE.values())


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_every_generated_variable_is_declared_and_every_needed_one_is_generated(
    cluster: str,
) -> None:
    made, known = of(f"cluster={cluster}"), declared()
    needed = {name for name, body in known.items() if "default" not in body}
    assert set(made) <= set(known)
    assert needed <= set(made)
    # What is generated is what the tables say.
    assert set(made) == {name for names in MAPPED.values() for name in names} | set(FURTHER)


def test_what_terraform_alone_decides_is_only_addresses() -> None:
    assert set(declared()) - set(of()) == {"vnet_cidr", "nodes_cidr", "pod_cidr", "service_cidr"}


VARIABLES = declared()


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_is_typed_described_and_validated(name: str) -> None:
    body = VARIABLES[name]
    assert body.get("type")
    assert len(body["description"]) > 15
    assert body.get("validation")


@pytest.mark.parametrize("key", MAPPED)
def test_another_value_of_a_mapped_key_changes_its_variables_and_no_others(key: str) -> None:
    base = list(BASE)
    if key.startswith("azure.image_gc"):
        base += ["cluster.azure.image_gc_high_percent=90", "cluster.azure.image_gc_low_percent=70"]
    before = of(*base)
    who = {
        "azure.subscription": {"subscription": "another"}, "azure.owner": {"owner": "you"},
        "azure.lifetime": {"expiry": datetime(2026, 12, 1, tzinfo=UTC)}, "name": {"name": "other"},
    }  # fmt: skip
    after = of(*base, *CHANGES[key], **who.get(key, {}))
    changed = {name for name in before if before[name] != after[name]}
    further = {"resource_group_name"} if key == "name" else set()
    further |= {"registry_sku"} if key == "azure.registry" else set()
    assert changed
    assert changed <= set(MAPPED[key]) | further


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("cluster.kubelet.serializeImagePulls=true", "serializeImagePulls=true"),
        ("cluster.kubelet.maxParallelImagePulls=3", "maxParallelImagePulls=3"),
        ("cluster.kubelet.registryPullQPS=0", "registryPullQPS=0"),
        ("cluster.kubelet.registryBurst=50", "registryBurst=50"),
        ("cluster.containerd.max_concurrent_downloads=10", "max_concurrent_downloads=10"),
        ("cluster.containerd.image_pull_progress_timeout=1m", "image_pull_progress_timeout=1m"),
        ("cluster.provider=eks", "provider=eks"),
        ("cluster.node_prefix=gke-", "node_prefix=gke-"),
        ("cluster.node.os_disk=unknown_128gib", "os_disk=unknown_128gib"),
        ("cluster.node.os_disk=managed_p20_128gib", "p10, not p20"),
        ("cluster.node.os_disk=ephemeral_2048gib", "has 150 GiB"),
        ("cluster.azure.registry=typo", "registry=typo"),
        ("cluster.azure.os_sku=Windows2022", "os_sku=Windows2022"),
        ("cluster.azure.system_vm_size=Standard_D2s_v5", "has 2 vCPU"),
        ("nodes=1000", "Free tier ends at 1000"),
    ],
)  # fmt: skip
def test_what_aks_would_build_otherwise_is_refused_by_its_key_with_a_fix(
    override: str, told: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        of("cluster=aks_d4ds_v5", override)
    assert told in refused.value.message
    assert refused.value.hint


def test_prometheus_has_a_node_of_its_own() -> None:
    job = job_of()
    shared = replace(job, cluster=replace(job.cluster, prometheus_node_selector={}))
    with pytest.raises(ConfigError, match="would run on a measured node"):
        variables(shared, asked())


def test_serial_pulls_are_what_aks_has_before_kubernetes_1_31() -> None:
    old = 'cluster.kubernetes_version="1.30"'
    assert of(old, "cluster.kubelet.serializeImagePulls=true")["kubernetes_version"] == "1.30"
    with pytest.raises(ConfigError, match="serializeImagePulls"):
        of(old)


def test_many_nodes_need_a_larger_prometheus_and_the_fix_is_one_that_is_enough() -> None:
    many = ("nodes=999", "cluster.azure.sku_tier=Standard", "cluster.prometheus_memory_gib=30")
    with pytest.raises(ConfigError, match="Prometheus asks for 30 GiB") as refused:
        of(*many)
    assert of(*many, refused.value.hint)["measured_node_count"] == 999


def test_the_placeholder_makes_no_registry_and_a_name_of_ones_own_makes_one() -> None:
    assert of()["registry_name"] is None
    assert of("cluster.registry.server=mine1.azurecr.io")["registry_name"] == "mine1"
    assert described.missing_registry(composed_job([]).cluster)


def test_everything_carries_the_tags_that_the_janitor_goes_by() -> None:
    assert of(sweep="2026-11-25_ab12")["tags"] == {
        "managed-by": "imgpull", "imgpull-id": "test-1", "owner": "me",
        "sweep": "2026-11-25_ab12", "expiry": "2026-11-25T18:00:00Z",
    }  # fmt: skip


def test_each_resource_that_takes_tags_has_them() -> None:
    texts = [path.read_text("utf-8") for path in TERRAFORM.glob("main*.tf")]
    untagged = ("azurerm_subnet", "azurerm_role_assignment")  # Azure gives them none
    found = 0
    for text in texts:
        for block in hcl2.loads(text).get("resource", []):
            for kind, named in block.items():
                if kind.strip('"').startswith("azurerm_") and kind.strip('"') not in untagged:
                    assert all("tags" in body for body in named.values()), kind
                    found += len(named)
    assert found >= 6


def texts(*patterns: str) -> str:
    return "\n".join(
        path.read_text("utf-8") for each in patterns for path in sorted(TERRAFORM.glob(each))
    )


def test_every_variable_is_used_and_every_used_one_is_declared() -> None:
    """What `terraform validate` would say, where the provider cannot be had."""
    used = set(re.findall(r"\bvar\.(\w+)", texts("main*.tf", "outputs.tf", "terraform.tf")))
    assert used == set(VARIABLES)
    assert set(re.findall(r"\bvar\.(\w+)", texts("tests/*.hcl", "variables.tf"))) <= set(VARIABLES)


def test_every_resource_that_is_referred_to_exists() -> None:
    made = set(re.findall(r'^resource "(\w+)" "(\w+)"', texts("main*.tf"), re.M))
    said = re.findall(r"\b(azurerm_\w+|terraform_data)\.(\w+)", texts("*.tf", "tests/*.hcl"))
    assert said
    assert set(said) <= made


def test_the_modules_own_tests_give_what_is_needed_and_nothing_unknown() -> None:
    parsed = hcl2.loads(texts("tests/plan.tftest.hcl"))
    needed = {name for name, body in VARIABLES.items() if "default" not in body}
    (shared,) = parsed["variables"]
    assert needed <= set(shared) <= set(VARIABLES) | {"__is_block__"}
    runs = [body for block in parsed["run"] for body in block.values()]
    assert len(runs) >= 8
    for run in runs:
        assert run["command"] in ("plan", "${plan}")  # nothing is ever applied
        for own in run.get("variables", []):
            assert set(own) <= set(VARIABLES) | {"__is_block__"}


def test_every_output_says_what_it_is_for_and_none_is_a_secret() -> None:
    parsed = hcl2.loads((TERRAFORM / "outputs.tf").read_text("utf-8"))
    outputs = {name: body for block in parsed["output"] for name, body in block.items()}
    assert {"credentials_command", "kubeconfig", "registry"} <= {x.strip('"') for x in outputs}
    for name, body in outputs.items():
        assert len(body["description"]) > 15, name
        assert not re.search("kube_config|password|client_key", str(body)), name


def test_only_what_azure_must_not_change_by_itself_is_pinned() -> None:
    cluster = (TERRAFORM / "main.aks.tf").read_text("utf-8")
    assert re.search(r'node_os_upgrade_channel *= *"None"', cluster)
    assert not re.search(r"^ *automatic_upgrade_channel|auto_scaling_enabled", cluster, re.M)


def terraform() -> str:
    """The real program, or a skip that says so."""
    found = shutil.which("terraform")
    if found is None:
        pytest.skip("no terraform on PATH: variables.tf is read by python-hcl2 only")
    return found


def plan_of(directory: Path, made: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """variables.tf alone, which needs no provider: types and validations are the program's own."""
    shutil.copy(TERRAFORM / "variables.tf", directory)
    (directory / "terraform.tfvars.json").write_text(json.dumps(made))
    return subprocess.run(
        [terraform(), f"-chdir={directory}", "plan", "-input=false", "-no-color"],
        capture_output=True, text=True, timeout=60,
        env={"PATH": "/usr/bin:/bin", "CHECKPOINT_DISABLE": "1", "HOME": str(directory)},
    )  # fmt: skip


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_terraform_itself_takes_the_variables_of_every_description(
    cluster: str, tmp_path: Path
) -> None:
    ended = plan_of(tmp_path, of(f"cluster={cluster}", "cluster.registry.server=mine1.azurecr.io"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Value for undeclared variable" not in ended.stdout


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pod_cidr": "10.224.64.0/18"}, "pod_cidr overlaps vnet_cidr"),
        ({"service_cidr": "10.136.0.0/16"}, "service_cidr overlaps pod_cidr"),
        ({"service_cidr": "10.224.0.0/16"}, "service_cidr overlaps vnet_cidr"),
        ({"nodes_cidr": "10.1.0.0/20"}, "nodes_cidr is not within vnet_cidr"),
        ({"nodes_cidr": "10.224.0.0/28"}, "fewer addresses than there are nodes"),
        ({"pod_cidr": "10.128.0.0/22"}, "no /24 for each node"),
        ({"measured_node_count": 1.5}, "from 0 to 1 000 nodes"),
        ({"measured_os_disk_type": "Floppy"}, "Choose Ephemeral or Managed"),
        ({"tags": {"managed-by": "imgpull"}}, "imgpull-id are needed"),
        ({"image_gc_high_threshold": 90}, "Give both thresholds"),
        ({"registry_id": REGISTRY_ID}, "Either make a registry"),
        ({"registry_sku": "Basic", "registry_anonymous_pull": True}, "Anonymous pulls need"),
        ({"measured_node_labels": {"kubernetes.azure.com/x": "y"}}, "AKS sets labels of"),
        ({"location": "East US"}, "A region is lower-case"),
    ],
)  # fmt: skip
def test_terraform_itself_refuses_what_azure_would(
    change: Mapping[str, Any], told: str, tmp_path: Path
) -> None:
    base = of("cluster.registry.server=mine1.azurecr.io")
    ended = plan_of(tmp_path, {**base, **change})
    assert ended.returncode == 1
    assert re.sub(r"\s+", " ", told) in re.sub(r"\s+", " ", ended.stdout + ended.stderr)


def test_the_module_is_formatted() -> None:
    ended = subprocess.run(
        [terraform(), "fmt", "-check", "-recursive", str(TERRAFORM)], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout
