"""Indexing over a dask cluster of two worker processes gives the same index."""

import sqlite3

import pytest

from graphs.errors import GraphsError
from graphs.index.build import build
from graphs.index.locate import locate

pytest.importorskip("clang", reason="needs libclang: pip install libclang")
distributed = pytest.importorskip("distributed", reason="needs dask.distributed: pip install distributed")


def content(path):
    with sqlite3.connect(path) as db:
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        kept = [name for name in names if name not in ("digests", "meta")]
        return {name: sorted(map(repr, db.execute(f"SELECT * FROM {name}"))) for name in kept}


@pytest.fixture
def project(tmp_path):
    """Twenty files that call each other through a table."""
    for n in range(20):
        after = f"step{(n + 1) % 20}"
        text = f"int {after}(int);\nint step{n}(int x) {{ return x ? {after}(x - 1) : {n}; }}\n"
        text += f"int (*const first{n})(int) = step{n};\n"
        (tmp_path / f"file{n}.c").write_text(text)
    return sorted(str(path) for path in tmp_path.glob("*.c"))


def test_two_workers(project, tmp_path):
    build(locate(project, [], tmp_path), tmp_path / "here.index")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        report = build(
            locate(project, [], tmp_path), tmp_path / "there.index", scheduler=cluster.scheduler_address
        )
    assert report.read == 20
    assert content(tmp_path / "there.index") == content(tmp_path / "here.index")


def test_no_scheduler(project, tmp_path):
    with pytest.raises(GraphsError, match="no dask scheduler answers"):
        build(locate(project, [], tmp_path), tmp_path / "a.index", scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "a.index").exists()
