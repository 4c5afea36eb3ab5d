"""The section of the task priority's optimization: kvm-tpr-opt.c.

The real program has the guest's BIOS keep the local APIC's task priority in memory, for the sake of one
guest. The model has no local APIC; its streams have the section, as it is before a guest uses it.

- `kvm_tpr_opt_setup()`: have the section saved.
"""

from __future__ import annotations

import errno

from hypervisor.savevm import register_savevm
from hypervisor.savevm_file import QEMUFile, qemu_get_be32, qemu_put_be32
from tracer import traced

C_FILE = "kvm-tpr-opt.c"

_WORDS = 31 + 5
"""A `struct vapic_bios`, then five numbers."""


@traced
def tpr_save(f: QEMUFile, s: None) -> None:
    """Write that no guest uses it."""
    for _ in range(_WORDS):
        qemu_put_be32(f, 0)


@traced
def tpr_load(f: QEMUFile, s: None, version_id: int) -> int:
    """Read the section; what a guest had set up there is of no use without a local APIC."""
    if version_id != 1:
        return -errno.EINVAL
    for _ in range(_WORDS):
        qemu_get_be32(f)
    return 0


@traced
def kvm_tpr_opt_setup() -> None:
    """Have the section saved."""
    register_savevm("kvm-tpr-opt", 0, 1, tpr_save, tpr_load, None)
