"""studykvm compare: a trace of the model beside the real source, and a recording of the real program."""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from studykvm import options

if TYPE_CHECKING:
    from graphs.calls import CallTable, Name
    from graphs.recordings import Recording
    from graphs.witnesses import Call


def main(argv: list[str]) -> int:
    """Compare; the exit status is 1 when the model calls what the source does not, or in another order."""
    parser = argparse.ArgumentParser(
        prog="studykvm compare",
        description="Lay the calls of a trace over the source of qemu-kvm 0.12.4, and over a recording of it:"
        " which call between two functions did who see?",
    )
    parser.add_argument("trace", nargs="?", metavar="TRACE", help="a trace (or NAME.calls.gz) to compare")
    parser.add_argument(
        "destination",
        nargs="?",
        metavar="DST",
        help="of a migration: TRACE is the source's, this the other side's",
    )
    parser.add_argument(
        "--recording", metavar="NAME", help="one that ships, or a path to NAME.calls.gz or its folder"
    )
    parser.add_argument(
        "--subtree",
        metavar="FUNC[>INNER][#K]",
        help="with --recording: compare what happened inside the K-th call of FUNC (that called INNER)",
    )
    parser.add_argument(
        "--index", metavar="FILE", help="index of the source (default: 0.12.4's, which ships)"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="draw it: OUT.svg, .png, .pdf, .dot, .mmd, .graphml or .json"
    )
    parser.add_argument("--from", dest="start", metavar="FUNC", help="draw FUNC and what it calls")
    parser.add_argument("--depth", type=options.positive, metavar="N", help="with --from: N calls deep")
    parser.add_argument(
        "--only", action="append", default=[], metavar="GLOB", help="draw these functions or files; repeat"
    )
    parser.add_argument(
        "--boxes", type=options.positive, default=60, metavar="N", help="draw about N boxes (60)"
    )
    parser.add_argument("--all", action="store_true", help="list every call")
    parser.add_argument(
        "--limit", type=options.positive, default=3, metavar="N", help="print N differences (default 3)"
    )
    parser.add_argument("--list", action="store_true", help="list the recordings, and which cannot be equal")
    options.add_links(parser)
    args = parser.parse_args(argv)
    if args.list:
        _list()
        return 0
    if args.trace is None:
        parser.error("wants TRACE; --recording NAME adds the real program (--list names the recordings)")
    if args.destination is not None:
        return _both_sides(args)
    return _compare(args)


def _compare(args: argparse.Namespace) -> int:
    from graphs import recordings
    from graphs.draw.drawing import format_of
    from graphs.witnesses import page, report
    from studykvm import model, options
    from studykvm.errors import StudyError

    if args.depth is not None and args.start is None:
        raise StudyError("--depth counts from a function; name it: --from FUNC")
    if args.output:
        format_of(args.output)
    links = options.links(args)
    if args.subtree is not None and not args.recording:
        raise StudyError("--subtree compares with a recording; name it: --recording d01")
    recording = recordings.load(args.recording) if args.recording else None
    calls, table = _read(args.trace, ordered=recording is not None)
    if not calls:
        raise StudyError(f"{args.trace}: there is no call in it; was something run while it was recorded?")
    if recording and args.subtree is not None:
        return 0 if _inside(table, recording, model.heard()[0], args) else 1
    equal = _in_order(table, recording, model.heard()[0], args.limit) if recording else True
    witnesses = model.witnesses(calls, recording, args.index or os.environ.get("STUDYKVM_INDEX"))
    print("\n".join(report.lines(witnesses, args.all)))
    if args.output:
        part = page.choose(witnesses, args.start, args.depth, args.only)
        start = f", from {args.start}" if args.start else ""
        picture = page.picture(part, f"Who saw the calls of {Path(args.trace).name}{start}", links)
        picture.limit = args.boxes
        picture.save(args.output)
        print(f"\n{args.output}: {len(picture.boxes):,} functions, {len(picture.arrows):,} different calls")
    return 0 if equal and not witnesses.faults else 1


