"""One trial on a held cluster: everything around ClusterLoader2 that makes its numbers worth it.

Hides the order in which that happens: nodes chosen and their images removed, watches open before
the first Deployment, ClusterLoader2 run within its limit, series read before Prometheus goes, all
of it removed and checked. How CL2 runs is a Runner's; what is on a cluster, `imgpull.cluster`'s.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from imgpull import tables, units
from imgpull.cluster import credentials, fingerprint, nodes, ownership, preflight, series
from imgpull.cluster.kube import Kube
from imgpull.cluster.monitors import additional_monitors
from imgpull.cluster.nodes import NodeFacts
from imgpull.cluster.ownership import Owner
from imgpull.cluster.recorder import Recorder
from imgpull.config import schema
from imgpull.config.image import Image
from imgpull.config.job import Job
from imgpull.engines import runners
from imgpull.engines.contents import Contents, set_contents
from imgpull.engines.door import Outcome, Remark, Say
from imgpull.engines.held import HeldCluster, kubeconfig_of
from imgpull.engines.running import Dialect, Ended, Request, Runner, Stack
from imgpull.errors import EngineFailed
from imgpull.images.salted import Salt, salted
from imgpull.render import Bundle

# Events arrive late where a kubelet has many to tell (AKS: 5 a second).
_DRAIN_S = 30.0
# To remove what a trial made, whatever came of it.
_TIDY_S = 300.0
# Clocks that differ by more make times of two of them a matter of luck (docs/design.md 4.5).
_SKEW_S = 1.0


class Trial:
    """One attempt at a trial on a cluster that is held."""

    def __init__(
        self, job: Job, cluster: HeldCluster, runner: Runner, owner: Owner, out: Path, say: Say
    ) -> None:
        assert isinstance(job.engine, schema.RealEngine)
        self._job, self._settings, self._cluster = job, job.engine, cluster
        self._runner, self._owner, self._out, self._say = runner, owner, out, say
        self._seen = _Seen()
        self.image = job.image  # what its pods pull

    def run(self, bundle: Bundle) -> tuple[Outcome, dict[str, Any]]:
        """Run it; what came of it, and what was learned for its fingerprint."""
        cluster, owner, seen = self._cluster, self._owner, self._seen
        _clear(self._out)
        with _tidied(cluster, owner, seen, self._say), ExitStack() as stack:
            cluster.lease.check()
            asked = request(
                self._job, self._runner, bundle, self._out, owner, self._job.trial_limit_s, stack,
                cluster.kube.secrets(), self._say,
            )  # fmt: skip
            # From now on: a credential that had to be waited for is not the trial's fault.
            limit = _Limit(self._job.trial_limit_s)
            if self._job.cache == "salted":
                with seen.stage("image"):
                    self.image = stack.enter_context(self._salted())
            with seen.stage("nodes"):
                measured = cluster.choose_nodes(self._job, owner)
            with seen.stage("cache"):
                contents = set_contents(
                    cluster.kube, self._job, measured, owner, limit.left_s(), self._say
                )
            with seen.stage("settle"):
                self._settle(limit.left_s())
            if self._job.cache == "salted":
                asked = replace(asked, salted_image=self.image.pinned_reference)
            early = self._runner.is_here and not cluster.is_built  # compiled before the sweep
            if not early and bundle.sha256 not in cluster.compiled:
                with seen.stage("dry run"):
                    self._runner.dry_run(asked)
                cluster.compiled.add(bundle.sha256)
            with seen.stage("prometheus"):
                stack_done = cluster.prepare_prometheus(self._stack_settings(), self._say)
            self._make_namespace()
            asked = replace(asked, limit_s=limit.left_s())
            seen.started_at = datetime.now(UTC)
            recorder = stack.enter_context(
                _recording(cluster.kube, f"{owner.prefix()}-1", self._out, seen, asked.redact)
            )
            self._say("clusterloader is starting")
            with seen.stage("clusterloader"):
                ended = self._runner.run(asked, self._say)
            with seen.stage("reading"):
                self._adopt()
                self._say("waiting for late events")
                recorder.stop(_DRAIN_S)
                self._say("reading series from Prometheus")
                self._write_series(measured, recorder, seen.started_at)
            self._require_a_test(ended, asked)
            self._look_again(measured)
        return self._told(measured, contents, ended, recorder, stack_done)

    def _salted(self) -> AbstractContextManager[Image]:
        owner, repository = self._owner, self._settings.salted_repository or ""
        salt = Salt(owner.sweep, owner.trial, owner.attempt)
        return salted(
            self._job.image, repository, salt, self._say,
            lambda what: self._seen.add("valid", [what]),
        )  # fmt: skip

    def _settle(self, most_s: float) -> None:
        pause_s = min(units.parse_duration(self._settings.settle), most_s)
        self._say(f"settling for {self._settings.settle}")
        time.sleep(pause_s)

    def _stack_settings(self) -> dict[str, Any]:
        """What CL2's Prometheus is made of: another value of one of these needs another stack."""
        dialect, cluster = self._runner.probe(), self._job.cluster
        return {
            "dialect": dialect.name,
            "clusterloader": dialect.digest,
            "containerd_port": self._settings.containerd_port,
            "containerd_scrape_interval_s": self._job.containerd_scrape_interval_s,
            "memory_gib": cluster.prometheus_memory_gib,
            "storage_class": cluster.prometheus_storage_class,
            "node_selector": dict(cluster.prometheus_node_selector),
            "thousands_of_nodes": self._job.nodes // 1000,
            "flags": list(self._settings.flags),
            # What is scraped: another pool of the same cluster has other nodes.
            "monitors": _monitors(self._job, self._settings),
        }

    def _make_namespace(self) -> None:
        """CL2 would label neither the namespace nor put the pull secret there."""
        kube, name = self._cluster.kube, f"{self._owner.prefix()}-1"
        ownership.make_namespace(kube, name, self._owner)
        if secret := self._job.image.pull_secret:
            ownership.copy_secret(kube, secret, name, self._owner)

    def _adopt(self) -> None:
        """So that what a sweep left that is killed from now on is found."""
        try:
            self._cluster.adopt_prometheus()
        except EngineFailed as error:  # once more when it is torn down
            self._seen.add("valid", [f"what ClusterLoader2 made was not marked: {error.message}"])

    def _write_series(
        self, measured: Sequence[NodeFacts], recorder: Recorder, started_at: datetime
    ) -> None:
        """Rates of the trial, while Prometheus is there; without them pulls are known all the same.

        Anything that goes wrong here is no more than a gap.
        """
        names = {node.name: node.name for node in measured}
        names |= {node.address: node.name for node in measured if node.address}
        # A Prometheus that this trial brought up scraped nothing before it: nor was there a pod.
        first_s = min((row.created for row in recorder.rows() if row.created), default=0.0)
        busy_from = started_at + timedelta(seconds=first_s)
        path = self._out / "series.csv"
        try:
            found = series.collect(
                self._cluster.kube, names, started_at, datetime.now(UTC), busy_from=busy_from
            )
        except EngineFailed as error:
            tables.write_series(path, [])
            self._seen.add("degraded", [f"no series: {error.message}"])
            return
        tables.write_series(path, found.rows)
        self._seen.add("degraded", found.gaps)

    def _require_a_test(self, ended: Ended, asked: Request) -> None:
        """EngineFailed when CL2 did not come to the end of its test; a missed limit is a result."""
        if ended.timed_out:
            limit = units.format_duration(self._job.trial_limit_s)
            raise EngineFailed(
                f"timeout: trial_limit={limit}: {ended.story()}\n{ended.tail}",
                hint="see run.log; a larger image may need trial_limit=4h and a longer "
                "wait_timeout",
            )
        if not (asked.report / "junit.xml").exists():
            raise EngineFailed(
                f"{ended.story()}\n{ended.tail}", hint="see run.log and docs/real-clusters.md"
            )

    def _look_again(self, before: Sequence[NodeFacts]) -> None:
        """What changed on the cluster meanwhile, and may have bent the numbers."""
        kube, seen = self._cluster.kube, self._seen
        self._cluster.lease.check()
        after = nodes.node_facts(kube)  # a node that was made anew has no label of ours
        seen.add("invalid", nodes.changed(before, after))
        seen.skew_s = preflight.clock_skew_s(kube)
        if seen.skew_s is not None and abs(seen.skew_s) > _SKEW_S:
            seen.add("degraded", [f"this machine's clock and the cluster's differ by "
                                  f"{seen.skew_s:+.1f} s"])  # fmt: skip
        # After the load: asking every kubelet for its settings takes a while on a large cluster.
        try:
            seen.fingerprint = fingerprint.observed(kube.impatient(), before)
        except EngineFailed as error:  # the numbers are there
            seen.add("valid", [f"the cluster's fingerprint was not read: {error.message}"])

    def _told(
        self,
        measured: Sequence[NodeFacts],
        contents: Contents,
        ended: Ended,
        recorder: Recorder,
        stack_done: str,
    ) -> tuple[Outcome, dict[str, Any]]:
        seen, dialect = self._seen, self._runner.probe()
        semantics = runners.startup_semantics(dialect, self._out / "report")
        outcome = Outcome(
            measured_by=f"clusterloader ({dialect.name}) on {self._cluster.kube.context}",
            started_at=seen.started_at,
            versions=_versions(measured, dialect),
            digests={"clusterloader": dialect.digest, **_digests(recorder)},
            held=contents.held,
            remarks=(*contents.remarks, *seen.remarks),
            observed={
                "dialect": dialect.name,
                "pod_startup_semantics": semantics,
                "clusterloader": {"exit_code": ended.exit_code, "wall_s": round(ended.wall_s, 1)},
                "prometheus": stack_done,
                "settle": self._settings.settle,
                "clock_skew_s": seen.skew_s,
                "cache": contents.observed,
                "cluster": seen.fingerprint,
                "watches": dict(recorder.counts),
                "stages_s": dict(seen.stages_s),
            },
        )
        return outcome, {"clusterloader": dialect.name, "pod_startup_semantics": semantics}


