"""The index of qemu-kvm 0.12.4 that ships: held against the recordings, and asked what the course asks.

Expected answers are facts of the recordings' README (who opens what through what) and of the sources.
"""

import json
import subprocess
import sys

import pytest

from graphs import recordings
from graphs.errors import GraphsError
from graphs.index import check, explain, symbolic, tiers, whole
from graphs.index.query import SHIPPED, Index


@pytest.fixture(scope="module")
def index():
    with Index.open() as opened:
        yield opened


def names(index, edges, end):
    return {str(index.by_number(getattr(edge, end))) for edge in edges}


def test_it_is_small():
    assert SHIPPED.stat().st_size < 3_000_000


def test_every_recorded_pair_is_an_edge(index):
    result = check.check(index, ["all"])
    assert len(result.recordings) == len(recordings.names())
    assert len(result.pairs) > 2000
    assert len(result.missed) <= 0.005 * len(result.pairs), check.report(index, result)
    scores = [check._scores(site) for site in result.sites]
    recall, precision, _ = (sum(column) / len(scores) for column in zip(*scores, strict=True))
    assert recall >= 0.99
    assert precision >= 0.60


def test_helpers_and_handlers_have_edges_of_their_own(index):
    handler = index.callers(index.function("host_alarm_handler"))
    assert "signal" in {edge.kind for edge in handler}
    helper = index.callers(index.function("helper_inb"))
    assert ("tcg", "cpu_x86_exec") in {(e.kind, index.by_number(e.caller).name) for e in helper}


def test_qcow_open_is_reached_only_through_the_driver(index):
    edges = index.callers(index.function("block/qcow.c:qcow_open"))
    assert names(index, edges, "caller") == {"block.c:bdrv_open2"}
    assert {edge.kind for edge in edges} == {"field"}
    step = index.evidence(edges[0])[0]
    assert (step.source, step.target, step.kind) == ("qcow_open", "BlockDriver.bdrv_open", "initialiser")
    assert step.place.startswith("block/qcow.c:")


def test_a_constructor_registers_the_driver(index):
    init = index.function("do_qemu_init_bdrv_qcow_init")
    assert (init.file, init.macro) == ("block/qcow.c", "block_init")
    assert {edge.kind for edge in index.callers(init)} == {"constructor"}
    edge = index.between(index.function("module_call_init"), index.function("bdrv_qcow_init"))[0]
    chain = [step.target for step in index.evidence(edge)]
    assert chain == ["parameter fn of register_module_init", "ModuleEntry.init"]
    assert "block/qcow.c" in "\n".join(explain.chain(index, edge, explain.Sources(None)))


def test_drivers_are_the_implementers_of_the_struct(index):
    struct = symbolic.structs(index, "BlockDriver")[0]
    probe = next(field for field in struct.fields if field.name == "bdrv_probe")
    assert {s.value for s in symbolic.stores(index, probe.symbol)} >= {
        "qcow_probe",
        "vmdk_probe",
        "vdi_probe",
    }
    assert len(symbolic.stores(index, probe.symbol)) == 10


def test_hda_only_adds_a_drive(index):
    (row,) = symbolic.rows(index, "hda")
    ((_, constant),) = row.items
    (case,) = symbolic.cases(index, constant)
    assert str(case.function) == "vl.c:main"
    called = {index.by_number(edge.callee).name for edge in symbolic.calls_between(index, case)}
    assert called == {"drive_add"}


def test_an_option_is_drawn(tmp_path):
    from studykvm.commands.lookup import option

    assert option(["-hda", "--depth", "2", "-o", str(tmp_path / "hda.json")]) == 0
    drawn = json.loads((tmp_path / "hda.json").read_text())
    assert {node["name"] for node in drawn["nodes"]} == {
        "main",
        "drive_add",
        "qemu_opts_parse",
        "qemu_opt_set",
    }
    assert option(["commit", "-o", str(tmp_path / "commit.json")]) == 0
    names = {node["name"] for node in json.loads((tmp_path / "commit.json").read_text())["nodes"]}
    assert {"img_commit", "do_commit", "bdrv_commit"} <= names and "main" not in names


