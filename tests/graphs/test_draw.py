"""Drawings: right content, every format, readable without `dot` and without any font of the system."""

import itertools
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import networkx
import pytest

from graphs.calls import CallTable
from graphs.draw import callgraph, condense, engine, structures
from graphs.draw import page as pages
from graphs.draw.dot import Dot, Markup
from graphs.draw.links import Links
from graphs.draw.picture import Arrow, Box, Picture
from graphs.errors import GraphsError
from tracer import Struct, record, symbol, traced

C_FILE = "block.c"
SVG = "{http://www.w3.org/2000/svg}"


def texts(dot: str) -> list[str]:
    root = ElementTree.fromstring(engine.render(dot, "svg"))
    return [element.text for element in root.iter(f"{SVG}text")]


def table(*rows: tuple[int, str]) -> CallTable:
    calls = CallTable()
    for depth, function in rows:
        calls.append(depth, ("block.c", function), 0)
    return calls


def test_counts_are_those_of_the_calls():
    graph = callgraph.of_calls(table((0, "f"), (1, "g"), (1, "g"), (0, "g"), (0, "f"), (1, "g")), "t")
    assert {box.name: box.weight for box in graph.boxes.values()} == {"f": 2, "g": 4}
    assert {ends: arrow.weight for ends, arrow in graph.arrows.items()} == {("block.c:f", "block.c:g"): 3}


def test_a_small_graph_is_drawn_whole_with_frames_and_a_legend():
    dot = pages.to_dot(callgraph.of_calls(table((0, "bdrv_open2"), (1, "raw_open")), "my title"))
    shown = " ".join(texts(dot))
    for word in ("bdrv_open2", "raw_open", "block.c", "my title", "2 functions"):
        assert word in shown


def test_twins_become_one_box_and_helpers_small_print():
    boxes = {name: Box(name, "a.c", 1) for name in ("top", "one", "two", "three", "help")}
    arrows = {("top", name): Arrow() for name in ("one", "two", "three")}
    arrows |= {(name, "help"): Arrow() for name in ("one", "two", "top")}
    small = condense.condense(Picture("", boxes, arrows), 4)
    assert {box.title: box.also for box in small.boxes.values()} == {
        "top": ("help",),
        "one": ("help",),
        "two": ("help",),
        "three": (),
    }
    probes = {name: Box(name, "a.c", 2) for name in ("find", "cow", "qcow", "vmdk", "raw")}
    joined = condense.condense(
        Picture("", probes, {("find", name): Arrow(2) for name in list(probes)[1:]}), 99
    )
    assert {box.title: box.weight for box in joined.boxes.values()} == {"find": 2, "cow and 3 more": 8}
    assert joined.arrows == {("find", "cow"): Arrow(8)}


def test_arrows_of_different_kinds_make_no_twins():
    boxes = {name: Box(name, "a.c") for name in ("top", "one", "two", "three", "four")}
    arrows = {("top", name): Arrow(kind="seen" if name != "four" else "") for name in list(boxes)[1:]}
    small = condense.condense(Picture("", boxes, arrows, {"seen": ("solid", "#15803d")}), 9)
    assert sorted(box.title for box in small.boxes.values()) == ["four", "one and 2 more", "top"]


def test_condensing_leaves_kept_arrows_alone_and_makes_no_way_of_loose_ones():
    names = ["main", *(f"f{n}" for n in range(20)), "odd"]
    boxes = {name: Box(name, "a.c") for name in names}
    arrows = {(one, other): Arrow() for one, other in itertools.pairwise(names[:-1])}
    arrows["f7", "odd"] = Arrow(kind="fault")
    arrows["f3", "f12"] = Arrow(kind="maybe")
    kinds = {"fault": ("bold", "#dc2626"), "maybe": ("dotted", "#64748b")}
    page = Picture("", boxes, arrows, kinds, kept=frozenset({"fault"}), loose=frozenset({"maybe"}))
    small = condense.condense(page, 4)
    assert len(small.boxes) <= 4
    assert small.arrows["f7", "odd"].kind == "fault"
    # What came only by a loose arrow is told as such, and never as called.
    told = {label for box in small.boxes.values() for label, _ in box.notes}
    assert told <= {"maybe"}
    assert "odd" not in {name for box in small.boxes.values() for name in box.also}


