"""How the state of a device is written and read: `VMStateDescription` and its fields; a part of savevm.c and
hw/hw.h.

A description lists the fields of a structure in the order in which they stand in the stream. Nothing in the
stream says where a field begins or what it is called: who reads must have the same list, and the version
decides which fields are there.

    VMStateDescription "i8254" v2 --> VMSTATE_UINT32("flags")
                                      VMSTATE_STRUCT_ARRAY("channels", 3, --> "pit channel" v2 --> ...)
                                      VMSTATE_TIMER("channels[0].irq_timer")

- `vmstate_save_state(f, vmsd, opaque)`, `vmstate_load_state(f, vmsd, opaque, version_id)`.
- `hypervisor.vmstate.fields`: the `VMSTATE_*` that make fields.
- `ABSENT`: a device that the model lacks.
- `parse(f, vmsd, version_id)`: the same bytes without a device, as names and values.
"""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Callable, Container
from contextlib import suppress
from functools import cache
from itertools import groupby
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

from hypervisor.savevm_file import QEMUFile, _get, _put
from tracer import Struct, traced

C_FILE = "savevm.c"

__all__ = [
    "ABSENT",
    "VMStateDescription",
    "VMStateField",
    "VMStateInfo",
    "parse",
    "vmstate_load_state",
    "vmstate_save_state",
]


class VMStateInfo(Struct):
    """`VMStateInfo`: how one value is written and read.

    Parameters
    ----------
    get
        `get(f, pv, size) -> (ret, value)`: `pv` is what the field holds now.
    put
        `put(f, pv, size)`.
    code : str
        Of plain numbers, their letter in a format of `struct`: several are written and read at once.
    """

    name: str = ""
    code: str = ""
    get: Callable[[QEMUFile, Any, int], tuple[int, Any]] | None = None
    put: Callable[[QEMUFile, Any, int], None] | None = None


class VMStateField(Struct):
    """`VMStateField`: one field, an array of them, or a structure within.

    Parameters
    ----------
    name : str
        As in QEMU's structure; "a.b" and "a[0]" lead into it.
    attr : str
        Where the model has it, if elsewhere. Empty: the functions of `info` get the structure itself.
    size : int
        Bytes of one value.
    num : int or str or None
        How many there are: a number, or the field that says so; None if it is no array.
    missing
        What to write where the model has no such field; what is read is dropped.
    within
        The numbers that a device can go on with, if not all: another one is refused.
    """

    name: str = ""
    attr: str = ""
    info: VMStateInfo | None = None
    vmsd: VMStateDescription | None = None
    size: int = 0
    num: int | str | None = None
    version_id: int = 0
    field_exists: Callable[[Any, int], int] | None = None
    missing: Any = None
    within: Container[int] | None = None

    @property
    def default(self) -> Any:
        """What a device that the model lacks has here."""
        kind = self.info.name if self.info is not None else ""
        defaults = {"buffer": bytes(self.size), "uint8 array": b"", "timer": None}
        return (defaults | {"pci config": None, "pci irq state": None}).get(kind, 0)


class VMStateDescription(Struct):
    """`VMStateDescription`: the fields of a structure, and the versions of it that can be read."""

    name: str = ""
    version_id: int = 0
    minimum_version_id: int = 0
    minimum_version_id_old: int = 0
    pre_load: Callable[[Any], int] | None = None
    post_load: Callable[[Any, int], int] | None = None
    pre_save: Callable[[Any], None] | None = None
    fields: tuple[VMStateField, ...] = ()


class Absent:
    """Stands for a device that the model lacks, so that its section is there all the same.

    Every field is as after a reset: 0, and timers not set. What is read is dropped.
    """


ABSENT = Absent()


@cache
def _steps(path: str) -> tuple[str | int, ...]:
    if path.isidentifier():
        return (path,)
    return tuple(int(step) if step.isdigit() else step for step in re.findall(r"\w+", path))


