"""Which QEMU the tools speak like: 0.12.4 (the default) or 7.2.

QEMU's own tests compare what the tools print, and sixteen years have changed much of it,
so the environment variable STUDYKVM_WORDING=modern asks for the words of 7.2, and for the
manners that go with them (requests need not be aligned to sectors, -r really means
read-only). The calls into the block layer stay those of 0.12.4.

- `modern() -> bool`: does this run speak like 7.2?
- `not_modelled(program, what, instead="")`: refuse what is younger than 0.12.4, and exit.
- `cause(code) -> str`: `strerror` of a negative errno.
- `human_size(size) -> str`: a size in the unit of 7.2, as ``64 MiB``.
"""

import os
import sys
from typing import NoReturn

VARIABLE = "STUDYKVM_WORDING"


def modern() -> bool:
    """Tell whether this run speaks like QEMU 7.2."""
    return os.environ.get(VARIABLE) == "modern"


def not_modelled(program: str, what: str, instead: str = "") -> NoReturn:
    """Refuse an option or command that 0.12.4 did not have."""
    hint = f"; {instead}" if instead else ""
    print(f"{program}: {what} is younger than QEMU 0.12.4 and not modelled{hint}", file=sys.stderr)
    raise SystemExit(1)


def cause(code: int) -> str:
    """Name the error of a result.

    >>> cause(-2)
    'No such file or directory'
    """
    return os.strerror(-code)


def human_size(size: int) -> str:
    """Say a size as 7.2 does: three significant digits, a blank, the unit.

    >>> human_size(64 << 20), human_size(1536), human_size(200), human_size(1000 << 10)
    ('64 MiB', '1.5 KiB', '200 B', '0.977 MiB')
    """
    power = 0
    scaled = float(size)
    while scaled >= 1000 and power < 6:
        scaled /= 1024
        power += 1
    unit = "B" if power == 0 else "KMGTPE"[power - 1] + "iB"
    return f"{scaled:.3g} {unit}"
