"""Commands that run, stop and change the machine, its media among them: a part of monitor.c.

Those of QMP return their result, None for none, and report errors by `qemu_error_new`.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

from hypervisor.aio import qemu_aio_flush
from hypervisor.block import (
    bdrv_close,
    bdrv_commit,
    bdrv_find,
    bdrv_find_whitelisted_format,
    bdrv_get_device_name,
    bdrv_get_encrypted_filename,
    bdrv_is_inserted,
    bdrv_is_locked,
    bdrv_is_removable,
    bdrv_iterate,
    bdrv_key_required,
    bdrv_open2,
    bdrv_set_key,
)
from hypervisor.block_int import BlockDriverState
from hypervisor.monitor import (
    Arguments,
    Monitor,
    mon_set_cpu,
    monitor_ctrl_mode,
    monitor_printf,
    monitor_read_command,
    monitor_read_password,
)
from hypervisor.monitor import qemu_error_new as error
from hypervisor.qemu_char import qemu_chr_get_msgfd
from hypervisor.qerror import (
    QERR_DEVICE_ENCRYPTED,
    QERR_DEVICE_LOCKED,
    QERR_DEVICE_NOT_ACTIVE,
    QERR_DEVICE_NOT_FOUND,
    QERR_DEVICE_NOT_REMOVABLE,
    QERR_FD_NOT_FOUND,
    QERR_FD_NOT_SUPPLIED,
    QERR_INVALID_BLOCK_FORMAT,
    QERR_INVALID_PARAMETER,
    QERR_INVALID_PASSWORD,
    QERR_UNDEFINED_ERROR,
)
from hypervisor.savevm import forget_half_loaded, half_loaded
from hypervisor.vl_drive import drives
from hypervisor.vl_loop import (
    qemu_system_powerdown_request,
    qemu_system_reset_request,
    vm_start,
    vm_stop,
)
from hypervisor.vl_machine import qemu_boot_set
from hypervisor.vl_state import state
from tracer import Struct, traced

C_FILE = "monitor.c"

EXCP_INTERRUPT = 0x10000


class bdrv_iterate_context(Struct):
    """`struct bdrv_iterate_context`: what `encrypted_bdrv_it` found."""

    mon: Monitor | None = None
    err: int = 0


@traced
def do_quit(mon: Monitor, qdict: Arguments) -> None:
    """End the program at once."""
    state.exit_reason = "quit"
    raise SystemExit(0)


@traced
def do_commit(mon: Monitor, qdict: Arguments) -> None:
    """Write what overlays hold into their backing files."""
    device = qdict["device"]
    for dinfo in drives:
        assert dinfo.bdrv is not None
        if device == "all" or bdrv_get_device_name(dinfo.bdrv) == device:
            bdrv_commit(dinfo.bdrv)


@traced
def eject_device(mon: Monitor, bs: BlockDriverState, force: int) -> int:
    """Take the medium out of a drive; -1 after an error."""
    if bdrv_is_inserted(bs):
        if not force:
            if not bdrv_is_removable(bs):
                error(QERR_DEVICE_NOT_REMOVABLE, device=bdrv_get_device_name(bs))
                return -1
            if bdrv_is_locked(bs):
                error(QERR_DEVICE_LOCKED, device=bdrv_get_device_name(bs))
                return -1
        if bs._in_flight:
            # quirk: C closes under the requests, which end in freed memory
            qemu_aio_flush()
        bdrv_close(bs)
    return 0


@traced
def do_eject(mon: Monitor, qdict: Arguments) -> None:
    """Obey `eject`."""
    bs = bdrv_find(qdict["device"])
    if bs is None:
        error(QERR_DEVICE_NOT_FOUND, device=qdict["device"])
        return
    eject_device(mon, bs, qdict["force"])


@traced
def do_block_set_passwd(mon: Monitor, qdict: Arguments) -> None:
    """Obey `block_passwd`."""
    bs = bdrv_find(qdict["device"])
    if bs is None:
        error(QERR_DEVICE_NOT_FOUND, device=qdict["device"])
    elif bdrv_set_key(bs, qdict["password"]) < 0:
        error(QERR_INVALID_PASSWORD)


@traced
def bdrv_password_cb(mon: Monitor, password: str, opaque: BlockDriverState) -> None:
    """Take the password of an encrypted medium."""
    ret = 0
    if bdrv_set_key(opaque, password) != 0:
        monitor_printf(mon, "invalid password\n")
        ret = -errno.EPERM
    if mon.password_completion_cb is not None:
        mon.password_completion_cb(mon.password_opaque, ret)
    monitor_read_command(mon, 1)


@traced
def monitor_read_bdrv_key_start(mon: Monitor, bs: BlockDriverState, completion_cb: Any, opaque: Any) -> None:
    """Ask for the password of a medium, if it wants one; `completion_cb(opaque, err)` hears of it."""
    if not bdrv_key_required(bs):
        if completion_cb is not None:
            completion_cb(opaque, 0)
        return
    if monitor_ctrl_mode(mon):
        error(QERR_DEVICE_ENCRYPTED, device=bdrv_get_device_name(bs))
        return
    name = bdrv_get_device_name(bs)
    monitor_printf(mon, "%s (%s) is encrypted.\n", name, bdrv_get_encrypted_filename(bs))
    mon.password_completion_cb = completion_cb
    mon.password_opaque = opaque
    err = monitor_read_password(mon, bdrv_password_cb, bs)
    if err and completion_cb is not None:
        completion_cb(opaque, err)


@traced
def do_change_block(mon: Monitor, device: str, filename: str, fmt: str | None) -> None:
    """Put another medium into a drive; a file that does not open leaves it empty."""
    bs = bdrv_find(device)
    if bs is None:
        error(QERR_DEVICE_NOT_FOUND, device=device)
        return
    drv = None
    if fmt is not None:
        drv = bdrv_find_whitelisted_format(fmt)
        if drv is None:
            error(QERR_INVALID_BLOCK_FORMAT, name=fmt)
            return
    if eject_device(mon, bs, 0) < 0:
        return
    ret = bdrv_open2(bs, filename, 0, drv)
    if ret < 0:
        # quirk: the monitor says nothing
        print(f"studykvm: {filename}: {os.strerror(-ret)}; {device} is empty now", file=sys.stderr)
    monitor_read_bdrv_key_start(mon, bs, None, None)


@traced
def do_change(mon: Monitor, qdict: Arguments) -> None:
    """Obey `change`."""
    if qdict["device"] == "vnc":
        monitor_printf(mon, "change vnc: the model has no VNC server\n")
    else:
        do_change_block(mon, qdict["device"], qdict["target"], qdict.get("arg"))


@traced
def do_stop(mon: Monitor, qdict: Arguments) -> None:
    """Stop the machine."""
    vm_stop(EXCP_INTERRUPT)


@traced
def encrypted_bdrv_it(opaque: bdrv_iterate_context, bs: BlockDriverState) -> None:
    """Ask for the password of one encrypted medium."""
    if not opaque.err and bdrv_key_required(bs):
        opaque.err = -errno.EBUSY
        assert opaque.mon is not None
        monitor_read_bdrv_key_start(opaque.mon, bs, bdrv_key_cb, opaque.mon)


@traced
def bdrv_key_cb(opaque: Monitor, err: int) -> None:
    """Try again to let the machine go on."""
    if not err:
        do_cont(opaque, {})


@traced
def do_cont(mon: Monitor, qdict: Arguments) -> None:
    """Let the machine go on, once all passwords are known."""
    context = bdrv_iterate_context(mon=mon)
    bdrv_iterate(encrypted_bdrv_it, context)
    if not context.err and not _refuse_half_loaded(mon):
        vm_start()


def _refuse_half_loaded(mon: Monitor) -> bool:
    """Say that a machine must not run of which only a part was loaded; 0.12.4 lets it."""
    why = half_loaded()
    if why:
        monitor_printf(mon, "The machine is incomplete: %s; system_reset makes it a fresh one\n", why)
    return bool(why)


@traced
def do_system_reset(mon: Monitor, qdict: Arguments) -> None:
    """Reset the machine."""
    forget_half_loaded()
    qemu_system_reset_request()


@traced
def do_system_powerdown(mon: Monitor, qdict: Arguments) -> None:
    """Press the machine's power button."""
    qemu_system_powerdown_request()


