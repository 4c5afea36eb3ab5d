"""Saving and loading all devices once for practice, before a machine has to stand for it.

What runs for the first time is slow: modules are imported, Python specializes its code, the host's caches are
cold. A migration saves and loads devices once only, while the guest stands at both ends. So the source saves
them into nothing while its guest still runs, and the destination, which has yet to be asked for anything,
loads what it has just saved of itself, which changes nothing.

- `rehearse_saving()`, `rehearse_loading()`.

Neither happens while a trace is recorded, nor under KVM.
"""

from __future__ import annotations

from io import BytesIO

from hypervisor.kvm_all import kvm_enabled
from hypervisor.savevm import load_sections, save_devices
from hypervisor.savevm_file import qemu_fflush, qemu_fopen_ops, reading
from tracer.session import recording


def _saved() -> bytearray:
    kept = bytearray()

    def put_buffer(opaque: None, buf: memoryview, pos: int, size: int) -> int:
        kept.extend(buf[:size])
        return size

    f = qemu_fopen_ops(None, put_buffer, None, None, None, None, None)
    save_devices(f)
    qemu_fflush(f)
    return kept


def rehearse_saving() -> None:
    """Save all devices into nothing."""
    if not recording() and not kvm_enabled():
        _saved()


def rehearse_loading() -> None:
    """Load all devices as they are."""
    if recording() or kvm_enabled():
        return
    load_sections(reading(BytesIO(_saved())))
