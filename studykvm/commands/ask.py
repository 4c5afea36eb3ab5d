"""studykvm callers, callees, path, why, graph: questions to the source index about who calls whom.

Each function is the main of one command and takes the arguments after the command's name.
"""

import argparse
import os
from collections.abc import Callable, Iterable

from graphs.index import explain
from graphs.index.query import Edge, Function, Index
from graphs.wording import counted
from studykvm import options as shared
from studykvm.errors import StudyError


def parser(name: str, text: str) -> argparse.ArgumentParser:
    """A parser with the options that all questions share."""
    out = argparse.ArgumentParser(prog=f"studykvm {name}", description=text)
    out.add_argument(
        "--index",
        metavar="FILE",
        help="index made by `studykvm index` (default: qemu-kvm 0.12.4's, which ships)",
    )
    out.add_argument("--program", metavar="NAME", help="only this link set: system, img, io, nbd")
    return out


def opened(args: argparse.Namespace) -> Index:
    """The index that the arguments name, or STUDYKVM_INDEX."""
    return Index.open(args.index or os.environ.get("STUDYKVM_INDEX") or None, args.program)


def sources(index: Index, tree: str | None) -> explain.Sources:
    """Source lines, from `tree` or from where the index was made."""
    if tree and not os.path.isdir(tree):
        raise StudyError(f"--tree {tree}: there is no such folder; name the sources that the index is of")
    return explain.Sources(tree or index.meta.get("tree"))


def _listing(
    index: Index, edges: Iterable[Edge], other: Callable[[Edge], int | None], everything: bool
) -> list[str]:
    """One line a function, its calls below; long lists of calls are cut unless `everything` is wanted."""
    groups: dict[int | None, list[Edge]] = {}
    for edge in edges:
        groups.setdefault(other(edge), []).append(edge)
    lines = []
    for number, group in groups.items():
        function = index.by_number(number) if number is not None else None
        title = f"{function.name}  {function.file}:{function.line}" if function else "(start of the program)"
        lines.append(title)
        shown = group if everything else group[:3]
        lines += [f"    {explain.how(index, edge)}" for edge in shown]
        if len(shown) < len(group):
            lines.append(f"    and {len(group) - len(shown)} more")
    return lines


def callers(argv: list[str]) -> int:
    """Who calls a function."""
    options = parser("callers", "Who calls a function, and how that is known.")
    options.add_argument("function", metavar="F", help="name, or file:name")
    options.add_argument("--all", action="store_true", help="every call of each caller")
    args = options.parse_args(argv)
    with opened(args) as index:
        function = index.function(args.function)
        edges = index.callers(function)
        who = len({edge.caller for edge in edges})
        print(f"{function.name} ({function.file}:{function.line}) is called by {counted(who, 'function')}")
        print("\n".join(_listing(index, edges, lambda edge: edge.caller, args.all)) or _nobody(function))
    return 0


def _nobody(function: Function) -> str:
    if function.name == "main":
        return "the program begins here"
    return "no call is found, nor a pointer that could hold it"


def callees(argv: list[str]) -> int:
    """What a function calls."""
    options = parser("callees", "What a function calls: by name, through pointers, and outside the tree.")
    options.add_argument("function", metavar="F", help="name, or file:name")
    options.add_argument("--all", action="store_true", help="every call of each callee")
    args = options.parse_args(argv)
    with opened(args) as index:
        function = index.function(args.function)
        edges = index.callees(function)
        what = len({edge.callee for edge in edges})
        print(
            f"{function.name} ({function.file}:{function.line}) calls {counted(what, 'function')} of the tree"
        )
        for line in _listing(index, edges, lambda edge: edge.callee, args.all):
            print(line)
        for file, line_number, label in index.unresolved(function):
            print(f"(unresolved)  {file}:{line_number}: through {label}: nothing is ever put there")
        outside = index.outside(function)
        if outside:
            print("outside the tree: " + ", ".join(name for name, _, _ in outside))
    return 0