def _step(target: Any, step: str | int) -> Any:
    return target[step] if isinstance(step, int) else getattr(target, step)


def _value(opaque: Any, path: str) -> Any:
    for step in _steps(path):
        opaque = _step(opaque, step)
    return opaque


def _assign(opaque: Any, path: str, value: Any) -> None:
    *way, last = _steps(path)
    for step in way:
        opaque = _step(opaque, step)
    if isinstance(last, int):
        opaque[last] = value
    else:
        setattr(opaque, last, value)


def _count(field: VMStateField, opaque: Any) -> int:
    if isinstance(field.num, str):
        return int(_value(opaque, field.num))
    return field.num if field.num is not None else 1


def _saved(field: VMStateField, opaque: Any) -> list[Any]:
    """The values of a field, one if it is no array."""
    if opaque is ABSENT:
        value = ABSENT if field.vmsd is not None else field.default
        return [field.missing if field.missing is not None else value] * _count(field, opaque)
    if field.missing is not None:
        value = field.missing
    else:
        value = _value(opaque, field.attr)
    if field.num is None:
        return [value]
    return list(value) if field.missing is None else [value] * _count(field, opaque)


class _Row:
    """Plain numbers that follow each other, for all of which there is one format."""

    def __init__(self, fields: list[VMStateField]) -> None:
        self.fields = fields
        self._version = max(field.version_id for field in fields)
        self._form = struct.Struct(">" + "".join(map(_code, fields)))
        # With one more, so that they come as a tuple.
        self._found = attrgetter(*(field.attr for field in fields), "__class__")

    def save(self, f: QEMUFile, opaque: Any) -> None:
        """Write them."""
        try:
            numbers = self._found(opaque)[:-1] if opaque is not ABSENT else [0] * len(self.fields)
            _put(f, self._form.pack(*numbers))
        except struct.error:
            # One is too large, and is cut where it is written by itself.
            for field in self.fields:
                _save_field(f, field, opaque)

    def load(self, f: QEMUFile, opaque: Any, version_id: int) -> int:
        """Read them; 0 or -EINVAL."""
        if version_id < self._version:
            there = (field for field in self.fields if _present(field, opaque, version_id))
            return next((ret for field in there if (ret := _load_field(f, field, opaque)) < 0), 0)
        numbers = self._form.unpack(_get(f, self._form.size))
        for field, number in zip(self.fields, numbers, strict=True):
            if field.within is not None and number not in field.within:
                return -errno.EINVAL
            if opaque is not ABSENT:
                _assign(opaque, field.attr, number)
        return 0


def _code(field: VMStateField) -> str:
    return field.info.code if field.info is not None else ""


def _fits_in_row(field: VMStateField) -> bool:
    """Whether a field is a plain number, always there, and an attribute."""
    simple = field.num is None and field.missing is None and field.field_exists is None
    return bool(simple and _code(field) and field.attr.replace(".", "").isidentifier())


@cache
def _plan(vmsd: VMStateDescription) -> list[VMStateField | _Row]:
    """The fields of a description, in rows as far as they can be."""
    plan: list[VMStateField | _Row] = []
    for in_row, group in groupby(vmsd.fields, _fits_in_row):
        fields = list(group)
        plan += [_Row(fields)] if in_row else fields
    return plan


def _save_field(f: QEMUFile, field: VMStateField, opaque: Any) -> None:
    values = _saved(field, opaque)
    if field.vmsd is not None:
        for value in values:
            vmstate_save_state(f, field.vmsd, value)
        return
    if field.num is not None and _code(field):
        with suppress(struct.error):
            _put(f, struct.pack(f">{len(values)}{_code(field)}", *values))
            return
    assert field.info is not None and field.info.put is not None
    for value in values:
        field.info.put(f, value, field.size)


