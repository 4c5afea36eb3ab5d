"""A machine saved into its disk comes back as it was, and what is saved has the form of 0.12.4."""

import random
import re
import signal
import struct
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor import vl
from hypervisor.boot import run_boot
from hypervisor.errors import HypervisorError
from hypervisor.exec import ram
from hypervisor.savevm import (
    _savevm_handlers,
    qemu_loadvm_state,
    qemu_savevm_state_begin,
    qemu_savevm_state_complete,
    qemu_savevm_state_iterate,
)
from hypervisor.savevm_file import qemu_fflush, qemu_fopen_ops
from hypervisor.savevm_rehearsal import rehearse_loading, rehearse_saving
from hypervisor.stream_reader import read_stream
from hypervisor.vl_state import state
from studykvm import guests
from tests.hypervisor.machines import until
from tests.hypervisor.test_migration import Side
from tests.hypervisor.tools import img, needs_qemu, real

# Bytes of each section that qemu-kvm 0.12.4 wrote with -no-kvm -m 32 -net none -hda FILE, heads included.
MEASURED = {
    ("timer", 0, 2): 43,
    ("cpu_common", 0, 1): 32,
    ("cpu", 0, 12): 1562,
    ("apic", 0, 3): 199,
    ("fw_cfg", 0, 2): 26,
    ("i8259", 32, 1): 35,
    ("i8259", 160, 1): 35,
    ("PCIBUS", 0, 1): 40,
    ("I440FX", 0, 3): 297,
    ("PIIX3", 0, 3): 311,
    ("cirrus_vga", 0, 2): 1894,
    ("mc146818rtc", 112, 2): 230,
    ("ioapic", 0, 2): 226,
    ("i8254", 64, 2): 127,
    ("hpet", 0, 1): 168,
    ("serial", 1016, 3): 31,
    ("ide", 0, 3): 525859,
    ("ps2kbd", 0, 3): 304,
    ("ps2mouse", 0, 2): 313,
    ("vmmouse", 0, 0): 4126,
    ("pckbd", 0, 3): 23,
    ("dma", 0, 1): 92,
    ("dma", 1, 1): 92,
    ("fdc", 1008, 2): 562,
    ("piix4_pm", 0, 1): 322,
    ("i2c_bus", 0, 1): 22,
}


def in_a_machine(monkeypatch, body, *options):
    """Run `body` where the main loop would run."""
    monkeypatch.setattr(vl, "main_loop", body)
    run_boot(["-S", "-net", "none", "-m", "4", "-nodefaults", "-nographic", "-serial", "null", *options])


def save():
    """The machine as a stream."""
    saved = bytearray()

    def put_buffer(opaque, buf, pos, size):
        saved.extend(buf)
        return size

    f = qemu_fopen_ops(None, put_buffer, None, None, None, None, None)
    assert qemu_savevm_state_begin(None, f, 0, 0) == 0
    assert qemu_savevm_state_iterate(None, f) == 1
    assert qemu_savevm_state_complete(None, f) == 0
    qemu_fflush(f)
    return bytes(saved)


def load(stream):
    """What loading a stream returns."""
    rest = memoryview(stream)

    def get_buffer(opaque, buf, pos, size):
        part = rest[pos : pos + size]
        buf[: len(part)] = part
        return len(part)

    return qemu_loadvm_state(qemu_fopen_ops(None, None, get_buffer, None, None, None, None))


def numbers(vmsd, opaque):
    """Every field of a device that holds a number: whose it is, its name, and its bytes."""
    for field in vmsd.fields:
        if field.vmsd is None and field.num is None and field.missing is None and field.attr.isidentifier():
            kind = field.info.name
            if kind.startswith("uint") and kind[4:].isdigit() and hasattr(opaque, field.attr):
                yield opaque, field.attr, field.size


