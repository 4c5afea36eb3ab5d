"""The trace file: round trips, killed runs, full disks, and files that are damaged or foreign."""

import errno
import os
import signal
import struct
import subprocess
import sys
import zlib

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer import DamagedTraceError, Struct, TracerError, TracerWarning, load, record, traced
from tracer.fileformat import MAGIC, RAW_LIMIT, Writer

C_FILE = "block/test.c"
HEADER = len(MAGIC) + 4
CHUNK = 17

atoms = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
texts = st.text(st.characters(exclude_categories=()))
values = st.recursive(
    atoms | texts, lambda inner: st.lists(inner, max_size=9) | st.tuples(inner, inner), max_leaves=20
)


class Node(Struct):
    value: object = None


@traced
def echo(value):
    return value


class Sample:
    """A trace file's bytes, behind a short repr: hypothesis prints the arguments of failures."""

    def __init__(self, data):
        self.data = data
        self.events = None


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A finished trace file of five event chunks."""
    path = tmp_path_factory.mktemp("sample") / "a.trace"
    with record(path, note="of a test"):
        node = Node()
        for number in range(10_000):
            node.value = echo(number)
    found = Sample(path.read_bytes())
    found.events = list(load(path).events())
    return found


def chunks(data):
    """Yield (start, end, kind) of every chunk, by the documented layout."""
    at = HEADER
    while at < len(data):
        kind, _, _, length = struct.unpack_from(">cIII", data, at)
        yield at, at + CHUNK + length, kind
        at += CHUNK + length


def chunk(kind, content, items=1, raw_length=None):
    raw = msgpack.packb(content)
    data = zlib.compress(raw)
    header = struct.pack(">cIII", kind, items, len(raw) if raw_length is None else raw_length, len(data))
    return header + struct.pack(">I", zlib.crc32(header + data)) + data


def loaded(tmp_path, data):
    path = tmp_path / "b.trace"
    path.write_bytes(data)
    return load(path)


def everything(trace):
    """Ask a trace for all it has; must never fail."""
    found = list(trace.events())
    calls = [(c.args, c.ret, c.exc, c.path, c.open) for c in trace.calls()]
    trace.stats(), trace.tree(), trace.objects(), trace.writes(), trace.state_at(len(found))
    return found, calls


def test_a_file_and_memory_hold_the_same(tmp_path):
    def program():
        node = Node(value="x")
        for value in (1, -1, 1.5, "é\udc80", True, None, node, [1, (2, {"a": b"b"})]):
            node.value = value
            echo(value)

    with record() as in_memory:
        program()
    with record(tmp_path / "a.trace", note="n") as to_file:
        program()
    one, other = in_memory.trace, to_file.trace
    assert [e[:2] + e[3:] for e in one.events()] == [e[:2] + e[3:] for e in other.events()]
    assert one.functions == other.functions
    assert (other.damage, other.meta["note"], other.meta["python"]) == (None, "n", sys.version.split()[0])
    assert len(other) == len(list(other.events()))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(values, max_size=20))
def test_any_plain_value_survives(tmp_path, program):
    with record() as in_memory:
        for value in program:
            echo(value)
    with record(tmp_path / "a.trace") as to_file:
        for value in program:
            echo(value)
    kept = [c.args for c in in_memory.trace.calls()]
    assert to_file.trace.damage is None
    for before, after in zip(kept, (c.args for c in to_file.trace.calls()), strict=True):
        # only integers beyond 64 bits change: to their hexadecimal text
        assert after == before or "0x" in repr(after)


def test_the_program_may_change_its_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with record("a.trace") as recording:
        os.mkdir("below")
        os.chdir("below")
        echo(1)
    assert len(recording.trace) == 2


def test_huge_integers_are_kept_as_text(tmp_path):
    with record(tmp_path / "a.trace") as recording:
        echo((1 << 64, -(1 << 63), (1 << 64) - 1, -1 << 5000))
    (call,) = recording.trace.calls()
    assert call.args["value"][1:4] == (("?", "0x10000000000000000"), -(1 << 63), (1 << 64) - 1)
    assert call.args["value"][4][1].startswith("-0x1000")
    assert len(call.args["value"][4][1]) == 200


def test_the_layout_is_as_documented(sample):
    assert sample.data[:HEADER] == b"SKVMTRC\n\0\1\0\0"
    kinds = [kind for _, _, kind in chunks(sample.data)]
    assert (kinds[:2], kinds[-1], set(kinds[2:-1])) == ([b"M", b"F"], b"Z", {b"E"})


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cut_off_anywhere_it_is_read_up_to_there(tmp_path, sample, data):
    size = data.draw(st.integers(0, len(sample.data) - 1))
    if size < HEADER:
        with pytest.raises(DamagedTraceError):
            loaded(tmp_path, sample.data[:size])
        return
    trace = loaded(tmp_path, sample.data[:size])
    assert "b.trace" in trace.damage
    complete = [start for start, end, kind in chunks(sample.data) if kind == b"E" and end <= size]
    whole = sum(struct.unpack_from(">I", sample.data, start + 1)[0] for start in complete)
    found, _ = everything(trace)
    assert len(found) == len(trace) == whole
    assert found == sample.events[:whole]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_is_noticed(tmp_path, sample, data):
    at, bit = data.draw(st.integers(0, len(sample.data) - 1)), data.draw(st.integers(0, 7))
    damaged = bytearray(sample.data)
    damaged[at] ^= 1 << bit
    minor = len(MAGIC) + 2 <= at < HEADER
    try:
        trace = loaded(tmp_path, damaged)
    except DamagedTraceError as error:
        assert "b.trace" in str(error)
        assert at < HEADER
        return
    assert (trace.damage is None) == minor
    found, _ = everything(trace)
    assert found == sample.events[: len(found)]


small = st.integers(-3, 3) | st.floats() | st.text(max_size=3) | st.none()
events = st.lists(
    st.lists(st.sampled_from([0, -1, 1, *"nwfxyr"]) | small | st.lists(small, max_size=3), max_size=8),
    max_size=12,
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events)
def test_malformed_events_with_a_right_checksum_do_no_harm(tmp_path, events):
    table = chunk(b"F", [[0, "a.c", "f", "m", 1, ["x"]]])
    content = chunk(b"E", events, len(events))
    everything(loaded(tmp_path, MAGIC + b"\0\1\0\0" + table + content + chunk(b"Z", {})))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty", b"", "empty file"),
        ("foreign", b"\x89PNG\r\n\x1a\n" + bytes(100), "not a trace"),
        ("newer", MAGIC + b"\0\2\0\0", "format 2.0; this version reads 1.x"),
    ],
)
def test_what_is_no_trace_says_so(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DamagedTraceError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_directories_say_so(tmp_path):
    with pytest.raises(DamagedTraceError, match="No such file"):
        load(tmp_path / "missing")
    with pytest.raises(DamagedTraceError, match="Is a directory"):
        load(tmp_path)
    with pytest.raises(TracerError, match="Is a directory"):
        record(tmp_path).start()
    with pytest.raises(TracerError, match="No such file"):
        record(tmp_path / "missing" / "a.trace").start()
    with pytest.raises(TracerError, match="No space left"):
        record("/dev/full").start()


def test_a_file_that_is_no_trace_is_not_overwritten(tmp_path):
    image = tmp_path / "overlay.img"
    image.write_bytes(b"QFI\xfb")
    with pytest.raises(TracerError, match="not overwritten"):
        record(image).start()
    assert image.read_bytes() == b"QFI\xfb"
    for _ in range(2):
        with record(tmp_path / "a.trace"):
            echo(1)
    assert len(load(tmp_path / "a.trace")) == 2


def test_a_newer_minor_version_is_read(tmp_path):
    events = [[0, 0, 1, 5, "a new value"], ["?", 0, 2, "a new kind"], [-1, 0, 3, 6, "new"]]
    table = [[0, "a.c", "f", "m", 1, ["x"], "new"]]
    data = (
        MAGIC
        + b"\0\1\0\7"
        + chunk(b"N", "new")
        + chunk(b"F", table)
        + chunk(b"E", events, 3)
        + chunk(b"Z", {})
    )
    trace = loaded(tmp_path, data)
    (call,) = trace.calls()
    assert (trace.damage, call.args, call.ret, call.exit_step) == (None, {"x": 5}, 6, 2)


def test_bombs_are_refused(tmp_path):
    zeros = zlib.compress(bytes(RAW_LIMIT * 4))
    for claimed, words in ((1000, "content"), (RAW_LIMIT * 4, "at most")):
        header = struct.pack(">cIII", b"E", 1, claimed, len(zeros))
        bomb = header + struct.pack(">I", zlib.crc32(header + zeros)) + zeros
        trace = loaded(tmp_path, MAGIC + b"\0\1\0\0" + bomb + chunk(b"Z", {}))
        assert list(trace.events()) == []
        assert words in trace.damage
    nested = b"\x91" * 5000
    trace = loaded(tmp_path, MAGIC + b"\0\1\0\0" + chunk(b"E", [], 3) + chunk(b"Z", {}))
    assert everything(trace) == ([], [])
    assert "3 events" in trace.damage
    deep = zlib.compress(nested)
    header = struct.pack(">cIII", b"E", 1, len(nested), len(deep))
    data = header + struct.pack(">I", zlib.crc32(header + deep)) + deep
    assert everything(loaded(tmp_path, MAGIC + b"\0\1\0\0" + data)) == ([], [])


def test_a_writer_splits_what_is_too_large(tmp_path):
    path = tmp_path / "a.trace"
    writer = Writer(str(path))
    big = ["y" * (RAW_LIMIT // 3)] * 4
    writer.items(b"F", [(0, "a.c", "f", "m", 1, ["x"])])
    writer.items(b"E", [(0, 0, 1, text) for text in big] + [(0, 0, 2, "z" * (RAW_LIMIT + 1))])
    writer.map(b"Z", {})
    writer.close()
    trace = load(path)
    assert [len(e[3]) for e in trace.events()][:4] == [RAW_LIMIT // 3] * 4
    assert list(trace.events())[4] == (0, 0, 2, ("?", "too large to record"))
    assert trace.damage is None


KILLED = """
import os, sys, time
from tracer import load, record, traced
C_FILE = "a.c"
@traced
def work(number):
    return number
