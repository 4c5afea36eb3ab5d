"""The three tiers of a call through a pointer are nested, and the narrowest loses nothing, in any program."""

import pytest

pytest.importorskip("clang", reason="needs libclang: pip install libclang")

from hypothesis import given, settings
from hypothesis import strategies as st

from graphs.index.build import build
from graphs.index.locate import locate
from graphs.index.query import Index
from graphs.index.tiers import Tiering

SHAPES = {"i": ("int", "int x", "1"), "p": ("int", "char *x", "0"), "v": ("void", "int x, int y", "1, 2")}
FIELDS = {"a": "i", "b": "i", "c": "p", "d": "v"}
NAMES = {f"{shape}{n}": shape for shape in SHAPES for n in range(3)}

stores = st.lists(
    st.sampled_from(
        [(field, name) for field, shape in FIELDS.items() for name, own in NAMES.items() if own == shape]
    )
)
copies = st.lists(st.sampled_from([("a", "b"), ("b", "a")]), max_size=2)


def program(stored, copied, handed):
    """C that stores functions into fields, copies fields, hands functions to `run`, and calls through all."""
    lines = ["struct ops {"]
    for field, shape in FIELDS.items():
        lines.append(f"    {SHAPES[shape][0]} (*{field})({SHAPES[shape][1]});")
    lines.append("};\nstruct ops one, two;")
    for name, shape in NAMES.items():
        back = "return 0;" if SHAPES[shape][0] == "int" else ""
        lines.append(f"static {SHAPES[shape][0]} {name}({SHAPES[shape][1]}) {{ {back} }}")
    lines.append("static int run(int (*f)(int)) { return f(1); }")
    lines.append("int main(void)\n{")
    lines += [f"    one.{field} = {name};" for field, name in stored]
    lines += [f"    two.{to} = one.{source};" for to, source in copied]
    lines += [f"    run({name});" for name in handed]
    lines += [f"    two.{field}({SHAPES[shape][2]});" for field, shape in FIELDS.items()]
    return "\n".join([*lines, "    return 0;\n}\n"])


def expected(stored, copied):
    """Functions that each field may hold, a field standing for that field of every object."""
    held = {field: {name for to, name in stored if to == field} for field in FIELDS}
    for _ in FIELDS:
        for to, source in copied:
            held[to] |= held[source]
    return held


@settings(max_examples=15, deadline=None)
@given(
    stores, copies, st.lists(st.sampled_from([n for n, shape in NAMES.items() if shape == "i"]), max_size=3)
)
def test_tiers_of_any_program(tmp_path_factory, stored, copied, handed):
    folder = tmp_path_factory.mktemp("tiers")
    (folder / "main.c").write_text(program(stored, copied, handed))
    build(locate([str(folder / "main.c")], [], folder), folder / "a.index")
    held = expected(stored, copied)
    taken = {name for _, name in stored} | set(handed)
    with Index.open(folder / "a.index") as index:
        names = {f.id: f.name for f in index.all_functions.values()}
        tiering = Tiering(index)
        found = index.db.execute(
            "SELECT sites.id, s.kind, s.name FROM sites JOIN symbols s ON s.id = sites.through"
        ).fetchall()
        assert len(found) == len(FIELDS) + 1
        for site, kind, name in found:
            tiers = tiering.of(site)
            assert tiers.flow <= tiers.field <= tiers.signature
            shape = FIELDS[name] if kind == "field" else "i"
            assert {names[n] for n in tiers.flow} == (held[name] if kind == "field" else set(handed))
            assert {names[n] for n in tiers.signature} == {n for n in taken if NAMES[n] == shape}
