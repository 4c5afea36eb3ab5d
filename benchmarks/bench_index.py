"""What indexing costs, beside a compiler's front end over the same files and other call graph tools.

Run: ``STUDYKVM_QEMU_KVM=path/to/qemu-kvm-0.12.4 python -m benchmarks index``. Prints, for the 210 files of
the x86_64-softmmu build:

- `studykvm index` from nothing, one process, against ``clang -cc1 -fsyntax-only`` over the same files in one
  process: target, at most 0.7 times the time; under 150 MB. The time includes building `visitor.c`;
- two processes against doxygen, if it is installed: target, ahead of it. To be comparable it is asked for
  what an index holds, as XML and without pictures: the same headers, include folders and defines, macros
  expanded, references both ways with their places. The row "text of the C files alone" is doxygen without all
  that: it then sees no header and no macro, and takes every mention of a function for a call;
- cflow and cscope, which read text only, for comparison;
- QEMU 7.2's block, hw, migration, softmmu and util with two processes, if STUDYKVM_QEMU_72 names its tree or
  tarball: target, under a minute;
- the index renewed after one changed file: target, under 2 s;
- start to answer of one question: target, under 0.4 s.

Wall times, the least of two runs that take turns, with the processor time beside them.
"""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

Run = Callable[..., None]
ROUNDS = 2


def _clang() -> str | None:
    for name in ("clang", *(str(p) for p in sorted(Path("/usr/lib").glob("llvm-*/bin/clang"), reverse=True))):
        if shutil.which(name):
            return name
    return None


