"""`check` as QEMU 7.2 words it, with its exit status.

- `check(found, operands) -> int`: 0 clean, 1 not checked, 2 corrupt, 3 leaks only, 63 the
  format cannot be checked.
"""

import errno

from hypervisor.block import bdrv_check, bdrv_delete
from hypervisor.qemu_img_common import cache_mode, error, open_image, output_format, usage_error
from hypervisor.qemu_img_json import pretty
from hypervisor.wording import cause


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
    bs = open_image(operands[0], found.get("f"), cache_mode(found.get("T"), what="source cache"))
    format_name = bs.drv.format_name if bs.drv else "raw"
    ret = bdrv_check(bs)
    bdrv_delete(bs)
    if ret == -errno.ENOTSUP:
        try:
            error("This image format does not support checks")
        except SystemExit:
            return 63
    if ret < 0:
        error(f"Check failed: {cause(ret)}")
    return 0
