"""The disk exerciser: qemu-io.c, from `main` to `open` and `close`.

- `main(argv) -> int`: ``qemu-io [options] [-c command]... [file]``; `argv[0]` is its name.
- `openfile(name, flags, growable)`, `open_f`, `close_f`: the one image that is open.
- Requests are in `hypervisor.qemu_io_rw` and `hypervisor.qemu_io_aio`, questions about the
  image in `hypervisor.qemu_io_query`; the interpreter is `hypervisor.cmd`.

Options are 0.12.4's, and those of 7.2 that ask for something that 0.12.4 can do. The exit
status is 7.2's: 1 when a command failed or the image did not open, which 0.12.4 forgets.
"""

import os
import sys

from hypervisor import quirks
from hypervisor.aio import qemu_aio_flush
from hypervisor.block import bdrv_close, bdrv_find_format, bdrv_init, bdrv_new, bdrv_open, bdrv_open2
from hypervisor.block_int import (
    BDRV_O_CREAT,
    BDRV_O_FILE,
    BDRV_O_NATIVE_AIO,
    BDRV_O_NOCACHE,
    BDRV_O_RDONLY,
    BDRV_O_RDWR,
    BDRV_O_SNAPSHOT,
    BlockDriverState,
)
from hypervisor.cmd import (
    CMD_FLAG_GLOBAL,
    add_args_command,
    add_check_command,
    add_command,
    add_user_command,
    cmdinfo_t,
    command_loop,
    command_usage,
    fail,
    failed,
    help_init,
    quit_init,
    set_progname,
)
from hypervisor.getopt import Getopt
from hypervisor.qemu_io_aio import aio_flush_cmd, aio_read_cmd, aio_write_cmd
from hypervisor.qemu_io_common import state
from hypervisor.qemu_io_query import (
    alloc_cmd,
    flush_cmd,
    info_cmd,
    length_cmd,
    map_cmd,
    truncate_cmd,
)
from hypervisor.qemu_io_rw import read_cmd, readv_cmd, write_cmd, writev_cmd
from hypervisor.tool_open import cache_flags, complaints, explain, warn_if_guessed, why_not_open
from hypervisor.wording import modern, not_modelled
from tracer import traced

C_FILE = "qemu-io.c"

VERSION = "0.0.1"
CMD_NOFILE_OK = 0x01
_SHORT = "hVc:CrsnmgkF:f:i:t:d:T:U"
_LONG = {
    "help": "h",
    "version": "V",
    "cmd=": "c",
    "create": "create",
    "read-only": "r",
    "snapshot": "s",
    "nocache": "n",
    "misalign": "m",
    "growable": "g",
    "native-aio": "k",
    "format=": "f",
    "aio=": "i",
    "cache=": "t",
    "discard=": "d",
    "trace=": "T",
    "force-share": "U",
    "copy-on-read": "copy-on-read",
    "object=": "object",
    "image-opts": "image-opts",
}
_FLAGS = {
    "s": BDRV_O_SNAPSHOT,
    "n": BDRV_O_NOCACHE,
    "C": BDRV_O_CREAT,
    "create": BDRV_O_CREAT,
    "k": BDRV_O_NATIVE_AIO,
}


