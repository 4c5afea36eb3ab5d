"""Part of the shipped index made again, where the sources are at hand (STUDYKVM_QEMU_KVM)."""

import os
from pathlib import Path

import pytest

from graphs.index import profile
from graphs.index.build import Source, build
from graphs.index.query import Index

TREE = Path(os.environ.get("STUDYKVM_QEMU_KVM", "nowhere"))

pytest.importorskip("clang", reason="needs libclang: pip install libclang")
pytestmark = [
    pytest.mark.skipif(
        not (TREE / "qemu-kvm.c").is_file(), reason="set STUDYKVM_QEMU_KVM to the sources of qemu-kvm 0.12.4"
    ),
    pytest.mark.slow,
]


def source(header=True):
    """The files of qemu-img."""
    tree = TREE.resolve()
    family = profile.find(tree)
    assert family is not None
    if not header:
        family.data["pch"] = {}
    files = {path: programs for path, programs in family.files(tree).items() if "img" in programs}
    assert len(files) > 40
    return Source(tree, files, {}, family)


def calls(path):
    with Index.open(path, "img") as index:
        f = index.all_functions
        return {
            (str(f[e.caller]) if e.caller in f else None, str(f[e.callee]), e.kind, e.place, e.column)
            for e in index.edges()
            if e.callee in f
        }


def places(path):
    """Definitions and references in C files, which do not hang on the programs that were read."""
    with Index.open(path) as index:
        query = (
            "SELECT s.kind, s.file, s.name, s.scope, files.path, r.line, r.column, r.use FROM refs r "
            "JOIN symbols s ON s.id = r.symbol JOIN files ON files.id = r.file "
            "WHERE files.path LIKE 'block/%.c'"
        )
        return set(index.db.execute(query))


def test_made_again_it_is_the_same(tmp_path):
    report = build(source(), tmp_path / "img.index", jobs=2)
    assert report.failed == {}
    assert calls(tmp_path / "img.index") == calls(None)
    assert places(tmp_path / "img.index") == places(None)


def test_precompiled_headers_change_nothing(tmp_path):
    build(source(), tmp_path / "with.index", jobs=2)
    build(source(header=False), tmp_path / "without.index", jobs=2)
    assert places(tmp_path / "with.index") == places(tmp_path / "without.index")
    ours = {row for row in calls(tmp_path / "with.index") if row[3].split(":")[0].endswith(".c")}
    assert ours == {row for row in calls(tmp_path / "without.index") if row[3].split(":")[0].endswith(".c")}
