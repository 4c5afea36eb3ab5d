"""The processor: interrupts and exceptions in both modes, its whole state, memory, and what of it changed."""

import mmap
import os
import struct
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor import exec as memory
from hypervisor import ioport, quirks
from hypervisor.accel import CpuState, Segment, Table, make_accel
from hypervisor.accel.interrupt import TripleFault, deliver, unpack
from hypervisor.accel.unicorn_accel import UnicornAccel
from hypervisor.errors import HypervisorError
from hypervisor.program import program
from hypervisor.vl_state import state

CODE, GDT, IDT, TSS, STACK = 0x8000, 0x1000, 0x2000, 0x3000, 0x7000
FLAT_CODE, FLAT_DATA = 0x00CF9A00, 0x00CF9200
USER_CODE, USER_DATA = 0x00CFFA00, 0x00CFF200
HANDLER = 0x9000
SIZE = 1 << 21


@pytest.fixture(params=["blocks", "exact", "portable"])
def accel(request, monkeypatch):
    """A processor, whose slices are counted in either way, and as on a host of another kind."""
    if request.param == "portable":
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="aarch64"))
    with program("qemu-system-x86_64"):
        memory.qemu_ram_alloc(SIZE)
        made = UnicornAccel(exact=request.param == "exact")
        made.map_ram()
        made.reset()
        yield made


def put(address, data):
    memory.ram()[address : address + len(data)] = data


def gate(number, target, selector=8, kind=0xE, dpl=0):
    flags = 0x8000 | dpl << 13 | kind << 8
    put(IDT + 8 * number, struct.pack("<HHHH", target & 0xFFFF, selector, flags, target >> 16))


def protected(**changes):
    """A processor in flat protected mode, with an empty interrupt table."""
    put(
        GDT,
        struct.pack(
            "<12I", 0, 0, 0xFFFF, FLAT_CODE, 0xFFFF, FLAT_DATA, 0xFFFF, USER_CODE, 0xFFFF, USER_DATA, 0, 0
        ),
    )
    task = struct.pack("<III", 0, STACK, 0x10)
    put(TSS, task.ljust(104, b"\0"))
    data = Segment(0x10, 0, 0xFFFFFFFF, 0x00CF9300)
    segs = dict.fromkeys(("ds", "es", "ss", "fs", "gs"), data)
    segs |= {"cs": Segment(8, 0, 0xFFFFFFFF, 0x00CF9B00), "ldt": Segment(0, 0, 0, 0x8200)}
    segs["tr"] = Segment(0x28, TSS, 103, 0x8B00)
    cpu = CpuState(segs=segs, gdt=Table(GDT, 47), idt=Table(IDT, 2047), cr=[0x11, 0, 0, 0, 0], eip=CODE)
    cpu.regs[4] = STACK
    cpu.dr[6:8] = [0xFFFF0FF0, 0x400]
    for name, value in changes.items():
        setattr(cpu, name, value)
    return cpu


def stacked(cpu, count):
    at = cpu.regs[4]
    return struct.unpack(f"<{count}I", memory.ram()[at : at + 4 * count])


def test_int_and_iret_in_protected_mode(accel):
    gate(0x30, HANDLER)
    # int 30h; mov ebx, 2; hlt | handler: mov eax, 1; iret
    put(CODE, bytes.fromhex("cd30bb02000000f4"))
    put(HANDLER, bytes.fromhex("b801000000cf"))
    accel.set_state(protected(eflags=0x202))
    assert accel.run(1000)
    cpu = accel.state()
    assert (cpu.regs[0], cpu.regs[3], cpu.regs[4], cpu.eip) == (1, 2, STACK, CODE + 8)
    assert cpu.eflags & 0x200


def test_an_exception_brings_its_error_code(accel):
    gate(13, HANDLER)
    # mov ax, 1238h; mov ds, ax | handler: hlt
    put(CODE, bytes.fromhex("66b838128ed8"))
    put(HANDLER, b"\xf4")
    accel.set_state(protected())
    assert accel.run(1000)
    cpu = accel.state()
    assert cpu.eip == HANDLER + 1
    assert stacked(cpu, 3) == (0x1238, CODE + 4, 8)


