"""Copy images into one of another format: `convert` of qemu-img.c.

- `img_convert(argc, argv)`: the command.
- `is_not_zero`, `is_allocated_sectors`: what is worth writing.

Sources are laid end to end; `_Sources` keeps the place. Zero sectors are left out of a new
image, unless they could hide something of its backing file or the target is a device.
"""

import errno
import os
from collections.abc import Iterator

from hypervisor.block import (
    bdrv_create,
    bdrv_delete,
    bdrv_find_format,
    bdrv_get_geometry,
    bdrv_get_info,
    bdrv_is_allocated,
    bdrv_read,
    bdrv_write,
    bdrv_write_compressed,
)
from hypervisor.block.beneath import descriptor
from hypervisor.block_int import (
    BLOCK_OPT_BACKING_FILE,
    BLOCK_OPT_ENCRYPT,
    BLOCK_OPT_SIZE,
    BlockDriver,
    BlockDriverInfo,
    BlockDriverState,
)
from hypervisor.complaints import say
from hypervisor.qemu_img import add_old_style_options, old_style_flags
from hypervisor.qemu_img_common import (
    bdrv_new_open,
    because,
    cache_mode,
    error,
    help,
    must_be_modelled,
    open_image,
    options,
)
from hypervisor.qemu_option_parameter import (
    OptionList,
    free_option_parameters,
    get_option_parameter,
    parse_option_parameters,
    print_option_help,
    set_option_parameter_int,
)
from hypervisor.tool_open import ragged, reaching, tail
from hypervisor.wording import cause, modern, not_modelled
from tracer import traced

C_FILE = "qemu-img.c"

IO_BUF_SIZE = 2 * 1024 * 1024


@traced
def is_not_zero(sector: memoryview, len: int) -> int:
    """1 if any of the first `len` bytes is not zero."""
    return int(bytes(sector[:len]) != bytes(len))


@traced
def is_allocated_sectors(buf: memoryview, n: int) -> tuple[int, int]:
    """Tell whether the first sector of `buf` is not zero, and how many of `n` are alike."""
    if n <= 0:
        return 0, 0
    v = is_not_zero(buf, 512)
    i = 1
    while i < n and v == is_not_zero(buf[i * 512 : i * 512 + 512], 512):
        i += 1
    return v, i


class _Sources:
    """The input images, laid end to end, and which of them the copy has reached."""

    def __init__(self, images: list[BlockDriverState], sizes: list[int]) -> None:
        self.images = images
        self.total_sectors = sum(sizes)
        self._index = self._offset = 0
        self._sectors = bdrv_get_geometry(images[0]) + ragged(images[0])

    def locate(self, sector_num: int) -> tuple[BlockDriverState, int, int]:
        """Find a sector: its image, its number there, and how many follow it there."""
        while sector_num - self._offset >= self._sectors:
            self._index += 1
            self._offset += self._sectors
            image = self.images[self._index]
            self._sectors = bdrv_get_geometry(image) + ragged(image)
        at = sector_num - self._offset
        return self.images[self._index], at, self._sectors - at


def _read(bs: BlockDriverState, at: int, buf: memoryview, n: int, sector_num: int) -> None:
    with reaching(bs, (at + n) * 512):
        ret = bdrv_read(bs, at, buf, n)
    if ret < 0:
        if modern():
            error(f"error while reading at byte {sector_num * 512}: {cause(ret)}")
        because(f"{bs.filename}: a read at byte {at * 512}", ret)
        error("error while reading")


def _hole(sources: _Sources, sector_num: int) -> int:
    """Count the sectors from here on that are known to be zeros; 0.12.4 reads them all."""
    if not modern():
        return 0
    from hypervisor.qemu_img_compare import chain_extent

    bs, at, left = sources.locate(sector_num)
    extent = chain_extent(bs, at * 512, left * 512)
    return extent.length // 512 if extent.zero else 0


def _allocated(sources: _Sources, sector_num: int, n: int) -> bool:
    """Tell whether any of `n` sectors is in the source itself."""
    while n > 0:
        bs, at, left = sources.locate(sector_num)
        allocated, run = bdrv_is_allocated(bs, at, min(n, left))
        if allocated or run <= 0:
            return True
        sector_num, n = sector_num + run, n - run
    return False


