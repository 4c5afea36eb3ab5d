"""A running guest moves to another machine: none of its numbers is missing, and only one of the two runs."""

import json
import os
import re
import socket
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from graphs.migration import turns
from studykvm import guests
from studykvm.cli import main
from tests.hypervisor import guest_images as images
from tests.hypervisor.machines import Machine, until
from tests.hypervisor.tools import img, io_
from tracer import load

SECTOR_5 = slice(5 * 512, 6 * 512)


class Side:
    """A machine with a monitor on its standard streams and its serial line in a file."""

    def __init__(self, machine, folder, name, *argv, memory="16", **options):
        self.serial = folder / f"{name}.txt"
        self.running: Machine = machine(
            *("-m", memory, "-hda", folder / "count.img", "-nographic", "-monitor", "stdio"),
            *("-serial", f"file:{self.serial}", *argv),
            **options,
        )
        self.running.wait_for("(qemu) ")

    def ask(self, command, seconds=30):
        """Type a command and return what it prints."""
        return self.running.ask(command, seconds)

    def status(self):
        return re.findall(r"VM status: (\w+)", self.ask("info status"))[-1]

    def numbers(self):
        return self.serial.read_text(errors="replace") if self.serial.exists() else ""

    def wait_for_numbers(self, count, seconds=30):
        until(lambda: self.numbers().count("\n") >= count, seconds, self.running.plain)

    def stop(self):
        self.running.type("quit\n")
        return self.running.end()[1]


@pytest.fixture
def side(machine, tmp_path):
    def start(name, *argv, pages=16, turns=20_000, **options):
        if not (tmp_path / "count.img").exists():
            guests.write_count_disk(str(tmp_path / "count.img"), pages, turns)
        return Side(machine, tmp_path, name, *argv, **options)

    return start


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def assert_counts_on(text):
    """Numbers from 1 on, each once, whole lines but the last."""
    numbers = text[re.search(r"^1$", text, re.M).start() :].split("\n")[:-1]
    assert numbers == [str(n) for n in range(1, len(numbers) + 1)]


def ways(tmp_path):
    port = free_port()
    return {
        "tcp": (f"tcp:127.0.0.1:{port}", f"tcp:127.0.0.1:{port}"),
        "unix": (f"unix:{tmp_path}/way", f"unix:{tmp_path}/way"),
    }


@pytest.mark.parametrize("protocol", ["tcp", "unix"])
@pytest.mark.parametrize("pages", [0, 300])
def test_a_counting_guest_moves_without_a_gap(side, tmp_path, protocol, pages):
    away, here = ways(tmp_path)[protocol]
    destination = side("destination", "-incoming", here, pages=pages)
    source = side("source")
    source.wait_for_numbers(200)
    assert (tmp_path / "count.img").read_bytes()[SECTOR_5][:6] == struct.pack("<HI", pages, 20_000)
    assert destination.status() == "paused" and destination.numbers() == ""
    source.ask(f"migrate {away}")
    assert "Migration status: completed" in source.ask("info migrate")
    assert source.status() == "paused"
    if protocol == "unix":
        # 0.12.4 does not start a machine that came over a unix socket.
        assert destination.status() == "paused"
        destination.ask("cont")
    assert destination.status() == "running"
    told = source.numbers()
    destination.wait_for_numbers(200)
    assert source.numbers() == told
    source.stop()
    destination.stop()
    assert_counts_on(told + destination.numbers())


def test_a_machine_is_kept_in_a_file_and_goes_on_from_it(side, tmp_path, capsys):
    source = side("source")
    source.wait_for_numbers(100)
    source.ask(f'migrate "exec:cat > {tmp_path}/state.bin"')
    assert "Migration status: completed" in source.ask("info migrate")
    source.stop()
    shown = ["migration", "show", f"{tmp_path}/state.bin", "--only", "cpu", "--only", "gpu"]
    assert main(shown) == 1
    said = capsys.readouterr()
    assert re.search(r"full +cpu +0 +12\n +regs ", said.out)
    assert "--only gpu: no such section; there are block, ram, timer, cpu_common, cpu, " in said.err
    for number in range(2):
        destination = side(f"destination{number}", "-incoming", f"exec:cat {tmp_path}/state.bin")
        destination.wait_for_numbers(100)
        assert destination.status() == "running"
        destination.stop()
        assert_counts_on(source.numbers() + destination.numbers())


