"""The model repeats what was recorded of the real program: the same calls, and the same words."""

import re
from functools import cache
from pathlib import Path

import pytest

from graphs import recordings
from graphs.calls import CallTable
from graphs.compare import Comparison, compare, report
from graphs.compare.projection import project
from graphs.compare.scope import known_differences, scope_of
from graphs.witnesses import SOURCE
from studykvm.model import load_model, witnesses
from tests.truth.replay import of_kind, replay_start
from tracer import load

TOOLS = of_kind("abc")
STARTS = of_kind("de")


@cache
def known() -> frozenset[tuple[str, str]]:
    return frozenset((function.file, function.name) for function in load_model())


@cache
def held(trace: Path, name: str, **options) -> Comparison:
    calls = CallTable.from_trace(load(trace))
    return compare(calls, recordings.load(name), known(), **options)


def explained(comparison: Comparison) -> str:
    return "\n".join(report.lines(comparison))


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_makes_the_recorded_calls(replayed, name):
    trace = replayed / f"{name}.trace"
    comparison = held(trace, name)
    if name not in known_differences():
        assert comparison.equal, explained(comparison)
        assert not comparison.only_ours | comparison.only_theirs
        return
    stated = known_differences()[name]
    assert not comparison.equal, f"{name} is equal now: remove it from scope.toml"
    part = held(trace, name, until=stated.until, leave=stated.leave)
    assert part.equal, explained(part)
    assert stated.reason in explained(comparison)


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_prints_the_recorded_words(replayed, name):
    ours = (replayed / f"{name}.out").read_text()
    if name == "b33_fat_protocol":
        assert "recognised but not modelled" in ours
    else:
        assert words(ours, name) == words(recordings.load(name).scenario.output, name)


def words(output: str, name: str) -> list[str]:
    """Leave out what the clock and the file system decide, and the order of the two output streams."""
    output = re.sub(r"; 0\.\d+ sec \(.*\)|disk size: .*|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "", output)
    # 0.12.4's qemu-io exits with 0 whatever fails; ours as 7.2's, for the sake of the iotests.
    silent = "rc=" if recordings.load(name).program == "qemu-io" else "\n"
    # What we say on top of it names the program that says it.
    return sorted(line for line in output.splitlines() if not line.startswith((silent, "studykvm: ")))


@pytest.fixture(scope="session", params=STARTS)
def started(request, tmp_path_factory) -> tuple[str, Path]:
    return request.param, replay_start(tmp_path_factory.mktemp("start"), request.param)


def test_the_emulator_starts_with_the_recorded_calls(started):
    name, trace = started
    comparison = held(trace, name)
    assert comparison.equal, explained(comparison)


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_makes_no_call_that_the_source_lacks(replayed, name):
    found = witnesses(load(replayed / f"{name}.trace"), name)
    assert not found.faults, str(found)
    # The source shows whatever the real program did, too.
    assert not [str(seen) for seen in found.calls if SOURCE not in seen.by]


def test_the_emulator_starts_without_a_call_that_the_source_lacks(started):
    name, trace = started
    found = witnesses(load(trace), name)
    assert not found.faults, str(found)
    assert not [str(seen) for seen in found.calls if SOURCE not in seen.by]


def test_nearly_all_recorded_functions_are_modelled():
    recorded = set()
    for name in TOOLS + STARTS:
        recording = recordings.load(name)
        scope = scope_of(recording)
        until = tuple(scope.until.split(":")) if scope.until else None
        recorded |= {row.name for row in project(recording.calls, scope.covers, until)}
    missing = recorded - known()
    assert len(recorded) > 200
    assert 1 - len(missing) / len(recorded) >= 0.95, sorted(missing)


def test_nearly_all_scenarios_are_equal(replayed):
    equal = [name for name in TOOLS if held(replayed / f"{name}.trace", name).equal]
    assert len(equal) / len(TOOLS) >= 0.95, sorted(set(TOOLS) - set(equal))
