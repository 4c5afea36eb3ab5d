"""studykvm functions: every modelled function, by C file, with its place in Python."""

import argparse
from itertools import groupby


def main(argv: list[str]) -> int:
    """List."""
    parser = argparse.ArgumentParser(
        prog="studykvm functions",
        description="List every function of QEMU that the model has: C file, function, Python module, line.",
    )
    parser.add_argument("--tsv", action="store_true", help="one line each, separated by tabs")
    args = parser.parse_args(argv)
    from studykvm.model import load_model

    functions = sorted(load_model(), key=lambda f: (f.file, f.name, f.module, f.line))
    if args.tsv:
        for function in functions:
            print(function.file, function.name, function.module, function.line, sep="\t")
        return 0
    width = max(len(function.name) for function in functions)
    for file, members in groupby(functions, key=lambda function: function.file):
        listed = list(members)
        print(f"{file}  ({len(listed)})")
        for function in listed:
            print(f"  {function.name:<{width}}  {function.module}:{function.line}")
    files = len({function.file for function in functions})
    print(f"{len(functions):,} functions of {files} C files")
    return 0