def test_a_rate_limit_keeps_the_machine_running_until_it_is_lifted(side, tmp_path):
    destination = side("destination", "-incoming", f"unix:{tmp_path}/way", pages=448, turns=0)
    source = side("source")
    source.wait_for_numbers(50)
    source.ask("migrate_set_speed 1k")
    source.ask(f"migrate -d unix:{tmp_path}/way")
    active = source.ask("info migrate")
    assert "Migration status: active" in active and source.status() == "running"
    sizes = dict(re.findall(r"(\w+) ram: (\d+) kbytes", active))
    assert sizes.keys() == {"transferred", "remaining", "total"} and sizes["total"] == "16384"
    assert "migration already in progress" in source.ask(f"migrate -d unix:{tmp_path}/way")
    source.ask("migrate_set_speed 1g")
    until(lambda: "active" not in source.ask("info migrate"))
    assert "completed" in source.ask("info migrate")
    destination.ask("cont")
    destination.wait_for_numbers(50)
    source.stop()
    destination.stop()
    assert_counts_on(source.numbers() + destination.numbers())


def test_a_cancelled_migration_leaves_the_source_running(side, tmp_path):
    destination = side("destination", "-incoming", f"unix:{tmp_path}/way")
    source = side("source", pages=400)
    source.wait_for_numbers(50)
    source.ask("migrate_set_speed 1k")
    source.ask(f"migrate -d unix:{tmp_path}/way")
    source.ask("migrate_cancel")
    assert "Migration status: cancelled" in source.ask("info migrate")
    had = source.numbers().count("\n")
    source.wait_for_numbers(had + 50)
    assert source.status() == "running" and destination.status() == "paused"
    assert "is incomplete" in destination.ask("cont")
    assert destination.status() == "paused" and destination.numbers() == ""
    assert "load of migration failed" in destination.stop()


REFUSALS = {
    "memory": ({"memory": "32"}, (), "has 16,777,216 bytes, this machine's 33,554,432"),
    "device": ({}, ("-serial", "null"), "Unknown savevm section or instance 'serial' 760"),
}


@pytest.mark.parametrize("protocol", ["tcp", "unix"])
@pytest.mark.parametrize("what", REFUSALS)
def test_a_machine_that_does_not_fit_is_refused_by_name(side, tmp_path, what, protocol):
    options, more, words = REFUSALS[what]
    away, here = ways(tmp_path)[protocol]
    destination = side("destination", "-incoming", here, **options)
    source = side("source", *more)
    source.wait_for_numbers(50)
    source.ask(f"migrate {away}")
    assert "Migration status: failed" in source.ask("info migrate")
    had = source.numbers().count("\n")
    source.wait_for_numbers(had + 50)
    assert source.status() == "running" and destination.status() == "paused"
    assert words in destination.stop()
    assert re.search(f"the destination refused: .*{words}.* the machine goes on here", source.stop())


def test_a_newer_version_is_refused_by_name(side, tmp_path):
    source = side("source")
    source.wait_for_numbers(20)
    source.ask(f'migrate "exec:cat > {tmp_path}/state.bin"')
    source.stop()
    state = (tmp_path / "state.bin").read_bytes()
    head = b"\x03cpu" + struct.pack(">II", 0, 12)
    assert state.count(head) == 1
    (tmp_path / "newer.bin").write_bytes(state.replace(head, head[:-4] + struct.pack(">I", 13)))
    destination = side("destination", "-incoming", f"exec:cat {tmp_path}/newer.bin; touch {tmp_path}/read")
    until((tmp_path / "read").exists)
    assert destination.status() == "paused"
    assert "is incomplete" in destination.ask("cont")
    assert "savevm: unsupported version 13 for 'cpu' v12" in destination.stop()


