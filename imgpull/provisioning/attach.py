"""The step by which a cluster may pull from a registry: a role for its nodes' own identity.

Hides how both are found, and which role counts. Nothing on the cluster changes: the role is the
registry's, which may be in another subscription.
"""

import re
import time
from dataclasses import dataclass

from imgpull.errors import ConfigError, EngineFailed
from imgpull.provisioning.az import Az
from imgpull.provisioning.running import Limits, Say

_REGISTRY_ID = re.compile(
    r"/subscriptions/([^/]+)/resourceGroups/[^/]+/providers/Microsoft\.ContainerRegistry/"
    r"registries/([^/]+)",
    re.IGNORECASE,
)
_LOOKS = 6
_ABAC_ROLE, _ROLE = "Container Registry Repository Reader", "AcrPull"


@dataclass(frozen=True)
class Attachment:
    """What would be done."""

    cluster: str
    principal: str  # the kubelet identity's object id
    registry: str
    scope: str
    role: str
    is_there: bool

    @property
    def undo(self) -> str:
        """The command that takes it back."""
        return (
            f"az role assignment delete --assignee {self.principal} --role '{self.role}' "
            f"--scope {self.scope}"
        )


def propose(
    registry: str,
    *,
    cluster: str,
    group: str,
    subscription: str | None,
    registry_subscription: str | None,
    limits: Limits = Limits(),  # noqa: B008
) -> Attachment:
    """What it takes to let this cluster pull from this registry (a name or a resource id)."""
    found = _REGISTRY_ID.fullmatch(registry)
    name = found[2] if found else registry.removesuffix(".azurecr.io")
    there = Az((found[1] if found else None) or registry_subscription or subscription, limits)
    here = Az(subscription, limits)
    told = here.cluster(group, cluster)
    kubelet = (told.get("identityProfile") or {}).get("kubeletidentity") or {}
    principal = kubelet.get("objectId")
    if not principal:
        raise ConfigError(
            f"the cluster {cluster} has no kubelet identity: it uses a service principal",
            hint=f"az aks update --resource-group {group} --name {cluster} --attach-acr {name}",
        )
    acr = there.registry(name)
    # A registry with permissions by repository does not look at AcrPull.
    abac = str(acr.get("roleAssignmentMode", "")).lower().startswith("abac")
    role, scope = (_ABAC_ROLE if abac else _ROLE), str(acr["id"])
    is_there = role in there.roles(principal, scope)
    return Attachment(cluster, principal, str(acr.get("loginServer", name)), scope, role, is_there)


def attach(what: Attachment, say: Say, limits: Limits = Limits()) -> None:  # noqa: B008
    """Give the role, and look whether it is there."""
    subscription = what.scope.split("/")[2]
    az = Az(subscription, limits)
    az.give_role(what.principal, what.role, what.scope)
    for _ in range(_LOOKS):  # Azure lists a new role some seconds later
        if what.role in az.roles(what.principal, what.scope):
            break
        time.sleep(limits.poll_s)
    else:
        raise EngineFailed(
            f"the role {what.role} on {what.registry} was given, and is not listed",
            hint=f"some minutes later: az role assignment list --assignee {what.principal} "
            f"--scope {what.scope}",
        )
    say(f"attached: nodes of {what.cluster} may pull from {what.registry}, within some minutes")