def _copy_compressed(sources: _Sources, out_bs: BlockDriverState, over: bool, sparse: bool) -> None:
    """Copy cluster by cluster; zeros are written if they are `over` something, or not `sparse`."""
    bdi = BlockDriverInfo()
    if bdrv_get_info(out_bs, bdi) < 0:
        error("could not get block driver info")
    cluster_size = bdi.cluster_size
    if not 0 < cluster_size <= IO_BUF_SIZE:
        error("invalid cluster size")
    cluster_sectors = cluster_size >> 9
    sector_num = 0
    while sector_num < sources.total_sectors:
        n = min(cluster_sectors, sources.total_sectors - sector_num)
        skip = 0
        if over and not _allocated(sources, sector_num, n):
            skip = n
        elif sparse and not over:
            skip = _hole(sources, sector_num) // cluster_sectors * cluster_sectors
        if skip:
            sector_num += skip
            continue
        buf, done = memoryview(bytearray(cluster_size)), 0
        while done < n:
            bs, at, left = sources.locate(sector_num + done)
            nlow = min(n - done, left)
            _read(bs, at, buf[done * 512 : (done + nlow) * 512], nlow, sector_num)
            done += nlow
        if is_not_zero(buf, cluster_size) or over or not sparse:
            if n < cluster_sectors:
                # unlike C: a compressed cluster cannot reach beyond the end of the disk
                ret = bdrv_write(out_bs, sector_num, buf[: n * 512], n)
            else:
                ret = bdrv_write_compressed(out_bs, sector_num, buf, cluster_sectors)
            if ret != 0:
                if modern():
                    error(f"error while writing at byte {sector_num * 512}: {cause(ret)}")
                because(f"{out_bs.filename}: a write at byte {sector_num * 512}", ret)
                error(f"error while compressing sector {sector_num}")
        sector_num += cluster_sectors
    ret = bdrv_write_compressed(out_bs, 0, None, 0)
    if ret < 0 and ret not in (-errno.ENOTSUP, -errno.EINVAL):  # a device has no end to move; qcow needs none
        error(f"error while ending the compressed image: {os.strerror(-ret)}")


