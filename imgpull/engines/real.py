"""`engine=binary|docker|incluster`: what can be known before a trial, and the trial on its cluster.

Hides where ClusterLoader2 runs: that is a Runner's. The trial itself is in `imgpull.engines.trial`.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from imgpull import render
from imgpull.cluster import credentials, preflight
from imgpull.cluster.findings import Finding, of_error, ok, warning
from imgpull.cluster.ownership import Owner
from imgpull.config import schema
from imgpull.config.job import Job
from imgpull.engines import runners
from imgpull.engines.door import Execution, Outcome, Say, Subject, subject_of
from imgpull.engines.held import HeldCluster, connect, kubeconfig_of
from imgpull.engines.running import Runner, silent
from imgpull.engines.trial import Trial, request
from imgpull.errors import ImgpullError
from imgpull.images import salted
from imgpull.render import Bundle

_DRY_RUN_S = 60.0

# What passed in this process: cells that differ in their load alone meet the same cluster.
_passed: set[str] = set()


class RealEngine:
    """A trial on a real cluster. Without `cluster` it can check and validate, not run."""

    renders = True

    def __init__(
        self, job: Job, cluster: HeldCluster | None = None, execution: Execution | None = None
    ) -> None:
        assert isinstance(job.engine, schema.RealEngine)
        self._job, self._settings = job, job.engine
        self._cluster, self._execution = cluster, execution
        self.subject: Subject = subject_of(job)
        self._runner: Runner = runners.build(job, cluster.kube if cluster else None)

    def check(self) -> None:
        """EngineUnavailable or ConfigError naming every reason why the trial could not be run."""
        job = self._job
        salted = job.cache == "salted"
        asked = repr((job.engine, job.cluster, job.image, job.nodes, job.allow, salted))
        if asked not in _passed:
            preflight.require(list(self.findings(held=True)))
            _passed.add(asked)

    def findings(self, *, held: bool = False) -> Iterator[preflight.Finding]:
        """What preflight finds, as it finds it. Asks the cluster, and changes nothing on it.

        `held` leaves out what is seen to when a sweep takes the cluster.
        """
        self._runner.check(silent)
        kube = connect(self._settings)
        try:
            yield from preflight.inspect(kube, self._job, held=held)
        finally:
            kube.close()
        if self._runner.is_here:
            yield from credentials.lasting(
                kubeconfig_of(self._settings), self._settings.context, self._job.trial_limit_s
            )
        if self._job.cache == "salted":
            yield from self._salted()

    def _salted(self) -> Iterator[Finding]:
        check, repository = "salted image", self._settings.salted_repository or ""
        host = repository.partition("/")[0]
        try:
            yield ok(check, salted.check(self._job.image, repository))
            if ends := salted.login_ends(repository):
                yield warning(
                    check,
                    f"the login to {host} ends at {ends:%Y-%m-%d %H:%M} UTC: later pushes fail",
                    "log in again before then, also while the sweep runs: az acr login --name "
                    f"{host.partition('.')[0]}; or docker login with a password, which lasts",
                )
        except ImgpullError as error:
            yield of_error(check, error, f"docker login {host}")

    def validate(self, files: Mapping[str, str]) -> None:
        """Let CL2 compile the bundle, before a Prometheus is brought up for it."""
        if not self._runner.is_here:
            return  # compiled at the trial's begin, before Prometheus
        owner = Owner("imgpull", "validate")
        with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="imgpull-") as directory:
            out = Path(directory)
            bundle = render.write(files, out / "bundle")
            asked = request(self._job, self._runner, bundle, out, owner, _DRY_RUN_S, stack)
            self._runner.dry_run(asked)

    def run(self, bundle: Bundle | None, out: Path, say: Say) -> Outcome:
        """Run the trial; whatever way it ends, nothing of it stays on the cluster."""
        cluster, execution = self._cluster, self._execution
        assert bundle is not None and cluster is not None and execution is not None  # noqa: PT018
        owner = Owner(cluster.sweep, execution.trial_id, execution.attempt)
        trial = Trial(self._job, cluster, self._runner, owner, out, say)
        outcome, measured = trial.run(bundle)
        ran = trial.image
        self.subject = replace(
            subject_of(self._job, **measured),
            image_reference=ran.pinned_reference,
            image_digest=ran.digest,
        )
        return outcome
