"""How fast the simulator is: physics alone, and a whole trial from bundle to report, by size.

Hides the worlds that are timed. `python benchmarks/simulator.py` prints the tables; each figure is
the median of five runs in processes of their own, so that peak memory is one run's.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "benchmarks")]
COUNT = True
RUNS = 5
LAYERS, PODS_A_NODE = 20, 5
SIZES = (10, 100, 1_000, 10_000)
# The registry gives each node a share that is less than its NIC, disk or connections allow for a
# while and more later on: all three limits are at work in one trial.
EGRESS_A_NODE_BYTES_S = 60e6


def physics(nodes: int) -> dict[str, float]:
    """Time `simulate` alone: every pod created at once, so that all nodes pull together."""
    from published import IMAGE, MB, quiet_rates

    from imgpull.simcluster import (
        Containerd,
        Kubelet,
        Layer,
        Node,
        PodRequest,
        Registry,
        World,
        physics,
        simulate,
    )  # fmt: skip

    spread = {"event_jitter_sigma": 0.2, "node_spread_sigma": 0.04, "trial_spread_sigma": 0.05}
    world = World(
        node_names=tuple(f"node-{index}" for index in range(nodes)),
        node=Node(4, 16 * 2**30, 2e9 / 8, 250.0 * MB, 110),
        registry=Registry(EGRESS_A_NODE_BYTES_S * nodes, 100.0 * MB, 0.04),
        kubelet=Kubelet("1.34"),
        containerd=Containerd("1.7.34"),
        rates=replace(
            quiet_rates(),
            controller_pods_s=1e4,
            scheduler_pods_s=1e4,
            **spread,  # type: ignore[arg-type]
        ),
        images={
            IMAGE: tuple(
                Layer(f"layer-{nth}", (20 + 20 * nth) * MB, (45 + 45 * nth) * MB)
                for nth in range(LAYERS)
            )
        },
        seed=0,
        trial=1,
    )
    pods = [
        PodRequest(index, "ns", f"pod-{index}", f"owner-{index}", 0.0, IMAGE, spread="all")
        for index in range(nodes * PODS_A_NODE)
    ]
    events = 0
    plan = physics.Play.at

    def counted(*arguments: object) -> None:
        nonlocal events
        events += 1
        plan(*arguments)  # type: ignore[arg-type]

    begun_s = time.perf_counter()
    trace = simulate(world, pods)
    seconds = time.perf_counter() - begun_s
    peak_mib = peak_memory_mib()
    if 0 < nodes <= 1_000 and COUNT:
        physics.Play.at = counted  # type: ignore[method-assign]
        simulate(world, pods)
        events += nodes * LAYERS  # the ends of downloads, which the network keeps
    assert all(pod.ready_s is not None for pod in trace.pods)
    return {"seconds": seconds, "events": events, "peak_mib": peak_mib}


def trial(nodes: int) -> dict[str, float]:
    """Time a trial of the standard test, a pod a node: bundle in, report and files out."""
    from hydra import compose, initialize_config_dir

    from imgpull import engines, render
    from imgpull.config import job as jobs
    from imgpull.config import schema

    schema.register()
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        config = compose("config", [f"nodes={nodes}", f"deployments={nodes}", "qps=100"])
    job = jobs.job_from(jobs.resolve(config))
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        files = render.render(job)
        bundle = render.write(files, out / "bundle")
        engine = engines.build(job)
        engine.check()
        begun_s = time.perf_counter()
        engine.validate(files)
        engine.run(bundle, out, lambda step: None)
        seconds = time.perf_counter() - begun_s
    return {"seconds": seconds, "peak_mib": peak_memory_mib()}


def peak_memory_mib() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def medians(what: str, nodes: int) -> dict[str, float]:
    """Median figures of RUNS runs, each in a process of its own."""
    runs = []
    for _ in range(RUNS):
        command = [sys.executable, __file__, what, str(nodes)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
    return {key: median(run[key] for run in runs) for key in runs[0]}


def main() -> None:
    """Print both tables."""
    console = Console(highlight=False, width=100)
    table = Table(title=f"Physics alone, {PODS_A_NODE} pods a node, {LAYERS} layers")
    for column in ("nodes", "pods", "events", "peak MiB", "seconds"):
        table.add_column(column, justify="right")
    seconds = {}
    for nodes in SIZES:
        found = medians("physics", nodes)
        seconds[nodes] = found["seconds"]
        events = f"{found['events']:,.0f}" if found["events"] else "not counted"
        table.add_row(
            f"{nodes:,}", f"{nodes * PODS_A_NODE:,}", events, f"{found['peak_mib']:.0f}",
            f"{found['seconds']:.3f}",
        )  # fmt: skip
    console.print(table)
    low, high = SIZES[1], SIZES[-1]
    exponent = math.log(seconds[high] / seconds[low]) / math.log(high / low)
    console.print(f"cost grows with nodes to the power {exponent:.2f} ({low:,} to {high:,} nodes)")
    table = Table(title="A trial from bundle to report, a pod a node")
    for column in ("nodes", "peak MiB", "seconds"):
        table.add_column(column, justify="right")
    for nodes in SIZES[:3]:
        found = medians("trial", nodes)
        table.add_row(f"{nodes:,}", f"{found['peak_mib']:.0f}", f"{found['seconds']:.2f}")
    console.print(table)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure = {"physics": physics, "trial": trial}[sys.argv[1]]
        print(json.dumps(measure(int(sys.argv[2]))))
    else:
        main()
