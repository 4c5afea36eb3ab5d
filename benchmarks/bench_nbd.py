"""`studykvm nbd` beside `qemu-nbd`: the same image, the same client (`nbdcopy`), in turn.

Target: at least half of qemu-nbd's throughput, untraced, with requests of 64 KiB and more.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROUNDS = 5
SIZE = 256 << 20
REQUESTS = (64 << 10, 256 << 10, 1 << 20)


@contextmanager
def _serving(command: list[str], path: Path) -> Iterator[str]:
    # qemu-nbd complains of every client that goes without a word.
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not _answers(path):
            time.sleep(0.01)
        yield f"nbd+unix:///?socket={path}"
    finally:
        server.terminate()
        server.wait()
        path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _rate(source: str, target: str, request: int) -> float:
    """Copy once; MiB a second."""
    copy = ["nbdcopy", f"--request-size={request}", "--connections=1", "--allocated", source, target]
    start = time.perf_counter()
    subprocess.run(copy, check=True)
    return SIZE / (1 << 20) / (time.perf_counter() - start)


def main() -> None:
    """Print, for each format, direction and request size, both rates and the median of their ratios."""
    for program in ("nbdcopy", "qemu-nbd", "qemu-img"):
        if shutil.which(program) is None:
            print(f"{program} is missing: apt-get install libnbd-bin qemu-utils")
            return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data"
        data.write_bytes(bytes(range(256)) * (SIZE // 256))
        for fmt in ("raw", "qcow2"):
            image = folder / f"image.{fmt}"
            subprocess.run(["qemu-img", "convert", "-O", fmt, data, image], check=True)
            ours = [sys.executable, "-m", "studykvm", "nbd", "-t", "-f", fmt]
            ours += ["--socket", str(folder / "ours"), str(image)]
            theirs = ["qemu-nbd", "-t", "-e", "64", "-f", fmt, "-k", str(folder / "theirs"), str(image)]
            for request in REQUESTS:
                for copying in ("read", "write"):
                    _pair(fmt, copying, request, data, folder, ours, theirs)


def _pair(
    fmt: str, copying: str, request: int, data: Path, folder: Path, ours: list[str], theirs: list[str]
) -> None:
    rates = []
    for _ in range(ROUNDS):
        pair = []
        # One at a time: qemu-nbd locks the image.
        for command, path in ((ours, folder / "ours"), (theirs, folder / "theirs")):
            with _serving(command, path) as uri:
                ends = (uri, "null:") if copying == "read" else (str(data), uri)
                pair.append(_rate(*ends, request))
        rates.append(pair)
    mine, other = (statistics.median(column) for column in zip(*rates, strict=True))
    ratio = statistics.median(a / b for a, b in rates)
    where = f"{fmt} {copying} of {request >> 10} KiB"
    print(f"{where}: {mine:.0f} MiB/s, qemu-nbd {other:.0f}: {ratio:.2f} (target: 0.50)", flush=True)


if __name__ == "__main__":
    main()
