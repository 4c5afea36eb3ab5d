"""Machines saved, loaded and moved make the calls that 0.12.4 made.

The recorded machines ran 0.12.4's BIOS; ours run SeaBIOS, since the built-in BIOS saves a section of its own.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from graphs import recordings
from graphs.calls import CallTable
from graphs.compare.stream import compare_stream
from studykvm.cli import main
from studykvm.model import load_model
from tests.hypervisor.guest_code import ENVIRONMENT, lba
from tests.truth.replay import run
from tracer import load

pytestmark = pytest.mark.skipif(
    not Path("/usr/share/seabios/bios-256k.bin").exists(),
    reason="SeaBIOS is not here: apt-get install seabios",
)

# Stack at 7C00h; read blocks 0 to 3; write block 5; stand still.
GUEST = (
    bytes.fromhex("31c08ed88ec08ed0bc007c")
    + lba(0x42, 4, 0, 0x8000)
    + lba(0x43, 1, 5, 0x8000)
    + b"\xf4\xeb\xfd"
)
OPTIONS = ["-m", "32", "-net", "none", "-nographic", "-monitor", "stdio", "-bios", "seabios"]


class Side:
    def __init__(self, folder, name, disk, *argv):
        self.trace = folder / f"{name}.trace"
        self.log = folder / f"{name}.log"
        command = [sys.executable, "-m", "studykvm", "boot", "--trace", str(self.trace), "-hda", disk]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*command, *OPTIONS, "-serial", f"file:{name}.ser", *argv],
                cwd=folder, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        self.wait_for(b"(qemu) ")

    def wait_for(self, text, seconds=60, count=1):
        limit = time.monotonic() + seconds
        while self.log.read_bytes().count(text) < count:
            assert time.monotonic() < limit and self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def obey(self, *lines):
        for line in lines:
            prompts = self.log.read_bytes().count(b"(qemu) ")
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()
            self.wait_for(b"(qemu) ", count=prompts + 1)

    def quit(self):
        self.process.stdin.write(b"quit\n")
        self.process.stdin.close()
        assert self.process.wait(30) == 0, self.log.read_text()
        return self.trace


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_until_booted(side, folder):
    """The guest's last act is to write block 5, by which one of the overlays grows."""
    fresh, limit = (folder / "fresh.img").stat().st_size, time.monotonic() + 60
    overlays = [folder / name for name in ("overlay.img", "overlay2.img")]
    made = {"overlay.img": fresh, "overlay2.img": (folder / "fresh2.img").stat().st_size}
    while all(overlay.stat().st_size <= made[overlay.name] for overlay in overlays):
        assert time.monotonic() < limit, side.log.read_text()
        time.sleep(0.1)
    time.sleep(1)


def save(folder):
    side = Side(folder, "d04", "overlay2.img")
    wait_until_booted(side, folder)
    side.obey("savevm x", "info snapshots", "loadvm x", "delvm x", "info snapshots")
    side.quit()


def wait_for_end(source, ends):
    limit = time.monotonic() + 90
    while ends not in source.log.read_bytes():
        assert time.monotonic() < limit, source.log.read_text()
        source.obey("info migrate")
        time.sleep(0.5)


def move(folder, name, incoming, outgoing, disk="overlay.img", ends=b"Migration status: completed"):
    destination = Side(folder, f"{name}.dst", disk, "-incoming", incoming)
    source = Side(folder, f"{name}.src", "overlay.img")
    wait_until_booted(source, folder)
    for line in outgoing:
        source.obey(line)
        time.sleep(0.5)
    wait_for_end(source, ends)
    destination.obey("info status")
    source.quit()
    destination.quit()


def move_under_kvm(folder, at):
    kvm = ("-enable-kvm", "-no-kvm-irqchip")
    destination = Side(folder, "e08.dst", "overlay.img", *kvm, "-incoming", at)
    source = Side(folder, "e08.src", "overlay.img", *kvm)
    wait_until_booted(source, folder)
    source.obey(f"migrate {at}")
    wait_for_end(source, b"Migration status: completed")
    destination.obey("info status")
    source.quit()
    destination.quit()


def keep(folder):
    source = Side(folder, "e05.src", "overlay.img")
    wait_until_booted(source, folder)
    source.obey('migrate -d "exec:cat > state.bin"')
    wait_for_end(source, b"Migration status: completed")
    source.quit()
    destination = Side(folder, "e05.dst", "overlay.img", "-incoming", "exec:cat state.bin")
    time.sleep(2)
    destination.obey("info status")
    destination.quit()


def bad_protocol(folder):
    Side(folder, "e03.dst", "overlay.img", "-incoming", "foo:bar").quit()


def scenarios(folder):
    port = free_port()
    at = f"tcp:127.0.0.1:{port}"
    slashes = [f"migrate -d tcp://0:{port}", "info migrate", f"migrate tcp:0:{port}"]
    return {
        "d04": lambda: save(folder),
        "e01": lambda: move(folder, "e01", at, [f"migrate -d {at}"]),
        "e02": lambda: move(folder, "e02", f"tcp://0:{port}", slashes, ends=b"Migration status: failed"),
        "e03": lambda: bad_protocol(folder),
        "e05": lambda: keep(folder),
        "e08": lambda: move_under_kvm(folder, at),
        "e07": lambda: move(folder, "e07", at, [f"migrate -d -b {at}"], disk="dst.img"),
    }


