"""`info` as QEMU 7.2 words it, for people or as JSON.

- `info(found, operands) -> int`: describe an image, with ``--backing-chain`` all of them.
- `snapshot_line(sn) -> str`: a line of the snapshot list, or its heading.
"""

import time
from typing import Any

from hypervisor.block import (
    bdrv_delete,
    bdrv_get_info,
    bdrv_getlength,
    bdrv_is_encrypted,
    bdrv_snapshot_list,
    local_name,
    path_combine,
)
from hypervisor.block_int import BlockDriverInfo, BlockDriverState, QEMUSnapshotInfo
from hypervisor.qemu_img_common import error, open_alone, output_format, usage_error
from hypervisor.qemu_img_info import get_allocated_file_size
from hypervisor.qemu_img_json import pretty
from hypervisor.wording import human_size

_QCOW2 = {"compat": "0.10", "compression-type": "zlib", "refcount-bits": 16}


def snapshot_line(sn: QEMUSnapshotInfo | None) -> str:
    """Describe a snapshot in columns; None is for the heading."""
    if sn is None:
        return f"{'ID':<10}{'TAG':<17}{'VM SIZE':>8}{'DATE':>20}{'VM CLOCK':>13}{'ICOUNT':>11}"
    date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(sn.date_sec))
    seconds, rest = divmod(sn.vm_clock_nsec, 10**9)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest // 10**6:03}"
    return f"{sn.id_str:<9} {sn.name:<16} {human_size(sn.vm_state_size):>8}{date:>20}{clock:>13}{'':>11}"


def _snapshot(sn: QEMUSnapshotInfo) -> dict[str, Any]:
    return {
        "id": sn.id_str,
        "name": sn.name,
        "vm-state-size": sn.vm_state_size,
        "date-sec": sn.date_sec,
        "date-nsec": sn.date_nsec,
        "vm-clock-sec": sn.vm_clock_nsec // 10**9,
        "vm-clock-nsec": sn.vm_clock_nsec % 10**9,
    }


def _describe(bs: BlockDriverState, filename: str) -> dict[str, Any]:
    """Collect what 7.2's ImageInfo holds, in the order of its members."""
    format_name = bs.drv.format_name if bs.drv else "raw"
    about: dict[str, Any] = {"filename": filename, "format": format_name, "dirty-flag": False}
    size = get_allocated_file_size(filename)
    if size >= 0:
        about["actual-size"] = size
    about["virtual-size"] = -(-bdrv_getlength(bs) // 512) * 512
    bdi = BlockDriverInfo()
    if bdrv_get_info(bs, bdi) >= 0 and bdi.cluster_size:
        about["cluster-size"] = bdi.cluster_size
    if bdrv_is_encrypted(bs):
        about["encrypted"] = True
    if bs.backing_file:
        about["backing-filename"] = bs.backing_file
        about["full-backing-filename"] = path_combine(1024, filename, bs.backing_file)
        if bs.backing_format:
            about["backing-filename-format"] = bs.backing_format
    count, snapshots = bdrv_snapshot_list(bs)
    if count > 0:
        about["snapshots"] = [_snapshot(sn) for sn in snapshots]
    if format_name == "qcow2":
        about["format-specific"] = {"type": "qcow2", "data": _QCOW2}
    return about


def _print(about: dict[str, Any], snapshots: list[QEMUSnapshotInfo]) -> None:
    size = about["virtual-size"]
    disk = human_size(about["actual-size"]) if "actual-size" in about else "unavailable"
    print(f"image: {about['filename']}\nfile format: {about['format']}")
    print(f"virtual size: {human_size(size)} ({size} bytes)\ndisk size: {disk}")
    if "encrypted" in about:
        print("encrypted: yes")
    if "cluster-size" in about:
        print(f"cluster_size: {about['cluster-size']}")
    if "backing-filename" in about:
        name, full = about["backing-filename"], about["full-backing-filename"]
        print(f"backing file: {name}" + (f" (actual path: {full})" if name != full else ""))
        if "backing-filename-format" in about:
            print(f"backing file format: {about['backing-filename-format']}")
    if snapshots:
        print("Snapshot list:")
        for sn in (None, *snapshots):
            print(snapshot_line(sn))
    if "format-specific" in about:
        print("Format specific information:")
        for key, value in about["format-specific"]["data"].items():
            print(f"    {key.replace('-', ' ')}: {value}")


def info(found: dict[str, str], operands: list[str]) -> int:
    """Describe an image.

    Parameters
    ----------
    found : dict of str to str
        Options by letter or long name.
    operands : list of str
        The file name.
    """
    if len(operands) != 1:
        usage_error("Expecting one image file name")
    as_json = output_format(found)
    filename: str | None = local_name(operands[0])
    fmt = found.get("f")
    chain: list[dict[str, Any]] = []
    snapshots = []
    while filename is not None:
        if any(filename == about["filename"] for about in chain):
            error(f"Backing file '{filename}' creates an infinite loop.")
        bs = open_alone(filename, fmt, True)
        about = _describe(bs, filename)
        chain.append(about)
        snapshots.append(bdrv_snapshot_list(bs)[1])
        bdrv_delete(bs)
        filename = about.get("full-backing-filename") if "backing-chain" in found else None
        fmt = about.get("backing-filename-format")
    if as_json:
        print(pretty(chain if "backing-chain" in found else chain[0]))
        return 0
    for i, about in enumerate(chain):
        if i:
            print()
        _print(about, snapshots[i])
    return 0
