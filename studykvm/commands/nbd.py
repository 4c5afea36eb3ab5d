"""`studykvm nbd`: serve an image over the Network Block Device protocol, every sector traced.

A real QEMU, `nbdcopy` or the kernel's own client may use the image while the block layer of 0.12.4 does
the work. `main(argv) -> int`.
"""

import argparse
import os
import signal
import socket
from typing import TYPE_CHECKING

from studykvm.errors import StudyError

if TYPE_CHECKING:
    from hypervisor.block_int import BlockDriverState

_EXAMPLES = """\
examples:
  studykvm nbd --trace disk.trace overlay.qcow2       then: qemu-system-x86_64 -drive file=nbd://127.0.0.1
  studykvm nbd -t --socket /tmp/disk.sock disk.img    then: nbdinfo 'nbd+unix:///?socket=/tmp/disk.sock'
"""


def main(argv: list[str]) -> int:
    """Serve an image until its last client has left, or Ctrl-C.

    Returns
    -------
    int
        0; errors leave as StudyError and HypervisorError.
    """
    wish = _options(argv)
    from hypervisor.block import bdrv_delete, bdrv_init
    from hypervisor.nbd_export import Export
    from hypervisor.nbd_server import Server, listen_tcp, listen_unix
    from hypervisor.program import program

    with program("qemu-io"):
        bdrv_init()
        bs = _open(wish.file, wish.format, wish.read_only)
        listener = listen_unix(wish.socket) if wish.socket else listen_tcp(wish.bind, wish.port)
        server = Server(Export(bs), listener, wish.persistent)
        before = {number: signal.signal(number, lambda *_: server.stop()) for number in _ENDING}
        waker = signal.set_wakeup_fd(server.waker.fileno(), warn_on_full_buffer=False)
        try:
            print(f"serving {wish.file} at {_address(wish.socket, listener)}", flush=True)
            server.serve()
        finally:
            signal.set_wakeup_fd(waker)
            for number, handler in before.items():
                signal.signal(number, handler)
            if wish.socket and os.path.lexists(wish.socket):
                os.unlink(wish.socket)
            bdrv_delete(bs)
    return 0


_ENDING = (signal.SIGINT, signal.SIGTERM)


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="studykvm nbd",
        description="Serve an image to NBD clients through the traced block layer.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the image")
    parser.add_argument("-t", "--persistent", action="store_true", help="stay when the last client leaves")
    parser.add_argument("-r", "--read-only", action="store_true", help="refuse writes")
    parser.add_argument("-f", "--format", metavar="FMT", help="raw, qcow, qcow2 ...; else it is probed")
    parser.add_argument("-p", "--port", type=int, help="TCP port (10809); 0: the kernel chooses")
    parser.add_argument("-b", "--bind", metavar="ADDRESS", default="127.0.0.1", help="who can connect")
    parser.add_argument("-k", "--socket", metavar="PATH", help="a unix socket instead of a TCP port")
    parser.add_argument("--trace", metavar="FILE", help="record every call of the block layer")
    wish = parser.parse_args(argv)
    if wish.socket and wish.port is not None:
        raise StudyError("--socket and --port exclude each other: leave one out")
    if wish.port is None:
        from hypervisor.nbd_format import DEFAULT_PORT

        wish.port = DEFAULT_PORT
    return wish


def _open(filename: str, fmt: str | None, read_only: bool) -> "BlockDriverState":
    from hypervisor.block import bdrv_find_format, bdrv_new, bdrv_open2
    from hypervisor.block_int import BDRV_O_CACHE_WB, BDRV_O_RDWR
    from hypervisor.tool_open import why_not_open

    drv = None
    if fmt is not None:
        drv = bdrv_find_format(fmt)
        if drv is None:
            raise StudyError(f"there is no format {fmt!r}: raw, qcow and qcow2 are modelled")
    bs = bdrv_new("hda")
    bs.read_only = int(read_only)
    ret = bdrv_open2(bs, filename, BDRV_O_CACHE_WB | (0 if read_only else BDRV_O_RDWR), drv)
    if ret < 0:
        why = why_not_open(filename, ret, fmt)
        raise StudyError(why if filename in why else f"{filename}: {why}")
    if bs.encrypted:
        raise StudyError(f"{filename} is encrypted: convert it first")
    return bs


def _address(path: str | None, listener: socket.socket) -> str:
    if path:
        return f"nbd+unix:///?socket={path}"
    host, port = listener.getsockname()[:2]
    return f"nbd://{f'[{host}]' if ':' in host else host}:{port}"
