"""Migration over loopback beside Debian's qemu-system-x86_64 without KVM: the same guest, the same size, in
turn.

The guest counts on the serial line. Total time is from the command, once typed, to its end; QEMU tells it.
The downtime is the gap between the last number at the source and the first one at the destination. Target:
within 2 times.
"""

from __future__ import annotations

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

from studykvm.guests import write_count_disk

SIZES = (64, 512)
ROUNDS = 3
_OURS = [sys.executable, "-m", "studykvm", "boot"]
_THEIRS = ["qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-display", "none"]


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
        self.line.setblocking(False)
        self.last = 0.0
        self.first = 0.0
        self.lines = 0

    def obey(self, command: str) -> None:
        """Type a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()

    def watch(self, seconds: float) -> str:
        """Note when the guest speaks; what the monitor says."""
        said = b""
        ready, _, _ = select.select([self.line, self.out], [], [], seconds)
        if self.line in ready:
            data = self.line.recv(65536)
            self.last = time.perf_counter()
            self.first = self.first or self.last
            self.lines += data.count(b"\n")
        if self.out in ready:
            said = os.read(self.out, 65536)
        return said.decode(errors="replace")

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()
        self.line.close()


def _move(command: list[str], disk: list[str], size: int, folder: Path) -> tuple[float, float]:
    """Move one machine; seconds in all, and seconds without a number."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    options = [*command, "-m", str(size), *disk]
    destination = Side([*options, "-incoming", f"tcp:127.0.0.1:{port}"], folder, "destination")
    source = Side(options, folder, "source")
    try:
        while source.lines < 50:
            source.watch(1)
        ours = command is _OURS
        source.obey("migrate_set_speed 1g" if ours else "migrate_set_parameter max-bandwidth 1g")
        source.obey(f"migrate {'' if ours else '-d '}tcp:127.0.0.1:{port}")
        begun = asked = time.perf_counter()
        said, entered, total = "", 0.0, 0.0
        while not destination.first or not total:
            said += source.watch(0.002)
            destination.watch(0.001)
            now = time.perf_counter()
            after = said.partition(str(port) + "\x1b[K\r\n")
            if ours and after[1]:
                # From the end of the typed line to the next prompt.
                entered = entered or now
                if "(qemu)" in after[2] and not total:
                    total = now - entered
            elif not ours and (match := re.search(r"total time: (\d+) ms", said)):
                total = int(match[1]) / 1000
            elif not ours and now > asked + 0.05:
                source.obey("info migrate")
                asked = now
            if now > begun + 120:
                raise TimeoutError(said[-500:])
        return total, max(destination.first - source.last, 0.0)
    finally:
        source.end()
        destination.end()


def main() -> None:
    """Print both programs' medians and their ratios, for each size."""
    if shutil.which("qemu-system-x86_64") is None:
        print("qemu-system-x86_64 is missing: apt-get install qemu-system-x86")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = str(folder / "count.img")
        write_count_disk(image, pages=1, turns=300_000)
        disks = ["-hda", image], ["-drive", f"file={image},format=raw,if=ide"]
        for size in SIZES:
            found: list[list[tuple[float, float]]] = [[], []]
            for _ in range(ROUNDS):
                for at, command in enumerate((_OURS, _THEIRS)):
                    found[at].append(_move(command, disks[at], size, folder))
            for number, what in enumerate(("total", "downtime")):
                ours, theirs = (statistics.median(row[number] for row in rows) for rows in found)
                ratio = ours / theirs if theirs else float("inf")
                print(
                    f"migration {size:4} MB {what:<9} {ours * 1000:8.0f} ms,"
                    f" qemu {theirs * 1000:8.0f} ms, ratio {ratio:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
