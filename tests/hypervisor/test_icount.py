"""-icount: two runs of a guest, one trace; times aside, which a trace keeps for itself."""

import os
import tempfile

import pytest

from hypervisor.boot import run_boot
from hypervisor.errors import HypervisorError
from studykvm import guests
from tests.hypervisor import guest_code as asm
from tests.hypervisor.tools import ours
from tracer import record

MONITOR = ("-nographic", "-serial", "null", "-monitor", "stdio")
SEABIOS = "/usr/share/seabios/bios-256k.bin"
# mov ax, 5307h ... is the built-in BIOS's; under SeaBIOS: mov al, c; mov dx, 8900h; out dx, al
SHUTDOWN = b"".join(bytes((0xB0, letter, 0xBA, 0x00, 0x89, 0xEE)) for letter in b"Shutdown") + b"\xf4\xeb\xfd"
# sti; mov cx, 5; hlt; loop hlt
FIVE_INTERRUPTS = bytes.fromhex("fbb90500f4e2fd")
TIMER = bytes.fromhex("b036e643b0ffe640b07fe640b0b8e621")
"""Set the timer to 36 Hz and let its interrupt through: out 43h, 36h; out 40h, ffh, 7fh; out 21h, b8h."""


def traced_boot(folder, *argv):
    """Boot from a fresh overlay; all calls and writes of the run, a thread at a time."""
    folder.mkdir()
    assert ours("qemu-img", "create", "-f", "qcow", "-b", os.path.abspath("base.img"), "ov.img").status == 0
    with record() as recording:
        result = run_boot(["-net", "none", "-m", "4", "-hda", "ov.img", *argv], 60)
    os.remove("ov.img")
    assert result.reason == "guest", result
    seen = {}
    for call in recording.trace.calls():
        what = (call.depth, call.file, call.function, call.args, call.ret, call.exc)
        seen.setdefault(("calls", call.thread), []).append(what)
    for write in recording.trace.writes():
        seen.setdefault(("writes", write.thread), []).append(
            (write.object, write.field, write.old, write.new)
        )
    return seen


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guests.write_demo_disk("base.img", 4 << 20)
    # The first boot of a process also makes what modules make when they are imported.
    run_boot(["-net", "none", "-m", "4", "-hda", "base.img", "-snapshot"], 60)
    return tmp_path


def assert_same_twice(folder, *argv):
    first, second = traced_boot(folder / "1", *argv), traced_boot(folder / "2", *argv)
    assert {key: len(rows) for key, rows in first.items()} == {key: len(rows) for key, rows in second.items()}
    for key, rows in first.items():
        for at, (one, other) in enumerate(zip(rows, second[key], strict=True)):
            assert one == other, f"{key} differs at {at}"
    return first


@pytest.mark.parametrize("shift", ["auto", "0", "7"])
def test_two_boots_of_the_demo_guest_make_one_trace(folder, shift):
    seen = assert_same_twice(folder, "-icount", shift)
    assert {kind for kind, _ in seen} == {"calls", "writes"}
    assert {thread for _, thread in seen} == {0, 1}, "the AIO worker is a thread of its own"
    functions = {row[2] for row in seen["calls", 0]}
    assert {"cpu_get_icount", "bmdma_cmd_writeb", "paio_submit", "ide_write_dma_cb"} <= functions


def test_snapshots_repeat_too(folder):
    """-snapshot's file has the same name each time, which is in the calls' arguments."""
    seen = assert_same_twice(folder, "-icount", "auto", "-snapshot")
    made = {row[3]["filename"] for row in seen["calls", 0] if row[2] == "bdrv_create"}
    assert made and all(name.startswith(f"{tempfile.gettempdir()}/vl.0000") for name in made)


def test_a_saved_machine_has_the_date_of_its_own_clock(folder, machine):
    assert ours("qemu-img", "create", "-f", "qcow2", "disk.img", "1M").status == 0
    dates = []
    for _ in range(2):
        running = machine(
            "-hda", "disk.img", "-icount", "auto", "-S", "-nographic", "-serial", "null", "-monitor", "stdio"
        )
        running.type("savevm one\ninfo snapshots\ndelvm one\nquit\n")
        assert running.end()[0] == 0
        dates.append([line.split()[3] for line in running.plain().splitlines() if " one " in line][-1])
    # 16 May 2010, the day of the release.
    assert dates == ["2010-05-16", "2010-05-16"]


def test_waiting_for_timer_interrupts_repeats_too(folder):
    asm.write_disk(folder / "base.img", TIMER + FIVE_INTERRUPTS + asm.OFF)
    seen = assert_same_twice(folder, "-icount", "auto")
    assert sum(row[2] == "pit_irq_timer" for row in seen["calls", 0]) >= 5


@pytest.mark.skipif(not os.path.exists(SEABIOS), reason="SeaBIOS is not here: apt-get install seabios")
def test_a_bios_that_measures_time_repeats_too(folder):
    asm.write_disk(folder / "base.img", asm.lba(0x42, 1, 1, 0x8000) + SHUTDOWN)
    assert_same_twice(folder, "-bios", "seabios", "-icount", "3")


def test_time_passes_by_instructions(folder):
    """At 2^10 ns an instruction the same boot takes the guest longer than at 2^0."""
    times = {}
    for shift in ("0", "10"):
        seen = traced_boot(folder / shift, "-icount", shift)
        times[shift] = max(row[4] for row in seen["calls", 0] if row[2] == "cpu_get_icount")
    assert times["10"] > times["0"]


@pytest.mark.parametrize("value", ["-1", "11"])
def test_a_wrong_shift_is_refused(folder, value):
    with pytest.raises(HypervisorError, match="an instruction takes"):
        run_boot(["-icount", value])
