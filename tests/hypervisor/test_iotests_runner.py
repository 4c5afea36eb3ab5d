"""The runner of QEMU's own tests: what it chooses, and how it tells passed from failed."""

import importlib.util
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).parents[2] / "tools" / "iotests.py"

SHELL = """#!/usr/bin/env bash
_supported_fmt() { :; }
_supported_proto() { :; }
_supported_fmt raw qcow2
_supported_proto file
"""


@pytest.fixture(scope="module")
def runner():
    spec = importlib.util.spec_from_file_location("iotests", RUNNER)
    module = importlib.util.module_from_spec(spec)
    sys.modules["iotests"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def suite(tmp_path):
    """A suite of QEMU's shape; the scripts print with our own programs."""

    def add(name: str, text: str, expected: str = "") -> None:
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
        (tmp_path / f"{name}.out").write_text(expected)

    add("001", SHELL + '"$QEMU_IMG_PROG" create -f $IMGFMT "$TEST_DIR/a" 1M >/dev/null\necho done', "done\n")
    add("002", SHELL + '"$QEMU_IO_PROG" -c length nothere 2>/dev/null\necho rc=$?\n', "rc=1\n")
    add("003", SHELL + "echo one\n", "two\n")
    add("004", SHELL + 'echo not here > "$TEST_DIR/004.notrun"\n')
    add("005", SHELL + "sleep 60\n")
    add("006", SHELL + "# $QEMU is not used\n$QEMU -nographic\n")
    add("007", "#!/usr/bin/env python3\n")
    add("008", SHELL.replace("raw qcow2", "vmdk"))
    add("009", SHELL.replace("proto file", "proto nbd"))
    return tmp_path


def test_only_what_needs_the_two_programs_is_chosen(runner, suite):
    chosen, others = runner.select(suite)
    assert chosen == ["001", "002", "003", "004", "005"]
    assert others == {
        "006": "needs qemu",
        "007": "is a Python test, which drives a running machine",
        "008": "is for other formats",
        "009": "is for other protocols",
    }


@pytest.mark.parametrize(
    "test, outcome, why",
    [
        ("001", "passed", ""),
        ("002", "passed", ""),
        ("003", "failed", "see the difference"),
        ("004", "skipped", "not here"),
        ("005", "failed", "not done after 1 s"),
    ],
)
def test_a_test_ends_one_way_or_another(runner, suite, tmp_path, test, outcome, why):
    result = runner.run(suite, test, "raw", runner.programs(tmp_path), 1 if test == "005" else 60)
    assert (result.outcome, result.why) == (outcome, why)
    assert ("-two" in result.diff) == (test == "003")
