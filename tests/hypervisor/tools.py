"""Run the model's tools, and QEMU's own, in the current folder; both give a `Shown`."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest

from hypervisor.wording import VARIABLE
from studykvm.tool import run_tool

needs_qemu = pytest.mark.skipif(
    not (shutil.which("qemu-img") and shutil.which("qemu-io")),
    reason="QEMU's own qemu-img and qemu-io are not here: apt-get install qemu-utils",
)


class Shown(NamedTuple):
    """What a program left behind: its exit status and its two streams."""

    status: int
    out: str
    err: str


def ours(program: str, *argv: str, stdin: str = "", modern: bool = False) -> Shown:
    out, err, held = io.StringIO(), io.StringIO(), (sys.stdin, os.environ.pop(VARIABLE, None))
    sys.stdin = io.StringIO(stdin)
    if modern:
        os.environ[VARIABLE] = "modern"
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = run_tool(program, list(argv))
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    finally:
        sys.stdin = held[0]
        os.environ.pop(VARIABLE, None)
        if held[1] is not None:
            os.environ[VARIABLE] = held[1]
    return Shown(status, out.getvalue(), err.getvalue())


def theirs(program: str, *argv: str, stdin: str = "") -> Shown:
    done = subprocess.run([program, *argv], input=stdin, capture_output=True, text=True, timeout=60)
    return Shown(done.returncode, done.stdout, done.stderr)


def img(*argv: str) -> str:
    """Run our qemu-img, which must succeed."""
    shown = ours("qemu-img", *argv)
    assert shown.status == 0, shown
    return shown.out


def io_(image: str, *commands: str, options: tuple[str, ...] = ()) -> str:
    """Run our qemu-io, which must succeed."""
    words = [word for command in commands for word in ("-c", command)]
    shown = ours("qemu-io", *options, *words, image)
    assert shown.status == 0, shown
    return shown.out


def real(program: str, *argv: str) -> str:
    """Run QEMU's own program, which must succeed."""
    shown = theirs(program, *argv)
    assert shown.status == 0, shown
    return shown.out


def untimed(text: str) -> str:
    """Leave out what the clock decides."""
    text = re.sub(r"ops; .*", "ops", text)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE", text)
