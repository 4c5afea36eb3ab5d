"""Mutated headers and tables, through the tools: always an answer, soon, in little memory.

`mutants` runs in a process of its own with its address space and time limited; Hypothesis goes on from there
in this one, where it can shrink what it finds.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

SEEDS = 40
WORKER = Path(__file__).with_name("mutants.py")
KINDS = ("raw", "qcow", "qcow-packed", "qcow2", "qcow2-packed", "qcow2-snapshot")


@pytest.fixture(scope="module")
def stock(tmp_path_factory, run_tool):
    """One small image of each kind, with a base of 64 KiB."""
    folder = tmp_path_factory.mktemp("stock")
    here = os.getcwd()
    os.chdir(folder)
    try:
        (folder / "base.img").write_bytes(random.Random(1).randbytes(32768) + bytes(32768))
        for kind in KINDS:
            fmt, _, extra = kind.partition("-")
            small = ["-o", "cluster_size=512"] if fmt == "qcow2" else []
            if extra == "packed":
                argv = ["convert", "-c", "-f", "raw", "-O", fmt, *small, "base.img", kind]
            elif fmt == "raw":
                argv = ["create", "-f", fmt, kind, "64K"]
            else:
                argv = ["create", "-f", fmt, "-b", "base.img", *small, kind]
            assert run_tool("qemu-img", *argv).status == 0
            if extra != "packed":
                assert (
                    run_tool("qemu-io", "-c", "write -P 7 512 3072", "-c", "write 40960 512", kind).status
                    == 0
                )
            if extra == "snapshot":
                assert run_tool("qemu-img", "snapshot", "-c", "s", kind).status == 0
                assert run_tool("qemu-io", "-c", "write -P 8 1024 512", kind).status == 0
    finally:
        os.chdir(here)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_mutants_in_a_process_of_their_own(stock, tmp_path, kind):
    command = [sys.executable, str(WORKER), str(stock), kind, "0", str(SEEDS)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    report = json.loads(result.stdout.splitlines()[-1])
    assert not report["bad"], "\n".join(map(str, report["bad"][0].values()))
    assert report["runs"] >= SEEDS * 5
    assert report["peak_mib"] < 100


INTERESTING = st.sampled_from(
    [0, 1, 511, 512, 1 << 31, 1 << 32, 1 << 40, (1 << 62) - 512, 1 << 62, 1 << 63, 2**64 - 1]
)
PATCH = st.one_of(
    st.tuples(st.integers(0, 127).map(lambda n: n * 4), INTERESTING.map(lambda v: v.to_bytes(8, "big"))),
    st.tuples(st.integers(0, 127), st.binary(min_size=1, max_size=12)),
    st.tuples(
        st.integers(0, 12 * 1024).map(lambda n: n * 8), INTERESTING.map(lambda v: v.to_bytes(8, "big"))
    ),
)


@settings(max_examples=40, deadline=20_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(kind="qcow", patches=[(8, bytes(8))], cut=None)
@given(
    kind=st.sampled_from(KINDS),
    patches=st.lists(PATCH, min_size=1, max_size=4),
    cut=st.one_of(st.none(), st.integers(0, 4096)),
)
def test_patched_images(stock, tool, tmp_path, kind, patches, cut):
    raw = bytearray((stock / kind).read_bytes())
    for offset, data in patches:
        end = min(offset + len(data), len(raw))
        raw[offset:end] = data[: max(end - offset, 0)]
    (tmp_path / "base.img").write_bytes((stock / "base.img").read_bytes())
    image = tmp_path / "image"
    image.write_bytes(raw[:cut])
    for argv in (["info"], ["check"], ["snapshot", "-l"]):
        result = tool("qemu-img", *argv, "image")
        assert result.status == 0 or (result.out + result.err).strip()
    result = tool("qemu-io", "-r", "-c", "read 0 65536", "-c", "alloc 0 64", "image")
    assert result.status in (0, 1)
    assert image.read_bytes() == raw[:cut]
    result = tool("qemu-io", "-c", "write 1024 4096", "image")
    assert result.status in (0, 1)
