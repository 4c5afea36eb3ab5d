"""`studykvm trace`: show, count, export and join traces.

- `main(argv) -> int`: 0; 1 when the trace is damaged, after what could be read was printed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from studykvm.options import natural, positive, warn_if_damaged
from tracer import TracerError, load
from tracer.export import FORMATS, exporter
from tracer.passes import Node, select, walk
from tracer.text import tree_lines
from tracer.trace import Trace
from tracer.values import escape


def main(argv: list[str]) -> int:
    """Run the command; see the module's docstring."""
    options = _parser().parse_args(argv)
    if options.action == "join":
        return _join(options)
    trace = load(options.trace)
    try:
        if options.action == "export":
            _export(trace, options)
        else:
            _print(_shown(trace, options) if options.action == "show" else _counted(trace, options))
    except BrokenPipeError:
        # the reader has what it wanted; the interpreter must not try to flush the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    warn_if_damaged(options.trace, trace)
    return int(trace.damage is not None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="studykvm trace", description="Show, count, export or join traces.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="print the call tree")
    stats = actions.add_parser("stats", help="print counts and times by function")
    export = actions.add_parser("export", help="write the trace in another format")
    join = actions.add_parser("join", help="make one trace of the two sides of a migration")
    join.add_argument("source", metavar="SRC", help="the source's trace")
    join.add_argument("destination", metavar="DST", help="the destination's trace")
    join.add_argument("-o", dest="output", metavar="OUT", required=True, help="the joined trace")
    for action in (show, stats, export):
        action.add_argument("trace", metavar="FILE", help="a trace, as --trace FILE records it")
        action.add_argument(
            "--from", dest="start", metavar="FUNC", help="start at the outermost calls of FUNC"
        )
        action.add_argument("--depth", type=positive, metavar="N", help="N levels")
        action.add_argument(
            "--only", action="append", default=[], metavar="GLOB", help="functions or files; repeat"
        )
        action.add_argument("--thread", type=natural, metavar="N", help="one thread; 0 is the main one")
    for action in (show, export):
        only_text = "" if action is show else "; with --format text"
        action.add_argument(
            "--fold", action=argparse.BooleanOptionalAction, help=f"fold repeats (default){only_text}"
        )
        action.add_argument("--args", action="store_true", help=f"arguments and return values{only_text}")
        action.add_argument(
            "--state", action="store_true", help=f"field writes under the call that made them{only_text}"
        )
    export.add_argument("--format", required=True, metavar="NAME", help=", ".join(FORMATS))
    export.add_argument("-o", dest="output", metavar="OUT", help="file to write; default is standard output")
    return parser


def _join(options: argparse.Namespace) -> int:
    from graphs.migration_join import join

    found = join(load(options.source), load(options.destination), options.output)
    print(
        f"{options.output}: {found.events:,} events; {found.written:,} bytes written, {found.read:,} read,"
        f" aligned at {found.places:,} places; the destination's clock moved by {found.shift / 1e6:.3f} ms"
    )
    return 0


def _tree(trace: Trace, options: argparse.Namespace) -> Node:
    return select(
        trace.tree(), start=options.start, globs=options.only, number=options.thread, depth=options.depth
    )


def _conversation(trace: Trace, options: argparse.Namespace) -> bool:
    """Whether to show two sides beside each other: a joined trace, and nobody asks for a thread or values."""
    return "stream" in trace.meta and options.thread is None and not options.args and not options.state


def _sides(trace: Trace, options: argparse.Namespace) -> Node:
    from graphs.conversation import chosen

    root = trace.tree()
    if options.start is None and not options.only:
        root = chosen(root)
    return select(root, start=options.start, globs=options.only, depth=options.depth)


def _shown(trace: Trace, options: argparse.Namespace) -> Iterator[str]:
    if _conversation(trace, options):
        from graphs.conversation import text_lines

        return text_lines(trace, _sides(trace, options))
    writes = trace.writes() if options.state else ()
    fold_repeats = options.fold is not False
    return tree_lines(_tree(trace, options), fold_repeats=fold_repeats, args=options.args, writes=writes)


def _counted(trace: Trace, options: argparse.Namespace) -> Iterator[str]:
    part = any(x not in (None, []) for x in (options.start, options.only, options.thread, options.depth))
    stats = trace.stats({node.call for node, _ in walk(_tree(trace, options)) if node.call} if part else None)
    if not part:
        yield f"events      {stats.events}"
    yield f"calls       {stats.calls}" + (f" ({stats.open_calls} without an end)" if stats.open_calls else "")
    yield f"threads     {stats.threads}"
    if not part:
        yield f"structures  {stats.structures}"
        yield f"writes      {stats.writes}"
    yield f"duration    {stats.duration / 1e6:.3f} ms"
    if stats.functions:
        yield ""
        yield f"{'calls':>9} {'own ms':>10} {'total ms':>10} {'raised':>7}  function"
    for row in stats.functions:
        times = f"{row.own / 1e6:10.3f} {row.total / 1e6:10.3f}"
        yield f"{row.calls:9} {times} {row.exceptions:7}  {escape(row.info.file)}:{escape(row.info.name)}"


def _export(trace: Trace, options: argparse.Namespace) -> None:
    if options.format == "mermaid" and _conversation(trace, options):
        from graphs.conversation import mermaid_lines

        lines = mermaid_lines(trace, _sides(trace, options))
    else:
        lines = exporter(options.format).lines(trace, _tree(trace, options))
    if options.fold is not None or options.args or options.state:
        if options.format != "text":
            raise TracerError(f"--fold, --args and --state are for --format text, not for {options.format}")
        lines = _shown(trace, options)
    if options.output is None:
        _print(lines)
        return
    try:
        with open(options.output, "w", encoding="utf-8", errors="backslashreplace") as out:
            out.writelines(line + "\n" for line in lines)
    except OSError as error:
        raise TracerError(f"{options.output}: cannot write: {error.strerror}") from error


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        print(line.encode("utf-8", "backslashreplace").decode())
    sys.stdout.flush()
