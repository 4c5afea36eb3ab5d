"""Part of the shipped index made again, where the sources are at hand (STUDYKVM_QEMU_KVM)."""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
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


# Calls that are written but that gcc drops as dead: behind `1 ||` or `return;`, under a constant
# condition, or for accesses of one byte, which cannot cross a page.
DROPPED = {
    ("hw/bt-l2cap.c", "l2cap_iframe_in", "l2cap_sframe_in"),
    ("hw/rtl8139.c", "rtl8139_BasicModeCtrl_write", "rtl8139_config_writeable"),
    ("slirp/tcp_timer.c", "tcp_timers", "tcp_respond"),
    ("softmmu_template.h", "__ldb_cmmu", "slow_ldb_cmmu"),
    ("softmmu_template.h", "__ldb_mmu", "slow_ldb_mmu"),
    ("softmmu_template.h", "__stb_mmu", "slow_stb_mmu"),
    ("softmmu_template.h", "slow_ldb_cmmu", "slow_ldb_cmmu"),
    ("softmmu_template.h", "slow_ldb_mmu", "slow_ldb_mmu"),
    ("softmmu_template.h", "slow_stb_mmu", "slow_stb_mmu"),
}


def gcc_calls(folder, tree, family):
    """Direct calls as gcc has them, (file, caller, callee), and the functions that it compiled."""
    words = family.arguments(tree, folder)
    at = words.index("-nobuiltininc")
    words = [word for word in words[1:at] + words[at + 3 :] if not word.startswith("-ferror-limit")]
    keep = ["-O0", "-fno-inline", "-fkeep-static-functions", "-fkeep-inline-functions"]

    def compiled(number_path):
        number, path = number_path
        output = folder / f"{number}.o"
        command = ["gcc", "-x", "c", *words, *keep, "-fcallgraph-info", "-c", "-o", output, tree / path]
        subprocess.run(command, check=True, capture_output=True)
        output.unlink()
        return output.with_suffix(".ci").read_text()

    pairs, functions = set(), set()
    with ThreadPoolExecutor(2) as pool:
        for text in pool.map(compiled, enumerate(family.files(tree))):
            titles = {}
            for title, label in re.findall(r'node: \{ title: "([^"]*)" label: "([^"]*)" \}', text):
                name, place, *_ = label.split("\\n")
                file = os.path.relpath(os.path.normpath(place.rsplit(":", 2)[0]), tree)
                titles[title] = (file, name)
            functions.update(titles.values())
            for source, target in re.findall(r'sourcename: "([^"]*)" targetname: "([^"]*)"', text):
                if source in titles and target != "__indirect_call":
                    pairs.add((*titles[source], target.rpartition(":")[2]))
    return pairs, functions


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc; on Debian: apt-get install gcc")
@pytest.mark.timeout(600)
def test_calls_by_name_are_those_of_gcc(tmp_path):
    tree = TREE.resolve()
    family = profile.find(tree)
    family.prepare(tree, tmp_path)
    theirs, compiled = gcc_calls(tmp_path, tree, family)
    with Index.open() as index:
        f = index.all_functions
        known = {one.name for one in f.values()}
        edges = [
            (f[e.caller].file, f[e.caller].name, f[e.callee].name, e.kind)
            for e in index.edges()
            if e.caller in f
        ]
    theirs = {pair for pair in theirs if pair[2] in known}
    assert len(theirs) > 12_000
    assert theirs <= {edge[:3] for edge in edges}
    ours = {edge[:3] for edge in edges if edge[3] in ("direct", "macro") and edge[:2] in compiled}
    assert ours - theirs == DROPPED