def _copy(sources: _Sources, out_bs: BlockDriverState, over: BlockDriverState | bool, all_zero: bool) -> None:
    """Copy sector by sector of interest.

    Parameters
    ----------
    sources, out_bs
        From and to.
    over : BlockDriverState or bool
        Whether the target stands on a backing file, so that unallocated sectors of the source
        are taken to be in there already.
    all_zero : bool
        Whether what is not written reads as zeros in the target.
    """
    buf = memoryview(bytearray(IO_BUF_SIZE))
    sector_num = 0
    while sector_num < sources.total_sectors:
        n = min(sources.total_sectors - sector_num, IO_BUF_SIZE // 512)
        bs, at, left = sources.locate(sector_num)
        n = min(n, left)
        hole = _hole(sources, sector_num) if all_zero and not over else 0
        if hole:
            sector_num += hole
            continue
        if all_zero and over:
            allocated, n1 = bdrv_is_allocated(bs, at, n)
            n = n1
            if not allocated:
                sector_num += n1
                continue
        _read(bs, at, buf, n, sector_num)
        for start, n1 in _worth_writing(buf, n, all_zero and not over):
            ret = bdrv_write(out_bs, sector_num + start, buf[start * 512 : (start + n1) * 512], n1)
            if ret < 0:
                if modern():
                    error(f"error while writing at byte {(sector_num + start) * 512}: {cause(ret)}")
                because(f"{out_bs.filename}: a write at byte {(sector_num + start) * 512}", ret)
                error("error while writing")
        sector_num += n


def _worth_writing(buf: memoryview, n: int, sparse: bool) -> Iterator[tuple[int, int]]:
    """Give the runs of `n` sectors to write, as start and count; all of them unless `sparse`."""
    if not sparse:
        yield 0, n
        return
    start = 0
    while start < n:
        allocated, n1 = is_allocated_sectors(buf[start * 512 :], n - start)
        if allocated:
            yield start, n1
        start += n1


def _parameters(found: dict[str, str], drv: BlockDriver, out_fmt: str, size: int) -> OptionList | None:
    text = found.get("o", "")
    if modern():
        from hypervisor.qemu_img_create import old_options

        text = old_options(drv, text)
    param = parse_option_parameters(text, drv.create_options, None)
    if param is None and "o" in found:
        error(f"Invalid options for file format '{out_fmt}'.")
    set_option_parameter_int(param, BLOCK_OPT_SIZE, size)
    names = [option.name for option in param or ()]
    base_fmt = found.get("F") if "backing_fmt" in names else None
    add_old_style_options(out_fmt, param, old_style_flags(found), found.get("B"), base_fmt)
    return param


def _create(found: dict[str, str], drv: BlockDriver, param: OptionList | None, filename: str) -> None:
    out_fmt = found.get("O", "raw")
    if "c" in found:
        encryption = get_option_parameter(param, BLOCK_OPT_ENCRYPT)
        if drv.bdrv_write_compressed is None:
            error("Compression not supported for this file format")
        if encryption and encryption.n:
            error("Compression and encryption not supported at the same time")
    if "n" in found:
        return
    ret = bdrv_create(drv, filename, param)
    free_option_parameters(param)
    if ret == -errno.ENOTSUP:
        error(f"Formatting not supported for file format '{out_fmt}'")
    if ret == -errno.EFBIG:
        error(f"The image size is too large for file format '{out_fmt}'")
    if ret < 0:
        if modern():
            error(
                f"{filename}: error while converting {out_fmt}: Could not create '{filename}': {cause(ret)}"
            )
        because(filename, ret)
        error(f"Error while formatting '{filename}'")


def _keep_tails(images: list[BlockDriverState], out_bs: BlockDriverState) -> None:
    """Do with what 0.12.4 leaves out of raw files that end within a sector: a raw file can still take it."""
    for bs in images:
        rest = b"" if ragged(bs) else tail(bs)
        if not rest:
            continue
        if bs is images[-1] and out_bs.drv is not None and out_bs.drv.format_name == "raw":
            # the file may end earlier, in a hole
            os.pwrite(descriptor(out_bs), rest, out_bs.total_sectors * 512)
        else:
            what = f"its last {len(rest)} bytes, less than a sector, are left out, as by 0.12.4"
            say(f"studykvm: {bs.filename}: {what}; give it whole sectors, or say --modern")


@traced
def img_convert(argc: int, argv: list[str]) -> int:
    """`convert`: copy one or several images into a new one."""
    found, operands = options(
        argv,
        "f:O:B:hce6o:CF:l:S:pt:T:qnm:WUr:",
        *("format=", "object=", "image-opts", "target-image-opts", "bitmaps", "skip-broken-bitmaps"),
        *("salvage", "force-share", "target-is-zero"),
    )
    for letter in "lC":
        if letter in found:
            not_modelled("qemu-img", f"convert -{letter}")
    if len(operands) < 2:
        if modern():
            error("Must specify image file name")
        help()
    *inputs, out_filename = operands
    out_fmt, out_baseimg = found.get("O", "raw"), found.get("B")
    if len(inputs) > 1 and out_baseimg:
        what = "Having a backing file for the target" if modern() else "-B"
        error(f"{what} makes no sense when concatenating multiple input images")
    cache_mode(found.get("t"))
    cache_mode(found.get("T"), what="source cache")

    images, sizes = [], []
    for name in inputs:
        fmt = found.get("f")
        images.append(open_image(name, fmt, read_only=True) if modern() else bdrv_new_open(name, fmt))
        sizes.append(bdrv_get_geometry(images[-1]) + ragged(images[-1]))
    drv = bdrv_find_format(out_fmt)
    if drv is None:
        error(f"Unknown file format '{out_fmt}'")
    if found.get("o") in ("?", "help"):
        print_option_help(drv.create_options)
        return 0
    must_be_modelled(drv)
    param = _parameters(found, drv, out_fmt, sum(sizes) * 512)
    over = any(option.name == BLOCK_OPT_BACKING_FILE and option.s for option in param or ())
    _create(found, drv, param, out_filename)
    out_bs = bdrv_new_open(out_filename, out_fmt)
    if "n" in found and bdrv_get_geometry(out_bs) < sum(sizes):
        error("output file is smaller than input file")
    sources = _Sources(images, sizes)
    fresh = "n" not in found or "target-is-zero" in found
    sparse = fresh and found.get("S") != "0"
    if "c" in found:
        _copy_compressed(sources, out_bs, over, sparse)
    else:
        _copy(sources, out_bs, over, sparse and not drv.no_zero_init)
    _keep_tails(images, out_bs)
    bdrv_delete(out_bs)
    for bs in images:
        bdrv_delete(bs)
    return 0
