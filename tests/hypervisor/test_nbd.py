"""Images served over NBD: to Debian's own clients, a real QEMU, and clients that do all things wrong."""

import contextlib
import errno
import os
import random
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from hypervisor import nbd_format as f
from tests.hypervisor.guest_code import ENVIRONMENT
from tracer import load

MIB = 1 << 20
needs_libnbd = pytest.mark.skipif(
    not (shutil.which("nbdinfo") and shutil.which("nbdcopy")), reason="apt-get install libnbd-bin"
)
needs_qemu = pytest.mark.skipif(
    not (shutil.which("qemu-img") and shutil.which("qemu-io")), reason="apt-get install qemu-utils"
)


class Serving:
    """A server in its own process."""

    def __init__(self, folder, image, *options):
        self.path = folder / "nbd.sock"
        command = [sys.executable, "-m", "studykvm", "nbd", "--socket", str(self.path), *options, str(image)]
        self.process = subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.announced = self.process.stdout.readline()
        self.uri = f"nbd+unix:///?socket={self.path}"

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(str(self.path))
        return client

    def end(self):
        """Stop it by a signal; its exit status and what it said on stderr."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=20)
        return self.process.returncode, said


@pytest.fixture
def serve(tmp_path):
    with contextlib.ExitStack() as stack:

        def start(image, *options):
            server = Serving(tmp_path, image, *options)
            stack.callback(server.process.communicate)
            stack.callback(server.process.kill)
            assert server.announced.startswith("serving "), server.process.communicate()
            return server

        yield start


def run(*command, **options):
    done = subprocess.run([str(w) for w in command], capture_output=True, text=True, timeout=60, **options)
    assert done.returncode == 0, done
    return done.stdout


@pytest.fixture
def data():
    """Two MiB: random bytes, a hole, random bytes."""
    noise = random.Random(4)
    return noise.randbytes(MIB // 2) + bytes(MIB) + noise.randbytes(MIB // 2)


def image_of(folder, data, fmt):
    raw, image = folder / "data", folder / f"image.{fmt}"
    raw.write_bytes(data)
    run("qemu-img", "convert", "-O", fmt, raw, image)
    return image


class Wire:
    """A client that sends what it is told, in the test's own reading of the protocol."""

    def __init__(self, server, structured=False):
        self.socket = server.connect()
        assert self.take(18) == b"NBDMAGICIHAVEOPT\0\3"
        self.socket.sendall(struct.pack(">I", 3))
        if structured:
            assert self.option(8) == [(1, b"")]

    def take(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise EOFError(data)
            data += piece
        return data

    def option(self, number, data=b""):
        """Send an option; its replies as (type, data)."""
        self.socket.sendall(struct.pack(">QII", 0x49484156454F5054, number, len(data)) + data)
        replies = []
        while not replies or replies[-1][0] in (2, 3, 4):
            magic, echoed, kind, length = struct.unpack(">QIII", self.take(20))
            assert (magic, echoed) == (0x3E889045565A9, number)
            replies.append((kind, self.take(length)))
        return replies

    def go(self):
        """Begin with requests; the export's size and flags."""
        replies = dict(self.option(7, struct.pack(">IH", 0, 0)))
        assert 1 in replies
        return self

    def ask(self, command, offset=0, length=0, data=b"", flags=0):
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, flags, command, 7, offset, length) + data)

    def reply(self, length=0):
        """Take a simple reply: error, data."""
        magic, error, cookie = struct.unpack(">IIQ", self.take(16))
        assert (magic, cookie) == (0x67446698, 7)
        return error, b"" if error else self.take(length)

    def gone(self):
        """Whether the server has hung up."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


READ, WRITE, FLUSH, TRIM, ZERO, STATUS = 0, 1, 3, 4, 6, 7


@needs_libnbd
@needs_qemu
@pytest.mark.parametrize("fmt", ["raw", "qcow", "qcow2"])
def test_libnbd_copies_an_image_out_and_in(tmp_path, serve, data, fmt):
    server = serve(image_of(tmp_path, data, fmt), "-t", "-f", fmt)
    assert f"export-size: {len(data)} (2M)" in run("nbdinfo", server.uri)
    copied, back = tmp_path / "copied", tmp_path / "back"
    run("nbdcopy", server.uri, copied)
    assert copied.read_bytes() == data
    other = data[::-1]
    copied.write_bytes(other)
    run("nbdcopy", "--flush", copied, server.uri)
    run("nbdcopy", server.uri, back)
    assert back.read_bytes() == other
    assert server.end() == (0, "")
    run("qemu-img", "compare", "-f", "raw", "-F", fmt, copied, tmp_path / f"image.{fmt}")
    if fmt == "qcow2":
        assert "No errors" in run("qemu-img", "check", tmp_path / "image.qcow2")


@needs_libnbd
@needs_qemu
def test_map_tells_holes_from_data_through_the_chain(tmp_path, serve, data):
    base = image_of(tmp_path, data, "qcow2")
    overlay = tmp_path / "overlay.qcow2"
    # The overlay is 1 MiB longer than its base: what lies behind that reads as zeros.
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay, "3M")
    run("qemu-io", "-c", "write -P 9 1M 64k", overlay)
    server = serve(overlay, "-t")
    lines = [tuple(map(int, line.split()[:3])) for line in run("nbdinfo", "--map", server.uri).splitlines()]
    half, hole = MIB // 2, 3
    assert lines == [
        (0, half, 0),
        (half, half, hole),
        (MIB, 64 << 10, 0),
        (MIB + (64 << 10), half - (64 << 10), hole),
        (MIB + half, half, 0),
        (2 * MIB, MIB, hole),
    ]


@needs_qemu
def test_qemus_tools_use_it(tmp_path, serve, data):
    image = tmp_path / "new.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "2M")
    (tmp_path / "data").write_bytes(data)
    server = serve(image, "-t", "--trace", str(tmp_path / "nbd.trace"))
    run("qemu-img", "convert", "-n", "-O", "raw", tmp_path / "data", server.uri)
    shown = run(
        "qemu-io",
        *("-f", "raw", "-c", "read -P 0 512k 1M", "-c", "write -P 5 1000 3000", "-c", "flush"),
        *("-c", "read -P 5 1000 3000", "-c", "write -z 0 1M", "-c", "discard 0 64k", "-c", "read -P 0 0 1M"),
        server.uri,
    )
    assert "Pattern verification failed" not in shown
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", server.uri, server.uri)
    assert server.end() == (0, "")
    assert "No errors" in run("qemu-img", "check", image)
    expected = bytes(MIB) + data[MIB:]
    run("qemu-img", "convert", "-O", "raw", image, tmp_path / "after")
    assert (tmp_path / "after").read_bytes() == expected
    calls = load(tmp_path / "nbd.trace").functions
    assert {"bdrv_open2", "bdrv_read", "bdrv_write", "bdrv_flush"} <= {one.name for one in calls.values()}


def grub_disk(folder):
    """A disk whose GRUB prints a file of its FAT partition on the serial line and halts."""
    modules = Path("/usr/lib/grub/i386-pc")
    if not (modules.is_dir() and shutil.which("grub-mkimage") and shutil.which("mcopy")):
        pytest.skip("apt-get install grub-pc-bin grub-common mtools")
    script, core, disk, file = (folder / name for name in ("grub.cfg", "core.img", "disk.img", "hello.txt"))
    file.write_text("read through the traced block layer\n")
    script.write_text("serial\nterminal_output serial\ncat (hd0,msdos1)/hello.txt\nhalt\n")
    used = "biosdisk part_msdos fat cat serial terminal halt echo"
    run("grub-mkimage", "-O", "i386-pc", "-p", "/boot", "-c", script, "-o", core, *used.split())
    first = 2048
    with open(disk, "wb") as made:
        made.truncate(8 * MIB)
        made.write((modules / "boot.img").read_bytes()[:440])
        made.seek(446)
        made.write(
            struct.pack("<BxxxBxxxII", 0x80, 6, first, 8 * MIB // 512 - first) + bytes(48) + b"\x55\xaa"
        )
        assert made.tell() == 512
        made.write(core.read_bytes())
        assert made.tell() < first * 512
    at = f"{disk}@@{first * 512}"
    run("mformat", "-i", at, "-T", str(8 * MIB // 512 - first), "-h", "16", "-s", "63", "-H", str(first))
    run("mcopy", "-i", at, file, "::hello.txt")
    return disk


@needs_qemu
@pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="apt-get install qemu-system-x86")
def test_a_real_qemu_boots_grub_from_an_overlay(tmp_path, serve):
    disk, overlay = grub_disk(tmp_path), tmp_path / "overlay.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", overlay)
    before = disk.read_bytes()
    server = serve(overlay, "--trace", str(tmp_path / "boot.trace"))
    shown = run(
        "qemu-system-x86_64",
        *("-accel", "tcg", "-display", "none", "-serial", "stdio", "-no-reboot", "-net", "none"),
        *("-drive", f"if=ide,format=raw,file={server.uri}"),
        stdin=subprocess.DEVNULL,
    )
    assert "read through the traced block layer" in shown
    # The last client has left: so does the server, by itself.
    assert server.process.wait(timeout=20) == 0
    assert disk.read_bytes() == before
    reads = [call for call in load(tmp_path / "boot.trace").calls() if call.function == "bdrv_read"]
    assert any(call.args["sector_num"] == 0 for call in reads)
    assert any(call.args["sector_num"] >= 2048 for call in reads)


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


def test_every_command_by_hand(serve, disk):
    server = serve(disk, "-t")
    wire = Wire(server).go()
    wire.ask(READ, 512, 512)
    assert wire.reply(512) == (0, bytes(range(256)) * 2)
    wire.ask(WRITE, 1000, 100, b"x" * 100, flags=1)
    assert wire.reply() == (0, b"")
    assert disk.read_bytes()[999:1101] == bytes([999 % 256]) + b"x" * 100 + bytes([1100 % 256])
    wire.ask(ZERO, 1000, 600)
    assert wire.reply() == (0, b"")
    assert disk.read_bytes()[1000:1601] == bytes(600) + bytes([1600 % 256])
    for command in (FLUSH, TRIM):
        wire.ask(command, 0, 0)
        assert wire.reply() == (0, b"")
    wire.ask(READ, 700, 3)
    assert wire.reply(3) == (0, bytes([700 % 256, 701 % 256, 702 % 256]))
    wire.ask(2)
    assert wire.gone()


def test_several_requests_at_once_are_answered_in_turn(serve, disk):
    wire = Wire(serve(disk, "-t")).go()
    for sector in range(50):
        wire.ask(READ, sector, 1)
    assert [wire.reply(1) for _ in range(50)] == [(0, bytes([n])) for n in range(50)]


@pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])
def test_requests_side_by_side_in_one_packet_each_get_their_own(serve, disk, structured):
    """What the server may serve together: neighbours, gaps, a change of direction, empty ones, the end."""
    expected = bytearray(disk.read_bytes())
    noise = random.Random(7)
    packet, answers, at = b"", [], 0
    for number in range(300):
        if noise.random() < 0.3 or at > MIB - 5000:
            at = noise.choice([0, 512, 777, 4096, MIB - 6000])
        command = WRITE if number % 40 > 20 else READ
        length = noise.choice([0, 1, 511, 512, 512, 512, 1024, 5000])
        packet += struct.pack(">IHHQQI", 0x25609513, 0, command, number, at, length)
        if command == WRITE:
            written = noise.randbytes(length)
            packet += written
            expected[at : at + length] = written
        answers.append((number, at, b"" if command == WRITE else bytes(expected[at : at + length])))
        at += length
    wire = Wire(serve(disk, "-t"), structured).go()
    wire.socket.sendall(packet)
    for number, at, content in answers:
        if not structured:
            assert wire.take(16) == struct.pack(">IIQ", 0x67446698, 0, number)
        elif content:
            head = struct.pack(">IHHQIQ", 0x668E33EF, 1, 1, number, 8 + len(content), at)
            assert wire.take(28) == head
        else:
            assert wire.take(20) == struct.pack(">IHHQI", 0x668E33EF, 1, 0, number, 0)
        assert wire.take(len(content)) == content
    assert disk.read_bytes() == expected


def test_refusals_leave_the_connection_usable(serve, disk):
    wire = Wire(serve(disk, "-t")).go()
    end = disk.stat().st_size
    wrong = [
        ((READ, end - 512, 1024), errno.EINVAL),
        ((READ, 1 << 63, 512), errno.EINVAL),
        ((READ, 0, 33 * MIB), errno.EINVAL),
        ((WRITE, end, 512, b"y" * 512), errno.ENOSPC),
        ((ZERO, end - 1, 2), errno.ENOSPC),
        ((STATUS, 0, 512), errno.EINVAL),
        ((99, 0, 0), errno.EINVAL),
        ((READ, 0, 512, b"", 0x4000), errno.EINVAL),
        ((WRITE, 0, 512, b"y" * 512, 0x4000), errno.EINVAL),
    ]
    before = disk.read_bytes()
    for request, error in wrong:
        wire.ask(*request)
        assert wire.reply() == (error, b""), request
    wire.ask(READ, 0, 4)
    assert wire.reply(4) == (0, b"\0\1\2\3")
    assert disk.read_bytes() == before


def test_a_read_only_export_refuses_to_change(serve, disk):
    server = serve(disk, "-t", "--read-only")
    wire = Wire(server).go()
    before = disk.read_bytes()
    for command, data in ((WRITE, b"y" * 512), (ZERO, b""), (TRIM, b"")):
        wire.ask(command, 0, 512, data)
        assert wire.reply() == (errno.EPERM, b"")
    wire.ask(READ, 0, 4)
    assert wire.reply(4) == (0, b"\0\1\2\3")
    assert disk.read_bytes() == before


def test_structured_replies_carry_data_errors_and_status(serve, disk):
    wire = Wire(serve(disk, "-t"), structured=True)
    query = struct.pack(">IIII", 0, 1, 15, 0)[:12] + b"base:allocation"
    (context, acknowledged) = wire.option(10, query)
    assert context[0] == 4 and context[1][4:] == b"base:allocation" and acknowledged == (1, b"")
    wire.go()

    def chunk():
        magic, flags, kind, cookie, length = struct.unpack(">IHHQI", wire.take(20))
        assert (magic, flags, cookie) == (0x668E33EF, 1, 7)
        return kind, wire.take(length)

    wire.ask(READ, 256, 2)
    assert chunk() == (1, struct.pack(">Q", 256) + b"\0\1")
    wire.ask(FLUSH)
    assert chunk() == (0, b"")
    wire.ask(READ, 1 << 40, 2)
    kind, data = chunk()
    assert kind == 0x8001 and struct.unpack_from(">I", data) == (errno.EINVAL,)
    wire.ask(STATUS, 100, 10_000)
    assert chunk() == (5, context[1][:4] + struct.pack(">II", 10_000, 0))


def test_options_of_the_handshake(serve, disk):
    server = serve(disk, "-t")
    wire = Wire(server)
    unsupported, invalid, unknown = 0x80000001, 0x80000003, 0x80000006
    assert [kind for kind, _ in wire.option(3)] == [2, 1]
    assert wire.option(3, b"junk")[0][0] == invalid
    assert wire.option(5)[0][0] == unsupported  # TLS
    assert wire.option(4711, b"what")[0][0] == unsupported
    assert wire.option(6, struct.pack(">I", 4) + b"nobo\0\0")[0][0] == unknown
    assert wire.option(6, struct.pack(">I", 400) + b"no")[0][0] == invalid
    assert wire.option(10, struct.pack(">II", 0, 0))[0][0] == invalid  # before structured replies
    size, flags = struct.unpack_from(">QH", dict(wire.option(6, struct.pack(">IHH", 0, 1, 0)))[3], 0) or (
        0,
        0,
    )
    assert wire.option(2) == [(1, b"")]
    assert wire.gone()
    wire = Wire(server)
    wire.socket.sendall(struct.pack(">QII", 0x49484156454F5054, 1, 0))
    size, flags = struct.unpack(">QH", wire.take(10))
    assert size == MIB and flags & 1
    wire.ask(READ, 0, 4)
    assert wire.reply(4) == (0, b"\0\1\2\3")
    wire = Wire(server)
    wire.socket.sendall(struct.pack(">QII", 0x49484156454F5054, 1, 3) + b"abc")
    assert wire.gone()


GARBAGE = {
    "http": b"GET / HTTP/1.0\r\n\r\n" * 4,
    "noise": random.Random(1).randbytes(4096),
    "flags": b"\xff" * 4,
    "bad option magic": struct.pack(">I", 3) + bytes(16),
    "endless option": struct.pack(">IQII", 3, 0x49484156454F5054, 3, 0xFFFFFFFF),
    "bad request magic": struct.pack(">IQII", 3, 0x49484156454F5054, 1, 0) + b"\x25" * 28,
    "endless write": struct.pack(">IQII", 3, 0x49484156454F5054, 1, 0)
    + struct.pack(">IHHQQI", 0x25609513, 0, 1, 7, 0, 0xFFFFFFFF),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_a_malformed_client_is_sent_away_and_no_other_notices(serve, disk, name):
    server = serve(disk, "-t")
    other = Wire(server).go()
    with server.connect() as client:
        client.sendall(GARBAGE[name])
        received = b"."
        with contextlib.suppress(ConnectionResetError):
            while received:
                received = client.recv(4096)
    other.ask(READ, 0, 4)
    assert other.reply(4) == (0, b"\0\1\2\3")
    status, said = server.end()
    assert status == 0 and "a client is sent away" in said and "Traceback" not in said


def resident(server):
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_clients_that_stall_cost_nobody_anything(serve, disk):
    """Silent, half a request, half a payload, never reading: three of each; and one that works."""
    with open(disk, "r+b") as grown:
        grown.truncate(64 * MIB)
    server = serve(disk, "-t")
    worker = Wire(server).go()
    worker.ask(READ, 0, 4)
    assert worker.reply(4)[0] == 0
    before = resident(server)
    stalled = []
    for _ in range(3):
        stalled.append(server.connect())
        half = Wire(server).go()
        half.socket.sendall(struct.pack(">IH", 0x25609513, 0))
        payload = Wire(server).go()
        payload.ask(WRITE, 0, 32 * MIB, b"z" * 1000)
        deaf = Wire(server).go()
        for _ in range(20):
            deaf.ask(READ, 0, MIB)
        stalled += [half, payload, deaf]
    worker.socket.settimeout(8)  # less than the server's patience with any of the others
    for sector in range(100):
        worker.ask(READ, sector * 512, 512)
        assert worker.reply(512)[0] == 0
    # One request's memory for each deaf one, and little for those that have sent little.
    assert resident(server) - before < (3 * 1 + 12) * MIB
    assert disk.read_bytes()[:4] == b"\0\1\2\3"
    assert server.end()[0] == 0


def test_time_runs_out_for_a_silent_handshake_and_half_a_request(disk, monkeypatch, capfd):
    import threading

    from hypervisor import nbd_client, nbd_server
    from hypervisor.block import bdrv_delete, bdrv_file_open, bdrv_init
    from hypervisor.block_int import BDRV_O_RDWR
    from hypervisor.nbd_export import Export
    from hypervisor.program import program

    monkeypatch.setattr(nbd_client, "HANDSHAKE_SECONDS", 0.3)
    monkeypatch.setattr(nbd_client, "STALLED_SECONDS", 0.3)
    with program("qemu-io"):
        bdrv_init()
        ret, bs = bdrv_file_open(str(disk), BDRV_O_RDWR)
        assert ret == 0
        listener = nbd_server.listen_tcp("127.0.0.1", 0)
        server = nbd_server.Server(Export(bs), listener, persistent=True)
        thread = threading.Thread(target=server.serve)
        thread.start()

        class Local:
            address = listener.getsockname()

            def connect(self):
                return socket.create_connection(self.address, 20)

        with Local().connect() as silent:
            assert silent.recv(18)[:8] == b"NBDMAGIC"
            assert silent.recv(1) == b""
        idle, half = Wire(Local()).go(), Wire(Local()).go()
        half.socket.sendall(b"\x25\x60")
        # By then the one who asks nothing has been silent for longer.
        assert half.gone()
        idle.ask(READ, 0, 2)
        assert idle.reply(2) == (0, b"\0\1")
        for wire in (half, idle):
            wire.socket.close()
        server.stop()
        thread.join(10)
        assert not thread.is_alive()
        bdrv_delete(bs)
    said = capfd.readouterr().err
    assert "no handshake came" in said and "it stopped in the middle of a request" in said


def test_a_client_that_goes_in_mid_write_changes_nothing(serve, disk):
    server = serve(disk)
    before = disk.read_bytes()
    wire = Wire(server).go()
    wire.ask(WRITE, 0, 1000, b"w" * 999)
    wire.socket.close()
    assert server.process.wait(timeout=20) == 0
    assert disk.read_bytes() == before


def test_more_clients_than_it_takes_wait_for_their_turn(serve, disk):
    server = serve(disk, "-t")
    crowd = [Wire(server).go() for _ in range(16)]
    late = server.connect()
    late.settimeout(0.2)
    with pytest.raises(TimeoutError):
        late.recv(1)
    crowd.pop().socket.close()
    late.settimeout(20)
    assert late.recv(8) == b"NBDMAGIC"


@needs_libnbd
def test_many_work_at_once(tmp_path, serve, data):
    path = tmp_path / "data"
    path.write_bytes(data)
    server = serve(path, "-t", "-f", "raw")
    copies = [tmp_path / f"copy{i}" for i in range(4)]
    running = [subprocess.Popen(["nbdcopy", server.uri, str(copy)]) for copy in copies]
    assert [one.wait(30) for one in running] == [0] * 4
    assert all(copy.read_bytes() == data for copy in copies)


def test_sockets_are_private_and_local(tmp_path, serve, disk):
    server = serve(disk, "-t")
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    assert server.end()[0] == 0
    assert not server.path.exists()
    command = [sys.executable, "-m", "studykvm", "nbd", "--port", "0", str(disk)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as local:
        try:
            assert "nbd://127.0.0.1:" in local.stdout.readline()
        finally:
            local.kill()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["missing.img"], "Could not open 'missing.img': No such file or directory"),
        (["."], ".: Is a directory"),
        (["-f", "zip", "disk.img"], "no format 'zip'"),
        (["-f", "qcow2", "disk.img"], "not in qcow2 format"),
        (["--port", "70000", "disk.img"], "no port 70000"),
        (["--socket", "no/such/folder", "disk.img"], "cannot listen on no/such/folder"),
        (["--socket", "disk.img", "disk.img"], "cannot listen on disk.img"),
        (["--socket", "x", "--port", "1", "disk.img"], "exclude each other"),
    ],
    ids=["missing", "no-image", "format", "other-format", "port", "folder", "file", "both"],
)
def test_wrong_use_is_told(disk, options, word):
    command = [sys.executable, "-m", "studykvm", "nbd", *options]
    done = subprocess.run(
        command, cwd=disk.parent, env=ENVIRONMENT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1 and word in done.stderr and "Traceback" not in done.stderr


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path, serve, disk):
    server = serve(disk, "-t")
    command = [sys.executable, "-m", "studykvm", "nbd", "--socket", str(server.path), str(disk)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "cannot listen" in done.stderr
    server.process.kill()
    server.process.wait()
    assert server.path.exists()
    assert serve(disk, "-t").announced


def test_a_file_that_shrinks_is_an_error_to_the_client(serve, tmp_path):
    image = tmp_path / "small.img"
    image.write_bytes(b"a" * 1024)
    wire = Wire(serve(image, "-t", "-f", "raw")).go()
    os.truncate(image, 512)
    wire.ask(READ, 0, 1024)
    assert wire.reply(1024) == (errno.EIO, b"")
    wire.ask(READ, 0, 512)
    assert wire.reply(512) == (0, b"a" * 512)


@needs_qemu
@pytest.mark.skipif(not shutil.which("prlimit"), reason="apt-get install util-linux")
def test_a_full_disk_is_an_error_to_the_client_and_reading_goes_on(serve, tmp_path):
    image = tmp_path / "small.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "8M")
    server = serve(image, "-t")
    run("prlimit", f"--pid={server.process.pid}", f"--fsize={MIB}")
    wire = Wire(server).go()
    written = []
    for at in range(0, 4 * MIB, 256 << 10):
        wire.ask(WRITE, at, 256 << 10, bytes([at >> 18]) * (256 << 10))
        written.append(wire.reply()[0])
    assert written[0] == 0 and set(written) == {0, errno.EIO}
    wire.ask(READ, 0, 512)
    assert wire.reply(512) == (0, bytes(512))
    assert server.end()[0] == 0
    # 0: clean, 3: clusters leaked, as from QEMU itself; never corrupt.
    check = subprocess.run(["qemu-img", "check", str(image)], capture_output=True, text=True, timeout=60)
    assert check.returncode in (0, 3), check


def test_error_numbers_are_the_protocols():
    assert f.error_number(-errno.EROFS) == 1
    assert f.error_number(-errno.ENOSPC) == 28
    assert f.error_number(-errno.EBADF) == 5
