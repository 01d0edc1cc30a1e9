"""A cluster's end: by Terraform, else with its resource group, and then seen to be gone.

Hides what counts as gone: Azure's own word that the group is not there. What it does not tell may
still run, so that the state, which knows the way to remove it, stays. A group that is not ours by
its tags is never deleted, nor named for deletion.
"""

from collections.abc import Mapping
from typing import Any

from imgpull.errors import EngineFailed, ImgpullError
from imgpull.provisioning.az import Az, AzFailed, Group
from imgpull.provisioning.place import Place
from imgpull.provisioning.running import Limits, Say
from imgpull.provisioning.terraform import Terraform
from imgpull.provisioning.variables import ID

_ROLE = "azurerm_role_assignment."


def remove(place: Place, az: Az, values: Mapping[str, Any], say: Say, limits: Limits) -> None:
    """Destroy all of it; EngineFailed tells what is still there, or may be, and how to go on."""
    terraform, name = Terraform(place, limits), values["resource_group_name"]
    again = f"imgpull cluster down {place.name} --yes, again"
    trouble: ImgpullError | None = None
    try:
        if terraform.resources():
            say("terraform destroy")
            terraform.destroy(say)
    except ImgpullError as error:
        trouble = error
        say(f"{error.message}; the resource group goes instead")
    try:
        group = az.group(name)
        # What Terraform lost track of is in our group all the same.
        if group is not None and _is_ours(group, values):
            try:
                az.delete_group(name, say)
            except AzFailed as error:
                trouble = error
            group = az.group(name)
    except AzFailed as error:
        first = f"{trouble.message}; " if trouble else ""
        raise EngineFailed(
            f"{first}whether the resource group {name} is gone cannot be told: {error.message}",
            hint=f"{error.hint}; then {again}: what is known of it stays in {place.directory}",
        ) from error
    if group is not None and _is_ours(group, values):
        raise EngineFailed(
            f"{trouble.message if trouble else 'not all of it is gone'}; still there: "
            f"{', '.join(contents(az, name))}",
            hint=f"{again}; or: az group delete --name {name}",
        )
    _require_nothing_outside(terraform, values, group, trouble, again)
    if group is None:
        say(f"gone: the resource group {name}")
    else:
        say(f"the resource group {name} is not ours (owner: {group.owner}), and nothing of ours is "
            "in it: left alone")  # fmt: skip


def contents(az: Az, group: str) -> list[str]:
    """What is in a group, as far as it can be told."""
    try:
        return az.resources(group) or [f"the resource group {group}"]
    except AzFailed as error:
        return [error.message]


def _require_nothing_outside(
    terraform: Terraform, values: Mapping[str, Any], group: Group | None,
    trouble: ImgpullError | None, again: str,
) -> None:  # fmt: skip
    """EngineFailed when the state knows of something that no group of ours held."""
    scope = values["registry_id"]
    # All but a role on a registry elsewhere went with our group, whatever the state says.
    if trouble is None or (group is None and not scope):
        return
    known = terraform.resources()
    if known and group is not None:
        raise EngineFailed(
            f"{trouble.message}; the resource group {group.name} is not ours by its tags, and is "
            f"left alone; Terraform knows of: {', '.join(known)}",
            hint=f"ask its owner ({group.owner}), then {again}",
        )
    if any(each.startswith(_ROLE) for each in known):
        orphans = f"az role assignment list --scope {scope} --role AcrPull"
        raise EngineFailed(
            f"{trouble.message}; its resource group is gone, and the role AcrPull of its nodes on "
            f"{scope} is left",
            hint=f"{again}; before it, where this login may not: az role assignment delete --ids "
            f"$({orphans} --query \"[?principalName==''].id\" --output tsv)",
        )


def _is_ours(group: Group, values: Mapping[str, Any]) -> bool:
    return bool(group.identity == values["tags"][ID])
