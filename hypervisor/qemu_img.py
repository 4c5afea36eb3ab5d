"""The image tool: qemu-img.c, from `main` to the commands that are short.

- `main(argv) -> int`: ``qemu-img command [options]``; `argv[0]` is its name.
- `img_create`, `img_check`, `img_commit` are here; `hypervisor.qemu_img_convert` and
  `hypervisor.qemu_img_info` hold the other commands of 0.12.4, `hypervisor.qemu_img_rebase`
  and `hypervisor.qemu_img_compare` those that came later.

Options are 0.12.4's and 7.2's; what is said is 0.12.4's, or see `hypervisor.wording`.
"""

import errno
from collections.abc import Callable

from hypervisor.block import (
    bdrv_check,
    bdrv_commit,
    bdrv_create,
    bdrv_delete,
    bdrv_find_format,
    bdrv_get_geometry,
    bdrv_init,
)
from hypervisor.block_int import (
    BLOCK_FLAG_COMPAT6,
    BLOCK_FLAG_ENCRYPT,
    BLOCK_OPT_BACKING_FILE,
    BLOCK_OPT_BACKING_FMT,
    BLOCK_OPT_COMPAT6,
    BLOCK_OPT_ENCRYPT,
    BLOCK_OPT_SIZE,
)
from hypervisor.qemu_img_common import (
    bdrv_new_open,
    because,
    cache_mode,
    error,
    help,
    must_be_modelled,
    open_image,
    options,
    usage_error,
)
from hypervisor.qemu_option_parameter import (
    OptionList,
    free_option_parameters,
    get_option_parameter,
    parse_option_parameters,
    print_option_help,
    print_option_parameters,
    set_option_parameter,
    set_option_parameter_int,
)
from hypervisor.wording import modern, not_modelled
from tracer import traced

C_FILE = "qemu-img.c"

_NOT_MODELLED = ("amend", "bench", "bitmap", "dd", "measure")


@traced
def add_old_style_options(
    fmt: str, list: OptionList | None, flags: int, base_filename: str | None, base_fmt: str | None
) -> None:
    """Turn the options -e, -6, -b and -F into creation options of the format, or exit."""
    if flags & BLOCK_FLAG_ENCRYPT and set_option_parameter(list, BLOCK_OPT_ENCRYPT, "on"):
        error(f"Encryption not supported for file format '{fmt}'")
    if flags & BLOCK_FLAG_COMPAT6 and set_option_parameter(list, BLOCK_OPT_COMPAT6, "on"):
        error(f"VMDK version 6 not supported for file format '{fmt}'")
    if base_filename is not None and set_option_parameter(list, BLOCK_OPT_BACKING_FILE, base_filename):
        error(f"Backing file not supported for file format '{fmt}'")
    if base_fmt is not None and set_option_parameter(list, BLOCK_OPT_BACKING_FMT, base_fmt):
        error(f"Backing file format not supported for file format '{fmt}'")


def old_style_flags(found: dict[str, str]) -> int:
    """Give the BLOCK_FLAG_* bits of the options -e and -6."""
    return (BLOCK_FLAG_ENCRYPT if "e" in found else 0) | (BLOCK_FLAG_COMPAT6 if "6" in found else 0)


def _size_of_backing_file(param: OptionList | None) -> int:
    """Give the size of the image that the new one will stand on, or exit."""
    backing_file = get_option_parameter(param, BLOCK_OPT_BACKING_FILE)
    backing_fmt = get_option_parameter(param, BLOCK_OPT_BACKING_FMT)
    if backing_file is None or not backing_file.s:
        error("Image creation needs a size parameter")
    fmt = backing_fmt.s if backing_fmt else None
    if fmt and bdrv_find_format(fmt) is None:
        error(f"Unknown backing file format '{fmt}'")
    bs = bdrv_new_open(backing_file.s, fmt or None)
    size = bdrv_get_geometry(bs) * 512
    bdrv_delete(bs)
    return size


