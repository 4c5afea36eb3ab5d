"""Hold two images against each other, and show where an image's data is: younger than 0.12.4.

- `img_compare(argc, argv)`: 0 if the content is the same, 1 if not, more on errors.
- `img_map(argc, argv)`: for every stretch of the disk, which file of the chain has it, where.
- `Extent`, `extent_at(bs, offset, length)`: one stretch of one image; `chain_extent` of a chain.

They are not traced, but ask through the block layer, which is. The words are those of 7.2.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from hypervisor.block import bdrv_delete, bdrv_getlength, bdrv_is_allocated, bdrv_pread
from hypervisor.block_int import BlockDriverState
from hypervisor.qemu_img_common import cache_mode, error, open_image, options, output_format, usage_error
from hypervisor.qemu_img_create import size_argument
from hypervisor.tool_open import reaching

_CHUNK = 2 * 1024 * 1024
_QCOW_COMPRESSED = 1 << 63
_QCOW2_COMPRESSED = 1 << 62


@dataclass(frozen=True)
class Extent:
    """A stretch of a disk that is all alike.

    Parameters
    ----------
    start, length : int
        In bytes.
    depth : int
        How far down the chain the file is that has it; 0 is the image itself.
    present, zero, data : bool
        It is in some file of the chain; it reads as zeros; it is stored.
    offset : int or None
        Where it is in the file; None if it cannot be said in one number.
    filename : str
        The file.
    """

    start: int
    length: int
    depth: int
    present: bool
    zero: bool
    data: bool
    offset: int | None = None
    filename: str = ""

    def joins(self, other: "Extent") -> bool:
        """Tell whether `other` continues this stretch."""
        same = (self.depth, self.present, self.zero, self.data, self.filename)
        if same != (other.depth, other.present, other.zero, other.data, other.filename):
            return False
        if self.offset is None or other.offset is None:
            return self.offset is other.offset
        return self.offset + self.length == other.offset


def _raw_extent(bs: BlockDriverState, offset: int, length: int) -> Extent:
    """Ask the file system whether a place of a raw image is a hole, and how far that goes."""
    fd, end = bs.opaque.fd, offset + length
    try:
        data = os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as no_more:
        # ENXIO: nothing but a hole from here on; else the file system does not know.
        data = end if no_more.errno == errno.ENXIO else offset
    if data > offset:
        length = min(data, end) - offset
    else:
        try:
            length = min(os.lseek(fd, offset, os.SEEK_HOLE), end) - offset
        except OSError:
            length = end - offset
    return Extent(offset, length, 0, True, data > offset, data <= offset, offset, bs.filename)


def _cluster(bs: BlockDriverState, offset: int) -> tuple[int, bool]:
    """Give the place of an allocated cluster in the file, and whether it is compressed there."""
    assert bs.drv is not None
    if bs.drv.format_name == "qcow2":
        from hypervisor.block.qcow2_cluster import qcow2_get_cluster_offset

        place, _ = qcow2_get_cluster_offset(bs, offset, 1)
        return place & ~_QCOW2_COMPRESSED, bool(place & _QCOW2_COMPRESSED)
    from hypervisor.block.qcow_cluster import get_cluster_offset

    place = get_cluster_offset(bs, offset, 0, 0, 0, 0)
    return place & ~_QCOW_COMPRESSED, bool(place & _QCOW_COMPRESSED)


def extent_at(bs: BlockDriverState, offset: int, length: int) -> Extent:
    """Describe the stretch of `bs` alone that begins at `offset`, of at most `length` bytes."""
    if bs.drv is not None and bs.drv.bdrv_is_allocated is None:
        return _raw_extent(bs, offset, length)
    allocated, n = bdrv_is_allocated(bs, offset >> 9, min(-(-length >> 9), 1 << 22))
    if not allocated:
        return Extent(offset, min(n * 512, length), 0, False, False, False)
    size = bs.opaque.cluster_size
    within = offset % size
    length = min(size - within, n * 512, length)
    place, compressed = _cluster(bs, offset)
    if compressed:
        return Extent(offset, length, 0, True, False, True)
    return Extent(offset, length, 0, True, False, True, place + within, bs.opaque.hd.filename)


def chain_extent(bs: BlockDriverState, offset: int, length: int) -> Extent:
    """Describe the stretch at `offset` by the first file of the chain that has it."""
    below: BlockDriverState | None = bs
    depth = 0
    while below is not None:
        size = -(-bdrv_getlength(below) // 512) * 512
        if offset >= size:
            return Extent(offset, length, depth - 1, False, True, False)
        extent = extent_at(below, offset, min(length, size - offset))
        length = extent.length
        if extent.present:
            return replace(extent, depth=depth)
        below, depth = below.backing_hd, depth + 1
    return Extent(offset, length, depth - 1, False, True, False)


def extents(bs: BlockDriverState, start: int, end: int) -> Iterator[Extent]:
    """Give all stretches between two places, each as long as it can be."""
    current: Extent | None = None
    while start < end:
        found = chain_extent(bs, start, end - start)
        start += found.length
        if current is not None and current.joins(found):
            current = replace(current, length=current.length + found.length)
        else:
            if current is not None:
                yield current
            current = found
    if current is not None:
        yield current


def _read(bs: BlockDriverState, offset: int, length: int, name: str) -> bytes:
    buf = bytearray(length)
    with reaching(bs, offset + length, always=True):
        ret = bdrv_pread(bs, offset, buf, length)
    if ret < 0:
        _fail(4, f"Error while reading offset {offset} of {name}: {os.strerror(-ret)}")
    return bytes(buf)


def _fail(status: int, message: str) -> None:
    try:
        error(message)
    except SystemExit:
        raise SystemExit(status) from None


def _mismatch(a: bytes, b: bytes) -> int:
    """Give the start of the first 512 bytes in which two buffers differ."""
    return next(i for i in range(0, len(a), 512) if a[i : i + 512] != b[i : i + 512])


class _Pair:
    """Two open images and their names."""

    def __init__(self, found: dict[str, str], names: list[str]) -> None:
        flags = cache_mode(found.get("T"), what="source cache")
        self.names = names
        self.images: list[BlockDriverState] = []
        for name, fmt in zip(names, (found.get("f"), found.get("F")), strict=True):
            self.images.append(open_image(name, fmt, flags, True))
        self.sizes = [-(-bdrv_getlength(bs) // 512) * 512 for bs in self.images]

    def difference(self, strict: bool) -> str | None:
        """Say where the two differ first, within their common length; None if they do not."""
        offset, end = 0, min(self.sizes)
        while offset < end:
            a, b = (chain_extent(bs, offset, end - offset) for bs in self.images)
            if strict and (a.present, a.data, a.zero) != (b.present, b.data, b.zero):
                return f"Strict mode: Offset {offset} block status mismatch!"
            length = min(a.length, b.length)
            if not (a.zero and b.zero):
                length = min(length, _CHUNK)
                data = [
                    _read(bs, offset, length, name) for bs, name in zip(self.images, self.names, strict=True)
                ]
                if data[0] != data[1]:
                    return f"Content mismatch at offset {offset + _mismatch(*data)}!"
            offset += length
        return None

    def beyond(self) -> str | None:
        """Say where the longer image holds anything but zeros beyond the shorter one's end."""
        which = self.sizes.index(max(self.sizes))
        bs, name = self.images[which], self.names[which]
        offset, end = min(self.sizes), max(self.sizes)
        while offset < end:
            extent = chain_extent(bs, offset, end - offset)
            length = extent.length
            if not extent.zero:
                length = min(length, _CHUNK)
                data = _read(bs, offset, length, name)
                if data != bytes(length):
                    return f"Content mismatch at offset {offset + _mismatch(data, bytes(length))}!"
            offset += length
        return None


