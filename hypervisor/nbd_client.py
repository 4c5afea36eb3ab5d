"""One client of an NBD server: a generator that yields whenever its socket has nothing or takes nothing.

- ``Client(connection, export)``: ``turns`` is the generator, ``deadline`` until when something must come

::

    greeting ─ options ─ request ─ image ─ reply ─ request ...

What a client may cost is bounded: one request of at most 32 MiB in memory, ten seconds for the handshake,
thirty without a byte in the middle of a request or a reply. Long zeroing is done a piece a turn. Reads or
writes that arrive together and lie side by side become one of up to 1 MiB, as in `bdrv_aio_multiwrite`.
"""

from __future__ import annotations

import errno
import mmap
import os
import selectors
import socket
import time
from collections.abc import Generator
from typing import TypeAlias

from hypervisor import nbd_format as f
from hypervisor.nbd_export import Export
from hypervisor.nbd_handshake import CONTEXT_ID, Agreed, acknowledge, answer

HANDSHAKE_SECONDS = 10.0
STALLED_SECONDS = 30.0
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_KEPT = 1 << 20
"""A buffer of this size, in bytes, stays with its client between requests."""
_TOGETHER = 64
"""How many requests may be served as one."""

Turn: TypeAlias = Generator[int, None, None]
"""Yields what to wait for."""


