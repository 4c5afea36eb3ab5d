"""`create` as QEMU 7.2 words it; nothing here is traced but the functions it calls.

- `create(found, operands) -> int`: make an image from a command's options.
- `old_options(drv, text)`: take out of ``-o`` what 0.12.4's drivers need not be told.

7.2 wants a backing file's format to be named, opens the backing file even if the size is
given, checks before it prints "Formatting", and prints option values without quotes.
"""

import errno
import os
import re
import sys

from hypervisor.block import (
    bdrv_create,
    bdrv_delete,
    bdrv_find_format,
    bdrv_getlength,
    bdrv_new,
    bdrv_open2,
    path_combine,
)
from hypervisor.block_int import BDRV_O_CACHE_WB, BlockDriver
from hypervisor.qemu_img_common import error, must_be_modelled, usage_error
from hypervisor.qemu_option_parameter import (
    OPT_SIZE,
    OPT_STRING,
    OptionList,
    get_opt_name,
    get_opt_value,
    get_option_parameter,
    parse_option_parameters,
    print_option_help,
    set_option_parameter,
    set_option_parameter_int,
)
from hypervisor.tool_open import complaints, why_not_open
from hypervisor.wording import cause, not_modelled

_SIZE = re.compile(r"(\d+)(\.\d+)?([bkKMGTPE]?)B?\Z")
NO_SIZE = """\
Parameter 'size' expects a non-negative number below 2^64
Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-
and exabytes, respectively."""
_PLAIN = {
    "compat": ("0.10", "v2"),
    "refcount_bits": ("16",),
    "lazy_refcounts": ("off",),
    "extended_l2": ("off",),
    "compression_type": ("zlib",),
    "nocow": ("off",),
    "encryption": ("off",),
    "preallocation": ("off",),
}
"""Options of 7.2 with the values that mean what 0.12.4 does anyway."""


def split_options(text: str) -> list[tuple[str, str]]:
    """Split ``name=value,name=value``, a doubled comma standing for one in a value."""
    pairs = []
    while text:
        text, name = get_opt_name(256, text, "=")
        text, value = get_opt_value(4096, text[1:])
        pairs.append((name, value))
        text = text[1:]
    return pairs


def old_options(drv: BlockDriver, text: str) -> str:
    """Drop 7.2's options that ask for what 0.12.4 does anyway; refuse those that it cannot do."""
    kept = []
    for name, value in split_options(text):
        known = get_option_parameter(drv.create_options, name)
        if value in _PLAIN.get(name, ()):
            continue
        if known is None and name in _PLAIN:
            not_modelled("qemu-img", f"-o {name}={value}")
        if (
            known is None
            and name == "backing_fmt"
            and get_option_parameter(drv.create_options, "backing_file")
        ):
            continue
        kept.append(f"{name}={value.replace(',', ',,')}")
    return ",".join(kept)


def parse_size(text: str) -> int:
    """Read a size as 7.2's command line does.

    Raises
    ------
    ValueError
        It is none.
    OverflowError
        It does not fit into 63 bits.
    """
    match = _SIZE.match(text)
    if match is None:
        raise ValueError(text)
    shift = 10 * "bkmgtpe".find(match[3].lower() or "b")
    size = (int(match[1]) << shift) + int(float("0" + (match[2] or ".0")) * (1 << shift))
    if size >= 1 << 63:
        raise OverflowError(text)
    return size


def size_argument(text: str, what: str = "image size") -> int:
    """Read a size from the command line, or exit."""
    try:
        return parse_size(text)
    except ValueError:
        error(
            f"Invalid {what} specified. You may use k, M, G, T, P or E suffixes for\n"
            "qemu-img: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes."
        )
    except OverflowError:
        error(f"Invalid {what} specified. Must be between 0 and {(1 << 63) - 1}.")


def _set(param: OptionList, name: str, value: str | None, filename: str, what: str, fmt: str) -> None:
    if value is None:
        return
    if get_option_parameter(param, name) is None:
        error(f"{filename}: {what} not supported for file format '{fmt}'")
    set_option_parameter(param, name, value)


def _backing_size(filename: str, backing: str, fmt: str | None) -> int:
    """Open the backing file as the new image would, for its size, or exit."""
    full = path_combine(1024, filename, backing)
    drv = bdrv_find_format(fmt) if fmt else None
    if fmt and drv is None:
        error(f"{filename}: Unknown driver '{fmt}'\nCould not open backing image.")
    bs = bdrv_new("")
    bs.read_only = 1
    with complaints():
        ret = bdrv_open2(bs, full, BDRV_O_CACHE_WB, drv)
    if ret < 0:
        error(f"{filename}: {why_not_open(full, ret, fmt)}\nCould not open backing image.")
    name = bs.drv.format_name if bs.drv else "raw"
    size = bdrv_getlength(bs)
    bdrv_delete(bs)
    if not fmt:
        print(f"qemu-img: {filename}: Backing file specified without backing format", file=sys.stderr)
        print(f"Detected format of {name}.", end="", file=sys.stderr)
        raise SystemExit(1)
    return size


