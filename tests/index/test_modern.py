"""QEMU 7.2's block layer, indexed for real from its sources (STUDYKVM_QEMU_72: the tree or Debian's tarball).

Expected answers are what 7.2's sources say, read by hand.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graphs.index import symbolic, whole
from graphs.index.query import Index

SOURCE = Path(os.environ.get("STUDYKVM_QEMU_72") or "nowhere")
GLIB = shutil.which("pkg-config") and not subprocess.run(["pkg-config", "--exists", "glib-2.0"]).returncode

pytest.importorskip("clang", reason="needs libclang: pip install libclang")
pytestmark = [
    pytest.mark.skipif(
        not SOURCE.exists(),
        reason="set STUDYKVM_QEMU_72 to QEMU 7.2's tree or tarball; "
        "on Debian 12: apt-get source --download-only qemu",
    ),
    pytest.mark.skipif(not GLIB, reason="needs glib's headers; on Debian: apt-get install libglib2.0-dev"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The index as a user makes it, and what the command said."""
    output = tmp_path_factory.mktemp("modern") / "block.index"
    words = [str(SOURCE), "-o", str(output), "--jobs", "2"]
    for part in ("block", "block.c", "util/module.c", "qemu-img.c"):
        words += ["--only", part]
    script = "import sys; from studykvm.cli import main; sys.exit(main(['index', *sys.argv[1:]]))"
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return output, done.stdout


@pytest.fixture(scope="module")
def index(made):
    with Index.open(made[0]) as opened:
        yield opened


def callers(index, name):
    edges = index.callers(index.function(name))
    return {(index.by_number(e.caller).name if e.caller is not None else None, e.kind) for e in edges}


def test_every_file_is_read_without_error(made, index):
    assert "with errors" not in made[1]
    files = {path for path, unit in index.db.execute("SELECT path, unit FROM files") if unit}
    assert {"block/qcow.c", "block/qcow2-cluster.c", "block/export/export.c", "block.c"} <= files
    assert len([path for path in files if path.startswith("block/")]) >= 65


def test_drivers_open(index):
    assert callers(index, "block/qcow.c:qcow_open") == {
        ("bdrv_open_driver", "field"),
        ("bdrv_snapshot_goto", "field"),
    }
    assert callers(index, "bdrv_open_common") == {("bdrv_open_inherit", "direct")}
    assert callers(index, "bdrv_open_driver") >= {("bdrv_open_common", "direct")}


def test_drivers_register_before_main(index):
    init = index.function("block/qcow.c:do_qemu_init_bdrv_qcow_init")
    assert (init.macro, callers(index, str(init))) == ("block_init", {(None, "constructor")})
    assert ("module_call_init", "field") in callers(index, "block/qcow.c:bdrv_qcow_init")


def test_who_implements_a_driver_s_functions(index):
    (driver,) = symbolic.structs(index, "BlockDriver")
    number = next(field.symbol for field in driver.fields if field.name == "bdrv_file_open")
    named = {store.value for store in symbolic.stores(index, number)}
    assert {"hdev_open", "raw_open", "nbd_open", "vvfat_open"} <= named
    assert "qcow_open" not in named


def test_against_0_12_4(index):
    with Index.open() as old:
        found = whole.diff(old, index)
    likely = {(one.name, other.name) for one, other, _ in found.renamed}
    assert ("bdrv_open2", "bdrv_open_common") in likely
    moved = {(one.name, one.file, other.file) for one, other in found.moved}
    assert ("laio_init", "linux-aio.c", "block/linux-aio.c") in moved