record(sys.argv[1]).start()
for number in range(1000):
    work(number)
while sum(1 for _ in load(sys.argv[1]).calls()) < 1000:
    time.sleep(0.01)
print("flushed", flush=True)
for number in range(int(sys.argv[2])):
    work(number)
os.kill(os.getpid(), 9) if sys.argv[3] == "kill" else sys.exit(3)
"""


def run(tmp_path, *args):
    path = tmp_path / "a.trace"
    result = subprocess.run([sys.executable, "-c", KILLED, path, *args], capture_output=True, text=True)
    return result, load(path)


def test_a_killed_run_is_read_up_to_the_last_flush(tmp_path):
    result, trace = run(tmp_path, "5", "kill")
    assert result.returncode == -signal.SIGKILL
    assert "not ended in order" in trace.damage
    calls = list(trace.calls())
    assert [call.ret for call in calls][:1000] == list(range(1000))
    assert calls[0].function == "work"


def test_a_run_that_exits_without_stopping_is_whole(tmp_path):
    result, trace = run(tmp_path, "5", "exit")
    assert (result.returncode, result.stderr) == (3, "")
    assert trace.damage is None
    assert sum(1 for _ in trace.calls()) == 1005


@pytest.mark.parametrize("room", [0, 1, 2])
def test_a_full_disk_does_not_stop_the_program(tmp_path, monkeypatch, room):
    path = tmp_path / "a.trace"
    plain, writes = os.write, []

    def full(fd, data):
        writes.append(fd)
        if len(writes) > 1 + room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(fd, data)

    recording = record(path)
    monkeypatch.setattr(os, "write", full)
    with pytest.warns(TracerWarning, match=r"a\.trace: the trace is incomplete: No space left"), recording:
        for number in range(30_000):
            assert echo(number) == number
    monkeypatch.undo()
    assert "No space left" in recording.damage
    assert "not ended in order" in recording.trace.damage