class _Wish:
    """How to open an image, as options build it up."""

    def __init__(self) -> None:
        self.flags = 0
        self.readonly = self.growable = False
        self.format: str | None = None

    def take(self, option: str, argument: str | None) -> bool:
        """Take one option that `main` and `open` have in common; False if it is none."""
        if option == "C" and modern():
            option = "copy-on-read"
        if option in _FLAGS:
            self.flags |= _FLAGS[option]
        elif option == "r":
            self.readonly = True
        elif option == "g":
            self.growable = True
        elif option in ("f", "F"):
            self.format = argument
        elif option == "t":
            self._cache(argument or "")
        elif option == "i":
            self._aio(argument or "")
        elif option == "d":
            if argument not in ("ignore", "off", "unmap", "on"):
                _refuse(f"Invalid discard option: {argument}")
        elif option in ("copy-on-read", "object", "image-opts"):
            not_modelled("qemu-io", f"--{option}")
        elif option == "T":
            not_modelled("qemu-io", "--trace", "studykvm io --trace FILE records a run")
        elif option != "U":
            return False
        return True

    def _cache(self, mode: str) -> None:
        flags = cache_flags(mode)
        if flags is None:
            _refuse(f"Invalid cache option: {mode}")
        else:
            self.flags |= flags

    def _aio(self, mode: str) -> None:
        if mode == "native":
            self.flags |= BDRV_O_NATIVE_AIO
        elif mode != "threads":
            _refuse(f"Invalid aio option: {mode}")

    def access(self) -> int:
        """Give the flags with the access mode in them."""
        return self.flags | (BDRV_O_RDONLY if self.readonly else BDRV_O_RDWR)


def _refuse(message: str) -> None:
    print(f"qemu-io: {message}", file=sys.stderr)
    raise SystemExit(1)


@traced
def close_f(argc: int, argv: list[str]) -> int:
    """`close`: close the image, after its requests under way, which C forgets to wait for."""
    if state.in_flight:
        qemu_aio_flush()
    bdrv_close(state.image)
    state.bs = None
    return 0


@traced
def openfile(name: str, flags: int, growable: int) -> int:
    """Open an image as device "hda"; 0, or 1 when that is already taken or open fails with -1.

    Every other error leaves a drive without a medium behind, which the commands then report.
    """
    if state.bs is not None:
        who = "qemu-io: " if modern() else ""
        print(f"{who}file open already, try 'help close'", file=sys.stderr)
        fail()
        return 1
    state.bs = bs = bdrv_new("hda")
    if growable:
        flags |= BDRV_O_FILE
    with complaints():
        ret = _open(bs, name, flags)
    if ret < 0:
        fail()
        explain(name)
    if ret == -1 or (ret < 0 and modern()):
        why = f": {why_not_open(name, ret, state.format)}" if modern() else ""
        print(f"qemu-io: can't open device {name}{why}", file=sys.stderr)
        state.bs = None
        return 1
    warn_if_guessed(bs, state.format)
    if growable:
        bs.growable = 1
    return 0


def _open(bs: BlockDriverState, name: str, flags: int) -> int:
    if state.readonly:
        if modern():
            bs.read_only = 1
        else:
            quirks.note("io-read-only", "qemu-io -r opens read-write all the same")  # quirk: -r is lost
    if state.format is None:
        return bdrv_open(bs, name, flags)
    drv = bdrv_find_format(state.format)
    if drv is None:
        _refuse(f"can't open device {name}: Unknown driver '{state.format}'")
    return bdrv_open2(bs, name, flags, drv)


close_cmd = cmdinfo_t(name="close", altname="c", cfunc=close_f, oneline="close the current open file")


@traced
def open_help() -> None:
    """Print the long help of `open`."""
    print(
        """
 opens a new file in the requested mode

 Example:
 'open -Cn /tmp/data' - creates/opens data file read-write and uncached

 Opens a file for subsequent use by all of the other qemu-io commands.
 -C, -- create new file if it doesn't exist
 -r, -- open file read-only
 -s, -- use snapshot file
 -n, -- disable host cache
 -g, -- allow file to grow (only applies to protocols)"""
    )


@traced
def open_f(argc: int, argv: list[str]) -> int:
    """`open`: open an image with options of its own."""
    wish = _Wish()
    words = Getopt(argv, "snCrgkUo:i:t:d:")
    for option, argument in words:
        if option == "o":
            _block_options(wish, argument or "", words.operands)
        elif not wish.take(option, argument):
            return command_usage(open_cmd)
    if len(words.operands) != 1:
        return command_usage(open_cmd)
    state.format, state.readonly = wish.format, wish.readonly
    ret = openfile(words.operands[0], wish.access(), int(wish.growable))
    return 0 if modern() else ret


