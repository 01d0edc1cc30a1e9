"""What is put into a clean trial's files is flagged, each pull by its kind, and nothing else is.

The trials are simulated; what is injected is written into events.jsonl, pods.csv and series.csv as
kubelet, the API and Prometheus would have told it, and read by the same code as any trial.
"""

import csv
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from trials import MakeJob, Trial, run, table

from imgpull import pulls, results, units
from imgpull.results.flags import KINDS, read_flags

IMAGE = "image=resource_consumer"
# No limit of kubelet's own, which would refuse pulls by itself.
QUIET = ("cluster.kubelet.registryPullQPS=0", "trials=1", IMAGE)
LATER_S = 300.0  # long after every pull of a trial
TOO_MANY = "429 Too Many Requests - toomanyrequests"


@dataclass
class Files:
    """A trial's files, to be bent."""

    trial: Trial
    events: list[dict[str, Any]]
    pods: list[dict[str, str]]
    series: list[dict[str, str]]

    @classmethod
    def of(cls, trial: Trial) -> "Files":
        pods, series = (table(trial.directory / name) for name in ("pods.csv", "series.csv"))
        return cls(trial, list(trial.events), pods, series)

    def told(self, pod: str, reason: str) -> dict[str, Any]:
        """The only event of this reason about a pod."""
        (event,) = (
            event
            for event in self.events
            if event["involvedObject"]["name"] == pod and event["reason"] == reason
        )
        return event

    def row(self, pod: str) -> dict[str, str]:
        return next(row for row in self.pods if row["pod"] == pod)

    def assess(self, into: Path) -> dict[tuple[str, str], str]:
        """Write the bent files beside the report and judge: (pod, kind) -> reason of each flag."""
        into.mkdir()
        (into / "report").symlink_to(self.trial.directory / "report")
        lines = (json.dumps(event) + "\n" for event in self.events)
        (into / "events.jsonl").write_text("".join(lines), "utf-8")
        for name, rows in (("pods.csv", self.pods), ("series.csv", self.series)):
            with (into / name).open("w", newline="", encoding="utf-8") as file:
                out = csv.DictWriter(file, rows[0], lineterminator="\n")
                out.writeheader()
                out.writerows(rows)
        results.assess(into, self.trial.subject, self.trial.outcome)
        return {(flag.pod, flag.kind): flag.reason for flag in read_flags(into / "flags.csv")}


def shifted(stamp: str, seconds: float) -> str:
    from datetime import datetime, timedelta

    at = datetime.fromisoformat(stamp) + timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def another(event: dict[str, Any], name: str, **changes: Any) -> dict[str, Any]:
    """An event like this one, with a name of its own."""
    return event | changes | {"metadata": event["metadata"] | {"name": name}}


# Injections: each bends the files of one pod's pull and says which flag that must raise.


def warm_by_bytes(files: Files, pod: str) -> str:
    """Kubelet tells of a pull, but the node received nothing: every layer was there."""
    node = files.row(pod)["node"]
    for row in files.series:
        if row["node"] == node:
            row["receive_bytes_per_s"] = "0"
    return "warm"


def warm_by_word(files: Files, pod: str) -> str:
    """Kubelet found the image present."""
    pulled = files.told(pod, "Pulled")
    files.events.remove(files.told(pod, "Pulling"))
    image = files.row(pod)["image"]
    files.events[files.events.index(pulled)] = pulled | {
        "message": pulls.present_message(image, (1, 34))
    }
    files.row(pod).update(pulling="", pulled="")
    return "warm"


def censored(files: Files, pod: str) -> str:
    """The pull was still going on when everything ended."""
    for reason in ("Pulled", "Created", "Started"):
        files.events.remove(files.told(pod, reason))
    files.row(pod).update(pulled="", started="", ready="")
    return "censored"


def _refused(files: Files, pod: str, error: str) -> None:
    pulling, image = files.told(pod, "Pulling"), files.row(pod)["image"]
    failed = another(
        pulling, f"{pod}.f", reason="Failed", type="Warning",
        message=pulls.failed_message(image, error),
    )  # fmt: skip
    again = pulling | {"count": 2}
    at = files.events.index(pulling)
    files.events[at + 1 : at + 1] = [failed, again]


