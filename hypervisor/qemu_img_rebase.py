"""Change an image's backing file or size: `rebase` and `resize`, both younger than 0.12.4.

- `img_rebase(argc, argv)`: put another backing file under an image, its content unchanged.
- `img_resize(argc, argv)`: make a raw image longer or shorter, a qcow2 image longer.
- `resize_image(bs, size)`: the same of an open image.

They are not traced, but all they do to the image goes through the block layer, which is.
The words are those of 7.2.
"""

import errno

from hypervisor.block import (
    bdrv_delete,
    bdrv_file_open,
    bdrv_find_format,
    bdrv_getlength,
    bdrv_is_allocated,
    bdrv_new,
    bdrv_open2,
    bdrv_pread,
    bdrv_pwrite,
    bdrv_read,
    bdrv_truncate,
    bdrv_write,
    path_combine,
)
from hypervisor.block.qcow2_format import (
    EXTENSION,
    HEADER_SIZE,
    QCOW_EXT_MAGIC_BACKING_FORMAT,
    QCOW_EXT_MAGIC_END,
    QCowHeader,
    QCowHeader3,
    pack_extensions,
)
from hypervisor.block_int import BlockDriverState
from hypervisor.qemu_img_common import cache_mode, error, open_alone, open_image, options, usage_error
from hypervisor.qemu_img_create import NO_SIZE, parse_size
from hypervisor.tool_open import why_not_open
from hypervisor.wording import cause

_CHUNK = 2 * 1024 * 1024 // 512
"""Sectors that are compared at a time."""


def _read_padded(bs: BlockDriverState | None, sector_num: int, nb_sectors: int, name: str) -> bytes:
    """Read sectors of a backing file, zeros where it is too short or missing."""
    have = 0 if bs is None else max(min(nb_sectors, bs.total_sectors - sector_num), 0)
    buf = bytearray(nb_sectors * 512)
    if bs is not None and have and bdrv_read(bs, sector_num, memoryview(buf)[: have * 512], have) < 0:
        error(f"error while reading from {name} backing file")
    return bytes(buf)


def _copy_differences(
    bs: BlockDriverState, old: BlockDriverState | None, new: BlockDriverState | None
) -> None:
    """Write into `bs` what it does not hold itself and `new` has otherwise than `old`."""
    sector_num = 0
    while sector_num < bs.total_sectors:
        allocated, n = bdrv_is_allocated(bs, sector_num, min(_CHUNK, bs.total_sectors - sector_num))
        if not allocated:
            was, is_now = _read_padded(old, sector_num, n, "old"), _read_padded(new, sector_num, n, "new")
            for start, count in _different(was, is_now, n):
                data = was[start * 512 : (start + count) * 512]
                ret = bdrv_write(bs, sector_num + start, data, count)
                if ret < 0:
                    error(f"Error while writing to COW image: {cause(ret)}")
        sector_num += n


def _different(a: bytes, b: bytes, nb_sectors: int) -> list[tuple[int, int]]:
    """Give the runs of sectors in which two buffers differ, as start and count."""
    if a == b:
        return []
    runs: list[tuple[int, int]] = []
    for i in range(nb_sectors):
        place = slice(i * 512, i * 512 + 512)
        if a[place] != b[place]:
            if runs and sum(runs[-1]) == i:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((i, 1))
    return runs


def _open_new(full: str, base: str, fmt: str | None, flags: int) -> BlockDriverState:
    bs = bdrv_new("")
    bs.read_only = 1
    ret = bdrv_open2(bs, full, flags, bdrv_find_format(fmt) if fmt else None)
    if ret < 0:
        error(f"Could not open new backing file '{base}': {why_not_open(full, ret, fmt)}")
    return bs


def _in_chain(bs: BlockDriverState, filename: str) -> BlockDriverState | None:
    below = bs.backing_hd
    while below is not None and below.filename != filename:
        below = below.backing_hd
    return below


def _extensions(raw: bytes, at: int, end: int) -> list[tuple[int, bytes]]:
    """Read the header extensions between two places."""
    found = []
    while at + EXTENSION.size <= end:
        magic, length = EXTENSION.unpack_from(raw, at)
        if magic == QCOW_EXT_MAGIC_END:
            break
        found.append((magic, raw[at + 8 : at + 8 + length]))
        at += 8 + length + -length % 8
    return found


def _change_backing_file(filename: str, name: str, fmt: str | None) -> int:
    """Write another backing file into the header of a qcow2 image that is not open; 0 or -errno."""
    ret, hd = bdrv_file_open(filename, 2)
    if hd is None:
        return ret
    try:
        raw = bytearray(1 << 12)
        bdrv_pread(hd, 0, raw, min(len(raw), bdrv_getlength(hd)))
        header = QCowHeader.unpack(raw)
        start = QCowHeader3.unpack(raw[HEADER_SIZE:]).header_length if header.version == 3 else HEADER_SIZE
        end = header.backing_file_offset or 1 << header.cluster_bits
        kept = [e for e in _extensions(bytes(raw), start, end) if e[0] != QCOW_EXT_MAGIC_BACKING_FORMAT]
        if fmt:
            kept.append((QCOW_EXT_MAGIC_BACKING_FORMAT, fmt.encode()))
        extensions, text = pack_extensions(kept), name.encode("utf-8", "surrogateescape")
        if len(text) > 1023:
            return -errno.EINVAL
        if start + len(extensions) + len(text) > 1 << header.cluster_bits:
            return -errno.ENOSPC
        offset = start + len(extensions) if text else 0
        header = header._replace(backing_file_offset=offset, backing_file_size=len(text))
        data = header.pack() + bytes(raw[HEADER_SIZE:start]) + extensions + text
        return min(bdrv_pwrite(hd, 0, data, len(data)), 0)
    finally:
        bdrv_delete(hd)


