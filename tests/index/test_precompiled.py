"""Which files a precompiled header may serve."""

from graphs.index.precompiled import _clash, _Text

HEADER = _Text(
    b"#define USES(x) WORD(x) \\\n    + OTHER\n#define MORE USES(1)\n#ifndef FREE\n#define FREE WORD\n"
    b"#endif\n"
)


def test_what_a_macro_becomes_counts_where_it_is_used():
    foreign = frozenset({b"WORD"})
    assert not _clash(foreign, [HEADER, _Text(b"int a;")])
    assert _clash(foreign, [HEADER, _Text(b"int a = MORE;")])
    assert _clash(foreign, [HEADER, _Text(b"int WORD;")])
    assert _clash(frozenset({b"OTHER"}), [HEADER, _Text(b"#define LAST MORE\nint a = LAST;")])


def test_words_are_apart_from_definitions():
    assert HEADER.defines >= {b"USES", b"MORE"}
    assert b"WORD" not in HEADER.words
    assert HEADER.bodies[b"USES"] == {b"x", b"WORD", b"OTHER"}
    assert {b"WORD", b"OTHER", b"USES"} <= HEADER.everything
