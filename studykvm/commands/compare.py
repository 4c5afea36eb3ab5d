"""studykvm compare: hold a trace of the model against a recording of the real program."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    """Compare; the exit status is 1 when the calls are not equal."""
    parser = argparse.ArgumentParser(
        prog="studykvm compare",
        description="Lay the calls of a trace over a recording of the real qemu-kvm 0.12.4.",
    )
    parser.add_argument("trace", nargs="?", metavar="TRACE", help="a trace (or NAME.calls.gz) to compare")
    parser.add_argument(
        "--recording", metavar="NAME", help="a recording that ships, or a path to NAME.calls.gz or its folder"
    )
    parser.add_argument("--limit", type=int, default=3, metavar="N", help="print N differences (default 3)")
    parser.add_argument("--list", action="store_true", help="list the recordings, and which cannot be equal")
    args = parser.parse_args(argv)
    if args.list:
        _list()
        return 0
    if args.trace is None or args.recording is None:
        parser.error("wants TRACE and --recording NAME (--list names them)")
    from graphs import recordings
    from graphs.calls import CallTable
    from graphs.compare import compare, report
    from studykvm.model import load_model
    from tracer import load

    recording = recordings.load(args.recording)
    if args.trace.endswith((".calls", ".calls.gz")):
        calls = CallTable.read(Path(args.trace))
    else:
        trace = load(args.trace)
        calls = CallTable.from_trace(trace)
        if trace.damage is not None:
            print(f"studykvm: warning: {args.trace}: {trace.damage}", file=sys.stderr)
    known = {(function.file, function.name) for function in load_model()}
    comparison = compare(calls, recording, known)
    print("\n".join(report.lines(comparison, args.limit)))
    return 0 if comparison.equal else 1


def _list() -> None:
    from graphs import recordings
    from graphs.compare.scope import known_differences

    for name in recordings.names():
        scenario = recordings.load(name).scenario
        print(f"{name:<34} {scenario.command if scenario else ''}")
    print("\nThese cannot be equal:")
    for name, known in known_differences().items():
        print(f"{name:<34} {known.reason}")