@traced
def do_boot_set(mon: Monitor, qdict: Arguments) -> None:
    """Obey `boot_set`."""
    res = qemu_boot_set(qdict["bootdevice"])
    if res == 0:
        monitor_printf(mon, "boot device list now set to %s\n", qdict["bootdevice"])
    elif res > 0:
        monitor_printf(mon, "setting boot device list failed\n")
    else:
        monitor_printf(mon, "no function defined to set boot device list for this architecture\n")


@traced
def do_cpu_set(mon: Monitor, qdict: Arguments) -> None:
    """Obey `cpu`: choose the processor that commands are about."""
    if mon_set_cpu(qdict["index"]) < 0:
        monitor_printf(mon, "Invalid CPU index\n")


@traced
def balloon_get_value() -> int:
    """How much memory the guest's balloon leaves it; 0 after an error: the model has no balloon."""
    error(QERR_DEVICE_NOT_ACTIVE, device="balloon")
    return 0


@traced
def do_balloon(mon: Monitor, qdict: Arguments) -> None:
    """Obey `balloon`."""
    balloon_get_value()


@traced
def do_info_balloon(mon: Monitor) -> None:
    """Obey `info balloon`."""
    balloon_get_value()


@traced(file="net.c")
def do_set_link(mon: Monitor, qdict: Arguments) -> None:
    """Obey `set_link`: the model has no network devices."""
    monitor_printf(mon, "could not find network device '%s'\n", qdict["name"])