def scramble(chosen):
    """Fill small devices with chosen numbers; those whose values mean places are left alone."""
    for se in _savevm_handlers:
        if se.idstr in ("i8259", "ps2mouse", "pckbd", "serial", "fw_cfg"):
            for opaque, name, size in numbers(se.vmsd, se.opaque):
                setattr(opaque, name, chosen.getrandbits(8 * size))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    pages=st.dictionaries(
        st.integers(0, 1023),
        st.one_of(st.binary(min_size=1, max_size=4096), st.integers(0, 255)),
        max_size=24,
    ),
    registers=st.lists(st.integers(0, 2**32 - 1), min_size=8, max_size=8),
)
def test_what_is_loaded_is_what_was_saved(monkeypatch, seed, pages, registers):
    streams = []

    def source():
        for number, content in pages.items():
            page = bytes([content]) * 4096 if isinstance(content, int) else content.ljust(4096, b"\xa5")
            ram()[number * 4096 : (number + 1) * 4096] = page
        scramble(random.Random(seed))
        cpu = state.first_cpu.accel.state()
        cpu.regs = [*registers, *cpu.regs[8:]]
        state.first_cpu.accel.set_state(cpu)
        streams.extend((save(), bytes(ram()[:]), state.first_cpu.accel.state()))

    def destination():
        ram()[0x5000:0x9000] = b"\x77" * 0x4000
        scramble(random.Random(seed + 1))
        assert load(streams[0]) == 0
        streams.extend((save(), bytes(ram()[:]), state.first_cpu.accel.state()))

    in_a_machine(monkeypatch, source)
    in_a_machine(monkeypatch, destination)
    assert streams[0] == streams[3] and streams[1] == streams[4] and streams[2] == streams[5]


def test_practice_changes_nothing(monkeypatch, capfd):
    devices, memory = [], []

    def note():
        # Where memory is begun with depends on where it was left.
        devices.append(save().partition(b"\5timer")[2])
        memory.append(bytes(ram()[:]))

    def body():
        ram()[0x5000:0x9000] = b"\x77" * 0x4000
        scramble(random.Random(1))
        note()
        rehearse_loading()
        rehearse_saving()
        note()

    in_a_machine(monkeypatch, body)
    assert devices[0] == devices[1] != b"" and memory[0] == memory[1]
    assert capfd.readouterr().err == ""


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_stream_never_crashes_the_machine(monkeypatch, damaged, at, byte, cut):
    place = int(at * (len(damaged) - 1))
    stream = damaged[:place] if cut else damaged[:place] + bytes([byte]) + damaged[place + 1 :]

    def body():
        assert load(stream) in (0, -5, -22, -95)

    in_a_machine(monkeypatch, body)


