"""Runs the tools on mutated images: ``mutants.py STOCK KIND FIRST LAST`` in an empty folder.

Prints one JSON line: how many runs, the peak memory, and each run that ended in an exception, was slow, or
changed an image it only had to read. The address space is limited, so a memory bomb ends in MemoryError.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import resource
import shutil
import struct
import sys
import time
import traceback
from pathlib import Path

from hypervisor import qemu_img, qemu_io
from hypervisor.program import program

LIMIT = 1 << 30
SLOW = 60.0
NUMBERS = (0, 1, 2, 8, 63, 255, 511, 512, 513, 4096, 65535, 1 << 20, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40)
NUMBERS += ((1 << 56) - 512, (1 << 62) - 512, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 63) + 512, (1 << 64) - 1)
READS = (
    ("qemu-img", "info", "image"),
    ("qemu-img", "check", "image"),
    ("qemu-img", "snapshot", "-l", "image"),
    ("qemu-io", "-r", "-c", "read 0 65536", "-c", "alloc 0 64", "-c", "read 40960 512", "image"),
)
WRITES = (
    ("qemu-io", "-c", "write 1024 4096", "-c", "aio_write 8192 512", "-c", "aio_flush", "image"),
    ("qemu-img", "snapshot", "-c", "new", "image"),
    ("qemu-img", "snapshot", "-a", "s", "image"),
    ("qemu-img", "snapshot", "-d", "s", "image"),
)
WHOLE = (
    ("qemu-img", "convert", "-O", "raw", "image", "copy"),
    ("qemu-img", "commit", "image"),
)


def mutate(raw: bytearray, rng: random.Random) -> bytearray:
    """Change one to four numbers of the header or of a table, a few bits, or cut the image."""
    for _ in range(rng.randint(1, 4)):
        entries = [at for at in range(512, len(raw) - 7, 8) if any(raw[at : at + 8])]
        way = rng.random()
        if way < 0.45:
            value = rng.choice(NUMBERS)
            fmt = rng.choice((">I", ">Q", ">B"))
            at = rng.randrange(0, 104, 4) + (rng.randrange(4) if fmt == ">B" else 0)
            struct.pack_into(fmt, raw, at, value & ((1 << 8 * struct.calcsize(fmt)) - 1))
        elif way < 0.8 and entries:
            value = rng.choice((rng.choice(NUMBERS), rng.randrange(0, len(raw) * 2, 512)))
            flags = rng.choice((0, 1 << 63, 1 << 62, 3 << 62))
            struct.pack_into(">Q", raw, rng.choice(entries), value | flags)
        elif way < 0.95:
            raw[rng.randrange(min(len(raw), 8192))] ^= 1 << rng.randrange(8)
        elif len(raw) > 512:
            del raw[rng.randrange(128, len(raw)) :]
    return raw


def run(argv: tuple[str, ...]) -> str | None:
    """Run one tool; what is wrong with how it ended, or None."""
    output = io.StringIO()
    begun = time.monotonic()
    status: object = None
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), program(argv[0]):
            status = {"qemu-img": qemu_img, "qemu-io": qemu_io}[argv[0]].main(list(argv))
    except SystemExit as end:
        status = end.code
    except BaseException:
        return traceback.format_exc()
    if time.monotonic() - begun > SLOW:
        return f"took {time.monotonic() - begun:.1f} s"
    if status not in (0, 1, 2, 3) or (status and not output.getvalue().strip()):
        return f"status {status}, output {output.getvalue()!r}"
    return None


def small(image: Path) -> bool:
    """Whether the image claims so little that all of it may be read."""
    raw = image.read_bytes()[:32]
    known = raw[:4] == b"QFI\xfb" and len(raw) == 32
    return not known or struct.unpack(">Q", raw[24:32])[0] <= 1 << 20


def main(stock: Path, kind: str, first: int, last: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 32, 1 << 32))
    shutil.copy(stock / "base.img", "base.img")
    image, bad, runs = Path("image"), [], 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(first, last):
        raw = mutate(bytearray((stock / kind).read_bytes()), random.Random(f"{kind} {seed}"))
        image.write_bytes(raw)
        whole = WHOLE if small(image) else ()
        for argv in (*READS, *whole[:1], *WRITES, *whole[1:]):
            if argv in WRITES:
                image.write_bytes(raw)
            wrong = run(argv)
            runs += 1
            if wrong is None and argv in READS and image.read_bytes() != raw:
                wrong = "the image was changed"
            if wrong is not None:
                bad.append({"seed": seed, "argv": argv, "wrong": wrong})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"runs": runs, "peak_mib": peak >> 10, "bad": bad}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