class Client:
    """One connection.

    Parameters
    ----------
    connection : socket
        Not blocking.
    """

    def __init__(self, connection: socket.socket, export: Export) -> None:
        self.socket = connection
        self.export = export
        self.agreed = Agreed()
        self.transmitting = False
        self.deadline: float | None = time.monotonic() + HANDSHAKE_SECONDS
        self.events = _READ
        self._header = bytearray(f.REQUEST.size)
        self._buffer: bytearray | mmap.mmap = bytearray()
        self.turns = self._talk()

    def _talk(self) -> Turn:
        """Everything from the greeting on; ends when the client leaves."""
        greeting = f.FLAG_FIXED_NEWSTYLE | f.FLAG_NO_ZEROES
        yield from self._send(f.GREETING.pack(f.NBD_MAGIC, f.OPTION_MAGIC, greeting))
        (flags,) = f.CLIENT_FLAGS.unpack((yield from self._take(f.CLIENT_FLAGS.size)))
        if flags & ~greeting:
            raise f.Malformed(f"unknown handshake flags {flags:#x}")
        self.agreed.no_zeroes = bool(flags & f.FLAG_NO_ZEROES)
        while not self.transmitting:
            header = yield from self._take(f.OPTION.size)
            magic, option, length = f.OPTION.unpack(header)
            if magic != f.OPTION_MAGIC:
                raise f.Malformed(f"an option begins with {magic:#x}")
            if length > f.MAX_OPTION:
                raise f.Malformed(f"an option of {length} bytes")
            data = yield from self._take(length)
            if option == f.OPT_ABORT:
                yield from self._send(acknowledge(option))
                return
            reply, self.transmitting = answer(option, data, self.export, self.agreed)
            yield from self._send(reply)
        self.deadline = None
        while (yield from self._request()):
            if len(self._buffer) > _KEPT:
                self._buffer = bytearray()
            yield _READ

    def _request(self) -> Generator[int, None, bool]:
        """Serve one request; returns whether another may follow."""
        yield from self._fill(memoryview(self._header), idle=True)
        magic, flags, command, cookie, offset, length = f.REQUEST.unpack(self._header)
        if magic != f.REQUEST_MAGIC:
            raise f.Malformed(f"a request begins with {magic:#x}")
        if command == f.CMD_DISC:
            return False
        if command == f.CMD_WRITE:
            if length > f.MAX_REQUEST:
                raise f.Malformed(f"a write of {length} bytes")
            yield from self._fill(self._room(length)[:length])
        ret = self._refuse(command, flags, offset, length)
        if ret:
            yield from self._finish([(cookie, 0)], ret)
        elif command in (f.CMD_READ, f.CMD_WRITE):
            yield from self._transfer(command, flags, cookie, offset, length)
        elif command == f.CMD_BLOCK_STATUS:
            yield from self._status(cookie, offset, length, bool(flags & f.CMD_FLAG_REQ_ONE))
        else:
            if command == f.CMD_WRITE_ZEROES:
                for ret in self.export.zero(offset, length, not flags & f.CMD_FLAG_NO_HOLE):
                    if ret < 0:
                        break
                    yield from self._wait(_WRITE)
            if not ret and (command == f.CMD_FLUSH or flags & f.CMD_FLAG_FUA):
                ret = self.export.flush()
            yield from self._finish([(cookie, 0)], ret)
        return True

    def _refuse(self, command: int, flags: int, offset: int, length: int) -> int:
        allowed = _FLAGS.get(command)
        if allowed is None or flags & ~allowed:
            return -errno.EINVAL
        if command == f.CMD_BLOCK_STATUS and (not self.agreed.allocation or not length):
            return -errno.EINVAL
        if command == f.CMD_READ and length > f.MAX_REQUEST:
            return -errno.EOVERFLOW if self.agreed.structured else -errno.EINVAL
        if command == f.CMD_FLUSH:
            return 0
        return self.export.refuse(command, offset, length)

    def _transfer(self, command: int, flags: int, cookie: int, offset: int, length: int) -> Turn:
        """Read or write, together with requests that are here already and go on where this one ends."""
        data, end, asked = self._room(length), offset + length, [(cookie, length)]
        mergeable = length and not flags
        while mergeable and (more := self._following(command, end, len(data) - end + offset, len(asked))):
            if command == f.CMD_WRITE:
                yield from self._fill(data[end - offset :][: more[1]])
            asked.append(more)
            end += more[1]
        if command == f.CMD_READ:
            ret = self.export.read(offset, data, end - offset)
        else:
            ret = self.export.write(offset, data, end - offset)
            if not ret and flags & f.CMD_FLAG_FUA:
                ret = self.export.flush()
        if ret or command == f.CMD_WRITE or not length:
            yield from self._finish(asked, ret)
            return
        pieces = []
        at = offset
        for cookie, length in asked:
            if self.agreed.structured:
                size = f.CHUNK_OFFSET.size + length
                head = f.CHUNK.pack(f.CHUNK_MAGIC, f.CHUNK_DONE, f.CHUNK_DATA, cookie, size)
                pieces.append(memoryview(head + f.CHUNK_OFFSET.pack(at)))
            else:
                pieces.append(memoryview(f.SIMPLE_REPLY.pack(f.SIMPLE_REPLY_MAGIC, 0, cookie)))
            pieces.append(data[at - offset :][:length])
            at += length
        yield from self._send(*pieces)

    def _following(self, command: int, end: int, room: int, count: int) -> tuple[int, int] | None:
        """Take the next request, if it is here, wants the same at `end` and has room: cookie and length."""
        if count == _TOGETHER:
            return None
        try:
            if self.socket.recv_into(self._header, f.REQUEST.size, socket.MSG_PEEK) < f.REQUEST.size:
                return None
        except BlockingIOError:
            return None
        magic, flags, again, cookie, offset, length = f.REQUEST.unpack(self._header)
        if (magic, flags, again, offset) != (f.REQUEST_MAGIC, 0, command, end):
            return None
        if not 0 < length <= min(room, self.export.size - end):
            return None
        self.socket.recv_into(self._header)
        return cookie, length

    def _status(self, cookie: int, offset: int, length: int, one: bool) -> Turn:
        extents = self.export.status(offset, length, one)
        body = f.LENGTH.pack(CONTEXT_ID) + b"".join(f.EXTENT.pack(*extent) for extent in extents)
        head = f.CHUNK.pack(f.CHUNK_MAGIC, f.CHUNK_DONE, f.CHUNK_BLOCK_STATUS, cookie, len(body))
        yield from self._send(head + body)

    def _finish(self, asked: list[tuple[int, int]], ret: int) -> Turn:
        """Reply without data to all that were `asked`: 0 or -errno."""
        yield from self._send(*(memoryview(self._result(cookie, ret)) for cookie, _ in asked))

    def _result(self, cookie: int, ret: int) -> bytes:
        error = f.error_number(ret) if ret else 0
        if not self.agreed.structured:
            return f.SIMPLE_REPLY.pack(f.SIMPLE_REPLY_MAGIC, error, cookie)
        if not error:
            return f.CHUNK.pack(f.CHUNK_MAGIC, f.CHUNK_DONE, f.CHUNK_NONE, cookie, 0)
        text = os.strerror(-ret).encode()
        body = f.CHUNK_ERROR.pack(error, len(text)) + text
        return f.CHUNK.pack(f.CHUNK_MAGIC, f.CHUNK_DONE, f.CHUNK_IS_ERROR, cookie, len(body)) + body

    def _room(self, length: int) -> memoryview:
        """Memory for a request's data, with room for what may follow; what it holds is kept."""
        if len(self._buffer) < length or not self._buffer:
            # Not a bytearray: memory that a client announces and does not fill must cost nothing.
            self._buffer = mmap.mmap(-1, max(length, _KEPT))
        return memoryview(self._buffer)

    def _take(self, length: int) -> Generator[int, None, bytes]:
        """Receive `length` bytes and return them."""
        data = bytearray(length)
        yield from self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, view: memoryview, idle: bool = False) -> Turn:
        """Receive until `view` is full; a client that says nothing at all may be `idle`."""
        done = 0
        while done < len(view):
            try:
                count = self.socket.recv_into(view[done:])
            except BlockingIOError:
                yield from self._wait(_READ, idle and not done)
                continue
            if not count:
                raise ConnectionResetError
            done += count

    def _send(self, *data: bytes | memoryview) -> Turn:
        """Send all of it."""
        pieces = [memoryview(piece) for piece in data]
        while pieces:
            try:
                count = self.socket.sendmsg(pieces)
            except BlockingIOError:
                yield from self._wait(_WRITE)
                continue
            while pieces and count >= len(pieces[0]):
                count -= len(pieces.pop(0))
            if count:
                pieces[0] = pieces[0][count:]

    def _wait(self, events: int, idle: bool = False) -> Turn:
        """Give the turn away until the socket is ready; not for ever, unless `idle`."""
        if self.transmitting:
            self.deadline = None if idle else time.monotonic() + STALLED_SECONDS
        yield events
        if self.transmitting:
            self.deadline = None


_FLAGS = {
    f.CMD_READ: f.CMD_FLAG_DF | f.CMD_FLAG_FUA,
    f.CMD_WRITE: f.CMD_FLAG_FUA,
    f.CMD_FLUSH: f.CMD_FLAG_FUA,
    f.CMD_TRIM: f.CMD_FLAG_FUA,
    f.CMD_WRITE_ZEROES: f.CMD_FLAG_FUA | f.CMD_FLAG_NO_HOLE,
    f.CMD_BLOCK_STATUS: f.CMD_FLAG_REQ_ONE | f.CMD_FLAG_FUA,
}
"""The flags that each command may have."""
