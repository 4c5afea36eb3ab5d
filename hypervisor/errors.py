"""The one error class of the hypervisor package.

QEMU's own functions report failure as C does, by a negative errno; `HypervisorError` is for the
situations the C program has no code for: two programs at once, a module that is not loaded, a caller's
mistake. The command line prints it as ``studykvm: <message>``.
"""

from __future__ import annotations


class HypervisorError(Exception):
    """A situation the model cannot go on from; the message says what, which value, and what to do."""
