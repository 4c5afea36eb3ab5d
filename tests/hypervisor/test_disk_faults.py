"""The host's disk fails under a running guest: the guest sees it, or the machine waits to be mended."""

import errno
import os
import socket
import threading

import pytest

from hypervisor import posix_aio_compat
from hypervisor.boot import run_boot
from tests.hypervisor import guest_code as asm
from tests.hypervisor.machines import until

SECTOR = 512
READ = ("preadv", "pread")
WRITE = ("pwritev", "pwrite")


class Host:
    """A host whose disk refuses some functions from sector 7 on, until it is mended."""

    def __init__(self, monkeypatch):
        self.errors = {}
        for function in READ + WRITE:
            monkeypatch.setattr(posix_aio_compat.os, function, self.wrap(function, getattr(os, function)))

    def wrap(self, function, real):
        def call(fd, buffers, offset, *rest):
            code = self.errors.get(function)
            if code and offset >= 7 * SECTOR and os.readlink(f"/proc/self/fd/{fd}").endswith(".img"):
                raise OSError(code, os.strerror(code))
            return real(fd, buffers, offset, *rest)

        return call

    def fail(self, functions, code):
        self.errors = dict.fromkeys(functions, code)

    def mend(self):
        self.errors = {}


@pytest.fixture
def host(monkeypatch):
    return Host(monkeypatch)


class Monitor(threading.Thread):
    """Somebody at the monitor, who mends the disk when the machine has stopped and says cont."""

    def __init__(self, path, host):
        super().__init__(daemon=True)
        self.path, self.host, self.heard = path, host, []

    def run(self):
        wire = socket.socket(socket.AF_UNIX)
        wire.settimeout(20)
        until(lambda: not wire.connect_ex(str(self.path)))
        self.read(wire)
        until(lambda: "paused" in self.ask(wire, "info status"))
        self.ask(wire, "info block")
        self.host.mend()
        wire.sendall(b"cont\n")

    def ask(self, wire, command):
        wire.sendall(command.encode() + b"\n")
        return self.read(wire)

    def read(self, wire):
        text = ""
        while not text.endswith("(qemu) "):
            text += wire.recv(4096).decode()
        self.heard.append(text)
        return text


def cases():
    read = asm.lba(0x42, 1, 8, 0x8000) + asm.put_result() + asm.put_bytes(0x8000, 4) + asm.OFF
    write = asm.lba(0x43, 1, 8, 0x7C00) + asm.put_result() + asm.OFF
    yield pytest.param(read, READ, errno.EIO, "rerror=stop", "KAAgood", id="a read fails")
    yield pytest.param(write, WRITE, errno.EIO, "werror=stop", "KAA", id="a write fails")
    yield pytest.param(write, WRITE, errno.ENOSPC, "werror=enospc", "KAA", id="no room")


@pytest.mark.parametrize(("code", "functions", "error", "option", "shown"), list(cases()))
def test_a_machine_that_stops_answers_its_monitor_and_goes_on_when_mended(
    tmp_path, host, code, functions, error, option, shown
):
    disk = asm.write_disk(tmp_path / "d.img", code, rest=bytes(7 * SECTOR) + b"good")
    host.fail(functions, error)
    monitor = Monitor(tmp_path / "monitor", host)
    monitor.start()
    server = f"unix:{monitor.path},server,nowait"
    options = ["-drive", f"file={disk},{option}", "-monitor", server, "-net", "none", "-m", "4"]
    result = run_boot(options, 30)
    monitor.join(10)
    assert result.reason == "guest", monitor.heard
    assert shown in result.screen
    assert "VM status: paused" in "".join(monitor.heard)
    assert f"file={disk}" in monitor.heard[-1]
    if functions == WRITE:
        image = open(disk, "rb").read()
        assert image[8 * SECTOR : 9 * SECTOR] == image[:SECTOR]


@pytest.mark.parametrize(
    ("option", "functions", "error"),
    [
        ("werror=report", WRITE, errno.ENOSPC),
        ("werror=enospc", WRITE, errno.EIO),
        ("rerror=report", READ, errno.EIO),
    ],
    ids=["full, reported", "broken, not full", "read, reported"],
)
def test_the_guest_sees_an_error_of_its_disk(tmp_path, host, option, functions, error):
    call = asm.lba(0x43 if functions == WRITE else 0x42, 1, 8, 0x7C00 if functions == WRITE else 0x8000)
    disk = asm.write_disk(tmp_path / "d.img", call + asm.put_result() + asm.OFF)
    host.fail(functions, error)
    result = run_boot(["-drive", f"file={disk},{option}", "-net", "none", "-m", "4"], 30)
    assert result.reason == "guest"
    # The call's carry flag is set; nothing of the sector is on the disk.
    assert result.screen.splitlines()[-1].startswith("E")
    assert open(disk, "rb").read()[8 * SECTOR : 9 * SECTOR] == bytes(SECTOR)
