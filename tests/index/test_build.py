"""Making and renewing an index: the same from scratch, in steps, in processes; nothing lost on failure."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile

import pytest

pytest.importorskip("clang", reason="needs libclang: pip install libclang")

from graphs.errors import GraphsError
from graphs.index import store, whole
from graphs.index.build import build
from graphs.index.locate import locate, narrowed
from graphs.index.query import Index

HEADER = """
struct driver { const char *name; int (*open)(int); };
void add(struct driver *);
static inline int twice(int x) { return 2 * x; }
enum mode { READ, WRITE };
"""
FIRST = """
#include "driver.h"
static int raw_open(int flags) { return twice(flags); }
static struct driver raw = { "raw", raw_open };
static void __attribute__((constructor)) init(void) { add(&raw); }
"""
SECOND = """
#include "driver.h"
static struct driver *all[8];
static int count;
void add(struct driver *d) { all[count++] = d; }
int main(void)
{
    switch (count) {
    case READ:
        return 1;
    }
    return all[0]->open(READ);
}
"""


@pytest.fixture
def project(tmp_path):
    """Two files and a header, in a folder with a space and a quote in its name."""
    tree = tmp_path / "it's a tree"
    tree.mkdir()
    (tree / "driver.h").write_text(HEADER)
    (tree / "first.c").write_text(FIRST)
    (tree / "second file.c").write_text(SECOND)
    return tree


def index(tree, output, **options):
    source = locate([str(path) for path in sorted(tree.glob("*.c"))], [], tree)
    return build(source, output, **options)


def content(path):
    """Everything but the bookkeeping of re-indexing."""
    with sqlite3.connect(path) as db:
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        return {
            name: sorted(map(repr, db.execute(f"SELECT * FROM {name}")))
            for name in names
            if name not in ("digests", "meta")
        }


def calls(path):
    with Index.open(path) as opened:
        f = opened.all_functions
        return {
            (f[e.caller].name if e.caller is not None else None, f[e.callee].name, e.kind)
            for e in opened.edges()
        }


def test_small_project(project, tmp_path):
    report = index(project, tmp_path / "a.index")
    assert (report.files, report.read, report.functions, report.failed) == (2, 2, 5, {})
    assert calls(tmp_path / "a.index") == {
        (None, "init", "constructor"),
        ("init", "add", "direct"),
        ("raw_open", "twice", "direct"),
        ("main", "raw_open", "field"),
    }


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("first.c", "return twice(flags)", "return flags"),
        ("first.c", "static int raw_open", "static int more(void) { return 0; }\nstatic int raw_open"),
        ("second file.c", "return 1;", "return twice(1);"),
        ("driver.h", "return 2 * x;", "return x + x + twice(0);"),
        ("driver.h", "enum mode {", "struct extra { void (*f)(void); };\nenum mode {"),
    ],
)
def test_renewed_is_as_from_scratch(project, tmp_path, file, old, new):
    index(project, tmp_path / "a.index")
    path = project / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    report = index(project, tmp_path / "a.index")
    assert report.read == (2 if file == "driver.h" else 1)
    index(project, tmp_path / "b.index")
    assert content(tmp_path / "a.index") == content(tmp_path / "b.index")


def test_types_without_a_name_are_placed_in_the_tree(project, tmp_path):
    with (project / "driver.h").open("a") as header:
        header.write("struct pair { struct { int a; } inner; };\n")
    index(project, tmp_path / "a.index")
    found = content(tmp_path / "a.index")
    assert any("'struct (unnamed struct at driver.h:6:15)'" in row for row in found["fields"])
    assert not any(str(project) in row for table in found.values() for row in table)


def test_nothing_changed_reads_nothing(project, tmp_path):
    index(project, tmp_path / "a.index")
    before = content(tmp_path / "a.index")
    assert index(project, tmp_path / "a.index").read == 0
    assert content(tmp_path / "a.index") == before


def test_a_file_gone_leaves_nothing_behind(project, tmp_path):
    index(project, tmp_path / "a.index")
    (project / "first.c").unlink()
    index(project, tmp_path / "a.index")
    assert calls(tmp_path / "a.index") == set()


def test_two_processes_make_the_same(project, tmp_path):
    for number in range(8):
        (project / f"more{number}.c").write_text(
            f'#include "driver.h"\nint more{number}(void) {{ return twice(1); }}\n'
        )
    index(project, tmp_path / "a.index")
    index(project, tmp_path / "b.index", jobs=2)
    assert content(tmp_path / "a.index") == content(tmp_path / "b.index")


def test_interruption_leaves_the_old_index(project, tmp_path):
    output = tmp_path / "a.index"
    index(project, output)
    before = output.read_bytes()
    (project / "first.c").write_text(FIRST + "\nint later(void) { return 0; }\n")

    def stop(_done, _total, _path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index(project, output, progress=stop)
    assert output.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.index"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_leaves_the_old_index(project, tmp_path, jobs):
    output = tmp_path / "a.index"
    index(project, output)
    before = output.read_bytes()
    for path in project.glob("*.c"):
        path.write_text(path.read_text() + "\nint later(void);\n")

    def press(_done, _total, _path):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        index(project, output, progress=press, jobs=jobs)
    assert output.read_bytes() == before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_index_replaces_files_only(project, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(GraphsError, match="that is no file"):
        index(project, tmp_path / "folder")


def test_a_file_that_does_not_parse_is_named_and_kept(project, tmp_path):
    (project / "first.c").write_text(FIRST + "\nint broken(void) { return twice(1) + nonsense; }\nint } (\n")
    report = index(project, tmp_path / "a.index")
    assert list(report.failed) == ["first.c"]
    assert "nonsense" in report.failed["first.c"][0]
    assert ("main", "raw_open", "field") in calls(tmp_path / "a.index")
    with sqlite3.connect(tmp_path / "a.index") as db:
        assert "nonsense" in db.execute("SELECT errors FROM files WHERE path='first.c'").fetchone()[0]


def test_tree_is_not_written_to(project, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in [project, *project.rglob("*")]}
    index(project, tmp_path / "a.index")
    assert {path: path.stat().st_mtime_ns for path in [project, *project.rglob("*")]} == before


def test_compile_commands(project, tmp_path):
    (project / "inc").mkdir()
    (project / "driver.h").rename(project / "inc" / "driver.h")
    entries = [
        {"directory": str(project), "file": name, "arguments": ["cc", "-Iinc", "-c", name]}
        for name in ("first.c", "second file.c")
    ]
    (project / "compile_commands.json").write_text(json.dumps(entries))
    report = build(locate([str(project)], None, tmp_path), tmp_path / "a.index")
    assert (report.functions, report.failed) == (5, {})


def test_only_some_files(project, tmp_path):
    (project / "sub").mkdir()
    (project / "sub" / "third.c").write_text('#include "driver.h"\nint third(void) { return twice(3); }\n')
    source = locate([str(path) for path in sorted(project.rglob("*.c"))], [], project)
    assert set(narrowed(source, ["sub"]).files) == {"sub/third.c"}
    assert set(narrowed(source, ["sub/", "first*"]).files) == {"sub/third.c", "first.c"}
    assert set(narrowed(source, ["*.c"]).files) == set(source.files)
    with pytest.raises(GraphsError, match=r"matches 'nosuch'; its folders are sub"):
        narrowed(source, ["sub", "nosuch"])
    build(narrowed(source, ["sub"]), tmp_path / "a.index")
    # Widened, the file that was read before is not read again.
    assert build(source, tmp_path / "a.index").read == 2


OLD = """
int check(void) { return 1; }
int report(int x) { return x; }
int image_open2(int x) { return check() + report(x); }
int lone(void) { return 0; }
int main(void) { return image_open2(1) + report(2); }
"""


def test_diff_tells_likely_renames(tmp_path):
    new = OLD.replace("image_open2", "image_open_common").replace("int lone", "int other_matter")
    opened = []
    for folder, text in (("old", OLD), ("new", new)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "image.c").write_text(text)
        index(tmp_path / folder, tmp_path / f"{folder}.index")
        opened.append(Index.open(tmp_path / f"{folder}.index"))
    found = whole.diff(*opened)
    assert [(a.name, b.name) for a, b, _ in found.renamed] == [("image_open2", "image_open_common")]
    assert (found.kept, [f.name for f in found.gone], [f.name for f in found.new]) == (
        3,
        ["lone"],
        ["other_matter"],
    )
    for one in opened:
        one.close()


def test_tarball(project, tmp_path):
    (project / "compile_commands.json").write_text("[]")
    archive = tmp_path / "project.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(project, "project-1.0")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(GraphsError, match="names no C file"):
        locate([str(archive)], None, scratch)
    assert (scratch / "project-1.0" / "first.c").read_text() == FIRST


@pytest.mark.parametrize("filters", [True, False])
def test_a_tarball_cannot_write_outside(tmp_path, monkeypatch, filters):
    if not filters:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    archive = tmp_path / "bad.tar"
    (tmp_path / "x.c").write_text("int x;")
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "x.c", "project/x.c")
        tar.add(tmp_path / "x.c", "../escaped.c")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(GraphsError):
        locate([str(archive)], None, scratch)
    assert not (tmp_path / "escaped.c").exists()


def test_bad_sources(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "readme").write_text("no source")
    (tmp_path / "broken.tar.gz").write_bytes(b"\x1f\x8b no archive")
    for name, message in (
        ("nowhere", "no source at"),
        ("empty", "is empty"),
        ("plain", "no QEMU tree"),
        ("broken.tar.gz", "neither a tree nor a tarball"),
    ):
        with pytest.raises(GraphsError, match=message):
            locate([str(tmp_path / name)], None, tmp_path)
    with pytest.raises(GraphsError, match="no C file"):
        locate([str(tmp_path / "none.c")], [], tmp_path)


def test_bad_index_files(project, tmp_path):
    good = tmp_path / "a.index"
    index(project, good)
    (tmp_path / "text").write_text("hello, this is no database at all" * 100)
    (tmp_path / "cut").write_bytes(good.read_bytes()[:5000])
    (tmp_path / "none").write_bytes(b"")
    store.compress(good, tmp_path / "small")
    (tmp_path / "small-cut").write_bytes((tmp_path / "small").read_bytes()[:-300])
    with sqlite3.connect(tmp_path / "foreign") as db:
        db.execute("CREATE TABLE t (x)")
    shutil.copy(good, tmp_path / "future")
    with sqlite3.connect(tmp_path / "future") as db:
        db.execute("UPDATE meta SET value='99' WHERE name='format'")
    for name in ("absent", "text", "cut", "none", "small-cut", "foreign"):
        with pytest.raises(GraphsError, match="studykvm index"):
            Index.open(tmp_path / name).function("main")
    with pytest.raises(GraphsError, match="format 99"):
        Index.open(tmp_path / "future")
    # Making an index where something else stands replaces it.
    index(project, tmp_path / "text")
    assert calls(tmp_path / "text") == calls(good)


def test_small_form_answers_the_same(project, tmp_path):
    index(project, tmp_path / "a.index")
    store.compress(tmp_path / "a.index", tmp_path / "small")
    assert calls(tmp_path / "small") == calls(tmp_path / "a.index")
    with Index.open(tmp_path / "small") as opened:
        assert str(project) not in "".join(opened.meta.values())


def test_full_disk_keeps_the_old_index(project, tmp_path):
    output = tmp_path / "a.index"
    index(project, output)
    before = output.read_bytes()
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from graphs.errors import GraphsError\n"
        "from graphs.index.build import build\n"
        "from graphs.index.locate import locate\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "try:\n"
        "    build(locate([sys.argv[1]], [], Path('.')), Path(sys.argv[2]))\n"
        "except GraphsError as error:\n"
        "    print(error)\n"
    )
    words = [sys.executable, "-c", script, str(project / "first.c"), str(output)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "could not be written" in done.stdout
    assert output.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.index"]


def test_macros_are_found_in_the_text(project, tmp_path, capsys):
    from studykvm.commands.lookup import xref

    (project / "driver.h").write_text(HEADER + "#define LIMIT 8 /* LIMIT */\n")
    (project / "first.c").write_text(
        FIRST + '\nint limit(void) { return LIMIT; } // LIMIT\nchar t[] = "LIMIT";\n'
    )
    index(project, tmp_path / "a.index")
    assert xref(["LIMIT", "--index", str(tmp_path / "a.index")]) == 0
    line = FIRST.count("\n") + 2
    assert capsys.readouterr().out.splitlines() == [
        "macro LIMIT: 2 places",
        "  definition  driver.h:6:9    #define LIMIT 8 /* LIMIT */",
        f"  read        first.c:{line}:26  in limit    int limit(void) {{ return LIMIT; }} // LIMIT",
    ]
    with pytest.raises(GraphsError, match=r"no symbol 'LIMIT'.*--tree DIR"):
        xref(["LIMIT"])
