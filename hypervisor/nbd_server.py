"""Serves one image to NBD clients, all from one thread: every request in its turn, none waits for a client.

- ``Server(export, sockets, persistent)``: ``serve()`` returns when the last client has left, or ``stop()``
- ``listen_tcp(address, port)``, ``listen_unix(path)``: the sockets

A client is a generator that yields whenever its socket has nothing for it or takes nothing from it::

    Server.serve ── selector ──► Client.talk:  greeting ─ options ─ request ─ image ─ reply ─ request ...
                                      ▲  yields EVENT_READ or EVENT_WRITE  │
                                      └───────────────────────────────────┘

What a client may cost is bounded: one request of at most 32 MiB in memory, 64 clients, ten seconds for the
handshake, thirty without a byte in the middle of a request or a reply. After its reply every client goes
to the end of the queue, and long zeroing is done a piece a turn.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import selectors
import socket
import stat
import sys
import time
from collections.abc import Generator
from typing import TypeAlias

from hypervisor import nbd_format as f
from hypervisor.errors import HypervisorError
from hypervisor.nbd_export import Export
from hypervisor.nbd_handshake import CONTEXT_ID, Agreed, acknowledge, answer

HANDSHAKE_SECONDS = 10.0
STALLED_SECONDS = 30.0
MAX_CLIENTS = 64
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_KEPT = 1 << 20
"""A buffer up to this size, in bytes, stays with its client between requests."""

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
        data = None
        if command == f.CMD_WRITE:
            if length > f.MAX_REQUEST:
                raise f.Malformed(f"a write of {length} bytes")
            data = self._room(length)
            yield from self._fill(data)
        ret = self._refuse(command, flags, offset, length)
        if ret:
            yield from self._finish(cookie, ret)
        elif command == f.CMD_READ:
            yield from self._read(cookie, offset, length)
        elif command == f.CMD_BLOCK_STATUS:
            yield from self._status(cookie, offset, length, bool(flags & f.CMD_FLAG_REQ_ONE))
        else:
            if data is not None:
                ret = self.export.write(offset, data, length)
            elif command == f.CMD_WRITE_ZEROES:
                for ret in self.export.zero(offset, length, not flags & f.CMD_FLAG_NO_HOLE):
                    if ret < 0:
                        break
                    yield from self._wait(_WRITE)
            if not ret and (command == f.CMD_FLUSH or flags & f.CMD_FLAG_FUA):
                ret = self.export.flush()
            yield from self._finish(cookie, ret)
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

    def _read(self, cookie: int, offset: int, length: int) -> Turn:
        data = self._room(length)
        ret = self.export.read(offset, data, length)
        if ret or (self.agreed.structured and not length):
            yield from self._finish(cookie, ret)
        elif self.agreed.structured:
            size = f.CHUNK_OFFSET.size + length
            head = f.CHUNK.pack(f.CHUNK_MAGIC, f.CHUNK_DONE, f.CHUNK_DATA, cookie, size)
            yield from self._send(head + f.CHUNK_OFFSET.pack(offset), data)
        else:
            yield from self._send(f.SIMPLE_REPLY.pack(f.SIMPLE_REPLY_MAGIC, 0, cookie), data)

    def _status(self, cookie: int, offset: int, length: int, one: bool) -> Turn:
        extents = self.export.status(offset, length, one)
        body = f.LENGTH.pack(CONTEXT_ID) + b"".join(f.EXTENT.pack(*extent) for extent in extents)
        head = f.CHUNK.pack(f.CHUNK_MAGIC, f.CHUNK_DONE, f.CHUNK_BLOCK_STATUS, cookie, len(body))
        yield from self._send(head + body)

    def _finish(self, cookie: int, ret: int) -> Turn:
        """Reply without data: 0 or -errno."""
        error = f.error_number(ret) if ret else 0
        if not self.agreed.structured:
            reply = f.SIMPLE_REPLY.pack(f.SIMPLE_REPLY_MAGIC, error, cookie)
        elif not error:
            reply = f.CHUNK.pack(f.CHUNK_MAGIC, f.CHUNK_DONE, f.CHUNK_NONE, cookie, 0)
        else:
            text = os.strerror(-ret).encode()
            body = f.CHUNK_ERROR.pack(error, len(text)) + text
            reply = f.CHUNK.pack(f.CHUNK_MAGIC, f.CHUNK_DONE, f.CHUNK_IS_ERROR, cookie, len(body)) + body
        yield from self._send(reply)

    def _room(self, length: int) -> memoryview:
        """Memory for a request's data; what it holds is not defined."""
        if len(self._buffer) < length:
            # Not a bytearray: memory that a client announces and does not fill must cost nothing.
            self._buffer = mmap.mmap(-1, length)
        return memoryview(self._buffer)[:length]

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

    def _send(self, head: bytes, data: memoryview | None = None) -> Turn:
        """Send all of it, `data` behind `head`."""
        pieces = [memoryview(head)]
        if data is not None:
            pieces.append(data)
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


