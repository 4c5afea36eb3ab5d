"""Run QEMU's own block tests against `studykvm img` and `studykvm io`.

    python tools/iotests.py path/to/qemu-7.2.0 [--formats raw,qcow,qcow2] [--tests 001,019]

The tests are those shell tests of tests/qemu-iotests that need no other program of QEMU. They
find ours through QEMU_IMG_PROG and QEMU_IO_PROG, run in a scratch folder, and print through
the suite's own filters; what they print is held against the suite's reference output.
qcow2 runs with compat=0.10, so that the suite itself skips what needs version 3.

- `select(folder)`: which tests, and why not the others.
- `run(test, ...)`: one test with one format; a `Result`.
- `YOUNGER`: tests that ask for what QEMU 0.12.4 did not have; they are run all the same.

``--programs DIR`` takes qemu-img and qemu-io from another folder, to try the suite itself.
The exit status is 1 if a test failed that is not listed in `YOUNGER`.
"""

import argparse
import difflib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FORMATS = ("raw", "qcow", "qcow2")
ROOT = Path(__file__).resolve().parent.parent
_IMGOPTS = {"qcow2": "compat=0.10"}

_NEEDS = (
    (
        r"common\.qemu|\$QEMU\b|\$\{?QEMU_PROG|run_qemu|_require_drivers|_require_devices|_require_one_device",
        "qemu",
    ),
    (r"\$QEMU_NBD|common\.nbd|nbd_server|_require_command QEMU_NBD", "qemu-nbd"),
    (r"\$QSD\b", "qemu-storage-daemon"),
)

_BLKDEBUG = "opens through blkdebug, a driver younger than 0.12.4"
_JSON = "names its images in JSON"
_REOPEN = "reopens images with other options"
_DISCARD = "discards"
_DD = "copies with qemu-img dd"
_SECRET = "encrypts by --object secret; encryption is not modelled"
_VERSION3 = "makes images of version 3"

YOUNGER = {
    "020": "commits into a file further down the chain (-b), and injects errors by blkdebug",
    "026": _BLKDEBUG,
    "029": "converts from an internal snapshot (-l)",
    "031": f"{_VERSION3}; prints where 7.2 puts the tables of a new one",
    "033": _BLKDEBUG,
    "039": _VERSION3,
    "046": f"{_BLKDEBUG}; 7.2 itself fails with compat=0.10",
    "047": _DISCARD,
    "049": _VERSION3,
    "061": f"{_VERSION3}; 7.2 itself fails with compat=0.10",
    "072": "opens an image inside an image by -o file.driver",
    "074": _BLKDEBUG,
    "077": _BLKDEBUG,
    "089": _JSON,
    "090": _DISCARD,
    "097": "commits into a file further down the chain (-b), or without emptying the image (-d)",
    "103": "sets the cache sizes of 7.2",
    "106": "preallocates with falloc and full",
    "107": "reads the L1 table in the file at the offset where 7.2 puts it; 0.12.4's is recorded",
    "110": _JSON,
    "114": "overrides the backing file's format by -o backing.driver",
    "122": f"chooses what is sparse (convert -S); {_VERSION3}",
    "133": _REOPEN,
    "134": _SECRET,
    "138": "repairs (check -r)",
    "150": _JSON,
    "158": _SECRET,
    "159": _DD,
    "160": _DD,
    "170": _DD,
    "171": "gives a raw image an offset and a size",
    "177": _BLKDEBUG,
    "187": _REOPEN,
    "197": "copies on read (-C)",
    "214": "repairs (check -r)",
    "215": "copies on read by a filter driver",
    "217": _BLKDEBUG,
    "221": _DISCARD,
    "226": "names protocol drivers, with -o locking",
    "250": _DISCARD,
    "253": "describes images by --image-opts",
    "261": "amends images",
    "268": _BLKDEBUG,
    "279": "describes an image by --image-opts",
    "292": "makes a qcow2 image shorter",
    "301": "backs images by VMDK; expects 7.2's guard of raw images against a format's header",
}


@dataclass(frozen=True)
class Result:
    """How one test went with one format."""

    test: str
    format: str
    outcome: str
    why: str
    seconds: float
    diff: str = ""


def _supports(text: str, directive: str, names: Iterable[str]) -> bool:
    found = re.findall(rf"^{directive}\s+([^#\n]*)", text, re.M)
    return any(name in line.split() for line in found for name in names)