def test_a_goal_stays_and_takes_up_its_callers():
    boxes = {name: Box(name, "a.c") for name in ("goal", *(f"f{n}" for n in range(30)))}
    arrows = {(f"f{n}", f"f{n // 2}" if n > 3 else "goal"): Arrow() for n in range(30)}
    small = condense.condense(Picture("", boxes, arrows, goal="goal"), 5)
    assert "goal" in small.boxes and len(small.boxes) <= 5
    assert {head for _, head in small.arrows} >= {"goal"}
    assert "who else calls it" in pages.to_dot(Picture("", boxes, arrows, goal="goal"), 5)


def test_where_arrows_would_cover_the_page_there_are_fewer():
    boxes = {f"f{n}": Box(f"f{n}", "a.c") for n in range(60)}
    arrows = {(f"f{n}", f"f{(n * m + 1) % 60}"): Arrow() for n in range(60) for m in range(1, 6)}
    dot = pages.to_dot(Picture("t", boxes, arrows), 60)
    assert "60 functions in " in dot and dot.count(" -> ") < len(arrows) / 2


def test_small_print_tells_functions_of_one_name_apart():
    boxes = {
        f"{file}:{name}": Box(name, file) for file, name in [("a.c", "top"), ("q.c", "open"), ("r.c", "open")]
    }
    arrows = {("a.c:top", "q.c:open"): Arrow(), ("a.c:top", "r.c:open"): Arrow()}
    (box,) = condense.condense(Picture("", boxes, arrows), 1).boxes.values()
    assert set(box.also) == {"open (q.c)", "open (r.c)"}


def test_boxes_and_arrows_link_to_the_source():
    links = Links("https://example.org/{file}#n{line}")
    boxes = {"f": Box("f", "a b.c", url=links.url("a b.c", 3)), "g": Box("g", "a.c")}
    page = Picture("t", boxes, {("f", "g"): Arrow(1, "by name", url=links.url("a.c", 9))})
    root = ElementTree.fromstring(page.rendered("svg"))
    hrefs = {a.get("{http://www.w3.org/1999/xlink}href") for a in root.iter(f"{SVG}a")}
    assert {"https://example.org/a%20b.c#n3", "https://example.org/a.c#n9"} <= hrefs


def test_links_that_lead_nowhere_are_explained(tmp_path):
    with pytest.raises(GraphsError, match=r"wants \{file\}"):
        Links.of(None, "https://example.org/")
    with pytest.raises(GraphsError, match="no such folder"):
        Links.of(str(tmp_path / "gone"))
    (tmp_path / "with space").mkdir()
    url = Links.of(str(tmp_path / "with space")).url("hw/pc.c", 4)
    assert url == (tmp_path / "with space").as_uri() + "/hw/pc.c#L4"


def test_a_legend_speaks_of_counts_only_where_there_are_any():
    source = Picture("t", {"f": Box("f", "a.c"), "g": Box("g", "a.c")}, {("f", "g"): Arrow(3)})
    assert "times" not in pages.to_dot(source) and "×3" not in pages.to_dot(source)
    assert "×3 " not in pages.to_dot(source)
    counted = callgraph.of_calls(table((0, "f"), (1, "g"), (1, "g")), "t")
    assert "×n the times it was called" in pages.to_dot(counted)


def test_graphs_as_text_hold_every_name_quoted(tmp_path):
    odd = 'a"b<c>&\x01#'
    page = Picture("t", {"x": Box(odd, odd), "y": Box("y", "")}, {("x", "y"): Arrow(2, odd, "odd <kind>")})
    data = json.loads(page.rendered("json"))
    assert data["nodes"][0]["name"] == odd
    assert data["links"] == [
        {"source": "x", "target": "y", "kind": "odd <kind>", "times": 2, "evidence": odd}
    ]
    assert networkx.node_link_graph(data, edges="links").has_edge("x", "y")
    (tmp_path / "g.graphml").write_bytes(page.rendered("graphml"))
    read = networkx.read_graphml(tmp_path / "g.graphml")
    assert set(read.edges) == {("x", "y")} and read.nodes["x"]["name"] == odd.replace("\x01", "·")
    mermaid = page.rendered("mmd").decode()
    assert "-->|" in mermaid and '"b' not in mermaid and "<c>" not in mermaid


def test_drawings_display_themselves():
    page = callgraph.of_calls(table((0, "f"), (1, "g")), "calls of t")
    bundle = page._repr_mimebundle_()
    assert bundle["text/plain"] == "calls of t: 2 functions, 1 different calls"
    assert ElementTree.fromstring(bundle["image/svg+xml"]).tag == f"{SVG}svg"


