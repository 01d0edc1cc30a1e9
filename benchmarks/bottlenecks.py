"""How often a bottleneck call is right on simulated cells whose bottleneck is known.

    python benchmarks/bottlenecks.py [--cells N] [--seed N]

Hides how the truth is known: each limit of a cell is doubled by itself, and what then saves most of
the time from asking to running is the bottleneck. Cells are drawn at random, with a lean towards
one limit each; one whose first limit does not save a quarter more than its second has no known
bottleneck and is drawn again. Ties are made: a second limit is moved until both are alike within
5 %. The calls are made from files alone, as on any sweep; the truth never reaches them. Nothing
here says anything of real clusters.
"""

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from imgpull import engines, render, results  # noqa: E402
from imgpull.analysis import bottleneck  # noqa: E402
from imgpull.config import job as jobs  # noqa: E402
from imgpull.config import schema  # noqa: E402
from imgpull.config.job import Job  # noqa: E402
from imgpull.engines.sim import _world  # noqa: E402
from imgpull.results.record import JobRecord, write_record  # noqa: E402
from imgpull.simcluster import PodRequest, World, simulate  # noqa: E402

Values = dict[str, Any]
TRUE_LIMITS = bottleneck.LIMITS[:-1]
CLEAR = 1.25  # the first limit saves so much more than the second
LEAST_SAVING = 0.1  # of the time
TIE = 0.05


@dataclass(frozen=True)
class Cell:
    """A cell and what is known of it."""

    changes: Mapping[str, Any]
    truth: frozenset[str]  # one limit, or the two of a tie


def base() -> Values:
    """The standard test's configuration."""
    from hydra import compose, initialize_config_dir

    schema.register()
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        return jobs.resolve(compose("config", overrides=["image=even_5gb_10"]))


def changed(values: Values, changes: Mapping[str, Any]) -> Values:
    """A copy of a configuration with some keys, by their dotted names, set."""
    copy = deepcopy(values)
    for key, value in changes.items():
        *path, last = key.split(".")
        place = copy
        for part in path:
            place = place[part]
        place[last] = value
    return copy


# What doubling one limit makes of a world.


def _twice(**limits: float | None) -> dict[str, float | None]:
    return {name: None if value is None else 2 * value for name, value in limits.items()}


def _doubled(world: World) -> Iterator[tuple[str, World]]:
    node, registry, kubelet, rates = world.node, world.registry, world.kubelet, world.rates
    node_disk = _twice(
        disk_write_bytes_s=node.disk_write_bytes_s, disk_burst_bytes_s=node.disk_burst_bytes_s
    )
    ways = ("egress_bytes_s", "connection_bytes_s", "zone_link_bytes_s")
    cores = ("gzip_unpack_bytes_s", "zstd_unpack_bytes_s", "plain_unpack_bytes_s")
    control = ("scheduler_pods_s", "scheduler_burst", "controller_pods_s", "controller_burst")
    parallel = 1 if kubelet.serialize_image_pulls else kubelet.max_parallel_image_pulls
    yield "nic", replace(world, node=replace(node, nic_bytes_s=2 * node.nic_bytes_s))
    yield "disk", replace(world, node=replace(node, **node_disk))
    yield (
        "registry",
        replace(
            world, registry=replace(registry, **_twice(**{k: getattr(registry, k) for k in ways}))
        ),
    )
    yield (
        "unpack",
        replace(world, rates=replace(rates, **_twice(**{k: getattr(rates, k) for k in cores}))),
    )
    yield (
        "control_plane",
        replace(world, rates=replace(rates, **_twice(**{k: getattr(rates, k) for k in control}))),
    )
    yield (
        "kubelet_queue",
        replace(
            world,
            kubelet=replace(
                kubelet,
                serialize_image_pulls=False,
                max_parallel_image_pulls=None if parallel is None else 2 * parallel,
            ),
        ),
    )
    shares = {kind: share / 2 for kind, share in world.faults.pull_shares.items()}
    yield (
        "throttled",
        replace(
            world,
            registry=replace(registry, **_twice(requests_s=registry.requests_s)),
            kubelet=replace(kubelet, registry_pull_qps=2 * kubelet.registry_pull_qps),
            faults=replace(world.faults, pull_shares=shares),
        ),
    )