def _timed(command: list[str], cwd: Path, stdin: str | None = None) -> tuple[float, float, float]:
    """Wall seconds, processor seconds, and peak megabytes of a command and its children."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stdin=subprocess.PIPE if stdin else None,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if stdin and process.stdin:
        process.stdin.write(stdin.encode())
        process.stdin.close()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _front_end(clang: str, arguments: list[str], files: list[str]) -> list[str]:
    out = [clang, "-cc1", "-triple", "x86_64-pc-linux-gnu", "-fsyntax-only"]
    for word in arguments:
        if word == "-xc":
            out += ["-x", "c"]
        elif word.startswith("-D"):
            out += ["-D", word[2:]]
        elif word.startswith("-ferror-limit"):
            out += ["-ferror-limit", "0"]
        elif word not in ("-nobuiltininc", "-fno-strict-aliasing"):
            out.append(word)
    system = ["/usr/include/x86_64-linux-gnu", "/usr/include"]
    return [*out, *(word for folder in system for word in ("-internal-isystem", folder)), *files]


def _show(name: str, measured: tuple[float, float, float], note: str = "") -> None:
    wall, processor, peak = measured
    print(f"{name:<44} {wall:6.2f} s  ({processor:5.2f} s of processor, {peak:4.0f} MB)  {note}")


def main() -> None:
    """Measure."""
    tree = Path(os.environ.get("STUDYKVM_QEMU_KVM", ""))
    if not (tree / "qemu-kvm.c").is_file():
        print("name the sources: STUDYKVM_QEMU_KVM=path/to/qemu-kvm-0.12.4; skipped")
        return
    from graphs.index import profile

    tree = tree.resolve()
    family = profile.find(tree)
    assert family is not None
    files = list(family.files(tree))
    ours = [
        sys.executable,
        "-c",
        "import sys; from studykvm.commands.index import main; sys.exit(main(sys.argv[1:]))",
    ]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        family.prepare(tree, scratch)
        clang = _clang()
        rows: dict[str, tuple[float, float, float]] = {}

        def run(name: str, command: list[str], stdin: str | None = None, cwd: Path = tree) -> None:
            measured = _timed(command, cwd, stdin)
            rows[name] = min(rows.get(name, measured), measured)

        here = Path.cwd()
        for _ in range(ROUNDS):
            if clang:
                run("clang -cc1 -fsyntax-only", _front_end(clang, family.arguments(tree, scratch), files))
            for jobs in (1, 2):
                output = scratch / f"{jobs}.index"
                output.unlink(missing_ok=True)
                run(
                    f"studykvm index, {jobs} job(s)",
                    [*ours, str(tree), "-o", str(output), "--jobs", str(jobs)],
                    cwd=here,
                )
        _doxygen(tree, files, family.arguments(tree, scratch), scratch, run)
        _text_readers(files, scratch, run)
        floor = rows.get("clang -cc1 -fsyntax-only")
        for name, measured in rows.items():
            note = ""
            if floor and name.startswith("studykvm"):
                wall, processor = measured[0] / floor[0], measured[1] / floor[1]
                note = f"{wall:.2f} of clang's time, {processor:.2f} of its processor time"
            _show(name, measured, note)
        _modern(scratch, ours)
        _renewal(tree, scratch, ours)
    _answer()


def _doxygen(tree: Path, files: list[str], arguments: list[str], scratch: Path, run: Run) -> None:
    if not shutil.which("doxygen"):
        return

    def listed(name: str, values: Iterable[str]) -> str:
        return name + "=" + " ".join(f'"{value}"' for value in values) + "\n"

    settings = (
        f"OUTPUT_DIRECTORY={scratch}/dox\nGENERATE_HTML=NO\nGENERATE_LATEX=NO\nGENERATE_XML=YES\nQUIET=YES\n"
        "EXTRACT_ALL=YES\nEXTRACT_STATIC=YES\nREFERENCES_RELATION=YES\nREFERENCED_BY_RELATION=YES\n"
        "OPTIMIZE_OUTPUT_FOR_C=YES\n"
    )
    with sqlite3.connect(scratch / "1.index") as db:
        read = [row[0] for row in db.execute("SELECT path FROM files WHERE path NOT LIKE '<%'")]
    folders = [arguments[n + 1] for n, word in enumerate(arguments) if word in ("-I", "-idirafter")]
    same = (
        settings
        + "MACRO_EXPANSION=YES\nSOURCE_BROWSER=YES\n"
        + listed("INCLUDE_PATH", folders)
        + listed("PREDEFINED", (word[2:] for word in arguments if word.startswith("-D")))
        + listed("INPUT", (str(tree / path) for path in read))
    )
    run("doxygen, headers, macros, references", ["doxygen", "-"], same)
    run(
        "doxygen, text of the C files alone",
        ["doxygen", "-"],
        settings + listed("INPUT", (str(tree / f) for f in files)),
    )


def _text_readers(files: list[str], scratch: Path, run: Run) -> None:
    if shutil.which("cflow"):
        run("cflow (text only)", ["cflow", "-o", str(scratch / "cflow"), *files])
    if shutil.which("cscope"):
        run("cscope (text only)", ["cscope", "-b", "-k", "-f", str(scratch / "cscope"), *files])


def _modern(scratch: Path, ours: list[str]) -> None:
    source = os.environ.get("STUDYKVM_QEMU_72", "")
    if not source:
        print("QEMU 7.2: set STUDYKVM_QEMU_72 to its tree or tarball; skipped")
        return
    words = [word for part in ("block", "hw", "migration", "softmmu", "util") for word in ("--only", part)]
    command = [*ours, source, *words, "-o", str(scratch / "modern.index"), "--jobs", "2"]
    _show("QEMU 7.2, five folders, 2 jobs", _timed(command, Path.cwd()), "target: 60 s")


def _renewal(tree: Path, scratch: Path, ours: list[str]) -> None:
    """One changed file, in a copy of the tree: the tree itself is never written to."""
    copy = scratch / "tree"
    shutil.copytree(tree, copy, symlinks=True, ignore=shutil.ignore_patterns("roms", "pc-bios", ".git"))
    output = scratch / "renewed.index"
    _timed([*ours, str(copy), "-o", str(output), "--jobs", "2"], Path.cwd())
    with (copy / "block.c").open("a") as file:
        file.write("\nint studykvm_benchmark(void) { return 0; }\n")
    _show(
        "renewed after block.c changed",
        _timed([*ours, str(copy), "-o", str(output)], Path.cwd()),
        "target: 2 s",
    )


def _answer() -> None:
    script = "import sys; from studykvm.commands.ask import path; sys.exit(path(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "vl.c:main", "block/qcow.c:qcow_open"]
    _show(
        "start to answer: path main qcow_open",
        min(_timed(command, Path.cwd()) for _ in range(5)),
        "target: 0.4 s",
    )


if __name__ == "__main__":
    main()
    print(f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
