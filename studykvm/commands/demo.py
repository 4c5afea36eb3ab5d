"""studykvm demo: make an overlay, boot it traced, show and draw what happened."""

import argparse
import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studykvm.errors import StudyError

if TYPE_CHECKING:
    from tracer import Trace

# The way of a disk: opening, the guest's requests and their completion.
_OPENING = (
    "drive_init", "bdrv_open2", "find_image_format", "*_probe", "bdrv_file_open", "qcow_open", "raw_open",
    "bdrv_delete",
)  # fmt: skip
_RUNNING = (
    "main_loop", "ide_read_dma_cb", "ide_write_dma_cb", "dma_bdrv_cb", "bdrv_aio_readv", "bdrv_aio_writev",
    "qcow_aio_read_cb", "qcow_aio_write_cb", "get_cluster_offset", "paio_submit", "posix_aio_process_queue",
)  # fmt: skip
_DRAWN = (
    *_OPENING, *_RUNNING, "main", "drive_add", "main_loop_wait", "cpu_x86_exec", "bmdma_cmd_writeb",
    "bdrv_*read*", "bdrv_pwrite", "bdrv_write*", "bdrv_guess_geometry", "raw_*", "qcow_*", "find_protocol",
    "ide_init_drive", "guess_disk_lchs", "dma_bdrv_*", "posix_aio_*", "qemu_aio_wait", "aio_thread",
    "handle_aiocb_*",
)  # fmt: skip


def main(argv: list[str]) -> int:
    """Run the demonstration in a folder; about two seconds."""
    parser = argparse.ArgumentParser(
        prog="studykvm demo",
        description="Make a base and an overlay, boot the overlay traced, draw what happened.",
    )
    parser.add_argument("-o", "--output", default="build/demo", metavar="DIR", help="folder (build/demo)")
    folder = Path(parser.parse_args(argv).output)
    from tracer import load

    began = time.perf_counter()
    if folder.exists() and not folder.is_dir():
        raise StudyError(f"-o {folder}: a file of that name is there; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        _make_images()
        status = _boot()
        trace = load("boot.trace")
        _show(trace)
        _draw(trace)
        _witnesses(trace)
    print(f"\nAll of this took {time.perf_counter() - began:.1f} s and is in {folder}/.")
    _next(folder)
    return status


def _say(command: str) -> None:
    print(f"\n$ {command}", flush=True)


def _make_images() -> None:
    from studykvm.guests import write_demo_disk
    from studykvm.tool import run_tool

    print("A raw disk with a boot sector, base.img, and a qcow overlay on it:")
    write_demo_disk("base.img")
    create = "create -f qcow -b base.img overlay.img"
    _say(f"studykvm img {create}")
    run_tool("qemu-img", create.split())


def _boot() -> int:
    from hypervisor.boot import run_boot
    from tracer import record

    _say("studykvm boot --trace boot.trace -hda overlay.img")
    with record("boot.trace", note="studykvm boot -hda overlay.img"):
        result = run_boot(["-hda", "overlay.img"], timeout=60)
    lines = result.screen.rstrip().splitlines()
    width = max(map(len, lines), default=0)
    print("  ┌" + "─ the guest's screen ".ljust(width + 2, "─") + "┐")
    for line in lines:
        print(f"  │ {line:<{width}} │")
    print(f"  └{'─' * (width + 2)}┘")
    return result.status


def _show(trace: "Trace") -> None:
    stats = trace.stats()
    print(
        f"\nRecorded: {stats.calls:,} calls of {len(stats.functions):,} functions, {stats.threads} threads, "
        f"{stats.writes:,} writes to {stats.structures:,} structures."
    )
    print("\nHow -hda opened two files (repeats folded, helpers left out):\n")
    _tree(trace, "drive_init", _OPENING, 45)
    print("\nHow the guest's reads and its write went through the overlay to the base:\n")
    _tree(trace, "main_loop", _RUNNING, 75)


def _tree(trace: "Trace", start: str, globs: Sequence[str], most: int) -> None:
    from tracer.passes import select
    from tracer.text import tree_lines

    root = select(trace.tree(), start=start, globs=globs, number=0)
    lines = list(tree_lines(root))
    print("\n".join(f"  {line}" for line in lines[:most]))
    if len(lines) > most:
        print(f"  ... and {len(lines) - most} more lines")


def _draw(trace: "Trace") -> None:
    from graphs.draw import callgraph, engine
    from tracer.passes import select

    root = select(trace.tree(), globs=_DRAWN)
    picture = callgraph.of_tree(root, "From -hda overlay.img to the guest's first read and write")
    picture.limit = 45
    dot = picture.dot()
    for kind in ("svg", "png"):
        Path(f"boot.{kind}").write_bytes(engine.render(dot, kind))
    print("\nDrawn: boot.svg (rest the pointer on a box or an arrow), boot.png")


def _witnesses(trace: "Trace") -> None:
    from graphs.witnesses import page, report
    from studykvm.model import witnesses

    found = witnesses(trace, "d00_boot_tcg_everything")
    print(f"\nThree witnesses: this trace, the real source, and the recording {found.recording}.\n")
    print("\n".join(f"  {line}".rstrip() for line in report.table(found)))
    picture = page.picture(page.choose(found, globs=_DRAWN), "Who saw the calls of this boot")
    picture.limit = 45
    picture.save("witnesses.svg")
    print("\nDrawn: witnesses.svg, each call in the colour of who saw it")


def _next(folder: Path) -> None:
    program = sys.argv[0] if os.path.basename(sys.argv[0]) == "studykvm" else "studykvm"
    if shutil.which("studykvm") == os.path.abspath(program):
        program = "studykvm"
    trace = shlex.quote(str(folder / "boot.trace"))
    print("\nTry next:")
    for arguments, meaning in [
        (f"trace show {trace} --from qcow_open --args", "every call of one opening, with arguments"),
        (f"structures {trace} --at qcow_open --frames open", "its structures, change by change"),
        (f"draw {trace} --from bdrv_open2 -o calls.svg", "the graph from one function on"),
        ("io -c 'read 0 512' --trace io.trace " + shlex.quote(str(folder / "overlay.img")), "trace a tool"),
        (f"compare {trace}", "the source beside the trace: every call, and what it went through"),
        ("compare --list", "recordings of the real qemu-kvm 0.12.4 to compare traces with"),
    ]:
        print(f"  {program} {arguments}\n      {meaning}")
