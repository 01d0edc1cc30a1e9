"""A cluster's life: proposed, agreed to, built, made smaller or larger, and given back.

Hides the order of things, and what follows from each failure: what was begun new and failed is
destroyed. A cluster that was not made from here is left alone,
whatever it is called: both the state here and the tags there must say that it is ours.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from imgpull.cluster.findings import require
from imgpull.config.job import Job
from imgpull.errors import ConfigError, EngineFailed, ImgpullError
from imgpull.provisioning import requirements
from imgpull.provisioning.az import Account, Az, Group
from imgpull.provisioning.buildable import lifetime_s
from imgpull.provisioning.place import Place, identity
from imgpull.provisioning.readiness import wait_ready
from imgpull.provisioning.removal import remove
from imgpull.provisioning.running import Limits, Say
from imgpull.provisioning.terraform import Change, Terraform
from imgpull.provisioning.variables import (
    EXPIRY,
    ID,
    OWNER,
    SWEEP,
    Asked,
    Machines,
    machines,
    variables,
)


@dataclass(frozen=True)
class Provisioned:
    """A cluster that can be measured."""

    name: str
    kubeconfig: Path
    context: str
    variables: Path  # terraform.tfvars.json: no secret is in it
    is_new: bool
    changes: tuple[Change, ...] = ()  # what was done to it
    expiry: datetime | None = None


@dataclass(frozen=True)
class Standing:
    """A cluster of ours that is there, as far as is known here."""

    machines: tuple[Machines, ...]
    region: str
    expiry: datetime


@dataclass(frozen=True)
class Proposal:
    """What would be done; nothing is yet."""

    name: str
    is_new: bool
    values: Mapping[str, Any]
    changes: tuple[Change, ...]

    @property
    def machines(self) -> list[Machines]:
        """What the cluster will consist of."""
        return machines(self.values)

    @property
    def expiry(self) -> str:
        """From when on the janitor removes it."""
        return str(self.values["tags"][EXPIRY])


Agree = Callable[[Proposal], bool]


class Declined(Exception):
    """The proposal was not agreed to: nothing was done."""


def agreed(proposal: Proposal) -> bool:
    """Agree to whatever is proposed: for a sweep, whose plan was agreed to as a whole."""
    return True


def ensure(
    job: Job,
    say: Say,
    *,
    name: str | None = None,
    sweep: str = "",
    agree: Agree = agreed,
    limits: Limits = Limits(),  # noqa: B008
    until: datetime | None = None,
    lasting: Say | None = None,
) -> Provisioned:
    """Have a cluster as this Job describes it: built, changed in what differs, or found as it is.

    `until`: it may stay for so long at least. `lasting` is told what must stay on the screen.

    ConfigError for what cannot be built, EngineUnavailable before anything was done, EngineFailed
    after it was undone, or with the command that undoes it; Declined; KeyboardInterrupt after it
    was said what exists.
    """
    place = Place(name or job.cluster.name)
    az = Az(job.cluster.azure.subscription, limits)
    account = az.account()
    with place.locked():
        before = place.values() if place.is_made else None
        asked = _asked(job, place.name, account, sweep, before, until)
        work = _Work(place, Az(account.subscription, limits), limits, say, lasting)
        with _cleared(place, is_new=before is None):
            return work.shape(variables(job, asked), before, agree)


def _asked(
    job: Job,
    name: str,
    account: Account,
    sweep: str,
    before: Mapping[str, Any] | None,
    least: datetime | None,
) -> Asked:
    """Who asks for it; of a cluster that is there, who did.

    Another tag is another update of everything: the expiry is renewed when half of it is over, or
    when more is asked for.
    """
    now, lifetime = datetime.now(UTC), timedelta(seconds=lifetime_s(job.cluster))
    owner, expiry = job.cluster.azure.owner or account.user, max(now + lifetime, least or now)
    if before is None:
        known = identity(name, secrets.token_hex(3))
        return Asked(name, account.subscription, owner, known, expiry, sweep)
    tags = before["tags"]
    kept = datetime.fromisoformat(tags[EXPIRY])
    is_enough = kept >= least if least is not None else kept - now > lifetime / 2
    until = kept if is_enough else max(kept, expiry)
    return Asked(name, account.subscription, tags[OWNER], tags[ID], until, tags[SWEEP])


def resize(
    name: str,
    nodes: int,
    say: Say,
    *,
    agree: Agree = agreed,
    limits: Limits = Limits(),  # noqa: B008
) -> Provisioned:
    """Give a cluster of ours another number of measured nodes. Errors as of `ensure`."""
    place = Place(name)
    before = place.values()
    if not 1 <= nodes <= 1000:
        raise ConfigError(f"--nodes {nodes} is not from 1 to 1000", hint="--nodes 10")
    with place.locked():
        work = _Work(place, Az(before["subscription_id"], limits), limits, say)
        return work.shape({**before, "measured_node_count": nodes}, before, agree)


def give_back(name: str, say: Say, *, limits: Limits = Limits()) -> None:  # noqa: B008
    """Destroy a cluster of ours and see that it is gone; EngineFailed lists what is not."""
    place = Place(name)
    values = place.values()
    with place.locked():
        work = _Work(place, Az(values["subscription_id"], limits), limits, say)
        work.check_ours(values, before=values)
        work.remove(values)
        place.forget()


def standing(name: str) -> Standing | None:
    """What of a cluster was made from here; None when it was not, or is gone."""
    place = Place(name)
    if not place.is_made:
        return None
    values = place.values()
    expiry = datetime.fromisoformat(values["tags"][EXPIRY])
    return Standing(tuple(machines(values)), values["location"], expiry)


def require_room(
    name: str,
    job: Job,
    largest: Sequence[Sequence[Machines]],
    limits: Limits = Limits(),  # noqa: B008
) -> None:
    """EngineUnavailable when the quota has no room for one of these, beyond what stands."""
    place = Place(name)
    az = Az(Az(job.cluster.azure.subscription, limits).account().subscription, limits)
    made = place.values() if place.is_made else None
    stands = made is not None and az.group(made["resource_group_name"]) is not None
    before = machines(made) if made is not None and stands else None
    for each in largest:
        require(requirements.quota(az, job.cluster.region, list(each), before))


def refresh_credentials(name: str, say: Say, limits: Limits = Limits()) -> Provisioned:  # noqa: B008
    """Write the kubeconfig of a cluster of ours anew."""
    place = Place(name)
    values = place.values()
    work = _Work(place, Az(values["subscription_id"], limits), limits, say)
    work.credentials(values)
    return _provisioned(place, values, is_new=False)


def _provisioned(
    place: Place, values: Mapping[str, Any], *, is_new: bool, changes: tuple[Change, ...] = ()
) -> Provisioned:
    return Provisioned(
        place.name, place.kubeconfig, values["cluster_name"], place.variables, is_new, changes,
        datetime.fromisoformat(values["tags"][EXPIRY]),
    )  # fmt: skip


@contextmanager
def _cleared(place: Place, *, is_new: bool) -> Iterator[None]:
    """Nothing is left of a place where nothing was made."""
    try:
        yield
    except BaseException as end:
        if is_new and not place.is_made:
            place.forget(keep_log=isinstance(end, ImgpullError))
        raise


@dataclass(frozen=True)
class _Work:
    """One change of one cluster, whose place is held."""

    place: Place
    az: Az
    limits: Limits
    say: Say
    lasting: Say | None = None

    @property
    def terraform(self) -> Terraform:
        return Terraform(self.place, self.limits)

    def tell(self, text: str) -> None:
        """Say what must not pass by."""
        (self.lasting or self.say)(text)

    def shape(
        self, values: Mapping[str, Any], before: Mapping[str, Any] | None, agree: Agree
    ) -> Provisioned:
        """Bring the cluster to these variables."""
        if self.check_ours(values, before) is None:
            before = None  # removed elsewhere, by a janitor: all of it is made anew
        # One that never got so far as to have credentials was never usable.
        is_new = before is None or not self.place.kubeconfig.exists()
        self._check_quota(values, before)
        self.place.lay(values)
        self.say("terraform plan: what has to be done")
        self.terraform.init(self.say)
        changes = tuple(self.terraform.plan(self.say))
        _require_registry_stays(before, changes)
        if changes and not agree(Proposal(self.place.name, is_new, values, changes)):
            raise Declined
        self.check_ours(values, before)  # while the question stood there, others may have built
        self.place.adopt()
        try:
            if changes:
                self.terraform.apply(self.say)
            self.credentials(values)
            wait_ready(self.place.kubeconfig, values["cluster_name"], values, self.say, self.limits)
        except ImgpullError as error:
            raise self._after_failure(error, values, is_new=is_new) from error
        except BaseException:  # Ctrl-C, or an error of this machine: no reason to destroy
            self._tell_what_exists()
            raise
        return _provisioned(self.place, values, is_new=is_new, changes=changes)

    def check_ours(
        self, values: Mapping[str, Any], before: Mapping[str, Any] | None
    ) -> Group | None:
        """Its resource group; ConfigError for one, or a cluster, that was not made from here."""
        for key, called in _FIXED.items():
            if before is not None and before[key] != values[key]:
                raise ConfigError(
                    f"the cluster '{self.place.name}' was made with {called}={before[key]}, not "
                    f"{values[key]}",
                    hint="another --name makes another cluster",
                )
        group = self.az.group(values["resource_group_name"])
        if group is not None and (before is None or group.identity != before["tags"][ID]):
            raise ConfigError(
                f"the resource group {group.name} exists, and "
                + ("no state here" if before is None else "not its tags")
                + f" says that '{self.place.name}' is it",
                hint="cluster.azure.resource_group=OTHER; if it is an old one of ours: imgpull "
                "janitor --azure",
            )
        return group

    def credentials(self, values: Mapping[str, Any]) -> None:
        """Write the kubeconfig."""
        self.say(f"credentials: {self.place.kubeconfig}")
        self.az.write_credentials(
            values["resource_group_name"], values["cluster_name"], self.place.kubeconfig
        )

    def remove(self, values: Mapping[str, Any]) -> None:
        """Destroy all of it. Errors as of `removal.remove`."""
        remove(self.place, self.az, values, self.say, self.limits)

    def _check_quota(self, values: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        running = machines(before) if before is not None else None
        if running == machines(values):
            return
        require(requirements.quota(self.az, values["location"], machines(values), running))

    def _after_failure(
        self, error: ImgpullError, values: Mapping[str, Any], *, is_new: bool
    ) -> ImgpullError:
        """The error to raise: of a new cluster nothing stays."""
        if not is_new:
            return EngineFailed(
                f"{error.message}; the cluster '{self.place.name}' stays as far as it was changed",
                hint=f"{error.hint}; imgpull cluster status {self.place.name}",
            )
        self.tell(f"{error.message}")
        self.tell("it is not usable: what was made is destroyed")
        try:
            self.remove(values)
        except ImgpullError as second:
            return EngineFailed(f"{error.message}; then: {second.message}", hint=second.hint)
        except KeyboardInterrupt:
            self._tell_what_exists()
            raise
        self.place.forget(keep_log=True)
        return EngineFailed(f"{error.message}; all that was made is destroyed", hint=error.hint)

    def _tell_what_exists(self) -> None:
        """After Ctrl-C: what may cost something now, and the command that ends it."""
        try:
            found = self.terraform.resources()
        except ImgpullError as error:
            found = [f"not known ({error.message})"]
        exists = ", ".join(found) or "nothing that Terraform knows of"
        self.tell(f"interrupted; what exists: {exists}")
        self.tell(f"remove it:   imgpull cluster down {self.place.name} --yes")
        if self.lasting is None:  # a sweep says itself how it goes on
            self.tell("or go on:    the same command again")


def _require_registry_stays(before: Mapping[str, Any] | None, changes: Sequence[Change]) -> None:
    """ConfigError for a plan that deletes the registry of a cluster that stays, with its images."""
    ends = any(
        each.action in ("delete", "replace") and each.address.startswith(_REGISTRY)
        for each in changes
    )
    if before is not None and ends:
        name = before["registry_name"]
        raise ConfigError(
            f"the registry {name}.azurecr.io was made with the cluster, and would be deleted with "
            "every image in it",
            hint=f"repeat cluster.registry.server={name}.azurecr.io; if it shall go, first: "
            f"az acr delete --name {name}",
        )


_REGISTRY = "azurerm_container_registry."
# What cannot change without being another cluster.
_FIXED = {
    "subscription_id": "cluster.azure.subscription",
    "resource_group_name": "cluster.azure.resource_group",
    "location": "cluster.region",
    "cluster_name": "--name",
}
