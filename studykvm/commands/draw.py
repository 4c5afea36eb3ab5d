"""studykvm draw: the call graph of a trace, or of a recording, as a page."""

import argparse
from pathlib import Path


def main(argv: list[str]) -> int:
    """Draw."""
    parser = argparse.ArgumentParser(
        prog="studykvm draw",
        description="Draw the call graph of a trace: functions as boxes in the frames of their C files.",
    )
    parser.add_argument("trace", metavar="TRACE", help="a trace, or NAME.calls.gz of a recording")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="OUT.svg, .png, .pdf or .dot")
    parser.add_argument("--from", dest="start", metavar="FUNC", help="only FUNC and what it calls")
    parser.add_argument("--depth", type=int, metavar="N", help="N levels")
    parser.add_argument("--only", action="append", default=[], metavar="GLOB", help="functions or files")
    parser.add_argument("--thread", type=int, metavar="N", help="one thread; 0 is the main one")
    parser.add_argument(
        "--boxes",
        type=int,
        default=50,
        metavar="N",
        help="about N boxes, the rest in small print (50)",
    )
    args = parser.parse_args(argv)
    from graphs.draw import callgraph, engine, picture

    title = f"Calls of {Path(args.trace).name}" + (f", from {args.start}" if args.start else "")
    if args.trace.endswith((".calls", ".calls.gz")):
        from graphs.calls import CallTable
        from studykvm.errors import StudyError

        if args.start or args.only or args.depth or args.thread is not None:
            raise StudyError("--from, --only, --depth and --thread want a trace, not a recording")
        graph = callgraph.of_calls(CallTable.read(Path(args.trace)), title)
    else:
        from tracer import load
        from tracer.passes import select

        root = load(args.trace).tree()
        chosen = select(root, start=args.start, globs=args.only, number=args.thread, depth=args.depth)
        graph = callgraph.of_tree(chosen, title)
    engine.write(picture.to_dot(graph, args.boxes), args.output)
    print(f"{args.output}: {len(graph.boxes)} functions, {len(graph.arrows)} different calls")
    return 0
