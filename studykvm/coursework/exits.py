"""What it costs when a guest leaves its processor: a guest that writes to a port again and again, timed.

- `cost(accel) -> float | None`: microseconds an exit under "unicorn" or "kvm"; None where that cannot be used
- `costs(accel)`: the same by the clock and by the processor's time, which differ on a busy machine
- `guest(times) -> bytes`: its boot sector

Two boots are timed, one with many writes and one with none; their difference is what the writes cost.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIMES = {"unicorn": 2_000_000, "kvm": 40_000}
_SECONDS = 60


def guest(times: int) -> bytes:
    """A boot sector: mov ecx, times; out 80h, al; dec ecx; jnz; then switch off by the letters of Shutdown.

    >>> guest(1)[:6].hex()
    '66b901000000'
    """
    loop = bytes.fromhex("e680 6649 75fa")
    code = b"\x66\xb9" + max(times, 1).to_bytes(4, "little") + loop + b"\xba\x00\x89"
    for letter in b"Shutdown":
        code += bytes((0xB0, letter, 0xEE))
    return (code + b"\xf4\xeb\xfd").ljust(510, b"\0") + b"\x55\xaa"


def cost(accel: str) -> float | None:
    """Measure, by the clock."""
    measured = costs(accel)
    return measured[0] if measured else None


def costs(accel: str) -> tuple[float, float] | None:
    """Measure, by the clock and by the time that processors spent on it."""
    if accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return None
    times = TIMES[accel]
    with tempfile.TemporaryDirectory() as folder:
        few, many = (_seconds(Path(folder), accel, n) for n in (1, times))
    if few is None or many is None:
        return None
    clock, spent = (max(long - short, 1e-4) / times * 1e6 for long, short in zip(many, few, strict=True))
    return clock, spent


def _seconds(folder: Path, accel: str, times: int) -> tuple[float, float] | None:
    disk = folder / "disk.img"
    disk.write_bytes(guest(times).ljust(1 << 20, b"\0"))
    root = str(Path(__file__).parents[2])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "studykvm", "boot", "-net", "none", "-m", "4", "-hda", str(disk)]
    if accel == "kvm":
        command.append("-enable-kvm")
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": search},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None
    taken, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    refused = accel == "kvm" and b"KVM" in done.stderr and b"not" in done.stderr
    return None if done.returncode or refused else (taken, spent)