def request(
    job: Job,
    runner: Runner,
    bundle: Bundle,
    out: Path,
    owner: Owner,
    limit_s: float,
    stack: ExitStack,
    secrets: frozenset[str] = frozenset(),
    say: Say = lambda _: None,
) -> Request:
    """What CL2 is asked to do. Its credential lasts as long as `stack`; `say` tells of a wait."""
    settings, cluster = job.engine, job.cluster
    assert isinstance(settings, schema.RealEngine)
    report = out / "report"
    report.mkdir(exist_ok=True)
    kubeconfig: Path | None = None
    if runner.is_here:
        portable = stack.enter_context(
            credentials.portable(kubeconfig_of(settings), settings.context, limit_s, say)
        )
        kubeconfig, secrets = portable.path, secrets | frozenset(portable.secrets)
    return Request(
        bundle=bundle.directory,
        report=report,
        log=out / "run.log",
        kubeconfig=kubeconfig,
        provider=cluster.provider,
        nodes=job.nodes,
        namespace_prefix=owner.prefix(),
        limit_s=limit_s,
        redact=credentials.redactor(secrets),
        stack=Stack(
            containerd_port=settings.containerd_port,
            memory_gib=cluster.prometheus_memory_gib,
            storage_class=cluster.prometheus_storage_class,
            monitors=_monitors(job, settings),
        ),
        flags=tuple(settings.flags),
        labels=owner.labels(),
    )