def _read(path: str, ordered: bool) -> "tuple[list[Call], CallTable]":
    """Return the calls, and if they shall be compared in order, as a table too."""
    from graphs.calls import CallTable
    from graphs.witnesses import tabled, traced
    from studykvm.errors import StudyError
    from tracer import load

    if path.endswith((".calls", ".calls.gz")):
        table = CallTable.read(Path(path))
        return tabled(table), table
    trace = load(path)
    if "stream" in trace.meta:
        raise StudyError(f"{path} has both sides of a migration: compare the two traces it was joined of")
    calls = traced(trace)
    options.warn_if_damaged(path, trace)
    return calls, CallTable.from_trace(trace) if ordered else CallTable()


def _in_order(table: "CallTable", recording: "Recording", known: "set[Name]", limit: int) -> bool:
    from graphs.compare import compare, report
    from graphs.compare.parts import compare_part, compare_stream_part, parts, streams

    comparison = compare(table, recording, known)
    print("\n".join(report.lines(comparison, limit)))
    found = [(part, compare_part(table, recording, part, known)) for part in parts(recording)]
    state = [(part, compare_stream_part(table, recording, part, known)) for part in streams(recording)]
    if found or state:
        print("\n".join(report.part_lines(found, state)))
    print()
    equal = all(part is None or part.equal for _, part in found) and not any(lines for _, lines in state)
    return comparison.equal and equal


def _inside(table: "CallTable", recording: "Recording", known: "set[Name]", args: argparse.Namespace) -> bool:
    from graphs.compare import report
    from graphs.compare.parts import Part, Selector, compare_part, compare_stream_part, count, streams
    from studykvm.errors import StudyError

    selector = Selector.parse(args.subtree)
    if Part("", selector) in [replace(part, title="") for part in streams(recording)]:
        differences = compare_stream_part(table, recording, Part("", selector), known)
        if differences is not None:
            print("\n".join(differences or [f"{recording.name}, inside {selector}: equal"]))
            return not differences
    comparison = compare_part(table, recording, Part("", selector), known)
    if comparison is None:
        ours, theirs = count(table, selector), count(recording.calls, selector)
        raise StudyError(f"{selector}: {args.trace} has {ours} such calls and {recording.name} {theirs}")
    print("\n".join(report.lines(comparison, args.limit)))
    return comparison.equal


def _both_sides(args: argparse.Namespace) -> int:
    """Compare what the two sides of a migration did for it; how often its loop turned does not matter."""
    from graphs import recordings
    from graphs.compare.parts import MISSING, compare_stream_parts
    from graphs.wording import counted
    from studykvm import model
    from studykvm.errors import StudyError

    if not args.recording or args.subtree or args.output:
        raise StudyError("two traces are compared with the recordings of a migration: --recording e01")
    equal, known, compared = True, model.heard()[0], 0
    for path, side in ((args.trace, "_src_"), (args.destination, "_dst_")):
        names = [name for name in recordings.names() if name.startswith(args.recording) and side in name]
        if len(names) != 1:
            print(
                f"{path}: {args.recording} is not the name of one recording with {side} in it: not compared\n"
            )
            continue
        compared += 1
        found = compare_stream_parts(_read(path, ordered=True)[1], recordings.load(names[0]), known)
        if all(differences == [MISSING] for _, differences in found):
            raise StudyError(f"{path}: nothing of what {names[0]} shows is in it; is it the other side's?")
        print(f"{path} and {names[0]} (+ the model only, - the recording only)")
        for part, differences in found:
            number = sum(line[0] in "+-" for line in differences)
            print(f"  {part.title + ':':<44} {counted(number, 'difference') if number else 'equal'}")
            print("".join(f"      {line}\n" for line in differences[: 20 * args.limit]), end="")
            equal = equal and not differences
        print()
    if not compared:
        raise StudyError(
            f"{args.recording} names no recordings of a migration; `studykvm compare --list` does"
        )
    print("equal, however often the loop turned" if equal else "not equal")
    return 0 if equal else 1


def _list() -> None:
    from graphs import recordings
    from graphs.compare.scope import known_differences

    for name in recordings.names():
        scenario = recordings.load(name).scenario
        print(f"{name:<34} {scenario.command if scenario else ''}")
    print("\nThese cannot be equal:")
    for name, known in known_differences().items():
        print(f"{name:<34} {known.reason}")