@pytest.mark.parametrize(
    ("code", "vector", "at"),
    [("0f0b", 6, 0), ("31c9f7f1", 0, 2), ("cc", 3, 1)],
    ids=["undefined instruction", "division by zero", "breakpoint"],
)
def test_exceptions_without_error_code(accel, code, vector, at):
    gate(vector, HANDLER)
    put(CODE, bytes.fromhex(code))
    put(HANDLER, b"\xf4")
    accel.set_state(protected())
    while not accel.run(1000):
        pass
    assert stacked(accel.state(), 2) == (CODE + at, 8)


def test_an_interrupt_from_user_code_changes_the_stack(accel):
    gate(0x80, HANDLER, dpl=3)
    put(CODE, b"\xcd\x80")
    put(HANDLER, b"\xf4")
    cpu = protected()
    user = Segment(0x23, 0, 0xFFFFFFFF, 0x00CFF300)
    cpu.segs |= {"cs": Segment(0x1B, 0, 0xFFFFFFFF, 0x00CFFB00), "ss": user, "ds": user}
    cpu.regs[4] = 0x6000
    accel.set_state(cpu)
    assert accel.run(1000)
    cpu = accel.state()
    assert cpu.segs["cs"].selector == 8 and cpu.segs["ss"].selector == 0x10
    assert cpu.regs[4] == STACK - 20
    eip, cs, flags, esp, ss = stacked(cpu, 5)
    assert (eip, cs, flags & 2, esp, ss) == (CODE + 2, 0x1B, 2, 0x6000, 0x23)


def test_an_interrupt_from_outside_waits_for_sti(accel):
    gate(0x20, HANDLER)
    put(CODE, b"\xfa\xf4")
    accel.set_state(protected(eflags=0x202))
    assert accel.interrupts_enabled()
    assert accel.run(1000)
    assert not accel.interrupts_enabled()
    put(CODE, b"\xfb\x90\xf4")
    accel.memory_written(CODE, 3)
    accel.set_state(protected(eflags=2))
    assert accel.run(1000) and accel.interrupts_enabled()
    accel.inject(0x20)
    cpu = accel.state()
    assert cpu.eip == HANDLER and not cpu.eflags & 0x200
    assert stacked(cpu, 2) == (CODE + 3, 8)


def test_a_triple_fault_resets(accel):
    put(CODE, b"\x0f\x0b")
    accel.set_state(protected(idt=Table(0, 0)))
    accel.run(1000)
    assert state.reset_requested
    assert "triple-fault" in quirks.notes()


def test_real_mode_pushes_three_words_and_goes_by_the_table(accel):
    cpu = CpuState(regs=[0] * 16, eip=0x100, eflags=0x246)
    cpu.segs = {name: Segment(0, 0, 0xFFFF, 0x9300) for name in ("es", "ss", "ds", "fs", "gs", "ldt", "tr")}
    cpu.segs |= {"cs": Segment(0x800, 0x8000, 0xFFFF, 0x9B00), "ss": Segment(0x700, 0x7000, 0xFFFF, 0x9300)}
    cpu.regs[4] = 0x12340002
    cpu.cr[0], cpu.idt = 0x10, Table(0, 0x3FF)
    put(4 * 0x21, struct.pack("<HH", 0x0010, 0x0900))
    put(0x8100, b"\xcd\x21")
    put(0x9010, b"\xf4")
    accel.set_state(cpu)
    assert accel.run(1000)
    cpu = accel.state()
    assert (cpu.segs["cs"].selector, cpu.segs["cs"].base, cpu.eip) == (0x900, 0x9000, 0x11)
    # The stack wraps within its 64 KiB, and the upper half of ESP stays.
    assert cpu.regs[4] == 0x1234FFFC
    assert memory.ram()[0x16FFC:0x17000] + memory.ram()[0x7000:0x7002] == struct.pack(
        "<HHH", 0x102, 0x800, 0x246
    )


