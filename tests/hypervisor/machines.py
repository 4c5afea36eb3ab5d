"""A running `studykvm boot`, for tests that speak to it; the fixture `machine` of conftest.py starts one."""

import os
import re
import subprocess
import sys
import time

from tests.hypervisor import guest_code as asm


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
        limit = time.monotonic() + seconds
        while text not in self.plain():
            assert time.monotonic() < limit, f"no {text!r} in {self.plain()!r}"
            assert self.process.poll() is None or not self.read(), self.process.stderr.read().decode()
            self.read()
            time.sleep(0.01)
        return self.plain()

    def read(self):
        more = self.process.stdout.read() or b""
        self.output += more.decode()
        return more

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
