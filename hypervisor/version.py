"""The version that the model says it is."""

QEMU_VERSION = "0.12.4"
QEMU_PKGVERSION = " (qemu-kvm-0.12.4)"
