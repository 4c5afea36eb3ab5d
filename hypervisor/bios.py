"""The built-in BIOS: the PC's firmware, served in Python. Ours, not QEMU's.

The guest sees 64 KiB of ROM at F000:0000 that holds little but stubs: entry n of the vector table points to
`out TRAP, al; iret`, and the write to that port calls the service of interrupt n here. A service that must
wait for the disk is a generator; at each `yield` the processor goes to `sti; hlt; cli; out RESUME, al` and
comes back with the next interrupt, so that guest handlers run as usual meanwhile.

- `install(env, boot_devices)`: write the ROM and serve it.
- `screen_text()`: what is on the screen.

Interrupts: 10h screen, 11h equipment, 12h memory, 13h disks (CHS, LBA, CD-ROM), 14h serial, 15h system and
APM, 16h keyboard, 18h and 19h boot, 1Ah clock. Power off: int 15h, AX=5307h, BX=0001h, CX=0003h.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import astuple

from hypervisor import bios_disk as disk
from hypervisor.accel import Accel, Registers
from hypervisor.bios_call import Call
from hypervisor.bios_screen import Screen
from hypervisor.cpu_exec import CPUState
from hypervisor.errors import HypervisorError
from hypervisor.exec import ram
from hypervisor.hw.fdc import FDrive
from hypervisor.hw.loader import rom_add_blob
from hypervisor.ioport import cpu_inb, cpu_inl, cpu_outb, cpu_outl
from hypervisor.program import on_reset
from hypervisor.vl_state import DT_NOGRAPHIC, state
from hypervisor.vl_timers import _guest_seconds

Service = Callable[["Bios", Call], Generator[None, None, None] | None]

TRAP, RESUME, POST = 0xB0, 0xB2, 0xB4
_ROM = 0xF0000
_STUBS, _WAIT, _IRET, _ENTRY = 0xE000, 0xFF00, 0xFF10, 0xFFF0
_CONFIG_TABLE = 0xE800
_COM1 = 0x3F8
_TICKS_PER_SECOND = 1193182 / 65536
_KEY_HEAD, _KEY_TAIL, _KEY_BEGIN, _KEY_END = 0x41A, 0x41C, 0x1E, 0x3E
_EXCEPTIONS = {0: "divided by zero", 6: "executed an instruction that the processor does not know"}

_current: Bios | None = None


@on_reset
def _reset() -> None:
    global _current
    _current = None


def screen_text() -> str:
    """What is on the screen; empty before there is one."""
    return _current.screen.text() if _current is not None else ""


def install(env: CPUState, boot_devices: str) -> None:
    """Write the ROM and serve it."""
    global _current
    _current = Bios(env.accel, boot_devices)
    rom_add_blob("bios", _rom(), _ROM)


def _rom() -> bytes:
    """The ROM: its entry, the stubs, where the processor waits, and what programs look for."""
    rom = bytearray(0x10000)
    rom[_STUBS : _STUBS + 4 * 256] = bytes((0xE6, TRAP, 0xCF, 0x90)) * 256
    wait = bytes((0xFB, 0xF4, 0xFA, 0xE6, RESUME, 0xEB, 0xF9))
    rom[_WAIT : _WAIT + len(wait)] = wait
    rom[_IRET] = 0xCF
    rom[_CONFIG_TABLE : _CONFIG_TABLE + 10] = bytes((8, 0, 0xFC, 0, 1, 0x70, 0x40, 0, 0, 0))
    rom[_ENTRY:] = bytes((0xE6, POST, 0xF4, 0xEB, 0xFD)) + b"01/01/10\x00\xfc\x00"
    return bytes(rom)


class Bios:
    """The firmware of one machine."""

    def __init__(self, accel: Accel, boot_devices: str) -> None:
        self.accel = accel
        self.boot_devices = boot_devices
        echo = self._echo if state.display_type == DT_NOGRAPHIC and state.serial_hds[0] else None
        self.screen = Screen(memoryview(ram()), echo)
        self.disks: list[disk.Disk] = []
        self.cdrom: disk.Disk | None = None
        self.disk_status = 0
        self._ticks_at_zero = 0.0
        self._pending: list[tuple[Call, Generator[None, None, None]]] = []
        accel.on_trap(TRAP, self._trap)
        accel.on_trap(RESUME, self._resume)
        accel.on_trap(POST, self._power_on)

    def _echo(self, byte: int) -> None:
        cpu_outb(_COM1, byte)

    def print(self, text: str) -> None:
        """Print a line of the BIOS's own."""
        for byte in text.encode("cp437"):
            self.screen.put(byte)

    def _trap(self) -> bool:
        """Serve an interrupt: the place of the stub says which."""
        registers = self.accel.registers()
        vector = (registers.eip & 0xFFFF) - _STUBS >> 2
        return self._serve(Call(registers, vector), _SERVICES.get(vector, _ignore))

    def _serve(self, call: Call, service: Service) -> bool:
        self._update_ticks()
        waiting = service(self, call)
        if waiting is not None:
            return self._go_on(call, waiting)
        self.accel.set_registers(call.r)
        return True

    def _go_on(self, call: Call, waiting: Generator[None, None, None]) -> bool:
        """Continue a service; have the processor wait if it is not done."""
        try:
            next(waiting)
        except StopIteration:
            if call.returns:
                call.r.cs, call.r.eip = _ROM >> 4, _IRET
            self.accel.set_registers(call.r)
            return True
        self._pending.append((call, waiting))
        # The caller's stack is where it was; the rest comes back with the service's result.
        registers = Registers(*astuple(call.r))
        registers.cs, registers.eip = _ROM >> 4, _WAIT
        self.accel.set_registers(registers)
        return True

    def _resume(self) -> bool:
        if not self._pending:
            # The guest itself wrote to this port.
            return False
        call, waiting = self._pending.pop()
        return self._go_on(call, waiting)

    def _power_on(self) -> bool:
        """Begin after a reset: set up memory and devices, then boot."""
        self._pending.clear()
        self._write_data_area()
        self._set_up_devices()
        self.screen.clear()
        registers = self.accel.registers()
        registers.ss, registers.esp, registers.ds, registers.es = 0, 0x7000, 0, 0
        return self._serve(Call(registers, 0x19, returns=False), _boot)

    def _write_data_area(self) -> None:
        memory = ram()
        for vector in range(256):
            entry = (_STUBS + 4 * vector).to_bytes(2, "little") + (_ROM >> 4).to_bytes(2, "little")
            memory[4 * vector : 4 * vector + 4] = entry
        memory[0x400:0x500] = bytes(256)
        memory[0x400:0x402] = _COM1.to_bytes(2, "little")
        memory[0x410:0x412] = self.equipment().to_bytes(2, "little")
        memory[0x413:0x415] = (640).to_bytes(2, "little")
        for pointer in (_KEY_HEAD, _KEY_TAIL, 0x480):
            memory[pointer : pointer + 2] = _KEY_BEGIN.to_bytes(2, "little")
        memory[0x482:0x484] = _KEY_END.to_bytes(2, "little")

    def _set_up_devices(self) -> None:
        for port, first, cascade in ((0x20, 0x08, 0x04), (0xA0, 0x70, 0x02)):
            for offset, value in ((0, 0x11), (1, first), (1, cascade), (1, 0x01)):
                cpu_outb(port + offset, value)
        # Let the serial port, the slave and both IDE channels through.
        cpu_outb(0x21, 0xFF & ~(1 << 4 | 1 << 2))
        cpu_outb(0xA1, 0xFF & ~(1 << 6 | 1 << 7))
        cpu_outb(_COM1 + 1, 0x01)
        self._set_up_ide()
        self.disks, self.cdrom = disk.find_disks()
        ram()[0x475] = len(self.disks)

    def _set_up_ide(self) -> None:
        """Give the IDE controller its bus-master ports."""
        for devfn in range(256):
            config = 0x80000000 | devfn << 8
            cpu_outl(0xCF8, config | 0x08)
            if cpu_inl(0xCFC) >> 16 == 0x0101:
                cpu_outl(0xCF8, config | 0x20)
                cpu_outl(0xCFC, disk.BMDMA_BASE)
                cpu_outl(0xCF8, config | 0x04)
                cpu_outb(0xCFC, 0x05)

    def equipment(self) -> int:
        """The equipment word: floppies, coprocessor, 80 columns, one serial port."""
        count = sum(1 for drive in self.floppies() if drive.bs is not None)
        return 0x0226 | (1 | count - 1 << 6 if count else 0)

    def floppies(self) -> list[FDrive]:
        """The floppy drives."""
        from hypervisor.hw import pc

        assert pc.floppy_controller is not None
        return pc.floppy_controller.drives

    def ticks(self) -> int:
        """Clock ticks since midnight of the guest's first day, 18.2 a second."""
        return int(_guest_seconds() * _TICKS_PER_SECOND + self._ticks_at_zero) % 0x1800B0

    def set_ticks(self, ticks: int) -> None:
        """Set the clock."""
        self._ticks_at_zero = ticks - _guest_seconds() * _TICKS_PER_SECOND

    def _update_ticks(self) -> None:
        ram()[0x46C:0x470] = self.ticks().to_bytes(4, "little")

    def put_key(self, ascii: int) -> None:
        """Put a typed byte into the keyboard buffer, unless that is full."""
        memory = ram()
        head, tail = self._pointer(_KEY_HEAD), self._pointer(_KEY_TAIL)
        following = tail + 2 if tail + 2 < _KEY_END else _KEY_BEGIN
        if following != head:
            memory[0x400 + tail : 0x400 + tail + 2] = bytes((ascii, _SCAN_CODES.get(ascii, 0)))
            memory[_KEY_TAIL : _KEY_TAIL + 2] = following.to_bytes(2, "little")

    def key(self, take: bool) -> int | None:
        """The next key, scan code and character, or None."""
        head, tail = self._pointer(_KEY_HEAD), self._pointer(_KEY_TAIL)
        if head == tail:
            return None
        memory = ram()
        if take:
            following = head + 2 if head + 2 < _KEY_END else _KEY_BEGIN
            memory[_KEY_HEAD : _KEY_HEAD + 2] = following.to_bytes(2, "little")
        return int.from_bytes(memory[0x400 + head : 0x400 + head + 2], "little")

    def _pointer(self, at: int) -> int:
        value = int.from_bytes(ram()[at : at + 2], "little")
        return value if _KEY_BEGIN <= value < _KEY_END else _KEY_BEGIN

    def power_off(self) -> None:
        """Switch the machine off, by the port that firmware uses for it."""
        for byte in b"Shutdown":
            cpu_outb(0x8900, byte)


