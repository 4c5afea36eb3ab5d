"""Saving and loading the whole machine: savevm.c without its stream (`savevm_file`) and commands
(`savevm_snapshots`).

Every device registers what it has to save; a section of the stream is one such registration. What is large
and may change while it is saved, memory and disks, is written in several parts ("live"), all else once, at
the end.

    51 45 56 4d  00 00 00 03                                    "QEVM", version 3
    01 section_id len idstr instance_id version_id data         start of a live section      (stage 1)
    02 section_id data                                          a part of one                (stage 2)
    03 section_id data                                          its end                      (stage 3)
    04 section_id len idstr instance_id version_id data         a section written at once
    00                                                          end

The length of `data` stands nowhere: whoever reads must know every section. Savevm and migration use the same
functions and differ in the stream only.

- `register_savevm_live`, `register_savevm`, `vmstate_register`: what to save.
- `qemu_savevm_state_begin`, `_iterate`, `_complete`, `_cancel`; `qemu_savevm_state` for a stopped machine.
- `qemu_loadvm_state(f)`.
- `save_devices(f)`, `load_sections(f)`: parts of these, for `hypervisor.savevm_rehearsal`.
- `half_loaded()`: why the machine must not run, after a load that failed half way.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hypervisor.block import bdrv_flush_all
from hypervisor.cutils import pstrcpy
from hypervisor.program import on_reset
from hypervisor.savevm_file import (
    QEMUFile,
    qemu_fflush,
    qemu_file_has_error,
    qemu_file_set_error,
    qemu_get_be32,
    qemu_get_buffer,
    qemu_get_byte,
    qemu_put_be32,
    qemu_put_buffer,
    qemu_put_byte,
)
from hypervisor.vl_loop import vm_start, vm_stop
from hypervisor.vl_state import state
from hypervisor.vl_timers import (
    QEMUTimer,
    qemu_del_timer,
    qemu_get_clock,
    qemu_mod_timer,
    qemu_new_timer,
    rt_clock,
)
from hypervisor.vmstate import VMStateDescription, vmstate_load_state, vmstate_save_state
from tracer import Struct, traced
from tracer.session import recording

if TYPE_CHECKING:
    from hypervisor.monitor import Monitor

C_FILE = "savevm.c"

QEMU_VM_FILE_MAGIC = 0x5145564D
QEMU_VM_FILE_VERSION_COMPAT = 2
QEMU_VM_FILE_VERSION = 3
_SELF_ANNOUNCE_ROUNDS = 5
_WORTH_SENDING = 1024
QEMU_VM_EOF = 0
QEMU_VM_SECTION_START = 1
QEMU_VM_SECTION_PART = 2
QEMU_VM_SECTION_END = 3
QEMU_VM_SECTION_FULL = 4

SaveSetParamsHandler = Callable[[int, int, Any], None]
SaveLiveStateHandler = Callable[[Any, QEMUFile, int, Any], int]
"""save_live_state(mon, f, stage, opaque)"""
SaveStateHandler = Callable[[QEMUFile, Any], None]
LoadStateHandler = Callable[[QEMUFile, Any, int], int]


class SaveStateEntry(Struct):
    """`SaveStateEntry`: one registration.

    Parameters
    ----------
    instance_id : int
        Tells devices of the same kind apart, by the port they are at or by a count.
    section_id : int
        Number of the registration; stands for the section's name in the stream.
    """

    idstr: str = ""
    instance_id: int = 0
    version_id: int = 0
    section_id: int = 0
    set_params: SaveSetParamsHandler | None = None
    save_live_state: SaveLiveStateHandler | None = None
    save_state: SaveStateHandler | None = None
    load_state: LoadStateHandler | None = None
    vmsd: VMStateDescription | None = None
    opaque: Any = None


class LoadStateEntry(Struct):
    """`LoadStateEntry`: a section of the stream that is read, and the registration it goes to."""

    se: SaveStateEntry = SaveStateEntry()
    section_id: int = 0
    version_id: int = 0


_savevm_handlers: list[SaveStateEntry] = []
_half_loaded = ""
_complaint = ""
_announce_rounds = _SELF_ANNOUNCE_ROUNDS


@on_reset
def _reset() -> None:
    global _half_loaded, _complaint, _announce_rounds
    _savevm_handlers.clear()
    _half_loaded = _complaint = ""
    _announce_rounds = _SELF_ANNOUNCE_ROUNDS


def half_loaded() -> str:
    """Why the machine must not run: what was to be loaded is there in part only. Empty if all is well."""
    return _half_loaded


def distrust(why: str) -> None:
    """The machine that was loaded is no good: it must not run."""
    global _half_loaded
    complain(why)
    print("load of migration failed", file=sys.stderr)
    _half_loaded = "what was loaded into this machine is not what was sent"


def forget_half_loaded() -> None:
    """The machine was reset: what was there in part is gone."""
    global _half_loaded
    _half_loaded = ""


@traced
def calculate_new_instance_id(idstr: str) -> int:
    """One more than the highest number among registrations of this name."""
    taken = [se.instance_id for se in _savevm_handlers if se.idstr == idstr]
    return max([0, *(number + 1 for number in taken)])


def _add(se: SaveStateEntry, instance_id: int) -> None:
    se.section_id = len(_savevm_handlers)
    se.instance_id = calculate_new_instance_id(se.idstr) if instance_id == -1 else instance_id
    _savevm_handlers.append(se)


@traced
def register_savevm_live(
    idstr: str,
    instance_id: int,
    version_id: int,
    set_params: SaveSetParamsHandler | None,
    save_live_state: SaveLiveStateHandler | None,
    save_state: SaveStateHandler | None,
    load_state: LoadStateHandler,
    opaque: Any,
) -> int:
    """Have a section saved by functions, in parts if there is `save_live_state`.

    Parameters
    ----------
    instance_id : int
        -1 to have one chosen.
    """
    se = SaveStateEntry(
        idstr=pstrcpy(256, idstr),
        version_id=version_id,
        set_params=set_params,
        save_live_state=save_live_state,
        save_state=save_state,
        load_state=load_state,
        opaque=opaque,
    )
    _add(se, instance_id)
    return 0


@traced
def register_savevm(
    idstr: str,
    instance_id: int,
    version_id: int,
    save_state: SaveStateHandler,
    load_state: LoadStateHandler,
    opaque: Any,
) -> int:
    """Have a section saved by functions, at once.

    Parameters
    ----------
    idstr : str
        Name of the section, 255 letters at most.
    instance_id : int
        -1 for the next one that is free.
    save_state : callable
        `save_state(f, opaque)`.
    load_state : callable
        `load_state(f, opaque, version_id)`: 0 or -errno.
    """
    return register_savevm_live(idstr, instance_id, version_id, None, None, save_state, load_state, opaque)


@traced
def vmstate_register(instance_id: int, vmsd: VMStateDescription, opaque: Any) -> int:
    """Have a section saved as a description says."""
    se = SaveStateEntry(idstr=pstrcpy(256, vmsd.name), version_id=vmsd.version_id, vmsd=vmsd, opaque=opaque)
    _add(se, instance_id)
    return 0


@traced
def vmstate_load(f: QEMUFile, se: SaveStateEntry, version_id: int) -> int:
    """Read the data of a section."""
    if se.vmsd is None:
        assert se.load_state is not None
        return se.load_state(f, se.opaque, version_id)
    return vmstate_load_state(f, se.vmsd, se.opaque, version_id)


@traced
def vmstate_save(f: QEMUFile, se: SaveStateEntry) -> None:
    """Write the data of a section that is written at once."""
    if se.vmsd is None:
        assert se.save_state is not None
        se.save_state(f, se.opaque)
    else:
        vmstate_save_state(f, se.vmsd, se.opaque)


def _put_header(f: QEMUFile, section_type: int, se: SaveStateEntry) -> None:
    name = se.idstr.encode()
    qemu_put_byte(f, section_type)
    qemu_put_be32(f, se.section_id)
    qemu_put_byte(f, len(name))
    qemu_put_buffer(f, name, len(name))
    qemu_put_be32(f, se.instance_id)
    qemu_put_be32(f, se.version_id)


@traced
def qemu_savevm_state_begin(mon: Monitor | None, f: QEMUFile, blk_enable: int, shared: int) -> int:
    """Write the head of the stream and begin all live sections.

    Parameters
    ----------
    blk_enable, shared : int
        Whether disks go with it; whether only what overlays hold.
    """
    for se in _savevm_handlers:
        if se.set_params is not None:
            se.set_params(blk_enable, shared, se.opaque)
    qemu_put_be32(f, QEMU_VM_FILE_MAGIC)
    qemu_put_be32(f, QEMU_VM_FILE_VERSION)
    for se in _savevm_handlers:
        if se.save_live_state is not None:
            _put_header(f, QEMU_VM_SECTION_START, se)
            se.save_live_state(mon, f, QEMU_VM_SECTION_START, se.opaque)
    if qemu_file_has_error(f):
        qemu_savevm_state_cancel(mon, f)
        return -errno.EIO
    return 0


@traced
def qemu_savevm_state_iterate(mon: Monitor | None, f: QEMUFile) -> int:
    """Write a part of the live sections, each only after the one before it is nearly done.

    Returns
    -------
    int
        1 when the rest is little enough to stop the machine for; 0; -EIO.
    """
    ret = 1
    for se in _savevm_handlers:
        if se.save_live_state is None:
            continue
        qemu_put_byte(f, QEMU_VM_SECTION_PART)
        qemu_put_be32(f, se.section_id)
        ret = se.save_live_state(mon, f, QEMU_VM_SECTION_PART, se.opaque)
        if not ret:
            break
    if ret:
        return 1
    if qemu_file_has_error(f):
        qemu_savevm_state_cancel(mon, f)
        return -errno.EIO
    return 0


def _hand_on(f: QEMUFile) -> None:
    """Let a destination load what is there while more is saved: both machines stand now.

    The real program waits until the buffer is full, and so does this one where that shows in a trace.
    """
    if f.rate_limit is not None and f._index >= _WORTH_SENDING and not recording():
        qemu_fflush(f)


def save_devices(f: QEMUFile) -> None:
    """Write all sections that are written at once, and the end mark."""
    for se in _savevm_handlers:
        if se.save_state is not None or se.vmsd is not None:
            _hand_on(f)
            _put_header(f, QEMU_VM_SECTION_FULL, se)
            vmstate_save(f, se)
    qemu_put_byte(f, QEMU_VM_EOF)


@traced
def qemu_savevm_state_complete(mon: Monitor | None, f: QEMUFile) -> int:
    """Write what is left: the ends of the live sections, all others, and the end mark."""
    for se in _savevm_handlers:
        if se.save_live_state is not None:
            _hand_on(f)
            qemu_put_byte(f, QEMU_VM_SECTION_END)
            qemu_put_be32(f, se.section_id)
            se.save_live_state(mon, f, QEMU_VM_SECTION_END, se.opaque)
    save_devices(f)
    return -errno.EIO if qemu_file_has_error(f) else 0


@traced
def qemu_savevm_state_cancel(mon: Monitor | None, f: QEMUFile) -> None:
    """Have live sections forget that they are being saved."""
    for se in _savevm_handlers:
        if se.save_live_state is not None:
            se.save_live_state(mon, f, -1, se.opaque)


@traced
def qemu_savevm_state(mon: Monitor, f: QEMUFile) -> int:
    """Write all of the machine, which stands meanwhile."""
    saved_vm_running = state.vm_running
    vm_stop(0)
    bdrv_flush_all()
    ret = qemu_savevm_state_begin(mon, f, 0, 0)
    if ret >= 0:
        ret = 0
        while ret == 0:
            ret = qemu_savevm_state_iterate(mon, f)
        if ret >= 0:
            ret = qemu_savevm_state_complete(mon, f)
    if qemu_file_has_error(f):
        ret = -errno.EIO
    if ret == 0 and saved_vm_running:
        vm_start()
    return ret


@traced
def find_se(idstr: str, instance_id: int) -> SaveStateEntry | None:
    """Find a registration."""
    return next((se for se in _savevm_handlers if (se.idstr, se.instance_id) == (idstr, instance_id)), None)


def _foreign(idstr: str) -> SaveStateEntry | None:
    from hypervisor.vmstate.absent import of_another_accelerator

    return of_another_accelerator(idstr)


def _begin_section(f: QEMUFile, entries: dict[int, LoadStateEntry]) -> int:
    """Read the head of a section and its data."""
    section_id = qemu_get_be32(f)
    name = bytearray(qemu_get_byte(f))
    qemu_get_buffer(f, memoryview(name), len(name))
    idstr = name.decode("utf-8", "backslashreplace")
    instance_id, version_id = qemu_get_be32(f), qemu_get_be32(f)
    if qemu_file_has_error(f):
        return -errno.EIO
    se = find_se(idstr, instance_id) or _foreign(idstr)
    if se is None:
        complain(f"Unknown savevm section or instance '{idstr}' {instance_id}")
        return -errno.EINVAL
    if version_id > se.version_id:
        complain(f"savevm: unsupported version {version_id} for '{idstr}' v{se.version_id}")
        return -errno.EINVAL
    le = LoadStateEntry(se=se, section_id=section_id, version_id=version_id)
    entries[section_id] = le
    ret = vmstate_load(f, se, version_id)
    if ret < 0:
        complain(
            f"qemu: warning: error while loading state for instance {instance_id:#x} of device '{idstr}'"
        )
    return ret


def _continue_section(f: QEMUFile, entries: dict[int, LoadStateEntry]) -> int:
    """Read more data of a section whose head came before."""
    section_id = qemu_get_be32(f)
    le = entries.get(section_id)
    if le is None:
        complain(f"Unknown savevm section {section_id}")
        return -errno.EINVAL
    ret = vmstate_load(f, le.se, le.version_id)
    if ret < 0:
        complain(f"qemu: warning: error while loading state section id {section_id}")
    return ret


def load_sections(f: QEMUFile) -> int:
    """Read sections up to the end mark; 0 or -errno."""
    entries: dict[int, LoadStateEntry] = {}
    while (section_type := qemu_get_byte(f)) != QEMU_VM_EOF:
        if section_type in (QEMU_VM_SECTION_START, QEMU_VM_SECTION_FULL):
            ret = _begin_section(f, entries)
        elif section_type in (QEMU_VM_SECTION_PART, QEMU_VM_SECTION_END):
            ret = _continue_section(f, entries)
        else:
            complain(f"Unknown savevm section type {section_type}")
            ret = -errno.EINVAL
        if ret < 0:
            return ret
    return 0


@traced
def qemu_loadvm_state(f: QEMUFile) -> int:
    """Read a machine over this one.

    Errors
    ------
    -EINVAL : no stream of this kind, an unknown section, a version too new, data that a device refuses.
    -ENOTSUP : another version of the stream.
    -EIO : it ended early.
    """
    global _half_loaded, _complaint
    _complaint = ""
    if qemu_get_be32(f) != QEMU_VM_FILE_MAGIC:
        return -errno.EINVAL
    version = qemu_get_be32(f)
    if version == QEMU_VM_FILE_VERSION_COMPAT:
        complain("SaveVM v2 format is obsolete and don't work anymore")
        return -errno.ENOTSUP
    if version != QEMU_VM_FILE_VERSION:
        return -errno.ENOTSUP
    _half_loaded = "what was to be loaded into this machine came only in part"
    try:
        ret = load_sections(f)
    except (ValueError, IndexError, OverflowError) as error:
        # A value that no device can hold: the stream is damaged.
        qemu_file_set_error(f, f"damaged data ({error})")
        ret = -errno.EIO
    if qemu_file_has_error(f):
        if f._why:
            complain(f"studykvm: loading stopped after {f.buf_offset:,} bytes: {f._why}")
        ret = -errno.EIO
    if ret == 0:
        _half_loaded = ""
    return ret


def last_complaint() -> str:
    """Why the last load failed, as it was said; for whoever sent what did not load."""
    return _complaint or "not a machine that can be loaded here"


def complain(text: str) -> None:
    """Say why a load fails; the first reason is also for whoever sent it."""
    global _complaint
    _complaint = _complaint or text
    print(text, file=sys.stderr)


@traced
def qemu_announce_self_once(opaque: QEMUTimer) -> None:
    """Have the network learn where the machine is now; the model has no network cards."""
    global _announce_rounds
    _announce_rounds -= 1
    if _announce_rounds > 0:
        done = _SELF_ANNOUNCE_ROUNDS - _announce_rounds
        qemu_mod_timer(opaque, qemu_get_clock(rt_clock) + 100 * done - 50)
    else:
        qemu_del_timer(opaque)


@traced
def qemu_announce_self() -> None:
    """Begin to tell the network where the machine is now."""
    timer = qemu_new_timer(rt_clock, qemu_announce_self_once, None)
    timer.opaque = timer
    qemu_announce_self_once(timer)
