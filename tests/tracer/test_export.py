"""Exporters: what other tools read, with names that try to break the quoting."""

import io
import json
import re
import shutil
import subprocess

import pytest

from tracer import FunctionInfo, Trace, TracerError
from tracer.export import FORMATS, exporter, write

HOSTILE = 'a"b;c\nd\te\\f <g> #h %i\u202e é\udc80'
FUNCTIONS = {
    0: FunctionInfo(0, "vl.c", "main", "m", 1, ()),
    1: FunctionInfo(1, f"block/{HOSTILE}.c", HOSTILE, "m", 1, (HOSTILE,)),
    2: FunctionInfo(2, "block.c", "same", "m", 1, ("x",)),
    3: FunctionInfo(3, "other.c", "same", "m", 1, ()),
}
EVENTS = [
    (0, 0, 1000),
    (1, 0, 2000, HOSTILE),
    ("n", 0, 2100, "State#1", "State", {HOSTILE: HOSTILE, "rate": float("nan")}),
    (2, 0, 3000, ("@", "State#1")),
    ("w", 0, 3500, "State#1", HOSTILE, HOSTILE, float("inf")),
    (~2, 0, 4000, -5),
    (3, 1, 4500),
    ("f", 0, 4600, "State#1"),
    ("x", 0, 5000, 1, "OSError", HOSTILE),
    (~3, 1, 5500, None),
    (3, 0, 6000),
]


@pytest.fixture
def trace():
    return Trace.of(EVENTS, FUNCTIONS, {"program": HOSTILE, "clock": 1000})


def export(trace, name, root=None):
    out = io.StringIO()
    write(trace, name, out, root)
    return out.getvalue()


def test_every_format_exports_an_empty_trace_and_is_described(trace):
    for name in FORMATS:
        assert exporter(name).name == name
        assert exporter(name).suffix.startswith(".")
        assert exporter(name).help
        export(Trace.of([], {}, {}), name)
    with pytest.raises(TracerError, match=r"pdf.*chrome"):
        exporter("pdf")


def test_calls_has_the_recordings_columns(trace):
    lines = export(trace, "calls").splitlines()
    assert [line.count("\t") for line in lines] == [3] * 5
    assert [lines[0], lines[2], lines[3], lines[4]] == [
        "0\tmain\t0\tvl.c", "2\tsame\t0\tblock.c", "0\tsame\t1\tother.c", "1\tsame\t0\tother.c",
    ]  # fmt: skip
    name = lines[1].split("\t")[1]
    assert name.startswith('a\\"b;c\\nd\\te\\\\f <g>')


def test_chrome_is_json_with_nesting_times(trace):
    document = json.loads(export(trace, "chrome"))
    spans = [e for e in document["traceEvents"] if e["ph"] == "X"]
    assert [(e["name"], e["tid"], e["ts"], e["dur"]) for e in spans] == [
        ("main", 0, 0.0, 5.0), (HOSTILE, 0, 1.0, 3.0), ("same", 0, 2.0, 1.0),
        ("same", 0, 5.0, 0.0), ("same", 1, 3.5, 1.0),
    ]  # fmt: skip
    assert spans[2]["args"] == {"x": "State#1", "return": "-5"}
    assert spans[1]["args"]["exception"] == f"OSError: {HOSTILE}"
    assert spans[1]["cat"] == f"block/{HOSTILE}.c"


def test_folded_stacks_add_up(trace):
    lines = export(trace, "folded").splitlines()
    assert all(re.fullmatch(r"[^ ]+ \d+", line) for line in lines)
    weights = {line.rsplit(" ", 1)[0]: int(line.rsplit(" ", 1)[1]) for line in lines}
    assert sum(weights.values()) == 5000 + 1000
    assert weights["thread-0;main"] == 2000
    assert weights["thread-1;same@other.c"] == 1000
    (deep,) = [path for path in weights if path.endswith("same@block.c")]
    assert deep.count(";") == 3
    assert "%3B" in deep and "%0A" in deep and "%25i" in deep


