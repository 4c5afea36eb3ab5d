"""Options to open character devices: a part of qemu-char.c.

- `qemu_chr_parse_compat(label, filename)`: "file:out.txt" to an option group.
- `qemu_chr_open_opts(opts, init)`, `qemu_chr_open(label, filename, init)`: to an open device.
- `qemu_chr_find(name)`.

Back ends: null, stdio, file, pipe, pty, socket (tcp, telnet, unix), udp, tty, and vc, a text console that
nobody sees. Serial mice and parallel ports are known by name and not modelled.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from typing import Any

from hypervisor.cutils import strstart
from hypervisor.errors import HypervisorError
from hypervisor.program import linked, on_reset
from hypervisor.qemu_char import CharDriverState, qemu_chr_open_null, text_console_init
from hypervisor.qemu_char_fd import qemu_chr_open_file_out, qemu_chr_open_pipe, qemu_chr_open_stdio
from hypervisor.qemu_char_mux import qemu_chr_open_mux
from hypervisor.qemu_config import qemu_chardev_opts
from hypervisor.qemu_option import (
    QemuOpts,
    qemu_opt_get,
    qemu_opt_get_bool,
    qemu_opt_set,
    qemu_opts_create,
    qemu_opts_del,
    qemu_opts_do_parse,
    qemu_opts_id,
)
from hypervisor.vl_state import state
from tracer import traced

C_FILE = "qemu-char.c"

_chardevs: list[CharDriverState] = []


@on_reset
def _reset() -> None:
    _chardevs.clear()


_ADDRESS = re.compile(r"([^:]{1,64})?:([^,@]{1,32})")
"""HOST:PORT; an empty host is left to the socket."""


def _set(opts: QemuOpts, **values: str) -> QemuOpts:
    for name, value in values.items():
        qemu_opt_set(opts, name, value)
    return opts


@traced
def qemu_chr_parse_compat(label: str, filename: str) -> QemuOpts | None:
    """Read the old spelling of a device, "file:out.txt" or "mon:stdio"; None if it is none."""
    opts = qemu_opts_create(qemu_chardev_opts, label, 1)
    if opts is None:
        return None
    ret, rest = strstart(filename, "mon:")
    if ret and rest is not None:
        filename = rest
        qemu_opt_set(opts, "mux", "on")
    if filename in ("null", "pty", "msmouse", "braille", "stdio"):
        return _set(opts, backend=filename)
    ret, rest = strstart(filename, "vc")
    if ret and rest is not None:
        return _parse_vc(opts, rest)
    if filename == "con:":
        return _set(opts, backend="console")
    if strstart(filename, "COM")[0]:
        return _set(opts, backend="serial", path=filename)
    for prefix in ("file", "pipe"):
        ret, rest = strstart(filename, f"{prefix}:")
        if ret and rest is not None:
            return _set(opts, backend=prefix, path=rest)
    for prefix in ("tcp", "telnet"):
        ret, rest = strstart(filename, f"{prefix}:")
        if ret and rest is not None:
            return _parse_inet(opts, "socket", rest, prefix == "telnet")
    ret, rest = strstart(filename, "udp:")
    if ret and rest is not None:
        return _parse_udp(opts, rest)
    ret, rest = strstart(filename, "unix:")
    if ret and rest is not None:
        qemu_opt_set(opts, "backend", "socket")
        return opts if qemu_opts_do_parse(opts, rest, "path") == 0 else _refuse(opts)
    for prefix, backend in (("/dev/parport", "parport"), ("/dev/ppi", "parport"), ("/dev/", "tty")):
        if strstart(filename, prefix)[0]:
            return _set(opts, backend=backend, path=filename)
    return _refuse(opts)


def _refuse(opts: QemuOpts) -> QemuOpts | None:
    qemu_opts_del(opts)
    return None


def _parse_inet(opts: QemuOpts, backend: str, rest: str, telnet: bool) -> QemuOpts | None:
    address = _ADDRESS.match(rest)
    if address is None:
        return _refuse(opts)
    _set(opts, backend=backend, host=address[1] or "", port=address[2])
    more = rest[address.end() :]
    if backend == "socket" and more.startswith(",") and qemu_opts_do_parse(opts, more[1:], None) != 0:
        return _refuse(opts)
    return _set(opts, telnet="on") if telnet else opts


def _parse_udp(opts: QemuOpts, rest: str) -> QemuOpts | None:
    peer, at, local = rest.partition("@")
    parsed = _parse_inet(opts, "udp", peer, False)
    if parsed is None or not at:
        return parsed
    address = _ADDRESS.match(local)
    if address is None:
        return _refuse(opts)
    return _set(opts, localaddr=address[1] or "", localport=address[2])


def _parse_vc(opts: QemuOpts, rest: str) -> QemuOpts | None:
    qemu_opt_set(opts, "backend", "vc")
    if not rest.startswith(":"):
        return opts
    width, _, height = rest[1:].partition("x")
    unit = "Cc" if width.endswith("C") else ""
    if width.rstrip(unit).isdigit() and height.rstrip(unit).isdigit():
        names = ("cols", "rows") if unit else ("width", "height")
        return _set(opts, **dict(zip(names, (width.rstrip(unit), height.rstrip(unit)), strict=True)))
    return _refuse(opts)


def _of_module(backend: str) -> Callable[[QemuOpts], CharDriverState | None]:
    """Have a backend that most runs do without imported when it is opened."""

    def opened(opts: QemuOpts) -> CharDriverState | None:
        module = importlib.import_module(f"hypervisor.qemu_char_{backend}")
        chr: CharDriverState | None = getattr(module, f"qemu_chr_open_{backend}")(opts)
        return chr

    return opened


_OPEN: dict[str, Callable[[QemuOpts], CharDriverState | None]] = {
    "null": qemu_chr_open_null,
    "vc": text_console_init,
    "file": qemu_chr_open_file_out,
    "pipe": qemu_chr_open_pipe,
    "pty": _of_module("pty"),
    "socket": _of_module("socket"),
    "stdio": qemu_chr_open_stdio,
    "tty": _of_module("tty"),
    "udp": _of_module("udp"),
}
_BACKENDS = ("null", "socket", "udp", "msmouse", "vc", "file", "pipe", "pty", "stdio", "tty", "parport")
"""In the order of QEMU's table, which is searched with a look at the option for each entry."""