def _block_options(wish: _Wish, text: str, operands: list[str]) -> None:
    """Take 7.2's ``open -o driver=...,file.filename=...``, as far as 0.12.4 can do it."""
    for pair in text.split(","):
        name, _, value = pair.partition("=")
        if name == "driver":
            wish.format = value
        elif name in ("file.filename", "filename"):
            operands.append(value)
        elif name == "read-only":
            wish.readonly = value == "on"
        else:
            not_modelled("qemu-io", f"open -o {pair}")


open_cmd = cmdinfo_t(
    name="open",
    altname="o",
    cfunc=open_f,
    argmin=1,
    argmax=-1,
    flags=CMD_NOFILE_OK,
    args="[-Crsn] [path]",
    oneline="open the file specified by path",
    help=open_help,
)


@traced
def init_args_command(index: int) -> int:
    """Tell the interpreter that there is one target, number 1."""
    return 0 if index >= 1 else index + 1


@traced
def init_check_command(ct: cmdinfo_t) -> int:
    """Allow a command if it needs no image, or one is open."""
    if ct.flags & CMD_FLAG_GLOBAL:
        return 1
    if not ct.flags & CMD_NOFILE_OK and state.bs is None:
        print("no file open, try 'help open'", file=sys.stderr)
        return 0
    return 1


@traced
def usage(name: str) -> None:
    """Print what the options are."""
    print(f"""Usage: {name} [-h] [-V] [-Crsnm] [-c cmd] ... [file]
QEMU Disk exerciser

  -C, --create         create new file if it doesn't exist
  -c, --cmd            command to execute
  -r, --read-only      export read-only
  -s, --snapshot       use snapshot file
  -n, --nocache        disable host cache
  -g, --growable       allow file to grow (only applies to protocols)
  -m, --misalign       misalign allocations for O_DIRECT
  -k, --native-aio     use kernel AIO implementation (on Linux only)
  -h, --help           display this help and exit
  -V, --version        output version information and exit

Also taken, as 7.2 spells it: -f FMT, -t MODE (--cache), -i MODE (--aio), -d MODE, -U.
""")


_COMMANDS = (
    open_cmd,
    close_cmd,
    read_cmd,
    readv_cmd,
    write_cmd,
    writev_cmd,
    aio_read_cmd,
    aio_write_cmd,
    aio_flush_cmd,
    flush_cmd,
    truncate_cmd,
    length_cmd,
    info_cmd,
    alloc_cmd,
)


@traced
def main(argv: list[str]) -> int:
    """Take the options, open the image, run the commands.

    Returns
    -------
    int
        The exit status: 1 if anything failed.
    """
    progname = os.path.basename(argv[0])
    set_progname(progname)
    wish = _Wish()
    words = Getopt(argv, _SHORT, _LONG)
    for option, argument in words:
        if option == "c":
            add_user_command(argument or "")
        elif option == "m":
            state.misalign = True
        elif option == "V":
            print(f"{progname} version {VERSION}")
            return 0
        elif option == "h" or not wish.take(option, argument):
            usage(progname)
            return int(option != "h")
    if len(words.operands) > 1:
        usage(progname)
        return 1
    state.format, state.readonly = wish.format, wish.readonly

    bdrv_init()
    quit_init()
    help_init()
    for ci in _COMMANDS:
        add_command(ci)
    if modern():
        add_command(map_cmd)
    add_args_command(init_args_command)
    add_check_command(init_check_command)

    if words.operands and openfile(words.operands[0], wish.access(), int(wish.growable)) and modern():
        return 1
    command_loop()
    qemu_aio_flush()
    if state.bs is not None:
        bdrv_close(state.bs)
    return int(failed())