IMPOSSIBLE = {
    "ps2kbd": lambda keyboard: setattr(keyboard.common.queue, "rptr", 256),
    "mc146818rtc": lambda clock: setattr(clock, "cmos_index", 128),
    "i8254": lambda timer: setattr(timer.channels[1], "count", 0),
    "ide": lambda controller: setattr(controller.ide_bus[1], "unit", 2),
    "studykvm-bios": lambda saved: setattr(saved.bios, "_ticks_at_zero", float("nan")),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_no_device_can_go_on_with_is_refused(monkeypatch, name):
    streams = []

    def source():
        IMPOSSIBLE[name](next(se.opaque for se in _savevm_handlers if se.idstr == name))
        streams.append(save())

    in_a_machine(monkeypatch, source)
    in_a_machine(monkeypatch, lambda: streams.append(load(streams[0])))
    assert streams[1] == -22


@pytest.fixture(scope="module")
def damaged():
    with pytest.MonkeyPatch.context() as patch:
        kept = []
        in_a_machine(patch, lambda: kept.append(save()))
    return kept[0]


def test_sections_are_those_of_the_real_program(machine, tmp_path):
    guests.write_count_disk(str(tmp_path / "count.img"))
    side = Side(machine, tmp_path, "measured", "-bios", "seabios", memory="32")
    side.ask(f'migrate "exec:cat > {tmp_path}/state.bin"')
    side.stop()
    with open(tmp_path / "state.bin", "rb") as file:
        found = list(read_stream(file))
    live = [section for section in found if section.kind != "full"]
    assert [section.idstr for section in live[:2]] == ["block", "ram"]
    assert live[1].pages["memory"] == 32 << 20
    full = {(s.idstr, s.instance_id, s.version_id): s.size for s in found if s.kind == "full"}
    assert full == MEASURED and list(full) == list(MEASURED)


def test_not_a_stream(tmp_path):
    for content, words in ((b"", "QEVM"), (b"QFI\xfb" + bytes(99), "QEVM"), (b"QEVM\0\0\0\2", "version 2")):
        (tmp_path / "x").write_bytes(content)
        with open(tmp_path / "x", "rb") as file, pytest.raises(HypervisorError, match=words):
            list(read_stream(file))


@pytest.fixture
def overlay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guests.write_count_disk("base.img", 40, 20_000)
    img("create", "-f", "qcow2", "-b", "base.img", "count.img")
    return tmp_path


def test_a_snapshot_brings_the_count_back(machine, overlay):
    side = Side(machine, overlay, "side")
    side.wait_for_numbers(100)
    side.ask("savevm early")
    side.wait_for_numbers(side.numbers().count("\n") + 100)
    side.ask("stop")
    late = side.numbers()
    side.ask("loadvm early")
    assert side.status() == "paused"
    side.ask("cont")
    side.wait_for_numbers(late.count("\n") + 100)
    listed = side.ask("info snapshots")
    side.stop()
    again = side.numbers()[len(late) :]
    first = re.search(r"^(\d+)\n(\d+)\n", again.split("\n", 1)[1], re.M)
    lines = [int(line) for line in again.split("\n")[1:-1]]
    assert lines == list(range(lines[0], lines[0] + len(lines))) and first
    assert lines[0] < int(late.split("\n")[-2])
    assert "early" in listed


def test_a_snapshot_goes_on_in_a_new_process(machine, overlay):
    side = Side(machine, overlay, "first")
    side.wait_for_numbers(100)
    side.ask("stop")
    side.ask("savevm kept")
    side.stop()
    later = Side(machine, overlay, "second", "-loadvm", "kept")
    later.wait_for_numbers(50)
    assert later.status() == "running"
    later.stop()
    told = side.numbers() + later.numbers()
    counted = told[re.search(r"^1$", told, re.M).start() :].split("\n")[:-1]
    assert counted == [str(n) for n in range(1, len(counted) + 1)]


@needs_qemu
def test_snapshots_are_those_that_qemu_img_sees(machine, overlay):
    side = Side(machine, overlay, "side")
    side.wait_for_numbers(20)
    for name in ("one", "two", "three"):
        side.ask(f"savevm {name}")
    side.ask("savevm two")
    side.ask("delvm one")
    listed = side.ask("info snapshots")
    side.stop()
    theirs = real("qemu-img", "snapshot", "-l", "count.img").splitlines()[2:]
    ours = re.search(r"VM CLOCK\n(.*)", listed, re.S)[1].splitlines()
    assert [row.split()[:2] for row in ours] == [row.split()[:2] for row in theirs]
    assert [row.split()[-3:] for row in ours] == [row.split()[-3:] for row in theirs]
    assert sorted(row.split()[1] for row in ours) == ["three", "two"]
    assert "No errors were found" in real("qemu-img", "check", "count.img")


def test_a_raw_disk_cannot_hold_a_snapshot(machine, tmp_path):
    guests.write_count_disk(str(tmp_path / "count.img"))
    side = Side(machine, tmp_path, "side")
    side.wait_for_numbers(20)
    before = side.numbers().count("\n")
    assert "Error while creating snapshot on 'ide0-hd0'" in side.ask("savevm x")
    assert "Snapshots not supported on device 'ide0-hd0'" in side.ask("loadvm x")
    assert "Snapshots not supported on device 'ide0-hd0'" in side.ask("delvm x")
    side.wait_for_numbers(before + 20)
    side.stop()


def test_a_disk_that_was_taken_out_cannot_hold_a_snapshot(machine, overlay):
    side = Side(machine, overlay, "side")
    side.ask("eject -f ide0-hd0")
    assert "Error while creating snapshot on 'ide0-hd0'" in side.ask("savevm x")
    side.stop()


def test_a_machine_that_boots_instead_of_loading_says_so_when_it_ends(machine, overlay):
    told = Side(machine, overlay, "side", "-loadvm", "gone").stop()
    assert "snapshot 'gone' was not loaded, the machine just goes on" in told


def test_an_unknown_snapshot(machine, overlay):
    side = Side(machine, overlay, "side")
    assert "Could not find snapshot 'x' on device 'ide0-hd0'" in side.ask("loadvm x")
    assert side.status() == "running"
    side.stop()


@needs_qemu
@pytest.mark.parametrize("grown", [0, 1, 1 << 17, 1 << 18])
def test_killed_while_it_saves(machine, overlay, grown):
    side = Side(machine, overlay, "side", memory="64")
    side.wait_for_numbers(20)
    side.ask("savevm before")
    image = overlay / "count.img"
    before = image.stat().st_size
    side.running.type("savevm x\n")
    until(lambda: image.stat().st_size >= before + grown)
    side.running.process.send_signal(signal.SIGKILL)
    side.running.process.communicate()
    checked = subprocess.run(["qemu-img", "check", "count.img"], capture_output=True, text=True, check=False)
    # 0 clean, 3 leaking only.
    assert checked.returncode in (0, 3), checked.stdout
    assert struct.unpack(">4sI", (overlay / "count.img").read_bytes()[:8]) == (b"QFI\xfb", 2)
    later = Side(machine, overlay, "later", "-loadvm", "before", memory="64")
    later.wait_for_numbers(20)
    later.stop()
