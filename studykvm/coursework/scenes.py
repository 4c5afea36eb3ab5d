"""Runs of the model made on the spot, for what no recording tells: values, sizes, return codes.

- `seen(scene) -> dict`: name -> `Seen(value, how)`; each scene is run once a process
- `SCENES`: their names
- `carriers(text)`: which functions of a boot were given a text, in order, before the first file is open

Every scene makes its images in a folder that is gone afterwards.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from studykvm.coursework.answers import BadAnswer, number
from studykvm.errors import StudyError

if TYPE_CHECKING:
    from hypervisor.block_int import BlockDriverState
    from tracer import Call, Trace

IMAGE = "overlay.img"
_MIB = 1 << 20
_LONGEST_BASE = 1000
_LARGEST_BASE = 128 * _MIB


class Seen(NamedTuple):
    """A value, and what showed it."""

    value: Any
    how: str


@contextlib.contextmanager
def _folder() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        yield


@contextlib.contextmanager
def _drivers() -> Iterator[None]:
    from hypervisor.block import bdrv_init
    from hypervisor.program import program

    with program("qemu-io"):
        bdrv_init()
        yield


def _tool(program: str, *argv: str) -> str:
    from studykvm.tool import run_tool

    out, limit = io.StringIO(), sys.getrecursionlimit()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            status = run_tool(program, list(argv))
    finally:
        sys.setrecursionlimit(limit)
    if status:
        raise StudyError(f"{program} {' '.join(argv)} failed: {out.getvalue().strip()}")
    return out.getvalue()


def _images(mib: int = 16) -> None:
    with open("base.img", "wb") as base:
        base.truncate(mib * _MIB)
    _tool("qemu-img", "create", "-f", "qcow", "-b", "base.img", IMAGE)


def _opened(name: str, fmt: str | None = None, read_only: bool = False) -> BlockDriverState:
    from hypervisor.block import bdrv_find_format, bdrv_new, bdrv_open2
    from hypervisor.block_int import BDRV_O_CACHE_WB

    bs = bdrv_new("")
    bs.read_only = int(read_only)
    if bdrv_open2(bs, name, BDRV_O_CACHE_WB, bdrv_find_format(fmt) if fmt else None) < 0:
        raise StudyError(f"{name} did not open: nothing can be shown with it")
    return bs


def _request_errors() -> dict[str, Seen]:
    from hypervisor.block import bdrv_delete, bdrv_new, bdrv_read, bdrv_write

    sector = bytearray(512)
    with _folder(), _drivers():
        with open("disk.img", "wb") as disk:
            disk.truncate(_MIB)
        empty, disk_, fixed = bdrv_new(""), _opened("disk.img"), _opened("disk.img", read_only=True)
        try:
            return {
                "no medium": Seen(bdrv_read(empty, 0, sector, 1), "bdrv_read of a drive without a medium"),
                "out of range": Seen(bdrv_read(disk_, 2048, sector, 1), "bdrv_read of sector 2048 of 1 MiB"),
                "read-only": Seen(bdrv_write(fixed, 0, sector, 1), "bdrv_write where read_only is 1"),
                "all is well": Seen(bdrv_write(disk_, 0, sector, 1), "bdrv_write of sector 0"),
            }
        finally:
            for bs in (empty, disk_, fixed):
                bdrv_delete(bs)


def _qcow_open() -> dict[str, Seen]:
    from hypervisor.block import bdrv_find_format, bdrv_new
    from hypervisor.block_int import BDRV_O_CACHE_WB, BDRV_O_RDWR

    with _folder():
        _images()
        with _drivers():
            drv = bdrv_find_format("qcow")
            assert drv is not None and drv.instance_size is not None and drv.bdrv_open is not None
            found = {}
            for key, name in (("success", IMAGE), ("wrong magic", "base.img"), ("missing file", "no.img")):
                bs = bdrv_new("")
                bs.drv, bs.opaque = drv, drv.instance_size()
                ret = drv.bdrv_open(bs, name, BDRV_O_RDWR | BDRV_O_CACHE_WB)
                found[key] = Seen(ret, f"qcow_open of {_WHAT[key]}")
                if ret == 0:
                    drv.bdrv_close(bs)  # type: ignore[misc]
            return found


_WHAT = {"success": "a qcow image", "wrong magic": "a raw file", "missing file": "a name that is not there"}


def _open_images(mib: int = 16) -> dict[str, Seen]:
    """Who stands behind an open overlay, and what is left after bdrv_close."""
    from hypervisor.block import bdrv_close, bdrv_delete

    with _folder():
        _images(mib)
        with _drivers():
            bs = _opened(IMAGE)
            hd, backing = bs.opaque.hd, bs.backing_hd
            assert bs.drv is not None and backing is not None and backing.drv is not None
            how = f"of an overlay on {mib} MiB that bdrv_open2 opened"
            found = {
                "bs->drv": Seen(bs.drv.format_name, f"drv {how}"),
                "s->hd->drv": Seen(hd.drv.format_name, f"drv of BDRVQcowState.hd {how}"),
                "bs->backing_hd->drv": Seen(backing.drv.format_name, f"drv of backing_hd {how}"),
                "bs->backing_hd->backing_hd": Seen(backing.backing_hd, f"backing_hd of backing_hd {how}"),
                "bs->total_sectors": Seen(bs.total_sectors, f"total_sectors {how}"),
                "s->cluster_bits": Seen(bs.opaque.cluster_bits, f"BDRVQcowState.cluster_bits {how}"),
                "s->l2_bits": Seen(bs.opaque.l2_bits, f"BDRVQcowState.l2_bits {how}"),
                "s->l1_size": Seen(bs.opaque.l1_size, f"BDRVQcowState.l1_size {how}"),
                "s->hd->growable": Seen(hd.growable, f"growable of BDRVQcowState.hd {how}"),
                "bs->growable": Seen(bs.growable, f"growable {how}"),
            }
            bdrv_close(bs)
            for field in ("drv", "opaque"):
                found[f"{field} after bdrv_close"] = Seen(
                    getattr(bs, field), f"{field} when bdrv_close returned"
                )
            bdrv_delete(bs)
            return found


def settings(base: str = "base.img", size: Any = 16 * _MIB) -> dict[str, Any]:
    """Read what an answer says of the base that its overlay was made on.

    Raises
    ------
    BadAnswer
        when no base can be of that name or size.
    """
    read = number(size)
    if not isinstance(base, str) or not 0 < len(os.fsencode(base)) < _LONGEST_BASE:
        raise BadAnswer(f"{base!r:.60} is no name of a base: say what stood behind -b")
    if read is None or read % 512 or not 512 <= read <= _LARGEST_BASE:
        limit = _LARGEST_BASE // _MIB
        raise BadAnswer(
            f"{size!r:.60} is no size of a base that is tried here: take sectors, up to {limit} MiB"
        )
    return {"base": base, "size": int(read)}


def _of_length(length: int) -> str:
    """A name for a file in this folder that is so many bytes long."""
    short = min(length, 100 + length % 2)
    return "./" * ((length - short) // 2) + "b" * short


def _overlay_sizes(fmt: str, base: str = "base.img", size: int = 16 * _MIB) -> dict[str, Seen]:
    with _folder():
        # Only the name's length matters, and the student's folders are not here.
        name = _of_length(len(os.fsencode(base)))
        with open(name, "wb") as file:
            file.truncate(size)
        _tool("qemu-img", "create", "-f", fmt, "-b", name, IMAGE)
        large = f"{size // _MIB} MiB" if size % _MIB == 0 else f"{size // 512:,} sectors"
        of = f"{fmt} overlay of {large} on {base[:30]}"
        found = {"new": Seen(os.path.getsize(IMAGE), f"a new {of}")}
        _tool("qemu-io", "-c", "write -P 7 0 512", IMAGE)
        found["written"] = Seen(os.path.getsize(IMAGE), f"a {of}, when one sector was written")
        grown = found["written"].value - found["new"].value
        found["grows"] = Seen(grown, f"a {of}, before and after one sector was written")
        with open(name, "rb") as file:
            found["base before commit"] = Seen(file.read(1)[0], "byte 0 of the base after the write")
        _tool("qemu-img", "commit", IMAGE)
        found["committed"] = Seen(os.path.getsize(IMAGE), f"a {of}, committed")
        with open(name, "rb") as file:
            found["base after commit"] = Seen(file.read(1)[0], "byte 0 of the base after the commit")
        return found


def _dirty_bitmap() -> dict[str, Seen]:
    from hypervisor.block import bdrv_delete, bdrv_set_dirty_tracking, bdrv_write

    with _folder(), _drivers():
        with open("disk.img", "wb") as disk:
            disk.truncate(16 * _MIB)
        bs = _opened("disk.img", "raw")
        bdrv_set_dirty_tracking(bs, 1)
        for sector in (0, 100, 2047, 2048, 9000):
            bdrv_write(bs, sector, bytes(512), 1)
        bits = sum(byte.bit_count() for byte in bs.dirty_bitmap or b"")
        bdrv_delete(bs)
        return {"bits": Seen(bits, "bits in dirty_bitmap after writes to sectors 0, 100, 2047, 2048, 9000")}


def _this_machine() -> dict[str, Seen]:
    """What the processor and the kernel offer, as /proc, /sys and /dev tell."""
    from hypervisor.kvm_all import software_kvm

    flags: set[str] = set()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as cpuinfo:
        flags = next((set(line.split()) for line in cpuinfo if line.startswith("flags")), set())
    flag = next((one for one in ("vmx", "svm") if one in flags), "none")
    there = os.path.exists("/dev/kvm")
    kind = ("software" if software_kvm() else "processor") if there else "none"
    return {
        "flag": Seen(flag, "the flags of the first processor in /proc/cpuinfo"),
        "/dev/kvm": Seen(there, "whether /dev/kvm is there"),
        "KVM": Seen(kind, "the modules of KVM in /sys/module and the processor's flags"),
        "inside a machine": Seen("hypervisor" in flags, "the flag hypervisor in /proc/cpuinfo"),
    }


def _first_boot() -> dict[str, Seen]:
    """The first request of a running machine: what its BIOS reads of the disk."""
    started = next(_boot().calls(function="vm_start"))
    first = next(call for call in _boot().calls(function="bdrv_aio_readv") if call.step > started.step)
    return {
        "sector": Seen(first.args["sector_num"], f"bdrv_aio_readv in step {first.step} of a boot"),
        "sectors": Seen(first.args["nb_sectors"], f"bdrv_aio_readv in step {first.step} of a boot"),
    }


SCENES: dict[str, Callable[..., dict[str, Seen]]] = {
    "request errors": _request_errors,
    "qcow_open": _qcow_open,
    "open images": _open_images,
    "open images of 64 MiB": partial(_open_images, 64),
    "qcow sizes": partial(_overlay_sizes, "qcow"),
    "qcow2 sizes": partial(_overlay_sizes, "qcow2"),
    "dirty bitmap": _dirty_bitmap,
    "this machine": _this_machine,
    "first boot": _first_boot,
}


@cache
def seen(scene: str, **made_with: Any) -> dict[str, Seen]:
    """Run a scene, or give what it showed before."""
    return SCENES[scene](**made_with)


@cache
def _boot() -> Trace:
    from hypervisor.boot import run_boot
    from studykvm.guests import write_demo_disk
    from tracer import record

    with _folder(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        write_demo_disk("base.img")
        _tool("qemu-img", "create", "-f", "qcow", "-b", "base.img", IMAGE)
        with record(None) as recording:
            run_boot(["-hda", IMAGE], timeout=60)
    trace: Trace = recording.trace
    return trace


def given(function: str) -> list[Call]:
    """The calls of a function in a boot of an overlay."""
    return list(_boot().calls(function=function))


@cache
def carriers() -> list[Call]:
    """The calls of a boot with ``-hda overlay.img`` that get that name, before the first file is opened."""
    found = []
    for call in _boot().calls():
        if call.function == "bdrv_open2":
            break
        if any(isinstance(value, str) and IMAGE in value for value in call.args.values()):
            found.append(call)
    return found
