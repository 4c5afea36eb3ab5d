"""Parts of a running machine are those recorded: what one call does, wherever it happens.

The model boots as recorded, with a boot sector that does what the recorded one did, and is typed the
recorded monitor lines. Its BIOS is another; what the guest's requests and the monitor's commands do in the
machine is compared call for call, as `studykvm compare` does.
"""

import contextlib
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from graphs import recordings
from graphs.calls import CallTable
from graphs.compare import report
from graphs.compare.parts import compare_part, parts
from studykvm.model import load_model
from tests.hypervisor import guest_code as asm
from tests.truth.replay import boot_argv, run
from tracer import load

SCENARIOS = ["d01_boot_tcg_qcow", "d02_boot_kvm_qcow", "d03_boot_tcg_snapshot", "d11_change_eject"]
REQUESTS = 3
"""What the recorded guest asked of its disk: the boot sector, sector 1, and a write of sector 5."""


@cache
def known() -> frozenset[tuple[str, str]]:
    return frozenset((function.file, function.name) for function in load_model())


def machine_images() -> None:
    # The recorded boot sector goes on to read sector 1 and to write sector 5.
    code = asm.lba(0x42, 1, 1, 0x8000) + asm.lba(0x43, 1, 5, 0x8000) + b"\xf4\xeb\xfd"
    Path("base_raw.img").write_bytes(code.ljust(510, b"\0") + b"\x55\xaa")
    os.truncate("base_raw.img", 16 << 20)
    run("qemu-img", "create", "-f", "qcow", "-b", "base_raw.img", "overlay.img")
    run("qemu-img", "create", "-f", "qcow2", "-b", "base_raw.img", "overlay2.img")


def replay_machine(folder: Path, name: str) -> CallTable:
    """Boot as recorded, wait for the guest's requests, type the recorded lines."""
    with contextlib.chdir(folder):
        machine_images()
    command = [sys.executable, "-m", "studykvm", "boot", "--trace", "t.trace", *boot_argv(name)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    machine = subprocess.Popen(
        command, cwd=folder, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert machine.stdin is not None and machine.stdout is not None
    try:
        seen = ""
        deadline = time.monotonic() + 60
        # The operations that blockstats counts: QEMU's own look at sector 0 is one more.
        while f"rd_operations={REQUESTS} wr_operations=1" not in seen and time.monotonic() < deadline:
            machine.stdin.write("info blockstats\n")
            machine.stdin.flush()
            seen = machine.stdout.readline() + seen[:4000]
        lines = (line for line in recordings.load(name).scenario.monitor if not line.startswith("sleep"))
        machine.communicate("".join(f"{line}\n" for line in lines), timeout=60)
    finally:
        machine.kill()
    return CallTable.from_trace(load(folder / "t.trace"))


@pytest.mark.parametrize("name", SCENARIOS)
def test_parts_of_a_run_make_the_recorded_calls(tmp_path, name):
    calls, recording = replay_machine(tmp_path, name), recordings.load(name)
    compared = []
    for part in parts(recording):
        # Asking for the statistics is how this test waits for the guest.
        if "bdrv_info_stats" not in str(part.selector):
            comparison = compare_part(calls, recording, part, known())
            assert comparison is not None, f"{part.title}: not in the trace"
            assert comparison.equal, "\n".join([part.title, *report.lines(comparison)])
            assert comparison.equal_calls > 1
            compared.append(part.title)
    assert "the guest's first write" in compared
    assert ("commit" if "commit all" in recording.scenario.monitor else "eject") in compared
