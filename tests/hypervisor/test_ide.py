"""The IDE controller by its ports: what drives say of themselves, PIO, DMA, packets, errors and nonsense."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import recordings
from hypervisor import bios_disk, vl, vl_loop
from hypervisor.boot import run_boot
from hypervisor.exec import ram
from hypervisor.hw.ide import commands
from hypervisor.ioport import cpu_inb, cpu_inl, cpu_inw, cpu_outb, cpu_outl, cpu_outw
from hypervisor.vl_drive import drives
from tracer import record, registry

SECTOR = 512
BASE = 0x1F0
BM = bios_disk.BMDMA_BASE


@pytest.fixture
def at_ports(tmp_path, monkeypatch):
    """Run a function in place of the main loop, on a machine with a disk and a CD-ROM of numbered sectors."""
    monkeypatch.chdir(tmp_path)
    for name, count in (("d.img", 2048), ("cd.img", 400)):
        data = b"".join(number.to_bytes(4, "little") * (SECTOR // 4) for number in range(count))
        (tmp_path / name).write_bytes(data)

    def run(body):
        monkeypatch.setattr(vl, "main_loop", body)
        return run_boot(["-hda", "d.img", "-cdrom", "cd.img", "-m", "2", "-net", "none"])

    return run


def words(count):
    return b"".join(cpu_inw(BASE).to_bytes(2, "little") for _ in range(count))


def command(number, lba=0, count=1, base=BASE, unit=0):
    cpu_outb(base + 6, 0xE0 | unit << 4 | lba >> 24)
    for register, value in ((2, count), (3, lba), (4, lba >> 8), (5, lba >> 16)):
        cpu_outb(base + register, value & 0xFF)
    cpu_outb(base + 7, number)


def set_up_bus_master():
    cpu_outl(0xCF8, 0x80000000 | 9 << 8 | 0x20)
    cpu_outl(0xCFC, BM)
    cpu_outl(0xCF8, 0x80000000 | 9 << 8 | 0x04)
    cpu_outb(0xCFC, 5)


def turn_until(done, turns=200):
    for _ in range(turns):
        if done():
            return
        vl_loop.main_loop_wait(10)
    raise AssertionError("the main loop turned in vain")


def test_identify(at_ports):
    seen = {}

    def body():
        command(0xEC)
        seen["status"] = cpu_inb(BASE + 7)
        seen["words"] = words(256)
        seen["after"] = cpu_inb(BASE + 7)

    at_ports(body)
    word = [int.from_bytes(seen["words"][i : i + 2], "little") for i in range(0, 512, 2)]
    text = b"".join(seen["words"][i : i + 2][::-1] for i in range(54, 94, 2)).decode()
    assert (seen["status"], seen["after"]) == (0x58, 0x50)
    assert (word[1], word[3], word[6]) == (2, 16, 63)
    assert word[60] | word[61] << 16 == 2048
    assert text.rstrip() == "QEMU HARDDISK"


def test_reading_and_writing_by_the_data_port(at_ports, tmp_path):
    seen = []

    def body():
        command(0x20, lba=5, count=2)
        seen.append(words(256))
        seen.append(words(256))
        command(0x30, lba=9)
        for number in range(256):
            cpu_outw(BASE, number)
        seen.append(cpu_inb(BASE + 7))

    at_ports(body)
    assert [part[:4] for part in seen[:2]] == [bytes((5, 0, 0, 0)), bytes((6, 0, 0, 0))]
    assert seen[2] == 0x50
    written = b"".join(number.to_bytes(2, "little") for number in range(256))
    assert (tmp_path / "d.img").read_bytes()[9 * SECTOR : 10 * SECTOR] == written


def test_dma_into_several_pieces_of_memory(at_ports):
    seen = {}

    def body():
        set_up_bus_master()
        table = ((0x10000, 512), (0x20001, 1024), (0x30000, 512))
        for at, (address, size) in enumerate(table):
            last = 0x80000000 if at == len(table) - 1 else 0
            entry = address.to_bytes(4, "little") + (size | last).to_bytes(4, "little")
            ram()[0x5000 + 8 * at : 0x5008 + 8 * at] = entry
        cpu_outl(BM + 4, 0x5000)
        cpu_outb(BM, 8)
        command(0xC8, lba=100, count=4)
        cpu_outb(BM, 9)
        seen["busy"] = cpu_inb(BASE + 0x206)
        turn_until(lambda: not cpu_inb(BASE + 0x206) & 0x80)
        seen["status"], seen["bm"] = cpu_inb(BASE + 7), cpu_inb(BM + 2)
        seen["data"] = ram()[0x10000:0x10200] + ram()[0x20001:0x20401] + ram()[0x30000:0x30200]

    at_ports(body)
    assert (seen["busy"], seen["status"], seen["bm"]) == (0xD8, 0x50, 0x04)
    assert seen["data"] == b"".join(number.to_bytes(4, "little") * 128 for number in range(100, 104))


def test_dma_beyond_the_disk_is_an_error(at_ports):
    seen = {}

    def body():
        set_up_bus_master()
        ram()[0x5000:0x5008] = (0x10000).to_bytes(4, "little") + (0x80000200).to_bytes(4, "little")
        cpu_outl(BM + 4, 0x5000)
        command(0xC8, lba=5000)
        cpu_outb(BM, 9)
        seen["status"], seen["error"] = cpu_inb(BASE + 7), cpu_inb(BASE + 1)

    at_ports(body)
    assert (seen["status"], seen["error"]) == (0x41, 0x04)


def test_a_pending_request_can_be_cancelled(at_ports):
    seen = []

    def body():
        set_up_bus_master()
        ram()[0x5000:0x5008] = (0x10000).to_bytes(4, "little") + (0x80000200).to_bytes(4, "little")
        cpu_outl(BM + 4, 0x5000)
        command(0xC8)
        cpu_outb(BM, 9)
        cpu_outb(BM, 8)
        seen.append(cpu_inb(BM + 2) & 1)
        for _ in range(3):
            vl_loop.main_loop_wait(1)

    at_ports(body)
    assert seen == [0]


def packet(*data, by_dma=0):
    cpu_outb(0x176, 0xA0)
    for register, value in ((1, by_dma), (4, 0), (5, 0x08), (7, 0xA0)):
        cpu_outb(0x170 + register, value)
    data = bytes(data).ljust(12, b"\0")
    for at in range(0, 12, 2):
        cpu_outw(0x170, data[at] | data[at + 1] << 8)


def drain():
    data = b""
    while cpu_inb(0x177) & 0x08:
        data += cpu_inw(0x170).to_bytes(2, "little")
    return data


def test_packets(at_ports):
    seen = {}

    def body():
        packet(0x12, 0, 0, 0, 36)
        seen["inquiry"] = drain()
        packet(0x25)
        seen["capacity"] = drain()
        packet(0x28, 0, 0, 0, 0, 3, 0, 0, 2)
        seen["read"] = drain()
        packet(0xBE, 0, 0, 0, 0, 3, 0, 0, 2, 0xF8)
        seen["raw"] = drain()
        packet(0x28, 0, 0, 0, 99, 0, 0, 0, 1)
        seen["beyond"] = cpu_inb(0x177), cpu_inb(0x171)
        packet(0x43, 0, 0, 0, 0, 0, 0, 0, 20)
        seen["toc"] = drain()
        packet(0xFF)
        packet(0x03, 0, 0, 0, 18)
        seen["sense"] = drain()

    at_ports(body)
    assert seen["inquiry"][8:28] == b"QEMU    QEMU DVD-ROM"
    assert seen["capacity"] == (99).to_bytes(4, "big") + (2048).to_bytes(4, "big")
    assert seen["read"][::SECTOR] == bytes(range(12, 20))
    assert len(seen["raw"]) == 2 * 2352 and seen["raw"][:12] == b"\0" + b"\xff" * 10 + b"\0"
    assert seen["raw"][2352 + 12 : 2352 + 16] == bytes((0, 2, 4, 1))
    assert seen["raw"][16 : 16 + 2048] + seen["raw"][2368 : 2368 + 2048] == seen["read"]
    assert seen["beyond"] == (0x41, 0x50)
    assert seen["toc"][:4] == b"\x00\x12\x01\x01" and seen["toc"][16:20] == (100).to_bytes(4, "big")
    assert (seen["sense"][2] & 0x0F, seen["sense"][12]) == (5, 0x20)


def test_blocks_of_a_disc_come_by_dma_plain_and_raw(at_ports):
    seen = {}

    def body():
        set_up_bus_master()
        for at, (address, size) in enumerate(((0x10000, 0), (0x20000, 0), (0x30000, 0x80000000 | 0x8000))):
            ram()[0x5000 + 8 * at : 0x5008 + 8 * at] = address.to_bytes(4, "little") + size.to_bytes(
                4, "little"
            )
        # More blocks than one request takes.
        for name, what in (
            ("plain", (0x28, 0, 0, 0, 0, 3, 0, 0, 70)),
            ("raw", (0xBE, 0, 0, 0, 0, 3, 0, 0, 2, 0xF8)),
        ):
            cpu_outb(BM + 8, 8)
            cpu_outb(BM + 10, 6)
            cpu_outl(BM + 12, 0x5000)
            packet(*what, by_dma=1)
            cpu_outb(BM + 8, 9)
            turn_until(lambda: cpu_inb(BM + 10) & 4)
            seen[name] = ram()[0x10000:0x40000], cpu_inb(0x177)

    at_ports(body)
    plain = b"".join(number.to_bytes(4, "little") * 128 for number in range(12, 12 + 280))
    assert seen["plain"][0][: len(plain)] == plain and seen["plain"][1] == 0x50
    raw = seen["raw"][0]
    assert raw[:16] == b"\0" + b"\xff" * 10 + bytes((0, 0, 2, 3, 1)) and raw[2352 + 12 : 2352 + 16] == bytes(
        (0, 2, 4, 1)
    )
    assert raw[16 : 16 + 2048] + raw[2368 : 2368 + 2048] == plain[:4096] and seen["raw"][1] == 0x50


def test_reset_shows_the_drives_signatures(at_ports):
    seen = {}

    def body():
        for base in (0x1F0, 0x170):
            cpu_outb(base + 0x206, 0x04)
            seen[base] = [cpu_inb(base + 0x206)]
            cpu_outb(base + 0x206, 0x00)
            seen[base] += [cpu_inb(base + 0x206), *(cpu_inb(base + register) for register in (2, 3, 4, 5))]

    at_ports(body)
    assert seen == {0x1F0: [0x90, 0x50, 1, 1, 0, 0], 0x170: [0x90, 0x00, 1, 1, 0x14, 0xEB]}


@pytest.mark.parametrize("number", sorted({*commands._COMMANDS, 0x01, 0xFE, 0xFF}))
def test_every_command_leaves_the_drives_answering(at_ports, number):
    seen = []

    def body():
        set_up_bus_master()
        for base, unit in ((0x1F0, 0), (0x1F0, 1), (0x170, 0), (0x170, 1)):
            command(number, lba=3, count=1, base=base, unit=unit)
            for _ in range(3):
                vl_loop.main_loop_wait(0)
            cpu_outb(base + 0x206, 0x04)
            cpu_outb(base + 0x206, 0x00)
        command(0xEC)
        seen.append(cpu_inb(BASE + 7))

    at_ports(body)
    assert seen == [0x58]


ACCESS = st.tuples(
    st.sampled_from(
        [*range(0x1F0, 0x1F8), *range(0x170, 0x178), 0x3F6, 0x376, *range(BM, BM + 16), 0x20, 0xA1]
    ),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 0xFFFFFFFF),
    st.booleans(),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(ACCESS, max_size=200), st.integers(0))
def test_nonsense_at_the_ports_does_no_harm(tmp_path_factory, accesses, seed):
    folder = tmp_path_factory.mktemp("ports")
    for name in ("d.img", "cd.img"):
        (folder / name).write_bytes(bytes(64 << 10))

    def body():
        set_up_bus_master()
        ram()[0x1000:0x3000] = random.Random(seed).randbytes(0x2000)
        for port, size, value, is_write in accesses:
            if is_write:
                {1: cpu_outb, 2: cpu_outw, 4: cpu_outl}[size](port, value & (1 << 8 * size) - 1)
            else:
                {1: cpu_inb, 2: cpu_inw, 4: cpu_inl}[size](port)
        for _ in range(5):
            vl_loop.main_loop_wait(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vl, "main_loop", body)
        argv = ["-drive", f"file={folder}/d.img,werror=report", "-cdrom", f"{folder}/cd.img", "-m", "2"]
        assert run_boot([*argv, "-net", "none"]).status == 0
    assert (folder / "d.img").stat().st_size == 64 << 10


def test_drives_have_the_serial_numbers_and_names_of_the_recording(at_ports):
    seen = {}

    def body():
        seen.update({dinfo.id: (dinfo.type, dinfo.bus, dinfo.unit, dinfo.on_write_error) for dinfo in drives})

    at_ports(body)
    wanted = recordings.structures("system_hda_qcow_on_raw")[-1]["drives"]
    assert seen == {d["id"]["str"]: (d["type"], d["bus"], d["unit"], d["on_write_error"]) for d in wanted}


def subtree(calls, root, nth=0):
    """Names below the nth call of `root` on its thread, in the order of their calls."""
    roots = [at for at, call in enumerate(calls) if call[1] == root]
    at = roots[nth]
    depth, thread = calls[at][0], calls[at][2]
    names = []
    for inner, name, its_thread, file in calls[at + 1 :]:
        if its_thread == thread:
            if inner <= depth:
                break
            names.append((file, name))
    return names


@pytest.mark.parametrize("root", ["ide_read_dma_cb", "ide_write_dma_cb"])
def test_the_guests_first_requests_are_those_of_the_recording(tmp_path, monkeypatch, root):
    from studykvm import guests
    from tests.hypervisor.tools import ours

    monkeypatch.chdir(tmp_path)
    guests.write_demo_disk("base_raw.img", 16 << 20)
    assert ours("qemu-img", "create", "-f", "qcow", "-b", "base_raw.img", "overlay.img").status == 0
    with record(None) as rec:
        run_boot(["-hda", "overlay.img", "-m", "32", "-net", "none"], 20)
    ours_calls = [(c.depth, c.function, c.thread, c.file) for c in rec.trace.calls()]
    theirs = [(depth, name, thread, file) for depth, (file, name), thread in recordings.load("d01").calls]
    known = {(entry.file, entry.name) for entry in registry() if entry.file != "exec.c"}
    model = [call for call in subtree(ours_calls, root) if call[0] != "exec.c"]
    assert model == [call for call in subtree(theirs, root) if call in known]
