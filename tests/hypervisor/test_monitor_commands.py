"""What the monitor's commands answer; to the lines of `ANSWERS` 0.12.4 itself answered so."""

import random
import re
import socket
import struct
import subprocess
import sys
import zlib

import pytest

from hypervisor.monitor_commands import info_cmds, mon_cmds
from tests.hypervisor import guest_code as asm
from tests.hypervisor.machines import answers, until
from tracer import load

IDLE = b"\xf4\xeb\xfd"
STOPPED = ("-hda", "idle.img", "-S", "-nographic", "-serial", "null", "-monitor", "stdio")

ANSWERS = {
    "info pic": (
        "pic0: irr=01 imr=00 isr=00 hprio=0 irq_base=00 rr_sel=0 elcr=00 fnm=0\n"
        "pic1: irr=00 imr=00 isr=00 hprio=0 irq_base=00 rr_sel=0 elcr=00 fnm=0\n"
    ),
    "p 1+2*3": "0x7\n",
    "p 1+2*3&1": "0x1\n",
    "print/x -1": "0xffffffffffffffff\n",
    "print/d -1": "-1\n",
    "print/o 8": "010\n",
    "print/u -1": "18446744073709551615\n",
    "print/c 65": "'A'\n",
    "print/c 10": "'\\n'\n",
    "print/c 300": "'\\x12c'\n",
    "p/x $eip": "0xfff0\n",
    "p/x $pc": "0xfffffff0\n",
    "p/x $cs": "0xf000\n",
    "p/x $cs.base": "0xffff0000\n",
    "p/x $eax": "0\n",
    "p $foo": "unknown register\n",
    "p $": "unknown register\n",
    "p (1": "')' expected\n",
    "p 1+": "unexpected end of expression\n",
    "p": "unexpected end of expression\n",
    "p 1/0": "division by zero\n",
    "p 'a'": "0x61\n",
    "p 'ab": "missing terminating ' character\n",
    "p ~0": "0xffffffffffffffff\n",
    "p 5%3": "0x2\n",
    "p 010": "0x8\n",
    "p 08": "p: extraneous characters at the end of line\n",
    "p 0xg": "p: extraneous characters at the end of line\n",
    "p zz": "invalid char in expression\n",
    "x/10xb 0x7c00": (
        "0000000000007c00: 0x00 0x00 0x00 0x00 0x00 0x00 0x00 0x00\n0000000000007c08: 0x00 0x00\n"
    ),
    "xp/4xh 0x7c00": "0000000000007c00: 0x0000 0x0000 0x0000 0x0000\n",
    "xp/2xg 0x7c00": "0000000000007c00: 0x0000000000000000 0x0000000000000000\n",
    "xp/3d 0x7c00": (
        "0000000000007c00:                    0                    0\n"
        "0000000000007c10:                    0\n"
    ),
    "xp/4ub 0x7c00": "0000000000007c00:   0   0   0   0\n",
    "xp/4ob 0x7c00": "0000000000007c00:   0   0   0   0\n",
    "xp/4oh 0x7c00": "0000000000007c00:      0      0      0      0\n",
    "xp/1c 0x7c00": "0000000000007c00: '\\x00' '\\x00'\n",
    "xp/4z 0x7c00": "invalid char in format: 'z'\n",
    "xp/0 0x7c00": "",
    "i/xb 0x20": "portb[0x0020] = 0x1\n",
    "i/h 0x20": "portw[0x0020] = 0x01\n",
    "i/b 0x70.5": "portb[0x0071] = 00\n",
    "i 0x1ffff": "portb[0xffff] = 0xff\n",
    "o 0x80 1": "",
    "o/b 0x70 .5": "invalid char in expression\n",
    "i 0x100000000": "'i' has failed: integer is for 32-bit values\n",
    "sendkey": "sendkey: string expected\n",
    "sendkey foo": "unknown key: 'foo'\n",
    "sendkey ctrl-alt-f1": "",
    "sendkey abcdefghijklmnopqrst": "invalid key: 'abcdefghijklmno...'\n",
    "sendkey a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q": "too many keys\n",
    "sendkey 0x100": "unknown key: '0x100'\n",
    "sendkey a x": "invalid char in expression\n",
    "sendkey -": "",
    "sum 0x10000 512": "00000\n",
    "logfile": "logfile: filename expected\n",
    "boot_set c": "boot device list now set to c\n",
    "boot_set x": "Invalid boot device for PC: 'x'\nsetting boot device list failed\n",
    "boot_set cdna": "Too many boot devices for PC\nsetting boot device list failed\n",
    "cpu 0": "",
    "cpu 1": "Invalid CPU index\n",
    "memsave 0 512": "memsave: string expected\n",
    "pmemsave 0 512 /nonexist/p": "invalid char in expression\n",
    "balloon 5": "The balloon device has not been activated by the guest\n",
    "set_link foo up": "could not find network device 'foo'\n",
    "getfd a": "No file descriptor supplied via SCM_RIGHTS\n",
    "closefd a": "Failed to find file descriptor named a\n",
    "acl_show foo": "acl: unknown list 'foo'\n",
    'eject "ide1-cd0': "unterminated string\neject: block device name expected\n",
    'eject "ide1\\q"': "unsupported escape code: '\\q'\neject: block device name expected\n",
    'eject "ide1-cd0"': "",
    "eject -f": "eject: block device name expected\n",
    " info   status  ": "VM status: paused\n",
    "/x": "unknown command: ''\n",
    "xp/4x0x7c00": "invalid char in format: '0'\n",
    "info network": "VLAN 0 devices:\nDevices not on any VLAN:\n",
    "info chardev": "monitor: filename=stdio\nserial0: filename=null\nparallel0: filename=null\n",
    "info irq": "irq statistic code not compiled.\n",
    "info tlb": "PG disabled\n",
    "info mem": "PG disabled\n",
    "info numa": "0 nodes\n",
    "info usb": "USB support not enabled\n",
    "info profile": "Internal profiler not compiled\n",
    "info capture": "",
    "info pcmcia": "No PCMCIA sockets\n",
    "info vnc": "Server: disabled\n",
    "info mice": "* Mouse #0: QEMU PS/2 Mouse\n",
    "info uuid": "00000000-0000-0000-0000-000000000000\n",
    "info migrate": "",
    "info commands": "",
}
OURS = {
    "xp/999999999xg 0": "the model dumps at most 65536 bytes at a time\n",
    f"p {'(' * 300}1": "the expression is nested too deeply\n",
    "sum 0 0x7fffffff": "the model sums at most 16777216 bytes at a time\n",
    "trace": "trace: off, nothing is recorded\n",
    "trace tail": "trace: nothing is recorded; trace on begins\n",
    "trace save": "usage: trace on|off|status|save FILE|tail [N]\n",
    "trace foo": "usage: trace on|off|status|save FILE|tail [N]\n",
    "change vnc password": "change vnc: the model has no VNC server\n",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asm.write_disk("idle.img", asm.put("I") + IDLE)
    return tmp_path


def ask(machine, *lines, options=STOPPED):
    """What each line is answered; an error of the machine fails the test."""
    running = machine(*options)
    running.type("".join(f"{line}\n" for line in lines) + "quit\n")
    status, errors = running.end()
    assert status == 0, errors
    assert "fault of studykvm" not in errors
    return dict(zip(lines, answers(running.output), strict=False))


def test_commands_answer_as_the_real_ones(here, machine):
    assert ask(machine, *ANSWERS) == ANSWERS


def test_what_the_model_lacks_or_limits_is_said(here, machine):
    assert ask(machine, *OURS) == OURS


def test_help_lists_what_the_real_one_does_and_marks_what_is_lacking(here, machine):
    found = ask(machine, "help", "help info", "help log", "info foo")
    lines = found["help"].splitlines()
    assert lines[0] == "help|? [cmd] -- show the help"
    assert "x /fmt addr -- virtual memory dump starting at 'addr'" in lines
    assert "usb_del device -- remove USB device 'bus.addr'" in lines
    assert lines[-1].startswith("trace on|off|status|save FILE|tail [N] -- ")
    assert "info registers  -- show the cpu registers\n" in found["help info"]
    assert "info jit  -- show dynamic compiler info (not in the model)\n" in found["help info"]
    assert found["info foo"] == found["help info"]
    assert found["help log"].splitlines()[:4] == [
        "log item1[,...] -- activate logging of the specified items to '/tmp/qemu.log'",
        "Log items (comma separated):",
        "none       remove all logs",
        "out_asm    show generated host assembly code for each compiled TB",
    ]


def test_registers_after_power_on(here, machine):
    lines = ask(machine, "info registers")["info registers"].splitlines()
    assert lines[2] == "EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0"
    assert lines[3:5] == ["ES =0000 00000000 0000ffff 00009300", "CS =f000 ffff0000 0000ffff 00009b00"]
    assert lines[9:14] == [
        "LDT=0000 00000000 0000ffff 00008200",
        "TR =0000 00000000 0000ffff 00008b00",
        "GDT=     00000000 0000ffff",
        "IDT=     00000000 0000ffff",
        "CR0=60000010 CR2=00000000 CR3=00000000 CR4=00000000",
    ]
    assert lines[-1].startswith("XMM06=" + "0" * 32)


def test_device_tree_and_pci(here, machine):
    found = ask(machine, "info qtree", "info pci", "info qdm", "info roms")
    assert found["info qtree"].startswith(
        'bus: main-system-bus\n  type System\n  dev: i440FX-pcihost, id ""\n    bus: pci.0\n      type PCI\n'
    )
    ide = (
        "        bus: ide.0\n          type IDE\n"
        '          dev: ide-drive, id ""\n            dev-prop: unit = 0\n'
        "            dev-prop: drive = ide0-hd0\n            dev-prop: ver = <null>\n"
    )
    assert ide in found["info qtree"]
    assert (
        "  Bus  0, device   1, function 1:\n    IDE controller: PCI device 8086:7010\n"
        '      BAR4: I/O at 0xffffffffffffffff [0x000e].\n      id ""\n'
    ) in found["info pci"]
    assert 'name "piix3-ide", bus PCI, no-user\n' in found["info qdm"]
    assert 'mem=rom name="bios.bin" \n' in found["info roms"]


def test_memory_that_the_guest_uses(here, machine):
    running = machine(
        "-hda", "idle.img", "-nographic", "-serial", "stdio", "-monitor", "unix:mon,server,nowait"
    )
    running.wait_for("I")
    talk = "x/9xb 0x7c00\nxp/1xw 0x7dfe\nx/4c 0x7c00\n"
    talk += "memsave 0x7c00 512 v.bin\npmemsave 0x7c00 512 p.bin\nquit\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("mon")
        client.sendall(talk.encode())
        said = b""
        while piece := client.recv(4096):
            said += piece
    code = asm.put("I")
    found = answers(said.decode())
    dumped = [f"0x{byte:02x}" for byte in code]
    assert found[0] == f"0000000000007c00: {' '.join(dumped[:8])}\n0000000000007c08: {dumped[8]}\n"
    assert found[1] == f"0000000000007dfe: 0x{int.from_bytes(bytes.fromhex('55aa0000'), 'little'):08x}\n"
    assert "'I'" in found[2]
    sector = (here / "idle.img").read_bytes()[:512]
    assert (here / "v.bin").read_bytes() == (here / "p.bin").read_bytes() == sector
    assert running.end()[0] == 0


@pytest.mark.parametrize("name", ["shot.ppm", "shot.png"])
def test_a_picture_of_the_screen(here, machine, name):
    """The letter I, grey on black, stands in the corner; the rest of its cell is black."""
    asm.write_disk("idle.img", asm.put("I") + IDLE)
    running = machine("-hda", "idle.img", "-nographic", "-serial", "file:SER", "-monitor", "stdio")
    running.wait_for("(qemu) ")
    limit = 100
    while "I" not in (here / "SER").read_text() and limit:
        running.type("info status\n")
        running.wait_for("VM status")
        limit -= 1
    running.type(f"screendump {name}\nquit\n")
    assert running.end()[0] == 0
    dots = pixels((here / name).read_bytes())
    assert len(dots) == 720 * 400 * 3
    colours = {dots[at : at + 3] for at in range(0, len(dots), 3)}
    assert colours == {b"\0\0\0", b"\xaa\xaa\xaa"}


def pixels(picture):
    """The dots of a PPM, or of an unfiltered PNG."""
    if picture.startswith(b"P6\n720 400\n255\n"):
        return picture[15:]
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, *kind = struct.unpack(">IIBBBBB", picture[16:29])
    assert (width, height, kind) == (720, 400, [8, 2, 0, 0, 0])
    at = picture.index(b"IDAT")
    (length,) = struct.unpack(">I", picture[at - 4 : at])
    lines = zlib.decompress(picture[at + 4 : at + 4 + length])
    return b"".join(lines[at + 1 : at + 2161] for at in range(0, len(lines), 2161))


def test_the_log_has_the_processor_at_its_reset(here, machine):
    found = ask(machine, "logfile cpu.log", "log cpu_reset", "c", "system_reset", "info status")
    assert found["log cpu_reset"] == ""
    log = (here / "cpu.log").read_text()
    assert log.startswith("CPU Reset (CPU 0)\nEAX=")


def test_the_log_has_what_unicorn_shows_of_the_guest(here, machine):
    # mov ax, 1234h; then protected mode with an empty interrupt table: int 3 is a triple fault.
    found = ask(machine, "logfile guest.log", "log in_asm,exec,cpu,op", "c", "info status", "log none")
    assert found["log in_asm,exec,cpu,op"] == "unicorn does not show what these log: op\n"
    log = (here / "guest.log").read_text()
    # The first instruction is the built-in BIOS's: a write to a port of its own.
    first = log.index("IN: \n0x00000000fffffff0:  out    %al,$0xb4\n")
    assert "EAX=00000000" in log[:first] and "Trace 0x00000000 [00000000fffffff0]" in log[first:]


def test_interrupts_of_protected_mode_are_logged(here, machine):
    # cli; lgdt [7c40h]; lidt [7c48h]; mov eax, cr0; or al, 1; mov cr0, eax; int 3: into an empty table.
    code = bytes.fromhex("fa0f0116407c0f011e487c0f20c00c010f22c0cc").ljust(0x40, b"\0") + bytes(16)
    asm.write_disk("fault.img", code)
    running = machine(
        "-hda", "fault.img", "-nographic", "-serial", "null", "-monitor", "stdio", "-no-reboot", "-S"
    )
    running.type("logfile int.log\nlog int\nc\n")
    running.end()
    lines = (here / "int.log").read_text().splitlines()
    assert re.match(r" {5}0: v=03 e=0000 i=1 cpl=0 IP=0000:0000000000007c13 pc=", lines[0]), lines[0]


def test_a_log_on_a_full_disk_ends_and_the_machine_goes_on(here, machine):
    running = machine("-hda", "idle.img", "-nographic", "-serial", "null", "-monitor", "stdio", "-S")
    running.type("logfile /dev/full\nlog cpu_reset\nsystem_reset\nc\ninfo status\nquit\n")
    status, errors = running.end()
    assert status == 0 and "VM status: running" in running.plain()
    assert "/dev/full: No space left on device; nothing more is logged" in errors


def test_a_command_that_fails_does_not_end_the_machine(here, machine):
    lines = ("screendump /nonexist/x.ppm", "logfile /nonexist/log", "log cpu_reset", "info status")
    found = ask(machine, *lines)
    assert found["screendump /nonexist/x.ppm"].startswith("screendump: /nonexist/x.ppm: No such file")
    assert "No such file" in found["log cpu_reset"]
    assert found["info status"] == "VM status: paused\n"


def test_trace_records_one_command_of_a_running_machine(here, machine):
    lines = ("trace on", "trace status", "info block", "trace off", "trace tail 3", "trace save one.trace")
    found = ask(machine, *lines, "trace status")
    assert found["trace on"] == found["trace off"] == found["trace save one.trace"] == ""
    assert len(found["trace tail 3"].splitlines()) == 3
    calls = list(load("one.trace").calls())
    names = [call.function for call in calls]
    assert names.count("bdrv_info") == 1 and names.count("bdrv_print_dict") == 4
    parents = {call.parent.function for call in calls if call.function == "bdrv_info"}
    assert parents == {"do_info"}
    assert not any("trace" in name for name in names)
    shown = subprocess.run(
        [sys.executable, "-m", "studykvm", "trace", "show", "one.trace"],
        capture_output=True,
        text=True,
        env=asm.ENVIRONMENT,
        timeout=60,
    )
    assert shown.returncode == 0 and "bdrv_info_print" in shown.stdout


def test_trace_twice_and_beside_a_recorded_run(here, machine):
    found = ask(
        machine, "trace on", "info name", "trace off", "trace on ", "info kvm", "trace off ", "trace save 2"
    )
    assert set(found.values()) <= {"", "kvm support: disabled\n"}
    names = {call.function for call in load("2").calls()}
    assert "do_info_kvm" in names and "do_info_name" not in names
    found = ask(machine, "trace on", "trace off", options=(*STOPPED, "--trace", "all.trace"))
    assert found["trace on"] == "trace: the whole run is being recorded by --trace already\n"
    assert found["trace off"] == "trace: it is off already\n"
    assert {"do_quit", "do_change"} & {call.function for call in load("all.trace").calls()} == {"do_quit"}


def test_a_key_reaches_the_guest(here, machine):
    # mov ah, 0; int 16h; mov ah, 0eh; mov bx, 7; int 10h; jmp back
    asm.write_disk("echo.img", asm.put("I") + bytes.fromhex("b400cd16b40ebb0700cd10ebf3"))
    running = machine("-hda", "echo.img", "-nographic", "-serial", "file:SER", "-monitor", "stdio")
    running.wait_for("(qemu) ")
    until(lambda: "I" in (here / "SER").read_text())
    running.type("sendkey q 50\n")
    until(lambda: "Iq" in (here / "SER").read_text())
    running.type("quit\n")
    assert running.end()[0] == 0


WORDS = r"""
    0 1 -1 0x7c00 ide1-cd0 ide0-hd0 floppy0 idle.img /10xb /3i /2c $eip $cs.base (1+2)*3 0xffffffffffffffff on
    off -f -z ctrl-alt-delete a \ ' " x/ 99999999999999999999 all nosuch 0x3f8 . %s %d%n ~ /nonexist/x raw
"""
LEFT_OUT = {"q|quit", "migrate", "savevm", "loadvm", "delvm", "o"}
"""Commands that end the machine, or have it do whatever a port does."""


@pytest.mark.parametrize("seed", range(2), ids=["one", "two"])
def test_any_arguments_are_answered(here, machine, seed):
    any_of = random.Random(seed)
    names = [name for cmd in mon_cmds if cmd.name not in LEFT_OUT for name in cmd.name.split("|")]
    lines = [f"info {cmd.name}" for cmd in info_cmds]
    for _ in range(120):
        words = any_of.choices(WORDS.split(), k=any_of.randrange(4))
        lines.append(any_of.choice(names) + any_of.choice((" ", " ", "", "/xw ")) + " ".join(words))
    running = machine("-hda", "idle.img", "-nographic", "-serial", "null", "-monitor", "stdio")
    any_of.shuffle(lines)
    running.type("".join(f"{line}\n" for line in lines) + "\ninfo uuid\nquit\n")
    status, errors = running.end(60)
    assert status == 0 and "fault of studykvm" not in errors
    assert "00000000-0000-0000-0000-000000000000" in running.plain()
