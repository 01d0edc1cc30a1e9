"""What Azure, az and Terraform say when something fails, and the one action that mends it.

Hides their error texts. An error that is not known here keeps its own words.
"""

import re
from collections.abc import Sequence

_BOX = re.compile(r"^[│╷╵\s]*")
_LONGEST = 600

# The first that is found in the text counts: the particular before the general.
_FIXES: Sequence[tuple[str, str]] = (
    (r"az login|AADSTS|No subscription found|token has expired|refresh token|"
     r"could not acquire access token|Azure CLI.*not.*logged",
     "az login, then the same command again"),
    (r"ErrCode_InsufficientVCPUQuota|QuotaExceeded|exceeding approved .* [Qq]uota|vCPU quota",
     "use fewer nodes or another cluster.node.vm_size, or ask for more: az quota, or the portal's "
     "Quotas page; imgpull doctor --azure shows what is left"),
    (r"SkuNotAvailable|NotAvailableForSubscription|is not allowed in your subscription in location|"
     r"AllocationFailed|ZonalAllocationFailed|OverconstrainedAllocation",
     "another cluster.region or cluster.node.vm_size: az vm list-skus --location REGION --size "
     "SIZE --output table tells where it is"),
    (r"K8sVersionNotSupported|AgentPoolK8sVersionNotSupported|is only available for Long-Term",
     "az aks get-versions --location REGION --output table, then cluster.kubernetes_version"),
    (r"roleAssignments/write|Microsoft\.Authorization/roleAssignments",
     "cluster.azure.registry=none, and an administrator: imgpull cluster attach-acr REGISTRY"),
    (r"RequestDisallowedByPolicy|disallowed by policy",
     "a policy of the subscription forbids it: ask its owner, or cluster.azure.subscription=OTHER"),
    (r"AuthorizationFailed|does not have authorization|LinkedAuthorizationFailed",
     "this login needs the role Contributor on the subscription: az role assignment list --all "
     "--assignee YOU"),
    (r"MissingSubscriptionRegistration|not registered to use namespace|SubscriptionNotRegistered",
     "az provider register --namespace Microsoft.ContainerService, and the one that it names"),
    (r"RegistryNameInUse|AlreadyInUse.*registry|registry DNS name .* already in use|"
     r"AlreadyInUse",
     "another name: cluster.registry.server=OTHERNAME.azurecr.io"),
    (r"needs to be imported into the State|ResourceGroupAlreadyExists|already exists - to be",
     "it is not ours: another cluster.azure.resource_group=NAME"),
    (r"Error acquiring the state lock|state lock",
     "another imgpull or terraform works on it: wait; if none does, terraform force-unlock in the "
     "named folder"),
    (r"does not match configured version constraint",
     "terraform init -upgrade in the named folder, or remove its .terraform.lock.hcl"),
    (r"Failed to query available provider packages|could not connect to registry|"
     r"Failed to install provider",
     "Terraform's provider cannot be had from here: look at the network, or see terraform/README.md"
     " for a mirror"),
    (r"Unsupported Terraform Core version|required_version", "install Terraform 1.9 or newer"),
    (r"TooManyRequests|\b429\b|OperationNotAllowed.*another operation|AnotherOperationInProgress",
     "wait some minutes, then the same command again"),
    (r"no such host|connection refused|i/o timeout|Failed to establish a new connection|"
     r"TLS handshake timeout",
     "Azure cannot be reached from here: look at the network and its proxy"),
)  # fmt: skip


def fix_of(text: str, otherwise: str) -> str:
    """The action for the failure that a text tells of."""
    for pattern, fix in _FIXES:
        if re.search(pattern, text, re.IGNORECASE):
            return fix
    return otherwise


def terraform_error(lines: Sequence[str]) -> str:
    """The errors in Terraform's output, in one line; its last words when it names none."""
    plain = [_BOX.sub("", line).strip() for line in lines]
    begins = [index for index, line in enumerate(plain) if line.startswith("Error: ")]
    found: list[str] = []
    for begin in begins:
        error = plain[begin].removeprefix("Error: ")
        detail = _detail(plain[begin + 1 :])
        found.append(f"{error}: {detail}" if detail and detail not in error else error)
    words = "; ".join(dict.fromkeys(found)) or " ".join(" ".join(plain[-5:]).split())
    return words[:_LONGEST] or "it said nothing"


def _detail(lines: Sequence[str]) -> str:
    """What stands below an error: not where in the code it was."""
    told: list[str] = []
    for line in lines:
        if line.startswith(("Error: ", "Warning: ")):
            break
        if line and not re.match(r"with \S+,$|on \S+ line \d+|\d+: |├|│", line):
            told.append(line)
    return " ".join(told)


def az_error(errors: str) -> str:
    """What az says of its failure, in one line."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    told = [line.removeprefix("ERROR: ") for line in lines if not line.startswith("WARNING: ")]
    return " ".join(told)[:_LONGEST] or "it said nothing"