@traced
def img_create(argc: int, argv: list[str]) -> int:
    """`create`: make an image."""
    found, operands = options(argv, "F:b:f:he6o:qu", "object=")
    if modern():
        from hypervisor.qemu_img_create import create

        return create(found, operands)
    fmt = found.get("f", "raw")
    drv = bdrv_find_format(fmt)
    if drv is None:
        error(f"Unknown file format '{fmt}'")
    if found.get("o") in ("?", "help"):
        print_option_help(drv.create_options)
        return 0
    must_be_modelled(drv)
    param = parse_option_parameters("", drv.create_options, None)
    set_option_parameter_int(param, BLOCK_OPT_SIZE, -1)
    if "o" in found:
        param = parse_option_parameters(found["o"], drv.create_options, param)
        if param is None:
            error(f"Invalid options for file format '{fmt}'.")
    if not operands:
        help()
    filename = operands[0]
    if len(operands) > 1:
        set_option_parameter(param, BLOCK_OPT_SIZE, operands[1])
    add_old_style_options(fmt, param, old_style_flags(found), found.get("b"), found.get("F"))
    size = get_option_parameter(param, BLOCK_OPT_SIZE)
    if size is None:
        error(f"Formatting or formatting option not supported for file format '{fmt}'")
    if size.n == -1:
        set_option_parameter(param, BLOCK_OPT_SIZE, str(_size_of_backing_file(param)))
    if "q" not in found:
        print(f"Formatting '{filename}', fmt={fmt}", end=" ")
        print_option_parameters(param)
        print()
    ret = bdrv_create(drv, filename, param)
    free_option_parameters(param)
    if ret == -errno.ENOTSUP:
        error(f"Formatting or formatting option not supported for file format '{fmt}'")
    if ret == -errno.EFBIG:
        error(f"The image size is too large for file format '{fmt}'")
    if ret < 0:
        because(filename, ret)
        error("Error while formatting")
    return 0


@traced
def img_check(argc: int, argv: list[str]) -> int:
    """`check`: look for inconsistencies."""
    found, operands = options(
        argv, "f:hr:T:qU", "format=", "repair=", "output=", "object=", "image-opts", "force-share"
    )
    if "r" in found:
        not_modelled("qemu-img", "check -r")
    if modern() or "output" in found:
        from hypervisor.qemu_img_check import check

        return check(found, operands)
    if not operands:
        help()
    bs = open_image(operands[0], found.get("f"), cache_mode(found.get("T")))
    ret = bdrv_check(bs)
    if ret == -errno.ENOTSUP:
        error("This image format does not support checks")
    if ret < 0:
        error("An error occurred during the check")
    print(f"{ret} errors were found on the image." if ret else "No errors were found on the image.")
    result = bs.opaque._check
    bdrv_delete(bs)
    # as 7.2 ends; 0.12.4 ended with 0 whatever it found
    return 2 if result.corruptions else 3 if result.leaks else 0


_COMMIT_ERRORS = {
    -errno.ENOENT: "No disk inserted",
    -errno.EACCES: "Image is read-only",
    -errno.ENOTSUP: "Image is already committed",
}


@traced
def img_commit(argc: int, argv: list[str]) -> int:
    """`commit`: write what the image holds into its backing file."""
    found, operands = options(argv, "f:ht:b:dpqr:", "object=", "image-opts")
    if len(operands) != 1:
        usage_error("Expecting one image file name")
    for letter in "bd":
        if letter in found:
            not_modelled("qemu-img", f"commit -{letter}")
    bs = open_image(operands[0], found.get("f"), cache_mode(found.get("t")))
    if modern() and bs.backing_hd is None:
        error("Image does not have a backing file")
    ret = bdrv_commit(bs)
    if ret:
        if ret not in _COMMIT_ERRORS:
            because(operands[0], ret)
        error(_COMMIT_ERRORS.get(ret, "Error while committing image"))
    if "q" not in found:
        print("Image committed.")
    bdrv_delete(bs)
    return 0


def _handler(name: str) -> Callable[[int, list[str]], int] | None:
    """Find a command, loading its module only now."""
    if name in ("convert",):
        from hypervisor.qemu_img_convert import img_convert

        return img_convert
    if name in ("info", "snapshot"):
        from hypervisor import qemu_img_info

        return qemu_img_info.img_info if name == "info" else qemu_img_info.img_snapshot
    if name in ("rebase", "resize"):
        from hypervisor import qemu_img_rebase

        return qemu_img_rebase.img_rebase if name == "rebase" else qemu_img_rebase.img_resize
    if name in ("compare", "map"):
        from hypervisor import qemu_img_compare

        return qemu_img_compare.img_compare if name == "compare" else qemu_img_compare.img_map
    return {"create": img_create, "check": img_check, "commit": img_commit}.get(name)


@traced
def main(argv: list[str]) -> int:
    """Run the command that `argv[1]` names.

    Returns
    -------
    int
        The exit status. Most errors leave by SystemExit instead, as C's do by exit().
    """
    bdrv_init()
    if len(argv) < 2:
        usage_error("Not enough arguments")
    if argv[1] in ("--help", "-h"):
        help()
    if argv[1] in _NOT_MODELLED:
        not_modelled("qemu-img", argv[1])
    handler = _handler(argv[1])
    if handler is None:
        usage_error(f"Command not found: {argv[1]}")
    return handler(len(argv) - 1, argv[1:])
