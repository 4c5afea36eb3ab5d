"""studykvm xref, struct, sets, calls, option, expand: questions to the source index about symbols and tables.

Each function is the main of one command and takes the arguments after the command's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphs.errors import GraphsError
from graphs.index import explain, symbolic
from graphs.index.query import Edge, Function, Index
from graphs.index.tiers import Tiering
from graphs.wording import counted
from studykvm import options as shared
from studykvm.commands.ask import opened, parser, sources
from studykvm.errors import StudyError

if TYPE_CHECKING:
    from graphs.draw.picture import Picture


def xref(argv: list[str]) -> int:
    """Every place where a symbol stands."""
    options = parser(
        "xref",
        "Definition, declarations, reads, writes, calls and address taken of a symbol; "
        "macros too, where the sources are at hand.",
    )
    options.add_argument("symbol", metavar="SYMBOL", help="name, STRUCT.FIELD or file:name")
    options.add_argument("--tree", metavar="DIR", help="the sources, to show their lines, and for macros")
    args = options.parse_args(argv)
    with opened(args) as index:
        lines = sources(index, args.tree)
        for title, found in _referred(index, args.symbol, lines):
            print(f"{title}: {counted(len(found), 'place')}")
            for use in ("definition", "declaration", "write", "read", "call", "address", "type"):
                for r in found:
                    if r.use == use:
                        print(_place(r, lines))
    return 0


def _referred(index: Index, name: str, lines: explain.Sources) -> list[tuple[str, list[symbolic.Reference]]]:
    """What bears a name, with its places: symbols of the index, else macros of the sources."""
    try:
        known = symbolic.symbols(index, name)
    except GraphsError as error:
        from graphs.index.macro_places import macro_places

        if lines.tree is None:
            raise GraphsError(f"{error}; if it is a macro: --tree DIR looks it up in the sources") from None
        found = macro_places(index, name, lines.tree)
        if not found:
            raise
        return [(f"macro {name}", found)]
    listed = [(str(symbol), symbolic.references(index, symbol)) for symbol in known]
    return [(title, found) for title, found in listed if found]


def _place(r: symbolic.Reference, lines: explain.Sources) -> str:
    where = f"  in {r.function}" if r.function and r.use not in ("definition", "declaration") else ""
    text = lines.line(f"{r.file}:{r.line}")
    return f"  {r.use:<12}{r.file}:{r.line}:{r.column}{where}" + (f"    {text}" if text else "")


def struct(argv: list[str]) -> int:
    """Fields of a struct, and who implements its pointers."""
    options = parser("struct", "Fields of a struct; for pointers to functions, the functions put there.")
    options.add_argument("name", metavar="NAME", help="name, or file:name")
    args = options.parse_args(argv)
    name, dot, field = args.name.removeprefix("struct ").partition(".")
    if dot and "/" not in args.name and ":" not in args.name:
        raise StudyError(f"{name}.{field} is a field: say struct {name}, or sets {name}.{field}")
    with opened(args) as index:
        for found in symbolic.structs(index, args.name):
            print(f"{found.keyword} {found.name}  {found.file}:{found.line}")
            for field in found.fields:
                print(f"  {field.name:<24} {field.type}")
                if field.pointer in ("f", "a"):
                    _implementers(index, field.symbol)
    return 0


def _implementers(index: Index, number: int) -> None:
    stores = symbolic.stores(index, number)
    names = list(dict.fromkeys(f"{s.value} ({s.place.rpartition(':')[0]})" for s in stores))
    for start in range(0, len(names), 3):
        print("      " + ", ".join(names[start : start + 3]))


def sets(argv: list[str]) -> int:
    """What is put into a field, where."""
    options = parser("sets", "Which functions are put into a field, by whom, where.")
    options.add_argument("field", metavar="STRUCT.FIELD")
    options.add_argument("--tree", metavar="DIR", help="the sources, to show their lines")
    args = options.parse_args(argv)
    with opened(args) as index:
        symbol = symbolic.field(index, args.field)
        lines = sources(index, args.tree)
        stores = symbolic.stores(index, symbol.id)
        print(f"{symbol.scope}.{symbol.name} ({symbol.file}) is set in {counted(len(stores), 'place')}")
        for store in stores:
            where = f" in {store.function}" if store.function else ""
            text = lines.line(store.place)
            print(f"  {store.place}: {store.value} ({store.kind}{where})" + (f"    {text}" if text else ""))
    return 0


def calls(argv: list[str]) -> int:
    """Calls through a field, and what they may call."""
    options = parser("calls", "Where a field is called through, and which functions it may call.")
    options.add_argument("field", metavar="STRUCT.FIELD")
    options.add_argument(
        "--tiers", action="store_true", help="how many each tier allows: signature, field, flow"
    )
    args = options.parse_args(argv)
    with opened(args) as index:
        symbol = symbolic.field(index, args.field)
        found = symbolic.dispatches(index, symbol.id)
        tiering = Tiering(index) if args.tiers else None
        print(f"{symbol.scope}.{symbol.name} ({symbol.file}) is called in {counted(len(found), 'place')}")
        last = None
        for call in found:
            caller = call.caller.name if call.caller else "?"
            print(f"  {call.place} in {caller}{_counted(tiering, call.site)}")
            targets = [f"{f.name} ({f.file}:{f.line})" for f in call.targets]
            if targets == last:
                print("      the same")
            else:
                print("\n".join(f"      {target}" for target in targets) or "      nothing is ever put there")
            last = targets
    return 0


def _counted(tiering: Tiering | None, site: int) -> str:
    if tiering is None:
        return ""
    found = tiering.of(site)
    return f": {len(found.signature)} by signature, {len(found.field)} by field, {len(found.flow)} by flow"


def option(argv: list[str]) -> int:
    """What a command-line option or monitor command does."""
    options = parser("option", "An option's table row, the case that handles it, and what that calls.")
    options.add_argument(
        "name", metavar="NAME", help="an option such as -hda, a monitor command such as commit"
    )
    options.add_argument("--depth", type=shared.positive, default=1, metavar="N", help="N calls deep (1)")
    options.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="draw it too: OUT.svg, .png, .pdf, .dot, .mmd, .graphml or .json",
    )
    args = options.parse_args(_dashed(argv))
    with opened(args) as index:
        if args.output:
            from graphs.draw.drawing import format_of

            format_of(args.output)
        _option(index, args.name, args.depth)
        if args.output:
            drawn = _option_picture(index, args.name, args.depth)
            drawn.save(args.output)
            print(f"{args.output}: {counted(len(drawn.boxes), 'function')}")
    return 0


def _dashed(argv: list[str]) -> list[str]:
    """Let an option's name with its dash stand where argparse would take it for one of ours.

    >>> _dashed(["-hda", "--depth", "2"])
    ['hda', '--depth', '2']
    """
    ours = ("-h", "-o", "--help", "--output", "--index", "--program", "--depth")
    return [
        word.lstrip("-") if n == 0 and word.partition("=")[0] not in ours else word
        for n, word in enumerate(argv)
    ]


def _option(index: Index, name: str, depth: int) -> None:
    from graphs.errors import GraphsError

    bare = name.lstrip("-")
    rows = symbolic.rows(index, bare)
    if not rows:
        near = index._near(bare, "SELECT DISTINCT string FROM rows")
        raise GraphsError(index._no("option or table row", name, near))
    for row in rows:
        print(f'{row.table}[] has a row "{row.string}", {row.place}')
        for field, symbol in row.items:
            print(f"  {field}: {symbol.name}")
            if symbol.kind == "function":
                _below(index, _function(index, symbol), depth)
            elif symbol.kind == "constant":
                _handled(index, symbol, depth)


def _function(index: Index, symbol: symbolic.Symbol) -> Function:
    return index.function(f"{symbol.file}:{symbol.name}" if symbol.file else symbol.name)


def _option_picture(index: Index, name: str, depth: int) -> Picture:
    from graphs.index import export

    starts: list[Function] = []
    called: list[Edge] = []
    for row in symbolic.rows(index, name.lstrip("-")):
        for _, symbol in row.items:
            if symbol.kind == "function":
                starts.append(_function(index, symbol))
            elif symbol.kind == "constant":
                for case in symbolic.cases(index, symbol):
                    called += symbolic.calls_between(index, case)
    if not starts and not called:
        raise StudyError(f"what handles {name} calls no function, so there is nothing to draw")
    title = f"What {name} leads to, {counted(depth, 'call')} deep, {index.meta.get('identity', '')}".rstrip(
        ", "
    )
    return export.below(index, title, starts, called, depth)


def _handled(index: Index, symbol: symbolic.Symbol, depth: int) -> None:
    for case in symbolic.cases(index, symbol):
        print(
            f"  handled by case {symbol.name} in {case.function.name}, "
            f"{case.file}:{case.line}-{case.last_line}"
        )
        seen: set[int] = set()
        for edge in symbolic.calls_between(index, case):
            callee = index.by_number(edge.callee)
            print(f"    {callee.name}  {explain.how(index, edge)}")
            if edge.callee not in seen:
                seen.add(edge.callee)
                _below(index, callee, depth - 1, 3)


def _below(index: Index, function: Function, depth: int, level: int = 2) -> None:
    if depth <= 0:
        return
    seen = set()
    for edge in index.callees(function):
        if edge.callee in seen:
            continue
        seen.add(edge.callee)
        callee = index.by_number(edge.callee)
        print(f"{'  ' * level}{callee.name}  {explain.how(index, edge)}")
        _below(index, callee, depth - 1, level + 1)


def expand(argv: list[str]) -> int:
    """Each step of a macro's expansion."""
    options = parser("expand", "What the macros in a line become, one replacement at a time.")
    options.add_argument("place", metavar="FILE:LINE")
    options.add_argument("--tree", metavar="DIR", help="the sources (default: where the index was made)")
    args = options.parse_args(argv)
    import tempfile
    from pathlib import Path

    from graphs.index import macros
    from graphs.index.locate import locate

    path, _, number = args.place.rpartition(":")
    if not path or not number.isdigit():
        raise StudyError(f"{args.place!r} is no place; say FILE:LINE, such as block/qcow.c:954")
    with opened(args) as index, tempfile.TemporaryDirectory(prefix="studykvm-expand-") as folder:
        tree = args.tree or index.meta.get("tree")
        if not tree or not Path(tree, path).is_file():
            raise StudyError(f"expanding macros needs the sources with {path}; name them: --tree DIR")
        source = locate([tree], None, Path(folder))
        lines = Path(tree, path).read_text(errors="replace").splitlines()
        if not 0 < int(number) <= len(lines):
            raise StudyError(f"{path} has {len(lines)} lines, not {number}")
        text = macros.statement(lines, int(number))
        print(text)
        known = macros.definitions_before(source, path, int(number), Path(folder))
        done = False
        for macro, after in macros.steps(text, known):
            done = True
            print(f"  {macro.name}, defined at {macro.place}\n    {after}")
        if not done:
            print("  no macro stands in this line")
    return 0
