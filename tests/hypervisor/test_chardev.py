"""Monitors and serial lines on sockets, telnet, pseudo terminals and pipes; clients that are slow or rude."""

import contextlib
import errno
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import tty
from pathlib import Path

import pytest

from hypervisor import qemu_char_out as out
from hypervisor import qemu_sockets
from hypervisor.program import program
from hypervisor.qemu_config import qemu_chardev_opts
from hypervisor.qemu_option import qemu_opt_get, qemu_opt_set, qemu_opts_create
from tests.hypervisor import guest_code as asm
from tests.hypervisor.machines import answers, until

IDLE = b"\xf4\xeb\xfd"
QUIET = ("-nographic", "-serial", "null")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asm.write_disk("idle.img", asm.put("I") + IDLE)
    return tmp_path


@contextlib.contextmanager
def unix_client(path, seconds=60):
    """A connection to a socket that a machine is about to make."""
    with socket.socket(socket.AF_UNIX) as client:
        until(lambda: not client.connect_ex(str(path)), seconds, lambda: f"nobody listens on {path}")
        client.settimeout(seconds)
        yield client


def read_until(client, text, said=b""):
    while text not in said:
        piece = client.recv(65536)
        assert piece, f"no {text!r} in {said!r}"
        said += piece
    return said


def waiting_port(running):
    """Where a server says that it waits."""
    running.wait_for("QEMU waiting for connection on: ")
    running.wait_for(",server")
    return re.search(r"on: \w+:(\S+):(\d+),server", running.output).groups()


def answer(client, line):
    """What a monitor answers, after its prompt was read."""
    client.sendall(line.encode() + b"\n")
    said = read_until(client, b"\x1b[K\r\n")
    return answers("(qemu) " + read_until(client, b"(qemu) ", said).decode())[0]


def test_tcp_server_waits_for_its_client_on_loopback(here, machine):
    running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", "tcp::0,server")
    host, port = waiting_port(running)
    assert host == "127.0.0.1"
    with socket.create_connection((host, int(port)), timeout=20) as client:
        read_until(client, b"(qemu) ")
        assert (
            answer(client, "info chardev").splitlines()[0] == f"monitor: filename=tcp:127.0.0.1:{port},server"
        )
        client.sendall(b"quit\n")
        assert running.end()[0] == 0


def test_telnet_negotiates_and_its_options_stay_out_of_the_line(here, machine):
    running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", "telnet:localhost:0,server,nodelay")
    host, port = waiting_port(running)
    with socket.create_connection((host, int(port)), timeout=20) as client:
        said = read_until(client, b"(qemu) ")
        # WILL echo, WILL suppress go ahead, WILL binary, DO binary.
        assert said.startswith(bytes.fromhex("fffb01 fffb03 fffb00 fffd00"))
        # DO echo, a break, WON'T binary, in the middle of a word.
        client.sendall(b"info " + bytes.fromhex("fffd01") + b"sta" + bytes.fromhex("fff3 fffc00") + b"tus\n")
        assert b"VM status: paused" in read_until(client, b"VM status: paused")
        client.sendall(b"quit\n")
        assert running.end()[0] == 0


def test_unix_socket_is_private_and_serves_one_client_after_another(here, machine):
    running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", "unix:mon,server,nowait")
    with unix_client("mon") as client:
        assert stat.S_IMODE(os.stat("mon").st_mode) == 0o600
        read_until(client, b"(qemu) ")
        client.sendall(b"info stat")
        read_until(client, b"info stat")
    with unix_client("mon") as client:
        # What the first one left unfinished is forgotten.
        read_until(client, b"(qemu) ")
        assert answer(client, "info name") == ""
        client.sendall(b"quit\n")
        assert running.end()[0] == 0


def test_a_file_that_is_no_socket_is_not_replaced(here, machine):
    (here / "mon").write_text("precious")
    running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", "unix:mon,server,nowait")
    status, errors = running.end()
    assert status == 1
    assert "bind(unix:mon): Address already in use" in errors
    assert 'chardev: opening backend "socket" failed' in errors
    assert (here / "mon").read_text() == "precious"


def test_a_socket_in_use_is_not_taken_over_and_one_left_behind_is(here, machine):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("mon")
        listener.listen()
        listener.setblocking(False)
        running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", "unix:mon,server,nowait")
        status, errors = running.end()
        assert status == 1 and "bind(unix:mon): Address already in use" in errors
        with pytest.raises(BlockingIOError):
            # Whoever listens notices nothing.
            listener.accept()
    assert os.path.exists("mon")
    running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", "unix:mon,server,nowait")
    with unix_client("mon") as client:
        read_until(client, b"(qemu) ")
        client.sendall(b"quit\n")
        assert running.end()[0] == 0