def test_speedscope_opens_and_closes_in_order(trace):
    document = json.loads(export(trace, "speedscope"))
    assert document["$schema"].endswith("file-format-schema.json")
    frames = document["shared"]["frames"]
    assert [f["name"] for f in frames] == ["main", HOSTILE, "same@block.c", "same@other.c"]
    assert [p["name"] for p in document["profiles"]] == ["thread 0", "thread 1"]
    for profile in document["profiles"]:
        stack, last = [], profile["startValue"]
        for event in profile["events"]:
            assert event["at"] >= last
            last = event["at"]
            if event["type"] == "O":
                stack.append(event["frame"])
            else:
                assert stack.pop() == event["frame"]
        assert (stack, last) == ([], profile["endValue"])


def test_dot_has_a_node_a_function_and_an_edge_a_pair(trace):
    text = export(trace, "dot")
    assert re.findall(r"(f\d) -> (f\d) \[label=(\d)\]", text) == [
        ("f0", "f1", "1"),
        ("f1", "f2", "1"),
        ("f0", "f3", "1"),
    ]
    if shutil.which("dot") is None:
        pytest.skip("Graphviz reads the output back: apt-get install graphviz")
    source = text.encode("utf-8", "backslashreplace")
    drawn = subprocess.run(["dot", "-Tjson0"], input=source, capture_output=True, check=True)
    labels = [o.get("label") for o in json.loads(drawn.stdout)["objects"]]
    shown = HOSTILE.replace("\\", "\\\\").replace("\n", "\\\\n").replace("\t", "\\\\t")
    assert any(label and label.startswith(shown[:12]) for label in labels)


def test_dot_survives_many_files_that_call_in_rings(trace):
    """Without newrank, dot 2.43 fails at the boot of the demo: "trouble in init_rank", and edges are lost."""
    assert "newrank=true" in export(trace, "dot")


def test_mermaid_has_files_as_participants(trace):
    lines = export(trace, "mermaid").splitlines()
    assert lines[0] == "sequenceDiagram"
    assert "  participant f2 as block.c" in lines
    assert "  f1->>f2: same()" in lines
    assert "  f2-->>f1: -5" in lines
    assert "  f1-->>f0: raised" in lines
    body = "".join(re.sub(r"#\d+;", "", line) for line in lines)
    assert not set(body) & set('"\\;#%\t<')


def test_mermaid_folds_and_stops_in_time():
    events = [(0, 0, 0)]
    for number in range(3):
        events += [(2, 0, number, 0), (~2, 0, number, 0)]
    text = export(Trace.of([*events, (~0, 0, 9, 0)], FUNCTIONS, {}), "mermaid")
    assert text.count("same()") == 1
    assert "  loop x3\n" in text
    assert text.count("  end\n") == 1
    many = [(fid, 0, 0, 0) for n in range(400) for fid in ((2, ~2, 3, ~3) if n % 7 % 3 else (3, ~3, 0, ~0))]
    nested = [(0, 0, 0)] + [(2 + n % 2, 0, n, 0) for n in range(2000)]
    for case in (many, nested):
        text = export(Trace.of(case, FUNCTIONS, {}), "mermaid")
        assert text.count("()") <= 500
        assert text.count("  loop ") == text.count("  end\n")
    assert "only the first 500" in text


def test_json_lines_hold_every_event(trace):
    rows = [json.loads(line, parse_constant=pytest.fail) for line in export(trace, "jsonl").splitlines()]
    assert rows[0]["kind"] == "trace"
    assert [row["step"] for row in rows[1:]] == list(range(11))
    assert [row["kind"] for row in rows[1:]] == [
        "call", "call", "new", "call", "write", "return", "call", "free", "raise", "return", "call",
    ]  # fmt: skip
    assert rows[5] == {
        "step": 4, "thread": 0, "t": 2500, "kind": "write", "call": 3, "object": "State#1", "field": HOSTILE,
        "old": HOSTILE, "new": "inf",
    }  # fmt: skip
    part = export(trace, "jsonl", trace.tree().children[0].children[0])
    assert [json.loads(line)["step"] for line in part.splitlines()[1:]] == [3, 4, 5]


def test_text_shows_arguments(trace):
    lines = export(trace, "text").splitlines()
    assert lines[2] == "    same(x=State#1) = -5  block.c"
    assert len(lines) == 5
