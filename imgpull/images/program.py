"""The one program of a made image: it does nothing until it is asked to end.

Hides its machine code. Without it a pod would never count as running, and a shell or libc would be
bytes that nobody asked for. It blocks TERM and INT and waits for one of them: a process 1 ignores
signals that it does not expect, and pods would be killed only after their grace period.
"""

import struct

# x86-64 for: rt_sigprocmask(SIG_BLOCK, set); while rt_sigtimedwait(set) fails; exit(0).
_CODE = bytes.fromhex(
    "b80e000000" "31ff" "488d3532000000" "31d2" "41ba08000000" "0f05"  # rt_sigprocmask is 14
    "b880000000" "488d3d1c000000" "31f6" "31d2" "41ba08000000" "0f05"  # rt_sigtimedwait is 128
    "85c0" "78e4"  # again, if a signal that is not in the set cut it short
    "b83c000000" "31ff" "0f05"  # exit is 60
    "0f1f00"  # to a multiple of 8
)  # fmt: skip
_SIGNALS = 1 << (15 - 1) | 1 << (2 - 1)  # TERM, INT
_BASE = 0x400000
_HEADERS = 64 + 56


def sleeper() -> bytes:
    """A static ELF executable for linux/amd64; it takes any arguments."""
    code = _CODE + struct.pack("<Q", _SIGNALS)
    size = _HEADERS + len(code)
    header = struct.pack(
        "<4sBBBBQHHIQQQIHHHHHH",
        b"\x7fELF", 2, 1, 1, 0, 0, 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0,
    )  # fmt: skip
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code


def path_for(command: tuple[str, ...]) -> str:
    """Where it lies in the image, so that a pod's command finds it; without a leading slash."""
    name = command[0] if command else "sleep"
    return name.lstrip("/") if "/" in name else f"bin/{name}"
