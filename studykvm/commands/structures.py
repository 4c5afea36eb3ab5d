"""studykvm structures: the structures of a trace, at one step or step by step, as boxes and pointers."""

import argparse
import os
import sys
from typing import TYPE_CHECKING

from studykvm.errors import StudyError
from studykvm.options import natural, positive, warn_if_damaged

if TYPE_CHECKING:
    from tracer import Trace


def main(argv: list[str]) -> int:
    """Draw."""
    parser = argparse.ArgumentParser(
        prog="studykvm structures",
        description="Draw the structures of a trace: boxes with fields, arrows for pointers, what changed in"
        " yellow. Either at one step (-o), or one picture for each step that changes something (--frames).",
    )
    parser.add_argument("trace", metavar="TRACE")
    parser.add_argument("--step", type=natural, metavar="N", help="after step N")
    parser.add_argument(
        "--at", metavar="FUNC[:enter|:exit][#k]", help="at the k-th call of FUNC; with --frames: during it"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", help="OUT.svg, .png, .pdf, .dot, .mmd, .graphml or .json"
    )
    parser.add_argument(
        "--frames", metavar="DIR", help="a picture a step, and DIR/index.html to step through"
    )
    parser.add_argument("--from", dest="start", metavar="PLACE", help="with --frames: from this step or call")
    parser.add_argument("--until", metavar="PLACE", help="with --frames: up to this step or call")
    parser.add_argument("--most", type=positive, default=200, metavar="N", help="at most N frames (200)")
    parser.add_argument("--format", choices=("svg", "png"), default="svg", help="of the frames (svg)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="GLOB",
        help="start from these structs or objects; repeat (default: BlockDriverState)",
    )  # fmt: skip
    parser.add_argument("--boxes", type=positive, default=14, metavar="N", help="at most N structures (14)")
    args = parser.parse_args(argv)
    if args.frames is None:
        if args.output is None or (args.step is None) == (args.at is None) or args.start or args.until:
            parser.error("wants -o OUT and either --step N or --at FUNC; or --frames DIR")
    elif args.output or args.step is not None or (args.at and (args.start or args.until)):
        parser.error("--frames DIR goes with --at FUNC, or with --from PLACE and --until PLACE")
    from tracer import load

    trace = load(args.trace)
    warn_if_damaged(args.trace, trace)
    return _frames(trace, args) if args.frames else _one(trace, args)


def _one(trace: "Trace", args: argparse.Namespace) -> int:
    from graphs.draw import structures
    from graphs.draw.drawing import format_of

    format_of(args.output)
    place = args.at if args.at is not None else str(args.step)
    drawn = structures.at(trace, place, args.only, args.boxes)
    drawn.save(args.output)
    print(f"{args.output}: after step {drawn.step}")
    return 0


def _frames(trace: "Trace", args: argparse.Namespace) -> int:
    from graphs.draw.frames import Frames, between

    if os.path.exists(args.frames) and not os.path.isdir(args.frames):
        raise StudyError(f"--frames {args.frames}: a file of that name is there; name a folder")
    first, last = between(trace, args.start, args.until, args.at)
    frames = Frames(trace, first, last, args.only, args.boxes, args.most)
    shown = len(frames.frames)
    if shown < frames.total:
        print(
            f"{frames}: the first {shown} are drawn, up to step {frames.frames[-1].step}; go on with"
            f" --from {frames.frames[-1].step}, name a shorter range, or raise --most",
            file=sys.stderr,
        )
    progress = sys.stderr.isatty()

    def tick(done: int) -> None:
        if progress:
            print(f"\r{done} of {shown}", end="" if done < shown else "\n", file=sys.stderr, flush=True)

    frames.write(args.frames, args.format, tick)
    print(f"{args.frames}/index.html: {shown} frames, steps {first} to {frames.frames[-1].step}")
    return 0
