"""Whatever goes wrong while a machine moves: one whole machine is left, and nobody hangs.

STUDYKVM_FAULTS says how many times something goes wrong, STUDYKVM_SEED which times.
"""

import os
import random
import re
import socket
import threading
import time

import pytest

from studykvm import guests
from tests.hypervisor.machines import Machine
from tests.hypervisor.test_migration import Side, free_port

COUNT = int(os.environ.get("STUDYKVM_FAULTS", "9"))
SEED = int(os.environ.get("STUDYKVM_SEED", "1"))
KINDS = ("none", "cut", "stall", "slow", "change", "kill destination", "refused port", "full", "cancel")
STREAM = 700_000
"""About as long as the stream of the machine here."""


class Proxy:
    """Carries a migration's bytes, and does something to them at one place."""

    def __init__(self, port, kind, place, act):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port, self.to = self.server.getsockname()[1], port
        self.kind, self.place, self.act = kind, place, act
        threading.Thread(target=self._carry, daemon=True).start()

    def _carry(self):
        self.server.settimeout(30)
        try:
            came, _ = self.server.accept()
            there = socket.create_connection(("127.0.0.1", self.to), 10)
        except OSError:
            return
        threading.Thread(target=self._answers, args=(there, came), daemon=True).start()
        passed = 0
        try:
            while data := came.recv(16384):
                if self.kind == "slow":
                    time.sleep(0.01)
                if passed <= self.place < passed + len(data):
                    at = self.place - passed
                    if self.kind == "change":
                        data = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
                    elif self.kind == "stall":
                        time.sleep(1)
                    elif self.kind == "cut":
                        there.sendall(data[:at])
                        break
                    elif self.kind == "kill destination":
                        self.act()
                there.sendall(data)
                passed += len(data)
            there.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        if self.kind == "cut":
            for end in (came, there):
                end.close()

    @staticmethod
    def _answers(there, came):
        try:
            while data := there.recv(4096):
                came.sendall(data)
            came.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.server.close()


def ended(source):
    """How the migration ended, once it has."""
    limit = time.monotonic() + 40
    while True:
        status = re.findall(r"Migration status: (\w+)", source.ask("info migrate"))
        if status and status[-1] != "active":
            return status[-1]
        assert time.monotonic() < limit, source.running.plain()[-500:]
        time.sleep(0.05)


def is_running(side):
    return side.running.process.poll() is None and side.status() == "running"


def goes_on(source):
    """Whether the source counts on, and has counted without a gap."""
    had = source.numbers().count("\n")
    source.wait_for_numbers(had + 5, seconds=20)
    text = source.numbers()
    numbers = text[re.search(r"^1$", text, re.M).start() :].split("\n")[:-1]
    assert numbers == [str(n) for n in range(1, len(numbers) + 1)]


@pytest.mark.timeout(60 + 8 * COUNT)
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_faults(tmp_path):
    guests.write_count_disk(str(tmp_path / "count.img"), pages=64, turns=20_000)
    started = []

    def machine(*argv):
        started.append(Machine(*argv))
        return started[-1]

    chosen = random.Random(SEED)
    try:
        source = Side(machine, tmp_path, "source", memory="8")
        source.wait_for_numbers(20)
        for number in range(COUNT):
            kind = KINDS[number % len(KINDS)]
            one_fault(source, machine, tmp_path, kind, chosen, f"destination{number}")
            goes_on(source)
        source.stop()
    finally:
        for running in started:
            running.process.kill()
            running.process.communicate()


def one_fault(source, machine, folder, kind, chosen, name):
    if kind in ("refused port", "full"):
        uri = f"tcp:127.0.0.1:{free_port()}" if kind == "refused port" else '"exec:cat > /dev/full"'
        source.ask(f"migrate {uri}", seconds=60)
        assert ended(source) == "failed" and is_running(source)
        return
    port = free_port()
    destination = Side(machine, folder, name, "-incoming", f"tcp:127.0.0.1:{port}", memory="8")
    proxy = Proxy(port, kind, chosen.randrange(STREAM), destination.running.process.kill)
    source.ask("migrate_set_speed 32m")
    if kind == "cancel":
        source.ask("migrate_set_speed 1m")
        source.ask(f"migrate -d tcp:127.0.0.1:{proxy.port}")
        time.sleep(chosen.random() / 2)
        source.ask("migrate_cancel")
    else:
        source.ask(f"migrate tcp:127.0.0.1:{proxy.port}", seconds=60)
    how = ended(source)
    here = is_running(source)
    there = is_running(destination)
    assert not (here and there), (kind, how)
    assert here == (how != "completed"), (kind, how)
    if kind in ("none", "stall", "slow"):
        assert how == "completed" and there
    if there and kind != "change":
        destination.wait_for_numbers(5)
        told = (source.numbers() + destination.numbers()).split("\n")
        numbers = [int(line) for line in told[-20:-1]]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    elif not there and destination.running.process.poll() is None:
        assert "is incomplete" in destination.ask("cont") or destination.status() == "running"
    proxy.close()
    destination.running.process.kill()
    destination.running.process.communicate()
    if not here:
        # The machine here is whole: it goes on as if it had never been sent.
        source.ask("cont")
