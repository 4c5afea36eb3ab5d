"""`check` as QEMU 7.2 words it, with its exit status.

- `check(found, operands) -> int`: 0 clean, 1 not checked, 2 corrupt, 3 leaks only, 63 the
  format cannot be checked.

What 7.2 tells besides, how much is allocated and where the image ends, 0.12.4 does not count.
"""

import errno
import sys

from hypervisor.block import bdrv_check, bdrv_delete
from hypervisor.qemu_img_common import cache_mode, error, open_image, output_format, usage_error
from hypervisor.qemu_img_json import pretty
from hypervisor.wording import cause


def _tell(corruptions: int, leaks: int) -> None:
    if not corruptions and not leaks:
        print("No errors were found on the image.")
    if corruptions:
        print(f"\n{corruptions} errors were found on the image.")
        print("Data may be corrupted, or further writes to the image may corrupt it.")
    if leaks:
        print(f"\n{leaks} leaked clusters were found on the image.")
        print("This means waste of disk space, but no harm to data.")


def check(found: dict[str, str], operands: list[str]) -> int:
    """Check an image and report.

    Parameters
    ----------
    found : dict of str to str
        Options by letter.
    operands : list of str
        The file name.
    """
    if len(operands) != 1:
        usage_error("Expecting one image file name")
    as_json = output_format(found)
    filename = operands[0]
    bs = open_image(filename, found.get("f"), cache_mode(found.get("T"), what="source cache"), True)
    ret = bdrv_check(bs)
    if ret == -errno.ENOTSUP:
        print("qemu-img: This image format does not support checks", file=sys.stderr)
        return 63
    if ret < 0:
        error(f"Check failed: {cause(ret)}")
    assert bs.drv is not None
    result = bs.opaque._check
    report = {"filename": filename, "format": bs.drv.format_name, "check-errors": 0}
    for name, count in (("corruptions", result.corruptions), ("leaks", result.leaks)):
        if count:
            report[name] = count
    bdrv_delete(bs)
    if "q" not in found:
        if as_json:
            print(pretty(report))
        else:
            _tell(result.corruptions, result.leaks)
    return 2 if result.corruptions else 3 if result.leaks else 0
