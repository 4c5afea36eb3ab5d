"""The kinds of fields that descriptions are made of: the `VMSTATE_*` of hw/hw.h.

Each makes a `VMStateField` from a field's name in QEMU's structure; `attr` says where the model has it, if
elsewhere, and `missing` what to write where the model has no such field. Numbers are big-endian in the
stream.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Container
from typing import Any

from hypervisor.savevm_file import (
    QEMUFile,
    _get,
    _get_into,
    _put,
    qemu_get_be16,
    qemu_get_be32,
    qemu_get_be64,
    qemu_get_buffer,
    qemu_get_byte,
    qemu_put_be16,
    qemu_put_be32,
    qemu_put_be64,
    qemu_put_buffer,
    qemu_put_byte,
)
from hypervisor.vl_timers import QEMUTimer, qemu_get_timer, qemu_put_timer
from hypervisor.vmstate import VMStateDescription, VMStateField, VMStateInfo
from tracer import symbol, traced

C_FILE = "savevm.c"

Test = Callable[[Any, int], int]

_PUT = {1: qemu_put_byte, 2: qemu_put_be16, 4: qemu_put_be32, 8: qemu_put_be64}
_GET = {1: qemu_get_byte, 2: qemu_get_be16, 4: qemu_get_be32, 8: qemu_get_be64}


def _number(name: str, size: int, signed: bool) -> VMStateInfo:
    put_number, get_number = _PUT[size], _GET[size]
    half = 1 << 8 * size - 1 if signed else 1 << 8 * size

    def put(f: QEMUFile, pv: int, size: int) -> None:
        put_number(f, pv)

    def get(f: QEMUFile, pv: int, size: int) -> tuple[int, int]:
        value = get_number(f)
        return 0, value if value < half else value - 2 * half

    code = "BHIQ"[size.bit_length() - 1]
    info = VMStateInfo(name=name, code=code.lower() if signed else code, get=get, put=put)
    return symbol(info, f"vmstate_info_{name}")


_INT = {size: _number(f"int{8 * size}", size, True) for size in _PUT}
_UINT = {size: _number(f"uint{8 * size}", size, False) for size in _PUT}


@traced
def get_int32_le(f: QEMUFile, pv: int | None, size: int) -> tuple[int, int]:
    """Read a number that may be at most what the device has."""
    value = qemu_get_be32(f)
    return -errno.EINVAL if pv is not None and value > pv else 0, value


@traced
def get_uint8_equal(f: QEMUFile, pv: int | None, size: int) -> tuple[int, int]:
    """Read a number that must be what the device has."""
    value = qemu_get_byte(f)
    return -errno.EINVAL if pv is not None and value != pv else 0, value


def _get_int32_equal(f: QEMUFile, pv: int | None, size: int) -> tuple[int, int]:
    value = qemu_get_be32(f)
    return -errno.EINVAL if pv is not None and value != pv else 0, value


@traced
def get_u64(f: QEMUFile, pv: int | None, size: int) -> tuple[int, int]:
    """Read a number of the kernel's type __u64."""
    return 0, qemu_get_be64(f)


@traced
def put_u64(f: QEMUFile, pv: int, size: int) -> None:
    """Write a number of the kernel's type __u64."""
    qemu_put_be64(f, pv)


@traced
def put_timer(f: QEMUFile, pv: QEMUTimer | None, size: int) -> None:
    """Write when a timer goes off; all ones if it is not pending."""
    qemu_put_timer(f, pv)


@traced
def get_timer(f: QEMUFile, pv: QEMUTimer | None, size: int) -> tuple[int, QEMUTimer | int | None]:
    """Set a timer to what was read."""
    if pv is None:
        value = qemu_get_be64(f)
        return 0, value if value != (1 << 64) - 1 else None
    qemu_get_timer(f, pv)
    return 0, pv


@traced
def put_buffer(f: QEMUFile, pv: bytes | bytearray | memoryview, size: int) -> None:
    """Write bytes."""
    qemu_put_buffer(f, pv, size)


@traced
def get_buffer(f: QEMUFile, pv: bytearray | memoryview | None, size: int) -> tuple[int, Any]:
    """Read bytes over those that the device has."""
    target = pv if pv is not None else bytearray(size)
    with memoryview(target) as view:
        qemu_get_buffer(f, view, size)
    return 0, target


def _put_bytes(f: QEMUFile, pv: bytes | bytearray | memoryview, size: int) -> None:
    with memoryview(pv) as view:
        _put(f, view[:size])
    _put(f, bytes(max(size - len(pv), 0)))