words32 = st.integers(0, 2**32 - 1)


@settings(max_examples=30, deadline=None)
@given(
    regs=st.lists(words32, min_size=8, max_size=8),
    eip=words32,
    flags=st.integers(0, 0xFFFF).map(lambda value: value & 0x4CD5 & ~0x100 | 2),
    bases=st.lists(words32, min_size=8, max_size=8),
    fpu=st.binary(min_size=128, max_size=128),
)
def test_a_state_that_is_set_is_read_back(regs, eip, flags, bases, fpu):
    with program("qemu-system-x86_64"):
        memory.qemu_ram_alloc(SIZE)
        accel = make_accel()
        accel.map_ram()
        accel.reset()
        cpu = protected(eip=eip, eflags=flags)
        cpu.regs[:8] = regs
        for number, (name, segment) in enumerate(sorted(cpu.segs.items())):
            cpu.segs[name] = Segment(segment.selector, bases[number], segment.limit, segment.flags)
        image = bytearray(512)
        image[0:2], image[24:28], image[28:32] = b"\x7f\x03", b"\x80\x1f\0\0", b"\xff\xff\0\0"
        image[4] = 0xFF
        image[160:288] = fpu
        cpu.fpu = bytes(image)
        cpu.msrs = {0x174: 8, 0x175: 0x1234, 0x176: 0x5678}
        accel.set_state(cpu)
        back = accel.state()
        for name in ("regs", "eip", "eflags", "segs", "gdt", "idt", "cr", "dr", "efer", "fpu", "msrs"):
            assert getattr(back, name) == getattr(cpu, name), name


def test_floating_point_after_a_reset_is_as_the_manual_says(accel):
    # fld1; hlt
    put(CODE, b"\xd9\xe8\xf4")
    accel.set_state(protected(fpu=b"\x72\x02".ljust(512, b"\0")))
    accel.run(10)
    accel.reset()
    fcw, fsw, ftw, mxcsr = struct.unpack_from("<HHB19xI", accel.state().fpu)
    # Intel SDM volume 3, table 9-1: control word, status word and tags after FINIT, and MXCSR.
    assert (fcw, fsw, ftw, mxcsr) == (0x37F, 0, 0, 0x1F80)


def test_a_state_moves_to_another_processor_in_the_middle_of_a_loop(accel):
    # xor eax, eax; mov ecx, 1000000; again: add eax, ecx; loop again; hlt
    put(CODE, bytes.fromhex("31c0b940420f0001c8e2fcf4"))
    accel.set_state(protected())
    assert not accel.run(1000)
    middle = accel.state()
    other = UnicornAccel()
    other.map_ram()
    other.reset()
    other.set_state(middle)
    while not other.run(100_000):
        pass
    assert other.state().regs[0] == 1000000 * 1000001 // 2 & 0xFFFFFFFF


