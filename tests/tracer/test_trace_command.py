"""`studykvm trace`, as a program."""

import json
import subprocess
import sys

import pytest

from studykvm.commands.trace import main
from tracer import Struct, TracerError, record, traced

C_FILE = "block.c"


class State(Struct):
    size: int = 0


@traced
def bdrv_read(bs, sector):
    bs.size = sector
    return 0


@traced
def bdrv_open(count):
    for _ in range(count):
        bdrv_read(State(), 5)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    name = tmp_path_factory.mktemp("trace") / "a.trace"
    with record(name):
        bdrv_open(12)
        bdrv_open(5000)
    return str(name)


def test_show_folds_and_filters(path, capsys):
    assert main(["show", path]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "bdrv_open  block.c", "  bdrv_read  x12", "bdrv_open  block.c", "  bdrv_read  x5000",
    ]  # fmt: skip
    assert main(["show", path, "--no-fold", "--only", "bdrv_r*", "--args", "--state", "--thread", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["bdrv_read(bs=State#1, sector=5) = 0  block.c", "  * State#1.size: 0 -> 5"]
    assert len(lines) == 2 * 5012
    assert main(["show", path, "--from", "bdrv_open", "--depth", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "  ... 12 more"


def test_stats_count(path, capsys):
    assert main(["stats", path]) == 0
    out = capsys.readouterr().out
    assert "calls       5014\n" in out
    assert "structures  5012\n" in out
    assert out.splitlines()[-1].split()[0] in ("2", "5012")


def test_stats_count_a_part(path, capsys):
    assert main(["stats", path, "--only", "bdrv_o*", "--thread", "0"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("calls       2\nthreads     1\nduration ")
    assert [line.split()[0] + line.split()[-1] for line in out.splitlines()[5:]] == ["2block.c:bdrv_open"]
    assert main(["stats", path, "--from", "bdrv_open", "--depth", "1"]) == 0
    assert capsys.readouterr().out.startswith("calls       2\n")


def test_export_takes_what_show_takes(path, capsys):
    options = ["--no-fold", "--args", "--state", "--from", "bdrv_open"]
    assert main(["show", path, *options]) == 0
    shown = capsys.readouterr().out
    assert main(["export", path, "--format", "text", *options]) == 0
    assert capsys.readouterr().out == shown
    with pytest.raises(TracerError, match="for --format text, not for dot"):
        main(["export", path, "--format", "dot", "--args"])


def test_export_writes_a_file_or_standard_output(path, capsys, tmp_path):
    out = tmp_path / "out.json"
    assert (
        main(["export", path, "--format", "chrome", "-o", str(out), "--from", "bdrv_read", "--depth", "1"])
        == 0
    )
    assert sum(event["ph"] == "X" for event in json.loads(out.read_text())["traceEvents"]) == 5012
    assert main(["export", path, "--format", "calls"]) == 0
    assert capsys.readouterr().out.startswith("0\tbdrv_open\t0\tblock.c\n1\tbdrv_read\t0\tblock.c\n")


def test_mistakes_are_named(path, tmp_path, capsys):
    for argv, words in (
        (["show", path, "--from", "bdrv_opem"], "did you mean bdrv_open"),
        (["export", path, "--format", "pdf"], "no such format"),
        (["export", path, "--format", "calls", "-o", str(tmp_path / "no" / "x")], "cannot write"),
        (["show", str(tmp_path / "none")], "No such file"),
    ):
        with pytest.raises(TracerError, match=words):
            main(argv)
    for depth in ("0", "-1", "two"):
        with pytest.raises(SystemExit) as usage:
            main(["show", path, "--depth", depth])
        assert usage.value.code == 2
        assert f"'{depth}' is no number from 1 on" in capsys.readouterr().err


def test_a_damaged_trace_is_shown_with_a_warning(path, tmp_path, capsys):
    short = tmp_path / "short.trace"
    with open(path, "rb") as whole:
        short.write_bytes(whole.read()[:-10])
    assert main(["show", str(short)]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("bdrv_open  block.c\n")
    assert captured.err.startswith("studykvm: warning: ")


def test_a_reader_that_leaves_early_is_no_error(path):
    code = "import sys; from studykvm.commands.trace import main; sys.exit(main(sys.argv[1:]))"
    with subprocess.Popen(
        [sys.executable, "-c", code, "show", "--no-fold", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        assert program.stdout.readline() == b"bdrv_open  block.c\n"
        program.stdout.close()
        assert program.stderr.read() == b""
    assert program.returncode == 0
