"""Laws of a configuration: what cannot be is refused with the fix, what can be has one name."""

import re
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from imgpull.config import job as jobs
from imgpull.config import schema
from imgpull.errors import ConfigError

Compose = Callable[..., dict[str, Any]]
MakeJob = Callable[..., jobs.Job]

NL = "\n"


def put(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The configuration with one key set, "image.layers[0].compression" included."""
    *path, last = [int(part) if part.isdigit() else part for part in re.findall(r"\w+", key)]
    place: Any = values
    for part in path:
        place = place[part]
    place[last] = value
    return values


def refusal(values: Mapping[str, Any]) -> ConfigError:
    """The error that these values end in."""
    with pytest.raises(ConfigError) as caught:
        jobs.job_from(values)
    return caught.value


# ------------------------------------------------------------------------------------ refused

REFUSED = [
    ("deployments", 0, "deployments=0 is not above zero", "use deployments=1"),
    ("replicas", -1, "replicas=-1 is not above zero", "use replicas=1"),
    ("nodes", 0, "nodes=0 is not above zero", "use nodes=1"),
    ("qps", 0.0, "qps=0.0 is not above zero", "use qps=1"),
    ("qps", float("nan"), "qps=nan is not above zero", "use qps=1"),
    ("qps", float("inf"), "qps=inf is not above zero", "use qps=1"),
    ("trial", 0, "trial=0 is not above zero", "use trial=1"),
    ("trials", 0, "trials=0 is not above zero", "use trials=1"),
    ("replicas", 500, "deployments=10 x replicas=500 = 5000 pods cannot fit nodes=10: "
     "10 nodes x 110 pods = 1100", "use fewer replicas or nodes=46"),
    ("metrics_wait", "59s", "metrics_wait=59s leaves no two scrapes of the slowest target after "
     "the load (1m)", "use metrics_wait=auto or a longer one"),
    ("containerd_scrape_interval", "10m", "metrics_wait=10m leaves no two scrapes of the slowest "
     "target after the load (20m)", "use metrics_wait=auto or a longer one"),
    ("containerd_scrape_interval", "1500ms", "containerd_scrape_interval=1.5s is no whole number "
     "of seconds, which Prometheus asks for", "for example containerd_scrape_interval=2s"),
    ("wait_timeout", "0s", "wait_timeout=0s is not above zero", "for example wait_timeout=10m"),
    ("wait_timeout", "-3m", "wait_timeout=-3m is not above zero", "for example wait_timeout=10m"),
    ("pod_startup_threshold", "100us", "pod_startup_threshold=100us is not above zero",
     "for example pod_startup_threshold=10m"),
    ("wait_timeout", "30", "wait_timeout: '30' is not a duration; write it like 90s, 3m or 1h30m",
     "for example wait_timeout=10m"),
    ("metrics_wait", "soon", "metrics_wait: 'soon' is not a duration; write it like 90s, 3m or "
     "1h30m", "for example metrics_wait=10m"),
    ("image.layers[0].compressed_bytes", "5XB", "image.layers[0].compressed_bytes: '5XB' is not a "
     "size; write it like 15GB, 512MiB or 4096", "edit image.layers[0].compressed_bytes"),
    ("image.digest", "sha256:abc", "image.digest 'sha256:abc' is not sha256: and 64 hexadecimal "
     "digits", "leave image.digest=null when it is not known"),
    ("image.digest", "sha256:" + "A" * 64, f"image.digest 'sha256:{'A' * 64}' is not sha256: and "
     "64 hexadecimal digits", "leave image.digest=null when it is not known"),
    ("image.pull_secret", "My Secret", "image.pull_secret 'My Secret' is no name of a Secret",
     "lower-case letters, digits, '-' and '.', or image.pull_secret=null"),
    ("cache", "salted", "cache=salted needs the image builder, which is not in this version",
     "use cache=cold"),
    ("until", "plan", "until=plan is not available in this version",
     "choose until=render or until=run"),
    ("on_failure", "explode", "on_failure=explode is unknown", "choose continue or stop"),
    ("engine.kind", "docker", "engine.kind is 'docker'", "choose one of: sim, replay"),
    ("engine", None, "engine.kind is None", "choose one of: sim, replay"),
    ("cluster.kubernetes_version", "latest", "cluster.kubernetes_version 'latest' is no version",
     """write it in quotes, for a shell: 'cluster.kubernetes_version="1.30"'"""),
    ("cluster.kubernetes_version", 1.30, "cluster.kubernetes_version '1.3' is no version",
     """write it in quotes, for a shell: 'cluster.kubernetes_version="1.30"'"""),
    ("cluster.containerd_version", "1.7", "cluster.containerd_version '1.7' is no version",
     """write it in quotes, for a shell: 'cluster.containerd_version="2.3.3"'"""),
    ("cluster.node_prefix", "Node_", "cluster.node_prefix 'Node_' is no start of a node name",
     "lower-case letters, digits, '-' and '.', for example aks-measured-"),
    ("cluster.node_selector", {"a b": "x"}, "cluster.node_selector: 'a b' is no label",
     "letters, digits, '-', '_' and '.', for example agentpool: measured"),
    ("cluster.prometheus_node_selector", {"a": "x: y"}, "cluster.prometheus_node_selector: 'x: y' "
     "is no value of a label (a)",
     "letters, digits, '-', '_' and '.', for example agentpool: measured"),
    ("cluster.node.nic_mbit_s", 0.0, "cluster.node.nic_mbit_s=0.0 is not above zero",
     "give cluster.node.nic_mbit_s the value of the datasheet"),
    ("cluster.registry.egress_mbit_s", float("inf"), "cluster.registry.egress_mbit_s=inf is not "
     "above zero", "give cluster.registry.egress_mbit_s the value of the datasheet"),
    ("cluster.containerd.max_concurrent_downloads", 0,
     "cluster.containerd.max_concurrent_downloads=0 is not above zero",
     "give cluster.containerd.max_concurrent_downloads the value of the datasheet"),
    ("cluster.kubelet.maxParallelImagePulls", 0,
     "cluster.kubelet.maxParallelImagePulls=0 is not above zero",
     "cluster.kubelet.maxParallelImagePulls=null is no limit"),
    ("cluster.kubelet.registryPullQPS", -1.0,
     "cluster.kubelet.registryPullQPS=-1.0 is below zero or no number",
     "cluster.kubelet.registryPullQPS=0 is no limit"),
    ("cluster.kubelet.registryBurst", 0,
     "cluster.kubelet.registryBurst=0 would let no pull begin",
     "kubelet's default is cluster.kubelet.registryBurst=10"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "message", "hint"), REFUSED)
def test_what_cannot_be_is_refused_with_its_value_and_the_fix(
    compose: Compose, key: str, value: Any, message: str, hint: str
) -> None:
    error = refusal(put(compose(), key, value))
    assert (error.message, error.hint) == (message, hint)


TOLERATIONS = [
    ({"key": "a b"}, "key 'a b' is no taint's key"),
    ({"key": ""}, "key '' is no taint's key"),
    ({"key": "a", "value": "x/y"}, "value 'x/y' is no value of a taint"),
    ({"key": "a", "operator": "Exist"}, "operator 'Exist' is unknown"),
    ({"key": "a", "effect": "Never"}, "effect 'Never' is unknown"),
    ({"key": "a", "operator": "Exists", "value": "x"}, "value 'x' stands beside operator Exists"),
]


@pytest.mark.parametrize(("toleration", "message"), TOLERATIONS)
def test_a_toleration_that_the_api_server_would_refuse_is_refused_here(
    compose: Compose, toleration: dict[str, str], message: str
) -> None:
    error = refusal(put(compose(), "cluster.tolerations", [{"key": "ok"}, toleration]))
    assert error.message == f"cluster.tolerations[1].{message}"
    assert error.hint


def test_a_toleration_of_everything_needs_no_key(compose: Compose) -> None:
    values = put(compose(), "cluster.tolerations", [{"key": "", "operator": "Exists"}])
    assert jobs.job_from(values).cluster.tolerations[0].key == ""


def test_parallel_pulls_cannot_be_asked_of_a_serial_kubelet(compose: Compose) -> None:
    values = put(compose(), "cluster.kubelet.maxParallelImagePulls", 3)
    assert jobs.job_from(values)
    error = refusal(put(values, "cluster.kubelet.serializeImagePulls", True))
    assert "maxParallelImagePulls=3 cannot stand beside serializeImagePulls=true" in error.message
    assert error.hint == "use cluster.kubelet.serializeImagePulls=false"


BAD_REFERENCES = [
    "pytorch", "reg.io/pytorch", "UPPER/x:1", "reg.io/Upper:1", "a b:1", "reg.io/x:", ":1", "",
    f"reg.io/x:1{NL}", f"reg.io/x:1{NL}hostNetwork: true", "reg.io/x:'1'", 'reg.io/x:"1"',
    "reg.io/x:{{.Name}}", "{{.Name}}:1", "reg.io/x:<%= qps %>", "reg.io//x:1", "reg.io/x:1 #",
    "reg.io/-x:1", f"reg.io/x:{'t' * 129}", "reg.io:port/x:1", "https://reg.io/x:1", "reg.io/é:1",
    "reg.io/x@sha256:" + "0" * 64,
]  # fmt: skip
GOOD_REFERENCES = [
    "nginx:1.25", "library/nginx:1.25", "localhost/x:1", "localhost:5000/x:1",
    "127.0.0.1:5000/a/b:v1", "My.Registry.io/a_b/c__d/e-f:V1.0_x-y", "reg.io/a.b:_1",
]  # fmt: skip


@pytest.mark.parametrize("reference", BAD_REFERENCES)
def test_an_image_reference_that_no_registry_takes_is_refused(
    compose: Compose, reference: str
) -> None:
    error = refusal(put(compose(), "image.reference", reference))
    assert error.message == f"image.reference '{reference}' is not registry/repository:tag"
    assert "image.reference=myregistry.azurecr.io/pytorch:2.3" in error.hint


@pytest.mark.parametrize("reference", GOOD_REFERENCES)
def test_an_image_reference_that_registries_take_is_taken(compose: Compose, reference: str) -> None:
    assert jobs.job_from(put(compose(), "image.reference", reference)).image.reference == reference


def test_pods_name_their_image_by_digest_when_one_is_given(compose: Compose) -> None:
    values = put(compose(), "image.digest", "sha256:" + "0" * 64)
    image = jobs.job_from(values).image
    assert image.pinned_reference == f"{image.reference}@sha256:{'0' * 64}"


NOT_BUILT = {
    "exclude": ["x"], "retries": 1, "max_hours": 2.0, "max_cost": 3.0, "trial_limit": "1h",
    "target_effect": 0.1, "provision": "terraform", "keep": True, "allow": ["region"],
}  # fmt: skip


@pytest.mark.parametrize("key", NOT_BUILT)
def test_a_key_whose_machinery_is_missing_takes_its_default_only(
    compose: Compose, key: str
) -> None:
    error = refusal(put(compose(), key, NOT_BUILT[key]))
    assert error.message == f"{key}={NOT_BUILT[key]} is not available in this version"
    assert error.hint.startswith(f"leave {key} at its default (")


UNKNOWN = [
    ("deployment", "deployments"), ("image.layer", "image.layers"), ("cluster.node.cpus",
     "cluster.node.vcpus"), ("cluster.kubelet.maxParallelPulls",
     "cluster.kubelet.maxParallelImagePulls"), ("tracking.url", "tracking.uri"),
    ("engine.rate", "engine.rates"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "right"), UNKNOWN)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    compose: Compose, wrong: str, right: str
) -> None:
    error = refusal(compose(f"+{wrong}=1"))
    assert (error.message, error.hint) == (f"unknown key '{wrong}'", f"did you mean '{right}'?")


def test_an_unknown_key_like_no_other_is_refused_with_all_valid_ones(compose: Compose) -> None:
    error = refusal(compose("+zzz=1"))
    assert error.message == "unknown key 'zzz'"
    assert all(key in error.hint for key in ("deployments", "qps", "image"))


def test_an_unknown_key_of_a_layer_is_refused(compose: Compose) -> None:
    error = refusal(put(compose(), "image.layers[1].unpacked_byte", "1GB"))
    assert error.message == "unknown key 'image.layers[1].unpacked_byte'"
    assert error.hint == "did you mean 'image.layers[1].unpacked_bytes'?"


WRONG_TYPES = [
    ("replicas", "many"), ("replicas", True), ("image.name", False), ("replicas", 1.5),
    ("qps", "fast"), ("cache", "hot"), ("seed", None),
    ("image.layers", "none"), ("image.layers[0].compression", "lzma"),
    ("cluster.node.vcpus", "four"),
    ("cluster.tolerations", ["a"]), ("cluster.kubelet.serializeImagePulls", "maybe"),
    ("engine.rates", {"sandbox_s": "slow"}), ("tracking.kind", "cloud"), ("image", "x"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG_TYPES)
def test_a_wrong_type_is_refused_with_its_key(compose: Compose, key: str, value: Any) -> None:
    error = refusal(put(compose(), key, value))
    assert key.split(".")[-1].split("[")[0] in error.message
    assert NL not in error.message
    assert error.hint


@pytest.mark.parametrize(
    "overrides", [["replicas=many"], ["cache=hot"], ["deployment=1"], ["cluster=nowhere"]]
)
def test_hydra_itself_refuses_wrong_types_keys_and_options(
    compose: Compose, overrides: list[str]
) -> None:
    with pytest.raises(HydraException, match=overrides[0].split("=")[0]):
        compose(*overrides)


@pytest.mark.parametrize("key", ["image.reference", "cluster.node.vcpus", "cluster.name"])
def test_a_key_without_a_value_is_named(compose: Compose, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(f"{key}=???")
    assert caught.value.message == f"{key} has no value"
    assert caught.value.hint == f"give one: {key}=VALUE"


def test_the_replay_engine_asks_for_its_report(compose: Compose) -> None:
    with pytest.raises(ConfigError, match=r"engine\.report has no value"):
        compose("engine=replay")


def test_an_interpolation_that_leads_nowhere_is_refused_with_its_key(compose: Compose) -> None:
    with pytest.raises(ConfigError) as caught:
        compose("image.reference=${cluster.registry.sever}/x:1")
    assert "cluster.registry.sever" in caught.value.message
    assert "image.reference" in caught.value.message


def test_resolving_leaves_plain_data_without_hydra_or_interpolations(compose: Compose) -> None:
    values = compose()
    assert "hydra" not in values
    assert values["cache"] == "cold"
    assert (
        values["image"]["reference"] == f"{values['cluster']['registry']['server']}/pytorch:large"
    )
    assert not OmegaConf.is_config(values["image"])
    assert not isinstance(values["image"]["layers"], DictConfig)


def test_a_resolved_configuration_makes_the_same_job_again(compose: Compose) -> None:
    values = compose("replicas=5", "cache=warm")
    again = jobs.resolve(OmegaConf.create(values))
    assert again == values
    assert jobs.job_from(again) == jobs.job_from(values)


# -------------------------------------------------------------------------------------- notes


def test_the_standard_test_on_fast_disks_has_nothing_to_note(job: MakeJob) -> None:
    assert jobs.notes(job("cluster=aks_d16ds_v5", "image=resource_consumer")) == ()


def test_a_threshold_that_the_hardware_cannot_meet_is_noted_with_the_figure(job: MakeJob) -> None:
    slow = ("image=vllm", "cluster.node.disk_write_mb_s=50")
    (note,) = jobs.notes(job(*slow))
    assert note == (
        "pod_startup_threshold=3m cannot be met: 10.3 GB compressed needs at least 206 s on this "
        "node's NIC and disk"
    )
    assert jobs.notes(job(*slow, "pod_startup_threshold=207s")) == ()
    assert jobs.notes(job(*slow, "cache=warm")) == ()


@pytest.mark.parametrize("key", ["cluster.node.nic_mbit_s", "cluster.node.disk_write_mb_s"])
def test_halving_the_narrower_of_nic_and_disk_doubles_the_fastest_pull(
    job: MakeJob, key: str
) -> None:
    whole, half = jobs.fastest_pull_s(job(f"{key}=100")), jobs.fastest_pull_s(job(f"{key}=50"))
    assert whole is not None
    assert half == pytest.approx(2 * whole)


def test_no_pull_is_called_fastest_when_sizes_are_unknown(job: MakeJob) -> None:
    assert jobs.fastest_pull_s(job("image.layers=[]")) is None
    assert jobs.notes(job("image.layers=[]")) == ()


def test_one_deployment_makes_the_creation_rate_inert(job: MakeJob) -> None:
    (note,) = jobs.notes(job("deployments=1", "image=resource_consumer"))
    assert note == "deployments=1 makes qps=10 inert: it paces Deployments, not pods"


CROWD = ("image=resource_consumer", "nodes=1", "deployments=30", "qps=100")


def test_pods_that_arrive_faster_than_kubelet_s_pull_tokens_are_noted(job: MakeJob) -> None:
    (note,) = jobs.notes(job(*CROWD))
    assert note.startswith(
        "30 pods a node within 1 s exceed kubelet's registryBurst=10 and registryPullQPS=5: "
    )
    assert "pull QPS exceeded" in note


@pytest.mark.parametrize(
    "remedy",
    [
        "qps=2",  # tokens come back faster than pods arrive
        "nodes=3",
        "cache=warm",  # nothing is pulled
        "cluster.kubelet.registryPullQPS=0",  # no limit
        "cluster.kubelet.registryBurst=30",
        "cluster.kubelet.serializeImagePulls=true",
        "cluster.kubelet.maxParallelImagePulls=10",
    ],
)
def test_no_note_where_kubelet_rejects_nothing(job: MakeJob, remedy: str) -> None:
    assert jobs.notes(job(*CROWD, remedy)) == ()


# ----------------------------------------------------------------------------------- identity

# One changed value for each field that makes a cell what it is.
PHYSICAL: dict[str, Any] = {
    "deployments": 11, "replicas": 2, "qps": 9.5, "nodes": 11, "cache": "warm",
    "pod_startup_threshold": "4m", "wait_timeout": "31m", "metrics_wait": "auto",
    "containerd_scrape_interval": "16s", "cluster.name": "other", "cluster.provider": "eks",
    "cluster.region": "westeurope", "cluster.kubernetes_version": "1.35",
    "cluster.containerd_version": "2.3.3", "cluster.node_selector": {"pool": "other"},
    "cluster.tolerations": [{"key": "a", "value": "b"}], "cluster.node.vm_size": "other",
    "cluster.node.vcpus": 5, "cluster.node.memory_gib": 17.0, "cluster.node.nic_mbit_s": 1000.0,
    "cluster.node.os_disk": "other", "cluster.node.disk_write_mb_s": 251.0,
    "cluster.node.max_pods": 111, "cluster.registry.server": "other.azurecr.io",
    "cluster.registry.sku": "Basic", "cluster.registry.egress_mbit_s": 1.0,
    "cluster.registry.connection_mb_s": 1.0, "cluster.registry.first_byte_ms": 1.0,
    "cluster.kubelet.serializeImagePulls": True, "cluster.kubelet.maxParallelImagePulls": 2,
    "cluster.kubelet.registryPullQPS": 6.0, "cluster.kubelet.registryBurst": 11,
    "cluster.containerd.max_concurrent_downloads": 4, "image.reference": "reg.io/other:1",
    "image.digest": "sha256:" + "0" * 64, "image.platform": "linux/arm64",
    "image.layers[0].compressed_bytes": "31MB", "image.layers[0].unpacked_bytes": "79MB",
    "image.layers[0].compression": "zstd", "engine.rates.sandbox_s": 9.0,
}  # fmt: skip

# What says how a trial is run, named, logged or ordered, and changes no result.
NOT_PHYSICAL: dict[str, Any] = {
    "seed": 7, "trial": 3, "trials": 5, "until": "render", "order": "shuffled", "resume": "auto",
    "on_failure": "stop", "tracking.kind": "none", "tracking.uri": "http://mlflow:5000",
    "tracking.experiment": "other", "cluster.helper_image": "reg.io/pause:1",
    "cluster.prometheus_node_selector": {"a": "b"}, "cluster.node_prefix": "other-",
    "image.name": "other", "image.command": ["sh"], "image.args": ["-c"],
    "image.pull_secret": "secret",
}  # fmt: skip


def leaves(values: Mapping[str, Any], prefix: str = "") -> set[str]:
    """Every key with a value of its own; maps and lists of the schema count as one."""
    found: set[str] = set()
    for key, value in values.items():
        whole = key in ("node_selector", "prometheus_node_selector", "rates", "layers")
        if isinstance(value, Mapping) and not whole:
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found.add(f"{prefix}{key}")
    return found


def test_every_key_is_known_to_be_physical_or_not(compose: Compose) -> None:
    named = {re.sub(r"\[0\]\.\w+|(?<=rates)\.\w+", "", key) for key in PHYSICAL}
    assert not named & set(NOT_PHYSICAL)
    assert leaves(compose()) == named | set(NOT_PHYSICAL) | set(NOT_BUILT) | {"engine.kind"}


@pytest.mark.parametrize("key", PHYSICAL)
def test_a_physical_field_changes_the_cell(compose: Compose, job: MakeJob, key: str) -> None:
    changed = jobs.job_from(put(compose(), key, PHYSICAL[key]))
    assert jobs.cell_id(changed) != jobs.cell_id(job())


@pytest.mark.parametrize("key", NOT_PHYSICAL)
def test_how_a_trial_is_run_and_logged_does_not_change_the_cell(
    compose: Compose, job: MakeJob, key: str
) -> None:
    changed = jobs.job_from(put(compose(), key, NOT_PHYSICAL[key]))
    assert jobs.cell_id(changed) == jobs.cell_id(job())


def test_the_engine_is_part_of_the_cell(job: MakeJob) -> None:
    replayed = job("engine=replay", "engine.report=somewhere")
    assert jobs.cell_id(replayed) != jobs.cell_id(job())


def test_spelling_does_not_change_the_cell(compose: Compose, job: MakeJob) -> None:
    values = put(put(compose(), "wait_timeout", "1800s"), "metrics_wait", "0h10m")
    values = put(values, "image.layers[0].compressed_bytes", "30000000")
    assert jobs.cell_id(jobs.job_from(put(values, "qps", 10))) == jobs.cell_id(job())


@given(st.randoms())
def test_the_order_of_keys_does_not_change_the_cell(random: Any) -> None:
    content = {"a": {"x": 1, "y": [2, {"p": 3, "q": 4}]}, "b": None, "c": 0.5}

    def shuffled(value: Any) -> Any:
        if not isinstance(value, dict):
            return [shuffled(item) for item in value] if isinstance(value, list) else value
        keys = random.sample(list(value), len(value))
        return {key: shuffled(value[key]) for key in keys}

    assert jobs.content_id(shuffled(content)) == jobs.content_id(content)


def test_the_order_of_a_configuration_s_keys_does_not_change_the_cell(
    compose: Compose, job: MakeJob
) -> None:
    def reverse(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: reverse(value[key]) for key in reversed(list(value))}

    assert jobs.cell_id(jobs.job_from(reverse(compose()))) == jobs.cell_id(job())


def test_a_cell_s_name_is_the_same_on_every_machine(job: MakeJob) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", jobs.cell_id(job()))
    assert jobs.content_id({"a": 1, "b": [None, 0.5, "x"]}) == "16cebd460832"


def test_a_job_cannot_be_changed(job: MakeJob) -> None:
    frozen = job()
    for thing, name in (
        (frozen, "replicas"),
        (frozen.image, "reference"),
        (frozen.image.layers[0], "compressed_bytes"),
        (frozen.cluster, "region"),
        (frozen.cluster.node, "vcpus"),
        (frozen.engine, "kind"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, name, "x")


def test_factors_are_the_levels_that_a_cell_stands_for(job: MakeJob) -> None:
    assert jobs.factors(job("qps=5", "replicas=3", "image=vllm")) == {
        "deployments": 10, "replicas": 3, "qps": 5, "nodes": 10, "image": "vllm",
        "cluster": "aks_d4ds_v5", "cache": "cold",
    }  # fmt: skip
    assert jobs.factors(replace(job(), qps=0.5))["qps"] == 0.5


def test_room_for_two_scrapes_follows_the_slowest_target(job: MakeJob) -> None:
    assert jobs.scrape_room_s(job()) == 2 * jobs.KUBELET_SCRAPE_INTERVAL_S
    assert jobs.scrape_room_s(job("containerd_scrape_interval=45s")) == 90


def test_every_engine_s_keys_are_in_its_schema() -> None:
    for kind, engine in schema.ENGINES.items():
        assert engine.kind == kind
