"""More starts and monitor talks of the real program than ship: other drives, other options, wrong ones.

`data/starts.tar.xz` holds them in the form of recordings kept elsewhere: NAME.calls and one scenarios.json.
Their images are made anew here; two with many monitor lines go on to the end, the others to the main loop.
"""

import contextlib
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from graphs import recordings
from graphs.calls import CallTable
from graphs.compare import compare, report
from graphs.compare.parts import Part, Selector, compare_part, count
from tests.truth.replay import run
from tests.truth.test_replay import known
from tracer import load

ARCHIVE = Path(__file__).parent / "data" / "starts.tar.xz"
TALKS = ["dE5_change", "dF2_passwd"]
STARTS = [
    "d46_snap_two", "d54_fda", "d57_boot_once", "d62_rtc", "d63_rtc_bad", "d66_readconfig",
    "d70_forced_bad_qcow", "d94_ifnone_device", "d95_device_missing",
    "dA4_nodefaults", "dB8_startdate", "dC6_tdf", *TALKS,
]  # fmt: skip
CONFIG = """[drive "a"]
  file = "overlay.img"
  media = "disk"
  index = "0"

[drive]
  file = "cd.iso"
  media = "cdrom"
"""


@pytest.fixture(scope="session")
def more(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("more")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def make_images(folder: Path) -> None:
    with contextlib.chdir(folder):
        for name, size in (("base_raw.img", 16 << 20), ("second.img", 1 << 20), ("floppy.img", 1474560)):
            Path(name).write_bytes(b"\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa")
            os.truncate(name, size)
        Path("cd.iso").write_bytes(bytes(32768) + b"\1CD001\1" + bytes((1 << 20) - 32775))
        run("qemu-img", "create", "-f", "qcow", "-b", "base_raw.img", "overlay.img")
        run("qemu-img", "create", "-f", "qcow2", "-b", "base_raw.img", "overlay2.img")
        Path("bad_magic.img").write_bytes(b"XXXX" + Path("overlay.img").read_bytes()[4:])
        Path("conf.cfg").write_text(CONFIG)


@pytest.fixture(scope="session", params=STARTS)
def played(request, tmp_path_factory, more) -> tuple[str, Path, str]:
    """One start played by the model: its name, its trace, and what it printed."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    make_images(folder)
    scenario = recordings.load(str(more / f"{name}.calls")).scenario
    assert scenario is not None
    lines = scenario.monitor if name in TALKS else ["quit"]
    done = subprocess.run(
        [sys.executable, "-m", "studykvm", "boot", "--trace", "t.trace", *scenario.argv[1:]],
        cwd=folder, input="".join(f"{line}\n" for line in lines), timeout=120, text=True,
        capture_output=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    said = done.stderr.partition("\nWhat the real qemu-kvm")[0]
    # What we say on top of it names the program that says it.
    said = "".join(line for line in said.splitlines(keepends=True) if not line.startswith("studykvm: "))
    return name, folder / "t.trace", f"{shown(done.stdout)}{said}rc={done.returncode}\n"


def shown(output: str) -> str:
    """What is left on a terminal of lines that were edited in sight."""
    return re.sub(r"[^\n]*\x1b\[K", lambda line: re.split(r"(?:\x1b\[D)+", line[0])[-1][:-3], output)


def test_another_start_makes_the_recorded_calls(played, more):
    name, trace, _ = played
    recording = recordings.load(str(more / f"{name}.calls"))
    comparison = compare(CallTable.from_trace(load(trace)), recording, known())
    assert comparison.equal, "\n".join(report.lines(comparison))
    assert comparison.equal_calls > 200


def test_each_monitor_line_makes_the_recorded_calls(played, more):
    name, trace, _ = played
    recording = recordings.load(str(more / f"{name}.calls"))
    calls, command = CallTable.from_trace(load(trace)), Selector("handle_user_command")
    assert count(calls, command) >= count(recording.calls, command) >= (7 if name in TALKS else 0)
    for number in range(1, count(recording.calls, command) + 1):
        part = Part(f"line {number}", Selector("handle_user_command", "", number))
        comparison = compare_part(calls, recording, part, known())
        assert comparison is not None and comparison.equal, "\n".join(report.lines(comparison))


def test_another_start_says_the_recorded_words(played, more):
    name, _, ours = played
    scenario = recordings.load(str(more / f"{name}.calls")).scenario
    assert scenario is not None
    theirs = scenario.output
    if theirs.startswith("QEMU"):
        if name not in TALKS:
            # Only the start was played.
            theirs = theirs.partition("\n")[0] + "\nquit\nrc=0\n"
        # Here the lines wait before the machine starts: 0.12.4 shows the first letter, and then its name.
        theirs = (scenario.monitor[0] if name in TALKS else "quit")[0] + theirs
    assert ours == theirs
