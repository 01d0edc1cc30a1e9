"""Laws of the way into the simulator: every key arrives, in seconds and bytes, or is refused."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from imgpull.config import job as jobs
from imgpull.config import schema
from imgpull.engines.sim import SimEngine, _world
from imgpull.errors import ConfigError
from imgpull.simcluster import model

Compose = Callable[..., dict[str, Any]]
Changed = Callable[[dict[str, Any]], dict[str, Any]]
MakeJob = Callable[..., jobs.Job]

BASE = {"compressed_bytes": "30MB", "unpacked_bytes": "78MB", "digest": "base"}

# key, value, where in the World, what it is there
ARRIVES: list[tuple[str, Any, str, Any]] = [
    ("cluster.node.disk_burst_mb_s", 1200.0, "node.disk_burst_bytes_s", 1.2e9),
    ("cluster.zones", 3, "registry.zones", 3),
    ("cluster.registry.requests_per_minute", 600.0, "registry.requests_s", 10),
    ("cluster.registry.requests_burst", 7, "registry.requests_burst", 7),
    ("cluster.registry.zone_link_mbit_s", 8000.0, "registry.zone_link_bytes_s", 1e9),
    ("cluster.containerd.image_pull_progress_timeout", "90s",
     "containerd.image_pull_progress_timeout_s", 90),
    ("cluster.containerd.image_pull_progress_timeout", "0s",
     "containerd.image_pull_progress_timeout_s", math.inf),
    ("engine.faults.slow_nodes", 2, "faults.slow_nodes", 2),
    ("engine.faults.slow_factor", 0.5, "faults.slow_factor", 0.5),
    ("engine.faults.lost_nodes", 2, "faults.lost_nodes", 2),
    ("engine.faults.lost_at", "1m30s", "faults.lost_s", 90),
    ("engine.faults.restarted_nodes", 2, "faults.restarted_nodes", 2),
    ("engine.faults.restarted_at", "0s", "faults.restarted_s", 0),
    ("engine.faults.restart_takes", "500ms", "faults.restart_takes_s", 0.5),
    ("engine.faults.event_loss_share", 0.2, "faults.event_loss_share", 0.2),
    ("engine.faults.brown_outs", [{"begin": "90s", "end": "2m", "egress_share": 0.1}],
     "faults.brown_outs", (model.BrownOut(90, 120, 0.1),)),
    ("image.layers[0].digest", "base", "image[0].digest", "base"),
]  # fmt: skip


def found(world: model.World, path: str, reference: str) -> Any:
    """What stands at a dotted path of the World; image[N] is a layer of the job's image."""
    if path.startswith("image["):
        layer, name = path.removeprefix("image[").split("].")
        return getattr(world.images[reference][int(layer)], name)
    place: Any = world
    for part in path.split("."):
        place = getattr(place, part)
    return place


@pytest.mark.parametrize(("key", "value", "path", "expected"), ARRIVES)
def test_a_key_reaches_the_world(
    changed: Changed, key: str, value: Any, path: str, expected: Any
) -> None:
    plain, told = jobs.job_from(changed({})), jobs.job_from(changed({key: value}))
    reference = plain.image.pinned_reference
    assert found(_world(told), path, reference) == expected
    assert found(_world(plain), path, reference) != expected


def test_a_disk_bursts_as_long_as_its_credits_last(changed: Changed) -> None:
    burst = {"cluster.node.disk_burst_mb_s": 1200.0, "cluster.node.disk_burst_minutes": 10.0}
    assert _world(jobs.job_from(changed(burst))).node.disk_burst_s == 600
    assert _world(jobs.job_from(changed({}))).node.disk_burst_s == 0, "no burst, no credits"


@pytest.mark.parametrize("fault", model.PULL_FAULTS)
def test_each_fault_of_a_pull_reaches_the_world(changed: Changed, fault: str) -> None:
    told = jobs.job_from(changed({f"engine.faults.pull_shares.{fault}": 0.3}))
    assert _world(told).faults.pull_shares == {fault: 0.3}


def test_the_faults_of_a_pull_are_those_that_the_simulator_knows() -> None:
    assert tuple(item.name for item in fields(schema.PullShares)) == model.PULL_FAULTS


def test_a_newer_containerd_s_settings_reach_the_world(changed: Changed) -> None:
    told = _world(jobs.job_from(changed({
        "cluster.containerd_version": "2.2.0",
        "cluster.containerd.max_concurrent_unpacks": 4,
        "cluster.containerd.concurrent_layer_fetch_buffer": 8388608,
    }))).containerd  # fmt: skip
    assert (told.max_concurrent_unpacks, told.concurrent_layer_fetch_buffer) == (4, 8388608)


def test_containerd_before_1_7_watches_no_progress(changed: Changed) -> None:
    old = jobs.job_from(changed({"cluster.containerd_version": "1.6.39"}))
    assert _world(old).containerd.image_pull_progress_timeout_s == math.inf


def test_every_rate_of_the_file_reaches_the_world(job: MakeJob) -> None:
    plain = job()
    assert vars(_world(plain).rates) == plain.engine.rates


