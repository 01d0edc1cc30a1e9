"""Clusters of ours that nobody ended: found by their tags in Azure, wherever they were made.

Hides where to look. Without our tag nothing is touched, whatever its name; until its expiry a
cluster is somebody's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from imgpull.errors import ImgpullError
from imgpull.provisioning.az import Az, AzFailed, Group
from imgpull.provisioning.costs import HourlyCost, Price, hourly, no_price
from imgpull.provisioning.lifecycle import give_back
from imgpull.provisioning.place import every
from imgpull.provisioning.running import Limits, Say
from imgpull.provisioning.variables import ID, Machines


@dataclass(frozen=True)
class Found:
    """A cluster of ours in Azure."""

    group: Group
    machines: tuple[Machines, ...]
    cost: HourlyCost
    place: str  # its name where it was made from here; else empty

    def left_s(self, now: datetime | None = None) -> float | None:
        """Seconds until its expiry, below zero once it is over; None when no tag tells it."""
        if self.group.expiry is None:
            return None
        return (self.group.expiry - (now or datetime.now(UTC))).total_seconds()

    @property
    def is_expired(self) -> bool:
        """Whether it may be removed; one without a readable expiry is somebody's."""
        left_s = self.left_s()
        return left_s is not None and left_s <= 0


def look(az: Az, price: Price = no_price, currency: str = "") -> list[Found]:
    """All clusters of ours in the subscription, by name."""
    places = {place.values()["tags"][ID]: place.name for place in every()}
    found = []
    for group in az.our_groups():
        machines = tuple(Machines(name, size, count) for name, size, count in az.pools(group.name))
        cost = hourly(machines, group.region, price, currency)
        found.append(Found(group, machines, cost, places.get(group.identity, "")))
    return found


def remove(az: Az, found: Sequence[Found], say: Say, limits: Limits) -> list[str]:
    """Delete these and look again; what is still there, each with why."""
    still: list[str] = []
    for each in found:
        now = az.group(each.group.name)
        if now is None or now.identity != each.group.identity or now.tags != each.group.tags:
            say(f"{each.group.name} is not what it was: left alone")
            continue
        try:
            if each.place:
                give_back(each.place, say, limits=limits)
            else:
                az.delete_group(each.group.name, say)
        except ImgpullError as error:
            say(error.message)
        if az.group(each.group.name) is not None:
            still.append(f"{each.group.name}: {', '.join(_contents(az, each.group.name))}")
        else:
            say(f"gone: {each.group.name}")
    return still


def _contents(az: Az, group: str) -> list[str]:
    try:
        return az.resources(group) or ["empty"]
    except AzFailed as error:
        return [error.message]