def test_without_graphviz_the_text_remains(monkeypatch):
    monkeypatch.setattr(engine, "render", lambda *_: (_ for _ in ()).throw(ImportError("no pygraphviz")))
    bundle = callgraph.of_calls(table((0, "f")), "t")._repr_mimebundle_()
    assert bundle == {"text/plain": "t: 1 functions, 0 different calls"}


@pytest.mark.parametrize("limit", [5, 20, 60])
def test_condensing_keeps_every_name(limit):
    boxes = {f"f{n}": Box(f"f{n}", f"{n % 5}.c", n) for n in range(200)}
    arrows = {
        (f"f{n}", f"f{m}"): Arrow() for n in range(200) for m in (2 * n + 1, 2 * n + 2, 3 * n + 1) if m < 200
    }
    small = condense.condense(Picture("", boxes, arrows), limit)
    assert len(small.boxes) <= limit
    assert {
        name for box in small.boxes.values() for name in (box.name, *box.twins, *box.also)
    } == boxes.keys()


def test_a_big_graph_has_about_the_shape_of_a_page():
    boxes = {f"f{n}": Box(f"function_{n}", f"{n % 4}.c", n) for n in range(300)}
    arrows = {(f"f{n}", f"f{m}"): Arrow() for n in range(300) for m in (2 * n + 1, 2 * n + 2) if m < 300}
    width, height = engine.size(pages.to_dot(Picture("big", boxes, arrows)))
    assert 0.5 < width / height < 3


def test_an_arrow_turned_round_still_says_where_it_leads():
    dot = Dot({"rankdir": "TB"})
    dot.edge("caller", "callee", {"tooltip": "caller calls callee"}, turned=True)
    svg = engine.render(dot.text(), "svg").decode()
    assert "<title>caller&#45;&gt;callee</title>" in svg
    placed = {part["name"]: part["pos"] for part in engine.layout(dot.text())["objects"]}
    height = {name: float(place.split(",")[1]) for name, place in placed.items()}
    assert height["callee"] > height["caller"]
    head = ElementTree.fromstring(svg).findall(".//{*}g[@class='edge turned']//{*}polygon")
    tip = [float(y) for point in head[0].get("points").split() for y in [point.split(",")[1]]]
    # SVG counts down from the top: the arrow's point touches the callee, which is above.
    assert len(head) == 1 and max(tip) < -height["callee"] + 40


def test_odd_names_are_quoted():
    odd = 'a"b\\n<c>&{d}|\x00\n'
    graph = Picture(
        odd, {odd: Box(odd, odd, 2, odd, (odd,), (odd,)), "x": Box("x", "")}, {(odd, "x"): Arrow(2, odd)}
    )
    assert any("<c>&{d}|" in text for text in texts(pages.to_dot(graph)))