def test_slashes_are_refused_with_a_hint(side):
    source = side("source", "-incoming", "tcp://0:4444")
    assert "migration failed" in source.ask("migrate -d tcp://0:4444")
    assert source.ask("info migrate").strip().endswith("info migrate")
    told = source.stop()
    assert "invalid host/port combination: //0:4444" in told
    assert "-incoming tcp:0:4444" in told and "migrate tcp:0:4444" in told


def test_nobody_listens(side):
    source = side("source")
    source.ask(f"migrate tcp:127.0.0.1:{free_port()}")
    assert "Migration status: failed" in source.ask("info migrate")
    assert source.status() == "running"
    assert "Connection refused" in source.stop()


def test_the_monitor_goes_on_where_no_way_leads(side):
    source = side("source")
    assert "migration failed" in source.ask("migrate tcp:255.255.255.255:1")
    assert source.status() == "running"
    assert "studykvm: tcp:255.255.255.255:1: " in source.stop()


def test_numbers_beyond_all_bounds(side):
    source = side("source")
    for command in ("migrate_set_speed 1e999", "migrate_set_downtime 1e999", "migrate_set_downtime -1e999"):
        source.ask(command)
    assert source.status() == "running"
    source.stop()


class UnixMonitor:
    """A second monitor of a machine, on a unix socket."""

    def __init__(self, path):
        self.line = Line(path)
        self.line.expect("(qemu) ")

    def ask(self, command, fds=()):
        # Byte by byte the line would be typed; the descriptor comes with its end.
        self.line.socket.sendall(command.encode())
        self.line.expect(command)
        socket.send_fds(self.line.socket, [b"\n"], fds)
        return self.line.expect("(qemu) ")


def test_a_machine_moves_over_a_descriptor_that_was_given(side, tmp_path):
    here, there = socket.socketpair()
    with here, there:
        arguments = ("-incoming", f"fd:{there.fileno():#x}")
        destination = side("destination", *arguments, fds=[there.fileno()])
        source = side("source", "-monitor", f"unix:{tmp_path}/monitor,server,nowait")
        monitor = UnixMonitor(tmp_path / "monitor")
        monitor.ask("getfd way", [here.fileno()])
    source.wait_for_numbers(50)
    # Names belong to the monitor that they were given to, as in 0.12.4.
    assert "migration failed" in source.ask("migrate fd:way")
    monitor.ask("migrate -d fd:way")
    until(lambda: "completed" in monitor.ask("info migrate"))
    destination.wait_for_numbers(50)
    # It was used up.
    assert "migration failed" in monitor.ask("migrate fd:way")
    assert "fd:way: nobody gave such a descriptor" in source.stop()
    destination.stop()
    assert_counts_on(source.numbers() + destination.numbers())


def test_numbers_of_descriptors_are_no_names_of_them(side, tmp_path):
    source = side("source")
    source.wait_for_numbers(20)
    open_here = os.listdir(f"/proc/{source.running.process.pid}/fd")
    before = (tmp_path / "count.img").read_bytes()
    for number in open_here:
        assert "migration failed" in source.ask(f"migrate fd:{number}")
    assert source.status() == "running" and (tmp_path / "count.img").read_bytes() == before
    source.stop()


def test_an_incoming_machine_comes_by_no_descriptor_of_our_own(side, tmp_path):
    probe = side("probe")
    folder = f"/proc/{probe.running.process.pid}/fd"
    disk = next(fd for fd in os.listdir(folder) if os.readlink(f"{folder}/{fd}").endswith("count.img"))
    probe.stop()
    waiting = side("destination", "-incoming", f"fd:{disk}")
    assert waiting.status() == "paused"
    assert f"-incoming fd:{disk}: nobody gave this program such a descriptor" in waiting.stop()


def test_a_file_is_not_replaced_by_a_socket(side, tmp_path):
    kept = tmp_path / "kept.img"
    kept.write_bytes(b"kept")
    assert f"bind(unix:{kept}): " in side("destination", "-incoming", f"unix:{kept}").stop()
    assert kept.read_bytes() == b"kept"


