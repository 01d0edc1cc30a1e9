"""The program `az`: what Azure has, asked as JSON, and the few things that are changed through it.

Hides commands, their JSON and how a resource that is not there is told.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imgpull.errors import EngineFailed, EngineUnavailable
from imgpull.provisioning.azure_words import az_error, fix_of
from imgpull.provisioning.running import Limits, Say, ask, find, redact_environment
from imgpull.provisioning.variables import EXPIRY, ID, IMGPULL, MANAGED_BY, OWNER, SWEEP

INSTALL = "install the Azure CLI: learn.microsoft.com/cli/azure/install-azure-cli"
LOGIN = "az login, then az account set --subscription NAME"

_DELETE_S = 3600.0
# Only this code says that a group is gone: a subscription or tenant that is not seen "could not be
# found" either, and the cluster in it runs on.
_MISSING = "ResourceGroupNotFound"


class AzFailed(EngineFailed):
    """A command of az that failed."""

    @property
    def is_missing(self) -> bool:
        """Whether the resource group that was asked for does not exist."""
        return _MISSING in self.message


@dataclass(frozen=True)
class Account:
    """Who is logged in, and where it is billed."""

    subscription: str
    name: str
    user: str


@dataclass(frozen=True)
class Group:
    """A resource group of ours."""

    name: str
    region: str
    tags: Mapping[str, str]

    @property
    def identity(self) -> str:
        """Which cluster it is of."""
        return self.tags.get(ID, "")

    @property
    def owner(self) -> str:
        """Who made it."""
        return self.tags.get(OWNER, "unknown")

    @property
    def sweep(self) -> str:
        """For which sweep; none for a person."""
        return self.tags.get(SWEEP, "none")

    @property
    def expiry(self) -> datetime | None:
        """Until when it may stay; None when the tag is no moment."""
        try:
            found = datetime.fromisoformat(self.tags.get(EXPIRY, ""))
        except ValueError:
            return None
        return found if found.tzinfo else found.replace(tzinfo=UTC)


class Az:
    """The commands, of one subscription; None is the current one."""

    def __init__(self, subscription: str | None = None, limits: Limits = Limits()) -> None:  # noqa: B008
        self._subscription, self._limits = subscription, limits
        self._redact = redact_environment()

    def version(self) -> tuple[int, ...]:
        """Of the program; EngineUnavailable when it is not there or tells none."""
        told = self._json("version", anywhere=True)
        try:
            return tuple(int(part) for part in str(told["azure-cli"]).split("."))
        except (KeyError, TypeError, ValueError) as error:
            raise EngineUnavailable("az does not tell its version", hint=INSTALL) from error

    def account(self) -> Account:
        """Who is logged in; EngineUnavailable with the way to log in when nobody is."""
        try:
            told = self._json("account", "show")
        except AzFailed as error:
            raise EngineUnavailable(error.message, hint=LOGIN) from error
        if told.get("state", "Enabled") != "Enabled":
            raise EngineUnavailable(
                f"the subscription {told.get('name')} is {told['state']}",
                hint="az account set --subscription OTHER",
            )
        user = (told.get("user") or {}).get("name", "unknown")
        return Account(told["id"], told.get("name", ""), user)

    def usage(self, region: str) -> dict[str, tuple[int, int]]:
        """vCPUs in use and allowed, by family and for the region ("cores")."""
        rows = self._json("vm", "list-usage", "--location", region)
        return {
            row["name"]["value"]: (int(float(row["currentValue"])), int(float(row["limit"])))
            for row in rows
        }

    def size(self, region: str, vm_size: str) -> Mapping[str, Any] | None:
        """What Azure says of a VM size in a region: family, restrictions; None: it is not there."""
        rows = self._json(
            "vm", "list-skus", "--location", region, "--size", vm_size, "--all",
            "--resource-type", "virtualMachines",
        )  # fmt: skip
        return next((row for row in rows if row.get("name") == vm_size), None)

    def versions(self, region: str) -> list[str]:
        """Kubernetes versions that AKS builds in a region without long-term support's own plan."""
        told = self._json("aks", "get-versions", "--location", region)
        return [
            version
            for row in (told or {}).get("values", ())
            if "KubernetesOfficial" in (row.get("capabilities") or {}).get("supportPlan", ())
            for version in (row["version"], *(row.get("patchVersions") or {}))
        ]

    def group(self, name: str) -> Group | None:
        """A resource group, ours or not; None when there is none."""
        try:
            return _group(self._json("group", "show", "--name", name))
        except AzFailed as error:
            if error.is_missing:
                return None
            raise

    def our_groups(self) -> list[Group]:
        """Resource groups that carry our tag, but those that AKS keeps for a cluster."""
        rows = self._json("group", "list", "--tag", f"{MANAGED_BY}={IMGPULL}")
        ours = [_group(row) for row in rows if not row.get("managedBy")]
        names = {each.name.lower() for each in ours}
        # AKS hands a cluster's tags on to its own group, which goes with the cluster.
        orphans = [
            _group(row)
            for row in rows
            if row.get("managedBy") and _group_in(row["managedBy"]) not in names
        ]
        return sorted([*ours, *orphans], key=lambda each: each.name)

    def resources(self, group: str) -> list[str]:
        """What a group holds, each by kind and name."""
        try:
            rows = self._json("resource", "list", "--resource-group", group)
        except AzFailed as error:
            if error.is_missing:
                return []
            raise
        return sorted(f"{row['type']} {row['name']}" for row in rows)

    def pools(self, group: str) -> list[tuple[str, str, int]]:
        """Pools of the clusters in a group: name, VM size, nodes."""
        rows = self._json("aks", "list", "--resource-group", group)
        return [
            (pool["name"], pool["vmSize"], int(pool.get("count") or 0))
            for row in rows
            for pool in row.get("agentPoolProfiles") or ()
        ]

    def cluster(self, group: str, name: str) -> Mapping[str, Any]:
        """What Azure says of an AKS cluster."""
        found = self._json("aks", "show", "--resource-group", group, "--name", name)
        assert isinstance(found, dict)
        return found

    def registry(self, name: str) -> Mapping[str, Any]:
        """What Azure says of a container registry, wherever in the subscription it is."""
        found = self._json("acr", "show", "--name", name)
        assert isinstance(found, dict)
        return found

    def write_credentials(self, group: str, name: str, into: Path) -> None:
        """A cluster's access as a kubeconfig of its own, which nobody else may read."""
        with tempfile.TemporaryDirectory(prefix=".kubeconfig-", dir=into.parent) as directory:
            file = Path(directory) / "kubeconfig"
            self._run(
                "aks", "get-credentials", "--resource-group", group, "--name", name,
                "--context", name, "--file", str(file), "--overwrite-existing",
            )  # fmt: skip
            if not file.exists():
                raise AzFailed(
                    f"az aks get-credentials wrote no kubeconfig for {name}",
                    hint="az upgrade, then imgpull cluster credentials",
                )
            file.chmod(0o600)
            file.replace(into)

    def roles(self, principal: str, scope: str) -> list[str]:
        """Names of the roles that an identity has on a resource."""
        rows = self._json(
            "role", "assignment", "list", "--assignee", principal, "--scope", scope,
            "--include-inherited",
        )  # fmt: skip
        return [row["roleDefinitionName"] for row in rows]

    def give_role(self, principal: str, role: str, scope: str) -> None:
        """Give an identity a role on a resource."""
        self._run(
            "role", "assignment", "create", "--assignee-object-id", principal,
            "--assignee-principal-type", "ServicePrincipal", "--role", role, "--scope", scope,
        )  # fmt: skip

    def delete_group(self, name: str, say: Say) -> None:
        """Delete a resource group with all that is in it, and wait until Azure says so."""
        say(f"deleting the resource group {name} with all that is in it")
        self._run("group", "delete", "--name", name, "--yes", limit_s=_DELETE_S)

    def _json(self, *arguments: str, anywhere: bool = False) -> Any:
        text = self._run(*arguments, anywhere=anywhere)
        try:
            return json.loads(text) if text.strip() else []
        except ValueError as error:
            raise AzFailed(
                f"az {' '.join(arguments[:2])} answered no JSON: {self._redact(text[:200])}",
                hint="az upgrade",
            ) from error

    def _run(self, *arguments: str, limit_s: float | None = None, anywhere: bool = False) -> str:
        program = find("az", INSTALL)
        command = [program, *arguments, "--output", "json", "--only-show-errors"]
        if self._subscription is not None and not anywhere:
            command += ["--subscription", self._subscription]
        # A command that asks something would wait for ever.
        environment = {**os.environ, "AZURE_CORE_NO_COLOR": "1", "AZURE_CORE_COLLECT_TELEMETRY":
                       "0", "AZURE_EXTENSION_USE_DYNAMIC_INSTALL": "no"}  # fmt: skip
        allowed_s = self._limits.az_s if limit_s is None else min(limit_s, self._limits.terraform_s)
        code, out, errors = ask(command, environment=environment, limit_s=allowed_s)
        what = f"az {' '.join(each for each in arguments[:3] if not each.startswith('-'))}"
        if code is None:
            raise AzFailed(
                f"{what} did not end within {allowed_s:.0f} s",
                hint=f"try it: {what} --debug; status.azure.com tells of outages",
            )
        if code != 0:
            words = self._redact(az_error(errors or out))
            raise AzFailed(f"{what}: {words}", hint=fix_of(words, f"try it: {what} --debug"))
        return out


def _group(row: Mapping[str, Any]) -> Group:
    return Group(row["name"], row.get("location", ""), row.get("tags") or {})


def _group_in(resource_id: str) -> str:
    """The resource group of an id, in lower case: /subscriptions/S/resourceGroups/G/…"""
    parts = resource_id.lower().split("/")
    return parts[parts.index("resourcegroups") + 1] if "resourcegroups" in parts else ""