PARTS = [
    ("d04", "d04", "d04_boot_tcg_qcow2_savevm", "do_savevm", 1),
    ("d04", "d04", "d04_boot_tcg_qcow2_savevm", "do_info_snapshots", 1),
    ("d04", "d04", "d04_boot_tcg_qcow2_savevm", "do_loadvm", 1),
    ("d04", "d04", "d04_boot_tcg_qcow2_savevm", "do_delvm", 1),
    ("d04", "d04", "d04_boot_tcg_qcow2_savevm", "do_info_snapshots", 2),
    ("e01", "e01.src", "e01_mig_src_tcp", "do_migrate", 1),
    ("e01", "e01.src", "e01_mig_src_tcp", "tcp_wait_for_connect", 1),
    ("e01", "e01.src", "e01_mig_src_tcp", "migrate_fd_put_ready", 1),
    ("e01", "e01.src", "e01_mig_src_tcp", "do_info_migrate", 1),
    ("e01", "e01.dst", "e01_mig_dst_tcp", "qemu_start_incoming_migration", 1),
    ("e01", "e01.dst", "e01_mig_dst_tcp", "tcp_accept_incoming_migration", 1),
    ("e02", "e02.src", "e02_mig_src_seed_uri", "do_migrate", 1),
    ("e02", "e02.src", "e02_mig_src_seed_uri", "do_info_migrate", 1),
    ("e02", "e02.src", "e02_mig_src_seed_uri", "do_migrate", 2),
    ("e02", "e02.src", "e02_mig_src_seed_uri", "tcp_wait_for_connect", 1),
    ("e02", "e02.dst", "e02_mig_dst_seed_uri", "qemu_start_incoming_migration", 1),
    ("e03", "e03.dst", "e03_mig_dst_bad_proto", "qemu_start_incoming_migration", 1),
    ("e05", "e05.src", "e05_mig_src_exec", "do_migrate", 1),
    ("e05", "e05.src", "e05_mig_src_exec", "migrate_fd_put_ready", 1),
    ("e05", "e05.dst", "e05_mig_dst_exec", "qemu_start_incoming_migration", 1),
    ("e05", "e05.dst", "e05_mig_dst_exec", "exec_accept_incoming_migration", 1),
    ("e07", "e07.dst", "e07_mig_dst_block", "qemu_start_incoming_migration", 1),
    ("e07", "e07.dst", "e07_mig_dst_block", "tcp_accept_incoming_migration", 1),
    ("e08", "e08.src", "e08_mig_src_kvm", "do_migrate", 1),
    ("e08", "e08.src", "e08_mig_src_kvm", "tcp_wait_for_connect", 1),
    ("e08", "e08.src", "e08_mig_src_kvm", "migrate_fd_put_ready", 1),
    ("e08", "e08.dst", "e08_mig_dst_kvm", "qemu_start_incoming_migration", 1),
    ("e08", "e08.dst", "e08_mig_dst_kvm", "tcp_accept_incoming_migration", 1),
]


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """Runs a scenario when first asked for a trace of it."""

    @cache
    def ran(scenario):
        folder = tmp_path_factory.mktemp(scenario)
        here = os.getcwd()
        os.chdir(folder)
        try:
            Path("base_raw.img").write_bytes(GUEST.ljust(510, b"\0") + b"\x55\xaa")
            os.truncate("base_raw.img", 16 << 20)
            run("qemu-img", "create", "-f", "qcow", "-b", "base_raw.img", "overlay.img")
            run("qemu-img", "create", "-f", "qcow2", "-b", "base_raw.img", "overlay2.img")
            run("qemu-img", "create", "-f", "qcow2", "dst.img", "16M")
            shutil.copy("overlay.img", "fresh.img")
            shutil.copy("overlay2.img", "fresh2.img")
        finally:
            os.chdir(here)
        scenarios(folder)[scenario]()
        return folder

    @cache
    def calls(scenario, name):
        return CallTable.from_trace(load(ran(scenario) / f"{name}.trace"))

    calls.folder = ran
    return calls


@cache
def known():
    return frozenset((function.file, function.name) for function in load_model())


@pytest.mark.xdist_group("streams")
@pytest.mark.parametrize(
    ("scenario", "side", "recording", "function", "number"),
    PARTS,
    ids=[f"{side}-{function}-{number}" for _, side, _, function, number in PARTS],
)
def test_saving_and_moving_make_the_recorded_calls(traces, scenario, side, recording, function, number):
    if scenario == "e08" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm that this user may open")
    found = compare_stream(
        traces(scenario, side), recordings.load(recording), function, known(), number=number
    )
    assert found == []


@pytest.mark.xdist_group("streams")
def test_both_sides_are_compared_by_one_command(traces, capsys):
    folder = traces.folder("e01")
    source, destination = (str(folder / f"e01.{side}.trace") for side in ("src", "dst"))
    assert main(["compare", source, destination, "--recording", "e01"]) == 0
    told = capsys.readouterr().out
    assert told.endswith("equal, however often the loop turned\n")
    assert len(re.findall(r"^  .*: +equal$", told, re.M)) >= 6
    assert main(["compare", source, destination, "--recording", "e05"]) == 1
    told = capsys.readouterr().out
    assert told.endswith("not equal\n")
    assert re.search(r"in do_migrate:\n +- +exec_start_outgoing_migration\n", told)
    assert main(["compare", destination, source, "--recording", "e01"]) == 1
    assert "is it the other side's?" in capsys.readouterr().err
    assert main(["compare", source, destination, "--recording", "d01"]) == 1
    assert "d01 names no recordings of a migration" in capsys.readouterr().err
    both = f"{source}.both"
    assert main(["trace", "join", source, destination, "-o", both]) == 0
    assert main(["compare", both, "--recording", "e01_mig_src_tcp"]) == 1
    assert "compare the two traces it was joined of" in capsys.readouterr().err
