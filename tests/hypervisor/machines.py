"""A running `studykvm boot`, for tests that speak to it; the fixture `machine` of conftest.py starts one."""

import os
import re
import select
import subprocess
import sys
import time

from tests.hypervisor import guest_code as asm


def until(condition, seconds=30, why=lambda: ""):
    """Wait for something that nobody announces, such as what stands in a file."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, why()
        time.sleep(0.01)


class Machine:
    """A running `studykvm boot`, its standard input and output as pipes."""

    def __init__(self, *argv, fds=()):
        command = [sys.executable, "-m", "studykvm", "boot", "-net", "none", "-m", "4", *argv]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=asm.ENVIRONMENT, pass_fds=fds
        )
        os.set_blocking(self.process.stdout.fileno(), False)
        self.output = ""

    def type(self, text):
        self.process.stdin.write(text.encode("latin-1"))
        self.process.stdin.flush()

    def wait_for(self, text, seconds=30):
        """Read until `text` has come; all output so far."""
        return self._read_until(lambda: text in self.plain(), seconds, text)

    def ask(self, command, seconds=30):
        """Type a command and return what it prints."""
        # Every typed letter shows the line anew, without the prompt.
        prompts = self.plain().count("(qemu) ")
        self.type(f"{command}\n")
        self._read_until(lambda: self.plain().count("(qemu) ") > prompts, seconds, command)
        return self.plain().split("(qemu) ")[-2]

    def _read_until(self, condition, seconds, what):
        limit = time.monotonic() + seconds
        while not condition():
            left = limit - time.monotonic()
            assert left > 0, f"{what!r} is not answered in {self.plain()!r}"
            if select.select([self.process.stdout], [], [], left)[0]:
                more = self.process.stdout.read()
                assert more, self.process.stderr.read().decode()
                self.output += more.decode()
        return self.plain()

    def plain(self):
        """The output without cursor movements, line ends single."""
        return re.sub(r"\x1b\[[A-Z]", "", self.output.replace("\r\n", "\n"))

    def end(self, seconds=30):
        out, err = self.process.communicate(timeout=seconds)
        self.output += out.decode()
        return self.process.returncode, err.decode()


def answers(output):
    """What was printed after each typed line."""
    text = re.sub(r"(?:\x1b\[D)+[^\n]*(?=\x1b\[K\n)", "", output.replace("\r\n", "\n"))
    return [part.partition("\x1b[K\n")[2] for part in text.split("(qemu) ")[1:]]