@traced
def vmstate_save_state(f: QEMUFile, vmsd: VMStateDescription, opaque: Any) -> None:
    """Write a structure."""
    if vmsd.pre_save is not None and opaque is not ABSENT:
        vmsd.pre_save(opaque)
    for step in _plan(vmsd):
        if isinstance(step, _Row):
            step.save(f, opaque)
        elif step.field_exists is None or step.field_exists(opaque, vmsd.version_id):
            _save_field(f, step, opaque)


@traced
def vmstate_load_state(f: QEMUFile, vmsd: VMStateDescription, opaque: Any, version_id: int) -> int:
    """Read a structure; 0 or -errno.

    Errors
    ------
    -EINVAL : a version that cannot be read, or a value that the device cannot have.
    """
    if version_id > vmsd.version_id or version_id < vmsd.minimum_version_id:
        return -errno.EINVAL
    if vmsd.pre_load is not None and opaque is not ABSENT:
        ret = vmsd.pre_load(opaque)
        if ret:
            return ret
    for step in _plan(vmsd):
        if isinstance(step, _Row):
            ret = step.load(f, opaque, version_id)
        elif _present(step, opaque, version_id):
            ret = _load_field(f, step, opaque)
        else:
            continue
        if ret < 0:
            return ret
    return vmsd.post_load(opaque, version_id) if vmsd.post_load is not None and opaque is not ABSENT else 0


def _present(field: VMStateField, opaque: Any, version_id: int) -> bool:
    if field.field_exists is not None:
        return bool(field.field_exists(opaque, version_id))
    return field.version_id <= version_id


def _load_field(f: QEMUFile, field: VMStateField, opaque: Any) -> int:
    if field.vmsd is not None:
        for value in _saved(field, opaque):
            ret = vmstate_load_state(f, field.vmsd, value, field.vmsd.version_id)
            if ret < 0:
                return ret
        return 0
    if isinstance(field.num, int) and _code(field):
        form = f">{field.num}{_code(field)}"
        values = list(struct.unpack(form, _get(f, struct.calcsize(form))))
    else:
        ret, values = _read_values(f, field, opaque)
        if ret < 0:
            return ret
    if field.within is not None and any(value not in field.within for value in values):
        return -errno.EINVAL
    if opaque is ABSENT or field.missing is not None or not field.attr:
        return 0
    if field.num is None:
        _assign(opaque, field.attr, values[0])
    else:
        _value(opaque, field.attr)[:] = values
    return 0


def _read_values(f: QEMUFile, field: VMStateField, opaque: Any) -> tuple[int, list[Any]]:
    """Read the values of a field, one after the other."""
    assert field.info is not None and field.info.get is not None
    values: list[Any] = []
    now = _saved(field, opaque)
    for index in range(_count(field, opaque)):
        pv = now[index] if index < len(now) else 0
        if opaque is ABSENT and field.missing is None:
            pv = None
        ret, value = field.info.get(f, pv, field.size)
        if ret < 0:
            return ret, values
        values.append(value)
    return 0, values


def parse(f: QEMUFile, vmsd: VMStateDescription, version_id: int, at: str = "") -> list[tuple[str, Any]]:
    """Read a structure without a device.

    Returns
    -------
    list of (str, object)
        Name and value of each field; fields of structures within as "structure.field".
    """
    found: list[tuple[str, Any]] = []
    blank = SimpleNamespace()
    for field in vmsd.fields:
        if not _present(field, blank, version_id):
            continue
        number = getattr(blank, field.num) if isinstance(field.num, str) else field.num
        values = []
        for index in range(1 if number is None else number):
            name = f"{at}{field.name}" + (f"[{index}]" if number is not None else "")
            if field.vmsd is not None:
                found += parse(f, field.vmsd, field.vmsd.version_id, f"{name}." if name else at)
            else:
                assert field.info is not None and field.info.get is not None
                values.append(field.info.get(f, None, field.size)[1])
        if field.vmsd is None:
            value = values[0] if number is None else values
            found.append((f"{at}{field.name}", value))
            setattr(blank, field.name, value)
    return found
