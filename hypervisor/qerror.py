"""Errors that a program can read: qerror.c, and the error formats of qerror.h.

An error has a class and data; its text for humans is made from the data. A command reports it by
`qemu_error_new(QERR_DEVICE_NOT_FOUND, device="sd1")`: a human's monitor prints the text, QMP sends all of it.

- `QErrorFormat`, `QERR_*`: the classes of 0.12.4.
- `qerror_from_info(fmt, data) -> QError`, `qerror_human(qerror) -> str`, `qerror_print(qerror)`.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from hypervisor.program import linked
from tracer import Struct, traced

C_FILE = "qerror.c"


class QErrorFormat(NamedTuple):
    """`QErrorStringTable`: the class, and the text with `%(name)` where the data goes."""

    error_class: str
    desc: str


QERR_COMMAND_NOT_FOUND = QErrorFormat("CommandNotFound", "The command %(name) has not been found")
QERR_DEVICE_ENCRYPTED = QErrorFormat("DeviceEncrypted", "The %(device) is encrypted")
QERR_DEVICE_LOCKED = QErrorFormat("DeviceLocked", "Device %(device) is locked")
QERR_DEVICE_NOT_ACTIVE = QErrorFormat(
    "DeviceNotActive", "The %(device) device has not been activated by the guest"
)
QERR_DEVICE_NOT_FOUND = QErrorFormat("DeviceNotFound", "The %(device) device has not been found")
QERR_DEVICE_NOT_REMOVABLE = QErrorFormat("DeviceNotRemovable", "Device %(device) is not removable")
QERR_FD_NOT_FOUND = QErrorFormat("FdNotFound", "Failed to find file descriptor named %(name)")
QERR_FD_NOT_SUPPLIED = QErrorFormat("FdNotSupplied", "No file descriptor supplied via SCM_RIGHTS")
QERR_INVALID_BLOCK_FORMAT = QErrorFormat("InvalidBlockFormat", "Invalid block format %(name)")
QERR_INVALID_PARAMETER = QErrorFormat("InvalidParameter", "Invalid parameter %(name)")
QERR_INVALID_PARAMETER_TYPE = QErrorFormat(
    "InvalidParameterType", "Invalid parameter type, expected: %(expected)"
)
QERR_INVALID_PASSWORD = QErrorFormat("InvalidPassword", "The entered password is invalid")
QERR_JSON_PARSING = QErrorFormat("JSONParsing", "Invalid JSON syntax")
QERR_MISSING_PARAMETER = QErrorFormat("MissingParameter", "Parameter %(name) is missing")
QERR_QMP_BAD_INPUT_OBJECT = QErrorFormat("QMPBadInputObject", "Bad QMP input object")
QERR_UNDEFINED_ERROR = QErrorFormat("UndefinedError", "An undefined error has ocurred")


class QError(Struct):
    """`QError`: the class and data to send, and where the text comes from."""

    error: dict[str, Any] | None = None
    entry: QErrorFormat | None = None


@traced
def qerror_from_info(fmt: QErrorFormat, data: dict[str, Any]) -> QError:
    """Make an error."""
    return QError(error={"class": fmt.error_class, "data": data}, entry=fmt)


@traced
def qerror_human(qerror: QError) -> str:
    """The text for humans.

    Examples
    --------
    >>> qerror_human(qerror_from_info(QERR_DEVICE_LOCKED, {"device": "ide1-cd0"}))
    'Device ide1-cd0 is locked'
    """
    assert qerror.entry is not None and qerror.error is not None
    data = qerror.error["data"]
    return re.sub(r"%\((\w+)\)", lambda field: str(data[field[1]]), qerror.entry.desc)


@traced
def qerror_print(qerror: QError) -> None:
    """Report the text as any other error."""
    linked.qemu_error("%s\n", qerror_human(qerror))