def test_a_machine_connects_to_a_listener(here, machine):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", f"tcp:127.0.0.1:{port}")
        listener.settimeout(20)
        client, _ = listener.accept()
    with client:
        client.settimeout(20)
        read_until(client, b"(qemu) ")
        client.sendall(b"quit\n")
        assert running.end()[0] == 0


REFUSED = {
    "tcp:127.0.0.1:1": "inet_connect_opts: connect(ipv4,127.0.0.1,127.0.0.1,1): Connection refused",
    "unix:gone": "connect(unix:gone): No such file or directory",
    "tcp:::,server": "getaddrinfo(127.0.0.1,:): ",
    "tcp:host": "parse error: tcp:host",
    "tcp::4444,server,foo": 'option "foo" is not valid for chardev',
    "unix:mon,server=maybe": 'Failed to parse "maybe" for "chardev.server"',
    "foo:bar": "parse error: foo:bar",
}


@pytest.mark.parametrize("device", REFUSED)
def test_what_does_not_open_is_named(here, machine, device):
    running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", device)
    status, errors = running.end()
    assert status == 1 and REFUSED[device] in errors


def test_a_taken_port_is_named_and_to_finds_a_free_one(here, machine):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", f"tcp::{port},server,nowait")
        status, errors = running.end()
        assert status == 1
        assert f"inet_listen_opts: bind(ipv4,127.0.0.1,{port}): Address already in use" in errors
        assert "inet_listen_opts: FAILED" in errors
        running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", f"tcp::{port},server,to={port + 50}")
        _, found = waiting_port(running)
        assert port < int(found) <= port + 51


def test_pty_monitor(here, machine):
    running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", "pty")
    line = running.process.stderr.readline().decode()
    name = re.fullmatch(r"char device redirected to (/dev/pts/\d+)\n", line)[1]
    fd = os.open(name, os.O_RDWR | os.O_NOCTTY)
    try:
        tty.setraw(fd)
        said = b""
        # A terminal that nobody has opened is looked at once a second.
        while b"(qemu) " not in said:
            assert select.select([fd], [], [], 20)[0]
            said += os.read(fd, 4096)
        os.write(fd, b"info status\n")
        while b"VM status: paused" not in said:
            assert select.select([fd], [], [], 20)[0]
            said += os.read(fd, 4096)
        os.write(fd, b"quit\n")
        assert running.end()[0] == 0
    finally:
        os.close(fd)


def test_pipes_serve_a_monitor(here, machine):
    os.mkfifo("mon.in")
    os.mkfifo("mon.out")
    running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", "pipe:mon")
    to, back = os.open("mon.in", os.O_RDWR), os.open("mon.out", os.O_RDWR)
    try:
        os.write(to, b"info status\nquit\n")
        assert running.end()[0] == 0
        assert b"VM status: paused" in os.read(back, 65536)
    finally:
        os.close(to)
        os.close(back)


def test_a_serial_line_and_a_monitor_share_a_socket(here, machine):
    # mov ah, 0; int 16h; mov ah, 0eh; mov bx, 7; int 10h; jmp back
    asm.write_disk("echo.img", bytes.fromhex("b400cd16b40ebb0700cd10ebf3"))
    running = machine("-hda", "echo.img", "-nographic", "-monitor", "null", "-serial", "mon:unix:line,server")
    with unix_client("line") as client:
        said = read_until(client, b"Booting from Hard Disk...")
        client.sendall(b"xy")
        said = read_until(client, b"xy", said)
        client.sendall(b"\x01c")
        said = read_until(client, b"(qemu) ", said)
        client.sendall(b"info status\n")
        said = read_until(client, b"VM status: running", said)
        client.sendall(b"\x01cz")
        said = read_until(client, b"z", said.replace(b"z", b""))
        client.sendall(b"\x01x")
        read_until(client, b"QEMU: Terminated", said)
        assert running.end()[0] == 0


def test_a_client_that_never_reads_is_asked_nothing_more(here, machine):
    options = ("-monitor", "unix:mon,server,nowait", "-qmp", "unix:qmp,server,nowait")
    running = machine("-hda", "idle.img", *QUIET, *options)
    with unix_client("mon") as client:
        # The answer to each is some 5 KiB.
        client.setblocking(False)
        sent = 0
        while sent < 20 * 50_000 and select.select([], [client], [], 2)[1]:
            sent += client.send(b"help\n" * 10_000)
        with unix_client("qmp") as other:
            read_until(other, b"}}\r\n")
            other.sendall(b'{"execute":"query-status"}\n')
            assert b'"running": true' in read_until(other, b"return")
            peak = peak_of(running)
            other.sendall(b'{"execute":"quit"}\n')
            status, errors = running.end()
    assert sent < 20 * 50_000 and status == 0
    assert "cut off" not in errors
    assert peak < 400 << 20