def img_rebase(argc: int, argv: list[str]) -> int:
    """`rebase`: change the backing file; with -u only its name."""
    found, operands = options(argv, "hf:F:b:upt:T:qU", "object=", "image-opts", "force-share")
    if len(operands) != 1:
        usage_error("Expecting one image file name")
    if "u" not in found and "b" not in found:
        usage_error("Must specify backing file (-b) or use unsafe mode (-u)")
    filename, base, fmt = operands[0], found.get("b", ""), found.get("F")
    flags = cache_mode(found.get("t"))
    source_flags = cache_mode(found.get("T"), what="source cache")
    bs = open_alone(filename, found.get("f")) if "u" in found else open_image(filename, found.get("f"), flags)
    if fmt is not None and bdrv_find_format(fmt) is None:
        error(f"Invalid format name: '{fmt}'")
    if bs.read_only:
        error(f"Could not open '{filename}': {cause(-errno.EACCES)}")
    if "u" not in found:
        full = path_combine(1024, filename, base) if base else ""
        new, opened = _in_chain(bs, full) if base else None, None
        if base and new is None:
            new = opened = _open_new(full, base, fmt, source_flags)
        _copy_differences(bs, bs.backing_hd, new)
        if opened is not None:
            bdrv_delete(opened)
    driver = bs.drv.format_name if bs.drv else ""
    bdrv_delete(bs)
    if driver != "qcow2":
        ret = -errno.ENOTSUP
    elif base and not fmt:
        ret = -errno.EINVAL
    else:
        ret = _change_backing_file(filename, base, fmt)
    if ret == -errno.ENOSPC:
        error(f"Could not change the backing file to '{base}': No space left in the file header")
    if ret == -errno.EINVAL and base and not fmt:
        error(f"Could not change the backing file to '{base}': backing format must be specified")
    if ret < 0:
        error(f"Could not change the backing file to '{base}': {cause(ret)}")
    return 0


def resize_image(bs: BlockDriverState, size: int) -> int:
    """Give an open image another size.

    Returns
    -------
    int
        0 or -errno: -ENOTSUP for a format that cannot, or a qcow2 image with snapshots or
        to be made shorter.
    """
    if bs.drv is None:
        return -errno.ENOMEDIUM
    if bs.drv.format_name != "qcow2":
        return bdrv_truncate(bs, size)
    from hypervisor.block.qcow2_table import qcow2_grow_l1_table

    s = bs.opaque
    if s.nb_snapshots or size < bs.total_sectors * 512 or size % 512:
        return -errno.ENOTSUP
    l1_size = -(-size >> (s.cluster_bits + s.l2_bits))
    if l1_size * 8 > 32 << 20:
        return -errno.EFBIG
    ret = qcow2_grow_l1_table(bs, l1_size)
    if ret < 0:
        return ret
    header = QCowHeader(size=size)
    ret = bdrv_pwrite(s.hd, 24, header.pack()[24:32], 8)
    if ret < 0:
        return ret
    s.l1_vm_state_index = l1_size
    bs.total_sectors = size >> 9
    return 0


def img_resize(argc: int, argv: list[str]) -> int:
    """`resize`: give an image another size, absolute or by + and -."""
    if len(argv) < 3:
        error("Not enough arguments\nTry 'qemu-img --help' for more information")
    *words, text = argv
    found, operands = options(words, "f:hq", "object=", "image-opts", "preallocation=", "shrink")
    if len(operands) != 1:
        usage_error("Expecting image file name and size")
    sign = {"+": 1, "-": -1}.get(text[:1], 0)
    try:
        wanted = parse_size(text[1:] if sign else text)
    except (ValueError, OverflowError):
        error(NO_SIZE)
    bs = open_image(operands[0], found.get("f"))
    current = bdrv_getlength(bs)
    if current < 0:
        error(f"Failed to inquire current image length: {cause(current)}")
    size = current + sign * wanted if sign else wanted
    if size <= 0:
        error("New image size must be positive")
    if found.get("preallocation", "off") != "off":
        error(f"preallocation={found['preallocation']} is not modelled")
    if size < current and "shrink" not in found:
        error(
            "Use the --shrink option to perform a shrink operation.\n"
            "qemu-img: warning: Shrinking an image will delete all data beyond the shrunken image's end."
            " Before performing such an operation, make sure there is no important data there."
        )
    ret = resize_image(bs, size)
    if ret == -errno.ENOTSUP:
        error("Image format driver does not support resize")
    if ret < 0:
        error(f"Could not resize image: {cause(ret)}")
    if "q" not in found:
        print("Image resized.")
    bdrv_delete(bs)
    return 0
