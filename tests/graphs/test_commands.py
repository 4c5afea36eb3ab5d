"""The commands of this part: compare, draw, structures, functions; their words and exit statuses."""

import gzip

import pytest

from graphs import recordings
from studykvm import cli


@pytest.fixture
def trace(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["img", "create", "-f", "raw", "base_raw.img", "64M", "--trace", "a01.trace"]) == 0
    capsys.readouterr()
    return "a01.trace"


def test_compare_is_silent_about_nothing_and_exits_0_when_equal(trace, capsys):
    assert cli.main(["compare", trace, "--recording", "a01_create_raw"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("a01_create_raw: equal call for call\n  qemu-img create -f raw base_raw.img 64M\n")
    assert "100.00 %" in out


def test_compare_exits_1_and_shows_where(trace, capsys):
    assert cli.main(["compare", trace, "--recording", "a02", "--limit", "1"]) == 1
    out = capsys.readouterr().out
    assert "a02_create_qcow2: not equal" in out
    assert "qcow_create (block/qcow2.c)" in out and "raw_create (block/raw-posix.c)" in out
    assert out.count("(- recording only, + model only)") == 1


def test_compare_says_why_a_scenario_cannot_be_equal(trace, capsys):
    assert cli.main(["compare", trace, "--recording", "b33"]) == 1
    assert "cannot be equal: vvfat" in capsys.readouterr().out


def test_compare_takes_recordings_from_elsewhere(trace, tmp_path, capsys):
    calls = recordings.load("a01").calls
    text = "".join(f"{depth}\t{function}\t{thread}\t{file}\n" for depth, (file, function), thread in calls)
    (tmp_path / "kept_back.calls.gz").write_bytes(gzip.compress(text.encode()))
    assert cli.main(["compare", trace, "--recording", "kept_back.calls.gz"]) == 0
    assert capsys.readouterr().out.startswith("kept_back: equal call for call")


def test_compare_lists_what_ships_and_what_cannot_be_equal(capsys):
    assert cli.main(["compare", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in recordings.names())
    assert "These cannot be equal" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "no.trace", "--recording", "a01"], "no.trace"),
        (["compare", "a01.trace", "--recording", "zzz"], "is no recording that ships"),
        (["draw", "a01.trace", "-o", "out.gif"], "cannot draw a gif"),
        (["draw", "a01.trace", "-o", "out.svg", "--from", "bdrv_opne2"], "no such call"),
        (["structures", "a01.trace", "--at", "nowhere", "-o", "out.svg"], "no such call"),
        (["structures", "a01.trace", "--step", "0", "-o", "out.svg"], "no BlockDriverState exists at step 0"),
    ],
)
def test_wrong_requests_are_explained_in_one_line(trace, arguments, said, capsys):
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_draw_writes_the_part_asked_for(trace, tmp_path, capsys):
    assert cli.main(["draw", trace, "-o", "all.dot"]) == 0
    assert cli.main(["draw", trace, "-o", "part.dot", "--from", "img_create"]) == 0
    every, part = (tmp_path / "all.dot").read_text(), (tmp_path / "part.dot").read_text()
    assert "raw_create" in every and "raw_create" in part
    assert "do_qemu_init" in every and "do_qemu_init" not in part


def test_structures_draws_a_device(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["img", "create", "-f", "raw", "a.img", "1M"])
    cli.main(["io", "-c", "read 0 512", "a.img", "--trace", "io.trace"])
    assert cli.main(["structures", "io.trace", "--at", "bdrv_open2:exit", "-o", "s.dot"]) == 0
    dot = (tmp_path / "s.dot").read_text()
    assert '"BlockDriverState#1":"opaque":e -> "BDRVRawState' in dot


def test_functions_lists_every_one_with_its_place(capsys):
    assert cli.main(["functions", "--tsv"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert all(len(row) == 4 and row[3].isdecimal() for row in rows)
    assert ["block/qcow.c", "qcow_open"] in [row[:2] for row in rows]
    assert cli.main(["functions"]) == 0
    assert f"{len(rows):,} functions of" in capsys.readouterr().out
