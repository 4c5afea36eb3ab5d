"""The commands of this part: compare, draw, structures, functions; their words and exit statuses."""

import gzip
import json

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
        (["compare", "a01.trace", "-o", "out.gif"], "cannot draw a gif"),
        (["compare", "a01.trace", "--depth", "2"], "name it: --from FUNC"),
        (["compare", "a01.trace", "--index", "a01.trace"], "a01.trace is not an index"),
        (["compare", "a01.trace", "--index", "gone"], "no index at gone"),
        (["compare", "a01.trace", "--link", "https://example.org", "-o", "out.svg"], "wants {file}"),
        (["compare", "a01.trace", "--tree", "gone", "-o", "out.svg"], "gone: no such folder"),
        (["draw", "a01.trace", "-o", "a01.trace/out.svg"], "a01.trace/out.svg cannot be written"),
        (["graph", "bdrv_open2", "-o", "a01.trace/out.svg"], "a01.trace/out.svg cannot be written"),
        (["structures", "a01.trace", "--frames", "d"], "no BlockDriverState exists between step 0"),
        (["structures", "a01.trace", "--frames", "d", "--from", "nowhere"], "no such call"),
        (["structures", "a01.trace", "--step", "0", "-o", "out.svg"], "no BlockDriverState exists at step 0"),
    ],
)
def test_wrong_requests_are_explained_in_one_line(trace, arguments, said, capsys):
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_compare_without_a_recording_asks_the_source(trace, tmp_path, capsys):
    assert cli.main(["compare", trace, "-o", "out.json", "--from", "img_create"]) == 0
    out = capsys.readouterr().out
    assert "different calls of the trace are in the source of qemu-kvm 0.12.4 (img)" in out
    assert "traced only" in out and "0.0 %   a fault of the model" in out
    kinds = {link["kind"] for link in json.loads((tmp_path / "out.json").read_text())["links"]}
    assert kinds == {"traced and in source", "in source only"}


def test_compare_with_a_recording_has_three_witnesses(trace, capsys):
    assert cli.main(["compare", trace, "--recording", "a01"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("a01_create_raw: equal call for call")
    assert "traced, in source and recorded" in out and "recorded only" in out


def test_compare_exits_1_for_a_call_that_the_source_lacks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [(0, "main", "qemu-img.c"), (1, "bdrv_close", "block.c"), (2, "bdrv_opne", "block.c")]
    text = "".join(f"{depth}\t{function}\t0\t{file}\n" for depth, function, file in rows)
    (tmp_path / "odd.calls").write_text(text)
    assert cli.main(["compare", "odd.calls", "-o", "odd.svg"]) == 1
    out = capsys.readouterr().out
    assert "main -> bdrv_close   first at line 2" in out
    assert "bdrv_opne (block.c) is no function of that program" in out
    assert "#dc2626" in (tmp_path / "odd.svg").read_text()


def test_compare_takes_a_trace_that_was_cut(trace, tmp_path, capsys):
    whole = (tmp_path / trace).read_bytes()
    (tmp_path / "cut.trace").write_bytes(whole[: len(whole) * 2 // 3])
    status = cli.main(["compare", "cut.trace"])
    result = capsys.readouterr()
    assert "cut.trace" in result.err and "Traceback" not in result.err
    # What was before the cut is compared; if that is nothing, it is said.
    assert (status, "are in the source" in result.out) in [(0, True), (1, False)]


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
