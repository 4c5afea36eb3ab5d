"""What the formats and protocols that only register and probe have in common (ours).

A format of 0.12.4 that the study does not model still stands in the probe order and knows its images;
opening one ends here.
"""

from __future__ import annotations

import errno
import sys

from hypervisor.block_int import BlockDriverState


def refuse(filename: str, what: str, instead: str) -> int:
    """Say on stderr that `what` is recognised and not modelled, and what to do; -ENOTSUP."""
    print(f"{filename}: {what} is recognised but not modelled; {instead}", file=sys.stderr)
    return -errno.ENOTSUP


def refuse_format(filename: str, format_name: str) -> int:
    """`refuse` an image."""
    return refuse(
        filename, f"the {format_name} format", "convert it with QEMU's own qemu-img convert -O qcow2"
    )


def never_open(bs: BlockDriverState) -> None:
    """``bdrv_close`` of a driver whose ``bdrv_open`` always refuses."""
    raise AssertionError(f"{bs.filename} was never opened")