def img_compare(argc: int, argv: list[str]) -> int:
    """`compare`: tell whether two images have the same content.

    Returns
    -------
    int
        0 identical, 1 different; 2 not opened, 3 and 4 not read (by SystemExit).
    """
    found, operands = options(argv, "hf:F:T:pqsU", "object=", "image-opts", "force-share")
    if len(operands) != 2:
        usage_error("Expecting two image file names")
    try:
        pair = _Pair(found, operands)
    except SystemExit:
        return 2

    def say(text: str) -> None:
        if "q" not in found:
            print(text)

    alike = pair.sizes[0] == pair.sizes[1]
    if "s" in found and not alike:
        say("Strict mode: Image size mismatch!")
        return 1
    wrong = pair.difference("s" in found)
    if wrong is None and not alike:
        say("Warning: Image size mismatch!")
        wrong = pair.beyond()
    say(wrong or "Images are identical.")
    for bs in pair.images:
        bdrv_delete(bs)
    return int(wrong is not None)


def _number(value: int) -> str:
    """Print a number as C's ``%#-16x`` does, which leaves zero without its 0x."""
    return f"{hex(value) if value else '0':<16}"


def _print_line(extent: Extent) -> None:
    if extent.data and extent.offset is None:
        error("File contains external, encrypted or compressed clusters.")
    if extent.data and not extent.zero:
        numbers = (extent.start, extent.length, extent.offset or 0)
        print("".join(map(_number, numbers)) + extent.filename)


def _print_object(extent: Extent, last: bool) -> None:
    present, zero, data = (str(flag).lower() for flag in (extent.present, extent.zero, extent.data))
    where = "" if extent.offset is None else f', "offset": {extent.offset}'
    print(
        f'{{ "start": {extent.start}, "length": {extent.length}, "depth": {extent.depth},'
        f' "present": {present}, "zero": {zero}, "data": {data}{where}}}',
        end="" if last else ",\n",
    )


def img_map(argc: int, argv: list[str]) -> int:
    """`map`: show where the data of an image is."""
    found, operands = options(
        argv,
        "f:s:l:hU",
        *("format=", "output=", "object=", "image-opts", "force-share", "start-offset=", "max-length="),
    )
    if len(operands) != 1:
        usage_error("Expecting one image file name")
    as_json = output_format(found)
    start = size_argument(found.get("s", "0"), "start offset")
    bs = open_image(operands[0], found.get("f"), read_only=True)
    end = -(-bdrv_getlength(bs) // 512) * 512
    if "l" in found:
        end = min(end, start + size_argument(found["l"], "max length"))
    if as_json:
        print("[", end="")
        held: Extent | None = None
        for extent in extents(bs, start, end):
            if held is not None:
                _print_object(held, False)
            held = extent
        if held is not None:
            _print_object(held, True)
        print("]")
    else:
        print(f"{'Offset':<16}{'Length':<16}{'Mapped to':<16}File")
        for extent in extents(bs, start, end):
            _print_line(extent)
    bdrv_delete(bs)
    return 0
