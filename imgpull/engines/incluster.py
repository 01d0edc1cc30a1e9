"""CL2 inside the cluster, as a Kubernetes Job.

Hides the Job's life: made with the rights that CL2 needs, waited for, followed through the API
server, its report had back whatever CL2's exit code, and all of it removed.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath

from imgpull.cluster.kube import ApiError, Kube, Object
from imgpull.cluster.ownership import (
    IMGPULL,
    MANAGED_BY,
    SYSTEM_NAMESPACE,
    TRIAL_LABEL,
    ensure_system_namespace,
    object_path,
    wait_gone,
)
from imgpull.config import schema
from imgpull.engines import archive, jobspec
from imgpull.engines.door import Say
from imgpull.engines.following import Follower
from imgpull.engines.jobpod import PODS, JobPod, pods_of
from imgpull.engines.jobspec import ROOT
from imgpull.engines.running import (
    Dialect,
    Ended,
    Places,
    Request,
    arguments,
    dialect_of,
    extra_files,
    not_compiled,
    pinned,
    silent,
)
from imgpull.errors import EngineUnavailable, ImgpullError

_HELP_S = 600.0  # a node may have to pull the image first
_DRY_RUN_S = 600.0
_FETCH_S = 300.0  # after CL2's end, for its report
_GONE_S = 90.0
_PLACES = Places(
    PurePosixPath(f"{ROOT}/config/bundle"), PurePosixPath(f"{ROOT}/config/extra"),
    PurePosixPath(f"{ROOT}/report"), None,
)  # fmt: skip


class JobRunner:
    """An image, run as a Job on the nodes that Prometheus uses. Without `kube` it runs nothing."""

    is_here = False

    def __init__(
        self, kube: Kube | None, image: str, digest: str | None, cluster: schema.Cluster
    ) -> None:
        self._kube = kube
        self.reference = pinned(image, digest)
        self._helper, self._selector = cluster.helper_image, cluster.prometheus_node_selector

    def check(self, say: Say = silent) -> None:
        """Nothing of it can be known without a Job on the cluster: `probe` starts one."""

    def probe(self) -> Dialect:
        """Which CL2 the image holds, asked of it in the cluster."""
        kube = self._connected()
        known = _PROBED.get((kube.server, self.reference))
        if known is None:
            known = _PROBED[kube.server, self.reference] = self._ask(kube)
        return known

    def dry_run(self, request: Request) -> None:
        """RenderError or EngineFailed, in CL2's words, when the test does not compile."""
        follower, ended = self._execute(request, silent, dry=True)
        if not (follower.compiled and follower.ended_dry):
            raise not_compiled(ended, request.log)

    def run(self, request: Request, say: Say) -> Ended:
        """Run CL2 to its end or its limit; after that its Job and its rights are told to go."""
        return self._execute(request, say, dry=False)[1]

    def _execute(self, request: Request, say: Say, *, dry: bool) -> tuple[Follower, Ended]:
        kube, dialect = self._connected(), self.probe()
        command = arguments(request, dialect, _PLACES, dry=dry)
        files = {f"bundle/{path.name}": path.read_bytes()
                 for path in sorted(request.bundle.iterdir()) if path.is_file()}  # fmt: skip
        files |= {
            f"extra/{path}": text.encode() for path, text in extra_files(request, dialect).items()
        }
        limit_s = min(request.limit_s, _DRY_RUN_S) if dry else request.limit_s
        pod = jobspec.Pod(
            self.reference, command, None if dry else self._helper, self._selector,
            limit_s + _FETCH_S,
        )  # fmt: skip
        with (
            Follower(request.log, request.redact, say) as follower,
            _made(kube, request.labels, pod, files) as name,
        ):
            follower.note(f"Job {SYSTEM_NAMESPACE}/{name} of {self.reference} {' '.join(command)}")
            running = JobPod(kube, name, pod, limit_s)
            code = running.to_its_end(follower, say)
            if digest := running.digest():
                follower.note(f"the image that ran is {digest}")
            if not dry and not running.timed_out:
                say("fetching the report")
                data = running.report()
                archive.unpack(data, request.report, "report")
            ended = follower.ended(code, running.wall_s(), timed_out=running.timed_out)
            say("removing the Job")
        return follower, ended

    def _ask(self, kube: Kube) -> Dialect:
        pod = jobspec.Pod(self.reference, ["--help"], None, self._selector, _HELP_S)
        with _made(kube, {}, pod, {}) as name:
            running = JobPod(kube, name, pod, _HELP_S)
            printed = b"\n".join(running.printed())
            return dialect_of(
                printed.decode("utf-8", "replace"), self.reference, version=self.reference,
                digest=running.digest(),
            )  # fmt: skip

    def _connected(self) -> Kube:
        if self._kube is None:
            raise EngineUnavailable(
                "engine=incluster runs on a cluster that is held by a sweep",
                hint="python run.py engine=incluster",
            )
        return self._kube


# By server and image: a Job takes seconds, and the answer does not change.
_PROBED: dict[tuple[str, str], Dialect] = {}


@contextmanager
def _made(
    kube: Kube, labels: Mapping[str, str], pod: jobspec.Pod, files: Mapping[str, bytes]
) -> Iterator[str]:
    """The name of a Job that has just been made, with its files and rights; removed afterwards.

    EngineFailed names what could not be removed.
    """
    name = f"cl2-{secrets.token_hex(5)}"
    labels = {**labels, MANAGED_BY: IMGPULL}
    wanted = [jobspec.job(name, labels, pod, sorted(files))]
    if files:
        wanted = [
            *jobspec.rights(name, labels), jobspec.config_map(name, labels, files), *wanted,
        ]  # fmt: skip
    ensure_system_namespace(kube)
    try:
        for collection, body in wanted:
            _create(kube, collection, body)
        yield name
    except BaseException:
        with suppress(ImgpullError):  # the first error counts; the janitor finds the rest
            _remove(kube, name, wanted, waits=True)
        raise
    # Who owns the trial removes all that carries its label, and waits for it together.
    _remove(kube, name, wanted, waits=TRIAL_LABEL not in labels)


def _create(kube: Kube, collection: str, body: Object) -> None:
    try:
        kube.create(collection, body)
    except ApiError as error:
        if error.is_conflict:  # an answer was lost, and the request came twice
            return
        if error.status == 403:
            raise EngineUnavailable(
                error.message,
                hint="engine=incluster gives CL2 wide rights, and you need them to give them "
                "(docs/real-clusters.md lists them); or use engine=binary, engine=docker",
            ) from error
        raise


def _remove(kube: Kube, name: str, made: Sequence[tuple[str, Object]], *, waits: bool) -> None:
    paths = [object_path(collection, body) for collection, body in made]
    pods = [object_path(PODS, pod) for pod in pods_of(kube, name)]
    for path in reversed(paths):  # the Job first, then what it lives on
        kube.delete(path)
    if not waits:
        return
    wait_gone(kube, [*pods, *paths], _GONE_S)