def select(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Choose the tests.

    Parameters
    ----------
    folder : Path
        tests/qemu-iotests of the QEMU source.

    Returns
    -------
    list of str
        Tests that need only qemu-img and qemu-io, for at least one of `FORMATS`.
    dict of str to str
        The other tests, and what speaks against each.
    """
    chosen, others = [], {}
    files = sorted(folder.glob("[0-9][0-9][0-9]")) + sorted((folder / "tests").glob("*"))
    for path in files:
        name = path.relative_to(folder).as_posix()
        if ".out" in path.name or path.name.startswith("__"):
            continue
        text = path.read_text(errors="replace")
        needs = [program for pattern, program in _NEEDS if re.search(pattern, _code(text))]
        if "python" in text.partition("\n")[0]:
            others[name] = "is a Python test, which drives a running machine"
        elif not _supports(text, "_supported_fmt", (*FORMATS, "generic")):
            others[name] = "is for other formats"
        elif not _supports(text, "_supported_proto", ("file", "generic")):
            others[name] = "is for other protocols"
        elif needs:
            others[name] = f"needs {' and '.join(needs)}"
        else:
            chosen.append(name)
    return chosen, others


def _code(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _wrapper(folder: Path, name: str, command: str) -> Path:
    """Write a script that calls one of our commands as if it were QEMU's program."""
    path = folder / name
    call = f'exec "{sys.executable}" -m studykvm {command} "$@"'
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" STUDYKVM_WORDING=modern {call}\n')
    path.chmod(0o755)
    return path


def programs(folder: Path) -> dict[str, str]:
    """Give the suite's variables for the programs, ours written into `folder`."""
    missing = str(_wrapper(folder, "qemu-missing", "false"))
    return {
        "QEMU_IMG_PROG": str(_wrapper(folder, "qemu-img", "img")),
        "QEMU_IO_PROG": str(_wrapper(folder, "qemu-io", "io")),
        "QEMU_PROG": missing,
        "QEMU_NBD_PROG": missing,
        "QSD_PROG": missing,
    }


def _environment(source: Path, scratch: Path, fmt: str) -> dict[str, str]:
    options = "--cache writeback --aio threads"
    env = {
        "TEST_DIR": str(scratch),
        "SOCK_DIR": str(scratch / "sock"),
        "SAMPLE_IMG_DIR": str(source / "sample_images"),
        "PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join((str(source), str(source.parent.parent / "python"))),
        "IMGFMT": fmt,
        "IMGPROTO": "file",
        "IMGFMT_GENERIC": "true",
        "IMGOPTSSYNTAX": "false",
        "AIOMODE": "threads",
        "CACHEMODE": "writeback",
        "CACHEMODE_IS_DEFAULT": "true",
        "QEMU_OPTIONS": "",
        "QEMU_IO_OPTIONS": f"{options} -f {fmt}",
        "QEMU_IO_OPTIONS_NO_FMT": options,
        "QEMU_DEFAULT_MACHINE": "pc",
    }
    if fmt in _IMGOPTS:
        env["IMGOPTS"] = _IMGOPTS[fmt]
    return env


def _reference(source: Path, test: str, fmt: str) -> Path:
    special = source / f"{test}.out.{fmt}"
    return special if special.exists() else source / f"{test}.out"


def run(source: Path, test: str, fmt: str, variables: dict[str, str], timeout: float) -> Result:
    """Run one test.

    Parameters
    ----------
    source : Path
        tests/qemu-iotests.
    test, fmt : str
        Which, with which format.
    variables : dict of str to str
        Those of `programs`.
    timeout : float
        Seconds until the test is killed.
    """
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="iotest-") as folder:
        scratch = Path(folder)
        (scratch / "sock").mkdir()
        env = os.environ | _environment(source, scratch, fmt) | variables
        with subprocess.Popen(
            [str(source / test)],
            cwd=(source / test).parent,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                raw, _ = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return Result(test, fmt, "failed", f"not done after {timeout:.0f} s", timeout)
        seconds = time.monotonic() - begin
        output = raw.decode(errors="replace")
        notrun = scratch / f"{Path(test).name}.notrun"
        if notrun.exists():
            return Result(test, fmt, "skipped", notrun.read_text().strip(), seconds)
    expected = _reference(source, test, fmt).read_text(errors="replace")
    diff = "\n".join(
        difflib.unified_diff(_lines(expected), _lines(output), "expected", "printed", lineterm="", n=2)
    )
    if not diff and process.returncode == 0:
        return Result(test, fmt, "passed", "", seconds)
    return Result(test, fmt, "failed", YOUNGER.get(test, "see the difference"), seconds, diff)


def _lines(text: str) -> list[str]:
    """Split into lines as the suite's `diff -w` sees them."""
    return [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, help="the unpacked QEMU 7.2 source")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--tests", help="only these, as 001,019")
    parser.add_argument("--timeout", type=float, default=900)
    parser.add_argument("--programs", type=Path, help="a folder with other programs, as /usr/bin")
    parser.add_argument("--diff", action="store_true", help="print the difference of each failed test")
    parser.add_argument("--list", action="store_true", help="print the selection and stop")
    return parser.parse_args()


def _print_selection(chosen: list[str], others: dict[str, str]) -> None:
    print(f"{len(chosen)} tests need only qemu-img and qemu-io: {' '.join(chosen)}")
    for why, count in Counter(others.values()).most_common():
        print(f"{count:4} {'test' if count == 1 else 'tests'} left out: {why}")


def main() -> int:
    """Run the suite and print the table."""
    args = _arguments()
    source = (args.source / "tests" / "qemu-iotests").resolve()
    if not (source / "common.rc").exists():
        print(f"{args.source} is no QEMU source: it has no tests/qemu-iotests/common.rc", file=sys.stderr)
        return 2
    chosen, others = select(source)
    _print_selection(chosen, others)
    if args.list:
        return 0
    if args.tests:
        chosen = args.tests.split(",")
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="iotests-bin-") as folder:
        variables = programs(Path(folder))
        if args.programs:
            for variable, name in (("QEMU_IMG_PROG", "qemu-img"), ("QEMU_IO_PROG", "qemu-io")):
                variables[variable] = str(args.programs / name)
        for test in chosen:
            for fmt in args.formats.split(","):
                result = run(source, test, fmt, variables, args.timeout)
                results.append(result)
                print(
                    f"{test:<10}{fmt:<7}{result.outcome:<9}{result.seconds:6.1f} s  {result.why}", flush=True
                )
                if args.diff and result.diff:
                    print(result.diff)
    for fmt in args.formats.split(","):
        counts = Counter(r.outcome for r in results if r.format == fmt)
        younger = sum(r.outcome == "failed" and r.test in YOUNGER for r in results if r.format == fmt)
        print(
            f"{fmt}: {counts['passed']} passed, {counts['failed']} failed ({younger} of them ask for what"
            f" is younger than 0.12.4), {counts['skipped']} skipped by the suite"
        )
    return int(any(r.outcome == "failed" and r.test not in YOUNGER for r in results))


if __name__ == "__main__":
    sys.exit(main())
