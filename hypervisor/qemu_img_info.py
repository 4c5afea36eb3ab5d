"""Describe an image and its snapshots: `info` and `snapshot` of qemu-img.c.

- `img_info(argc, argv)`: name, format, sizes, backing file, snapshots.
- `img_snapshot(argc, argv)`: list, create, apply or delete internal snapshots.
- `get_allocated_file_size(filename)`, `dump_snapshots(bs)`.
"""

import os
import time

from hypervisor.block import (
    bdrv_delete,
    bdrv_get_backing_filename,
    bdrv_get_format,
    bdrv_get_geometry,
    bdrv_get_info,
    bdrv_is_encrypted,
    bdrv_snapshot_create,
    bdrv_snapshot_delete,
    bdrv_snapshot_dump,
    bdrv_snapshot_goto,
    bdrv_snapshot_list,
    get_human_readable_size,
    local_name,
    path_combine,
)
from hypervisor.block_int import BlockDriverInfo, BlockDriverState, QEMUSnapshotInfo
from hypervisor.cutils import pstrcpy
from hypervisor.qemu_img_common import BRDV_O_FLAGS, error, help, open_image, options, usage_error
from hypervisor.wording import cause, modern
from tracer import traced

C_FILE = "qemu-img.c"


@traced
def get_allocated_file_size(filename: str) -> int:
    """Give the bytes that a file takes on its disk, or -1."""
    try:
        return os.stat(filename).st_blocks * 512
    except OSError:
        return -1


@traced
def dump_snapshots(bs: BlockDriverState) -> None:
    """Print the internal snapshots, if there are any."""
    nb_sns, sn_tab = bdrv_snapshot_list(bs)
    if nb_sns <= 0:
        return
    print("Snapshot list:")
    if modern():
        from hypervisor.qemu_img_report import snapshot_line

        for sn in (None, *sn_tab):
            print(snapshot_line(sn))
        return
    print(bdrv_snapshot_dump(256, None))
    for sn in sn_tab:
        print(bdrv_snapshot_dump(256, sn))


@traced
def img_info(argc: int, argv: list[str]) -> int:
    """`info`: describe an image."""
    found, operands = options(
        argv, "f:hU", "format=", "output=", "backing-chain", "object=", "image-opts", "force-share"
    )
    if modern() or "output" in found or "backing-chain" in found:
        from hypervisor.qemu_img_report import info

        return info(found, operands)
    if not operands:
        help()
    filename = local_name(operands[0])
    bs = open_image(filename, found.get("f"))
    fmt_name = bdrv_get_format(bs, 128)
    size = bdrv_get_geometry(bs) * 512
    size_buf = get_human_readable_size(128, size)
    allocated_size = get_allocated_file_size(filename)
    dsize_buf = "unavailable" if allocated_size < 0 else get_human_readable_size(128, allocated_size)
    print(f"image: {filename}\nfile format: {fmt_name}")
    print(f"virtual size: {size_buf} ({size} bytes)\ndisk size: {dsize_buf}")
    if bdrv_is_encrypted(bs):
        print("encrypted: yes")
    bdi = BlockDriverInfo()
    if bdrv_get_info(bs, bdi) >= 0 and bdi.cluster_size:
        print(f"cluster_size: {bdi.cluster_size}")
    backing_filename = bdrv_get_backing_filename(bs, 1024)
    if backing_filename:
        actual = path_combine(1024, filename, backing_filename)
        print(f"backing file: {backing_filename} (actual path: {actual})")
    dump_snapshots(bs)
    bdrv_delete(bs)
    return 0


def _create(bs: BlockDriverState, name: str) -> int:
    now = time.time_ns() // 1000
    sn = QEMUSnapshotInfo(name=pstrcpy(256, name))
    sn.date_sec = now // 1_000_000
    sn.date_nsec = now % 1_000_000 * 1000
    return bdrv_snapshot_create(bs, sn)


def _failed(action: str, name: str, ret: int, known: bool) -> None:
    if not modern():
        error(f"Could not {action} snapshot '{name}': {ret} ({cause(ret)})")
    if action == "create":
        error(f"Could not create snapshot '{name}': {ret} ({cause(ret)})")
    if known:
        error(f"Could not {action} snapshot '{name}': {cause(ret)}")
    what = "snapshot not found" if action == "delete" else f"Failed to load snapshot: {cause(ret)}"
    error(f"Could not {action} snapshot '{name}': {what}")


@traced
def img_snapshot(argc: int, argv: list[str]) -> int:
    """`snapshot`: list, create, apply or delete a snapshot."""
    found, operands = options(argv, "la:c:d:hqU", "object=", "image-opts", "force-share")
    actions = [letter for letter in found if letter in "lacd"]
    if len(actions) > 1:
        usage_error("Cannot mix '-l', '-a', '-c', '-d'")
    if not operands or (modern() and len(operands) > 1):
        usage_error("Expecting one image file name")
    bs = open_image(operands[0], None, BRDV_O_FLAGS if modern() else 0)
    action = actions[0] if actions else ""
    name = found.get(action, "")
    if action == "l":
        dump_snapshots(bs)
    elif action:
        word = {"a": "apply", "c": "create", "d": "delete"}[action]
        change = {"a": bdrv_snapshot_goto, "c": _create, "d": bdrv_snapshot_delete}[action]
        ret = change(bs, name)
        if ret:
            known = (
                any(name in (sn.id_str, sn.name) for sn in bdrv_snapshot_list(bs)[1]) if modern() else False
            )
            _failed(word, name, ret, known)
    bdrv_delete(bs)
    return 0
