"""Snapshots of the machine within its disk images: the commands of savevm.c, and load_vmstate.

The state of the machine goes, as a stream, behind the guest's data of the first disk that can be written;
then every such disk makes a snapshot of its own data under the same name. So only images whose format has
snapshots, qcow2, can hold one; of others the user hears after the whole memory was written nowhere.

- `do_savevm`, `do_loadvm`, `do_delvm`, `do_info_snapshots`: obey the monitor.
- `load_vmstate(mon, name)`: also for -loadvm.
"""

from __future__ import annotations

import errno

from hypervisor import icount
from hypervisor.aio import qemu_aio_flush
from hypervisor.block import (
    bdrv_get_device_name,
    bdrv_is_read_only,
    bdrv_is_removable,
    bdrv_snapshot_create,
    bdrv_snapshot_delete,
    bdrv_snapshot_dump,
    bdrv_snapshot_goto,
    bdrv_snapshot_list,
)
from hypervisor.block_int import BlockDriverState, QEMUSnapshotInfo
from hypervisor.cutils import pstrcpy
from hypervisor.monitor import Arguments, Monitor, monitor_printf
from hypervisor.program import on_reset
from hypervisor.quirks import note
from hypervisor.savevm import qemu_loadvm_state, qemu_savevm_state
from hypervisor.savevm_file import qemu_fclose, qemu_fopen_bdrv, qemu_ftell
from hypervisor.vl_drive import drives
from hypervisor.vl_loop import vm_start, vm_stop
from hypervisor.vl_state import state
from hypervisor.vl_timers import qemu_get_clock, vm_clock
from tracer import traced

C_FILE = "savevm.c"

_bs_snapshots: BlockDriverState | None = None


@on_reset
def _reset() -> None:
    global _bs_snapshots
    _bs_snapshots = None


@traced
def bdrv_can_snapshot(bs: BlockDriverState | None) -> int:
    """Whether a drive is a disk that can be written."""
    return int(bs is not None and not bdrv_is_removable(bs) and not bdrv_is_read_only(bs))


@traced
def bdrv_has_snapshot(bs: BlockDriverState | None) -> int:
    """Whether a snapshot of the machine must include a drive."""
    return int(bs is not None and not bdrv_is_removable(bs) and not bdrv_is_read_only(bs))


@traced
def get_bs_snapshots() -> BlockDriverState | None:
    """The disk that keeps the state of the machine: the first that can be written."""
    global _bs_snapshots
    if _bs_snapshots is None:
        _bs_snapshots = next((d.bdrv for d in drives if bdrv_can_snapshot(d.bdrv)), None)
    return _bs_snapshots


@traced
def bdrv_snapshot_find(bs: BlockDriverState, name: str) -> tuple[int, QEMUSnapshotInfo | None]:
    """Find a snapshot by its number or name; -ENOENT and None if there is none."""
    _, snapshots = bdrv_snapshot_list(bs)
    found = next((sn for sn in snapshots if name in (sn.id_str, sn.name)), None)
    return (0 if found is not None else -errno.ENOENT), found


@traced
def del_existing_snapshots(mon: Monitor, name: str) -> int:
    """Delete the snapshots of a name on all disks; -1 after a message."""
    for bs in _bdrvs():
        if bdrv_can_snapshot(bs) and bdrv_snapshot_find(bs, name)[0] >= 0:
            ret = bdrv_snapshot_delete(bs, name)
            if ret < 0:
                monitor_printf(mon, "Error while deleting snapshot on '%s'\n", bdrv_get_device_name(bs))
                return -1
    return 0


def _bdrvs() -> list[BlockDriverState]:
    return [dinfo.bdrv for dinfo in drives if dinfo.bdrv is not None]


@traced
def do_savevm(mon: Monitor, qdict: Arguments) -> None:
    """Obey `savevm`: the machine stands while it is saved, and then goes on."""
    bs = get_bs_snapshots()
    if bs is None:
        monitor_printf(mon, "No block device can accept snapshots\n")
        return
    qemu_aio_flush()
    saved_vm_running = state.vm_running
    vm_stop(0)
    _save(mon, bs, qdict.get("name"))
    if saved_vm_running:
        vm_start()


