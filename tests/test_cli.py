"""The face: dispatch, help, hints, and the recording of a command."""

import os
import subprocess
import sys

import pytest

from studykvm import cli
from tracer import load


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
        "sys.exit(any(m in sys.modules for m in ('hypervisor', 'tracer', 'graphs', 'unicorn', 'argparse')))"
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


def test_letters_that_the_output_lacks_are_escaped(tmp_path):
    command = [sys.executable, "-m", "studykvm", "demo", "-o", str(tmp_path)]
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert r"\u2502 Booting from Hard Disk..." in result.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full, a disk that is full")
def test_a_trace_that_finds_no_room_is_one_warning(tmp_path):
    result = run("img", "create", "--trace", "/dev/full", "-f", "raw", str(tmp_path / "a.img"), "1M")
    assert "Traceback" not in result.stderr
    assert "No space left on device" in result.stderr
    assert len(result.stderr.splitlines()) == 1
