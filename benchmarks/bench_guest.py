"""How long GRUB takes to its prompt: ours with the trace on, and Debian's QEMU without KVM, in turn.

Targets: under 3 seconds from the command on; at most twice QEMU's time; a trace under 20 MB.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 5
PROMPT = b"grub>"
COMMON = ("-serial", "stdio", "-net", "none", "-m", "64")


def _until_prompt(command: list[str]) -> float:
    """Seconds from the start of a command to the prompt on its output."""
    root = str(Path(__file__).parents[1])
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert process.stdout is not None
    seen = b""
    while PROMPT not in seen:
        more = os.read(process.stdout.fileno(), 4096)
        if not more:
            raise SystemExit(f"{command[0]} ended before GRUB's prompt: {seen[-200:]!r}")
        seen += more
    taken = time.perf_counter() - start
    process.terminate()
    process.communicate(timeout=60)
    return taken


def main() -> None:
    """Print the medians, the median of the rounds' ratios, and the size of the trace."""
    from tests.hypervisor import guest_images

    real = shutil.which("qemu-system-x86_64")
    if real is None or not guest_images.SEABIOS.exists() or not guest_images.GRUB.is_dir():
        print("apt-get install seabios grub-pc-bin grub-common mtools qemu-system-x86")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = guest_images.overlay(guest_images.grub_disk(folder))
        trace = folder / "boot.trace"
        studykvm = [sys.executable, "-m", "studykvm", "boot"]
        ours = ["-bios", "seabios", "-nographic", "-monitor", "null", *COMMON, "-hda", image]
        theirs = [real, "-accel", "tcg", "-display", "none", "-monitor", "none", *COMMON, "-hda", image]
        rounds = []
        for _ in range(ROUNDS):
            traced = _until_prompt([*studykvm, "--trace", str(trace), *ours])
            rounds.append((traced, _until_prompt([*studykvm, *ours]), _until_prompt(theirs)))
        size = trace.stat().st_size
    traced, plain, other = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(mine / qemu for mine, _, qemu in rounds)
    print(f"to grub>: traced {traced:.2f} s, untraced {plain:.2f} s; QEMU without KVM {other:.2f} s")
    print(f"traced / QEMU: {ratio:.2f} (target: at most 2); traced: {traced:.2f} s (target: under 3)")
    print(f"trace: {size / 1e6:.1f} MB (target: under 20)")


if __name__ == "__main__":
    main()
