"""The commands of qemu-io that ask about the image or change its length: qemu-io.c.

- `flush_cmd`, `truncate_cmd`, `length_cmd`, `info_cmd`, `alloc_cmd`.
- `map_cmd`: all of `alloc` at once. It is younger than 0.12.4, so it is not traced, and
  only 7.2's wording knows it.
"""

import sys

from hypervisor.block import bdrv_flush, bdrv_get_info, bdrv_getlength, bdrv_is_allocated, bdrv_truncate
from hypervisor.block_int import BlockDriverInfo
from hypervisor.cmd import cmdinfo_t, cvtnum, cvtstr, fail
from hypervisor.qemu_io_common import complain, number, state
from hypervisor.wording import cause, modern
from tracer import traced

C_FILE = "qemu-io.c"


@traced
def flush_f(argc: int, argv: list[str]) -> int:
    """`flush`: force all that was written to the disk."""
    bdrv_flush(state.image)
    return 0


flush_cmd = cmdinfo_t(
    name="flush", altname="f", cfunc=flush_f, oneline="flush all in-core file state to disk"
)


@traced
def truncate_f(argc: int, argv: list[str]) -> int:
    """`truncate`: give the image another length."""
    offset = number(argv[1]) if modern() else cvtnum(argv[1])
    if offset is None:
        return 0
    if offset < 0:
        complain(f"non-numeric truncate argument -- {argv[1]}")
        return 0
    if modern():
        from hypervisor.qemu_img_rebase import resize_image

        ret = resize_image(state.image, offset)
    else:
        ret = bdrv_truncate(state.image, offset)
    if ret < 0:
        complain(f"truncate: {cause(ret)}")
    return 0


truncate_cmd = cmdinfo_t(
    name="truncate",
    altname="t",
    cfunc=truncate_f,
    argmin=1,
    argmax=1,
    args="off",
    oneline="truncates the current file at the given offset",
)


@traced
def length_f(argc: int, argv: list[str]) -> int:
    """`length`: print the image's length."""
    size = bdrv_getlength(state.image)
    if size < 0:
        complain(f"getlength: {cause(size)}")
        return 0
    print(cvtstr(size))
    return 0


length_cmd = cmdinfo_t(
    name="length", altname="l", cfunc=length_f, oneline="gets the length of the current file"
)


@traced
def info_f(argc: int, argv: list[str]) -> int:
    """`info`: print the image's format, cluster size and where its VM state begins."""
    drv = state.image.drv
    if drv is not None:
        for name in (drv.format_name, drv.protocol_name):
            if name:
                print(f"format name: {name}")
    bdi = BlockDriverInfo()
    if bdrv_get_info(state.image, bdi):
        return 0
    s1 = cvtstr(bdi.cluster_size)
    s2 = cvtstr(bdi.vm_state_offset)
    print(f"cluster size: {s1}\nvm state offset: {s2}")
    return 0


info_cmd = cmdinfo_t(
    name="info", altname="i", cfunc=info_f, oneline="prints information about the current file"
)


@traced
def alloc_f(argc: int, argv: list[str]) -> int:
    """`alloc`: count the sectors that are in this image, not in its backing file."""
    if modern():
        _alloc_bytes(argv)
        return 0
    offset = cvtnum(argv[1])
    if offset & 0x1FF:
        complain(f"offset {offset} is not sector aligned")
        return 0
    nb_sectors = cvtnum(argv[2]) if argc == 3 else 1
    remaining, sum_alloc = nb_sectors, 0
    while remaining > 0:
        # quirk: every turn asks about the same place, so a mixed range counts as its beginning.
        ret, num = bdrv_is_allocated(state.image, offset >> 9, nb_sectors)
        if ret < 0:
            complain(f"alloc failed: {cause(ret)}")
            return 0
        if num <= 0:
            break
        remaining -= num
        if ret:
            sum_alloc += num
    s1 = cvtstr(offset)
    if nb_sectors == 1:
        print(f"sector allocated at offset {s1}")
    else:
        print(f"{sum_alloc}/{nb_sectors} sectors allocated at offset {s1}")
    return 0


def _alloc_bytes(argv: list[str]) -> None:
    start = number(argv[1])
    count = None if start is None else number(argv[2]) if len(argv) == 3 else 512
    if start is None or count is None:
        return
    count = min(count, max(bdrv_getlength(state.image) - start, 0))
    end, sum_alloc = start + count, 0
    for at, size, allocated in _runs(start, end):
        if allocated:
            sum_alloc += min(at + size, end) - max(at, start)
    print(f"{sum_alloc}/{count} bytes allocated at offset {cvtstr(start)}")


def _runs(start: int, end: int) -> list[tuple[int, int, bool]]:
    """Give the stretches between two places: where, how long, in this image or not."""
    runs: list[tuple[int, int, bool]] = []
    at, last = start >> 9, -(-end >> 9)
    while at < last:
        ret, num = bdrv_is_allocated(state.image, at, min(last - at, 1 << 22))
        if num <= 0:
            break
        if runs and runs[-1][2] == bool(ret):
            runs[-1] = (runs[-1][0], runs[-1][1] + num * 512, bool(ret))
        else:
            runs.append((at * 512, num * 512, bool(ret)))
        at += num
    return runs


alloc_cmd = cmdinfo_t(
    name="alloc",
    altname="a",
    cfunc=alloc_f,
    argmin=1,
    argmax=2,
    args="off [sectors]",
    oneline="checks if a sector is present in the file",
)


def _map_f(argc: int, argv: list[str]) -> int:
    length = bdrv_getlength(state.image)
    if length < 0:
        print(f"qemu-io: Failed to query image length: {cause(length)}", file=sys.stderr)
        fail()
        return 0
    for at, size, allocated in _runs(0, length):
        size = min(size, length - at)
        where = "    allocated" if allocated else "not allocated"
        print(f"{cvtstr(size)} ({size:#x}) bytes {where} at offset {cvtstr(at)} ({at:#x})")
    return 0


map_cmd = cmdinfo_t(name="map", cfunc=_map_f, args="", oneline="prints the allocated areas of a file")
