"""What a cluster costs an hour, by the prices of the user, or that nobody said.

Hides the sum. Only machines are counted: disks, load balancer, registry and traffic come on top.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from imgpull.provisioning.variables import Machines

# Region and VM size -> what one machine costs an hour; None is unknown.
Price = Callable[[str, str], float | None]


@dataclass(frozen=True)
class HourlyCost:
    """Of a cluster; `value` None: a price is missing, for the sizes in `unknown`."""

    value: float | None
    unknown: tuple[str, ...]
    currency: str

    def __str__(self) -> str:
        if self.value is not None:
            amount = f"{self.value:.2f} {self.currency}".strip()
            return f"{amount} an hour for machines alone"
        sizes = ", ".join(self.unknown)
        return f"price unknown: conf/prices.yaml has none for {sizes}"


def no_price(region: str, vm_size: str) -> None:
    """Where no prices are known."""


def hourly(
    machines: Sequence[Machines], region: str, price: Price = no_price, currency: str = ""
) -> HourlyCost:
    """The sum; unknown as a whole when one price is."""
    parts = [(each, price(region, each.vm_size)) for each in machines if each.count]
    unknown = tuple(dict.fromkeys(each.vm_size for each, amount in parts if amount is None))
    if unknown:
        return HourlyCost(None, unknown, currency)
    return HourlyCost(sum(each.count * (amount or 0.0) for each, amount in parts), (), currency)
