"""Clusters of ours that nobody ended: found by their tags in Azure, wherever they were made.

Hides where to look. Without our tag nothing is touched, whatever its name; until its expiry a
cluster is somebody's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from imgpull.errors import ImgpullError
from imgpull.provisioning.az import Az, Group
from imgpull.provisioning.costs import Price, hourly, no_price
from imgpull.provisioning.lifecycle import give_back
from imgpull.provisioning.place import every
from imgpull.provisioning.removal import contents
from imgpull.provisioning.running import Limits, Say
from imgpull.provisioning.variables import ID, Machines


@dataclass(frozen=True)
class Found:
    """A cluster of ours in Azure."""

    group: Group
    machines: tuple[Machines, ...]
    cost: str  # an hour
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


def made_here(untold: Say) -> dict[str, tuple[str, str]]:
    """Name and subscription of each cluster made from here, by identity.

    What could not be looked at is told to `untold`: it keeps no other from being found.
    """
    found = {}
    for place in every():
        try:
            values = place.values()
            found[values["tags"][ID]] = (place.name, values["subscription_id"])
        except ImgpullError as error:
            untold(f"{place.name}: {error.message}")
    return found


def look(
    az: Az,
    here: Mapping[str, tuple[str, str]],
    untold: Say,
    price: Price = no_price,
    currency: str = "",
) -> list[Found]:
    """All clusters of ours in the subscription, by name; `here` as of `made_here`."""
    found = []
    for group in az.our_groups():
        try:
            machines = tuple(Machines(*each) for each in az.pools(group.name))
            cost = str(hourly(machines, group.region, price, currency))
        except ImgpullError as error:
            # Its expiry is known all the same.
            untold(f"machines of {group.name}: {error.message}")
            machines, cost = (), "price unknown: its machines are"
        found.append(Found(group, machines, cost, here.get(group.identity, ("", ""))[0]))
    return found


def remove(az: Az, found: Sequence[Found], say: Say, limits: Limits) -> list[str]:
    """Delete these and look again; what is still there, or may be, each with why."""
    still: list[str] = []
    for each in found:
        try:
            why = _remove(az, each, say, limits)
        except ImgpullError as error:
            why = f"{error}"
        if why:
            still.append(f"{each.group.name}: {why}")
    return still


def _remove(az: Az, each: Found, say: Say, limits: Limits) -> str:
    """Why it is still there; empty when it is gone, or was not what it had been."""
    name = each.group.name
    now = az.group(name)
    if now is None or now.identity != each.group.identity or now.tags != each.group.tags:
        say(f"{name} is not what it was: left alone")
        return ""
    if each.place:
        give_back(each.place, say, limits=limits)
        return ""
    try:
        az.delete_group(name, say)
    except ImgpullError as error:
        say(error.message)
    if az.group(name) is not None:
        return ", ".join(contents(az, name))
    say(f"gone: {name}")
    return ""
