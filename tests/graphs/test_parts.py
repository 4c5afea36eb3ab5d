"""Parts of runs: which call is meant, what is compared inside it, and what is left out."""

import pytest

from graphs import recordings
from graphs.calls import CallTable
from graphs.compare import report
from graphs.compare.parts import Part, Selector, compare_part, compare_stream_part, count, parts, streams
from graphs.compare.projection import project
from graphs.errors import GraphsError
from studykvm.commands.compare import main

D11 = "d11_change_eject"


def held(calls, part):
    """A part of d11 against that recording; the model has every function that was recorded."""
    recording = recordings.load(D11)
    return compare_part(calls, recording, part, recording.calls.functions())


def without(table, rows):
    """The same calls but for some rows."""
    kept = CallTable()
    for at, (depth, name, thread) in enumerate(table):
        if at not in rows:
            kept.append(depth, name, thread)
    return kept


def row_of(table, function, number=1):
    found = [at for at, (_, name, _) in enumerate(table) if name[1] == function]
    return found[number - 1]


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("do_commit", Selector("do_commit", "", 1)),
        ("do_info>bdrv_info", Selector("do_info", "bdrv_info", 1)),
        ("main_loop_wait#3", Selector("main_loop_wait", "", 3)),
        ("a>b#12", Selector("a", "b", 12)),
    ],
    ids=["function", "inner", "number", "all"],
)
def test_selectors(text, selector):
    assert Selector.parse(text) == selector


@pytest.mark.parametrize("text", ["", "do commit", "f#0", "f>", "f#x", "f>g>h"])
def test_what_selects_no_call_is_an_error(text):
    with pytest.raises(GraphsError, match="selects no call"):
        Selector.parse(text)


def test_the_parts_of_a_recording_are_found():
    titles = [part.title for part in parts(recordings.load(D11))]
    assert titles[:2] == [
        "main_loop_wait's own order",
        "the guest's first read, as far as the workers' queue",
    ]
    assert titles[-4:] == ["info block", "info block, 2", "change", "eject"]
    assert [part.title for part in streams(recordings.load("d04"))] == [
        "savevm", "loadvm", "delvm", "info snapshots", "info snapshots, 2",
    ]  # fmt: skip
    assert parts(recordings.load("b02")) == []


def test_a_recording_equals_itself_in_every_part():
    recording = recordings.load(D11)
    for part in parts(recording):
        comparison = compare_part(recording.calls, recording, part)
        assert comparison is not None and comparison.equal and comparison.equal_calls > 1
        assert comparison.timing is None and not comparison.unrecorded


def test_a_missing_call_is_a_difference_of_its_part_only():
    recording = recordings.load(D11)
    calls = without(recording.calls, {row_of(recording.calls, "bdrv_is_locked")})
    assert [part.title for part in parts(recording) if not held(calls, part).equal] == ["eject"]


def test_a_part_that_only_one_side_has_is_none():
    recording = recordings.load(D11)
    commit = Part("commit", Selector.parse("do_commit"))
    assert compare_part(recordings.load("d01").calls, recording, commit) is None
    assert (
        compare_stream_part(recording.calls, recordings.load("d04"), Part("", Selector("do_savevm"))) is None
    )


def test_what_no_recording_keeps_there_is_left_out_and_named():
    """Behind its start a recording lacks qemu_notify_event; the model calls it."""
    recording = recordings.load(D11)
    at = row_of(recording.calls, "do_eject")
    calls = CallTable()
    for row, (depth, name, thread) in enumerate(recording.calls):
        calls.append(depth, name, thread)
        if row == at:
            calls.append(depth + 1, ("vl.c", "qemu_notify_event"), thread)
    comparison = compare_part(calls, recording, Part("eject", Selector("do_eject")))
    assert comparison.equal
    assert comparison.unrecorded == {("vl.c", "qemu_notify_event")}
    assert any("qemu_notify_event" in line for line in report.lines(comparison))


