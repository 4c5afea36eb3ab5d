"""The static variables of vl.c that several of its parts share.

`hypervisor.vl` is vl.c; it is split by idea into `vl_options`, `vl_drive`, `vl_timers`, `vl_devices`,
`vl_machine` and `vl_loop`. What those parts share sits in the one object `state`, under QEMU's names;
`hypervisor.program` makes it fresh at the start of each run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from hypervisor.program import on_reset

if TYPE_CHECKING:
    from hypervisor.cpu_exec import CPUState
    from hypervisor.hw.irq import IRQState
    from hypervisor.qemu_char import CharDriverState

MAX_SERIAL_PORTS = 4
MAX_PARALLEL_PORTS = 3
DEFAULT_RAM_SIZE = 128

DT_DEFAULT = 0
DT_NOGRAPHIC = 2


@dataclass
class VlState:
    """Static and global variables of vl.c.

    Parameters
    ----------
    ram_size : int
        Bytes; 0 until the default is taken.
    first_cpu, next_cpu, cur_cpu, cpu_single_env : CPUState or None
        The machine's processor; `cpu_single_env` only while it runs.
    last_errno : int
        Ours: what C's errno holds long after the call that set it; some messages tell it.
    vga_enabled : int
        Whether there is a screen: C's three variables, of which -vga sets one.
    """

    ram_size: int = 0
    vm_running: int = 0
    autostart: int = 1
    no_reboot: int = 0
    no_shutdown: int = 0
    shutdown_requested: int = 0
    reset_requested: int = 0
    powerdown_requested: int = 0
    display_type: int = DT_DEFAULT
    qemu_name: str | None = None
    qemu_uuid: bytes = bytes(16)
    bios_name: str | None = None
    boot_menu: int = 0
    fd_bootchk: int = 1
    rtc_utc: int = 1
    rtc_date_offset: int = -1
    rtc_follows_vm: int = 0
    last_errno: int = 0
    vga_enabled: int = 1
    no_hpet: int = 0
    acpi_enabled: int = 1
    singlestep: int = 0
    watchdog_action: str = "reset"
    term_escape_char: int = 0x01
    serial_hds: list[CharDriverState | None] = field(default_factory=lambda: [None] * MAX_SERIAL_PORTS)
    parallel_hds: list[CharDriverState | None] = field(default_factory=lambda: [None] * MAX_PARALLEL_PORTS)
    first_cpu: CPUState | None = None
    next_cpu: CPUState | None = None
    cur_cpu: CPUState | None = None
    cpu_single_env: CPUState | None = None
    current_machine: Any = None
    qemu_system_powerdown: IRQState | None = None
    exit_reason: str = ""


state = VlState()


@on_reset
def _reset() -> None:
    fresh = VlState()
    for variable in fields(VlState):
        setattr(state, variable.name, getattr(fresh, variable.name))
