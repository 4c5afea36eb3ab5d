"""What the destination of a migration answers, and how long the source waits for it; ours, not 0.12.4's.

The real stream goes one way: a source whose last bytes went into the kernel's buffers calls the migration
completed and stands, even if the destination refused them. Over a socket, a destination of ours answers with
one line:

    ok                     the machine is loaded
    refused: REASON        it is not, and the source may go on

A real QEMU on either side is no trouble: as a source it never reads, as a destination it just closes.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time

WAIT = 10.0
"""Seconds that the source waits after its last byte."""
_DRAIN = 2.0


def answer(connection: socket.socket, refusal: str) -> None:
    """Tell the source, then let it finish: closing with bytes unread would destroy the answer on its way."""
    with contextlib.suppress(OSError):
        connection.sendall(f"refused: {refusal}\n".encode() if refusal else b"ok\n")
        connection.shutdown(socket.SHUT_WR)
        if not refusal:
            return
        deadline = time.monotonic() + _DRAIN
        while time.monotonic() < deadline:
            if select.select([connection], [], [], 0.1)[0] and not connection.recv(65536):
                return


def refusal_so_far(connection: socket.socket) -> str:
    """What the destination has already said against it, while the source is still sending."""
    with contextlib.suppress(OSError):
        if select.select([connection], [], [], 0)[0]:
            return _refusal(connection.recv(4096, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    return ""


def await_answer(connection: socket.socket) -> tuple[str, str]:
    """Wait for the answer to all that was sent.

    Returns
    -------
    str, str
        Why the machine was refused; empty if it was not. What the user should know besides.
    """
    said = b""
    deadline = time.monotonic() + WAIT
    try:
        connection.shutdown(socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([connection], [], [], left)[0]:
                continue
            more = connection.recv(4096)
            said += more
            if not more or b"\n" in said:
                return _refusal(said), ""
    except OSError as error:
        return f"the destination ended before it had loaded all ({error.strerror})", ""
    return (
        "",
        f"the destination has not answered in {WAIT:.0f} seconds: see whether it runs there",
    )


def _refusal(said: bytes) -> str:
    text = said.decode("utf-8", "replace").strip()
    return text.removeprefix("refused:").strip() if text.startswith("refused:") else ""
