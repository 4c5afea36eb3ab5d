"""Call trees on hand-built traces: pairing, passes, statistics and the console's text."""

import random

import pytest

from tracer import FunctionInfo, Trace, TracerError
from tracer.passes import build, by_arguments, cut, fold, from_function, only, select, thread, walk
from tracer.text import render_tree, tree_lines

NAMES = {"main": "vl.c", "open": "block.c", "read": "block.c", "pread": "block/raw.c", "close": "block.c"}
FIDS = {name: fid for fid, name in enumerate(NAMES)}
FUNCTIONS = {FIDS[n]: FunctionInfo(FIDS[n], file, n, "m", 1, ("x",)) for n, file in NAMES.items()}


def trace_of(text, meta=None):
    """Build a trace from ``main( read( ) )``; a word is a call, ``)`` ends it; ``read/1`` is thread 1's.

    ``read=5`` has the argument 5, ``!`` ends the call by an exception. Each event takes 1 ns.
    """
    events, stack = [], []
    for word in text.split():
        now = len(events)
        if word in (")", "!"):
            fid, number = stack.pop()
            end = (~fid, number, now, None) if word == ")" else ("x", number, now, fid, "OSError", "gone")
            events.append(end)
        else:
            name, _, number = word.rstrip("(").partition("/")
            name, _, argument = name.partition("=")
            stack.append((FIDS[name], int(number or 0)))
            events.append((FIDS[name], int(number or 0), now, int(argument or 0)))
    return Trace.of(events, FUNCTIONS, meta or {})


def outline(root):
    return [(depth, node.call.function if node.call else "", node.count) for node, depth in walk(root)]


def test_calls_are_paired_and_filtered():
    trace = trace_of("main( open( pread( ) ) read/1( ) ) ")
    assert [(c.step, c.exit_step, c.depth, c.thread) for c in trace.calls()] == [
        (0, 7, 0, 0), (1, 4, 1, 0), (2, 3, 2, 0), (5, 6, 0, 1),
    ]  # fmt: skip
    assert [c.function for c in trace.calls(file="block/*")] == ["pread"]
    assert [c.function for c in trace.calls(function="*e*", thread=0)] == ["open", "pread"]
    assert [c.function for c in trace.calls(depth=0)] == ["main", "read"]
    assert list(trace.calls(function="nothing")) == []


def test_a_lost_end_does_not_spoil_the_nesting():
    events = [
        (0, 0, 0, 1),
        (1, 0, 1, 1),
        (2, 0, 2, 1),
        (-1, 0, 3, 7),
        (1, 0, 4, 1),
        (~4, 0, 5, 1),
        (-2, 0, 6, 8),
    ]
    calls = list(Trace.of(events, FUNCTIONS, {}).calls())
    assert [(c.function, c.depth, c.open, c.ret) for c in calls] == [
        ("main", 0, False, 7), ("open", 1, True, None), ("read", 2, True, None), ("open", 0, False, 8),
    ]  # fmt: skip


def test_repeats_fold():
    root = fold(trace_of("main( " + "read( pread( ) ) " * 12 + "close( ) )").tree())
    assert outline(root) == [(0, "main", 1), (1, "read", 12), (2, "pread", 1), (1, "close", 1)]


def test_sequences_fold():
    root = fold(trace_of("main( open( ) " + "read( ) read( ) close( ) " * 5 + "open( ) )").tree())
    assert outline(root) == [
        (0, "main", 1), (1, "open", 1), (1, "", 5), (2, "read", 2), (2, "close", 1), (1, "open", 1),
    ]  # fmt: skip


def test_only_equal_subtrees_fold():
    root = fold(trace_of("read( pread( ) ) read( pread( ) pread( ) ) read( ! read( ) read/1( )").tree())
    assert outline(root) == [
        (0, "read", 1), (1, "pread", 1), (0, "read", 1), (1, "pread", 2),
        (0, "read", 1), (0, "read", 1), (0, "read", 1),
    ]  # fmt: skip
    calls = trace_of("read=1( ) read=1( ) read=2( )").tree()
    assert outline(fold(calls)) == [(0, "read", 3)]
    assert outline(fold(calls, by_arguments)) == [(0, "read", 2), (0, "read", 1)]


