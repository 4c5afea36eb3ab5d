"""Every folder of this one: what happens when it runs, and what the index says, against its expectation."""

import re
import shutil

import pytest

from tests.ccg import cases

ALL = cases.all_cases()
KINDS = {
    "direct",
    "macro",
    "field",
    "table",
    "parameter",
    "variable",
    "constructor",
    "destructor",
    "signal",
    "thread",
    "library",
}
each_case = pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)


@pytest.fixture(scope="session")
def runtime(tmp_path_factory):
    if not shutil.which("gcc") or not shutil.which("addr2line"):
        pytest.skip("needs gcc and addr2line; on Debian: apt-get install gcc libc6-dev binutils")
    return cases.compile_runtime(tmp_path_factory.mktemp("runtime"))


def test_there_are_many_and_each_folder_is_one():
    assert len(ALL) >= 50
    assert {case.folder for case in ALL} == {
        path for path in cases.HERE.iterdir() if path.is_dir() and not path.name.startswith("_")
    }


@each_case
def test_run_shows_the_expected_pairs(case, runtime, tmp_path):
    seen = cases.happened(case, runtime, tmp_path)
    assert seen <= case.pairs, "the run shows what is not expected"
    assert seen == {edge.pair for edge in case.edges if not edge.idle}


@each_case
def test_index_tells_the_expected_edges(case, tmp_path):
    told = cases.indexed(case, tmp_path)
    wanted = {(*edge.pair, edge.kind) for edge in case.edges if not edge.missed}
    known_wrong = {(edge.caller, edge.callee, edge.kind) for edge in case.beyond}
    missed = {(*edge.pair, edge.kind) for edge in case.edges if edge.missed}
    assert not told & missed, "listed as missed, but found: take `missed` out of expected.toml"
    assert known_wrong <= told, "listed as beyond, but not told: take it out of expected.toml"
    assert told == wanted | known_wrong


@each_case
def test_expectation_is_well_formed_and_explained(case):
    assert len(case.pairs) == len(case.edges)
    assert not case.pairs & {(edge.caller, edge.callee) for edge in case.beyond}
    assert {edge.kind for edge in case.edges} <= KINDS
    for function in {name for pair in case.pairs for name in pair} - {cases.START}:
        assert (case.folder / function.rpartition(":")[0]).is_file()
    text = (case.folder / "README.md").read_text()
    listed = re.findall(r"^- `(\S+) -> (\S+)`, (\w+)( \(does not happen in this run: .+\))?$", text, re.M)
    assert {(*row[:3], bool(row[3])) for row in listed} == {
        (edge.caller, edge.callee, edge.kind, bool(edge.idle)) for edge in case.edges
    }
    assert "What makes it hard: " in text
