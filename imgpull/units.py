"""Durations, sizes and shares, as people, Go and Kubernetes write them.

Hides every spelling of a quantity: above this file times are float seconds and sizes are int bytes.
"""

import re

MIB = 1024**2
GIB = 1024**3

_SECONDS = {
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ns": 1e-9,
}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|m|s|us|µs|μs|ns)")
_LONGEST_S = (2**63 - 1) / 1e9  # Go counts nanoseconds in 64 bits

_BYTES = {
    "": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9,
    "t": 10**12, "tb": 10**12, "ki": 2**10, "kib": 2**10, "mi": 2**20, "mib": 2**20,
    "gi": 2**30, "gib": 2**30, "ti": 2**40, "tib": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


def parse_duration(text: str) -> float:
    """Seconds of a Go duration ("1h2m", "90s", "830ms"); ValueError when it is none."""
    value = str(text).strip()
    if value == "0":
        return 0.0
    sign, body = (-1.0, value[1:]) if value.startswith("-") else (1.0, value)
    total, end = 0.0, 0
    for part in _DURATION_PART.finditer(body):
        if part.start() != end:
            break
        total += float(part[1]) * _SECONDS[part[2]]
        end = part.end()
    if not body or end != len(body) or total > _LONGEST_S:
        raise ValueError(f"'{text}' is not a duration; write it like 90s, 3m or 1h30m")
    return sign * total


def format_duration(seconds: float) -> str:
    """The shortest Go duration of whole milliseconds: 180 -> "3m", 5400 -> "1h30m"."""
    return _compose(round(seconds * 1000), keep_zeros=False)


def go_duration(seconds: float) -> str:
    """As Go prints it, truncated to milliseconds like kubelet: 244.9565 -> "4m4.956s"."""
    # A hair is added first, so that 0.83 (stored as 0.8299999...) stays 830 ms.
    return _compose(int(seconds * 1000 + 1e-6), keep_zeros=True)


def _compose(milliseconds: int, *, keep_zeros: bool) -> str:
    if milliseconds <= 0:
        return "0s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    rest, thousandths = divmod(milliseconds, 1000)
    minutes, seconds = divmod(rest, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{thousandths:03d}".rstrip("0") if thousandths else ""
    text = f"{hours}h" if hours else ""
    if minutes or (keep_zeros and hours):
        text += f"{minutes}m"
    if seconds or fraction or keep_zeros or not text:
        text += f"{seconds}{fraction}s"
    return text


def parse_size(text: str | int) -> int:
    """Bytes of "15GB" (decimal), "15GiB" or "15Gi" (binary), or a count; ValueError for others."""
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or match[2].lower() not in _BYTES:
        raise ValueError(f"'{text}' is not a size; write it like 15GB, 512MiB or 4096")
    return round(float(match[1]) * _BYTES[match[2].lower()])


def parse_share(text: str | float) -> float:
    """The share of "10%", "10 %" or 0.1; ValueError for what is none or below zero.

    Above 1 only with its sign: "10" may be meant as 10 % or as tenfold.
    """
    words = str(text).strip()
    number = words.removesuffix("%").strip()
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", number):
        raise ValueError(f"'{text}' is no share; write it like 10% or 0.1")
    if words.endswith("%"):
        return float(number) / 100
    if float(number) > 1:
        raise ValueError(
            f"'{text}' would be {float(number):.0%}; write {number}% or {float(number):.0%}"
        )
    return float(number)


def format_size(count: float) -> str:
    """Decimal, three figures: 15_000_000_000 -> "15 GB"."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        # From where it would be rounded up to 1, so that 999.9 MB is not "1e+03 MB".
        if count >= 0.9995 * factor:
            scaled = count / factor
            return f"{scaled:.3g} {unit}" if scaled < 999.5 else f"{scaled:.0f} {unit}"
    return f"{count:.0f} B"
