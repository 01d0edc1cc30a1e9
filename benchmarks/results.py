"""How long a trial's files of 10,000 pulls take to be read, judged and summarised.

    python benchmarks/results.py [--pods N]

Hides how so large a trial is made: as files, a row a pod, without simulating it. Each step is
timed by itself, in seconds of this process's CPU (other work on the machine is not in it), the
median of five; the loads of Python's modules are not in it.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from imgpull import cl2, pulls, tables  # noqa: E402
from imgpull.engines import Subject  # noqa: E402
from imgpull.results.flags import write_flags  # noqa: E402
from imgpull.results.measure import measurements  # noqa: E402
from imgpull.results.pull_rows import pull_rows  # noqa: E402
from imgpull.results.pulls_file import read_pulls, write_pulls  # noqa: E402
from imgpull.results.record import write_measurements  # noqa: E402
from imgpull.results.seen import read_events, read_pods, read_rates  # noqa: E402
from imgpull.results.verdict import judge  # noqa: E402

IMAGE, SIZE = "registry.example/image:1", 2_000_000_000
A_NODE = 10  # pods
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT_S = 1.0


def write_trial(directory: Path, pods: int) -> Subject:
    """A trial of so many pods: ten a node, of which one pulls and nine wait for it."""
    rows = [_pod(index) for index in range(pods)]
    tables.write_pods(directory / "pods.csv", rows)
    with (directory / "events.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(event) + "\n" for row in rows for event in _events(row))
    tables.write_series(directory / "series.csv", _series(pods // A_NODE))
    return Subject(
        cell_id="c", label="made", factors={}, deployments=pods, replicas=1, nodes=pods // A_NODE,
        cache="cold", nic_mbit_s=10_000, disk_ceiling_mb_s=1000, wait_timeout_s=1800.0,
    )  # fmt: skip


def _pod(index: int) -> tables.PodRow:
    created = 10.0 + index / 1000
    pulling = created + 1.0
    pulled = 111.0 + index % 7
    return tables.PodRow(
        "imgpull-1", f"pod-{index}", f"node-{index // A_NODE}", created, created + 0.1,
        created + 0.8, pulling, pulled, pulled + 0.3, pulled + 0.9, f"uid-{index}",
        (tables.Container("image", IMAGE, "", ""),),
    )  # fmt: skip


def _events(row: tables.PodRow) -> Iterator[dict[str, Any]]:
    pulling, pulled = row.pulling or 0.0, row.pulled or 0.0
    took_s = pulled - pulling
    for at_s, reason, message in (
        (pulling, "Pulling", pulls.pulling_message(IMAGE)),
        (pulled, "Pulled", pulls.pulled_message(IMAGE, took_s, took_s, SIZE)),
        (row.started or 0.0, "Started", "Started container image"),
    ):
        stamp = (BEGAN + timedelta(seconds=at_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield {
            "reason": reason, "message": message, "count": 1, "firstTimestamp": stamp,
            "lastTimestamp": stamp, "source": {"component": "kubelet", "host": row.node},
            "metadata": {"namespace": row.namespace, "name": f"{row.pod}.{reason}"},
            "involvedObject": {
                "kind": "Pod", "namespace": row.namespace, "name": row.pod, "uid": row.uid,
                "fieldPath": "spec.containers{image}",
            },
        }  # fmt: skip


def _series(nodes: int) -> Iterator[tables.SeriesRow]:
    for node in range(nodes):
        for step in range(26):
            busy = 10.0 < step * 5 <= 115.0
            rate = SIZE / 100.0 if busy else 0.0
            yield tables.SeriesRow(step * 5.0, f"node-{node}", rate, 2 * rate, float(busy))


def steps(directory: Path, subject: Subject) -> list[tuple[str, Callable[[], object]]]:
    """What is timed, in order; each step leaves what the next one needs."""
    seen: dict[str, Any] = {}
    report = cl2.Report("test", cl2.Junit("test", "", 0.0, 0.0, ()))
    path = directory / "pulls.csv"

    def read() -> None:
        seen["events"] = read_events(directory / "events.jsonl")
        seen["pods"] = read_pods(directory / "pods.csv")
        seen["rates"] = read_rates(directory / "series.csv")

    def told() -> None:
        seen["rows"] = pull_rows(
            seen["events"], seen["pods"], seen["rates"], subject, started_at=BEGAN
        )

    def summarised() -> None:
        seen["found"] = measurements(subject, report, seen["rows"], seen["pods"])
        write_measurements(directory, seen["found"])

    def judged() -> None:
        verdict = judge(
            subject, report, seen["rows"], seen["pods"], seen["found"], (), seen["rates"]
        )
        assert (verdict.verdict, verdict.flags) == ("valid", []), verdict
        write_flags(directory / "flags.csv", verdict.flags)

    return [
        ("events, pods and series read", read),
        ("pulls told from events", told),
        ("pulls.csv written", lambda: write_pulls(path, seen["rows"])),
        ("pulls.csv read", lambda: read_pulls(path)),
        ("pulls summarised", summarised),
        ("pulls judged", judged),
    ]


def measure(pods: int, repeats: int = 5) -> dict[str, float]:
    """Step -> median seconds."""
    with tempfile.TemporaryDirectory(prefix="imgpull-") as made:
        directory = Path(made)
        subject = write_trial(directory, pods)
        took: dict[str, list[float]] = {}
        for _ in range(repeats):
            for name, step in steps(directory, subject):
                begun_s = time.process_time()
                step()
                took.setdefault(name, []).append(time.process_time() - begun_s)
    return {name: statistics.median(seconds) for name, seconds in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pods", type=int, default=10_000)
    asked = parser.parse_args()
    found = measure(asked.pods)
    print(f"{asked.pods:,} pulls, seconds of CPU (limit {LIMIT_S:g} each)")
    for name, seconds in found.items():
        print(f"  {name:<32}{seconds:>7.3f}")


if __name__ == "__main__":
    main()