def test_dirty_pages_are_those_that_changed(accel):
    assert set(accel.dirty_pages()) == set(range(SIZE // 4096))
    assert accel.dirty_pages() == set()
    # mov byte [101000h], 5; mov byte [102fffh], 6; hlt
    put(CODE, bytes.fromhex("c6050010100005c605ff2f100006f4"))
    assert accel.dirty_pages() == {CODE // 4096}
    accel.set_state(protected())
    tables = {GDT // 4096, IDT // 4096, TSS // 4096}
    assert accel.run(1000)
    assert accel.dirty_pages() - tables == {0x101, 0x102}
    put(0x101000, b"\5")
    assert accel.dirty_pages() == set()


def test_a_rom_keeps_what_it_holds_and_mmio_reaches_the_device(accel):
    rom = mmap.mmap(-1, 4096)
    rom[0:4] = b"\x11\x22\x33\x44"
    accel.map_memory(0xFFFF0000, rom, False)
    seen = []
    accel.map_mmio(0xFEC00000, 4096, lambda at, size: at & 0xFF | size << 8, lambda *args: seen.append(args))
    # mov eax, [ffff0000h]; mov ebx, [fec00010h]; mov word [fec00020h], 1234h; hlt
    put(CODE, bytes.fromhex("a10000ffff8b1d1000c0fe66c7052000c0fe3412f4"))
    accel.set_state(protected())
    assert accel.run(1000)
    cpu = accel.state()
    assert cpu.regs[0] == 0x44332211 and cpu.regs[3] == 0x410
    assert seen == [(0xFEC00020, 2, 0x1234)]


def test_address_line_20(accel):
    put(0x500, b"\x01")
    put(0x100500, b"\x02")
    # mov al, [100500h]; hlt
    put(CODE, bytes.fromhex("a000051000f4"))
    for on, expected in ((False, 1), (True, 2)):
        accel.set_state(protected())
        accel.set_a20(on)
        assert accel.run(1000)
        assert accel.state().regs[0] & 0xFF == expected


def test_a_guest_that_switches_line_20_goes_on(accel):
    ioport.register_ioport_write(0x92, 1, 1, lambda _, port, value: accel.set_a20(bool(value & 2)), None)
    put(0x500, b"\x01")
    put(0x100500, b"\x02")
    # Twice, with 0 and BL, with 2 and CL: mov al, 0; out 92h, al; jmp $+2; mov bl, [100500h]. Then hlt.
    put(CODE, bytes.fromhex("b000e692eb008a1d00051000b002e692eb008a0d00051000f4"))
    accel.set_state(protected())
    while not accel.run(1000):
        pass
    cpu = accel.state()
    assert (cpu.regs[3] & 0xFF, cpu.regs[1] & 0xFF) == (1, 2)


def test_memory_that_a_device_wrote_is_decoded_anew(accel):
    put(CODE, bytes.fromhex("b801000000f4"))
    accel.set_state(protected())
    assert accel.run(1000) and accel.state().regs[0] == 1
    memory.cpu_physical_memory_write(CODE + 1, b"\x07", 1)
    accel.memory_written(CODE + 1, 1)
    accel.set_state(protected())
    assert accel.run(1000) and accel.state().regs[0] == 7


def test_code_that_stores_into_its_own_page_runs_as_it_stands_then(accel):
    # Two passes: stack and code share a page; the immediate of MOV is raised each time.
    # mov ecx, 2; again: push ecx; mov eax, 5; add [CODE+7], cl; pop ecx; add ebx, eax; loop again; hlt
    code = bytes.fromhex("b90200000051b805000000000d078000005901c3e2eff4")
    put(CODE, code)
    cpu = protected()
    cpu.regs[4] = CODE + 0x800
    accel.set_state(cpu)
    while not accel.run(1000):
        pass
    assert accel.state().regs[3] == 5 + (5 + 2)
    assert memory.ram()[CODE + 7] == 5 + 2 + 1


@pytest.mark.parametrize("cpl", [0, 3])
def test_code_on_a_page_of_data_is_decoded_anew_when_data_changes_it(accel, cpl):
    """Another page's code stores, runs, stores again; the first store makes the page known as one of data."""
    data, code = 0xC000, 0x1B if cpl else 8
    # mov byte [data+1], 1; call data; mov ebx, eax; mov byte [data+1], 2; call data; then hlt, or int 80h
    body = bytes.fromhex("c60501c0000001e8f43f000089c3c60501c0000002e8e63f0000")
    put(CODE, body + (b"\xcd\x80" if cpl else b"\xf4"))
    put(HANDLER, b"\xf4")
    gate(0x80, HANDLER, dpl=3)
    # mov eax, 0; ret; and beside it, to be stored into while code is near: nop
    put(data, bytes.fromhex("b800000000c3") + b"\x90" * 64)
    cpu = protected()
    cpu.regs[4] = 0x6000
    flags = 0x00CFFB00 if cpl else 0x00CF9B00
    cpu.segs["cs"] = Segment(code, 0, 0xFFFFFFFF, flags)
    if cpl:
        cpu.segs |= dict.fromkeys(("ss", "ds", "es"), Segment(0x23, 0, 0xFFFFFFFF, 0x00CFF300))
    accel.set_state(cpu)
    while not accel.run(1000):
        pass
    cpu = accel.state()
    assert (cpu.regs[3], cpu.regs[0]) == (1, 2)


def test_user_code_changes_two_routines_that_the_kernel_runs(accel):
    gate(0x80, HANDLER, dpl=3)
    gate(0x81, HANDLER + 0x100, dpl=3)
    # mov eax, 1; ret, and 40h on: mov eax, 2; ret
    put(0xC000, bytes.fromhex("b801000000c3"))
    put(0xC040, bytes.fromhex("b802000000c3"))
    # call 0c000h; add ebx, eax; call 0c040h; add ebx, eax; iret
    put(HANDLER, bytes.fromhex("e8fb2f000001c3e83430000001c3cf"))
    put(HANDLER + 0x100, b"\xf4")
    # xor ebx, ebx; mov byte [0c100h], 0; int 80h; mov byte [0c041h], 20h; mov byte [0c001h], 10h
    # int 80h; int 81h
    put(CODE, bytes.fromhex("31dbc60500c1000000cd80c60541c0000020c60501c0000010cd80cd81"))
    cpu = protected()
    cpu.regs[4] = 0x6000
    cpu.segs |= dict.fromkeys(("ss", "ds", "es"), Segment(0x23, 0, 0xFFFFFFFF, 0x00CFF300))
    cpu.segs["cs"] = Segment(0x1B, 0, 0xFFFFFFFF, 0x00CFFB00)
    accel.set_state(cpu)
    while not accel.run(1000):
        pass
    assert accel.state().regs[3] == 1 + 2 + 0x10 + 0x20


def test_paging_is_the_guest_s_own_as_long_as_it_lasts(accel):
    """Page 0xc0000 shows 0x10000 while paging is on, and nothing else before and after."""
    directory, table, shown, hidden = 0x20000, 0x21000, 0x10000, 0xC0000
    entries = [page << 12 | 3 for page in range(1024)]
    entries[hidden >> 12] = shown | 3
    put(directory, (table | 3).to_bytes(4, "little"))
    put(table, struct.pack("<1024I", *entries))
    put(shown, b"\x07\0\0\0")
    put(hidden, b"\x01\0\0\0")
    # mov eax, directory; mov cr3, eax; mov eax, [hidden]; mov ebx, cr0; or ebx, 80000000h; mov cr0, ebx
    code = bytes.fromhex("b8000002000f22d8a100000c000f20c381cb000000800f22c3")
    # mov ecx, [hidden]; inc dword [hidden]; and ebx, 7fffffffh; mov cr0, ebx; then with edx the same again
    code += bytes.fromhex("8b0d00000c00ff0500000c0081e3ffffff7f0f22c38b1500000c00ff0500000c00")
    put(CODE, code + b"\xf4")
    for _ in range(2):
        accel.set_state(protected())
        while not accel.run(1000):
            pass
    cpu = accel.state()
    assert (cpu.regs[0], cpu.regs[1], cpu.regs[2]) == (2, 8, 2)
    assert memory.ram()[shown] == 9 and memory.ram()[hidden] == 3
    put(CODE, b"\x90\xf4")
    accel.memory_written(CODE, 2)
    accel.set_state(protected())
    assert accel.run(1000) and accel.state().eip == CODE + 2


def test_what_was_decoded_under_paging_is_forgotten_when_a_device_writes(accel):
    directory, table, routine = 0x20000, 0x21000, 0x30000
    put(directory, (table | 3).to_bytes(4, "little"))
    put(table, struct.pack("<1024I", *(page << 12 | 3 for page in range(1024))))
    put(routine, bytes.fromhex("b801000000c3"))
    # mov eax, directory; mov cr3, eax; mov ebx, cr0; or ebx, 80000000h; mov cr0, ebx; call routine
    code = bytes.fromhex("b8000002000f22d80f20c381cb000000800f22c3e8e77f0200")
    # mov ecx, eax; and ebx, 7fffffffh; mov cr0, ebx; hlt; call routine; hlt
    code += bytes.fromhex("89c181e3ffffff7f0f22c3f4e8d67f0200f4")
    put(CODE, code)
    accel.set_state(protected())
    while not accel.run(1000):
        pass
    put(routine, bytes.fromhex("b802000000c3"))
    accel.memory_written(routine, 6)
    while not accel.run(1000):
        pass
    cpu = accel.state()
    assert (cpu.regs[1], cpu.regs[0]) == (1, 2)


def test_a_failing_device_ends_the_run_with_its_error(accel):
    def fail(opaque, address):
        raise HypervisorError("the device broke")

    ioport.register_ioport_read(0x123, 1, 1, fail, None)
    # mov dx, 123h; in al, dx
    put(CODE, bytes.fromhex("66ba2301ec"))
    accel.set_state(protected())
    with pytest.raises(HypervisorError, match="the device broke"):
        accel.run(1000)


@given(st.binary(min_size=8, max_size=8), st.integers(0, 255), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_descriptor_is_taken_or_refused(raw, vector, software):
    ram = mmap.mmap(-1, SIZE)
    with_tables = CpuState(
        segs={name: Segment(8, 0, 0xFFFFFFFF, 0x00CF9B00) for name in ("cs", "ss", "tr", "ldt")}
    )
    with_tables.idt, with_tables.gdt = Table(IDT, 2047), Table(GDT, 47)
    ram[IDT + 8 * vector : IDT + 8 * vector + 8] = raw
    ram[GDT + 8 : GDT + 16] = raw[::-1]
    with_tables.cr[0] = 1
    try:
        deliver(with_tables, ram, vector, 0, software)
    except (TripleFault, HypervisorError):
        return
    assert with_tables.segs["cs"].flags & 0x8000


def test_a_descriptor_as_the_manual_draws_it():
    segment = unpack(0x10, 0x5678_1234, 0x12_4_3_93_AB)
    assert (segment.base, segment.limit, segment.flags >> 8 & 0xFF) == (0x12AB5678, 0x31234, 0x93)


@pytest.mark.parametrize(
    ("code", "size"),
    [("f3666d", 2), ("66f36d", 2), ("f36d", 4)],
    ids=["words", "words, prefixes the other way", "double words"],
)
@pytest.mark.parametrize("count", [1, 2, 3, 200, 256])
def test_rep_ins_reads_what_single_reads_would(accel, code, size, count):
    source = bytes(number * 7 & 0xFF for number in range(256 * size))
    place = [0]

    def take(length):
        place[0] += length
        return source[place[0] - length : place[0]]

    def block(opaque, width, wanted):
        units = min(wanted, (len(source) - place[0]) // width) - 1
        return take(units * width) if units > 1 else b""

    for width in (2, 4):
        ioport.register_ioport_read(
            0x1F0, width, width, lambda _, port, width=width: int.from_bytes(take(width), "little"), None
        )
    ioport.register_block_read(0x1F0, block)
    # mov edi, 9000h; mov dx, 1f0h; mov ecx, count; cld; rep ins; hlt
    head = bytes.fromhex("bf0090000066baf001b9") + count.to_bytes(4, "little") + b"\xfc"
    put(CODE, head + bytes.fromhex(code) + b"\xf4")
    put(0x9000, b"\xee" * 2048)
    accel.set_state(protected())
    while not accel.run(100_000):
        pass
    cpu = accel.state()
    assert (cpu.regs[1], cpu.regs[7]) == (0, 0x9000 + count * size)
    assert memory.ram()[0x9000 : 0x9000 + count * size] == source[: count * size]
    assert memory.ram()[0x9000 + count * size] == 0xEE
    assert place[0] == count * size
