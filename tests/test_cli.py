"""The face: dispatch, help, hints, and the recording of a command."""

import os
import subprocess
import sys

import pytest

from studykvm import cli
from tracer import load, record


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "studykvm", *argv], capture_output=True, text=True)


def test_help_lists_every_command(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_its_module(name):
    assert callable(cli.load(cli.COMMANDS[name]))


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from studykvm.cli import main; main(['--help']);"
        "heavy = ('hypervisor', 'tracer', 'graphs', 'unicorn', 'argparse', 'dataclasses', 'typing');"
        "sys.exit(any(m in sys.modules for m in heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_unknown_command_suggests_the_nearest():
    result = run("bot")
    assert result.returncode == 2
    assert "did you mean boot?" in result.stderr


def test_no_arguments_is_wrong_usage():
    result = run()
    assert result.returncode == 2
    assert "usage: studykvm" in result.stdout


@pytest.mark.parametrize("as_environment", [False, True])
def test_trace_option_and_environment_record_the_command(tmp_path, monkeypatch, as_environment):
    image, trace = tmp_path / "a.img", tmp_path / "a.trace"
    argv = ["img", "create", "-f", "raw", str(image), "1M"]
    if as_environment:
        monkeypatch.setenv("STUDYKVM_TRACE", str(trace))
    else:
        argv[1:1] = ["--trace", str(trace)]
    assert run(*argv).returncode == 0
    assert image.stat().st_size == 1 << 20
    assert "raw_create" in {call.function for call in load(trace).calls()}


def test_only_calls_of_some_files_are_recorded(tmp_path):
    trace = tmp_path / "a.trace"
    create = ["create", "-f", "raw", str(tmp_path / "a.img"), "1M"]
    assert run("img", "--trace", str(trace), "--trace-only", "block/*,block.c", *create).returncode == 0
    calls = {call.function: call for call in load(trace).calls()}
    assert {call.file.partition("/")[0] for call in calls.values()} == {"block", "block.c"}
    # img_create, which calls it, is in qemu-img.c.
    assert calls["bdrv_create"].depth == 0 and calls["raw_create"].depth == 1
    result = run("img", "--trace-only", "block*", *create)
    assert result.returncode == 1 and "add --trace FILE" in result.stderr


def test_trace_without_a_name_is_explained():
    result = run("img", "create", "--trace")
    assert result.returncode == 1
    assert "--trace wants a file name" in result.stderr


def test_an_unexpected_error_is_one_line_unless_debugging(monkeypatch, capsys):
    monkeypatch.setitem(cli.COMMANDS, "functions", cli.Command("nowhere", "", ""))
    assert cli.main(["functions"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("STUDYKVM_DEBUG", "1")
    with pytest.raises(ModuleNotFoundError):
        cli.main(["functions"])


def test_a_closed_pipe_ends_quietly():
    writer = subprocess.Popen(
        [sys.executable, "-m", "studykvm", "functions"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    writer.stdout.close()
    assert writer.stderr.read() == b""
    assert writer.wait() in (0, 141)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(closed):
    command = ["sh", "-c", f'"$0" -m studykvm boot -version {closed}', sys.executable]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_letters_that_the_output_lacks_are_drawn_with_others(tmp_path):
    command = [sys.executable, "-m", "studykvm", "demo", "-o", str(tmp_path)]
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert "| Booting from Hard Disk..." in result.stdout


def test_names_that_the_output_lacks_come_out_as_they_are(tmp_path):
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    name = "ü→".encode() + b"\xff.img"
    command = [sys.executable, "-m", "studykvm", "img", "create", "-f", "raw", name, "1M"]
    environment |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    result = subprocess.run(command, capture_output=True, env=environment, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == b"Formatting '" + name + b"', fmt=raw size=1048576 \n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full, a disk that is full")
@pytest.mark.parametrize("command", ["--help", "--version", "compare --list", "img -h", "boot -version"])
def test_an_output_that_finds_no_room_is_one_line(command):
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "studykvm", *command.split()]
        result = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (result.returncode, result.stderr) == (1, "studykvm: No space left on device\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full, a disk that is full")
def test_a_trace_that_finds_no_room_is_one_warning(tmp_path):
    result = run("img", "create", "--trace", "/dev/full", "-f", "raw", str(tmp_path / "a.img"), "1M")
    assert "Traceback" not in result.stderr
    assert "No space left on device" in result.stderr
    assert len(result.stderr.splitlines()) == 1


WRONG = {
    "migration show letter": "letter: no saved machine: it does not begin with QEVM",
    "trace show letter": "letter: not a trace of studykvm",
    "structures cut.trace --at qcow_open --frames letter": "name a folder",
    "demo -o letter": "-o letter: a file of that name is there; name a folder",
    "index letter": "letter is neither a tree nor a tarball that can be unpacked",
    "struct BlockDriver.bdrv_open": "is a field: say struct BlockDriver, or sets BlockDriver.bdrv_open",
    "callers qcow_open()": "2 functions are called qcow_open; say which, as file:name",
    "why bdrv_open2 raw_open --tree gone": "--tree gone: there is no such folder",
    "graph --check nosuch": "`studykvm compare --list` names them all",
}


@pytest.mark.parametrize("command", WRONG)
def test_wrong_use_names_what_is_wrong_and_what_to_do(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letter").write_text("Dear reader,\n")
    with record("cut.trace"):
        pass
    assert cli.main(command.split()) == 1
    said = capsys.readouterr()
    assert WRONG[command] in said.err and said.out == ""


@pytest.mark.parametrize("command", ["trace stats a.trace", "draw a.trace -o a.dot", "compare a.trace"])
def test_what_is_missing_of_a_trace_is_said_once(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with record("a.trace"):
        assert cli.main(["img", "create", "-f", "qcow2", "a.img", "1M"]) == 0
    whole = (tmp_path / "a.trace").read_bytes()
    (tmp_path / "a.trace").write_bytes(whole[: len(whole) * 3 // 4])
    capsys.readouterr()
    cli.main(command.split())
    assert capsys.readouterr().err.count("a.trace: cut off or damaged") == 1


def test_an_option_is_found_with_its_dashes_or_without(capsys):
    found = []
    for word in ("hda", "-hda", "--hda"):
        assert cli.main(["option", word]) == 0
        found.append(capsys.readouterr().out)
    assert "handled by case QEMU_OPTION_hda in main" in found[0]
    assert found[0] == found[1] == found[2]
