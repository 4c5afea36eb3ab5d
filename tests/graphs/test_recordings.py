"""Recordings: packing keeps every line, names and paths find them, scenarios give back their arguments."""

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphs import recordings
from graphs.calls import CallTable
from graphs.errors import GraphsError

ROWS = st.lists(st.tuples(st.integers(0, 300), st.sampled_from("abcdef"), st.integers(0, 5)))


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_packing_keeps_every_call(rows):
    table = CallTable()
    for depth, function, thread in rows:
        table.append(depth, ("x.c", function), thread)
    assert list(CallTable.unpack(table.pack(), table.names)) == list(table)


# Counted with zcat NAME.calls.gz | wc -l.
@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("a01_create_raw", 143),
        ("b04_io_qcow_on_raw_aio", 1191),
        ("c01_commit_qcow_over_raw", 275287),
        ("d00_boot_tcg_everything", 769902),
    ],
)
def test_a_shipped_recording_is_whole(name, calls):
    assert len(recordings.load(name).calls) == calls


def test_all_recordings_ship():
    assert len(recordings.names()) == 62
    kinds = {name[0] for name in recordings.names()}
    assert kinds == set("abcde")
    assert len(recordings.structure_names()) == 3


def test_programs_know_their_functions():
    assert ("qemu-img.c", "img_convert") in recordings.functions("qemu-img")
    assert ("qemu-img.c", "img_convert") not in recordings.functions("qemu-io")
    assert ("vl.c", "drive_init") in recordings.functions("qemu-system-x86_64")


def test_scenarios_give_the_arguments_back():
    argv = recordings.load("b10").scenario.argv
    assert argv[1:] == [
        "-c",
        "open base_raw.img",
        "-c",
        "close",
        "-c",
        "open ov_qcow_over_raw.img",
        "-c",
        "close",
        "-c",
        "quit",
    ]
    assert recordings.load("b30").scenario.argv == [
        "qemu-io",
        "-c",
        "read 0 512",
        "-c",
        "write 0 512",
        "ro.img",
    ]
    assert recordings.load("d01").scenario.monitor[-2:] == ("quit", "sleep 1")


@pytest.mark.parametrize(
    ("name", "said"),
    [("a10", "fits several"), ("b99", "is no recording")],
)
def test_a_wrong_name_is_explained(name, said):
    with pytest.raises(GraphsError, match=said):
        recordings.load(name)


def test_a_recording_elsewhere_loads_by_file_and_by_folder(tmp_path):
    text = "0\tmain\t0\tqemu-io.c\n1\tbdrv_init\t0\tblock.c\n"
    path = tmp_path / "b99_mine.calls.gz"
    path.write_bytes(gzip.compress(text.encode()))
    (tmp_path / "scenarios.json").write_text(
        '{"b99_mine": {"command": "$ qemu-io -c quit", "output": "rc=0\\n"}}'
    )
    for place in (path, tmp_path):
        recording = recordings.load(str(place))
        assert (recording.name, recording.program) == ("b99_mine", "qemu-io")
        assert list(recording.calls)[1] == (1, ("block.c", "bdrv_init"), 0)
        assert recording.scenario.argv == ["qemu-io", "-c", "quit"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(b"0\tmain\t0\tx.c\nrubbish\n"), "line 2 is not a call"),
        (gzip.compress(b"0\tmain\t0\tx.c\n" * 50)[:-12], "cannot be read"),
        (b"no gzip", "cannot be read"),
        (gzip.compress(b"x\tmain\t0\tx.c\n"), "line 1 is not a call"),
    ],
    ids=["rubbish on line 2", "cut gzip", "no gzip", "rubbish on line 1"],
)
def test_a_broken_recording_is_explained(tmp_path, content, said):
    path = tmp_path / "x.calls.gz"
    path.write_bytes(content)
    with pytest.raises(GraphsError, match=said):
        recordings.load(str(path))
