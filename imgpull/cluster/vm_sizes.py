"""What Azure's machines can do, by VM size, and which OS disk a node of that size seems to have.

Hides Azure's tables. A figure here is a ceiling, for judging rates that cannot be; where two
editions of Azure's page differ, it is the higher one. What is not in the table is unknown (None):
a guess would call honest trials impossible, or impossible ones honest.
"""

import re
from typing import NamedTuple

from imgpull import units


class VmSize(NamedTuple):
    """One VM size; zero is none, and None is what Azure's page does not say."""

    vcpus: int
    memory_gib: float
    nic_mbit_s: float
    temp_gib: int  # the local temporary disk
    temp_mb_s: float | None
    local_gib: int  # the largest OS disk that fits this machine's own storage: temp, cache or NVMe
    uncached_mb_s: float | None  # of managed disks
    burst_mb_s: float | None
    source: str


class OsDisk(NamedTuple):
    """An OS disk by its name in conf/, its sustained and burst write rate, and how it is known."""

    name: str
    write_mb_s: float | None
    burst_mb_s: float | None
    why: str


_DSV3 = "Azure docs, Dsv3-series (2020 and 2024)"
_DSV5 = "Azure docs, Dsv5-series"
_DDSV5 = "Azure docs, Ddsv5-series"
_ESV5 = "Azure docs, Esv5-series"
_EDSV5 = "Azure docs, Edsv5-series"
_DASV5 = "Azure docs, Dasv5-series (2026)"
_DADSV5 = "Azure docs, Dadsv5-series (2021 and 2026)"
_NCA100 = "Azure docs, NC_A100_v4-series"
_NCH100 = "Azure docs, NCads_H100_v5-series"
_NCT4 = "Azure docs, NCasT4_v3-series"

SIZES = {
    "Standard_D2s_v3": VmSize(2, 8, 1000, 16, None, 50, 48, 200, _DSV3),
    "Standard_D4s_v3": VmSize(4, 16, 2000, 32, None, 100, 96, 200, _DSV3),
    "Standard_D8s_v3": VmSize(8, 32, 4000, 64, None, 200, 192, 400, _DSV3),
    "Standard_D16s_v3": VmSize(16, 64, 8000, 128, None, 400, 384, 800, _DSV3),
    "Standard_D32s_v3": VmSize(32, 128, 16000, 256, None, 800, 768, 1600, _DSV3),
    "Standard_D2s_v5": VmSize(2, 8, 12500, 0, None, 0, 85, 1200, _DSV5),
    "Standard_D4s_v5": VmSize(4, 16, 12500, 0, None, 0, 145, 1200, _DSV5),
    "Standard_D8s_v5": VmSize(8, 32, 12500, 0, None, 0, 290, 1200, _DSV5),
    "Standard_D16s_v5": VmSize(16, 64, 12500, 0, None, 0, 600, 1200, _DSV5),
    "Standard_D32s_v5": VmSize(32, 128, 16000, 0, None, 0, 865, 2000, _DSV5),
    "Standard_D2ds_v5": VmSize(2, 8, 12500, 75, 125, 75, 85, 1200, _DDSV5),
    "Standard_D4ds_v5": VmSize(4, 16, 12500, 150, 250, 150, 145, 1200, _DDSV5),
    "Standard_D8ds_v5": VmSize(8, 32, 12500, 300, 500, 300, 290, 1200, _DDSV5),
    "Standard_D16ds_v5": VmSize(16, 64, 12500, 600, 1000, 600, 600, 1200, _DDSV5),
    "Standard_D32ds_v5": VmSize(32, 128, 16000, 1200, 2000, 1200, 865, 2000, _DDSV5),
    "Standard_E2s_v5": VmSize(2, 16, 12500, 0, None, 0, 85, 1200, _ESV5),
    "Standard_E4s_v5": VmSize(4, 32, 12500, 0, None, 0, 145, 1200, _ESV5),
    "Standard_E8s_v5": VmSize(8, 64, 12500, 0, None, 0, 290, 1200, _ESV5),
    "Standard_E16s_v5": VmSize(16, 128, 12500, 0, None, 0, 600, 1200, _ESV5),
    "Standard_E32s_v5": VmSize(32, 256, 16000, 0, None, 0, 865, 2000, _ESV5),
    "Standard_E2ds_v5": VmSize(2, 16, 12500, 75, 125, 75, 85, 1200, _EDSV5),
    "Standard_E4ds_v5": VmSize(4, 32, 12500, 150, 250, 150, 145, 1200, _EDSV5),
    "Standard_E8ds_v5": VmSize(8, 64, 12500, 300, 500, 300, 290, 1200, _EDSV5),
    "Standard_E16ds_v5": VmSize(16, 128, 12500, 600, 1000, 600, 600, 1200, _EDSV5),
    "Standard_E32ds_v5": VmSize(32, 256, 16000, 1200, 2000, 1200, 865, 2000, _EDSV5),
    "Standard_D2as_v5": VmSize(2, 8, 12500, 0, None, 0, 82, 600, _DASV5),
    "Standard_D4as_v5": VmSize(4, 16, 12500, 0, None, 0, 144, 600, _DASV5),
    "Standard_D8as_v5": VmSize(8, 32, 12500, 0, None, 0, 200, 600, _DASV5),
    "Standard_D16as_v5": VmSize(16, 64, 12500, 0, None, 0, 384, 800, _DASV5),
    "Standard_D2ads_v5": VmSize(2, 8, 12500, 75, 125, 75, 82, 600, _DADSV5),
    "Standard_D4ads_v5": VmSize(4, 16, 12500, 150, 250, 150, 144, 600, _DADSV5),
    "Standard_D8ads_v5": VmSize(8, 32, 12500, 300, 500, 300, 200, 600, _DADSV5),
    "Standard_D16ads_v5": VmSize(16, 64, 12500, 600, 1000, 600, 384, 800, _DADSV5),
    "Standard_NC24ads_A100_v4": VmSize(24, 220, 20000, 64, None, 894, 1000, None, _NCA100),
    "Standard_NC48ads_A100_v4": VmSize(48, 440, 40000, 128, None, 1788, 2000, None, _NCA100),
    "Standard_NC96ads_A100_v4": VmSize(96, 880, 80000, 256, None, 3576, 4000, None, _NCA100),
    "Standard_NC40ads_H100_v5": VmSize(40, 320, 40000, 3576, None, 3576, 3000, None, _NCH100),
    "Standard_NC4as_T4_v3": VmSize(4, 28, 8000, 176, None, 176, None, None, _NCT4),
    "Standard_NC8as_T4_v3": VmSize(8, 56, 8000, 352, None, 352, None, None, _NCT4),
    "Standard_NC16as_T4_v3": VmSize(16, 110, 8000, 352, None, 352, None, None, _NCT4),
}

