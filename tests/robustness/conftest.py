"""What the robustness tests share: tools run in this process, and faults at the system call boundary."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hypervisor import qemu_img, qemu_io
from hypervisor.program import program


class Result(NamedTuple):
    """What a tool left: exit status, and what it printed."""

    status: int
    out: str
    err: str


def run_tool(name: str, *argv: str | Path) -> Result:
    """Run qemu-img or qemu-io in this process, from loader to end."""
    main = {"qemu-img": qemu_img.main, "qemu-io": qemu_io.main}[name]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), program(name):
        try:
            status = main([name, *map(str, argv)])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Result(status, out.getvalue(), err.getvalue())


class Faults:
    """Lets the system calls that change files in a folder fail, from the `after`-th on.

    Parameters
    ----------
    folder : Path
        Files elsewhere (terminals, pipes, the trace) are left alone.
    after : int
        How many changing calls succeed first; -1 for all.
    code : int
        The errno of the calls that fail.
    once : bool
        Only one call fails; otherwise the later ones do too, as after a crash or on a full disk.
    short : bool
        The first failing write still stores its first half, in whole sectors, and says so.
    """

    WRITES = ("write", "pwrite", "writev", "pwritev", "sendfile", "copy_file_range")
    CHANGES = (*WRITES, "ftruncate", "truncate", "posix_fallocate")
    READS = ("read", "pread", "readv", "preadv")

    def __init__(
        self,
        folder: Path,
        after: int = -1,
        code: int = errno.EIO,
        *,
        once: bool = False,
        short: bool = False,
        calls: tuple[str, ...] = CHANGES,
    ) -> None:
        self.folder = os.path.realpath(folder)
        self.after, self.code, self.once, self.short, self.calls = after, code, once, short, calls
        self.seen = 0

    def _hit(self, target: int | str) -> bool:
        try:
            path = (
                os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else os.path.abspath(target)
            )
        except OSError:
            return False
        if not path.startswith(self.folder + os.sep):
            return False
        self.seen += 1
        return self.after >= 0 and (self.seen == self.after + 1 if self.once else self.seen > self.after)

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: int | str, *args: Any) -> Any:
            if not self._hit(target):
                return real(target, *args)
            if self.short and self.seen == self.after + 1 and "write" in name:
                parts = [args[0]] if name in ("write", "pwrite") else args[0]
                data = b"".join(parts)
                half = len(data) // 2 & -min(512, len(data) // 2 or 1)
                if half:
                    plain = os.write if name.startswith("write") else os.pwrite
                    return self._real.get(plain.__name__, plain)(target, data[:half], *args[1:])
            del args  # or the traceback would keep a view of the caller's buffer, as no system call does
            raise OSError(self.code, os.strerror(self.code))

        return call

    def __enter__(self) -> Faults:
        self._real = {name: getattr(os, name) for name in self.calls}
        for name, real in self._real.items():
            setattr(os, name, self._wrap(name, real))
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)


@pytest.fixture(scope="session", name="run_tool")
def run_tool_fixture() -> Callable[..., Result]:
    """Run a tool in the present folder."""
    return run_tool


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a tool in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return run_tool


@pytest.fixture
def faults() -> type[Faults]:
    """The class `Faults`."""
    return Faults


@pytest.fixture(scope="session")
def real_check() -> Callable[[Path], int]:
    """``qemu-img check`` of the real QEMU: 0 clean, 2 corrupt, 3 leaking."""
    binary = shutil.which("qemu-img")
    if binary is None:
        pytest.skip("qemu-img is missing: apt-get install qemu-utils")
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout

    def check(image: Path) -> int:
        command = [binary, "check", "-q", "-f", "qcow2", str(image)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).returncode

    assert version
    return check


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    """Every run gives back what it opened."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before
