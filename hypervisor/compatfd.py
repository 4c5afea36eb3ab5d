"""A signal as something to read: compatfd.c.

`qemu_signalfd` gives a descriptor that becomes readable when a signal of the mask is sent. As in C the
kernel's signalfd is taken where it can be, and else a pipe. Python adds a condition: the signal must be
blocked in the thread that reads it, and only in the main thread may we change that without surprising
whoever embeds us. A worker calls `notify` where C says ``kill(getpid(), signo)``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterable

from hypervisor.kvm_all import kvm_enabled
from hypervisor.osdep import adopt_fd, qemu_set_cloexec
from hypervisor.program import on_exit
from tracer import traced

C_FILE = "compatfd.c"

_SFD_NONBLOCK = os.O_NONBLOCK
_SIGINFO_SIZE = 128

_senders: dict[int, Callable[[], None]] = {}
_blocked: set[int] = set()


@traced
def qemu_signalfd(mask: Iterable[int]) -> int:
    """A non-blocking descriptor that yields 128 bytes for each signal of `mask` pending.

    Raises
    ------
    OSError
        When the process is out of descriptors.
    """
    signals = set(mask)
    # Under KVM two threads wait for completions, and a signal sent to one thread is not seen by the other.
    alone = threading.current_thread() is threading.main_thread() and not kvm_enabled()
    fd = _kernel_signalfd(signals) if alone else -1
    if fd >= 0:
        _blocked.update(signals - signal.pthread_sigmask(signal.SIG_BLOCK, signals))
        thread, number = threading.get_ident(), min(signals)
        _senders[fd] = lambda: signal.pthread_kill(thread, number)
    else:
        fd, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _senders[fd] = lambda: _write(writer)
        adopt_fd(writer)
    adopt_fd(fd)
    qemu_set_cloexec(fd)
    return fd


@traced
def qemu_eventfd() -> tuple[int, list[int]]:
    """Make a counter: 0 and the descriptor to read and the one to write, neither of which blocks."""
    if not hasattr(os, "eventfd"):
        fds = list(os.pipe2(os.O_NONBLOCK))
    else:
        fds = [os.eventfd(0, os.EFD_NONBLOCK)]
        fds.append(os.dup(fds[0]))
    for fd in fds:
        qemu_set_cloexec(adopt_fd(fd))
    return 0, fds


def notify(fd: int) -> None:
    """Send the signal that `fd` waits for, from any thread."""
    _senders[fd]()


def _write(writer: int) -> None:
    # A full pipe already says what there is to say.
    with contextlib.suppress(BlockingIOError):
        os.write(writer, bytes(_SIGINFO_SIZE))


def _kernel_signalfd(signals: set[int]) -> int:
    try:
        libc = ctypes.CDLL(None)
        mask = ctypes.create_string_buffer(_SIGINFO_SIZE)
        libc.sigemptyset(mask)
        for number in signals:
            libc.sigaddset(mask, number)
        return int(libc.signalfd(-1, mask, _SFD_NONBLOCK | os.O_CLOEXEC))
    except (AttributeError, OSError):
        return -1


@on_exit
def _unblock() -> None:
    for fd in list(_senders):
        del _senders[fd]
    while _blocked and signal.sigtimedwait(_blocked, 0):
        pass
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _blocked)
    _blocked.clear()
