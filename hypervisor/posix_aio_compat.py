"""Asynchronous requests by a pool of worker threads: posix-aio-compat.c.

::

    main thread                              worker (posix_aio_thread.aio_thread)
    paio_submit ─ request_list, cond ──────► handle_aiocb_rw: pread, pwrite
    poll() wakes in qemu_aio_wait ◄───────── SIGUSR2, read from a signalfd
    posix_aio_read ─ posix_aio_process_queue ─ cb(opaque, 0 or -errno) ─ qemu_aio_release

- ``paio_init()``: once a program; ``paio_submit(...)``, ``paio_ioctl(...)``: a request
- a request's ``ret`` is -EINPROGRESS until a worker puts the byte count or -errno there
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
from typing import Any

from hypervisor import icount
from hypervisor.aio import qemu_aio_set_fd_handler
from hypervisor.block.bdrv_aio import qemu_aio_get, qemu_aio_release
from hypervisor.block_int import AIOPool, BlockDriverCompletionFunc, BlockDriverState
from hypervisor.compatfd import qemu_signalfd
from hypervisor.cutils import QEMUIOVector
from hypervisor.posix_aio_thread import (
    QEMU_AIO_IOCTL,
    PosixAioState,
    cond,
    cond_signal,
    lock,
    mutex_lock,
    mutex_unlock,
    pool,
    qemu_paiocb,
    spawn_thread,
)
from hypervisor.program import linked
from tracer import symbol, traced

C_FILE = "posix-aio-compat.c"

MAX_THREADS = 64


@traced
def qemu_paio_submit(aiocb: qemu_paiocb) -> None:
    """Queue a request, starting a worker if none is idle."""
    aiocb.ret = -errno.EINPROGRESS
    aiocb.active = 0
    mutex_lock(lock)
    if pool.idle_threads == 0 and pool.cur_threads < MAX_THREADS:
        spawn_thread()
    pool.request_list.append(aiocb)
    mutex_unlock(lock)
    cond_signal(cond)
    icount.settle()


@traced
def qemu_paio_return(aiocb: qemu_paiocb) -> int:
    """What a request has come to so far."""
    mutex_lock(lock)
    ret = aiocb.ret
    mutex_unlock(lock)
    return ret


@traced
def qemu_paio_error(aiocb: qemu_paiocb) -> int:
    """The errno of a request: 0 if it is done, EINPROGRESS if it is not."""
    ret = qemu_paio_return(aiocb)
    return -ret if ret < 0 else 0


@traced
def posix_aio_process_queue(opaque: PosixAioState) -> int:
    """Report the requests of the active context that are done; 1 if there were any."""
    s = opaque
    result = 0
    async_context_id = linked.get_async_context_id()
    before: qemu_paiocb | None = None
    acb = s.first_aio
    while acb is not None:
        ret = errno.EINPROGRESS if acb.async_context_id != async_context_id else qemu_paio_error(acb)
        if ret == errno.EINPROGRESS:
            before, acb = acb, acb.next
            continue
        following: qemu_paiocb | None = acb.next
        if ret == 0:
            ret = 0 if qemu_paio_return(acb) == acb.aio_nbytes else -errno.EINVAL
        else:
            ret = -ret
        if before is None:
            s.first_aio = following
        else:
            before.next = following
        result = 1
        if ret == -errno.ECANCELED:
            qemu_aio_release(acb)
            acb = following
            continue
        assert acb.cb is not None
        acb.cb(acb.opaque, ret)
        qemu_aio_release(acb)
        # The callback may have changed the list.
        before, acb = None, s.first_aio
    return result


@traced
def posix_aio_read(opaque: PosixAioState) -> None:
    """The descriptor is readable: take the signal off it and report what is done."""
    with contextlib.suppress(BlockingIOError):
        os.read(opaque.fd, 128)
    posix_aio_process_queue(opaque)


@traced
def posix_aio_flush(opaque: PosixAioState) -> int:
    """1 while requests are under way or not reported yet."""
    return int(opaque.first_aio is not None)


@traced
def paio_remove(acb: qemu_paiocb) -> None:
    """Take a request off the list without a report."""
    s = pool.state
    assert s is not None
    if s.first_aio is acb:
        s.first_aio = acb.next
    else:
        before = s.first_aio
        while before is not None and before.next is not acb:
            before = before.next
        if before is None:
            print("paio_remove: aio request not found!", file=sys.stderr)
            return
        before.next = acb.next
    qemu_aio_release(acb)


@traced
def paio_cancel(blockacb: qemu_paiocb) -> None:
    """Take back a request that no worker has begun, else wait until it is done."""
    acb = blockacb
    mutex_lock(lock)
    active = 0
    if not acb.active:
        pool.request_list.remove(acb)
        acb.ret = -errno.ECANCELED
    elif acb.ret == -errno.EINPROGRESS:
        active = 1
    mutex_unlock(lock)
    while active and qemu_paio_error(acb) == errno.EINPROGRESS:
        time.sleep(0.001)
    paio_remove(acb)


raw_aio_pool = symbol(AIOPool(aiocb_size=qemu_paiocb, cancel=paio_cancel), "raw_aio_pool")


@traced
def paio_submit(
    bs: BlockDriverState,
    fd: int,
    sector_num: int,
    qiov: QEMUIOVector | None,
    nb_sectors: int,
    cb: BlockDriverCompletionFunc,
    opaque: Any,
    type: int,
) -> qemu_paiocb:
    """Begin a read, write or flush of `fd`; `type` is QEMU_AIO_*."""
    acb: qemu_paiocb = qemu_aio_get(raw_aio_pool, bs, cb, opaque)
    acb.aio_type = type
    acb.aio_fildes = fd
    acb.ev_signo = int(signal.SIGUSR2)
    acb.async_context_id = linked.get_async_context_id()
    if qiov is not None:
        acb.aio_iov = qiov.iov
        acb.aio_niov = qiov.niov
    acb.aio_nbytes = nb_sectors * 512
    acb.aio_offset = sector_num * 512
    return _begin(acb)


@traced
def paio_ioctl(
    bs: BlockDriverState, fd: int, req: int, buf: Any, cb: BlockDriverCompletionFunc, opaque: Any
) -> qemu_paiocb:
    """Begin an ioctl of `fd`."""
    acb: qemu_paiocb = qemu_aio_get(raw_aio_pool, bs, cb, opaque)
    acb.aio_type = QEMU_AIO_IOCTL
    acb.aio_fildes = fd
    acb.ev_signo = int(signal.SIGUSR2)
    # unlike C, which leaves the context of the request's last use
    acb.async_context_id = 0
    acb.aio_offset = 0
    acb.aio_ioctl_buf = buf
    acb.aio_nbytes = req
    return _begin(acb)


def _begin(acb: qemu_paiocb) -> qemu_paiocb:
    s = pool.state
    assert s is not None, "paio_init() comes with the opening of a file"
    acb.next = s.first_aio
    s.first_aio = acb
    qemu_paio_submit(acb)
    return acb


@traced
def paio_init() -> int:
    """Make the descriptor that tells of completions, the first time; 0 or -1."""
    if pool.state is not None:
        return 0
    s = PosixAioState()
    try:
        s.fd = qemu_signalfd([signal.SIGUSR2])
    except OSError:
        print("failed to create signalfd", file=sys.stderr)
        return -1
    qemu_aio_set_fd_handler(s.fd, posix_aio_read, None, posix_aio_flush, posix_aio_process_queue, s)
    pool.state = s
    return 0
