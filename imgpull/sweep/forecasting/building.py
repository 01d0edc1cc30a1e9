"""What a cluster that is built for a sweep costs, and the question that is asked before.

Hides how machines are priced, and what stands on the screen before anything is made.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from imgpull.errors import ConfigError
from imgpull.provisioning.costs import HourlyCost, hourly
from imgpull.provisioning.variables import Machines
from imgpull.sweep.forecasting.prices import Prices, read_prices

if TYPE_CHECKING:
    from imgpull.config.sweeping import SweepSettings
    from imgpull.sweep.shapes import Turn


def hourly_of(
    machines: Sequence[Machines], region: str, prices: Prices | None = None
) -> HourlyCost:
    """What these machines cost an hour."""
    told = prices or read_prices()

    def price(region: str, size: str) -> float | None:
        return told.vm_hour.get(f"{region}/{size}", told.vm_hour.get(size))

    return hourly(machines, region, price, told.currency or "")


def require_leave(
    turns: Sequence["Turn"], settings: "SweepSettings", lasts_s: float | None
) -> None:
    """Show what will be made, and ask; ConfigError when it may not be, with nothing made."""
    if not turns or settings.yes:
        return
    if not (sys.stdin is not None and sys.stdin.isatty()):
        raise ConfigError(
            f"a cluster would be built ({turns[0].shape.text} first), and nobody can be asked "
            "here: no terminal",
            hint="yes=true agrees beforehand; until=plan shows what it costs",
        )
    for line in proposal(turns, lasts_s):
        print(line, file=sys.stderr)
    print("build it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError("not agreed to: nothing was made", hint="yes=true does not ask")


def proposal(turns: Sequence["Turn"], lasts_s: float | None) -> list[str]:
    """What will be made: machines, cost an hour, for how long."""
    lines = ["a cluster is built on AKS for this sweep:"]
    for number, turn in enumerate(turns, 1):
        shape = turn.shape
        machines = ", ".join(f"{m.count} {m.vm_size} ({m.what})" for m in shape.machines)
        lines.append(
            f"  {number}. {machines} in {shape.region}: {hourly_of(shape.machines, shape.region)}"
        )
    told = "unknown" if lasts_s is None else f"{lasts_s / 3600:.1f} h"
    lines.append(f"  predicted: {told}, set-up included; ASSUMPTION: set-up was never timed")
    return lines
