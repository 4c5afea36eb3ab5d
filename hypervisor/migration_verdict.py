"""What two machines of ours say to each other behind the stream of a migration; not 0.12.4's.

The real stream goes one way: a source whose last bytes went into the kernel's buffers calls the migration
completed and stands, even if the destination refused them, and nobody sees bytes that were changed. Over a
socket, ours agree first which of the two machines runs:

    source                           destination
    the stream              ->
                            <-       loaded CRC32      all is here, and this is the sum of its bytes
    go, or changed          ->                         from here on the machine runs there, or never there
                            <-       refused: REASON   at any time; the machine goes on at the source

Wherever the connection breaks, at most one of them runs. A real QEMU on either side is no trouble: as a
source it closes behind the stream, and what came is run; as a destination it closes without a word, which
counts as loaded.

- `refusal_so_far`, `hand_over`: the source's part.
- `take_over`, `refuse`: the destination's.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time

WAIT = 10.0
"""Seconds that one waits for a word of the other."""
_DRAIN = 2.0
_LOADED, _GO, _CHANGED, _REFUSED = b"loaded ", b"go", b"changed", b"refused: "
_LONGEST = 4096


def _say(connection: socket.socket, words: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(words + b"\n")


def _hear(connection: socket.socket) -> bytes | None:
    """A line; what came of one before the connection ended; None when nothing comes for long.

    Raises
    ------
    OSError
        The connection broke.
    """
    said, deadline = b"", time.monotonic() + WAIT
    while b"\n" not in said and len(said) < _LONGEST:
        if not select.select([connection], [], [], max(deadline - time.monotonic(), 0))[0]:
            return None
        more = connection.recv(_LONGEST)
        if not more:
            break
        said += more
    return said.partition(b"\n")[0]


def _refusal(line: bytes) -> str:
    return line.removeprefix(_REFUSED).decode("utf-8", "replace") if line.startswith(_REFUSED) else ""


def refusal_so_far(connection: socket.socket) -> str:
    """What the destination has already said against it, while the source is still sending."""
    with contextlib.suppress(OSError):
        if select.select([connection], [], [], 0)[0]:
            said = connection.recv(_LONGEST, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            return _refusal(said.partition(b"\n")[0])
    return ""


def hand_over(connection: socket.socket, checksum: int) -> tuple[str, str]:
    """Have the machine run at the destination, to which all was sent.

    Returns
    -------
    str, str
        Why it does not; empty if it does. What the user should know besides.
    """
    try:
        line = _hear(connection)
    except OSError as error:
        return f"the destination ended before it had loaded all ({error.strerror})", ""
    if line is None:
        return "", f"the destination has not answered in {WAIT:.0f} seconds: see whether it runs there"
    if line == _LOADED + b"%08x" % checksum:
        _say(connection, _GO)
        return "", ""
    if line.startswith(_LOADED):
        _say(connection, _CHANGED)
        return "what came there is not what was sent: it was changed on its way", ""
    if line.startswith(_REFUSED):
        return f"the destination refused: {_refusal(line)}", ""
    return "", "the destination closed without a word, as the real QEMU does: see whether it runs there"


def take_over(connection: socket.socket, checksum: int) -> tuple[bool, str]:
    """Agree with the source that the machine, which is loaded, runs here.

    Returns
    -------
    bool, str
        Whether it is good; and why it should not run unasked though it is.
    """
    try:
        if select.select([connection], [], [], 0)[0] and not connection.recv(1, socket.MSG_PEEK):
            # A real QEMU closes behind the stream.
            return True, ""
        _say(connection, _LOADED + b"%08x" % checksum)
        line = _hear(connection)
    except OSError:
        line = None
    if line == _GO:
        return True, ""
    if line:
        return False, ""
    return True, "the source went before both had agreed: `cont` if the machine does not run there"


def refuse(connection: socket.socket, reason: str) -> None:
    """Tell the source, then let it finish: closing with bytes unread would destroy the answer on its way."""
    _say(connection, _REFUSED + reason.replace("\n", " ").encode())
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + _DRAIN
        while time.monotonic() < deadline:
            if select.select([connection], [], [], 0.1)[0] and not connection.recv(65536):
                return
