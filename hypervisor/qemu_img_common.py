"""What the commands of qemu-img share: errors, help, options, opening (qemu-img.c).

- `because(what, code)`: the errno, on a line before 0.12.4's words.
- `error(message)`: say ``qemu-img: message`` and exit with 1.
- `help()`: print the whole usage and exit.
- `options(argv, short, long)`: a command's options and operands; a wrong one exits.
- `open_image(filename, fmt)`, `bdrv_new_open(filename, fmt)`: an open image, or exit.
- `cache_mode(mode)`: the flags of 7.2's ``-t`` and ``-T``.
"""

import errno
import sys
from typing import NoReturn

from hypervisor.block import (
    bdrv_find_format,
    bdrv_is_encrypted,
    bdrv_iterate_format,
    bdrv_new,
    bdrv_open2,
    find_image_format,
)
from hypervisor.block.not_modelled import never_open
from hypervisor.block_int import BDRV_O_CACHE_WB, BlockDriver, BlockDriverState
from hypervisor.complaints import say
from hypervisor.getopt import Getopt
from hypervisor.tool_open import cache_flags, complaints, explain, open_quietly, warn_if_guessed, why_not_open
from hypervisor.wording import cause, modern, not_modelled
from tracer import traced

C_FILE = "qemu-img.c"

BRDV_O_FLAGS = BDRV_O_CACHE_WB
QEMU_VERSION = "0.12.4"
_HINT = "\nTry 'qemu-img --help' for more information"
_REFUSED = ("object", "image-opts", "target-image-opts", "bitmaps", "skip-broken-bitmaps", "salvage")
_LONG = {"help": "h", "format=": "f", "force-share": "U", "repair=": "r", "start-offset=": "s"}
_LONG |= {"max-length=": "l"}

_HELP = f"""\
qemu-img version {QEMU_VERSION}, Copyright (c) 2004-2008 Fabrice Bellard
usage: qemu-img command [command options]
QEMU disk image utility

Command syntax:
  check [-f fmt] filename
  create [-f fmt] [-o options] filename [size]
  commit [-f fmt] filename
  convert [-c] [-f fmt] [-O output_fmt] [-o options] filename [filename2 [...]] output_filename
  info [-f fmt] filename
  snapshot [-l | -a snapshot | -c snapshot | -d snapshot] filename

Command parameters:
  'filename' is a disk image filename
  'fmt' is the disk image format. It is guessed automatically in most cases
  'size' is the disk image size in bytes. Optional suffixes
    'k' or 'K' (kilobyte, 1024), 'M' (megabyte, 1024k), 'G' (gigabyte, 1024M)
    and T (terabyte, 1024G) are supported. 'b' is ignored.
  'output_filename' is the destination disk image filename
  'output_fmt' is the destination format
  'options' is a comma separated list of format specific options in a
    name=value format. Use -o ? for an overview of the options supported by the
    used format
  '-c' indicates that target image must be compressed (qcow format only)
  '-h' with or without a command shows this help and lists the supported formats

Parameters to snapshot subcommand:
  'snapshot' is the name of the snapshot to create, apply or delete
  '-a' applies a snapshot (revert disk to saved state)
  '-c' creates a snapshot
  '-d' deletes a snapshot
  '-l' lists all snapshots in the given image
"""
_LATER = """
Also taken, as later versions spell it:
  compare [-f fmt] [-F fmt] [-s] [-q] filename1 filename2
  map [-f fmt] [--output=human|json] [-s start_offset] [-l max_length] filename
  rebase [-f fmt] [-u] [-b backing_file] [-F backing_fmt] filename
  resize [-f fmt] [--shrink] [-q] filename [+ | -]size
  info and check: --output=human|json; info: --backing-chain
"""


@traced
def error(message: str) -> NoReturn:
    """Report an error and exit with 1."""
    print(f"qemu-img: {message}", file=sys.stderr)
    raise SystemExit(1)


def must_be_modelled(drv: BlockDriver) -> None:
    """End if images of a format are not made because the model only recognises it."""
    if drv.bdrv_close is never_open:
        error(f"the {drv.format_name} format is recognised but not modelled; make a raw, qcow or qcow2 image")


@traced
def format_print(opaque: None, name: str) -> None:
    """Print one supported format; called for each."""
    print(f" {name}", end="")


