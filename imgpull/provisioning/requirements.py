"""Could a cluster be built from here? Programs, login and quota, each with the fix for it.

Hides versions and Azure's names of quotas. Nothing is changed.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping

from imgpull.cluster.findings import Finding, failed, of_error, ok, warning
from imgpull.config import schema
from imgpull.config.job import Job
from imgpull.errors import ConfigError, ImgpullError
from imgpull.provisioning import terraform
from imgpull.provisioning.az import INSTALL, Account, Az
from imgpull.provisioning.buildable import check_buildable
from imgpull.provisioning.running import Limits, ask
from imgpull.provisioning.variables import Machines

_OLDEST_AZ = (2, 60)  # ASSUMPTION: what is older was not looked at
_REGION = "cores"  # Azure's name of the quota of all families together
_QUOTA = "ask for more (portal: Quotas), or use fewer nodes, another cluster.region or VM size"


def findings(job: Job, machines: list[Machines], limits: Limits = Limits()) -> Iterator[Finding]:  # noqa: B008
    """Every finding as soon as it is found; one that fails keeps no other from being looked at."""
    yield from _guarded("description", lambda: _description(job))
    yield from _guarded("terraform", lambda: _terraform(limits))
    yield from _kubectl(job, limits)
    yield from _docker(job, limits)
    az = Az(job.cluster.azure.subscription, limits)
    found = list(_guarded("az", lambda: _az(az)))
    yield from found
    if any(each.state == "failed" for each in found):
        return  # it could be asked nothing else
    login = list(_guarded("login", lambda: _login(az)))
    yield from login
    if not any(each.state == "failed" for each in login):
        yield from _guarded("kubernetes", lambda: _kubernetes(az, job))
        yield from _guarded("quota", lambda: quota(az, job.cluster.region, machines))


def quota(
    az: Az, region: str, machines: list[Machines], before: list[Machines] | None = None
) -> Iterator[Finding]:
    """Whether the vCPUs of these machines fit what is left, beyond those that run already."""
    need: dict[str, int] = {}
    every = [*((1, each) for each in machines), *((-1, each) for each in before or ())]
    sizes = {name: az.size(region, name) for name in {each.vm_size for _, each in every}}
    for sign, each in every:
        size = sizes[each.vm_size]
        if size is None:
            if sign > 0:
                yield failed("quota", f"{region} has no {each.vm_size}", _elsewhere(each.vm_size))
            continue
        if sign > 0 and (why := _restricted(size)):
            yield failed(
                "quota", f"{each.vm_size} is not to be had in {region}: {why}",
                _elsewhere(each.vm_size), "cluster.node.vm_size",
            )  # fmt: skip
        vcpus = sign * each.count * _vcpus(size)
        for name in (str(size.get("family", "")), _REGION):
            need[name] = need.get(name, 0) + vcpus
    usage = {name.lower(): told for name, told in az.usage(region).items()}
    for name, vcpus in need.items():
        if vcpus > 0:
            yield _fits(name, vcpus, usage.get(name.lower()), region)


def _fits(name: str, vcpus: int, told: tuple[int, int] | None, region: str) -> Finding:
    called = "all families together" if name == _REGION else name
    if told is None:
        return warning("quota", f"Azure tells no quota of {called} in {region}")
    used, limit = told
    left = f"{max(0, limit - used)} of {limit} vCPUs of {called} are left in {region}"
    if used + vcpus > limit:
        return failed("quota", f"{left}, and {vcpus} are needed", _QUOTA, "nodes")
    return ok("quota", f"{left}; {vcpus} are needed")


def _vcpus(size: Mapping[str, object]) -> int:
    capabilities = size.get("capabilities")
    if isinstance(capabilities, list):
        for each in capabilities:
            if each.get("name") == "vCPUs":
                return int(each["value"])
    return 0


def _restricted(size: Mapping[str, object]) -> str:
    """Why this subscription may not use a VM size anywhere in the region."""
    restrictions = size.get("restrictions")
    for each in restrictions if isinstance(restrictions, list) else ():
        if each.get("type") == "Location":
            return str(each.get("reasonCode", "restricted"))
    return ""


def _elsewhere(vm_size: str) -> str:
    return f"another cluster.region: az vm list-skus --size {vm_size} --all --output table"


def _description(job: Job) -> Iterator[Finding]:
    check_buildable(job)
    yield ok("description", f"cluster={job.cluster.name} can be built as it is described")


def _terraform(limits: Limits) -> Iterator[Finding]:
    found = terraform.version(limits)
    if found[:2] < terraform.OLDEST:
        yield failed("terraform", f"{_dotted(found)} is too old", terraform.INSTALL)
    else:
        yield ok("terraform", _dotted(found))


def _az(az: Az) -> Iterator[Finding]:
    found = az.version()
    if found[:2] < _OLDEST_AZ:
        yield failed("az", f"{_dotted(found)} is older than {_dotted(_OLDEST_AZ)}", "az upgrade")
    else:
        yield ok("az", _dotted(found))


def _login(az: Az) -> Iterator[Finding]:
    account: Account = az.account()
    yield ok("login", f"{account.user} in the subscription {account.name}")


def _kubernetes(az: Az, job: Job) -> Iterator[Finding]:
    region, wanted = job.cluster.region, job.cluster.kubernetes_version.removeprefix("v")
    offered = az.versions(region)
    if not offered:
        yield warning("kubernetes", f"Azure does not tell what AKS builds in {region}")
    elif wanted in offered:
        yield ok("kubernetes", f"AKS builds {wanted} in {region}")
    else:
        minors = ", ".join(each for each in offered if each.count(".") == 1)
        yield failed(
            "kubernetes", f"AKS builds no {wanted} in {region}, but {minors}",
            f"az aks get-versions --location {region} --output table, then "
            "cluster.kubernetes_version", "cluster.kubernetes_version",
        )  # fmt: skip


def _kubectl(job: Job, limits: Limits) -> Iterator[Finding]:
    """imgpull speaks to a cluster itself: kubectl is for its user."""
    told = _told(["kubectl", "version", "--client", "--output", "json"], limits)
    found = re.search(r'"gitVersion":\s*"v1\.([0-9]+)', told or "")
    wanted = re.match(r"v?1\.([0-9]+)", job.cluster.kubernetes_version)
    if told is None:
        yield warning("kubectl", "is not on PATH; only hints ask for it", "az aks install-cli")
    elif found is None:
        yield warning("kubectl", "does not tell its version", "az aks install-cli")
    elif wanted and abs(int(found[1]) - int(wanted[1])) > 1:
        yield warning(
            "kubectl",
            f"1.{found[1]} is more than one minor version from the cluster's 1.{wanted[1]}",
            "az aks install-cli",
        )
    else:
        yield ok("kubectl", f"1.{found[1]}")


def _docker(job: Job, limits: Limits) -> Iterator[Finding]:
    engine = job.engine
    needed = isinstance(engine, schema.DockerEngine)
    command = engine.command if isinstance(engine, schema.DockerEngine) else "docker"
    told = _told([command, "version", "--format", "{{json .}}"], limits)
    try:
        version = json.loads(told or "")["Client"]["Version"]
    except (ValueError, KeyError, TypeError):
        version = None
    if version is not None:
        yield ok("docker", str(version))
    elif needed:
        yield failed(
            "docker", f"{command} does not answer, and engine=docker needs it",
            "install docker and start it, or use engine=incluster",
        )  # fmt: skip
    else:
        yield ok("docker", "does not answer; only engine=docker needs it")


def _told(command: list[str], limits: Limits) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    _, out, _ = ask(command, environment=os.environ, limit_s=limits.az_s)
    return out


def _guarded(check: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check's findings; what breaks it is one of them."""
    try:
        yield from look()
    except ImgpullError as error:
        field = "cluster" if isinstance(error, ConfigError) else ""
        yield of_error(check, error, INSTALL, field)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