def _get_bytes(f: QEMUFile, pv: bytearray | memoryview | None, size: int) -> tuple[int, Any]:
    if pv is None:
        return 0, _get(f, size)
    with memoryview(pv) as view:
        done = _get_into(f, view)
        view[done:] = bytes(len(view) - done)
    _get(f, size - len(pv))
    return 0, pv


vmstate_info_int32_equal = symbol(
    VMStateInfo(name="int32 equal", get=_get_int32_equal, put=_INT[4].put), "vmstate_info_int32_equal"
)
vmstate_info_int32_le = symbol(
    VMStateInfo(name="int32 equal", get=get_int32_le, put=_INT[4].put), "vmstate_info_int32_le"
)
vmstate_info_uint8_equal = symbol(
    VMStateInfo(name="uint8 equal", get=get_uint8_equal, put=_UINT[1].put), "vmstate_info_uint8_equal"
)
vmstate_info_u64 = symbol(VMStateInfo(name="__u64", get=get_u64, put=put_u64), "vmstate_info_u64")
vmstate_info_timer = symbol(VMStateInfo(name="timer", get=get_timer, put=put_timer), "vmstate_info_timer")
vmstate_info_buffer = symbol(
    VMStateInfo(name="buffer", get=get_buffer, put=put_buffer), "vmstate_info_buffer"
)
_BYTES = VMStateInfo(name="uint8 array", get=_get_bytes, put=_put_bytes)


def VMSTATE_SINGLE(
    name: str,
    info: VMStateInfo,
    size: int,
    version: int = 0,
    *,
    attr: str | None = None,
    test: Test | None = None,
    num: int | str | None = None,
    missing: Any = None,
    within: Container[int] | None = None,
) -> VMStateField:
    """A value, or `num` of them, written as `info` says."""
    return VMStateField(
        name=name,
        attr=name if attr is None else attr,
        info=info,
        size=size,
        num=num,
        version_id=version,
        field_exists=test,
        missing=missing,
        within=within,
    )


def _kind(info: VMStateInfo, size: int, doc: str) -> Callable[..., VMStateField]:
    def make(name: str, version: int = 0, **options: Any) -> VMStateField:
        return VMSTATE_SINGLE(name, info, size, version, **options)

    make.__doc__ = doc
    return make


VMSTATE_INT32 = _kind(_INT[4], 4, "A signed number of 32 bits.")
VMSTATE_INT64 = _kind(_INT[8], 8, "A signed number of 64 bits.")
VMSTATE_UINT8 = _kind(_UINT[1], 1, "A number of 8 bits.")
VMSTATE_UINT16 = _kind(_UINT[2], 2, "A number of 16 bits.")
VMSTATE_UINT32 = _kind(_UINT[4], 4, "A number of 32 bits.")
VMSTATE_UINT64 = _kind(_UINT[8], 8, "A number of 64 bits; also an address of the 64-bit target.")
VMSTATE_U64 = _kind(vmstate_info_u64, 8, "A number of the kernel's type __u64.")
VMSTATE_INT32_EQUAL = _kind(vmstate_info_int32_equal, 4, "A number that must be the one the device has.")
VMSTATE_INT32_LE = _kind(vmstate_info_int32_le, 4, "A number that may be at most the one the device has.")
VMSTATE_UINT8_EQUAL = _kind(vmstate_info_uint8_equal, 1, "A number that must be the one the device has.")
VMSTATE_TIMER = _kind(vmstate_info_timer, 8, "When a timer goes off.")


def VMSTATE_BUFFER(name: str, size: int, version: int = 0, **options: Any) -> VMStateField:
    """Bytes, written at once."""
    return VMSTATE_SINGLE(name, vmstate_info_buffer, size, version, **options)


def VMSTATE_BYTES(name: str, size: int, version: int = 0, **options: Any) -> VMStateField:
    """An array of 8-bit numbers, which 0.12.4 writes one by one and the model at once."""
    return VMSTATE_SINGLE(name, _BYTES, size, version, **options)


def VMSTATE_STRUCT(
    name: str,
    vmsd: VMStateDescription,
    version: int = 0,
    *,
    attr: str | None = None,
    num: int | None = None,
) -> VMStateField:
    """A structure within, or `num` of them; `attr=""` is what a structure is derived from."""
    return VMStateField(
        name=name, attr=name if attr is None else attr, vmsd=vmsd, num=num, version_id=version
    )
