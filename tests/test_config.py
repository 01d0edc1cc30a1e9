"""Laws of a configuration: what cannot be is refused with the fix, what can be has one name."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from imgpull import engines
from imgpull.config import job as jobs
from imgpull.config import schema
from imgpull.errors import ConfigError

Compose = Callable[..., dict[str, Any]]
Changed = Callable[[dict[str, Any]], dict[str, Any]]
MakeJob = Callable[..., jobs.Job]

NL = "\n"


def refusal(values: Mapping[str, Any]) -> ConfigError:
    """The error that these values end in."""
    with pytest.raises(ConfigError) as caught:
        jobs.job_from(values)
    return caught.value


# ------------------------------------------------------------------------------------ refused

ANY_LAYER = {"compressed_bytes": "1MB", "unpacked_bytes": "2MB"}

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
    ("on_failure", "explode", "on_failure=explode is unknown",
     "choose continue, stop or stop_after:3"),
    ("on_failure", "stop_after=0", "on_failure=stop_after=0 is unknown",
     "choose continue, stop or stop_after:3"),
    ("retries", -1, "retries=-1 is below zero", "use retries=0"),
    ("max_hours", 0.0, "max_hours=0.0 is not above zero", "max_hours=null is no limit"),
    ("max_cost", float("inf"), "max_cost=inf is not above zero", "max_cost=null is no limit"),
    ("engine.kind", "podman", "engine.kind is 'podman'",
     "choose one of: sim, replay, binary, docker, incluster"),
    ("engine", None, "engine.kind is None",
     "choose one of: sim, replay, binary, docker, incluster"),
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
    ("cluster.zones", 0, "cluster.zones=0 is not above zero",
     "give cluster.zones the value of the datasheet"),
    ("cluster.node.disk_burst_mb_s", 250.0,
     "cluster.node.disk_burst_mb_s=250 is not above disk_write_mb_s=250",
     "cluster.node.disk_burst_mb_s=null is a disk that does not burst"),
    ("cluster.node.disk_burst_minutes", 0.0,
     "cluster.node.disk_burst_minutes=0.0 is not above zero",
     "give cluster.node.disk_burst_minutes the value of the datasheet"),
    ("cluster.registry.requests_per_minute", 0.0,
     "cluster.registry.requests_per_minute=0.0 is not above zero",
     "give cluster.registry.requests_per_minute the value of the datasheet"),
    ("cluster.registry.requests_burst", 0, "cluster.registry.requests_burst=0 is not above zero",
     "give cluster.registry.requests_burst the value of the datasheet"),
    ("cluster.registry.zone_link_mbit_s", 0.0,
     "cluster.registry.zone_link_mbit_s=0.0 is not above zero",
     "give cluster.registry.zone_link_mbit_s the value of the datasheet"),
    ("cluster.containerd.max_concurrent_unpacks", 2,
     "cluster.containerd.max_concurrent_unpacks=2 needs containerd 2.2 or newer, and "
     "cluster.containerd_version is 1.7.34",
     "use cluster.containerd.max_concurrent_unpacks=1, or a newer cluster.containerd_version"),
    ("cluster.containerd.concurrent_layer_fetch_buffer", 8388608,
     "cluster.containerd.concurrent_layer_fetch_buffer=8388608 needs containerd 2.1 or newer, and "
     "cluster.containerd_version is 1.7.34",
     "use cluster.containerd.concurrent_layer_fetch_buffer=0, or a newer "
     "cluster.containerd_version"),
    ("cluster.containerd.image_pull_progress_timeout", "-1s",
     "cluster.containerd.image_pull_progress_timeout=-1s is below zero",
     "for example cluster.containerd.image_pull_progress_timeout=10m"),
    ("engine.faults.pull_shares.network", 1.5,
     "engine.faults.pull_shares.network=1.5 is no share", "give a number from 0 to 1"),
    ("engine.faults.pull_shares", {"auth": 0.5, "network": 0.6},
     "engine.faults.pull_shares: auth=0.5 + network=0.6 are more than 1",
     "shares of the same calls: together at most 1"),
    ("engine.faults.slow_nodes", -1, "engine.faults.slow_nodes=-1 is below zero",
     "use engine.faults.slow_nodes=0"),
    ("engine.faults.slow_factor", 0.0, "engine.faults.slow_factor=0.0 is no share above 0",
     "a number above 0 and up to 1, for example engine.faults.slow_factor=0.25"),
    ("engine.faults.lost_nodes", 11, "engine.faults.slow_nodes=0 + lost_nodes=11 + "
     "restarted_nodes=0 = 11 are more than nodes=10", "use fewer of them or nodes=11"),
    ("engine.faults.lost_at", "soon", "engine.faults.lost_at: 'soon' is not a duration; write it "
     "like 90s, 3m or 1h30m", "for example engine.faults.lost_at=10m"),
    ("engine.faults.restarted_at", "-1s", "engine.faults.restarted_at=-1s is below zero",
     "for example engine.faults.restarted_at=10m"),
    ("engine.faults.event_loss_share", float("nan"),
     "engine.faults.event_loss_share=nan is no share", "give a number from 0 to 1"),
    ("engine.faults.brown_outs", [{"begin": "2m", "end": "2m", "egress_share": 0.0}],
     "engine.faults.brown_outs[0].end=2m is not after its begin=2m",
     "moments of the trial, for example {begin: 90s, end: 2m, egress_share: 0.1}"),
    ("engine.faults.brown_outs", [{"begin": "1m", "end": "2m", "egress_share": 0.0},
     {"begin": "90s", "end": "3m", "egress_share": 0.0}],
     "engine.faults.brown_outs[1].begin=1m30s is before the end of the one above",
     "list brown-outs in order, none within another"),
    ("engine.faults.brown_outs", [{"begin": "1m", "end": "2m", "egress_share": 2.0}],
     "engine.faults.brown_outs[0].egress_share=2.0 is no share", "give a number from 0 to 1"),
    ("engine.faults.brown_outs", [{"begin": "1m", "egress_share": 0.0}],
     "engine.faults.brown_outs[0].end has no value",
     "give one: engine.faults.brown_outs[0].end=VALUE"),
    ("engine.held.snapshots", -1, "engine.held.snapshots=-1 is below zero",
     "use engine.held.snapshots=0"),
    ("engine.held.blobs", 11, "engine.held.snapshots=0 + blobs=11 are more than the image's 10 "
     "layers", "use fewer, or engine.held.images=true for the whole image"),
    ("engine.held.nodes_share", -0.1, "engine.held.nodes_share=-0.1 is no share",
     "give a number from 0 to 1"),
    ("engine.images", {"reg.io/x": [ANY_LAYER]},
     "engine.images: 'reg.io/x' is not registry/repository:tag",
     "name it as the pods do, with its tag, and its digest if they give one"),
    ("engine.images", {"reg.io/x:1": []}, "engine.images.reg.io/x:1 has no layers",
     "give it a table like image.layers"),
    ("engine.images", {"reg.io/x:1": [{**ANY_LAYER, "unpacked_bytes": "big"}]},
     "engine.images.reg.io/x:1[0].unpacked_bytes: 'big' is not a size; write it like 15GB, 512MiB "
     "or 4096", "edit engine.images.reg.io/x:1[0].unpacked_bytes"),
    ("engine.images", {"example.azurecr.io/pytorch:large": [ANY_LAYER]},
     "engine.images: 'example.azurecr.io/pytorch:large' is the image of the group image",
     "leave it out there: image.layers says what it is made of"),
    ("engine.images", {"reg.io/x:1": [{**ANY_LAYER, "digest": "a"}],
     "reg.io/y:1": [{**ANY_LAYER, "digest": "a", "compression": "zstd"}]},
     "two layers have digest 'a', but not the same sizes and compression",
     "give each content a digest of its own, or layers[].digest=null"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "message", "hint"), REFUSED)
def test_what_cannot_be_is_refused_with_its_value_and_the_fix(
    changed: Changed, key: str, value: Any, message: str, hint: str
) -> None:
    error = refusal(changed({key: value}))
    assert (error.message, error.hint) == (message, hint)


def test_a_fetch_buffer_too_small_to_count_is_refused(changed: Changed) -> None:
    newer, key = {"cluster.containerd_version": "2.1.0"}, "concurrent_layer_fetch_buffer"
    assert jobs.job_from(changed(newer | {f"cluster.containerd.{key}": 512}))
    error = refusal(changed(newer | {f"cluster.containerd.{key}": 511}))
    assert error.message == f"cluster.containerd.{key}=511 is below 512 bytes"


@pytest.mark.parametrize(
    ("key", "value", "before", "since"),
    [("max_concurrent_unpacks", 2, "2.1.9", "2.2.0"),
     ("concurrent_layer_fetch_buffer", 512, "2.0.5", "2.1.0-beta.0")],
)  # fmt: skip
def test_a_setting_of_containerd_is_taken_from_the_release_that_brought_it(
    changed: Changed, key: str, value: int, before: str, since: str
) -> None:
    told = {f"cluster.containerd.{key}": value}
    assert jobs.job_from(changed(told | {"cluster.containerd_version": since}))
    assert before in refusal(changed(told | {"cluster.containerd_version": before})).message


def test_faults_may_take_every_node_and_every_pull(changed: Changed) -> None:
    nodes = {"slow_nodes": 4, "lost_nodes": 3, "restarted_nodes": 3}
    told = {f"engine.faults.{key}": value for key, value in nodes.items()}
    shares = {"network": 0.7, "auth": 0.1, "not_found": 0.2}
    assert jobs.job_from(changed(told | {"engine.faults.pull_shares": shares}))
    assert (
        "restarted_nodes=4 = 11 are more than nodes=10"
        in refusal(changed(told | {"engine.faults.restarted_nodes": 4})).message
    )


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
    changed: Changed, toleration: dict[str, str], message: str
) -> None:
    error = refusal(changed({"cluster.tolerations": [{"key": "ok"}, toleration]}))
    assert error.message == f"cluster.tolerations[1].{message}"
    assert error.hint


def test_a_toleration_of_everything_needs_no_key(changed: Changed) -> None:
    values = changed({"cluster.tolerations": [{"key": "", "operator": "Exists"}]})
    assert jobs.job_from(values).cluster.tolerations[0].key == ""


def test_parallel_pulls_cannot_be_asked_of_a_serial_kubelet(changed: Changed) -> None:
    parallel = {"cluster.kubelet.maxParallelImagePulls": 3}
    assert jobs.job_from(changed(parallel))
    error = refusal(changed(parallel | {"cluster.kubelet.serializeImagePulls": True}))
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
    changed: Changed, reference: str
) -> None:
    error = refusal(changed({"image.reference": reference}))
    assert error.message == f"image.reference '{reference}' is not registry/repository:tag"
    assert "image.reference=myregistry.azurecr.io/pytorch:2.3" in error.hint


@pytest.mark.parametrize("reference", GOOD_REFERENCES)
def test_an_image_reference_that_registries_take_is_taken(changed: Changed, reference: str) -> None:
    assert jobs.job_from(changed({"image.reference": reference})).image.reference == reference


def test_pods_name_their_image_by_digest_when_one_is_given(changed: Changed) -> None:
    values = changed({"image.digest": "sha256:" + "0" * 64})
    image = jobs.job_from(values).image
    assert image.pinned_reference == f"{image.reference}@sha256:{'0' * 64}"


UNKNOWN = [
    ("deployment", "deployments"), ("image.layer", "image.layers"), ("cluster.node.cpus",
     "cluster.node.vcpus"), ("cluster.kubelet.maxParallelPulls",
     "cluster.kubelet.maxParallelImagePulls"), ("tracking.url", "tracking.uri"),
    ("engine.rate", "engine.rates"), ("engine.faults.slow_node", "engine.faults.slow_nodes"),
    ("engine.faults.pull_shares.notfound", "engine.faults.pull_shares.not_found"),
    ("engine.held.snapshot", "engine.held.snapshots"), ("cluster.registry.request_burst",
     "cluster.registry.requests_burst"), ("cluster.zone", "cluster.zones"),
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


def test_an_unknown_key_of_a_layer_is_refused(changed: Changed) -> None:
    error = refusal(changed({"image.layers[1].unpacked_byte": "1GB"}))
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
def test_a_wrong_type_is_refused_with_its_key(changed: Changed, key: str, value: Any) -> None:
    error = refusal(changed({key: value}))
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


@pytest.mark.parametrize("key", ["nic_mbit_s", "disk_write_mb_s"])
def test_a_machine_of_unknown_rates_can_be_measured_and_not_simulated(
    changed: Changed, key: str
) -> None:
    unknown = changed({f"cluster.node.{key}": None})
    with pytest.raises(ConfigError, match=rf"cluster\.node\.{key} is not known, and engine=sim"):
        jobs.job_from(unknown)
    measured = jobs.job_from(unknown | {"engine": {"kind": "binary"}})
    assert getattr(measured.cluster.node, key) is None
    assert jobs.fastest_pull_s(measured) is not None  # by the other rate


def test_no_pull_is_called_fastest_where_no_rate_is_known(changed: Changed) -> None:
    rates = {f"cluster.node.{key}": None for key in ("nic_mbit_s", "disk_write_mb_s")}
    assert jobs.fastest_pull_s(
        jobs.job_from(changed(rates) | {"engine": {"kind": "binary"}})
    ) is None  # fmt: skip


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
        "engine.rates.controller_burst=1 engine.rates.controller_pods_s=5",
    ],
)
def test_no_note_where_kubelet_rejects_nothing(job: MakeJob, remedy: str) -> None:
    assert jobs.notes(job(*CROWD, *remedy.split())) == ()


def test_the_note_on_kubelet_s_tokens_speaks_of_the_simulated_controller(job: MakeJob) -> None:
    many = (*CROWD[:2], "deployments=60", "qps=100")
    assert "60 pods a node within 2 s" in str(jobs.notes(job(*many)))
    slower = job(*many, "engine.rates.controller_pods_s=10", "engine.rates.controller_burst=10")
    assert "60 pods a node within 5 s" in str(jobs.notes(slower))
    real = replace(slower, engine=schema.ReplayEngine(report="somewhere"))
    assert "60 pods a node within 2 s" in str(jobs.notes(real))


def test_a_disk_that_bursts_is_not_called_too_slow(job: MakeJob) -> None:
    slow = ("image=vllm", "cluster.node.disk_write_mb_s=50")
    assert jobs.notes(job(*slow))
    assert jobs.notes(job(*slow, "cluster.node.disk_burst_mb_s=100")) == ()


def test_every_engine_s_keys_are_in_its_schema() -> None:
    for kind, engine in schema.ENGINES.items():
        assert engine.kind == kind


def real(changed: Changed, **keys: Any) -> dict[str, Any]:
    """The default configuration with an engine that runs a real ClusterLoader2."""
    return changed({}) | {"engine": {"kind": "binary", **keys}}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("containerd_port", 0, "engine.containerd_port=0 is no port"),
        ("settle", "soon", "engine.settle"),
        ("wait_for_cluster", "-1s", "engine.wait_for_cluster=-1s is below zero"),
        ("kubeconfg", "x", "unknown key 'engine.kubeconfg'"),
    ],
)
def test_a_real_engine_s_keys_are_checked(
    changed: Changed, key: str, value: Any, told: str
) -> None:
    jobs.job_from(real(changed))
    assert told in refusal(real(changed, **{key: value})).message


def test_a_real_engine_needs_a_provider_that_clusterloader2_knows(changed: Changed) -> None:
    values = real(changed)
    values["cluster"]["provider"] = "azure"
    error = refusal(values)
    assert "cluster.provider=azure" in error.message
    assert "aks" in error.hint


def test_a_limit_that_a_healthy_trial_would_hit_is_refused(changed: Changed) -> None:
    values = real(changed) | {"trial_limit": "15m"}
    assert "trial_limit=15m is shorter than the waits" in refusal(values).message
    jobs.job_from(values | {"trial_limit": "17m"})


def test_only_the_simulator_needs_unpacked_sizes(changed: Changed) -> None:
    values = real(changed)
    del values["image"]["layers"][0]["unpacked_bytes"]
    image = jobs.job_from(values).image
    assert image.unpacked_bytes is None
    assert image.compressed_bytes is not None
    with pytest.raises(ConfigError, match=r"unpacked_bytes of .* is not known"):
        engines.build(jobs.job_from(values | {"engine": changed({})["engine"]})).check()