def _monitors(job: Job, settings: schema.RealEngine) -> Mapping[str, str]:
    nodes = f"{job.cluster.node_prefix.replace('.', '[.]')}.+"
    return additional_monitors(
        settings.containerd_port, job.containerd_scrape_interval_s, nodes=nodes
    )


def _versions(measured: Sequence[NodeFacts], dialect: Dialect) -> dict[str, str]:
    """Each version that the nodes run; more than one is joined."""

    def every(values: Sequence[str]) -> str:
        return ", ".join(sorted(set(values)))

    return {
        "kubelet": every([node.kubelet_version for node in measured]),
        "containerd": every([node.containerd_version for node in measured]),
        "node_os": every([node.os_image for node in measured]),
        "kernel": every([node.kernel for node in measured]),
        "clusterloader": dialect.version or "unknown",
    }


def _digests(recorder: Recorder) -> dict[str, str]:
    """The image that really ran, by its digest; more than one are joined."""
    ran = {
        each.image_id.rpartition("@")[2]
        for containers in recorder.statuses().values()
        for each in containers
        if "@" in each.image_id
    }
    return {"image_run": ", ".join(sorted(ran))} if ran else {}


@dataclass
class _Seen:
    """What a trial came to, and what bears on its verdict, as it comes up."""

    remarks: list[Remark] = field(default_factory=list)
    skew_s: float | None = None
    started_at: datetime | None = None  # what the seconds of its files count from
    fingerprint: dict[str, Any] = field(default_factory=dict)
    stages_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note how long a part of the trial takes."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.stages_s[name] = round(time.monotonic() - begun, 3)

    def add(self, verdict: str, texts: Sequence[str]) -> None:
        """Each of these sentences is a reason for this verdict."""
        self.remarks += [Remark(verdict, text) for text in texts]