_ROWS = ((0x02, "1234567890-="), (0x10, "qwertyuiop[]"), (0x1E, "asdfghjkl;'`"), (0x2C, "zxcvbnm,./"))
_SCAN_CODES = {ord(letter): first + at for first, row in _ROWS for at, letter in enumerate(row)}
_SCAN_CODES |= {ord(letter.upper()): code for letter, code in ((chr(c), s) for c, s in _SCAN_CODES.items())}
_SCAN_CODES |= {0x0D: 0x1C, 0x08: 0x0E, 0x1B: 0x01, 0x20: 0x39, 0x09: 0x0F}


def _ignore(bios: Bios, call: Call) -> None:
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


def _serial_interrupt(bios: Bios, call: Call) -> None:
    """IRQ 4: what is typed on the serial line is the keyboard of a machine without a window."""
    while cpu_inb(_COM1 + 5) & 0x01:
        byte = cpu_inb(_COM1)
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


def _serial(bios: Bios, call: Call) -> Generator[None, None, None] | None:
    """INT 14h, the first port only."""
    if call.dx:
        return None
    if call.ah == 0x02:
        return _serial_receive(call)
    if call.ah == 0x01:
        cpu_outb(_COM1, call.al)
    call.ah = cpu_inb(_COM1 + 5)
    return None


