"""Each C call feature: the expectation is what really happens, and the index finds exactly that."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("ccg", Path(__file__).with_name("ccg.py"))
assert _spec is not None and _spec.loader is not None
ccg = importlib.util.module_from_spec(_spec)
sys.modules["ccg"] = ccg
_spec.loader.exec_module(ccg)

features = pytest.mark.parametrize("folder", ccg.FEATURES, ids=lambda folder: folder.name)


def test_there_are_enough():
    assert len(ccg.FEATURES) >= 50
    assert all((folder / "README").read_text().strip() for folder in ccg.FEATURES)


@features
@pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("nm")), reason="needs gcc and nm: apt-get install gcc binutils")
def test_expectation_is_what_happens(folder, tmp_path):
    wanted = {pair for pair, (_, seen) in ccg.expected(folder).items() if seen}
    possible = set(ccg.expected(folder))
    happened = ccg.observed(folder, tmp_path)
    # A thread's body starts a stack of its own.
    starts = {callee for (_, callee), (kinds, _) in ccg.expected(folder).items() if "thread" in kinds}
    happened = {pair for pair in happened if not (pair[0] == ccg.START and pair[1] in starts)}
    assert wanted <= happened <= possible


@features
def test_index_finds_it(folder, tmp_path):
    pytest.importorskip("clang", reason="needs libclang: pip install libclang")
    wanted = {pair: kinds for pair, (kinds, _) in ccg.expected(folder).items()}
    assert ccg.found(folder, tmp_path) == wanted
