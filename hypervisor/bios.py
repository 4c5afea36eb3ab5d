"""The built-in BIOS: the PC's firmware, served in Python. Ours, not QEMU's.

The guest sees 64 KiB of ROM at F000:0000 that holds little but stubs: entry n of the vector table points to
`out TRAP, al; jmp $+2; iret`, and the write to that port calls the service of interrupt n here; the jump ends
a basic block, before whose end an accelerator may not stop. A service that must wait for the disk is a
generator; at each `yield` the processor goes to `sti; hlt; cli; out RESUME, al` and comes back with the next
interrupt, so that guest handlers run as usual meanwhile.

- `install(env, boot_devices) -> bytes`: serve it; its ROM.
- `screen_text()`: what is on the screen.

Interrupts: 10h screen, 11h equipment, 12h memory, 13h disks (CHS, LBA, CD-ROM), 14h serial, 15h system and
APM, 16h keyboard, 18h and 19h boot, 1Ah clock. Power off: int 15h, AX=5307h, BX=0001h, CX=0003h.
"""

from __future__ import annotations

from dataclasses import astuple

from hypervisor import bios_disk as disk
from hypervisor import bios_keyboard
from hypervisor.accel import Accel, Registers
from hypervisor.bios_call import Call
from hypervisor.bios_screen import Screen
from hypervisor.bios_services import COM1, CONFIG_TABLE, ROM_SEGMENT, SERVICES, Service, Wait, boot, ignore
from hypervisor.cpu_exec import CPUState
from hypervisor.exec import ram
from hypervisor.hw.fdc import FDrive
from hypervisor.ioport import cpu_inl, cpu_outb, cpu_outl
from hypervisor.program import on_reset
from hypervisor.vl_state import DT_NOGRAPHIC, state
from hypervisor.vl_timers import _guest_seconds
from hypervisor.vmstate.bios import register_bios

TRAP, RESUME, POST = 0xB0, 0xB1, 0xB4
PM_BASE = 0xB000
_IDE, _OTHER_BRIDGE = 0x0101, 0x0680
_STUBS, _WAIT, _IRET, _ENTRY = 0xE000, 0xFF00, 0xFF10, 0xFFF0
_STUB = 8
_TICKS_PER_SECOND = 1193182 / 65536
_KEY_HEAD, _KEY_TAIL, _KEY_BEGIN, _KEY_END = 0x41A, 0x41C, 0x1E, 0x3E

_current: Bios | None = None


@on_reset
def _reset() -> None:
    global _current
    _current = None


def screen_text() -> str:
    """What is on the screen; empty before there is one."""
    from hypervisor.hw import vga

    if _current is not None:
        return _current.screen.text()
    return vga.screen_text(vga.the_vga) if vga.the_vga is not None else ""


def install(env: CPUState, boot_devices: str) -> bytes:
    """Serve the BIOS; the ROM that the guest sees of it."""
    global _current
    _current = Bios(env.accel, boot_devices)
    register_bios(_current)
    return _rom()