def test_a_functions_own_order_does_not_look_into_what_it_calls():
    recording = recordings.load(D11)
    loop = parts(recording)[0]
    assert loop.own
    for function, equal in (("nographic_update", True), ("qemu_mutex_lock_iothread", False)):
        calls = without(recording.calls, {row_of(recording.calls, function)})
        assert held(calls, loop).equal is equal


def test_a_call_ends_where_the_guest_or_a_user_begins():
    """Behind its start a recording lacks the guest's way to a port: its act hangs on the line above."""
    recording = recordings.load(D11)
    completion = Part("its completion", Selector("posix_aio_read", "ide_write_dma_cb"))
    at = row_of(recording.calls, "ide_write_dma_cb")
    begun = max(
        row for row in range(at) if recording.calls.names[recording.calls.function[row]][1] == "bmdma_writeb"
    )
    idle = CallTable()
    for row, (depth, name, thread) in enumerate(recording.calls):
        if row == begun:
            idle.append(3, ("posix-aio-compat.c", "posix_aio_read"), thread)
        idle.append(depth, name, thread)
    assert held(idle, completion).equal


def test_calls_are_counted():
    table = recordings.load(D11).calls
    assert count(table, Selector.parse("do_info")) == 2
    assert count(table, Selector.parse("handle_user_command>do_eject")) == 1
    assert count(table, Selector.parse("nothing_like_this")) == 0


def table(*rows):
    made = CallTable()
    for depth, function in rows:
        made.append(depth, ("a.c", function), 0)
    return made


def projected(calls, **options):
    return [(row.depth, row.name[1]) for row in project(calls, lambda name: True, **options)]


def test_a_signal_handler_takes_what_stands_beside_it():
    calls = table((0, "f"), (1, "handler"), (1, "ring"), (2, "wake"), (1, "ring"), (1, "g"), (1, "ring"))
    assert projected(calls, interrupts={("a.c", "handler"): {"ring"}}) == [(0, "f"), (1, "g"), (1, "ring")]


def test_calls_are_cut_by_who_makes_them():
    calls = table((0, "init"), (1, "timer"), (2, "clock"), (1, "device"), (2, "timer"))
    cut = [(("a.c", "init"), ("a.c", "timer"))]
    assert projected(calls, cut=cut) == [(0, "init"), (1, "device"), (2, "timer")]


def test_an_absent_function_loses_some_of_its_calls():
    calls = table((0, "init"), (1, "absent"), (2, "timer"), (3, "clock"), (2, "saved"), (1, "timer"))
    options = {"absent": {("a.c", "absent")}, "lost": lambda name: name[1] == "timer"}
    assert projected(calls, **options) == [(0, "init"), (1, "absent"), (2, "saved"), (1, "timer")]


@pytest.fixture
def recorded(tmp_path):
    """A recording as a file, as a trace to compare."""
    path = tmp_path / "d11x.calls"
    rows = recordings.load(D11).calls
    path.write_text("".join(f"{d}\t{name[1]}\t{thread}\t{name[0]}\n" for d, name, thread in rows))
    return str(path)


def test_the_command_compares_one_part(recorded, capsys):
    assert main([recorded, "--recording", D11, "--subtree", "handle_user_command>do_eject"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("d11_change_eject, inside handle_user_command>do_eject#1: equal call for call")
    assert "is what happens" in out


def test_the_command_says_how_many_such_calls_there_are(recorded):
    from studykvm.errors import StudyError

    with pytest.raises(StudyError, match=r"do_info#3: .* has 2 such calls and d11_change_eject 2"):
        main([recorded, "--recording", D11, "--subtree", "do_info#3"])
    with pytest.raises(StudyError, match="name it: --recording"):
        main([recorded, "--subtree", "do_info"])


def test_the_command_ends_with_the_parts(recorded, capsys):
    main([recorded, "--recording", D11])
    out = capsys.readouterr().out
    assert "inside single calls, where the guest and the number of turns do not matter:" in out
    lines = [line.split(":")[0].strip() for line in out.splitlines() if ": " in line and " equal, " in line]
    assert lines[-4:] == ["info block", "info block, 2", "change", "eject"]
