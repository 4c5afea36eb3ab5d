"""Line editing, completion and the shared terminal, on a real (pseudo) terminal."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time

import pytest

from tests.hypervisor import guest_code as asm

IDLE = b"\xf4\xeb\xfd"
LEFT, RIGHT, UP, DOWN = (f"\x1b[{letter}" for letter in "DCAB")


class Terminal:
    """A machine on a pseudo terminal; `lines` is what a human sees."""

    def __init__(self, *argv):
        self.fd, line = pty.openpty()
        self.before = termios.tcgetattr(line)
        command = [sys.executable, "-m", "studykvm", "boot", "-net", "none", "-m", "4", *argv]
        self.process = subprocess.Popen(
            command,
            stdin=line,
            stdout=line,
            stderr=subprocess.PIPE,
            env=asm.ENVIRONMENT,
            start_new_session=True,
        )
        self.line = line
        self.lines = [""]
        self.column = 0

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait_for(self, text, seconds=30):
        limit = time.monotonic() + seconds
        while text not in "\n".join(self.lines):
            assert time.monotonic() < limit, f"no {text!r} in {self.lines}"
            self.read(0.1)

    def read(self, seconds=0.0):
        """Show what comes until nothing has come for a while."""
        while select.select([self.fd], [], [], seconds)[0]:
            for piece in re.findall(r"\x1b\[[A-Z]|[^\x1b]", os.read(self.fd, 65536).decode(errors="replace")):
                self._show(piece)

    def settle(self):
        self.read(0.3)
        return self.lines[-1]

    def _show(self, piece):
        row = self.lines[-1]
        if piece == "\n":
            self.lines.append("")
        elif piece == "\r":
            self.column = 0
        elif piece == LEFT:
            self.column -= 1
        elif piece == RIGHT:
            self.column += 1
        elif piece == "\x1b[K":
            self.lines[-1] = row[: self.column]
        else:
            self.lines[-1] = row[: self.column].ljust(self.column) + piece + row[self.column + 1 :]
            self.column += 1

    def end(self):
        self.process.wait(timeout=30)
        return self.process.returncode, self.process.stderr.read().decode()


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asm.write_disk("idle.img", asm.put("I") + IDLE)
    started = []

    def start(*argv):
        started.append(Terminal(*argv))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
        running.process.stderr.close()
        os.close(running.fd)
        os.close(running.line)


@pytest.fixture
def monitor(terminal):
    running = terminal("-hda", "idle.img", "-S", "-nographic", "-serial", "null", "-monitor", "stdio")
    running.wait_for("(qemu) ")
    return running


def test_editing(monitor):
    monitor.type("info sttus" + LEFT * 3 + "a")
    assert monitor.settle() == "(qemu) info status"
    monitor.type("\r")
    monitor.wait_for("VM status: paused")
    monitor.type("one two\x17three\x01X\x05Y" + LEFT * 2 + "\x04" + "\x7f" + RIGHT * 9)
    assert monitor.settle() == "(qemu) Xone thrY"
    monitor.type(UP)
    assert monitor.settle() == "(qemu) info status"
    monitor.type(DOWN)
    assert monitor.settle() == "(qemu) "
    monitor.type("\x1b[1~ab\x1b[4~c" + LEFT + "\x1b[3~")
    assert monitor.settle() == "(qemu) ab"
    # A superscript two is a digit to Python, and none to a terminal.
    os.write(monitor.fd, b"\x1b[\xb2")
    assert monitor.settle() == "(qemu) ab"


def test_letters_beyond_ascii(monitor):
    monitor.type("info \u00fcber")
    monitor.type("\r")
    monitor.wait_for("info roms")
    monitor.type("change ide1-cd0 gr\u00fc\u00df.img\rinfo history\r")
    monitor.wait_for("2: 'info history'")
    assert "1: 'change ide1-cd0 gr\u00fc\u00df.img'" in monitor.lines


COMPLETED = {
    "inf": "info ",
    "info sta": "info status ",
    "system_": "system_",
    "eject ide1": "eject ide1-cd0 ",
    "eject -f ide1": "eject -f ide1-cd0 ",
    "commit flop": "commit floppy0 ",
    "change ide1-cd0 idl": "change ide1-cd0 idle.img ",
    "change ide1-cd0 fol": "change ide1-cd0 folder/",
    "sendkey ctrl-back": "sendkey ctrl-backspace ",
    "help scr": "help screendump ",
    "nothing like": "nothing like",
    "screendump folder/pi": "screendump folder/picture.ppm ",
}


def test_completion(monitor):
    os.mkdir("folder")
    for name in ("folder/picture.ppm", "folder/other"):
        open(name, "w").close()
    found = {}
    for typed in COMPLETED:
        monitor.type(typed + "\t")
        found[typed] = monitor.settle().removeprefix("(qemu) ")
        monitor.type("\x05" + "\x7f" * 60)
        assert monitor.settle() == "(qemu) "
    assert found == COMPLETED
    assert "system_reset      system_powerdown  " in monitor.lines


def test_choices_are_listed_in_columns_and_the_common_part_is_filled_in(monitor):
    monitor.type("info st\t")
    assert monitor.settle() == "(qemu) info status "
    monitor.type("\x17\x17migrate_s\t")
    assert monitor.settle() == "(qemu) migrate_set_"
    assert "migrate_set_speed     migrate_set_downtime  " in monitor.lines


def test_the_terminal_is_put_back(monitor):
    raw = termios.tcgetattr(monitor.line)
    assert not raw[3] & (termios.ECHO | termios.ICANON)
    monitor.type("quit\r")
    assert monitor.end()[0] == 0
    assert termios.tcgetattr(monitor.line) == monitor.before


def test_monitor_and_serial_line_take_turns(terminal):
    # mov ah, 0; int 16h; mov ah, 0eh; mov bx, 7; int 10h; jmp back
    asm.write_disk("echo.img", bytes.fromhex("b400cd16b40ebb0700cd10ebf3"))
    running = terminal("-hda", "echo.img", "-nographic", "-echr", "0x14")
    running.wait_for("Booting from Hard Disk...")
    running.type("ab")
    running.wait_for("ab")
    running.type("\x14?")
    running.wait_for("C-t c    switch between console and monitor")
    running.type("\x14t\r\rtick")
    running.wait_for("tick")
    running.type("\x14t")
    running.type("\x14c")
    running.wait_for("(qemu) ")
    running.type("info status\r")
    running.wait_for("VM status: running")
    running.type("half a line\x14c")
    running.type("cd")
    running.wait_for("cd")
    running.type("\x14c")
    # What was half typed is forgotten.
    assert running.settle().endswith("cd(qemu) ")
    running.type("\x14x")
    running.wait_for("QEMU: Terminated")
    assert running.end()[0] == 0
