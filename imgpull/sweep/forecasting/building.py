"""What a cluster that is built for a sweep takes and costs, and the question that is asked before.

Hides how set-up is reckoned, and what stands on the screen before anything is made. How long
Terraform takes is assumed (`provisioning.*`): it was never timed on Azure.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imgpull import units
from imgpull.errors import ConfigError
from imgpull.provisioning.costs import HourlyCost, hourly
from imgpull.provisioning.shapes import Shape
from imgpull.provisioning.variables import Machines
from imgpull.sweep import shapes
from imgpull.sweep.forecasting.prices import Prices, read_prices
from imgpull.sweep.plan import Planned

if TYPE_CHECKING:
    from imgpull.config.sweeping import SweepSettings


@dataclass(frozen=True)
class Setup:
    """A change of the cluster before a trial: `key` of provisioning says how long it may take."""

    planned: Planned  # that waits for it
    shape: Shape
    key: str  # create, pool or resize
    took_s: float


def setups(plan: Sequence[Planned]) -> list[Setup]:
    """The changes of the cluster that trials in this order wait for.

    Of a sweep that goes on the cluster may be there still: not known here, so it is reckoned anew.
    """
    found: list[Setup] = []
    before: Shape | None = None
    for planned in plan:
        shape = shapes.shape_of(planned.cell)
        if shape is None or shape == before:
            continue
        key = "pool" if before is None or shape.pool != before.pool else "resize"
        key = "create" if before is None else key
        found.append(Setup(planned, shape, key, assumed_s(planned, key)))
        before = shape
    return found


def assumed_s(planned: Planned, key: str) -> float:
    """How long a part of provisioning is assumed to take."""
    return units.parse_duration(str(planned.cell.values["provisioning"][key]))


def hourly_of(
    machines: Sequence[Machines], region: str, prices: Prices | None = None
) -> HourlyCost:
    """What these machines cost an hour."""
    told = prices or read_prices()

    def price(where: str, size: str) -> float | None:
        return told.vm_hour.get(f"{where}/{size}", told.vm_hour.get(size))

    return hourly(machines, region, price, told.currency or "")


def require_leave(
    plan: Sequence[Planned], settings: "SweepSettings", lasts_s: float | None
) -> None:
    """Show what will be made, and ask; ConfigError when it may not be, with nothing made."""
    changes = setups(plan)
    if not changes or settings.yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError(
            f"a cluster would be built ({changes[0].shape.text} first), and nobody can be asked "
            "here: no terminal",
            hint="yes=true agrees beforehand; until=plan shows what it costs",
        )
    for line in proposal(changes, lasts_s):
        print(line, file=sys.stderr)
    print("build it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError("not agreed to: nothing was made", hint="yes=true does not ask")


def proposal(changes: Sequence[Setup], lasts_s: float | None) -> list[str]:
    """What will be made: machines, their cost an hour, for how long, and when it expires."""
    cluster = changes[0].planned.job.cluster
    lines = [f"a cluster is built on AKS in {cluster.region} for this sweep:"]
    for number, change in enumerate(changes, 1):
        shape = change.shape
        machines = ", ".join(f"{m.count} {m.vm_size} ({m.what})" for m in shape.machines)
        cost = hourly_of(shape.machines, shape.region)
        lines.append(f"  {number}. {machines}: {cost}")
    took = units.format_duration(sum(change.took_s for change in changes))
    lasts = "unknown" if lasts_s is None else f"{lasts_s / 3600:.1f} h"
    lines.append(f"  predicted: {lasts}, of which {took} set-up (ASSUMPTION: never timed on Azure)")
    lines.append(
        f"  expiry:    the prediction and half of it more, at least {cluster.azure.lifetime}; then "
        "imgpull janitor --azure --yes, by cron, removes what is left: nothing does by itself"
    )
    return lines
