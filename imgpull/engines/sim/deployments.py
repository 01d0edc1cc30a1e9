"""A Deployment's manifest as far as the simulator reads it, and label selectors over it.

Hides Kubernetes' shape of both, and refuses what the simulator would have to ignore.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imgpull import cl2
from imgpull.errors import RenderError

# apimachinery pkg/labels: the equality-based part of the selector language.
_EQUALITY = re.compile(r"([\w./-]+)\s*==?\s*([\w.-]+)")


@dataclass(frozen=True)
class Deployment:
    """What the simulator needs of a Deployment and of its one container."""

    replicas: int
    labels: Mapping[str, str]
    pod_labels: Mapping[str, str]
    image: str
    pull_policy: str
    host_network: bool
    grace_s: float


def deployment(manifest: dict[str, Any], bundled: cl2.ObjectBundle) -> Deployment:
    """The Deployment of a manifest; RenderError, with the line, for anything else."""
    if manifest.get("kind") != "Deployment":
        raise RenderError(
            f"{_place(bundled, 'kind')}: the simulator creates Deployments, "
            f"not {manifest.get('kind')}",
            hint="use a real engine for other kinds",
        )
    try:
        template = manifest["spec"]["template"]
        spec = template["spec"]
        if spec.get("initContainers"):
            raise RenderError(
                f"{_place(bundled, 'initContainers')}: the simulator knows no initContainers",
                hint="leave them out, or use a real engine",
            )
        (container,) = spec["containers"]
        return Deployment(
            replicas=int(manifest["spec"].get("replicas", 1)),
            labels=manifest["metadata"].get("labels") or {},
            pod_labels=(template.get("metadata") or {}).get("labels") or {},
            image=container["image"],
            pull_policy=container.get("imagePullPolicy", "IfNotPresent"),
            host_network=bool(spec.get("hostNetwork", False)),
            grace_s=float(spec.get("terminationGracePeriodSeconds", 30)),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RenderError(
            f"{bundled.template}: not a Deployment with one container ({error!r})",
            hint="compare with templates/deployment.yaml as it was",
        ) from error


def _place(bundled: cl2.ObjectBundle, key: str) -> str:
    lines = bundled.template_path.read_text("utf-8").splitlines()
    found = (number for number, line in enumerate(lines, 1) if line.strip().startswith(f"{key}:"))
    return f"{bundled.template}:{next(found, 1)}"


def selects(selector: str, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches, as CL2 asks the API; ValueError for set-based ones."""
    wanted = {}
    for part in filter(None, map(str.strip, selector.split(","))):
        match = _EQUALITY.fullmatch(part)
        if match is None:
            raise ValueError(f"'{part}' is no KEY=VALUE")
        wanted[match[1]] = match[2]
    return all(key in labels and str(labels[key]) == value for key, value in wanted.items())