def throttled(files: Files, pod: str) -> str:
    """The registry answered 429 at first."""
    _refused(files, pod, TOO_MANY)
    return "throttled"


def qps_exceeded(files: Files, pod: str) -> str:
    """kubelet's own limit refused the pull at first."""
    _refused(files, pod, "pull QPS exceeded")
    return "qps_exceeded"


def duplicate(files: Files, pod: str) -> str:
    """Another pod comes to the node much later, and the image is fetched again."""
    row, new = files.row(pod), f"{pod}-again"
    moments = ("created", "scheduled", "sandbox", "pulling", "pulled", "started", "ready")
    moved = {name: f"{float(row[name]) + LATER_S:.6f}" for name in moments}
    files.pods.append(row | moved | {"pod": new, "uid": f"{row['uid']}-again"})
    for reason in ("Pulling", "Pulled"):
        event = files.told(pod, reason)
        stamps = {
            name: shifted(event[name], LATER_S) for name in ("firstTimestamp", "lastTimestamp")
        }
        about = event["involvedObject"] | {"name": new}
        files.events.append(another(event, f"{new}.{reason}", involvedObject=about, **stamps))
    rates = [each for each in files.series if each["node"] == row["node"]]
    files.series += [each | {"at_s": f"{float(each['at_s']) + LATER_S:.3f}"} for each in rates]
    return "duplicate"


INJECTIONS: tuple[Callable[[Files, str], str], ...] = (
    warm_by_bytes, warm_by_word, censored, throttled, qps_exceeded, duplicate,
)  # fmt: skip