def test_path_from_main(index):
    way = index.path_between(index.function("vl.c:main"), index.function("block/qcow.c:qcow_open"))
    assert [f.name for f in way][-3:] == ["drive_init", "bdrv_open2", "qcow_open"]
    several = list(index.all_paths(index.function("vl.c:main"), index.function("bdrv_open2"), 5))
    assert len(several) == 5
    assert [len(one) for one in several] == sorted(len(one) for one in several)
    assert len({tuple(f.id for f in one) for one in several}) == 5


def test_a_way_names_the_calls_that_lead_on(capsys):
    from studykvm.cli import main

    # vl.c calls qemu_opts_foreach in several places, with drive_init_func in one: line 6001.
    assert main(["path", "vl.c:main", "block/qcow.c:qcow_open"]) == 0
    assert "qemu_opts_foreach  by name, vl.c:6001\n" in capsys.readouterr().out
    assert main(["why", "vl.c:main", "device_init_func"]) == 0
    assert "main calls qemu_opts_foreach: by name, vl.c:6096\n" in capsys.readouterr().out


def test_names(index):
    with pytest.raises(GraphsError, match=r"(?s)2 functions are called qcow_open.*block/qcow2\.c:qcow_open"):
        index.function("qcow_open")
    assert index.function("qcow2.c:qcow_open").file == "block/qcow2.c"
    with pytest.raises(GraphsError, match="did you mean bdrv_open2"):
        index.function("bdrv_opne2")
    with pytest.raises(GraphsError, match=r"no symbol 'bdrv_frist'.*bdrv_first"):
        symbolic.symbols(index, "bdrv_frist")
    with pytest.raises(GraphsError, match=r"no struct 'BlockDrive'.*BlockDriver"):
        symbolic.structs(index, "BlockDrive")
    with pytest.raises(GraphsError, match="there are system, img, io, nbd"):
        Index.open(program="user")


def test_programs_keep_their_twins_apart():
    with Index.open(program="img") as img, Index.open(program="system") as system:
        assert img.function("qemu_bh_new").file == "qemu-tool.c"
        assert system.function("qemu_bh_new").file == "async.c"
        assert img.function("main").file == "qemu-img.c"


def test_tiers_are_nested(index):
    tiering = tiers.Tiering(index)
    sizes = [0, 0, 0]
    for site, _caller, kind, _where in index.call_sites():
        found = tiering.of(site)
        assert found.flow <= found.field <= found.signature
        assert kind == "field" or found.field == found.signature
        named = dict(tiering.beyond(site))
        assert {n for n, tier in named.items() if tier == "field"} == found.field - found.flow
        assert set(named) == found.signature - found.flow
        for n, tier in enumerate((found.signature, found.field, found.flow)):
            sizes[n] += len(tier)
    assert sizes[0] > sizes[1] > sizes[2]


def test_cross_references(index):
    (symbol,) = symbolic.symbols(index, "bdrv_first")
    found = symbolic.references(index, symbol)
    assert [r.file for r in found if r.use == "definition"] == ["block.c"]
    assert {r.function for r in found} >= {"bdrv_find", "bdrv_iterate", "bdrv_flush_all"}
    (field,) = symbolic.symbols(index, "BlockDriverState.backing_hd")
    assert "bdrv_open2" in {r.function for r in symbolic.references(index, field) if r.use == "write"}


def test_whole_graph(index):
    groups = whole.cycles(index)
    circle = {f.name for group in groups if len(group) > 1 for f in group}
    assert {"tb_reset_jump_recursive", "bdrv_flush"} <= circle
    dead = {str(f) for f in whole.dead(index)}
    assert "block.c:bdrv_open2" not in dead
    ran = {
        pair
        for name in ("d01_boot_tcg_qcow", "b02_io_qcow_on_raw")
        for pair in recordings.load(name).calls.functions()
    }
    assert not {f"{file}:{name}" for file, name in ran} & dead


def test_edges_table_shows_every_tier(capsys):
    from studykvm.commands.overview import edges

    tables = {}
    for tier in ("flow", "field", "signature"):
        edges(["--tier", tier])
        head, *rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        assert head == ["caller_file", "caller", "callee_file", "callee", "kind", "tier", "site"]
        tables[tier] = {tuple(row) for row in rows}
    assert tables["flow"] < tables["field"] < tables["signature"]
    assert {row[5] for row in tables["signature"]} == {"direct", "flow", "field", "signature"}
    # raw_open fits bdrv_open2's call through bdrv_open by its type; it is put into that very field.
    call = ("block.c", "bdrv_open2", "block/raw-posix.c", "raw_open", "field", "flow")
    assert call in {row[:6] for row in tables["flow"]}
    # Functions of the same shape are there too, that nobody puts into the field.
    other = {row[3] for row in tables["signature"] if row[:2] == call[:2] and row[5] == "signature"}
    assert other and "raw_open" not in other