@traced
def help() -> NoReturn:
    """Print the usage and exit with 1, as 0.12.4 does."""
    print(f"{_HELP}\nSupported formats:", end="")
    bdrv_iterate_format(format_print, None)
    print(f"\n{_LATER}", end="")
    raise SystemExit(1)


def because(what: str, code: int) -> None:
    """Say what the words of 0.12.4 that follow leave out."""
    if not modern():
        say(f"studykvm: {what}: {cause(code)}")


def options(argv: list[str], short: str, *long: str) -> tuple[dict[str, str], list[str]]:
    """Take a command's options.

    Parameters
    ----------
    argv : list of str
        The command's words, its name first.
    short : str
        Its option letters, as for `getopt`.
    long : str
        Its long options, with ``=`` if they take an argument; ``--help`` goes without saying.

    Returns
    -------
    dict of str to str
        The options that were given, with their arguments; several ``-o`` are joined.
    list of str
        The operands.
    """
    names = {name: _LONG.get(name, name.rstrip("=")) for name in ("help", *long)}
    words = Getopt(argv, ":" + short, names)
    found: dict[str, str] = {}
    for option, argument in words:
        if option == "?":
            error(f"unrecognized option '{argument}'{_HINT}")
        if option == ":":
            error(f"missing argument for option '{argument}'{_HINT}")
        if option == "h":
            help()
        if option in _REFUSED:
            not_modelled("qemu-img", f"--{option}")
        if option == "o" and "o" in found:
            argument = f"{found['o']},{argument}"
        found[option] = argument or ""
    return found, words.operands


def usage_error(message: str) -> NoReturn:
    """Refuse wrong operands: 0.12.4 prints its help, 7.2 says what is wrong."""
    if modern():
        error(message + _HINT)
    help()


def cache_mode(mode: str | None, what: str = "cache") -> int:
    """Give the open flags of a cache mode; None is the tool's default."""
    flags = BRDV_O_FLAGS if mode is None else cache_flags(mode)
    if flags is None:
        error(f"Invalid {what} option: {mode}")
    return flags


def output_format(found: dict[str, str]) -> bool:
    """Tell whether ``--output`` asks for JSON."""
    output = found.get("output", "human")
    if output not in ("human", "json"):
        error("--output must be used with human or json as argument.")
    return output == "json"


def find_format(fmt: str | None, filename: str | None = None) -> BlockDriver | None:
    """Find the driver that the user names; None if no name is given."""
    if fmt is None:
        return None
    drv = bdrv_find_format(fmt)
    if drv is None:
        if modern() and filename is not None:
            error(f"Could not open '{filename}': Unknown driver '{fmt}'")
        error(f"Unknown file format '{fmt}'")
    return drv


def open_image(
    filename: str, fmt: str | None, flags: int = BRDV_O_FLAGS, read_only: bool = False
) -> BlockDriverState:
    """Open an image on a BlockDriverState of its own, or exit.

    Parameters
    ----------
    fmt : str or None
        None: the format is guessed, with a warning in the modern wording where that is unsafe.
    flags : int
        BDRV_O_*.
    read_only : bool
        What C sets in the state beforehand, so that the file is opened to be read only.
    """
    bs = bdrv_new("")
    drv = find_format(fmt, filename)
    if read_only:
        bs.read_only = 1
    with complaints():
        ret = bdrv_open2(bs, filename, flags, drv)
    if ret < 0:
        why = f": {why_not_open(filename, ret, fmt)}" if modern() else ""
        explain(filename)
        error(f"Could not open '{filename}'{why}")
    warn_if_guessed(bs, fmt)
    return bs


def open_alone(filename: str, fmt: str | None, read_only: bool = False) -> BlockDriverState:
    """Open an image without its backing file, which need not be there, or exit."""
    drv = find_format(fmt, filename) or find_image_format(filename)
    with complaints():
        ret, bs = (-errno.ENOENT, None) if drv is None else open_quietly(filename, drv, read_only)
    if bs is None or ret < 0:
        error(f"Could not open '{filename}': {why_not_open(filename, ret, fmt)}")
    return bs


@traced
def bdrv_new_open(filename: str, fmt: str | None) -> BlockDriverState:
    """Open an image whose content will be read or written, or exit."""
    bs = open_image(filename, fmt)
    if bdrv_is_encrypted(bs):
        error(f"Disk image '{filename}' is encrypted, and encryption is not modelled")
    return bs
