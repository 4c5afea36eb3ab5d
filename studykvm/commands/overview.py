"""studykvm cycles, dead, edges, diff: questions to the source index about the whole graph.

Each function is the main of one command and takes the arguments after the command's name.
"""

import sys

from graphs.index.query import Index
from graphs.index.tiers import Tiering
from graphs.wording import counted
from studykvm.commands.ask import opened, parser


def cycles(argv: list[str]) -> int:
    """Groups of functions that call each other in a circle."""
    options = parser("cycles", "Groups of functions that call each other in a circle, larger ones first.")
    options.add_argument("--all", action="store_true", help="every member of every group")
    args = options.parse_args(argv)
    from graphs.index import whole

    with opened(args) as index:
        groups = whole.cycles(index)
        alone = [group[0] for group in groups if len(group) == 1]
        larger = [group for group in groups if len(group) > 1]
        print(
            f"{counted(len(larger), 'circle')}, {counted(len(alone), 'function')} that only call themselves"
        )
        for group in larger:
            names = [str(f) for f in group]
            shown = names if args.all else names[:8]
            more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
            print(f"{len(group):5}  {', '.join(shown)}{more}")
        if alone:
            names = [str(f) for f in alone]
            shown = names if args.all else names[:12]
            more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
            print(f"alone  {', '.join(shown)}{more}")
    return 0


def dead(argv: list[str]) -> int:
    """Functions that main does not reach."""
    options = parser("dead", "Functions that neither main nor a constructor reaches, by file.")
    args = options.parse_args(argv)
    from graphs.index import whole

    with opened(args) as index:
        found = whole.dead(index)
        print(f"{len(found):,} of {len(index.all_functions):,} functions are not reached")
        files: dict[str, list[str]] = {}
        for function in found:
            files.setdefault(function.file, []).append(function.name)
        for file, names in files.items():
            print(f"{file}: {', '.join(names)}")
    return 0


def edges(argv: list[str]) -> int:
    """Every call as tab-separated values."""
    options = parser("edges", "Every call: caller file, caller, callee file, callee, kind, tier, site.")
    options.add_argument("--tsv", action="store_true", help="tab-separated, with a head line (the only form)")
    options.add_argument(
        "--tier",
        choices=("flow", "field", "signature"),
        default="flow",
        help="of calls through pointers, also what only the wider tiers allow: field, or signature too",
    )
    args = options.parse_args(argv)
    with opened(args) as index:
        functions = index.all_functions
        out = sys.stdout
        out.write("caller_file\tcaller\tcallee_file\tcallee\tkind\ttier\tsite\n")

        def row(caller: int | None, callee: int, kind: str, tier: str, where: str) -> None:
            one, other = functions.get(caller) if caller is not None else None, functions.get(callee)
            if other is not None:
                who = f"{one.file}\t{one.name}" if one else "\t"
                out.write(f"{who}\t{other.file}\t{other.name}\t{kind}\t{tier}\t{where}\n")

        for edge in index.edges():
            tier = "direct" if edge.kind in ("direct", "macro", "constructor", "destructor") else "flow"
            row(edge.caller, edge.callee, edge.kind, tier, f"{edge.file}:{edge.line}:{edge.column}")
        if args.tier != "flow":
            tiering = Tiering(index)
            for site, caller, kind, where in index.call_sites():
                for callee, tier in tiering.beyond(site):
                    if tier == "field" or args.tier == "signature":
                        row(caller, callee, kind, tier, where)
    return 0


def diff(argv: list[str]) -> int:
    """What changed from one index to another."""
    options = parser("diff", "Functions kept, gone, new, moved, and likely renamed, and calls that changed.")
    options.add_argument("old", metavar="INDEX_A", nargs="?", help="without it: as with --index")
    options.add_argument("new", metavar="INDEX_B")
    options.add_argument("--all", action="store_true", help="whole lists")
    args = options.parse_args(argv)
    from graphs.index import whole

    with (
        Index.open(args.old, args.program) if args.old else opened(args) as old,
        Index.open(args.new, args.program) as new,
    ):
        found = whole.diff(old, new)
    limit = None if args.all else 15
    print(
        f"{found.kept:,} functions kept, {len(found.gone):,} gone, {len(found.new):,} new, "
        f"{len(found.moved):,} moved, "
        f"{len({f.id for f, _, _ in found.renamed}):,} likely renamed"
    )
    _list("moved", [f"{a} -> {b.file}" for a, b in found.moved], limit)
    _list("likely renamed", [f"{a} -> {b}  (likeness {score:.2f})" for a, b, score in found.renamed], limit)
    _list("gone", [str(f) for f in found.gone], limit)
    _list("new", [str(f) for f in found.new], limit)
    print(
        f"between functions that both have: {len(found.calls_gone):,} calls gone, "
        f"{len(found.calls_new):,} new"
    )
    _list("calls gone", [f"{a} -> {b}" for a, b in found.calls_gone], limit)
    _list("calls new", [f"{a} -> {b}" for a, b in found.calls_new], limit)
    return 0


def _list(title: str, lines: list[str], limit: int | None) -> None:
    if not lines:
        return
    print(f"{title}:")
    for line in lines[:limit]:
        print(f"  {line}")
    if limit is not None and len(lines) > limit:
        print(f"  and {len(lines) - limit:,} more; --all shows them")