class _Limit:
    """The time that a trial has, whatever hangs."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self._end_s = limit_s, time.monotonic() + limit_s

    def left_s(self) -> float:
        """What is left of it; EngineFailed when nothing is."""
        left_s = self._end_s - time.monotonic()
        if left_s <= 0:
            raise EngineFailed(
                f"timeout: trial_limit={units.format_duration(self._limit_s)} was over before "
                "clusterloader began",
                hint="see run.log for what took so long; or a longer trial_limit",
            )
        return left_s


@contextmanager
def _recording(
    kube: Kube, namespace: str, out: Path, seen: _Seen, redact: Callable[[str], str]
) -> Iterator[Recorder]:
    """Watch a namespace; events.jsonl and pods.csv are there whatever the trial comes to."""
    assert seen.started_at is not None
    recorder = Recorder(kube, [namespace], out / "events.jsonl", seen.started_at, redact=redact)
    try:
        with recorder:
            yield recorder
    finally:
        tables.write_pods(out / "pods.csv", recorder.rows())
        seen.add("degraded", recorder.gaps)


@contextmanager
def _tidied(cluster: HeldCluster, owner: Owner, seen: _Seen, say: Say) -> Iterator[None]:
    """Afterwards nothing of the trial is on the cluster, whatever it came to."""
    try:
        yield
    except BaseException as error:
        say("removing what the trial made")
        try:
            ownership.remove_trial(cluster.kube, owner, _TIDY_S)
        except EngineFailed as left:
            error.add_note(f"and {left}")
        raise
    say("removing what the trial made")
    try:
        with seen.stage("removing"):
            ownership.remove_trial(cluster.kube, owner, _TIDY_S)
    except EngineFailed as left:  # the numbers are good; the next trial will meet it
        seen.add("valid", [f"left on the cluster: {left.message}"])


def _clear(out: Path) -> None:
    """Remove what a killed attempt left in this directory."""
    shutil.rmtree(out / "report", ignore_errors=True)
    for name in ("events.jsonl", "pods.csv", "series.csv"):
        (out / name).unlink(missing_ok=True)
