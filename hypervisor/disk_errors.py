"""Disk requests that failed although the disk has these sectors; ours, the real program forgets them.

A guest may go on after an error of its disk, and switch itself off as if all were well. Who started it should
know: `studykvm boot` prints `report` at the end and exits with 1.

- `disk_failed(bs, sector_num, nb_sectors, error, is_write)`: the guest is told that a request failed
- `report() -> list[str]`: a line a drive, errno and direction, the first sector named
"""

from __future__ import annotations

import os

from hypervisor.block_int import BlockDriverState
from hypervisor.program import on_reset

_failed: dict[tuple[str, str, int, bool], list[int]] = {}


@on_reset
def _reset() -> None:
    _failed.clear()


def disk_failed(bs: BlockDriverState, sector_num: int, nb_sectors: int, error: int, is_write: bool) -> None:
    """Remember a request, unless the guest asked for what no disk of this size has.

    Parameters
    ----------
    bs : BlockDriverState
        The drive.
    sector_num, nb_sectors : int
        Sectors of 512 bytes.
    error : int
        A positive errno.
    is_write : bool
        Whether it was a write.
    """
    if sector_num >= 0 and sector_num + nb_sectors <= bs.total_sectors:
        _failed.setdefault((bs.device_name, bs.filename, error, is_write), []).append(sector_num)


def report() -> list[str]:
    """Say of each drive what failed, how, and where first.

    >>> bs = BlockDriverState(device_name="ide0-hd0", filename="a.img", total_sectors=9)
    >>> disk_failed(bs, 5, 1, 5, True)
    >>> report()
    ['drive ide0-hd0 (a.img): a write at sector 5 failed: Input/output error; the guest was told']
    >>> _reset()
    """
    lines = []
    for (device, filename, error, is_write), sectors in _failed.items():
        what = f"a {'write' if is_write else 'read'} at sector {sectors[0]}"
        if len(sectors) > 1:
            what += f" and {len(sectors) - 1} more"
        lines.append(f"drive {device} ({filename}): {what} failed: {os.strerror(error)}; the guest was told")
    return lines