_ORDER = (
    *("encryption", "cluster_size", "extended_l2", "preallocation", "compression_type", "size"),
    *("backing_file", "backing_fmt", "compat", "lazy_refcounts", "refcount_bits"),
)
_FIXED: dict[str, int | str] = {
    "cluster_size": 65536,
    "extended_l2": "off",
    "compression_type": "zlib",
    "lazy_refcounts": "off",
    "refcount_bits": 16,
}
"""What 7.2 says of every qcow2 image; but for the cluster size it holds for all of version 2."""


def _formatting(filename: str, fmt: str, param: OptionList, given: dict[str, str]) -> None:
    """Announce the new image with its options in 7.2's order, those included that cannot be otherwise."""
    values: dict[str, int | str] = {name: value for name, value in given.items() if value}
    for option in param:
        if option.type == OPT_SIZE and (option.n or option.name == "size"):
            values[option.name] = option.n
        elif option.type == OPT_STRING and option.s:
            values[option.name] = option.s
    if fmt == "qcow2":
        values = _FIXED | values
    words = [f"{name}={values[name]}" for name in _ORDER if name in values]
    print(f"Formatting '{filename}', fmt={fmt} {' '.join(words)}", flush=True)


def create(found: dict[str, str], operands: list[str]) -> int:
    """Make an image.

    Parameters
    ----------
    found : dict of str to str
        Options by letter.
    operands : list of str
        The file name, and perhaps a size.
    """
    fmt, text = found.get("f", "raw"), found.get("o", "")
    drv = bdrv_find_format(fmt)
    wants_help = any(name in ("help", "?") for name, _ in split_options(text))
    if drv is not None and wants_help:
        print_option_help(drv.create_options)
        return 0
    if not operands:
        usage_error("Expecting image file name")
    filename, *rest = operands
    if text and (text.startswith(",") or (len(text) - len(text.rstrip(","))) % 2):
        error(f"Invalid option list: {text}")
    size = size_argument(rest[0]) if rest else -1
    if len(rest) > 1:
        usage_error(f"Unexpected argument: {rest[1]}")
    if drv is None:
        error(f"{filename}: Unknown file format '{fmt}'")
    must_be_modelled(drv)
    if drv.bdrv_create is None:
        error(f"{filename}: Format driver '{fmt}' does not support image creation")
    given = dict(split_options(text))
    for name in given:
        if (
            name not in _PLAIN
            and name != "backing_fmt"
            and not get_option_parameter(drv.create_options, name)
        ):
            error(f"{filename}: Invalid parameter '{name}'")
    if "size" in given and size != -1:
        error(f"{filename}: The image size must be specified only once")
    if "size" in given:
        try:
            parse_size(given["size"])
        except (ValueError, OverflowError):
            error(f"{filename}: {NO_SIZE}")
    param = parse_option_parameters(old_options(drv, text), drv.create_options, None)
    if param is None:
        error(f"Invalid options for file format '{fmt}'.")
    if "size" not in given:
        set_option_parameter_int(param, "size", size)
    _set(param, "backing_file", found.get("b"), filename, "Backing file", fmt)
    backing_fmt = found.get("F", given.get("backing_fmt"))
    if get_option_parameter(param, "backing_file") is None or get_option_parameter(param, "backing_fmt"):
        _set(param, "backing_fmt", found.get("F"), filename, "Backing file format", fmt)
    backing = get_option_parameter(param, "backing_file")
    option = get_option_parameter(param, "size")
    assert option is not None
    if backing is not None and backing.s is not None:
        if backing.s == filename:
            error(f"{filename}: Error: Trying to create an image with the same filename as the backing file")
        if not backing.s:
            error(f"{filename}: Expected backing file name, got empty string")
        if "u" not in found:
            full_size = _backing_size(filename, backing.s, backing_fmt)
            if option.n == -1:
                option.n = full_size
        elif not backing_fmt:
            error(f"{filename}: Backing file specified without backing format")
    if option.n == -1:
        error(f"{filename}: Image creation needs a size parameter")
    if "q" not in found:
        _formatting(filename, fmt, param, given | {"backing_fmt": backing_fmt or ""})
    cluster = get_option_parameter(param, "cluster_size")
    if cluster is not None and cluster.n and (cluster.n & (cluster.n - 1) or not 512 <= cluster.n <= 2 << 20):
        error(f"{filename}: Cluster size must be a power of two between 512 and 2048k")
    option.n = -(-option.n // 512) * 512
    with complaints():
        ret = bdrv_create(drv, filename, param)
    if ret == -errno.EFBIG:
        hint = " (try using a larger cluster size)" if fmt == "qcow2" else ""
        error(f"{filename}: The image size is too large for file format '{fmt}'{hint}")
    if ret < 0:
        reason = "is a directory" if os.path.isdir(filename) else cause(ret)
        error(f"{filename}: Could not create '{filename}': {reason}")
    return 0
