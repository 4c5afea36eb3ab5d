"""Migration over loopback beside Debian's qemu-system-x86_64 without KVM, in turn: the same idle guest, size
of memory, and limits of speed (1 GiB a second) and downtime (30 ms).

- Total: at QEMU what it says itself; here from the end of the typed command to the next prompt, by which the
  destination has loaded all, for which QEMU does not wait.
- Downtime: from the source's last sign of life to the destination's first one, seen from outside at both. The
  guest halts, and a thousand times a second the clock has it send a letter (`idle.asm`). What QEMU says
  itself, in brackets, ends when the source has sent all.

Target: within 2 times. Letters that are lost or come twice end the bench.
"""

from __future__ import annotations

import itertools
import os
import re
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

SIZES = (64, 512)
ROUNDS = 11
_LETTERS = 26
_OURS = [sys.executable, "-m", "studykvm", "boot"]
_THEIRS = ["qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-display", "none"]
# As where it is installed, modules are compiled once.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
_LIMITS = ["migrate_set_speed 1g", "migrate_set_downtime 0.03"]
_COMPLETED = r"completed.*total time: ([1-9]\d*) ms.*downtime: (\d+) ms"
_THEIR_LIMITS = ["migrate_set_parameter max-bandwidth 1g", "migrate_set_parameter downtime-limit 30"]


class Move(NamedTuple):
    """What one migration took, in milliseconds; `said` is the downtime that QEMU tells."""

    total: float
    downtime: float
    said: float


class Side:
    """A machine; its monitor on pipes, its serial line on a socket."""

    def __init__(self, command: list[str], folder: Path, name: str) -> None:
        path = folder / name
        path.unlink(missing_ok=True)
        serial = ["-serial", f"unix:{path},server,nowait", "-monitor", "stdio"]
        self.process = subprocess.Popen(
            [*command, *serial],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_ENVIRONMENT,
        )
        assert self.process.stdout is not None
        self.out = self.process.stdout.fileno()
        self.line = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.line.connect(str(path))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.02)
        self.first = self.last = 0.0
        self.letters = b""
        self.said = ""

    def obey(self, *commands: str) -> None:
        """Type commands, each after the prompt."""
        assert self.process.stdin is not None
        for command in commands:
            while not self.said.endswith("(qemu) "):
                wait([self], 1)
            self.said = ""
            self.process.stdin.write(f"{command}\n".encode())
            self.process.stdin.flush()

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()
        self.line.close()


def wait(sides: list[Side], seconds: float) -> float:
    """Read what machines send and their monitors say; when it came."""
    ends: dict[object, Side] = {side.line: side for side in sides} | {side.out: side for side in sides}
    ready, _, _ = select.select([*ends], [], [], seconds)
    now = time.perf_counter()
    for end in ready:
        side = ends[end]
        if end is side.line:
            side.letters += side.line.recv(65536)
            side.first, side.last = side.first or now, now
        else:
            side.said += os.read(side.out, 65536).decode(errors="replace")
    return now


def _move(command: list[str], disk: list[str], size: int, folder: Path) -> Move:
    """Move one machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    options = [*command, "-m", str(size), *disk]
    destination = Side([*options, "-incoming", f"tcp:127.0.0.1:{port}"], folder, "destination")
    source = Side(options, folder, "source")
    ours = command is _OURS
    try:
        source.obey(*(_LIMITS if ours else _THEIR_LIMITS))
        while len(source.letters) < 500:
            wait([source], 1)
        source.obey(f"migrate {'' if ours else '-d '}tcp:127.0.0.1:{port}")
        begun, entered, total, said = time.perf_counter(), 0.0, 0.0, 0.0
        while not destination.first or not total:
            now = wait([source, destination], 0.05)
            if ours:
                # From the end of the typed line to the next prompt.
                _, end, answer = source.said.partition(f"{port}\x1b[K\r\n")
                entered = entered or (now if end else 0.0)
                if "(qemu)" in answer and not total:
                    total = (now - entered) * 1000
            elif match := re.search(_COMPLETED, source.said, re.S):
                total, said = float(match[1]), float(match[2])
            elif source.said.endswith("(qemu) "):
                source.obey("info migrate")
            if now > begun + 120:
                raise TimeoutError(source.said[-500:])
        _check(source.letters + destination.letters)
        return Move(total, max(destination.first - source.last, 0.0) * 1000, said)
    finally:
        source.end()
        destination.end()


def _check(letters: bytes) -> None:
    """No letter may be missing or come twice."""
    for before, after in itertools.pairwise(letters):
        if (after - before) % _LETTERS != 1:
            raise SystemExit(f"the guest did not go on where it was: {letters!r}")


def main() -> None:
    """Print both programs' medians and their ratios, for each size."""
    if shutil.which("qemu-system-x86_64") is None:
        print("qemu-system-x86_64 is missing: apt-get install qemu-system-x86")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = folder / "idle.img"
        image.write_bytes(Path(__file__).with_name("idle.bin").read_bytes().ljust(1 << 20, b"\0"))
        # The flush that is part of a migration should find nothing to do, in the first round too.
        os.sync()
        disks = ["-hda", str(image)], ["-drive", f"file={image},format=raw,if=ide"]
        for size in SIZES:
            rounds = [
                [_move(_OURS, disks[0], size, folder), _move(_THEIRS, disks[1], size, folder)]
                for _ in range(ROUNDS)
            ]
            _print(size, rounds)


def _print(size: int, rounds: list[list[Move]]) -> None:
    ours, theirs = (
        Move(*map(statistics.median, zip(*moves, strict=True))) for moves in zip(*rounds, strict=True)
    )
    for what, said in (("total", ""), ("downtime", f" (it says {theirs.said:.0f})")):
        mine, other = getattr(ours, what), getattr(theirs, what)
        print(
            f"migration {size:4} MB {what:<9} {mine:7.1f} ms, qemu {other:7.1f} ms{said},"
            f" ratio {mine / other:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
