"""Memory in the stream: the bytes are the same whether pages go in runs, as without a trace, or singly."""

import os
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hypervisor import exec as memory
from hypervisor import vl_ram_runs
from hypervisor.accel import touched as pagemap
from hypervisor.accel.dirty import Dirty
from hypervisor.program import program
from hypervisor.savevm_file import qemu_fflush, qemu_fopen_ops
from hypervisor.vl_ram import ram_load, ram_save_live
from hypervisor.vl_state import state
from tracer import record

PAGE = 4096
PAGES = 2048
REGISTERED = 3

contents = st.one_of(
    st.integers(1, 255).map(lambda byte: bytes([byte]) * PAGE),
    st.binary(min_size=1, max_size=40).map(lambda data: data.ljust(PAGE, b"\0")),
    st.just(bytes(PAGE)),
)
# In runs, so that long ones of zeros are left between them.
writes = st.lists(st.tuples(st.integers(0, PAGES - 1), st.integers(1, 40), contents), max_size=8)


class Machine:
    """Memory, and who knows what of it changed."""

    def __init__(self):
        self.program = program("qemu-system-x86_64")

    def __enter__(self):
        self.program.__enter__()
        memory.qemu_ram_alloc(PAGES * PAGE)
        dirty = Dirty()
        state.first_cpu = SimpleNamespace(
            accel=SimpleNamespace(dirty_pages=lambda: dirty.pages(memory.ram()))
        )
        return self

    def __exit__(self, *error):
        self.program.__exit__(*error)


def write(chosen):
    for first, count, page in chosen:
        for number in range(first, min(first + count, PAGES)):
            memory.ram()[number * PAGE : (number + 1) * PAGE] = page


def save(before, meanwhile, limit):
    """The parts of a stream, each ended by a rate limit of so many bytes, and memory at the end."""
    parts, sent = [], 0

    def put_buffer(opaque, buf, pos, size):
        nonlocal sent
        parts[-1] += bytes(buf)
        sent += size
        return size

    with Machine():
        write(before)
        f = qemu_fopen_ops(None, put_buffer, None, None, lambda _: int(sent > limit), None, None)
        for stage in (1, *[2] * (len(meanwhile) + 1), 3):
            parts.append(b"")
            ram_save_live(None, f, stage, None)
            qemu_fflush(f)
            sent = 0
            if stage != 3 and meanwhile:
                write(meanwhile.pop(0))
        return parts, bytes(memory.ram())


# The limit is reached at a page of those that are then written anew.
@example([(100, 40, b"\1\2" * (PAGE // 2))], [[(104, 6, b"\3" * PAGE)]], 0)
@settings(max_examples=40, deadline=None)
@given(writes, st.lists(writes, max_size=3), st.sampled_from([0, 20_000, 60_000, 1 << 40]))
def test_the_bytes_are_those_of_page_by_page(before, meanwhile, limit):
    by_runs = save(before, list(meanwhile), limit)
    with record(None):
        by_pages = save(before, list(meanwhile), limit)
    assert by_runs == by_pages


def load(parts, before, chunk):
    """What memory holds after loading, and which of its pages take memory of the host."""
    rest = b"".join(parts)

    def get_buffer(opaque, buf, pos, size):
        part = rest[pos : pos + min(size, chunk)]
        buf[: len(part)] = part
        return len(part)

    with Machine():
        write(before)
        f = qemu_fopen_ops(None, None, get_buffer, None, None, None, None)
        for _ in parts:
            assert ram_load(f, None, REGISTERED) == 0
        return bytes(memory.ram()), pagemap.touched(memory.ram())


@settings(max_examples=40, deadline=None)
@given(writes, writes, writes, st.sampled_from([7, 1000, 32768]))
def test_what_is_loaded_is_what_was_saved(before, meanwhile, there, chunk):
    parts, saved = save(before, [meanwhile], 1 << 40)
    assert load(parts, there, chunk)[0] == saved


@pytest.mark.skipif(not os.path.exists("/proc/self/pagemap"), reason="wants Linux's /proc/self/pagemap")
def test_pages_of_zeros_take_no_memory_where_they_are_loaded():
    parts, saved = save([(PAGES // 2, 1, b"x" * PAGE)], [], 1 << 40)
    loaded, taken = load(parts, [], 32768)
    assert loaded == saved
    # A huge page has 512.
    assert taken.count(1) <= 512


def test_pages_written_and_cleared_in_the_same_part_are_zeros():
    whole = (PAGE | vl_ram_runs.RAM_SAVE_FLAG_PAGE).to_bytes(8, "big") + b"x" * PAGE
    zeros = [(n * PAGE | vl_ram_runs.RAM_SAVE_FLAG_COMPRESS).to_bytes(8, "big") + b"\0" for n in range(4)]
    end = vl_ram_runs.RAM_SAVE_FLAG_EOS.to_bytes(8, "big")
    assert not any(load([whole + b"".join(zeros) + end], [], 32768)[0])


@pytest.mark.parametrize("way", ["ioctl", "file", "nothing"])
def test_touched_pages_are_those_that_were_written(monkeypatch, way):
    if way == "ioctl" and not _kernel_scans():
        pytest.skip("wants Linux 6.7")
    if way == "file":
        monkeypatch.setattr(pagemap, "_PAGEMAP_SCAN", 0)
    if way == "nothing":
        monkeypatch.setattr(pagemap.os, "open", lambda *_: (_ for _ in ()).throw(FileNotFoundError()))
    with Machine():
        ram = memory.ram()
        ram.madvise(memory.mmap.MADV_NOHUGEPAGE)
        for number in (0, 5, 6, 7, 700, *range(1001, PAGES, 2)):
            ram[number * PAGE + 9] = 1
        found = pagemap.touched(ram)
    written = {0, 5, 6, 7, 700, *range(1001, PAGES, 2)}
    assert len(found) == PAGES
    if way == "nothing":
        assert found.count(1) == PAGES
    else:
        assert {number for number, flag in enumerate(found) if flag} == written


def _kernel_scans():
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (6, 7)
