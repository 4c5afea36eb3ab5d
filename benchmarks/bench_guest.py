"""How long GRUB takes to its prompt: ours with everything traced, with the block layer traced, and untraced,
and Debian's QEMU without KVM, in turn.

The same boot: SeaBIOS, the same overlay, no screen adapter, BIOS and GRUB on the serial line, which tells
where a run is. Ours runs as installed, its modules compiled: the first round makes them and is not counted.

Targets: under 3 seconds from the command on; at most twice QEMU's time; a trace under 20 MB. Beside the time
that a run took, its processor time is printed, which a busy machine changes less.
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
from typing import NamedTuple

ROUNDS = 7
PHASES = {"BIOS's first line": b"SeaBIOS", "its last": b"Booting from", "prompt": b"grub>"}
BLOCK_LAYER = "block*,posix-aio*,aio.c,async.c,dma-helpers.c,hw/ide/*"
COMMON = ("-serial", "stdio", "-net", "none", "-m", "64")


class Boot(NamedTuple):
    """Seconds from the start of a command to each phase's end, and of processor time to the last."""

    phases: list[float]
    cpu: float

    @property
    def total(self) -> float:
        """Seconds to the prompt."""
        return self.phases[-1]


def _until_prompt(command: list[str], environment: dict[str, str]) -> Boot:
    """Run a command until GRUB's prompt is on its output."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    assert process.stdout is not None
    seen, phases = b"", []
    for text in PHASES.values():
        while text not in seen:
            more = os.read(process.stdout.fileno(), 4096)
            if not more:
                raise SystemExit(f"{command[0]} ended before {text.decode()!r}: {seen[-200:]!r}")
            seen += more
        phases.append(time.perf_counter() - start)
    cpu = _cpu_seconds(process.pid)
    process.terminate()
    process.communicate(timeout=60)
    return Boot(phases, cpu)


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process and its threads so far; proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _environment(folder: Path) -> dict[str, str]:
    """Have modules compiled once, as those of an installed program are."""
    changed = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONPYCACHEPREFIX": str(folder)}
    changed.pop("PYTHONDONTWRITEBYTECODE", None)
    return changed


def main() -> None:
    """Print the medians, those of the rounds' ratios, each phase's, and the size of the trace."""
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
        theirs = [real, "-accel", "tcg", "-display", "none", "-vga", "none", "-machine", "graphics=off"]
        theirs += ["-monitor", "none", *COMMON, "-hda", image]
        commands = {
            "traced": [*studykvm, "--trace", str(trace), *ours],
            "block layer": [
                *studykvm,
                "--trace",
                str(folder / "b.trace"),
                "--trace-only",
                BLOCK_LAYER,
                *ours,
            ],
            "untraced": [*studykvm, *ours],
            "QEMU without KVM": theirs,
        }
        environment = _environment(folder / "compiled")
        rounds = [
            {kind: _until_prompt(command, environment) for kind, command in commands.items()}
            for _ in range(1 + ROUNDS)
        ][1:]
        size = trace.stat().st_size
    print(f"seconds to {', to '.join(PHASES)}; processor time")
    for kind in commands:
        runs = [each[kind] for each in rounds]
        phases = (statistics.median(ends) for ends in zip(*(run.phases for run in runs), strict=True))
        cpu = statistics.median(run.cpu for run in runs)
        print(f"{kind:<16} {' '.join(f'{end:5.2f}' for end in phases)}; {cpu:.2f}")
    for kind in list(commands)[:-1]:
        pairs = [(each[kind], each["QEMU without KVM"]) for each in rounds]
        ratio = statistics.median(mine.total / qemu.total for mine, qemu in pairs)
        of_cpu = statistics.median(mine.cpu / qemu.cpu for mine, qemu in pairs)
        print(f"{kind} / QEMU: {ratio:.2f} of time, {of_cpu:.2f} of processor time (target: at most 2)")
    traced = statistics.median(each["traced"].total for each in rounds)
    print(f"traced: {traced:.2f} s (target: under 3); trace: {size / 1e6:.1f} MB (target: under 20)")


if __name__ == "__main__":
    main()
