"""Serves one image to NBD clients, all from one thread: every request in its turn, none waits for a client.

- ``Server(export, listener, persistent)``: ``serve()`` returns when the last client has left, or ``stop()``
- ``listen_tcp(address, port)``, ``listen_unix(path)``: the sockets

::

    Server.serve ── selector ──► a turn of a Client, which ends where its socket would block

At most 16 clients are served, which bounds what their requests take; more wait in the kernel's queue. After
its reply every client goes to the end of the queue. Clients past their deadline are sent away.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import sys
import time

from hypervisor import nbd_format as f
from hypervisor.errors import HypervisorError
from hypervisor.nbd_client import Client
from hypervisor.nbd_export import Export
from hypervisor.qemu_sockets import private_bind

MAX_CLIENTS = 16
_READ = selectors.EVENT_READ


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
        except (OSError, HypervisorError, f.Malformed) as error:
            self._drop(client, error)
        else:
            if events != client.events:
                client.events = events
                self._selector.modify(client.socket, events, client)

    def _drop(self, client: Client, error: Exception | None = None) -> None:
        if isinstance(error, f.Malformed | HypervisorError | TimeoutError):
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
    """Listen on a TCP port; 0 has the kernel choose one.

    Raises
    ------
    HypervisorError
        When that cannot be, with the reason.
    """
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family)
    except OverflowError:
        raise HypervisorError(f"there is no port {port}: choose one of 0 to 65535") from None
    except OSError as error:
        why = error.strerror or error
        raise HypervisorError(f"cannot listen on {address} port {port}: {why}; choose another") from error


def listen_unix(path: str) -> socket.socket:
    """Listen on a unix socket that only its owner may use; one that nobody listens on is replaced.

    Raises
    ------
    HypervisorError
        When that cannot be: a path that is too long, taken, or not to be written.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        private_bind(listener, path)
    except OSError as error:
        listener.close()
        raise HypervisorError(
            f"cannot listen on {path}: {error.strerror or error}; choose another"
        ) from error
    listener.listen()
    return listener
