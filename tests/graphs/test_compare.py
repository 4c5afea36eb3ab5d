"""Comparison: equal is equal, every mutation is found and counted, timing is told from order."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import recordings
from graphs.calls import CallTable
from graphs.compare import compare, report
from graphs.compare.sequences import match
from graphs.recordings import Recording

AIO = "posix-aio-compat.c"
FILES = {"main": "qemu-io.c", "posix_aio_process_queue": AIO, "qemu_aio_wait": "aio.c", "qemu_malloc": "m.c"}


def table(text: str) -> CallTable:
    """Read a tree of calls: two spaces a level, `@1` for thread 1; functions are block.c's unless listed."""
    result = CallTable()
    for line in text.splitlines():
        if line.strip():
            function, _, thread = line.strip().partition("@")
            file = FILES.get(
                function,
                AIO
                if "aio_" in function or function.startswith(("handle", "mutex", "cond", "spawn"))
                else "block.c",
            )
            result.append((len(line) - len(line.lstrip())) // 2, (file, function), int(thread or 0))
    return result


def held(ours: str, theirs: str, **options):
    return compare(table(ours), Recording("b99", "qemu-io", table(theirs), None), **options)


def longest_common(ours: str, theirs: str) -> int:
    """Return the textbook length of a longest common subsequence."""
    row = [0] * (len(theirs) + 1)
    for a in ours:
        new = [0]
        for j, b in enumerate(theirs):
            new.append(row[j] + 1 if a == b else max(row[j + 1], new[-1]))
        row = new
    return row[-1]


@settings(deadline=None)
@given(st.text("abc", max_size=14), st.text("abc", max_size=14))
def test_sequences_are_matched_as_long_as_possible(ours, theirs):
    blocks = match([(c, 1) for c in ours], [(c, 1) for c in theirs], key=str)
    assert "".join(c * n for _, part, _ in blocks for c, n in part) == ours
    assert "".join(c * n for _, _, part in blocks for c, n in part) == theirs
    assert all(left == right for same, left, right in blocks if same)
    assert sum(len(left) for same, left, _ in blocks if same) == longest_common(ours, theirs)


def test_very_different_sequences_are_matched_too():
    ours = [(str(n % 7), 1) for n in range(5000)]
    theirs = [(str(n % 5), 1) for n in range(5000)]
    blocks = match(ours, theirs, key=str)
    assert [run for _, part, _ in blocks for run in part] == ours


def test_functions_that_only_one_side_knows_are_seen_through():
    ours = "bdrv_read\n  raw_read"
    theirs = "bdrv_read\n  qemu_malloc\n    raw_read"
    assert held(ours, theirs).equal
    unmodelled = held("bdrv_read\n  raw_read", "bdrv_read\n  bdrv_new_thing\n    raw_read")
    assert unmodelled.equal
    assert unmodelled.unmodelled == {("block.c", "bdrv_new_thing")}


def test_a_known_function_that_is_not_called_is_a_difference():
    found = held("bdrv_read", "bdrv_read\n  bdrv_check", known={("block.c", "bdrv_check")})
    assert not found.equal
    assert found.only_theirs == {("block.c", "bdrv_check")} and not found.unmodelled
    assert (found.equal_calls, found.ours, found.theirs) == (1, 1, 2)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("f\n  g\n  h", "f\n  h\n  g"),  # order
        ("f\n  g\n    h", "f\n  g\n  h"),  # nesting
        ("f\ng\ng", "f\ng"),  # number
        ("f\nmutex_lock@1", "f"),  # threads
    ],
)
def test_order_nesting_number_and_threads_count(ours, theirs):
    assert not held(ours, theirs).equal
    assert held(ours, ours).equal


def test_a_call_in_between_is_one_difference_and_its_calls_stay_equal():
    inner = "".join(f"\n    f{n}" for n in range(50))
    found = held(
        "top\n  wrapper" + inner.replace("\n", "\n  "), "top\n  wrapped" + inner.replace("\n", "\n  ")
    )
    assert sum(map(len, found.differences.values())) == 1
    assert found.equal_calls == 51


@pytest.mark.parametrize("name", ["b02", "b04", "c03", "d01"])
def test_a_recording_equals_itself(name):
    recording = recordings.load(name)
    found = compare(recording.calls, recording)
    assert found.equal and found.timing is None and found.share == 1
    assert not found.only_ours | found.only_theirs


@pytest.mark.parametrize("name", ["d00", "d11", "e01_mig_src"])
def test_recordings_that_start_alike_are_equal_but_for_timing(name):
    found = compare(recordings.load(name).calls, recordings.load("d01"))
    assert found.equal and found.timing is not None


def test_lost_calls_are_found_in_the_biggest_recording():
    lost = 20
    recording = recordings.load("c01")
    chance = random.Random(lost)
    allocated = [i for i, (_, name, _) in enumerate(recording.calls) if name[1] == "get_cluster_offset"]
    gone = set(chance.sample(allocated, lost))
    calls = CallTable()
    for index, row in enumerate(recording.calls):
        if index not in gone:
            calls.append(*row)
    found = compare(calls, recording)
    assert not found.equal
    # Every call but the lost ones, and those that hung on them, is still found equal.
    assert found.theirs - found.equal_calls < 12 * lost
    assert found.ours == found.theirs - lost


def test_worker_threads_may_share_the_work_differently():
    one = "f\naio_thread@1\n  mutex_lock@1\n  handle_a@1\n  mutex_lock@1\n  cond_timedwait@1\n  handle_b@1"
    two = "f\naio_thread@1\n  handle_a@1\naio_thread@2\n  cond_timedwait@2\n  handle_b@2"
    found = held(one, two)
    assert found.equal and found.timing is not None
    swapped = "f\naio_thread@1\n  handle_b@1\n  handle_a@1"
    assert not held(one, swapped).equal


POLL = """
bdrv_read_em
  qemu_aio_wait
    posix_aio_process_queue
      qemu_paio_error
  qemu_aio_wait
    posix_aio_read
      posix_aio_process_queue
        qemu_paio_error
        qemu_paio_return
        done_cb
        qemu_aio_release
"""
AT_ONCE = """
bdrv_read_em
  qemu_aio_wait
    posix_aio_process_queue
      qemu_paio_error
      qemu_paio_return
      done_cb
      qemu_aio_release
"""


def test_looks_for_finished_requests_are_left_to_timing():
    found = held(POLL, AT_ONCE)
    assert found.equal and found.timing == (5, 1)
    assert not held(POLL, AT_ONCE.replace("done_cb", "other_cb")).equal
    assert not held(POLL, "bdrv_read_em").equal


def test_signal_handlers_are_left_out_with_what_they_call():
    handler = "f\n  aio_signal_handler\n    bdrv_close\n  g"
    assert held(handler, "f\n  g").equal


def test_the_report_shows_the_difference_where_it_is():
    text = "\n".join(
        report.lines(held("f\n  g\n  h\n    k", "f\n  g\n  h\n    l\n    k", known={("block.c", "l")}))
    )
    assert "b99: not equal, 1 difference" in text
    assert "calls equal in order" in text and "88.88 %" in text
    assert "  -     l  block.c" in text
    assert "functions only in the recording" in text