def inject(trial: Trial, into: Path, each: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """Bend so many pulls of each kind: (injected, flagged of them) by kind; no other is flagged."""
    files = Files.of(trial)
    names = [row["pod"] for row in files.pods]
    random.Random(seed).shuffle(names)
    wanted: dict[tuple[str, str], str] = {}
    for number, bend in enumerate(INJECTIONS):
        for pod in names[number * each : (number + 1) * each]:
            kind = bend(files, pod)
            wanted[f"{pod}-again" if kind == "duplicate" else pod, kind] = bend.__name__
    found = files.assess(into)
    assert set(found) <= set(wanted), set(found) - set(wanted)
    flagged = Counter(bend for key, bend in wanted.items() if key in found)
    return Counter(wanted.values()), flagged


def test_every_injected_pull_is_flagged_by_its_kind_and_no_other(
    job: MakeJob, tmp_path: Path
) -> None:
    trial = run(job(*QUIET, "nodes=24", "deployments=24"), tmp_path / "clean")
    injected, flagged = inject(trial, tmp_path / "bent", 4, seed=1)
    assert injected == flagged
    assert set(injected) == {bend.__name__ for bend in INJECTIONS}


def test_a_clean_trial_has_no_flag_though_pods_share_nodes(job: MakeJob, tmp_path: Path) -> None:
    # At 2 a second later pods find what the first brought.
    trial = run(job(*QUIET, "nodes=2", "deployments=20", "qps=2"), tmp_path)
    assert {row["outcome"] for row in trial.pulls} == {"pulled", "present"}
    assert read_flags(tmp_path / "flags.csv") == []
    assert (trial.verdict, trial.reasons) == ("valid", ())


def test_an_event_that_was_delivered_twice_is_one(job: MakeJob, tmp_path: Path) -> None:
    trial = run(job(*QUIET, "nodes=2", "deployments=4"), tmp_path / "clean")
    files = Files.of(trial)
    files.events = [event for event in files.events for _ in range(2)]
    assert files.assess(tmp_path / "twice") == {}
    assert table(tmp_path / "twice" / "pulls.csv") == trial.pulls


def test_what_a_node_fetches_again_enters_no_figure_but_the_bytes(
    job: MakeJob, tmp_path: Path
) -> None:
    trial = run(job(*QUIET, "nodes=3", "deployments=3"), tmp_path / "clean")
    files = Files.of(trial)
    duplicate(files, files.pods[0]["pod"])
    files.assess(tmp_path / "bent")
    bent = replace(trial, directory=tmp_path / "bent")
    assert bent.numbers["image_pull", "n"] == trial.numbers["image_pull", "n"] == 3
    assert bent.numbers["image_pull", "p50"] == trial.numbers["image_pull", "p50"]
    size = trial.subject.compressed_bytes
    assert size is not None
    assert bent.numbers["data", "total"] == trial.numbers["data", "total"] + size
    assert bent.numbers["validity", "duplicates"] == 1


def test_a_pull_beyond_the_hardware_is_flagged_where_it_happened(
    job: MakeJob, tmp_path: Path
) -> None:
    trial = run(job(*QUIET, "nodes=3", "deployments=3"), tmp_path / "clean")
    files = Files.of(trial)
    pod = files.pods[1]["pod"]
    event = files.told(pod, "Pulled")
    size = trial.subject.compressed_bytes or 0
    files.events[files.events.index(event)] = event | {
        "message": pulls.pulled_message(files.pods[1]["image"], 0.001, 0.001, size)
    }
    found = files.assess(tmp_path / "bent")
    # So short a window holds few of the bytes, so it looks partly warm as well.
    assert set(found) == {(pod, "impossible"), (pod, "partial")}
    assert units.format_size(size / 0.001) in found[pod, "impossible"]


def test_a_pod_that_is_missing_is_flagged(job: MakeJob, tmp_path: Path) -> None:
    trial = run(job(*QUIET, "nodes=3", "deployments=3"), tmp_path / "clean")
    files = Files.of(trial)
    gone = files.pods.pop()["pod"]
    files.events = [event for event in files.events if event["involvedObject"]["name"] != gone]
    assert files.assess(tmp_path / "bent") == {("", "missing"): "pod 3 was never created"}


def test_warm_was_promised_and_a_node_fetched(job: MakeJob, tmp_path: Path) -> None:
    cold = run(job(*QUIET, "nodes=3", "deployments=3"), tmp_path / "clean")
    warm = replace(cold, subject=replace(cold.subject, cache="warm"))
    found = Files.of(warm).assess(tmp_path / "bent")
    assert {kind for _, kind in found} == {"cold"}
    assert len(found) == 3


def test_every_kind_of_flag_is_explained() -> None:
    assert all(KINDS.values())
    assert {"warm", "censored", "throttled", "qps_exceeded", "duplicate"} <= set(KINDS)


CLEAN = (
    ("nodes=100", "deployments=250", "replicas=4"),
    ("nodes=200", "deployments=1000", "qps=50"),
    ("nodes=50", "deployments=50", "replicas=20", "cluster=aks_d2s_v3"),
    ("nodes=100", "deployments=100", "replicas=10", "image=even_5gb_10"),
    ("nodes=100", "deployments=1000", "qps=100", "cluster.kubelet.serializeImagePulls=true"),
)


@pytest.mark.slow
def test_ten_thousand_clean_pulls_raise_no_flag_and_all_that_is_injected_does(
    job: MakeJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean, injected, flagged = 0, Counter[str](), Counter[str]()
    for number, overrides in enumerate(CLEAN):
        for trial in (1, 2):
            place = tmp_path / f"{number}-{trial}"
            done = run(replace(job(*QUIET, *overrides), trial=trial), place)
            assert read_flags(place / "flags.csv") == []
            clean += len(done.pulls)
    for trial in range(1, 6):
        place = tmp_path / f"bent-{trial}"
        done = run(replace(job(*QUIET, "nodes=120", "deployments=120"), trial=trial), place)
        some, found = inject(done, tmp_path / f"bent-{trial}-files", 20, seed=trial)
        injected, flagged = injected + some, flagged + found
    with capsys.disabled():
        print(f"\n0 flags in {clean} clean pulls; flagged of injected:")
        for kind, count in injected.items():
            print(f"  {kind:<14}{flagged[kind]:>4} of {count}")
    assert clean >= 10_000
    assert injected == flagged