def _save(mon: Monitor, bs: BlockDriverState, name: str | None) -> None:
    sn = QEMUSnapshotInfo()
    if name is not None:
        _, old_sn = bdrv_snapshot_find(bs, name)
        sn.name = pstrcpy(256, old_sn.name if old_sn is not None else name)
        if old_sn is not None:
            sn.id_str = pstrcpy(128, old_sn.id_str)
    sn.date_sec, rest = divmod(icount.time_ns(), 1_000_000_000)
    sn.date_nsec = rest // 1000 * 1000
    sn.vm_clock_nsec = qemu_get_clock(vm_clock)
    if name is not None and del_existing_snapshots(mon, name) < 0:
        return
    f = qemu_fopen_bdrv(bs, 1)
    ret = qemu_savevm_state(mon, f)
    vm_state_size = qemu_ftell(f)
    qemu_fclose(f)
    # quirk: the last bytes are written by qemu_fclose, after the real program asked whether all went well.
    if ret >= 0 and f.has_error:
        ret = -errno.EIO
    if ret < 0:
        monitor_printf(mon, "Error %d while writing VM\n", ret)
        return
    for bs1 in _bdrvs():
        if bdrv_has_snapshot(bs1):
            sn.vm_state_size = vm_state_size if bs1 is bs else 0
            if bdrv_snapshot_create(bs1, sn) < 0:
                monitor_printf(mon, "Error while creating snapshot on '%s'\n", bdrv_get_device_name(bs1))


@traced
def load_vmstate(mon: Monitor | None, name: str) -> int:
    """Put disks and machine back to a snapshot.

    Returns
    -------
    int
        0, also where the disk that keeps the state has no such snapshot; -errno when the state itself did not
        load.
    """
    bs = get_bs_snapshots()
    if bs is None:
        monitor_printf(mon, "No block device supports snapshots\n")
        return -errno.EINVAL
    qemu_aio_flush()
    for bs1 in _bdrvs():
        if bdrv_has_snapshot(bs1):
            ret = bdrv_snapshot_goto(bs1, name)
            if ret < 0:
                _complain_of_goto(mon, bs, bs1, name, ret)
                if bs1 is bs:
                    # quirk: no error, so that -loadvm boots instead
                    note(
                        "loadvm-goes-on",
                        f"snapshot '{name}' was not loaded, the machine just goes on (savevm.c)",
                    )
                    return 0
    ret, sn = bdrv_snapshot_find(bs, name)
    if sn is not None and sn.vm_state_size == 0:
        return -errno.EINVAL
    f = qemu_fopen_bdrv(bs, 0)
    ret = qemu_loadvm_state(f)
    qemu_fclose(f)
    if ret < 0:
        monitor_printf(mon, "Error %d while loading VM state\n", ret)
        return ret
    return 0


def _complain_of_goto(
    mon: Monitor | None, bs: BlockDriverState, bs1: BlockDriverState, name: str, ret: int
) -> None:
    device = bdrv_get_device_name(bs1)
    if bs1 is not bs:
        monitor_printf(mon, "Warning: ")
    if ret == -errno.ENOTSUP:
        monitor_printf(mon, "Snapshots not supported on device '%s'\n", device)
    elif ret == -errno.ENOENT:
        monitor_printf(mon, "Could not find snapshot '%s' on device '%s'\n", name, device)
    else:
        monitor_printf(mon, "Error %d while activating snapshot on '%s'\n", ret, device)


@traced(file="monitor.c")
def do_loadvm(mon: Monitor, qdict: Arguments) -> None:
    """Obey `loadvm`: a machine that ran goes on from the snapshot; one that did not load stands."""
    saved_vm_running = state.vm_running
    vm_stop(0)
    if load_vmstate(mon, qdict["name"]) >= 0 and saved_vm_running:
        vm_start()


@traced
def do_delvm(mon: Monitor, qdict: Arguments) -> None:
    """Obey `delvm`."""
    if get_bs_snapshots() is None:
        monitor_printf(mon, "No block device supports snapshots\n")
        return
    for bs1 in _bdrvs():
        if bdrv_has_snapshot(bs1):
            ret = bdrv_snapshot_delete(bs1, qdict["name"])
            if ret == -errno.ENOTSUP:
                device = bdrv_get_device_name(bs1)
                monitor_printf(mon, "Snapshots not supported on device '%s'\n", device)
            elif ret < 0:
                device = bdrv_get_device_name(bs1)
                monitor_printf(mon, "Error %d while deleting snapshot on '%s'\n", ret, device)


@traced
def do_info_snapshots(mon: Monitor) -> None:
    """Obey `info snapshots`."""
    bs = get_bs_snapshots()
    if bs is None:
        monitor_printf(mon, "No available block device supports snapshots\n")
        return
    monitor_printf(mon, "Snapshot devices:")
    for bs1 in _bdrvs():
        if bdrv_has_snapshot(bs1) and bs1 is bs:
            monitor_printf(mon, " %s", bdrv_get_device_name(bs1))
    monitor_printf(mon, "\n")
    nb_sns, snapshots = bdrv_snapshot_list(bs)
    if nb_sns < 0:
        monitor_printf(mon, "bdrv_snapshot_list: error %d\n", nb_sns)
        return
    monitor_printf(mon, "Snapshot list (from %s):\n", bdrv_get_device_name(bs))
    monitor_printf(mon, "%s\n", bdrv_snapshot_dump(256, None))
    for sn in snapshots:
        monitor_printf(mon, "%s\n", bdrv_snapshot_dump(256, sn))