def _rom() -> bytes:
    """The ROM: its entry, the stubs, where the processor waits, and what programs look for."""
    rom = bytearray(0x10000)
    rom[_STUBS : _STUBS + _STUB * 256] = bytes((0xE6, TRAP, 0xEB, 0x00, 0xCF)).ljust(_STUB, b"\x90") * 256
    wait = bytes((0xFB, 0xF4, 0xFA, 0xE6, RESUME, 0xEB, 0xF9))
    rom[_WAIT : _WAIT + len(wait)] = wait
    rom[_IRET] = 0xCF
    rom[CONFIG_TABLE : CONFIG_TABLE + 10] = bytes((8, 0, 0xFC, 0, 1, 0x70, 0x40, 0, 0, 0))
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
        self._pending: list[tuple[Call, Wait]] = []
        accel.on_trap(TRAP, self._trap)
        accel.on_trap(RESUME, self._resume)
        accel.on_trap(POST, self._power_on)

    def _echo(self, byte: int) -> None:
        cpu_outb(COM1, byte)

    def print(self, text: str) -> None:
        """Print a line of the BIOS's own."""
        for byte in text.encode("cp437"):
            self.screen.put(byte)

    def _trap(self) -> bool:
        """Serve an interrupt: the place of the stub says which."""
        registers = self.accel.registers()
        vector = ((registers.eip & 0xFFFF) - _STUBS) // _STUB
        return self._serve(Call(registers, vector), SERVICES.get(vector, ignore))

    def _serve(self, call: Call, service: Service) -> bool:
        self._update_ticks()
        waiting = service(self, call)
        if waiting is not None:
            return self._go_on(call, waiting)
        self.accel.set_registers(call.r)
        return True

    def _go_on(self, call: Call, waiting: Wait) -> bool:
        """Continue a service; have the processor wait if it is not done."""
        try:
            next(waiting)
        except StopIteration:
            if call.returns:
                call.r.cs, call.r.eip = ROM_SEGMENT, _IRET
            self.accel.set_registers(call.r)
            return True
        self._pending.append((call, waiting))
        # The caller's stack is where it was; the rest comes back with the service's result.
        registers = Registers(*astuple(call.r))
        registers.cs, registers.eip = ROM_SEGMENT, _WAIT
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
        return self._serve(Call(registers, 0x19, returns=False), boot)

    def _write_data_area(self) -> None:
        memory = ram()
        for vector in range(256):
            entry = (_STUBS + _STUB * vector).to_bytes(2, "little") + (ROM_SEGMENT).to_bytes(2, "little")
            memory[4 * vector : 4 * vector + 4] = entry
        memory[0x400:0x500] = bytes(256)
        memory[0x400:0x402] = COM1.to_bytes(2, "little")
        memory[0x410:0x412] = self.equipment().to_bytes(2, "little")
        memory[0x413:0x415] = (640).to_bytes(2, "little")
        for pointer in (_KEY_HEAD, _KEY_TAIL, 0x480):
            memory[pointer : pointer + 2] = _KEY_BEGIN.to_bytes(2, "little")
        memory[0x482:0x484] = _KEY_END.to_bytes(2, "little")

    def _set_up_devices(self) -> None:
        for port, first, cascade in ((0x20, 0x08, 0x04), (0xA0, 0x70, 0x02)):
            for offset, value in ((0, 0x11), (1, first), (1, cascade), (1, 0x01)):
                cpu_outb(port + offset, value)
        # Let the keyboard, the serial port, the slave and both IDE channels through.
        cpu_outb(0x21, 0xFF & ~(1 << 4 | 1 << 2 | 1 << 1))
        cpu_outb(0xA1, 0xFF & ~(1 << 6 | 1 << 7))
        cpu_outb(COM1 + 1, 0x01)
        bios_keyboard.set_up()
        self._set_up_pci()
        self.disks, self.cdrom = disk.find_disks()
        ram()[0x475] = len(self.disks)

    def _set_up_pci(self) -> None:
        """Give the IDE controller its bus-master ports, and the power management its own."""
        for devfn in range(256):
            config = 0x80000000 | devfn << 8
            cpu_outl(0xCF8, config | 0x08)
            kind = cpu_inl(0xCFC) >> 16
            if kind == _IDE:
                cpu_outl(0xCF8, config | 0x20)
                cpu_outl(0xCFC, disk.BMDMA_BASE)
                cpu_outl(0xCF8, config | 0x04)
                cpu_outb(0xCFC, 0x05)
            elif kind == _OTHER_BRIDGE:
                cpu_outl(0xCF8, config | 0x40)
                cpu_outl(0xCFC, PM_BASE | 1)
                cpu_outl(0xCF8, config | 0x80)
                cpu_outb(0xCFC, 0x01)

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

    def put_key(self, ascii: int, scan_code: int | None = None) -> None:
        """Put a key into the keyboard buffer, unless that is full; a typed byte has no scan code yet."""
        memory = ram()
        code = _SCAN_CODES.get(ascii, 0) if scan_code is None else scan_code
        head, tail = self._pointer(_KEY_HEAD), self._pointer(_KEY_TAIL)
        following = tail + 2 if tail + 2 < _KEY_END else _KEY_BEGIN
        if following != head:
            memory[0x400 + tail : 0x400 + tail + 2] = bytes((ascii, code))
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