# Premium SSDs: GiB -> (name, MB/s, burst MB/s) (Azure docs, Premium SSD sizes). P30 bursts only
# where that is bought.
_PREMIUM = {
    32: ("p4", 25, 170),
    64: ("p6", 50, 170),
    128: ("p10", 100, 170),
    256: ("p15", 125, 170),
    512: ("p20", 150, 170),
    1024: ("p30", 200, 1000),
}
# A file system is smaller than its disk: 0.968 of 128 GiB on AKS's Ubuntu nodes, with room for
# other partitions and images.
_FITS = (0.9, 1.02)
_GIB = re.compile(r"(\d+)gib$")


def premium_tier(size_gib: int) -> str | None:
    """Which premium SSD a managed disk of this size is: Azure rounds up."""
    return next((told[0] for gib, told in sorted(_PREMIUM.items()) if gib >= size_gib), None)


def size_fits(os_disk: str, file_system_bytes: int) -> bool:
    """Whether a file system of this size is on the disk that a name like managed_p10_128gib tells.

    A name that tells no size fits everything.
    """
    told = _GIB.search(os_disk)
    return told is None or _fits(int(told[1]), file_system_bytes)


def _fits(disk_gib: int, file_system_bytes: int) -> bool:
    return _FITS[0] <= file_system_bytes / units.GIB / disk_gib <= _FITS[1]


def os_disk(vm_size: str, file_system_bytes: int) -> OsDisk:
    """The OS disk that a node of this size has, as far as its file system's size tells.

    Its kind is in no label: AKS says storageprofile=managed of local ones too (AgentBaker's own
    test machines: e2e/node_config.go with e2e/vmss.go).
    """
    size = SIZES.get(vm_size)
    seen_gib = round(file_system_bytes / units.GIB)
    if size is None:
        return OsDisk(
            f"unknown_{seen_gib}gib", None, None, "unknown: this VM size is in no table of ours"
        )
    tier = next((gib for gib in _PREMIUM if _fits(gib, file_system_bytes)), None)
    if tier is None and size.temp_gib and _fits(size.temp_gib, file_system_bytes):
        why = f"by its size it is the temporary disk, whose rate is in {size.source}"
        return OsDisk(f"ephemeral_{size.temp_gib}gib", size.temp_mb_s, None, why)
    if tier is None or size.local_gib >= tier:
        why = "unknown: az aks nodepool show --query '[osDiskType, osDiskSizeGb]' tells its kind"
        return OsDisk(f"unknown_{tier or seen_gib}gib", None, None, why)
    return _managed(size, tier)


def _managed(size: VmSize, tier: int) -> OsDisk:
    name, disk_mb_s, disk_burst_mb_s = _PREMIUM[tier]
    label = f"managed_{name}_{tier}gib"
    if size.uncached_mb_s is None:
        return OsDisk(label, None, None, f"unknown: not in {size.source}")
    write_mb_s = min(disk_mb_s, size.uncached_mb_s)
    burst_mb_s = min(disk_burst_mb_s, size.burst_mb_s or size.uncached_mb_s)
    why = (
        f"the lower of {name.upper()} (Azure docs, Premium SSD sizes) and the machine "
        f"({size.source}); ASSUMPTION: a premium disk"
    )
    return OsDisk(label, write_mb_s, burst_mb_s if burst_mb_s > write_mb_s else None, why)


def memory_fits(size: VmSize, seen_bytes: int) -> bool:
    """Whether the memory that a kernel sees may be a machine's of this size."""
    return 0.9 <= seen_bytes / units.GIB / size.memory_gib <= 1.01
