"""Repeats the recorded scenarios with the model, in fresh folders, in the order of the recordings' SETUP.md.

- `replay_tools(folder)`: all a*, b* and c* scenarios; each leaves NAME.trace and NAME.out in `folder`.
- `replay_start(folder, name)`: a d* or e* scenario, up to its first turns of the main loop.

Two writes that SETUP.md does not tell show in the recorded arguments and are made here: c03 commits two
clusters, sectors 128 to 383; c33 finds the L2 table of snap.img in cluster 8 and its data in cluster 9,
behind the snapshot's, so the image was written between c30 and c33. e07's dst.img was a qcow2 image.
"""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graphs import recordings
from studykvm.tool import run_tool
from tracer import record

NOBODY = 65534


def of_kind(letters: str) -> list[str]:
    return [name for name in recordings.names() if name[0] in letters]


def replay_tools(folder: Path) -> None:
    images = folder / "images"
    images.mkdir()
    images.chmod(0o777)
    with contextlib.chdir(images):
        for name in of_kind("abc"):
            prepare = BEFORE.get(name[:3])
            if prepare is not None:
                prepare()
            replay(folder, name)
            if name.startswith("b02"):
                run("qemu-io", "-c", "write -P 0x22 65536 4096", "ov_qcow2_over_qcow2.img")
                run("qemu-io", "-c", "write 131072 4096", "ov_qcow2_over_qcow2.img")


def replay(folder: Path, name: str) -> None:
    user = as_nobody() if name.startswith("b30") else contextlib.nullcontext()
    with record(folder / f"{name}.trace"), user:
        shown = run(*argv_of(name))
    (folder / f"{name}.out").write_text(shown)


def argv_of(name: str) -> list[str]:
    argv = recordings.load(name).scenario.argv
    # scenarios.json shortens this one; the recording shows parse_pattern(arg="1").
    return ["write -P 1 0 512" if name.startswith("b30") and word == "write 0 512" else word for word in argv]


def run(program: str, *argv: str) -> str:
    """Run a tool of the model and return what a terminal would show, then its exit status."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        try:
            status = run_tool(program, list(argv))
        except SystemExit as exit_:
            status = exit_.code
    return f"{shown.getvalue()}rc={status}\n"


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write anything; the scenario wants a user who may not."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def overlay() -> bytes:
    return Path("ov_qcow_over_raw.img").read_bytes()


def bad_magic() -> None:
    Path("bad_magic.img").write_bytes(b"XXXX" + overlay()[4:])


def missing_backing() -> None:
    Path("miss_back.img").write_bytes(overlay().replace(b"base_raw.img", b"gone_raw.img"))


def read_only() -> None:
    shutil.copy("base_raw.img", "ro.img")
    Path("ro.img").chmod(0o444)


def written_overlay() -> None:
    run("qemu-io", "-c", "write -P 0x61 0 4096", "-c", "write -P 0x62 1M 512", "ov_qcow_over_qcow.img")


def source() -> None:
    Path("s_raw.img").write_bytes(b"\x07" * 0x10000 + bytes(0xF0000))


def snapshot_image() -> None:
    run("qemu-img", "create", "-f", "qcow2", "snap.img", "1M")
    run("qemu-io", "-c", "write -P 1 0 64k", "snap.img")


BEFORE: dict[str, Callable[[], object]] = {
    "b23": bad_magic,
    "b26": missing_backing,
    "b27": lambda: Path("empty.img").write_bytes(b""),
    "b29": lambda: Path("trunc.img").write_bytes(overlay()[:52]),
    "b30": read_only,
    "c01": written_overlay,
    "c10": source,
    "c30": snapshot_image,
    "c33": lambda: run("qemu-io", "-c", "write 0 4096", "snap.img"),
}


def boot_argv(name: str) -> list[str]:
    """The options of a recorded boot; the real program uses KVM unless told, the model when told."""
    _, *argv = recordings.load(name).scenario.argv
    if "-no-kvm" not in argv:
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            pytest.skip("wants a /dev/kvm to read and write")
        argv.insert(0, "-enable-kvm")
    return argv


# These read an L2 table at their start: an earlier run's guest had written its sector 5 into the overlay.
REUSED = {"e02_mig_src_seed_uri", "e02_mig_dst_seed_uri", "e03_mig_dst_bad_proto", "e05_mig_dst_exec"}


def replay_start(folder: Path, name: str) -> Path:
    """Boot as recorded, quit at once, and return the trace."""
    with contextlib.chdir(folder):
        boot_sector = b"\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa"
        Path("base_raw.img").write_bytes(boot_sector)
        os.truncate("base_raw.img", 16 << 20)
        run("qemu-img", "create", "-f", "qcow", "-b", "base_raw.img", "overlay.img")
        if name in REUSED:
            run("qemu-io", "-c", "write 2560 512", "overlay.img")
        run("qemu-img", "create", "-f", "qcow2", "-b", "base_raw.img", "overlay2.img")
        run("qemu-img", "create", "-f", "qcow2", "dst.img", "16M")
    trace = folder / f"{name}.trace"
    subprocess.run(
        [sys.executable, "-m", "studykvm", "boot", "--trace", str(trace), *boot_argv(name)],
        cwd=folder, input="quit\n", capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    return trace
