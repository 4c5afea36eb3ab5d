"""Machines to be moved, and what may happen to the bytes between them; for tools/migration_faults.py.

- `Machine(folder, name, ...)`: a `studykvm boot` of the guest that counts, its monitor on standard streams.
- `Between(kind, place, ...)`: carries the bytes of a migration, and does something at one place.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SILENCE, WAIT = 6.0, 8.0
"""Seconds after which machines here give the other side up; else 30 and 10."""
_PROMPT = b"(qemu) "
# Runs before the program: shorter waits, and a disk that is full after some bytes.
_BEGIN = """
import errno, os, sys
import hypervisor.migration_verdict, hypervisor.savevm_file
hypervisor.savevm_file.SILENCE, hypervisor.migration_verdict.WAIT = {silence}, {wait}
left = {room}
def limited(real):
    def write(fd, data, *where):
        global left
        if os.readlink(f"/proc/self/fd/{{fd}}").endswith(".img"):
            left -= sum(map(len, data)) if isinstance(data, list) else len(data)
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, *where)
    return write
if left is not None:
    for name in ("write", "pwrite", "writev", "pwritev"):
        setattr(os, name, limited(getattr(os, name)))
from studykvm.cli import main
sys.exit(main())
"""


class Stuck(Exception):
    """Something did not happen in time."""


def wait_until(holds: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait for a condition.

    Raises
    ------
    Stuck
        It did not come.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise Stuck(f"{what}: not within {seconds:.0f} seconds")
        time.sleep(0.01)


class Machine:
    """A running machine.

    Parameters
    ----------
    folder : Path
        Where its output goes, as NAME.out, NAME.err and NAME.txt, the last with the guest's numbers.
    room : int, optional
        Bytes after which its disks are full.
    """

    def __init__(
        self, folder: Path, name: str, disk: Path, *argv: str, memory: int = 8, room: int | None = None
    ) -> None:
        self.name = name
        self.out, self.err, self.serial = (folder / f"{name}.{end}" for end in ("out", "err", "txt"))
        begin = _BEGIN.format(silence=SILENCE, wait=WAIT, room=room)
        command = [sys.executable, "-c", begin, "boot", "-m", str(memory), "-hda", str(disk), "-nographic"]
        command += ["-net", "none", "-monitor", "stdio", "-serial", f"file:{self.serial}", *argv]
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=err,
                env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
            )  # fmt: skip
        self.seen = 0
        wait_until(lambda: _PROMPT in self._new() or not self.alive, f"the monitor of the {name}")
        self.seen = self.out.stat().st_size

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def _new(self) -> bytes:
        with open(self.out, "rb") as out:
            out.seek(self.seen)
            return out.read()

    def say(self, command: str) -> None:
        """Type a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, command: str, seconds: float = 60.0) -> str:
        """Type a command; what it prints."""
        self.seen = self.out.stat().st_size
        self.say(command)
        wait_until(lambda: _PROMPT in self._new() or not self.alive, f"{self.name}: {command}", seconds)
        # The line shows anew with every letter; what is printed stands behind the last.
        return re.split(rb"\x1b\[K\r?\n", self._new())[-1].decode("latin-1")

    def status(self) -> str:
        """What `info status` says; "ended" when the process has."""
        if not self.alive:
            return "ended"
        found = re.search(r"VM status: (\w+)", self.ask("info status"))
        return found[1] if found else "unknown"

    def complaints(self, start: int = 0) -> str:
        """What was printed on standard error, from a place on."""
        return self.err.read_bytes()[start:].decode("utf-8", "replace")

    def numbers(self) -> list[int]:
        """The guest's numbers so far, whole lines."""
        text = self.serial.read_text(errors="replace") if self.serial.exists() else ""
        return [int(line) for line in re.findall(r"^(\d+)\n", text, re.M)]

    def children(self) -> list[str]:
        """Processes that it started and that still run."""
        found = []
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += task.read_text().split()
        return found

    def quit(self) -> int:
        """Type `quit` and wait; the exit status."""
        with contextlib.suppress(OSError):
            self.say("quit")
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            raise Stuck(f"{self.name}: does not quit") from None

    def kill(self) -> None:
        """End it, and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


def _connect(to: tuple[str, int] | str) -> socket.socket:
    line = socket.socket(socket.AF_UNIX if isinstance(to, str) else socket.AF_INET)
    line.settimeout(20)
    line.connect(to)
    return line


class Between:
    """Carries what two machines say to each other.

    Parameters
    ----------
    at, to : (str, int) or str
        Where the source connects, and where the destination listens: host and port, or the path of a socket.
    kind : str
        What happens when byte `place` of the stream comes by; anything unknown calls `act`.
    """

    def __init__(
        self,
        at: tuple[str, int] | str,
        to: tuple[str, int] | str,
        kind: str,
        place: int,
        chosen: random.Random,
        act: Callable[[], None],
    ) -> None:
        self.server = socket.socket(socket.AF_UNIX if isinstance(at, str) else socket.AF_INET)
        self.server.bind(at)
        self.server.listen(1)
        self.server.settimeout(30)
        self.at, self.to, self.kind, self.place, self.chosen, self.act = at, to, kind, place, chosen, act
        self.over = threading.Event()
        self.passed = 0
        threading.Thread(target=self._carry, daemon=True).start()

    @property
    def uri(self) -> str:
        """What to `migrate` to."""
        if isinstance(self.at, str):
            return f"unix:{self.at}"
        return "tcp:{}:{}".format(*self.server.getsockname())

    def _carry(self) -> None:
        with contextlib.suppress(OSError):
            came, _ = self.server.accept()
            with came, _connect(self.to) as there:
                back = threading.Thread(target=self._answers, args=(there, came), daemon=True)
                back.start()
                try:
                    if self._pass(came, there):
                        there.shutdown(socket.SHUT_WR)
                        back.join(20)
                finally:
                    # Closing alone does nothing while the other thread waits for more.
                    with contextlib.suppress(OSError):
                        there.shutdown(socket.SHUT_RD if self.kind == "reset" else socket.SHUT_RDWR)
                    back.join(5)

    def _pass(self, came: socket.socket, there: socket.socket) -> bool:
        """Carry bytes to the destination; False if the connection was broken."""
        came.settimeout(None)
        while data := came.recv(16384):
            if self.kind == "slow":
                time.sleep(0.01)
            at = self.place - self.passed
            self.passed += len(data)
            if 0 <= at < len(data):
                there.sendall(data[:at])
                data = data[at:]
                if self.kind == "reset":
                    for end in (came, there):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if self.kind in ("cut", "reset"):
                    return False
                data = self._happens(data)
            there.sendall(data)
        return True

    def _happens(self, data: bytes) -> bytes:
        if self.kind == "change":
            return self._changed(data)
        if self.kind == "stall":
            time.sleep(SILENCE / 4)
        elif self.kind == "hang":
            self.over.wait(20)
        else:
            self.act()
        return data

    def _changed(self, data: bytes) -> bytes:
        how = self.chosen.choice(("bit", "byte", "run", "lost", "more"))
        if how == "bit":
            return bytes([data[0] ^ 1 << self.chosen.randrange(8)]) + data[1:]
        if how == "byte":
            return bytes([data[0] ^ self.chosen.randrange(1, 256)]) + data[1:]
        length = min(self.chosen.randrange(1, 64), len(data))
        if how == "run":
            return bytes(byte ^ 0xFF for byte in data[:length]) + data[length:]
        return data[length:] if how == "lost" else data[:length] + data

    def _answers(self, there: socket.socket, came: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := there.recv(4096):
                came.sendall(data)
            if self.kind != "reset":
                came.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End it."""
        self.over.set()
        self.server.close()