def path(argv: list[str]) -> int:
    """How one function reaches another."""
    options = parser("path", "A shortest way of calls from A to B.")
    options.add_argument("start", metavar="A", help="name, or file:name")
    options.add_argument("goal", metavar="B", help="name, or file:name")
    options.add_argument("--all", action="store_true", help="all ways without repetition, shorter ones first")
    options.add_argument(
        "--limit", type=shared.positive, default=20, metavar="N", help="with --all: at most N (20)"
    )
    args = options.parse_args(argv)
    with opened(args) as index:
        start, goal = index.function(args.start), index.function(args.goal)
        if args.all:
            ways = list(index.all_paths(start, goal, args.limit))
        else:
            way = index.path_between(start, goal)
            ways = [way] if way else []
        if not ways:
            print(f"{goal.name} is not reached from {start.name}")
            return 1
        for number, way in enumerate(ways, 1):
            if args.all:
                print(f"{number}. {counted(len(way) - 1, 'call')}")
            print("\n".join(_way(index, way)))
        if args.all and len(ways) == args.limit:
            print(f"(the first {args.limit}; --limit N shows more)")
    return 0


def _way(index: Index, way: list[Function]) -> list[str]:
    lines = [f"{way[0].name}  {way[0].file}:{way[0].line}"]
    for depth, (callee, edge) in enumerate(zip(way[1:], explain.leading(index, way), strict=True), 1):
        lines.append(f"{'  ' * depth}{callee.name}  {explain.how(index, edge)}")
    return lines


def why(argv: list[str]) -> int:
    """The evidence for a call."""
    options = parser("why", "Why the index says that A calls B: the chain of evidence, with source lines.")
    options.add_argument("caller", metavar="A", help="name, or file:name")
    options.add_argument("callee", metavar="B", help="name, or file:name")
    options.add_argument("--tree", metavar="DIR", help="the sources, to show their lines")
    args = options.parse_args(argv)
    with opened(args) as index:
        lines = sources(index, args.tree)
        caller, callee = index.function(args.caller), index.function(args.callee)
        edges = index.between(caller, callee)
        if edges:
            for edge in edges:
                print(f"{caller.name} calls {callee.name}: {explain.how(index, edge)}")
                print("\n".join(explain.chain(index, edge, lines)))
            return 0
        way = index.path_between(caller, callee)
        if way is None:
            print(f"{caller.name} does not call {callee.name}, nor anything that reaches it")
            return 1
        print(
            f"{caller.name} does not call {callee.name} itself; "
            f"it reaches it in {counted(len(way) - 1, 'call')}:"
        )
        for one, other, edge in zip(way, way[1:], explain.leading(index, way), strict=False):
            print(f"{one.name} calls {other.name}: {explain.how(index, edge)}")
            print("\n".join(explain.chain(index, edge, lines)))
    return 0


def graph(argv: list[str]) -> int:
    """A function's surroundings drawn, or the whole graph held against a recording."""
    options = parser(
        "graph", "Draw what a function reaches, or hold the graph against a recording of the real program."
    )
    options.add_argument("function", metavar="F", nargs="?", help="name, or file:name")
    options.add_argument("--depth", type=shared.positive, default=3, metavar="N", help="N calls deep (3)")
    options.add_argument("--callers", action="store_true", help="who reaches it instead of what it reaches")
    options.add_argument(
        "-o", "--output", metavar="OUT", help="OUT.svg, .png, .pdf, .dot, .mmd, .graphml or .json"
    )
    options.add_argument(
        "--boxes", type=shared.positive, default=60, metavar="N", help="about N boxes, the rest folded (60)"
    )
    options.add_argument(
        "--check",
        action="append",
        metavar="RECORDING",
        help="a recording that ships, all, or NAME.calls.gz; may be repeated",
    )
    options.add_argument("--sites", action="store_true", help="with --check: each call through a pointer")
    shared.add_links(options)
    args = options.parse_args(argv)
    with opened(args) as index:
        if args.check:
            from graphs.index import check

            result = check.check(index, args.check)
            print(check.report(index, result, args.sites))
            return 0
        if args.function is None or args.output is None:
            raise StudyError("graph wants a function and -o OUT, or --check RECORDING")
        from graphs.draw.drawing import format_of
        from graphs.index import export

        format_of(args.output)
        made_from = index.meta.get("tree")
        if args.tree is None and made_from and os.path.isdir(made_from):
            args.tree = made_from
        function = index.function(args.function)
        drawn = export.picture(index, function, args.depth, args.callers, shared.links(args))
        drawn.limit = args.boxes
        drawn.save(args.output)
        functions, calls = counted(len(drawn.boxes), "function"), counted(len(drawn.arrows), "call")
        print(f"{args.output}: {functions}, {calls}")
    return 0