@traced
def qemu_chr_open_opts(
    opts: QemuOpts, init: Callable[[CharDriverState], None] | None
) -> CharDriverState | None:
    """Open a device; None after a message."""
    if qemu_opts_id(opts) is None:
        print("chardev: no id specified", file=sys.stderr)
        return None
    for backend in _BACKENDS:
        if backend == qemu_opt_get(opts, "backend"):
            break
    else:
        print(f'chardev: backend "{qemu_opt_get(opts, "backend")}" not found', file=sys.stderr)
        return None
    if backend not in _OPEN:
        instead = "stdio, file:PATH, pipe:PATH, pty, /dev/ttyS0, tcp::PORT, udp::PORT, unix:PATH or null"
        raise HypervisorError(f"the model has no character device '{backend}': use {instead}")
    try:
        chr = _OPEN[backend](opts)
    except OSError as error:
        state.last_errno = error.errno or 0
        print(f"{error.filename or qemu_opts_id(opts)}: {error.strerror}", file=sys.stderr)
        chr = None
    if chr is None:
        print(f'chardev: opening backend "{qemu_opt_get(opts, "backend")}" failed', file=sys.stderr)
        return None
    if chr.filename is None:
        chr.filename = qemu_opt_get(opts, "backend")
    chr.init = init
    _chardevs.append(chr)
    if qemu_opt_get_bool(opts, "mux", 0):
        base = chr
        base.label = f"{qemu_opts_id(opts)}-base"
        chr = qemu_chr_open_mux(base)
        chr.filename = base.filename
        _chardevs.append(chr)
    chr.label = qemu_opts_id(opts)
    return chr


@traced
def qemu_chr_open(
    label: str, filename: str, init: Callable[[CharDriverState], None] | None
) -> CharDriverState | None:
    """Open a device in its old spelling; a multiplexed one gets a monitor beside its front end."""
    ret, rest = strstart(filename, "chardev:")
    if ret and rest is not None:
        return qemu_chr_find(rest)
    opts = qemu_chr_parse_compat(label, filename)
    if opts is None:
        return None
    chr = qemu_chr_open_opts(opts, init)
    if chr is not None and qemu_opt_get_bool(opts, "mux", 0):
        from hypervisor.monitor import MONITOR_USE_READLINE, monitor_init

        monitor_init(chr, MONITOR_USE_READLINE)
    return chr


@traced
def qemu_chr_info(mon: Any) -> list[dict[str, Any]]:
    """All devices: keys label, filename."""
    return [{"label": chr.label, "filename": chr.filename} for chr in _chardevs]


@traced
def qemu_chr_qlist_iter(obj: dict[str, Any], opaque: Any) -> None:
    """Print one device of `qemu_chr_info` on the monitor `opaque`."""
    linked.monitor_printf(opaque, "%s: filename=%s\n", obj["label"], obj["filename"])


@traced
def qemu_chr_info_print(mon: Any, ret_data: list[dict[str, Any]]) -> None:
    """Print what `qemu_chr_info` returned: ``info chardev``."""
    for obj in ret_data:
        qemu_chr_qlist_iter(obj, mon)


@traced
def qemu_chr_find(name: str) -> CharDriverState | None:
    """Find a device by its label."""
    return next((chr for chr in _chardevs if chr.label == name), None)