@traced
def find_acl(mon: Monitor, name: str) -> None:
    """Find an access control list: without VNC there is none."""
    monitor_printf(mon, "acl: unknown list '%s'\n", name)


@traced
def do_acl_show(mon: Monitor, qdict: Arguments) -> None:
    """Obey `acl_show`."""
    find_acl(mon, qdict["aclname"])


@traced
def do_acl_reset(mon: Monitor, qdict: Arguments) -> None:
    """Obey `acl_reset`."""
    find_acl(mon, qdict["aclname"])


@traced
def do_acl_policy(mon: Monitor, qdict: Arguments) -> None:
    """Obey `acl_policy`."""
    find_acl(mon, qdict["aclname"])


@traced
def do_acl_add(mon: Monitor, qdict: Arguments) -> None:
    """Obey `acl_add`."""
    find_acl(mon, qdict["aclname"])


@traced
def do_acl_remove(mon: Monitor, qdict: Arguments) -> None:
    """Obey `acl_remove`."""
    find_acl(mon, qdict["aclname"])


@traced
def do_getfd(mon: Monitor, qdict: Arguments) -> None:
    """Name the descriptor that came with the command over a unix socket.

    It is kept until it is taken, replaced or closed, also when the client goes: the next one may use it.
    """
    name = qdict["fdname"]
    assert mon.chr is not None
    fd = qemu_chr_get_msgfd(mon.chr)
    if fd == -1:
        error(QERR_FD_NOT_SUPPLIED)
    elif name[:1].isdigit():
        error(QERR_INVALID_PARAMETER, name="fdname")
    elif name not in mon.fds and len(mon.fds) >= _MAX_FDS:
        error(QERR_UNDEFINED_ERROR)
    else:
        from hypervisor.osdep import adopt_fd, close_fd

        if name in mon.fds:
            close_fd(mon.fds.pop(name))
        mon.fds[name] = adopt_fd(os.dup(fd))


_MAX_FDS = 64


@traced
def do_closefd(mon: Monitor, qdict: Arguments) -> None:
    """Close a named descriptor."""
    from hypervisor.osdep import close_fd

    fd = mon.fds.pop(qdict["fdname"], None)
    if fd is None:
        error(QERR_FD_NOT_FOUND, name=qdict["fdname"])
    else:
        close_fd(fd)


@traced
def monitor_get_fd(mon: Monitor, fdname: str) -> int:
    """Take a named descriptor, which the caller closes; -1 if there is none."""
    return mon.fds.pop(fdname, -1)
