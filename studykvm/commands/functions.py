"""studykvm functions: every modelled function, by C file, with its place in Python."""

import argparse
from itertools import groupby
from typing import NamedTuple


class _Place(NamedTuple):
    file: str
    name: str
    module: str
    line: int


def main(argv: list[str]) -> int:
    """List."""
    parser = argparse.ArgumentParser(
        prog="studykvm functions",
        description="List every function of QEMU that the model has: C file, function, Python module, line.",
    )
    parser.add_argument("--tsv", action="store_true", help="one line each, separated by tabs")
    args = parser.parse_args(argv)
    functions = sorted(modelled())
    if args.tsv:
        for function in functions:
            print(*function, sep="\t")
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


def modelled() -> list[_Place]:
    """All of the model, with those that are traced only on --trace-io."""
    from studykvm.model import load_model

    places = [_Place(f.file, f.name, f.module, f.line) for f in load_model()]
    from hypervisor import trace_io

    for function in trace_io.waiting():
        file, line = function.__globals__["C_FILE"], function.__code__.co_firstlineno
        places.append(_Place(file, function.__name__, function.__module__, line))
    return places
