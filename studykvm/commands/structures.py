"""studykvm structures: the structures of a trace at one step, drawn as boxes and pointers."""

import argparse


def main(argv: list[str]) -> int:
    """Draw."""
    parser = argparse.ArgumentParser(
        prog="studykvm structures",
        description="Draw the structures of a trace at one step: boxes with fields, arrows for pointers.",
    )
    parser.add_argument("trace", metavar="TRACE")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--step", type=int, metavar="N", help="after step N")
    place.add_argument("--at", metavar="FUNC[:enter|:exit][#k]", help="at the k-th call of FUNC (first)")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="OUT.svg, .png, .pdf or .dot")
    parser.add_argument(
        "--only", action="append", default=[], metavar="GLOB",
        help="start from these structs or objects; repeat (default: BlockDriverState)",
    )  # fmt: skip
    parser.add_argument("--boxes", type=int, default=14, metavar="N", help="at most N structures (14)")
    args = parser.parse_args(argv)
    from graphs.draw import engine, structures
    from tracer import load

    trace = load(args.trace)
    step, since = structures.find_step(trace, args.at or str(args.step))
    engine.write(structures.to_dot(trace, step, since, args.only, args.boxes), args.output)
    print(f"{args.output}: after step {step}")
    return 0