@pytest.mark.parametrize(
    ("ending", "start"),
    [
        ("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("dot", b"digraph"), ("json", b"{"),
        ("mmd", b"flowchart LR\n"), ("graphml", b"<?xml"),
    ],
)  # fmt: skip
def test_every_format_is_written(tmp_path, ending, start):
    path = tmp_path / "new" / f"out.{ending}"
    callgraph.of_calls(table((0, "f")), "t").save(path)
    assert path.read_bytes().startswith(start)


def test_an_unknown_format_is_explained(tmp_path):
    with pytest.raises(GraphsError, match=r"cannot draw a jpeg; name it out\.svg"):
        callgraph.of_calls(table((0, "f")), "t").save(tmp_path / "out.jpeg")


def test_the_picture_is_the_same_without_dot_and_without_fonts(tmp_path):
    dot = Dot({"fontname": engine.FONT}, {"fontname": engine.FONT})
    dot.node("a", {"label": Markup("<b>bdrv_open2</b> ×3 → größe")})
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "fonts.conf").write_text("<fontconfig></fontconfig>")
    code = (
        "import sys; from graphs.draw import engine;"
        " open('out.png', 'wb').write(engine.render(sys.argv[1], 'png'))"
    )
    environment = {"PATH": str(bare), "HOME": str(bare), "FONTCONFIG_FILE": str(bare / "fonts.conf")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", code, dot.text()]
    result = subprocess.run(command, env=environment, cwd=bare, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert (bare / "out.png").read_bytes() == engine.render(dot.text(), "png")


def test_an_svg_says_how_wide_each_text_is_for_viewers_without_the_font():
    calls = table((0, "bdrv_open2"), (1, "raw_open"), (1, "raw_open"))
    graph = callgraph.of_calls(calls, 'a "title" & <more>')
    root = ElementTree.fromstring(engine.render(pages.to_dot(graph), "svg"))
    found = {element.text: element for element in root.iter(f"{SVG}text")}
    assert all(element.get("font-family").startswith("Roboto, Helvetica") for element in found.values())
    assert all(float(element.get("textLength")) > 0 for element in found.values())
    assert found["block.c"].get("font-weight") == "bold"
    # between a name and its count is a blank, which begins where the name ends
    name, blank = found["raw_open"], found[" "]
    assert float(name.get("x")) + float(name.get("textLength")) == pytest.approx(float(blank.get("x")))


class BlockDriver(Struct):
    format_name: str = ""


class BlockDriverState(Struct):
    device_name: str = ""
    drv: BlockDriver | None = None
    backing_hd: "BlockDriverState | None" = None
    total_sectors: int = 0
    read_only: int = 0


bdrv_raw = symbol(BlockDriver(format_name="raw"), "bdrv_raw")


@traced
def bdrv_open2(bs):
    bs.drv = bdrv_raw
    bs.backing_hd = BlockDriverState(device_name="base")
    bs.total_sectors = 1 << 40


@pytest.fixture
def trace():
    with record() as recording:
        top = BlockDriverState(device_name="hda")
        bdrv_open2(top)
        bdrv_open2(top.backing_hd)
    return recording.trace


def test_structures_show_fields_pointers_and_what_is_new(trace):
    dot = structures.at(trace, "bdrv_open2:exit").dot()
    shown = texts(dot)
    assert "BlockDriverState#1" in shown and "&bdrv_raw" in shown
    assert "0x10000000000" in shown
    assert '"BlockDriverState#1":"backing_hd":e -> "BlockDriverState#2"' in dot
    assert '"BlockDriverState#1":"drv":e -> "&bdrv_raw"' in dot
    assert "1 field is 0, NULL or empty" in " ".join(shown)
    at_entry = structures.at(trace, "bdrv_open2").dot()
    assert "backing_hd" not in at_entry


def test_places_name_the_kth_call(trace):
    first, second = trace.calls(function="bdrv_open2")
    assert structures.find_step(trace, "bdrv_open2#2") == (second.step, second.step - 1)
    assert structures.find_step(trace, "bdrv_open2:exit#1") == (first.exit_step, first.step)
    assert structures.find_step(trace, "3") == (3, 2)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("bdrv_open", "did you mean bdrv_open2"),
        ("bdrv_open2#9", "#1 to #2"),
        ("999", "this trace has steps 0 to"),
        ("a:b:c", "is no place"),
        ("qcow_open:entry", "did you mean qcow_open:enter"),
        ("qcow_open:return#2", "did you mean qcow_open:exit#2"),
        ("qcow_open#two", "say qcow_open, qcow_open:enter or qcow_open:exit"),
    ],
)
def test_a_wrong_place_is_explained(trace, place, said):
    with pytest.raises(GraphsError, match=said):
        structures.find_step(trace, place)


def test_no_such_structure_is_explained(trace):
    with pytest.raises(GraphsError, match="no QemuOpts exists at step 0"):
        structures.at(trace, "0", ["QemuOpts"]).dot()


def test_a_full_page_says_how_many_structures_are_left_out(trace):
    dot = structures.at(trace, str(len(trace) - 1), limit=2).dot()
    assert dot.count("[label=<<table") == 2
    # Three devices (base has a backing file too) and their driver.
    assert "lead to 2 more structures" in dot


def test_structures_display_themselves(trace):
    drawn = structures.at(trace, "bdrv_open2:exit")
    bundle = drawn._repr_mimebundle_()
    assert "BlockDriverState#1" in bundle["image/svg+xml"]
    assert "  total_sectors = 1099511627776" in bundle["text/plain"].splitlines()
    data = json.loads(drawn.rendered("json"))
    assert {(link["source"], link["kind"], link["target"]) for link in data["links"]} == {
        ("BlockDriverState#1", "drv", "&bdrv_raw"),
        ("BlockDriverState#1", "backing_hd", "BlockDriverState#2"),
    }
