"""The table of four tools: its parsers on features whose answers are known, and its committed figures."""

import re

import pytest

from tests.ccg import cases
from tools import ccg_table

BY_NAME = {case.name: case for case in cases.all_cases()}

# What each program must say of these, by its manual: names resolved by file, calls by name, mentions.
KNOWN = {
    ("cflow", "static_twins"): BY_NAME["static_twins"].pairs,
    ("cscope", "static_twins"): BY_NAME["static_twins"].pairs,
    ("doxygen", "static_twins"): BY_NAME["static_twins"].pairs,
    ("cflow", "handler_array"): {("main.c:main", "main.c:handle")},
    ("cscope", "handler_array"): {("main.c:main", "main.c:handle")},
    ("doxygen", "handler_array"): {("main.c:main", "main.c:handle")},
    ("cflow", "qsort_comparator"): {("main.c:main", "main.c:sort"), ("main.c:sort", "main.c:by_value")},
    ("cscope", "qsort_comparator"): {("main.c:main", "main.c:sort")},
    ("doxygen", "qsort_comparator"): {("main.c:main", "main.c:sort"), ("main.c:sort", "main.c:by_value")},
}


@pytest.mark.parametrize(("tool", "name"), KNOWN)
def test_other_tools_are_read_rightly(tool, name, tmp_path):
    if reason := ccg_table.absent(tool):
        pytest.skip(reason)
    case = BY_NAME[name]
    functions = {function for pair in case.pairs for function in pair}
    assert ccg_table.TOOLS[tool](case, functions, tmp_path) == KNOWN[tool, name]


def test_a_missing_program_loses_its_column_and_is_named(monkeypatch, capsys):
    monkeypatch.setattr(ccg_table.shutil, "which", lambda name: None)
    assert ccg_table.main(["two_objects", "static_twins"]) == 0
    out = capsys.readouterr().out
    assert "| 2 features | edges | studykvm |\n" in out
    assert "cscope: cscope not installed; on Debian: apt-get install cscope" in out
    # two_objects: 4 edges and 2 beyond; static_twins: 4 edges.
    assert "| **recall** | 8 | **100 %** |" in out
    assert "| **precision** | | **80.0 %** |" in out


def test_committed_table_has_the_figures_of_the_expectations():
    text = (cases.HERE / "TABLE.md").read_text()
    edges = sum(len(case.edges) for case in BY_NAME.values())
    found = sum(not edge.missed for case in BY_NAME.values() for edge in case.edges)
    beyond = sum(len(case.beyond) for case in BY_NAME.values())
    again = "make it again: python -m tools.ccg_table --features --write tests/ccg/TABLE.md"
    assert f"| {len(BY_NAME)} features | edges | studykvm |" in text, again
    recall = re.search(r"^\| \*\*recall\*\* \| (\d+) \| \*\*([\d.]+) %\*\*", text, re.M)
    precision = re.search(r"^\| \*\*precision\*\* \| \| \*\*([\d.]+) %\*\*", text, re.M)
    assert recall and precision
    assert int(recall[1]) == edges, again
    assert float(recall[2]) == pytest.approx(100 * found / edges, abs=0.06), again
    assert float(precision[1]) == pytest.approx(100 * found / (found + beyond), abs=0.06), again
