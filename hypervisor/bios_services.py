"""The services of the built-in BIOS, an interrupt each; int 13h is in `hypervisor.bios_int13`.

A service takes the BIOS and the call. One that may have to wait returns a generator, which yields for each
HLT.

- `SERVICES`: vector -> service; `ignore` for all others.
- `boot`: what int 19h does, and what comes first after a reset.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from hypervisor import bios_int13, bios_keyboard
from hypervisor.accel import Registers
from hypervisor.bios_call import Call
from hypervisor.bios_screen import Screen
from hypervisor.errors import HypervisorError
from hypervisor.exec import ram
from hypervisor.ioport import cpu_inb, cpu_outb
from hypervisor.vl_loop import give_up
from hypervisor.vl_state import state

if TYPE_CHECKING:
    from hypervisor.bios import Bios

Wait = Generator[None, None, None]
Service = Callable[["Bios", Call], "Wait | None"]

ROM_SEGMENT = 0xF000
CONFIG_TABLE = 0xE800
COM1 = 0x3F8
_EXCEPTIONS = {0: "divided by zero", 6: "executed an instruction that the processor does not know"}


def ignore(bios: Bios, call: Call) -> None:
    """Return from an interrupt that nobody serves; end one of the interrupt controllers'."""
    if call.vector in _EXCEPTIONS:
        ip, cs = call.return_address()
        code = ram()[cs * 16 + ip : cs * 16 + ip + 8].hex(" ")
        raise HypervisorError(f"the guest {_EXCEPTIONS[call.vector]} at {cs:04x}:{ip:04x}: {code}")
    if 0x70 <= call.vector <= 0x77:
        cpu_outb(0xA0, 0x20)
        cpu_outb(0x20, 0x20)
    elif 0x08 <= call.vector <= 0x0F:
        cpu_outb(0x20, 0x20)


def _keyboard_interrupt(bios: Bios, call: Call) -> None:
    """IRQ 1: what is typed on the machine's own keyboard."""
    bios_keyboard.serve(bios.put_key)
    cpu_outb(0x20, 0x20)


def _serial_interrupt(bios: Bios, call: Call) -> None:
    """IRQ 4: what is typed on the serial line is the keyboard of a machine without a window."""
    while cpu_inb(COM1 + 5) & 0x01:
        byte = cpu_inb(COM1)
        bios.put_key(0x0D if byte == 0x0A else byte)
    cpu_outb(0x20, 0x20)


def _screen(bios: Bios, call: Call) -> None:
    """INT 10h."""
    screen = bios.screen
    row, column = screen.cursor()
    match call.ah:
        case 0x00:
            screen.clear()
        case 0x02:
            screen.move(call.dh, call.dl)
        case 0x03:
            call.cx, call.dh, call.dl = 0x0607, row, column
        case 0x06 | 0x07:
            lines = call.al if call.ah == 0x06 else -call.al
            screen.scroll(lines, call.ch, call.cl, call.dh, call.dl, call.bh)
        case 0x08:
            call.al, call.ah = screen.load(row, column)
        case 0x09:
            screen.repeat(call.al, call.bl, call.cx)
        case 0x0A:
            screen.repeat(call.al, None, call.cx)
        case 0x0E:
            screen.put(call.al)
        case 0x0F:
            call.al, call.ah, call.bh = 3, 80, 0
        case 0x13:
            _write_string(screen, call)


def _write_string(screen: Screen, call: Call) -> None:
    old = screen.cursor()
    screen.move(call.dh, call.dl)
    size = 2 if call.al & 2 else 1
    for number in range(call.cx):
        at = call.r.es * 16 + ((call.r.ebp + number * size) & 0xFFFF)
        screen.put(ram()[at], ram()[at + 1] if size == 2 else call.bl)
    if not call.al & 1:
        screen.move(*old)


def _equipment(bios: Bios, call: Call) -> None:
    """INT 11h."""
    call.ax = bios.equipment()


def _memory(bios: Bios, call: Call) -> None:
    """INT 12h."""
    call.ax = 640


def _serial(bios: Bios, call: Call) -> Wait | None:
    """INT 14h, the first port only."""
    if call.dx:
        return None
    if call.ah == 0x02:
        return _serial_receive(call)
    if call.ah == 0x01:
        cpu_outb(COM1, call.al)
    call.ah = cpu_inb(COM1 + 5)
    return None


def _serial_receive(call: Call) -> Wait:
    while not cpu_inb(COM1 + 5) & 0x01:
        yield
    call.al, call.ah = cpu_inb(COM1), 0


def _keyboard(bios: Bios, call: Call) -> Wait | None:
    """INT 16h."""
    if call.ah in (0x00, 0x10):
        return _wait_for_key(bios, call)
    if call.ah in (0x01, 0x11):
        key = bios.key(take=False)
        call.set_zero(key is None)
        if key is not None:
            call.ax = key
    elif call.ah in (0x02, 0x12):
        call.ax = 0
    return None


def _wait_for_key(bios: Bios, call: Call) -> Wait:
    while (key := bios.key(take=True)) is None:
        yield
    call.ax = key