@pytest.mark.slow
def test_a_client_that_lets_too_much_pile_up_is_cut_off(here, machine):
    # mov dx, 3f8h; mov al, '.'; out dx, al; jmp back
    asm.write_disk("flood.img", bytes.fromhex("baf803b02eeeebfd"))
    options = ("-nographic", "-monitor", "null", "-serial", "unix:ser,server,nowait")
    running = machine("-S", "-hda", "flood.img", *options, "-qmp", "unix:qmp,server,nowait")
    with unix_client("ser") as client, unix_client("qmp") as other:
        read_until(other, b"}}\r\n")
        other.sendall(b'{"execute":"cont"}\n')
        read_until(other, b"return")
        line = running.process.stderr.readline()
        assert line == b"studykvm: serial0: the client reads too slowly, it is cut off\n"
        gone = select.poll()
        gone.register(client, 0)
        assert gone.poll(10_000)
        with pytest.raises(ConnectionError):
            client.send(b"x")
        other.sendall(b'{"execute":"query-status"}\n')
        assert b'"running": true' in read_until(other, b"return")
        other.sendall(b'{"execute":"quit"}\n')
        assert running.end()[0] == 0


def test_more_than_the_limit_ends_a_connection_and_frees_what_waited(capsys):
    from hypervisor.program import program

    with program("qemu-system-x86_64"):
        from hypervisor import qemu_char_socket as sockets
        from hypervisor.qemu_char import CHR_EVENT_CLOSED, CharDriverState
        from hypervisor.qemu_sockets import _adopt

        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        heard = []
        s = sockets.TCPCharDriver(fd=_adopt(ours), connected=1, is_unix=1)
        chr = CharDriverState(opaque=s, label="serial0", chr_event=lambda opaque, event: heard.append(event))
        with theirs:
            written = 0
            while s.connected:
                sockets.tcp_chr_write(chr, bytes(1 << 14), 1 << 14)
                written += 1 << 14
                assert written < 4 * out.LIMIT
            assert written > out.LIMIT and heard == [CHR_EVENT_CLOSED] and not out._waiting
            assert sockets.tcp_chr_write(chr, b"x", 1) == 1
    assert capsys.readouterr().err == "studykvm: serial0: the client reads too slowly, it is cut off\n"


