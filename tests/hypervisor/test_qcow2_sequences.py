"""Random sequences of everything that changes a qcow2 image, against a byte array and the real qemu-img."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hypervisor.block import (
    bdrv_check,
    bdrv_commit,
    bdrv_create,
    bdrv_delete,
    bdrv_find_format,
    bdrv_init,
    bdrv_new,
    bdrv_open2,
    bdrv_read,
    bdrv_snapshot_create,
    bdrv_snapshot_delete,
    bdrv_snapshot_goto,
    bdrv_write,
    bdrv_write_compressed,
)
from hypervisor.block_int import (
    BDRV_O_CACHE_WB,
    BDRV_O_RDWR,
    BLOCK_OPT_BACKING_FILE,
    BLOCK_OPT_BACKING_FMT,
    BLOCK_OPT_CLUSTER_SIZE,
    BLOCK_OPT_SIZE,
    BlockDriverState,
    QEMUSnapshotInfo,
)
from hypervisor.program import program
from hypervisor.qemu_option_parameter import QEMUOptionParameter

SIZE = 192 * 1024
SECTORS = SIZE // 512
MAX_SNAPSHOTS = 4
REAL = shutil.which("qemu-img")


class Qcow2Sequence(RuleBasedStateMachine):
    """One overlay on a raw base; `now` is what it must hold, `then` what each snapshot must."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.stack.enter_context(program("qemu-io"))
        bdrv_init()
        self.path, self.base = self.folder / "over.qcow2", self.folder / "base.raw"
        self.now = bytearray()
        self.below = bytearray()
        self.then: dict[str, bytes] = {}
        self.made = 0
        self.bs: BlockDriverState | None = None

    @initialize(bits=st.sampled_from([9, 10, 12, 16]), seed=st.integers(0, 99))
    def make(self, bits: int, seed: int) -> None:
        self.cluster_size = 1 << bits
        self.below = bytearray(random.Random(seed).randbytes(SIZE // 2) + bytes(SIZE // 2))
        self.now = bytearray(self.below)
        self.base.write_bytes(self.below)
        options = [
            QEMUOptionParameter(name=BLOCK_OPT_SIZE, n=SIZE),
            QEMUOptionParameter(name=BLOCK_OPT_BACKING_FILE, s=str(self.base)),
            QEMUOptionParameter(name=BLOCK_OPT_BACKING_FMT, s="raw"),
            QEMUOptionParameter(name=BLOCK_OPT_CLUSTER_SIZE, n=self.cluster_size),
        ]
        driver = bdrv_find_format("qcow2")
        assert driver is not None
        assert bdrv_create(driver, str(self.path), options) == 0
        self.open()

    def open(self) -> None:
        self.bs = bdrv_new("")
        flags = BDRV_O_RDWR | BDRV_O_CACHE_WB
        assert bdrv_open2(self.bs, str(self.path), flags, None) == 0

    @property
    def disk(self) -> BlockDriverState:
        assert self.bs is not None
        return self.bs

    @rule(first=st.integers(0, SECTORS - 1), count=st.integers(1, 100), fill=st.integers(1, 255))
    def write(self, first: int, count: int, fill: int) -> None:
        count = min(count, SECTORS - first)
        data = bytes([fill]) * (count * 512)
        assert bdrv_write(self.disk, first, data, count) == 0
        self.now[first * 512 : (first + count) * 512] = data

    @rule(cluster=st.integers(0, SECTORS), noise=st.integers(0, 100), fill=st.integers(0, 255))
    def write_compressed(self, cluster: int, noise: int, fill: int) -> None:
        length = self.cluster_size
        at = cluster % (SIZE // length) * length
        random_part = length * noise // 100
        data = random.Random(fill).randbytes(random_part) + bytes([fill]) * (length - random_part)
        assert bdrv_write_compressed(self.disk, at // 512, data, length // 512) == 0
        self.now[at : at + length] = data

    @precondition(lambda self: len(self.then) < MAX_SNAPSHOTS)
    @rule()
    def snapshot(self) -> None:
        self.made += 1
        name = f"snap{self.made}"
        assert bdrv_snapshot_create(self.disk, QEMUSnapshotInfo(name=name, date_sec=1)) == 0
        self.then[name] = bytes(self.now)

    @precondition(lambda self: self.then)
    @rule(which=st.integers(0, MAX_SNAPSHOTS - 1))
    def apply(self, which: int) -> None:
        name = list(self.then)[which % len(self.then)]
        assert bdrv_snapshot_goto(self.disk, name) == 0
        self.now = bytearray(self.then[name])

    @precondition(lambda self: self.then)
    @rule(which=st.integers(0, MAX_SNAPSHOTS - 1))
    def delete(self, which: int) -> None:
        name = list(self.then)[which % len(self.then)]
        assert bdrv_snapshot_delete(self.disk, name) == 0
        del self.then[name]

    @precondition(lambda self: not self.then)
    @rule()
    def commit(self) -> None:
        assert bdrv_commit(self.disk) == 0
        self.below[:] = self.now
        assert self.base.read_bytes() == self.below

    @rule()
    def reopen(self) -> None:
        bdrv_delete(self.disk)
        self.open()

    @invariant()
    def content_is_right(self) -> None:
        if self.bs is not None:
            data = bytearray(SIZE)
            assert bdrv_read(self.disk, 0, data, SECTORS) == 0
            assert data == self.now

    def teardown(self) -> None:
        try:
            if self.bs is not None:
                assert bdrv_check(self.disk) == 0
                bdrv_delete(self.disk)
                self.judge()
        finally:
            self.stack.close()

    def judge(self) -> None:
        raw = self.folder / "now.raw"
        raw.write_bytes(self.now)
        self.real("check", "-f", "qcow2", self.path)
        self.real("compare", "-f", "raw", "-F", "qcow2", raw, self.path)
        if self.then:
            name = list(self.then)[-1]
            raw.write_bytes(self.then[name])
            self.real("snapshot", "-a", name, self.path)
            self.real("check", "-f", "qcow2", self.path)
            self.real("compare", "-f", "raw", "-F", "qcow2", raw, self.path)

    def real(self, *argv: str | Path) -> None:
        assert REAL is not None
        done = subprocess.run([REAL, *map(str, argv)], capture_output=True, text=True)
        assert done.returncode == 0, done


TestQcow2Sequence = pytest.mark.skipif(
    REAL is None, reason="qemu-img is missing: apt-get install qemu-utils"
)(Qcow2Sequence.TestCase)
TestQcow2Sequence.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