def move_with_disk(machine, side, tmp_path, disk, option):
    """Move a counting guest to a machine that has a disk of its own."""
    destination = machine(
        *("-m", "16", "-hda", disk, "-nographic", "-monitor", "stdio", "-serial", "null"),
        *("-incoming", f"unix:{tmp_path}/way"),
    )
    destination.wait_for("(qemu) ")
    source = side("source")
    source.wait_for_numbers(50)
    source.ask(f"migrate {option} unix:{tmp_path}/way", seconds=60)
    assert "Migration status: completed" in source.ask("info migrate")
    source.stop()
    destination.type("quit\n")
    destination.end()


def test_disks_go_with_the_machine(machine, side, tmp_path):
    guests.write_count_disk(str(tmp_path / "count.img"), size=3 << 20)
    empty = tmp_path / "empty.img"
    empty.write_bytes(bytes(3 << 20))
    move_with_disk(machine, side, tmp_path, empty, "-b")
    assert empty.read_bytes() == (tmp_path / "count.img").read_bytes()


def test_with_a_shared_base_only_the_overlay_goes(machine, side, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guests.write_count_disk("base.img", 4, 20_000, size=5 << 20)
    for name in ("count.img", "other.img"):
        img("create", "-f", "qcow2", "-b", "base.img", name)
    io_("count.img", "write -P 0x5a 0x280000 512")
    move_with_disk(machine, side, tmp_path, "other.img", "-i")
    # Of five chunks of 1 MiB the guest's and the marked one.
    assert (tmp_path / "other.img").stat().st_size < 4 << 20
    for name in ("count", "other"):
        img("convert", "-O", "raw", f"{name}.img", f"{name}.raw")
    moved = (tmp_path / "other.raw").read_bytes()
    assert moved == (tmp_path / "count.raw").read_bytes() and moved[0x280000:0x280200] == b"\x5a" * 512


@pytest.mark.skipif(
    not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="no /dev/kvm that this user may open"
)
@pytest.mark.parametrize("route", [("kvm", "unicorn"), ("unicorn", "kvm"), ("kvm", "kvm")], ids="-".join)
def test_a_guest_moves_from_one_accelerator_to_another(side, tmp_path, route):
    kvm = {"kvm": ("-enable-kvm", "-no-kvm-irqchip"), "unicorn": ()}
    port = free_port()
    incoming = ("-incoming", f"tcp:127.0.0.1:{port}")
    destination = side("destination", *kvm[route[1]], *incoming, turns=2_000)
    source = side("source", *kvm[route[0]])
    source.wait_for_numbers(50, seconds=60)
    source.ask(f"migrate tcp:127.0.0.1:{port}")
    assert "Migration status: completed" in source.ask("info migrate")
    destination.wait_for_numbers(50, seconds=60)
    source.stop()
    destination.stop()
    assert_counts_on(source.numbers() + destination.numbers())


class Line:
    """The other end of a machine's serial line."""

    def __init__(self, path):
        until(path.exists)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.socket.settimeout(60)
        self.seen = ""

    def expect(self, text):
        while text not in (plain := re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", self.seen)):
            more = self.socket.recv(4096)
            assert more, self.seen
            self.seen += more.decode("latin1")
        before, self.seen = plain.split(text, 1)
        return before


@images.needs("seabios", "grub-pc-bin", "grub-common", "mtools")
def test_grub_answers_after_the_move(machine, tmp_path):
    disk = images.overlay(images.grub_disk(tmp_path))

    def start(name, *argv):
        running = machine(
            *("-m", "64", "-hda", disk, "-bios", "seabios", "-nographic", "-monitor", "stdio"),
            *("-serial", f"unix:{tmp_path}/{name},server,nowait", *argv),
        )
        running.wait_for("(qemu) ")
        return running, Line(tmp_path / name)

    port = free_port()
    destination, there = start("there", "-incoming", f"tcp:127.0.0.1:{port}")
    source, here = start("here")
    here.expect("grub> ")
    here.socket.sendall(b"cat (hd0,msdos1)/hel")
    here.expect("hel")
    source.type(f"migrate tcp:127.0.0.1:{port}\ninfo migrate\n")
    source.wait_for("Migration status: completed")
    # The line was half typed when the machine moved.
    there.socket.sendall(b"lo.txt\r")
    assert images.TEXT.strip() in there.expect("grub> ")
    for running in (source, destination):
        running.type("quit\n")
        assert running.end()[0] == 0


def shown_ranges(lines, pattern):
    """Where the last part of the stream ends that lines name; each begins where the one before ended."""
    end = 0
    for first, last in re.findall(pattern, "\n".join(lines), re.M):
        assert int(first.replace(",", "")) == end
        end = int(last.replace(",", "")) + 1
    return end


def assert_both_sides_are_shown(joined, stream, capsys):
    size = stream.stat().st_size
    capsys.readouterr()
    assert main(["trace", "show", joined]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    column = head.index("destination")
    assert head.split() == ["source", "destination"]
    ours = [line for line in lines if not line.startswith(" " * column)]
    theirs = [line for line in lines if line.startswith(" " * column)]
    assert shown_ranges(ours, r"file_write  == bytes ([\d,]+) to ([\d,]+) =*>$") == size
    assert shown_ranges(theirs, r"stdio_get_buffer  <== bytes ([\d,]+) to ([\d,]+)$") == size
    assert any("vmstate_save" in line for line in ours) and any("vmstate_load" in line for line in theirs)
    assert main(["trace", "export", joined, "--format", "mermaid"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "sequenceDiagram"
    boxes = re.findall(r"box transparent (\w+)\n(.*?)\n  end", "\n".join(lines), re.S)
    files = {name: dict(re.findall(r"participant (\w+) as (\S+)", text)) for name, text in boxes}
    assert list(files) == ["source", "destination"]
    writer, reader = ({v: k for k, v in files[name].items()} for name in files)
    arrow = rf"^  {writer['migration-exec.c']}-\){reader['savevm.c']}: bytes ([\d,]+) to ([\d,]+)$"
    assert shown_ranges(lines, arrow) == size
    known = files["source"] | files["destination"]
    for line in lines:
        if match := re.fullmatch(r"  (\w+)(?:->>|-\))(\w+): \S.*", line):
            assert set(match.groups()) <= known.keys()
    assert main(["draw", joined, "-o", f"{joined}.json"]) == 0
    links = json.loads(Path(f"{joined}.json").read_text())["links"]
    assert [(link["source"], link["target"]) for link in links if link["kind"] == "bytes of the stream"] == [
        ("source:migration-exec.c:file_write", "destination:savevm.c:stdio_get_buffer")
    ]


def test_both_sides_traces_become_one_conversation_and_a_chart(side, tmp_path, capsys):
    source = side("source", "--trace", tmp_path / "source.trace")
    source.wait_for_numbers(50)
    source.ask(f'migrate "exec:cat > {tmp_path}/state.bin"')
    source.stop()
    destination = side(
        "destination",
        "--trace",
        tmp_path / "destination.trace",
        "-incoming",
        f"exec:cat {tmp_path}/state.bin",
    )
    destination.wait_for_numbers(50)
    destination.stop()
    found = turns(load(tmp_path / "source.trace"))
    assert [found[0].stage, found[-1].stage, found[-1].left] == [1, 3, 0]
    # 16 MiB of memory and what else the machine has.
    assert sum(turn.sent for turn in found) >= 4096
    traces = [str(tmp_path / f"{name}.trace") for name in ("source", "destination", "both")]
    assert main(["trace", "join", *traces[:2], "-o", traces[2]]) == 0
    names = [call.function for call in load(traces[2]).calls()]
    assert names.index("ram_save_live") < names.index("ram_load") < names.index("qemu_announce_self")
    assert_both_sides_are_shown(traces[2], tmp_path / "state.bin", capsys)
    pytest.importorskip("matplotlib", reason="pip install 'studykvm[chart]'")
    assert main(["migration", "chart", traces[0], "-o", str(tmp_path / "turns.svg")]) == 0
    assert ElementTree.parse(tmp_path / "turns.svg").getroot().tag.endswith("svg")
    assert main(["migration", "chart", traces[0], "-o", str(tmp_path / "turns.txt")]) == 1
