"""Garbage at every port and in every descriptor: the machine lives on, or stops with a named error."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hypervisor import bios_disk, ioport, vl, vl_loop
from hypervisor.boot import run_boot
from hypervisor.errors import HypervisorError
from hypervisor.exec import ram
from hypervisor.vl_state import state
from tests.hypervisor import guest_code as asm

OUT = (ioport.cpu_outb, ioport.cpu_outw, ioport.cpu_outl)
IN = (ioport.cpu_inb, ioport.cpu_inw, ioport.cpu_inl)
BM = bios_disk.BMDMA_BASE
PANIC = {0x400, 0x401, 0x501, 0x502}
"""The firmware's ports of last resort: the real program, too, leaves at once when it writes there."""


def set_up_bus_master():
    """Give the controller its bus-master ports."""
    for register, value in ((0x20, BM), (0x04, 5)):
        ioport.cpu_outl(0xCF8, 0x80000000 | 9 << 8 | register)
        ioport.cpu_outl(0xCFC, value)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Run a function in place of the main loop, on a machine with disk, CD-ROM and floppy."""
    monkeypatch.chdir(tmp_path)
    for name, size in (("d.img", 1 << 20), ("cd.img", 1 << 19), ("f.img", 1440 << 10)):
        (tmp_path / name).write_bytes(bytes(size))

    def run(body):
        ran = []
        monkeypatch.setattr(vl, "main_loop", lambda: ran.append(body()))
        disks = ("-hda", "d.img", "-cdrom", "cd.img", "-fda", "f.img")
        run_boot([*disks, "-m", "2", "-net", "none", "-nographic", "-serial", "null", "-monitor", "null"])
        assert ran

    return run


def lives():
    """Whether the machine still does what it should: its disk answers IDENTIFY after a reset."""
    vl_loop.qemu_system_reset()
    state.shutdown_requested = state.reset_requested = 0
    vl_loop.main_loop_wait(0)
    ioport.cpu_outb(0x1F6, 0xE0)
    ioport.cpu_outb(0x1F7, 0xEC)
    status = ioport.cpu_inb(0x1F7)
    words = [ioport.cpu_inw(0x1F0) for _ in range(256)]
    return status == 0x58 and words[60] | words[61] << 16 == 2048


def ports():
    known = {port for table in ioport._read_table + ioport._write_table for port in table}
    return sorted(known - PANIC)


@pytest.mark.parametrize("seed", range(6))
def test_garbage_at_ports(machine, seed):
    chance = random.Random(seed)

    def body():
        set_up_bus_master()
        addresses = ports()
        for _ in range(3000):
            port = chance.choice(addresses) if chance.random() < 0.9 else chance.randrange(65536)
            width = chance.randrange(3)
            if port in PANIC or any(port + i in PANIC for i in range(4)):
                continue
            try:
                if chance.random() < 0.7:
                    value = chance.choice((0, 0xFF, 1 << chance.randrange(32), chance.getrandbits(32)))
                    OUT[width](port, value & (1 << (8 << width)) - 1)
                else:
                    assert 0 <= IN[width](port) < 1 << (8 << width), hex(port)
                if chance.random() < 0.02:
                    vl_loop.main_loop_wait(0)
            except HypervisorError:
                pass
        assert lives()

    machine(body)


def test_every_value_at_every_port_of_bytes(machine):
    def body():
        set_up_bus_master()
        for port in ports():
            for value in range(256):
                try:
                    ioport.cpu_outb(port, value)
                    assert 0 <= ioport.cpu_inb(port) <= 0xFF, hex(port)
                except HypervisorError:
                    pass
        assert lives()

    machine(body)


descriptors = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=descriptors,
    table=st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 2 << 20)),
    lba=st.integers(0, 2**28 - 1),
    count=st.integers(0, 255),
    command=st.sampled_from((0xC8, 0xCA, 0x25, 0x35, 0xA0)),
    direction=st.sampled_from((0x01, 0x09)),
)
def test_garbage_in_descriptors(machine, entries, table, lba, count, command, direction):
    def body():
        set_up_bus_master()
        for number, (base, size) in enumerate(entries):
            at = table + 8 * number
            if at + 8 <= len(ram()):
                ram()[at : at + 8] = base.to_bytes(4, "little") + size.to_bytes(4, "little")
        try:
            ioport.cpu_outl(BM + 4, table)
            ioport.cpu_outb(0x1F6, 0xE0 | lba >> 24)
            for register, value in ((2, count), (3, lba), (4, lba >> 8), (5, lba >> 16)):
                ioport.cpu_outb(0x1F0 + register, value & 0xFF)
            ioport.cpu_outb(0x1F7, command)
            ioport.cpu_outb(BM, direction)
            for _ in range(5):
                vl_loop.main_loop_wait(1)
        except HypervisorError:
            pass
        assert lives()

    machine(body)


@pytest.mark.parametrize("seed", range(12))
def test_garbage_for_instructions(tmp_path, seed):
    """A boot sector of chance bytes runs into anything: exceptions, missing memory, resets."""
    chance = random.Random(seed)
    disk = asm.write_disk(tmp_path / "d.img", chance.randbytes(400))
    options = ["-hda", disk, "-m", "2", "-net", "none", "-no-reboot", "-monitor", "null"]
    try:
        result = run_boot(options, 1.0)
    except HypervisorError as error:
        assert "the guest" in str(error)
    else:
        assert result.reason in ("timeout", "guest", "stuck", "")