def savings(job: Job) -> dict[str, float]:
    """What doubling each limit saves, as a share of all pods' time from asking to running."""
    world = _world(job)
    asked = [
        PodRequest(
            index=index,
            namespace="ns",
            name=f"p{index}",
            owner=f"ns/d{index // job.replicas}",
            owner_created_s=index // job.replicas / job.qps,
            image=job.image.pinned_reference,
        )
        for index in range(job.pods)
    ]

    def spent_s(played: World) -> float:
        pods = simulate(played, asked, until_s=job.wait_timeout_s).pods
        return sum(
            (job.wait_timeout_s if pod.started_s is None else pod.started_s)
            - pod.request.owner_created_s
            for pod in pods
        )

    now_s = spent_s(world)
    return {limit: 1 - spent_s(other) / now_s for limit, other in _doubled(world)}


# Cells


def _near(draw: random.Random, middle: float, spread: float = 2.0) -> float:
    """Log-uniform around a value."""
    return middle * spread ** draw.uniform(-1, 1)


def _plain(draw: random.Random) -> Values:
    """A cell of no particular limit."""
    layers = draw.choice([1, 2, 5, 10, 20])
    packed = _near(draw, 1e9, 3)
    ratio = draw.uniform(1.8, 3.0)
    sizes = [draw.choice([1.0, draw.uniform(0.1, 2.0)]) for _ in range(layers)]
    return {
        "image.layers": [
            {
                "compressed_bytes": f"{round(packed * size / sum(sizes))}",
                "unpacked_bytes": f"{round(packed * size / sum(sizes) * ratio)}",
                "compression": draw.choice(["gzip", "gzip", "zstd"]),
                "digest": None,
            }
            for size in sizes
        ],
        "nodes": (nodes := draw.choice([1, 3, 10])),
        "deployments": nodes * draw.choice([1, 1, 2]),
        "replicas": draw.choice([1, 1, 2, 3]),
        "qps": draw.choice([5.0, 10.0, 20.0]),
        "seed": draw.randrange(1000),
        "cluster.node.nic_mbit_s": _near(draw, 6000),
        "cluster.node.disk_write_mb_s": _near(draw, 800),
        "cluster.node.vcpus": draw.choice([2, 4, 16]),
        "cluster.node.memory_gib": draw.choice([8, 16, 64]),
        "cluster.registry.egress_mbit_s": _near(draw, 40000),
        "cluster.registry.connection_mb_s": _near(draw, 200),
        "cluster.containerd_version": (version := draw.choice(["1.7.34", "2.1.9", "2.2.1"])),
        "cluster.containerd.max_concurrent_downloads": draw.choice([3, 3, 10]),
        "cluster.containerd.max_concurrent_unpacks": draw.choice([1, 4]) if version > "2.2" else 1,
    }


def _small(draw: random.Random) -> Values:
    """A small image, so that what is not its bytes weighs."""
    return {
        "image.layers": [
            {"compressed_bytes": f"{round(_near(draw, 2e7))}", "compression": "gzip",
             "unpacked_bytes": f"{round(_near(draw, 5e7))}", "digest": None}
            for _ in range(draw.choice([1, 4]))
        ]
    }  # fmt: skip


def _nic(draw: random.Random) -> Values:
    return {"cluster.node.nic_mbit_s": _near(draw, 250)}


def _disk(draw: random.Random) -> Values:
    return {"cluster.node.disk_write_mb_s": _near(draw, 40), "cluster.node.memory_gib": 8}


def _registry(draw: random.Random) -> Values:
    way = draw.choice(["egress", "connection", "zone"])
    if way == "connection":
        return {"cluster.registry.connection_mb_s": _near(draw, 12)}
    nodes = draw.choice([3, 10, 20])
    made = {"nodes": nodes, "deployments": nodes}
    if way == "egress":
        return made | {"cluster.registry.egress_mbit_s": nodes * _near(draw, 250)}
    zones = draw.choice([1, 2])
    link = nodes / zones * _near(draw, 250)
    return made | {"cluster.zones": zones, "cluster.registry.zone_link_mbit_s": link}


def _unpack(draw: random.Random) -> Values:
    return {"cluster.node.disk_write_mb_s": _near(draw, 600, 4)}


