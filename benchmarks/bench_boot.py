"""What recording a boot costs: the same guest from the same overlay, untraced and traced in turn.

Target: recording adds less than half of the untraced time.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 9


def _seconds(folder: Path, *options: str) -> float:
    """Boot a fresh overlay in a fresh process; wall time of the boot itself, without Python's start."""
    code = (
        "import sys, time; from studykvm.cli import main; import hypervisor.boot;"
        "start = time.perf_counter(); main(sys.argv[1:]);"
        "print(time.perf_counter() - start)"
    )
    overlay = folder / "overlay.img"
    create = ["img", "create", "-f", "qcow", "-b", str(folder / "base.img"), str(overlay)]
    subprocess.run([sys.executable, "-m", "studykvm", *create], check=True, stdout=subprocess.DEVNULL)
    boot = [sys.executable, "-c", code, "boot", "-hda", str(overlay), *options]
    done = subprocess.run(boot, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print both medians and the median of the rounds' ratios."""
    from studykvm.guests import write_demo_disk

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_demo_disk(folder / "base.img")
        pairs = []
        for _ in range(ROUNDS):
            plain = _seconds(folder)
            pairs.append((plain, _seconds(folder, "--trace", str(folder / "boot.trace"))))
    untraced, traced = (statistics.median(column) for column in zip(*pairs, strict=True))
    more = statistics.median(traced / plain - 1 for plain, traced in pairs)
    print(f"boot untraced {untraced * 1000:.0f} ms, traced {traced * 1000:.0f} ms")
    print(f"recording adds {more:.2f} of the untraced time (target: under 0.50)")


if __name__ == "__main__":
    main()
