"""studykvm draw: the call graph of a trace, or of a recording, as a page."""

import argparse
from pathlib import Path

from studykvm import options


def main(argv: list[str]) -> int:
    """Draw."""
    parser = argparse.ArgumentParser(
        prog="studykvm draw",
        description="Draw the call graph of a trace: functions as boxes in the frames of their C files.",
    )
    parser.add_argument("trace", metavar="TRACE", help="a trace, or NAME.calls.gz of a recording")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="OUT.svg, .png, .pdf, .dot, .mmd, .graphml or .json",
    )
    parser.add_argument("--from", dest="start", metavar="FUNC", help="only FUNC and what it calls")
    parser.add_argument("--depth", type=options.positive, metavar="N", help="N levels")
    parser.add_argument("--only", action="append", default=[], metavar="GLOB", help="functions or files")
    parser.add_argument("--thread", type=options.natural, metavar="N", help="one thread; 0 is the main one")
    parser.add_argument(
        "--boxes",
        type=options.positive,
        default=50,
        metavar="N",
        help="about N boxes, the rest in small print (50)",
    )
    options.add_links(parser)
    args = parser.parse_args(argv)
    from graphs import conversation
    from graphs.draw import callgraph
    from graphs.draw.drawing import format_of
    from graphs.witnesses import open_source
    from studykvm.errors import StudyError

    format_of(args.output)
    links = options.links(args)
    title = f"Calls of {Path(args.trace).name}" + (f", from {args.start}" if args.start else "")
    if args.only:
        title += "; what --only leaves out is passed through"
    if args.trace.endswith((".calls", ".calls.gz")):
        from graphs.calls import CallTable

        if args.start or args.only or args.depth or args.thread is not None:
            raise StudyError("--from, --only, --depth and --thread want a trace, not a recording")
        calls = CallTable.read(Path(args.trace))
        graph = callgraph.of_calls(calls, title, open_source(calls.functions()), links)
    else:
        from tracer import load
        from tracer.passes import select

        trace = load(args.trace)
        ran = {(call.file, call.function) for call in trace.calls()}
        options.warn_if_damaged(args.trace, trace)
        if not ran:
            raise StudyError(f"{args.trace}: there is no call in it, so there is nothing to draw")
        root = trace.tree()
        joined = conversation.is_joined(trace)
        if joined and args.start is None and not args.only:
            root = conversation.chosen(root)
        chosen = select(root, start=args.start, globs=args.only, number=args.thread, depth=args.depth)
        graph = callgraph.of_tree(chosen, title, open_source(ran), links)
        if joined:
            conversation.add_arrows(graph, trace, chosen)
    graph.limit = args.boxes
    graph.save(args.output)
    print(f"{args.output}: {len(graph.boxes)} functions, {len(graph.arrows)} different calls")
    return 0
