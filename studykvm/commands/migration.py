"""studykvm migration: what is in a saved machine, and how a migration went.

- `show FILE`: the sections of a stream, as `migrate "exec:cat > FILE"` makes it.
- `chart TRACE -o OUT`: pages sent and left at each turn of a migration's loop.
"""

import argparse
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from hypervisor.errors import HypervisorError
from hypervisor.stream_reader import Section, read_stream
from studykvm.errors import StudyError


def main(argv: list[str]) -> int:
    """Show a stream, or draw a migration."""
    parser = argparse.ArgumentParser(prog="studykvm migration", description="Saved and moving machines.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="print the sections of a saved machine")
    show.add_argument("file", metavar="FILE", help='as `migrate "exec:cat > FILE"` makes it')
    show.add_argument("--fields", action="store_true", help="with the fields of every device")
    show.add_argument("--only", action="append", default=[], metavar="NAME", help="this section; repeat")
    chart = actions.add_parser("chart", help="draw pages sent and left, turn by turn")
    chart.add_argument("trace", metavar="TRACE", help="the source's trace")
    chart.add_argument("-o", dest="output", required=True, metavar="OUT", help="OUT.svg or OUT.png")
    args = parser.parse_args(argv)
    return _show(args) if args.action == "show" else _chart(args)


def _show(args: argparse.Namespace) -> int:
    try:
        file = open(args.file, "rb")
    except OSError as error:
        raise StudyError(f"{args.file}: cannot read: {error.strerror}") from error
    total: dict[str, int] = {}
    names: dict[str, None] = {}
    size = 0
    with file:
        sections = _named(args.file, read_stream(file))
        first = next(sections, None)
        print(f"{'offset':>12} {'bytes':>12}  {'part':<5} {'section':<14} {'instance':>8} {'version':>7}")
        for section in itertools.chain([first] if first else [], sections):
            size = section.offset + section.size
            names[section.idstr] = None
            for name, number in section.pages.items():
                total[name] = total.get(name, 0) + number
            if not args.only or section.idstr in args.only:
                _print_section(section, args.fields or bool(args.only))
    print(f"{size + 1:,} bytes{_summary(total)}")
    if unknown := [name for name in args.only if name not in names]:
        raise StudyError(f"--only {', '.join(unknown)}: no such section; there are {', '.join(names)}")
    return 0


def _named(name: str, sections: Iterator[Section]) -> Iterator[Section]:
    """The sections; what is wrong with them is said with the file's name."""
    try:
        yield from sections
    except HypervisorError as error:
        raise StudyError(f"{name}: {error}") from None


def _print_section(section: Section, fields: bool) -> None:
    print(
        f"{section.offset:12,} {section.size:12,}  {section.kind:<5} {section.idstr:<14}"
        f" {section.instance_id:>8} {section.version_id:>7}{_pages(section.pages)}"
    )
    if fields:
        width = max((len(name) for name, _ in section.fields), default=0)
        for name, value in section.fields:
            print(f"{'':14}{name:<{width}}  {_value(value)}")


def _pages(pages: dict[str, int]) -> str:
    words = {
        "memory": "{:,} bytes of memory",
        "whole": "{:,} pages whole",
        "one byte": "{:,} pages of one byte",
        "chunks": "{:,} MiB of disks",
        "percent": "{} % of the disks",
    }
    said = [words[name].format(number) for name, number in pages.items()]
    return f"  {', '.join(said)}" if said else ""


def _summary(total: dict[str, int]) -> str:
    said = []
    if "memory" in total:
        said.append(
            f"{total['memory'] // (1 << 20):,} MiB of memory in {total.get('whole', 0):,} pages whole"
        )
        said.append(f"{total.get('one byte', 0):,} of one byte")
    if "chunks" in total:
        said.append(f"{total['chunks']:,} MiB of disks")
    return f": {', '.join(said)}" if said else ""


def _value(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        filled = value.rstrip(b"\0")
        shown = filled[:24].hex(" ")
        return (
            f"{len(value)} bytes{': ' + shown if shown else ' of zeros'}{' ...' if len(filled) > 24 else ''}"
        )
    if isinstance(value, list):
        return _list(value)
    if value is None:
        return "not set"
    return f"{value:#x}" if isinstance(value, int) and value > 9 else str(value)


def _list(values: Iterable[Any]) -> str:
    found = list(values)
    if found and all(value == found[0] for value in found):
        return f"{len(found)} times {_value(found[0])}"
    return ", ".join(_value(value) for value in found[:16]) + (" ..." if len(found) > 16 else "")


def _chart(args: argparse.Namespace) -> int:
    from graphs.migration import downtime, draw, turns
    from tracer import load

    trace = load(args.trace)
    found, stood = turns(trace), downtime(trace)
    draw(found, args.output, stood)
    said = "" if stood is None else f"; the machine stood for {stood * 1000:.1f} ms"
    print(f"{args.output}: {len(found)} turns, {sum(turn.sent for turn in found):,} pages sent{said}")
    return 0