class Server:
    """Serves an image on a listening socket.

    Parameters
    ----------
    persistent : bool
        Stay when the last client has left.
    """

    def __init__(self, export: Export, listener: socket.socket, persistent: bool = False) -> None:
        self.export = export
        self.persistent = persistent
        self._listener = listener
        self._clients: dict[Client, None] = {}
        self._selector = selectors.DefaultSelector()
        self._woken, self.waker = socket.socketpair()
        self._woken.setblocking(False)
        self.waker.setblocking(False)
        self._listening = False
        self._end = False

    def stop(self) -> None:
        """End `serve` after the request under way; also from a signal handler or another thread."""
        self._end = True
        with contextlib.suppress(BlockingIOError):
            self.waker.send(b"\0")

    def serve(self) -> None:
        """Serve until stopped or, unless persistent, until the last client has left."""
        self._listener.setblocking(False)
        self._selector.register(self._woken, _READ)
        self._listen(True)
        try:
            while not self._end:
                for key, _ in self._selector.select(self._time_left()):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj is self._woken:
                        self._woken.recv(64)
                    else:
                        self._turn(key.data)
                self._drop_late()
        finally:
            for client in list(self._clients):
                self._drop(client)
            self._selector.close()
            self._woken.close()
            self.waker.close()
            self._listener.close()

    def _listen(self, wanted: bool) -> None:
        """Take connections or leave them waiting in the kernel's queue."""
        if wanted and not self._listening:
            self._selector.register(self._listener, _READ)
        elif self._listening and not wanted:
            self._selector.unregister(self._listener)
        self._listening = wanted

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._listen(False)
            return
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = Client(connection, self.export)
        self._clients[client] = None
        self._selector.register(connection, _READ, client)
        if len(self._clients) >= MAX_CLIENTS:
            self._listen(False)
        self._turn(client)

    def _turn(self, client: Client) -> None:
        """Let a client go on until it waits."""
        try:
            events = next(client.turns)
        except StopIteration:
            self._drop(client)
        except (OSError, f.Malformed) as error:
            self._drop(client, error)
        else:
            if events != client.events:
                client.events = events
                self._selector.modify(client.socket, events, client)

    def _drop(self, client: Client, error: Exception | None = None) -> None:
        if isinstance(error, f.Malformed | TimeoutError):
            print(f"nbd: a client is sent away: {error}", file=sys.stderr, flush=True)
        del self._clients[client]
        self._selector.unregister(client.socket)
        client.turns.close()
        client.socket.close()
        self._listen(True)
        if client.transmitting and not self.persistent:
            self._end |= not any(other.transmitting for other in self._clients)

    def _time_left(self) -> float | None:
        deadlines = [client.deadline for client in self._clients if client.deadline is not None]
        return max(min(deadlines) - time.monotonic(), 0) if deadlines else None

    def _drop_late(self) -> None:
        now = time.monotonic()
        for client in [c for c in self._clients if c.deadline is not None and c.deadline < now]:
            what = "it stopped in the middle of a request" if client.transmitting else "no handshake came"
            self._drop(client, TimeoutError(what))


def listen_tcp(address: str, port: int) -> socket.socket:
    """Listen on a TCP port; 0 has the kernel choose one."""
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family)
    except OverflowError:
        raise HypervisorError(f"there is no port {port}: choose one of 0 to 65535") from None
    except OSError as error:
        why = error.strerror or error
        raise HypervisorError(f"cannot listen on {address} port {port}: {why}; choose another") from error


def listen_unix(path: str) -> socket.socket:
    """Listen on a unix socket that only its owner may use; one that nobody listens on is replaced."""
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        _remove_stale(path)
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise HypervisorError(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(mask)
    listener.listen()
    return listener


def _remove_stale(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)