def _serial_receive(call: Call) -> Generator[None, None, None]:
    while not cpu_inb(_COM1 + 5) & 0x01:
        yield
    call.al, call.ah = cpu_inb(_COM1), 0


def _keyboard(bios: Bios, call: Call) -> Generator[None, None, None] | None:
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


def _wait_for_key(bios: Bios, call: Call) -> Generator[None, None, None]:
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


def _system(bios: Bios, call: Call) -> Generator[None, None, None] | None:
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
            call.r.es, call.bx, call.ah = _ROM >> 4, _CONFIG_TABLE, 0
        case 0xE8:
            _memory_map(call, memory, extended)
        case _:
            call.ah = 0x86
            call.set_carry(True)
    return None


def _sleep(microseconds: int) -> Generator[None, None, None]:
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
    regions = [(0, 0xA0000, 1), (_ROM, 0x10000, 2), (1 << 20, extended, 1)]
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


def _boot(bios: Bios, call: Call) -> Generator[None, None, None]:
    """INT 19h: start the first drive of the boot order that has a boot sector."""
    from hypervisor.bios_int13 import load_boot_sector

    for letter in bios.boot_devices:
        name = {"a": "Floppy", "c": "Hard Disk", "d": "DVD/CD"}.get(letter)
        if name is None:
            continue
        found = yield from load_boot_sector(bios, letter)
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
    bios.print("No bootable device.\r\n")
    while True:
        yield


def _no_boot(bios: Bios, call: Call) -> Generator[None, None, None]:
    """INT 18h: the boot sector gave up."""
    bios.print("No bootable device.\r\n")
    while True:
        yield


def _disk(bios: Bios, call: Call) -> Generator[None, None, None] | None:
    """INT 13h."""
    from hypervisor.bios_int13 import serve

    return serve(bios, call)


_SERVICES: dict[int, Service] = {
    0x0C: _serial_interrupt,
    0x10: _screen,
    0x11: _equipment,
    0x12: _memory,
    0x13: _disk,
    0x14: _serial,
    0x15: _system,
    0x16: _keyboard,
    0x18: _no_boot,
    0x19: _boot,
    0x1A: _clock,
}
