"""The compiled visitor finds what the one in Python finds."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("clang", reason="needs libclang: pip install libclang")

from graphs.index import visitor
from graphs.index.builtin import builtin_headers
from graphs.index.parse import Parser
from graphs.index.tree import CLASSES

SOURCES = sorted(Path(__file__).parents[1].glob("ccg/*/*.c"))


def facts(folder, files):
    parser = Parser(folder, ["-xc", "-nobuiltininc", "-isystem", str(builtin_headers())], {f"{folder}/": ""})
    try:
        return {path: parser.facts(parser.parsed(path)).pack() for path in files}
    finally:
        parser.close()


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A way to build the visitor for the time of a test."""
    monkeypatch.setattr(visitor, "_ready", None)

    def build():
        building = visitor.Building(tmp_path, CLASSES)
        building.finish()
        return visitor.compiled()

    return build


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler: apt-get install gcc")
def test_same_facts(built):
    folder = SOURCES[0].parents[1]
    files = [str(path.relative_to(folder)) for path in SOURCES]
    slow = facts(folder, files)
    assert built() is not None
    assert facts(folder, files) == slow


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler", "true"])
def test_without_a_compiler_python_does_it(built, monkeypatch, tmp_path, compiler):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("PATH", str(tmp_path) if compiler.startswith("no") else "/usr/bin:/bin")
    assert built() is None