def test_by_default_nothing_goes_wrong_and_nothing_is_limited(job: MakeJob) -> None:
    world = _world(job())
    faults = world.faults
    assert (faults.pull_shares, faults.brown_outs, faults.event_loss_share) == ({}, (), 0)
    assert (faults.slow_nodes, faults.lost_nodes, faults.restarted_nodes) == (0, 0, 0)
    assert (world.registry.requests_s, world.registry.zone_link_bytes_s) == (None, math.inf)
    assert world.node.disk_burst_bytes_s is None


# What nodes hold


def test_a_cold_node_holds_nothing_and_a_warm_one_the_whole_image(job: MakeJob) -> None:
    assert _world(job()).held == model.Held()
    warm = _world(job("cache=warm"))
    ((reference, layers),) = warm.images.items()
    held = model.Held(frozenset(one.digest for one in layers), images=frozenset({reference}))
    assert warm.held == held


@pytest.mark.parametrize("cache", ["cold", "warm"])
def test_a_promise_of_the_cache_is_not_changed_by_what_nodes_are_told_to_hold(
    job: MakeJob, cache: str
) -> None:
    told = job(f"cache={cache}", "engine.held.snapshots=3", "engine.held.nodes_share=0.5")
    assert _world(told).held == _world(job(f"cache={cache}")).held
    said = f"engine.held says nothing with cache={cache}: it is for cache=as_is"
    assert said in jobs.notes(told)


def test_nodes_left_as_they_are_hold_the_first_layers_unpacked_and_the_next_ones_packed(
    job: MakeJob,
) -> None:
    assert _world(job("cache=as_is")).held == model.Held()
    told = job(
        "cache=as_is", "engine.held.snapshots=2", "engine.held.blobs=3",
        "engine.held.nodes_share=0.5",
    )  # fmt: skip
    world = _world(told)
    (layers,) = world.images.values()
    digests = [layer.digest for layer in layers]
    assert world.held == model.Held(
        frozenset(digests[:2]), frozenset(digests[2:5]), frozenset(), 0.5
    )
    assert not any("engine.held" in note for note in jobs.notes(told))


def test_nodes_left_as_they_are_can_hold_the_whole_image(job: MakeJob) -> None:
    whole = job("cache=as_is", "engine.held.images=true")
    assert _world(whole).held == _world(job("cache=warm")).held


# What the registry has


def test_the_registry_has_the_job_s_image_and_every_further_one(changed: Changed) -> None:
    plain = _world(jobs.job_from(changed({})))
    further = {"reg.io/other:1": [BASE, {**BASE, "digest": None}]}
    told = jobs.job_from(changed({"engine.images": further, "image.layers[0]": BASE}))
    images = _world(told).images
    assert list(images) == [*plain.images, "reg.io/other:1"]
    own, other = images.values()
    assert own[0] == other[0] == model.Layer("base", 30_000_000, 78_000_000, "gzip")
    assert other[1].digest == "reg.io/other:1#1"


def test_layers_without_a_digest_are_all_different(job: MakeJob) -> None:
    (layers,) = _world(job("image=even_5gb_10")).images.values()
    assert len({layer.digest for layer in layers}) == 10


def test_the_registry_knows_a_pinned_image_by_its_digest(changed: Changed) -> None:
    pinned = jobs.job_from(changed({"image.digest": f"sha256:{'0' * 64}"}))
    assert list(_world(pinned).images) == [f"{pinned.image.reference}@sha256:{'0' * 64}"]


# Refused

MAY_BE_ZERO = {
    "blob_commit_s", "layer_commit_s", "present_s", "event_jitter_sigma", "node_spread_sigma",
    "trial_spread_sigma",
}  # fmt: skip


def with_rate(plain: jobs.Job, name: str, value: float) -> SimEngine:
    """The engine of a job with one rate changed."""
    assert isinstance(plain.engine, schema.SimEngine)
    rates = {**plain.engine.rates, name: value}
    return SimEngine(replace(plain, engine=replace(plain.engine, rates=rates)))


@pytest.mark.parametrize("rate", [item.name for item in fields(model.Rates)])
def test_a_rate_that_no_cluster_has_is_refused(job: MakeJob, rate: str) -> None:
    with_rate(job(), rate, 1).check()
    for value in (-1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match=rf"engine\.rates\.{rate}={value} is .* zero"):
            with_rate(job(), rate, value).check()
    if rate in MAY_BE_ZERO:
        with_rate(job(), rate, 0.0).check()
        return
    with pytest.raises(ConfigError, match=rf"engine\.rates\.{rate}=0\.0 is not above zero"):
        with_rate(job(), rate, 0.0).check()


@pytest.mark.parametrize(
    ("rate", "value", "words"),
    [
        ("scheduler_burst", 0.5, "is no whole number"),
        ("controller_burst", 30.5, "is no whole number"),
        ("dirty_share", 1.5, "is no share: above 1"),
    ],
)
def test_a_rate_must_be_of_its_kind(job: MakeJob, rate: str, value: float, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_rate(job(), rate, value).check()
    assert caught.value.message == f"engine.rates.{rate}={value} {words}"
    assert caught.value.hint == "see conf/engine/sim.yaml"