def peak_of(running):
    """Bytes of memory that the machine has had at most so far."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10


def test_a_silent_client_does_not_hold_the_machine(here, machine):
    # mov dx, 3f8h; mov al, 'S'; out dx, al
    asm.write_disk("ser.img", bytes.fromhex("baf803b053ee") + asm.OFF)
    running = machine(
        "-S", "-hda", "ser.img", "-serial", "file:SER", "-nographic", "-monitor", "unix:mon,server,nowait"
    )
    with unix_client("mon") as client:
        client.sendall(b"c\n")
        assert running.end()[0] == 0
    assert (here / "SER").read_text().endswith("S")


@pytest.mark.parametrize("seed", range(3), ids=["one", "two", "three"])
def test_garbage_is_answered_and_survived(here, machine, seed):
    import random

    noise = random.Random(seed)
    running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", "unix:mon,server,nowait")
    with unix_client("mon") as client:
        read_until(client, b"(qemu) ")
        words = [
            b"info",
            b"x/",
            b"p ",
            b"sendkey",
            b"eject",
            b"\x1b[",
            b"\xb2",
            b"\t",
            b"\x17",
            b"\x04",
            b"(",
        ]
        # No line may be a command that ends the machine.
        junk = b"".join(noise.choice([*words, bytes((noise.randrange(1, 256),))]) for _ in range(1500))
        junk = re.sub(rb"[qm]", b"k", junk)
        for at in range(0, len(junk), 100):
            client.sendall(junk[at : at + 100])
            with contextlib.suppress(BlockingIOError):
                client.recv(1 << 20, socket.MSG_DONTWAIT)
        client.sendall(b"\n\ninfo status\n")
        read_until(client, b"VM status: paused")
        client.sendall(b"quit\n")
        status, errors = running.end()
    assert status == 0 and "fault of studykvm" not in errors


def test_a_line_has_an_end(here, machine):
    running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", "stdio")
    running.type("p " + "1" * 6000 + "\n")
    running.type("info status\nquit\n")
    assert running.end()[0] == 0
    assert "VM status: paused" in running.plain()


def test_what_cannot_be_written_waits_up_to_the_limit():
    read, write = os.pipe()
    try:
        os.set_blocking(write, False)
        assert out.put(write, b"a" * (1 << 17))
        waiting = out.pending(write)
        assert 0 < waiting < 1 << 17
        assert out.put(write, b"b" * 100) and out.pending(write) == waiting + 100
        assert not out.put(write, bytes(out.LIMIT))
        got = b""
        while out.pending(write):
            got += os.read(read, 1 << 16)
            assert out.flush(write)
        got += os.read(read, 1 << 17)
        assert got == b"a" * (1 << 17) + b"b" * 100
        os.close(read)
        assert not out.put(write, b"x")
    finally:
        os.close(write)


def test_a_family_that_the_host_lacks_is_passed_over(monkeypatch, capsys):
    made = qemu_sockets.qemu_socket

    def without_ipv6(domain, type, protocol):
        if domain == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return made(domain, type, protocol)

    both = [
        (socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(qemu_sockets, "qemu_socket", without_ipv6)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments: both)
    with program("qemu-system-x86_64"):
        opts = qemu_opts_create(qemu_chardev_opts, "line", 0)
        for name, value in (("host", "localhost"), ("port", "0")):
            qemu_opt_set(opts, name, value)
        assert qemu_sockets.inet_listen_opts(opts, 0) >= 0
        assert qemu_opt_get(opts, "host") == "127.0.0.1"
    assert "inet_listen_opts: socket(ipv6): Address family not supported" in capsys.readouterr().err


def test_a_descriptor_is_handed_over_by_name(here, machine):
    running = machine("-hda", "idle.img", "-S", *QUIET, "-monitor", "unix:mon,server,nowait")
    with unix_client("mon") as client:
        read_until(client, b"(qemu) ")
        client.sendall(b"getfd a")
        read_until(client, b"getfd a")
        with open("idle.img", "rb") as file:
            socket.send_fds(client, [b"\n"], [file.fileno()])
        read_until(client, b"(qemu) ")
        assert answer(client, "closefd a") == ""
        assert answer(client, "closefd a") == "Failed to find file descriptor named a\r\n".replace("\r", "")
        client.sendall(b"quit\n")
        assert running.end()[0] == 0


def test_waiting_for_a_client_can_be_broken_off(here):
    argv = ["boot", "-net", "none", "-S", *QUIET, "-monitor", "tcp::0,server"]
    waiting = subprocess.Popen(
        [sys.executable, "-m", "studykvm", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=asm.ENVIRONMENT,
        # A shell's background jobs, and so their children, ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert b"waiting" in waiting.stdout.readline()
    waiting.send_signal(signal.SIGINT)
    _, errors = waiting.communicate(timeout=20)
    assert waiting.returncode == 130 and b"Traceback" not in errors


def test_messages_that_come_before_the_greeting_wait_for_it(machine):
    line = machine("-nographic", "-serial", "null", "-qmp", "stdio", "-S")
    # On its standard input before the machine's loop first turns.
    line.type('{"execute":"query-name"}\n{"execute":"quit"}\n')
    assert line.end()[0] == 0
    said = line.output.splitlines()
    assert said[0] == '{"QMP": {"capabilities": []}}' and said[1] == '{"return": {}}'


def test_a_monitor_by_datagrams(here, machine):
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reserved,
    ):
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(20)
        reserved.bind(("127.0.0.1", 0))
        mine, its = peer.getsockname()[1], reserved.getsockname()[1]
        reserved.close()
        running = machine(
            "-hda", "idle.img", *QUIET, "-S", "-monitor", f"udp:127.0.0.1:{mine}@127.0.0.1:{its}"
        )
        said = b""
        while b"PU #0" not in said:
            with contextlib.suppress(OSError):
                peer.sendto(b"info cpus\n", ("127.0.0.1", its))
                peer.settimeout(0.5)
                said += peer.recv(65536)
        peer.sendto(b"quit\n", ("127.0.0.1", its))
        assert running.end()[0] == 0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("udp:nosuch.invalid:1", "inet_dgram_opts failed"),
        (
            "udp:127.0.0.1:1@192.0.2.1:1",
            "inet_dgram_opts: bind(ipv4,192.0.2.1,1): Cannot assign requested address",
        ),
        ("/dev/nosuch-tty", "/dev/nosuch-tty: No such file or directory"),
        ("/dev/parport0", "the model has no character device 'parport'"),
    ],
    ids=["name", "address", "tty", "parport"],
)
def test_a_line_that_cannot_be_opened_is_named(here, machine, option, words):
    running = machine("-hda", "idle.img", "-nographic", "-monitor", "null", "-serial", option)
    status, errors = running.end()
    assert status == 1 and words in errors, errors


def test_a_serial_line_of_the_host(here, machine):
    ours, theirs = os.openpty()
    try:
        tty.setraw(ours)
        running = machine("-hda", "idle.img", *QUIET, "-S", "-monitor", os.ttyname(theirs))
        said = b""
        while b"(qemu) " not in said:
            assert select.select([ours], [], [], 20)[0], said
            said += os.read(ours, 4096)
        assert not tty.tcgetattr(theirs)[3] & tty.ECHO
        os.write(ours, b"quit\n")
        assert running.end()[0] == 0
    finally:
        os.close(ours)
        os.close(theirs)