@pytest.mark.parametrize("seed", range(20))
def test_unfolding_a_fold_gives_the_tree_back(seed):
    rng = random.Random(seed)

    def grow(levels):
        return " ".join(
            f"{rng.choice(['open', 'read', 'close'])}( {grow(levels - 1) if levels else ''} )"
            for _ in range(rng.randrange(5))
        )

    root = trace_of(grow(4) + " read( )").tree()

    def unfold(node):
        inner = [line for child in node.children for line in unfold(child)]
        name = [] if node.call is None else [node.call.function]
        deeper = (
            inner
            if node.call is None
            else [(1, *line) if isinstance(line, tuple) else (1, line) for line in inner]
        )
        return (name + deeper) * node.count

    assert unfold(fold(root)) == unfold(root)
    before = outline(root)
    fold(root)
    assert outline(root) == before


def test_smaller_trees():
    root = trace_of("main( open( read( pread( ) ) read( read( ) ) ) close/1( ) )").tree()
    assert outline(from_function(root, "read")) == [
        (0, "read", 1), (1, "pread", 1), (0, "read", 1), (1, "read", 1),
    ]  # fmt: skip
    assert outline(only(root, ["main", "block/*"])) == [(0, "main", 1), (1, "pread", 1)]
    assert outline(thread(root, 1)) == [(0, "close", 1)]
    small = cut(root, 2)
    assert outline(small) == [(0, "main", 1), (1, "open", 1), (0, "close", 1)]
    assert small.children[0].children[0].hidden == 2
    assert (
        outline(select(root, start="block.c:open", globs=["read"], number=0, depth=1)) == [(0, "read", 1)] * 2
    )


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"start": "red"}, "--from red: no such call.*did you mean read"),
        ({"globs": ["zzz*"]}, "--only zzz.*trace stats"),
        ({"number": 7}, "--thread 7: no such thread.*there is 0"),
    ],
)
def test_a_choice_that_matches_nothing_says_so(choice, words):
    with pytest.raises(TracerError, match=words):
        select(trace_of("main( read( ) )").tree(), **choice)


def test_trees_of_any_depth():
    root = trace_of("read( " * 20_000 + ") " * 20_000).tree()
    folded = fold(cut(only(root, ["read"]), 15_000))
    assert max(depth for _, depth in walk(folded)) == 14_999
    assert sum(1 for _ in tree_lines(root)) == 20_000


def test_the_text_of_a_tree():
    trace = trace_of("main( open=1( read( pread( ! ! ) read=2( ) read=2( ) close/1( ) ) main(")
    assert render_tree(trace).splitlines() == [
        "main  vl.c",
        "  open  block.c",
        "    read  raised OSError: gone",
        "      pread  raised OSError: gone  block/raw.c",
        "  read  block.c  x2",
        "[t1] close  block.c",
        "main  (no return)  vl.c",
    ]
    assert render_tree(trace, args=True, fold=False, start="read", depth=1).splitlines() == [
        "read(x=0)  raised OSError: gone  block.c",
        "  ... 1 more",
        "read(x=2) = NULL  block.c",
        "read(x=2) = NULL  block.c",
    ]
    assert render_tree(trace, thread=1) == "[t1] close  block.c"


def test_field_writes_in_the_text():
    events = [
        ("n", 0, 0, "State#1", "State", {"drv": None}), (2, 0, 1, 0),
        ("w", 0, 2, "State#1", "drv", None, ("&", "raw")),
        (~2, 0, 3, 0), (2, 0, 4, 0), (~2, 0, 5, 0), (2, 0, 6, 0), (~2, 0, 7, 0),
    ]  # fmt: skip
    trace = Trace.of(events, FUNCTIONS, {})
    assert render_tree(trace, state=True).splitlines() == [
        "read  block.c", "  * State#1.drv: NULL -> &raw", "read  block.c  x2",
    ]  # fmt: skip
    assert render_tree(trace) == "read  block.c  x3"


def test_statistics():
    # each event takes 1 ns: main 0..9, open 1..6, read 2..3 and 4..5, inner main 7..8
    stats = trace_of("main( open( read( ) read( ! ) main( ) )").stats()
    rows = {row.info.name: (row.calls, row.exceptions, row.total, row.own) for row in stats.functions}
    assert rows == {"main": (2, 0, 9, 4), "open": (1, 0, 5, 3), "read": (2, 1, 2, 2)}
    assert (stats.events, stats.calls, stats.open_calls, stats.threads, stats.duration) == (10, 5, 0, 1, 9)
    assert trace_of("").stats().duration == 0
    assert trace_of("main( read( )").stats().open_calls == 1


def test_an_empty_trace_has_an_empty_tree():
    assert outline(build([])) == []
    assert render_tree(trace_of("")) == ""