def test_diff_with_itself_is_empty(index):
    found = whole.diff(index, index)
    assert found.kept == len(index.all_functions)
    assert not (
        found.gone or found.new or found.moved or found.renamed or found.calls_gone or found.calls_new
    )


def test_networkx():
    pytest.importorskip("networkx", reason="needs networkx: pip install networkx")
    from graphs.index.api import open_index

    graph = open_index(program="img")
    assert graph.nodes["block/qcow.c:qcow_open"]["name"] == "qcow_open"
    data = next(iter(graph.get_edge_data("block.c:bdrv_open2", "block/qcow.c:qcow_open").values()))
    assert data["kind"] == "field"
    assert data["evidence"].startswith("through BlockDriver.bdrv_open")
    near = graph.near("bdrv_create", 1)
    assert "block/qcow.c:qcow_create" in near
    shown = near._repr_mimebundle_()
    assert shown["image/svg+xml"].lstrip().startswith("<") and shown["text/plain"] == str(near)
    assert "through a pointer" in shown["image/svg+xml"]
    assert graph._repr_mimebundle_() == {"text/plain": str(graph)}


@pytest.mark.parametrize(
    "command, words",
    [
        ("ask.callers", ["bdrv_open2"]),
        ("ask.path", ["vl.c:main", "block/qcow.c:qcow_open"]),
        ("lookup.struct", ["BlockDriver"]),
        ("overview.cycles", []),
    ],
)
def test_commands_load_nothing_heavy(command, words):
    module, function = command.split(".")
    script = (
        f"import sys; from studykvm.commands import {module} as m; m.{function}(sys.argv[1:]); "
        "print('loaded', *{'clang', 'networkx', 'pygraphviz', 'unicorn'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    assert done.stdout
    assert done.stderr.split() == ["loaded"]


def test_drawings(index, tmp_path):
    import json
    import xml.etree.ElementTree as ElementTree

    from graphs.index import export

    drawn = export.picture(index, index.function("bdrv_create"), 2)
    drawn.limit = 40
    assert len(drawn.boxes) > 10 and len(drawn.arrows) > 10
    for kind in ("svg", "dot", "graphml", "json", "mmd"):
        path = tmp_path / f"out.{kind}"
        drawn.save(path)
        if kind in ("svg", "graphml"):
            ElementTree.parse(path)
    nodes = {node["id"] for node in json.loads((tmp_path / "out.json").read_text())["nodes"]}
    assert "block/qcow.c:qcow_create" in nodes
    assert "bdrv_create" in (tmp_path / "out.mmd").read_text()
    with pytest.raises(GraphsError, match="cannot draw a gif"):
        drawn.save(tmp_path / "out.gif")


@pytest.mark.parametrize(
    "argv",
    [
        ["path", "vl.c:main", "bdrv_open", "--all", "--limit", "-1"],
        ["graph", "bdrv_open", "--depth", "-1"],
        ["option", "hda", "--depth", "0"],
        ["compare", "a.trace", "--limit", "-4"],
        ["compare", "a.trace", "--boxes", "1e3"],
        ["structures", "a.trace", "--frames", "d", "--most", "0"],
        ["structures", "a.trace", "--frames", "d", "--boxes", "x"],
        ["index", ".", "--jobs", "-2"],
    ],
    ids=["path", "graph", "option", "limit", "boxes", "most", "structures", "jobs"],
)
def test_counts_begin_with_one(argv, capsys):
    from studykvm.cli import main

    assert main(argv) == 2
    assert "is no number from 1 on" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["structures", "a.trace", "--step", "-1", "-o", "a.svg"],
        ["draw", "a.trace", "--thread", "-1", "-o", "a.svg"],
        ["trace", "show", "a.trace", "--thread", "x"],
    ],
    ids=["structures", "draw", "trace"],
)
def test_numbers_begin_with_zero(argv, capsys):
    from studykvm.cli import main

    assert main(argv) == 2
    assert "is no number from 0 on" in capsys.readouterr().err