def _kubelet_queue(draw: random.Random) -> Values:
    serial = draw.random() < 0.5
    return _small(draw) | {
        "nodes": (nodes := draw.choice([1, 2, 3])),
        "deployments": nodes,
        "replicas": draw.choice([20, 40]),
        "engine.rates.controller_pods_s": 200.0,
        "engine.rates.controller_burst": 500,
        "engine.rates.scheduler_pods_s": 500.0,
        "cluster.kubelet.serializeImagePulls": serial,
        "cluster.kubelet.maxParallelImagePulls": None if serial else draw.choice([1, 2]),
        "cluster.kubelet.registryPullQPS": 100.0,
        "cluster.kubelet.registryBurst": 200,
        "engine.rates.resolve_s": _near(draw, 1.0),
    }


def _control_plane(draw: random.Random) -> Values:
    nodes = draw.choice([5, 10, 20])
    return _small(draw) | {
        "nodes": nodes,
        "deployments": nodes * draw.choice([5, 10, 20]),
        "qps": draw.choice([50.0, 100.0]),
        "engine.rates.controller_pods_s": _near(draw, 12),
        "cluster.kubelet.registryPullQPS": 100.0,
        "cluster.kubelet.registryBurst": 200,
    }


def _throttled(draw: random.Random) -> Values:
    if draw.random() < 0.5:
        # The registry gives a few pulls' requests a minute.
        return _small(draw) | {
            "nodes": (nodes := draw.choice([10, 20])),
            "deployments": nodes,
            "replicas": 1,
            "cluster.registry.requests_per_minute": _near(draw, 120),
            "cluster.registry.requests_burst": draw.choice([10, 20]),
        }
    return _small(draw) | {
        "nodes": (nodes := draw.choice([2, 4])),
        "deployments": nodes,
        "replicas": draw.choice([20, 40]),
        "engine.rates.controller_pods_s": 200.0,
        "engine.rates.controller_burst": 500,
        "engine.rates.scheduler_pods_s": 500.0,
        "engine.rates.resolve_s": _near(draw, 1.0),
        "cluster.kubelet.registryPullQPS": _near(draw, 0.3),
        "cluster.kubelet.registryBurst": 3,
    }


LEANS: Mapping[str, Callable[[random.Random], Values]] = {
    "registry": _registry,
    "nic": _nic,
    "disk": _disk,
    "unpack": _unpack,
    "kubelet_queue": _kubelet_queue,
    "control_plane": _control_plane,
    "throttled": _throttled,
}