def _clock(bios: Bios, call: Call) -> None:
    """INT 1Ah."""

    def bcd(number: int) -> int:
        return number // 10 << 4 | number % 10

    now = time.gmtime() if state.rtc_utc else time.localtime()
    call.set_carry(False)
    match call.ah:
        case 0x00:
            ticks = bios.ticks()
            call.al, call.cx, call.dx = 0, ticks >> 16, ticks & 0xFFFF
        case 0x01:
            bios.set_ticks(call.cx << 16 | call.dx)
        case 0x02:
            call.ch, call.cl, call.dh, call.dl = bcd(now.tm_hour), bcd(now.tm_min), bcd(now.tm_sec), 0
        case 0x04:
            call.ch, call.cl = bcd(now.tm_year // 100), bcd(now.tm_year % 100)
            call.dh, call.dl = bcd(now.tm_mon), bcd(now.tm_mday)
        case _:
            call.set_carry(True)


def _system(bios: Bios, call: Call) -> Wait | None:
    """INT 15h."""
    call.set_carry(False)
    memory = len(ram())
    extended = max(memory - (1 << 20), 0)
    match call.ah:
        case 0x24:
            call.ah = 0
            if call.al == 0x02:
                call.al = 1
            elif call.al == 0x03:
                call.bx = 3
        case 0x53:
            _power(bios, call)
        case 0x86:
            return _sleep(call.cx << 16 | call.dx)
        case 0x87:
            _move_block(call)
        case 0x88:
            call.ax = min(extended >> 10, 0xFC00)
        case 0xC0:
            call.r.es, call.bx, call.ah = ROM_SEGMENT, CONFIG_TABLE, 0
        case 0xE8:
            _memory_map(call, memory, extended)
        case _:
            call.ah = 0x86
            call.set_carry(True)
    return None


def _sleep(microseconds: int) -> Wait:
    from hypervisor.cpu_exec import CPU_INTERRUPT_HARD, cpu_interrupt
    from hypervisor.vl_timers import qemu_get_clock, qemu_mod_timer, qemu_new_timer, vm_clock

    done = []

    def wake(opaque: None) -> None:
        done.append(True)
        assert state.first_cpu is not None
        cpu_interrupt(state.first_cpu, CPU_INTERRUPT_HARD)

    timer = qemu_new_timer(vm_clock, wake, None)
    qemu_mod_timer(timer, qemu_get_clock(vm_clock) + microseconds * 1000)
    while not done:
        yield


def _power(bios: Bios, call: Call) -> None:
    """Advanced power management 1.2, as much as switches the machine off."""
    match call.al:
        case 0x00:
            call.ax, call.bx, call.cx = 0x0102, 0x504D, 0x0001
        case 0x01 | 0x04 | 0x08 | 0x0D | 0x0F:
            call.ah = 0
        case 0x0E:
            call.ax = 0x0102
        case 0x07:
            call.ah = 0
            if call.bx == 1 and call.cx == 3:
                bios.power_off()
        case _:
            call.ah = 0x0C
            call.set_carry(True)


def _move_block(call: Call) -> None:
    """Copy between any addresses; the descriptors' bases are what counts of the caller's table."""
    table = call.r.es * 16 + (call.r.esi & 0xFFFF)

    def base(entry: int) -> int:
        raw = ram()[table + entry * 8 : table + entry * 8 + 8]
        return int.from_bytes(raw[2:5] + raw[7:8], "little")

    source, target, size = base(2), base(3), call.cx * 2
    call.ah = 0
    if max(source, target) + size > len(ram()):
        call.ah = 2
        call.set_carry(True)
        return
    ram()[target : target + size] = ram()[source : source + size]


def _memory_map(call: Call, memory: int, extended: int) -> None:
    if call.al == 0x01:
        call.ax = call.cx = min(extended >> 10, 0x3C00)
        call.bx = call.dx = max(memory - (16 << 20), 0) >> 16
        return
    regions = [(0, 0xA0000, 1), (ROM_SEGMENT * 16, 0x10000, 2), (1 << 20, extended, 1)]
    number = call.r.ebx
    if call.al != 0x20 or call.r.edx != 0x534D4150 or number >= len(regions):
        call.ah = 0x86
        call.set_carry(True)
        return
    begin, size, kind = regions[number]
    at = call.r.es * 16 + (call.r.edi & 0xFFFF)
    entry = begin.to_bytes(8, "little") + size.to_bytes(8, "little") + kind.to_bytes(4, "little")
    ram()[at : at + 20] = entry
    call.r.eax, call.r.ecx = 0x534D4150, 20
    call.r.ebx = number + 1 if number + 1 < len(regions) else 0


def boot(bios: Bios, call: Call) -> Wait:
    """INT 19h: start the first drive of the boot order that has a boot sector."""
    for letter in bios.boot_devices:
        name = {"a": "Floppy", "c": "Hard Disk", "d": "DVD/CD"}.get(letter)
        if name is None:
            continue
        found = yield from bios_int13.load_boot_sector(bios, letter)
        if found is None:
            continue
        drive, segment = found
        bios.print(f"Booting from {name}...\r\n")
        if drive < 0:
            bios.print("Boot failed: not a bootable disk\r\n\n")
            continue
        call.r = Registers(
            0, 0, 0, drive, 0, 0, 0, 0x7C00, 0x7C00 if not segment else 0, 0x202, segment, 0, 0, 0
        )
        call.returns = False
        return
    yield from _no_boot(bios, call)


def _no_boot(bios: Bios, call: Call) -> Wait:
    """INT 18h: the boot sector gave up, or there is none."""
    bios.print("No bootable device.\r\n")
    give_up("the guest found nothing to boot")
    while True:
        yield


SERVICES: dict[int, Service] = {
    0x09: _keyboard_interrupt,
    0x0C: _serial_interrupt,
    0x10: _screen,
    0x11: _equipment,
    0x12: _memory,
    0x13: bios_int13.serve,
    0x14: _serial,
    0x15: _system,
    0x16: _keyboard,
    0x18: _no_boot,
    0x19: boot,
    0x1A: _clock,
}
