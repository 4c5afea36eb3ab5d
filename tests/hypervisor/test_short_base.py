"""Overlays longer than their backing files: 0.12.4 ends a read that crosses the end, here all bytes come."""

import random
from pathlib import Path

import pytest

from tests.hypervisor.tools import img, io_, ours
from tracer import record

SIZE = 300 << 10


def overlay(name: str, fmt: str, base: str, *options: str) -> None:
    img("create", "-f", fmt, *options, "-b", base, name, str(SIZE))


@pytest.mark.parametrize("top", ["qcow", "qcow2"])
@pytest.mark.parametrize("middle", ["qcow", "qcow2", "compressed", "none"])
@pytest.mark.parametrize("cache", ["writeback", "none"])
def test_one_read_of_everything(tmp_path, monkeypatch, top, middle, cache):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(f"{top} {middle}")
    expected = bytearray(SIZE)
    expected[:100000] = base = rng.randbytes(100000)
    Path("base.img").write_bytes(base)
    expected[100000 & ~511 : 100000] = bytes(100000 & 511)  # 0.12.4 cuts a disk to whole sectors
    below = "base.img"
    if middle == "compressed":
        # a whole image of its own, longer than the base, and shorter than the top
        text = b"".join(bytes([i % 251]) * 700 for i in range(240))[: 160 << 10]
        Path("text.img").write_bytes(text)
        img("convert", "-c", "-O", "qcow2", "-o", "cluster_size=4096", "text.img", "mid.img")
        expected[: len(text)] = text
        below = "mid.img"
    elif middle != "none":
        img("create", "-f", middle, "-b", "base.img", "mid.img", str(200 << 10))
        io_("mid.img", "write -P 7 92k 3k", "write -P 8 150k 20k")
        expected[92 << 10 : 95 << 10] = b"\x07" * (3 << 10)
        expected[150 << 10 : 170 << 10] = b"\x08" * (20 << 10)
        below = "mid.img"
    overlay("top.img", top, below, *(("-o", "cluster_size=1024") if top == "qcow2" else ()))
    for start, length, byte in ((90 << 10, 1024, 1), (160 << 10, 2048, 2), (290 << 10, 10 << 10, 3)):
        io_("top.img", f"write -P {byte} {start} {length}")
        expected[start : start + length] = bytes([byte]) * length
    Path("expected.img").write_bytes(expected)
    img("convert", "-O", "raw", "top.img", "content.img")
    assert Path("content.img").read_bytes() == expected
    shown = ours("qemu-io", "--cache", cache, "-c", f"read -v 0 {SIZE}", "top.img")
    bytes_ = bytes.fromhex("".join(line[11:58] for line in shown.out.splitlines() if line[8:10] == ": "))
    assert bytes_ == expected


def test_the_calls_end_where_the_real_ones_do(tmp_path, monkeypatch):
    """qcow.c gives up at the first piece beyond the base; nothing of what is read after that shows."""
    monkeypatch.chdir(tmp_path)
    Path("base.img").write_bytes(b"\x05" * 1024)
    overlay("top.img", "qcow", "base.img")
    io_("top.img", "write -P 6 2048 512")
    with record() as recording:
        out = io_("top.img", "read -P 5 0 1024", "read -P 6 2048 512", "read 0 4096")
    assert "Pattern verification failed" not in out
    lookups = [call for call in recording.trace.calls() if call.function == "get_cluster_offset"]
    # 2 sectors, 1 sector; then 2 of the base and the one that ends the request
    assert len(lookups) == 2 + 1 + 3