def clear_cells(values: Values, count: int, seed: int) -> Iterator[Cell]:
    """Cells whose bottleneck is known, about as many of each limit."""
    draw = random.Random(f"clear/{seed}")
    wanted = {limit: -(-count // len(LEANS)) for limit in LEANS}
    made = 0
    while made < count:
        limit = next(name for name, left in wanted.items() if left)
        changes = _plain(draw) | LEANS[limit](draw)
        saved = savings(jobs.job_from(changed(values, changes)))
        first, second = sorted(saved, key=lambda name: saved[name], reverse=True)[:2]
        clear = saved[first] >= max(CLEAR * saved[second], LEAST_SAVING)
        if clear and wanted[first]:
            wanted[first] -= 1
            made += 1
            yield Cell(changes, frozenset({first}))


def ties(values: Values, count: int, seed: int) -> Iterator[Cell]:
    """Cells with two limits that are alike within 5 %."""
    draw = random.Random(f"tie/{seed}")
    makers = (_tied_links, _tied_stages)
    made = 0
    while made < count:
        cell = makers[made % len(makers)](values, draw)
        if cell is not None:
            made += 1
            yield cell


def _tied_links(values: Values, draw: random.Random) -> Cell:
    """The nodes' NICs together give what the registry gives, within 5 %."""
    changes = _plain(draw) | _nic(draw)
    nodes = changes["nodes"]
    total = nodes * changes["cluster.node.nic_mbit_s"] * (1 + draw.uniform(-TIE, TIE))
    key = draw.choice(["cluster.registry.egress_mbit_s", "cluster.registry.zone_link_mbit_s"])
    return Cell(changes | {key: total}, frozenset({"nic", "registry"}))


def _tied_stages(values: Values, draw: random.Random) -> Cell | None:
    """A limit moved until doubling it saves what doubling the other saves, within 5 %."""
    key, limit = draw.choice(
        [
            ("cluster.node.nic_mbit_s", "nic"),
            ("cluster.registry.connection_mb_s", "registry"),
            ("cluster.node.disk_write_mb_s", "disk"),
        ]
    )
    changes = _plain(draw)
    low, high = 0.02 * changes[key], 20 * changes[key]
    for _ in range(14):
        middle = (low * high) ** 0.5
        saved = savings(jobs.job_from(changed(values, changes | {key: middle})))
        other = max((name for name in saved if name != limit), key=lambda name: saved[name])
        if saved[limit] >= LEAST_SAVING and abs(saved[other] / saved[limit] - 1) <= TIE:
            return Cell(changes | {key: middle}, frozenset({limit, other}))
        low, high = (middle, high) if saved[limit] > saved[other] else (low, middle)
    return None


# Calls


def run_cell(values: Values, cell: Cell, directory: Path) -> bottleneck.Call:
    """Run one trial of the cell as a sweep of its own, and call it from its files."""
    config = changed(values, cell.changes)
    job = jobs.job_from(config)
    place = directory / "0"
    place.mkdir(parents=True)
    engine = engines.build(job)
    bundle = render.write(render.render(job), place / "bundle")
    outcome = engine.run(bundle, place, lambda step: None)
    found = results.assess(place, engine.subject, outcome)
    text = yaml.safe_dump(json.loads(json.dumps(config)))
    (place / "config.resolved.yaml").write_text(text, "utf-8")
    write_record(place, _record(found.verdict, found.reasons))
    (call,) = bottleneck.calls(directory)
    return call


def _record(verdict: str, reasons: tuple[str, ...]) -> JobRecord:
    return JobRecord(
        cell_id="c", trial_id="c-1", attempt=1, trial=1, block=1, position=1, name="cell",
        factors={}, engine="sim", measured_by="", started_at=None, wall_s=0.0, virtual_s=None,
        verdict=verdict, reasons=reasons, slo="unknown", error=None, fingerprint={}, versions={},
        digests={}, seed=0, bundle_sha256=None, config_sha256="", git={}, host={},
    )  # fmt: skip


@dataclass(frozen=True)
class Score:
    """One cell's truth beside its call."""

    cell: Cell
    call: bottleneck.Call

    @property
    def right(self) -> bool:
        return self.call.limit in self.cell.truth

    @property
    def confidently_wrong(self) -> bool:
        """Sure of another limit; on a tie sure of one, without naming the other."""
        named = {self.call.limit, *self.call.also}
        return self.call.sure and not self.cell.truth <= named


def score(values: Values, cells: Iterator[Cell]) -> list[Score]:
    """Run and call each cell."""
    found = []
    for cell in cells:
        with tempfile.TemporaryDirectory(prefix="imgpull-") as directory:
            found.append(Score(cell, run_cell(values, cell, Path(directory))))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=210)
    parser.add_argument("--ties", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wrong", action="store_true", help="print each wrong call")
    asked = parser.parse_args()
    values = base()
    clear = score(values, clear_cells(values, asked.cells, asked.seed))
    tied = score(values, ties(values, asked.ties, asked.seed))
    print(f"{'truth':<15}{'cells':>6}{'right':>6}{'sure':>6}  called instead")
    for limit in TRUE_LIMITS:
        own = [each for each in clear if limit in each.cell.truth]
        wrong = Counter(each.call.limit for each in own if not each.right)
        sure = sum(each.call.sure for each in own)
        instead = ", ".join(f"{count} {name}" for name, count in wrong.items())
        print(f"{limit:<15}{len(own):>6}{sum(s.right for s in own):>6}{sure:>6}  {instead}")
    right = sum(each.right for each in clear)
    print(f"right: {right} of {len(clear)} ({right / len(clear):.1%})")
    print(f"confidently wrong: {sum(each.confidently_wrong for each in clear)} of {len(clear)}")
    print(
        f"two limits within 5 %: {sum(each.confidently_wrong for each in tied)} of {len(tied)} "
        f"called as one, {sum(each.right for each in tied)} named one of the two"
    )
    if asked.wrong:
        for each in (*clear, *tied):
            if each.confidently_wrong or not each.right:
                print(sorted(each.cell.truth), each.call, dict(each.cell.changes), sep="\n  ")


if __name__ == "__main__":
    main()
