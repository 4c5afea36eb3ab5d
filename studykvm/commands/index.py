"""studykvm index: read C sources into an index file."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from graphs.wording import counted
from studykvm.options import positive

if TYPE_CHECKING:
    from graphs.index.build import Report


def main(argv: list[str]) -> int:
    """Index a tree, a tarball, or files."""
    flags = None
    if "--" in argv:
        at = argv.index("--")
        argv, flags = argv[:at], argv[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="studykvm index",
        description="Read C sources into an index that answers who calls whom, through which pointer, "
        "set where. QEMU trees need no configure; other projects a compile_commands.json, "
        "or flags: FILES -- FLAGS.",
    )
    parser.add_argument(
        "source", nargs="+", metavar="SRC", help="a tree, a tarball, or C files followed by -- FLAGS"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="the index (default: NAME.index here)")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="N processes (1)")
    parser.add_argument(
        "--only", action="append", metavar="GLOB",
        help="only the C files of that folder, or that match: --only block --only 'hw/ide/*'; repeatable",
    )  # fmt: skip
    parser.add_argument("--profile", metavar="NAME", help="read it as that family of trees")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="spread the parsing over a dask.distributed cluster"
    )
    parser.add_argument(
        "--ship", metavar="FILE", help="also write the small form, which has no need of the tree"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")
    args = parser.parse_args(argv)
    from graphs.index import build, store
    from graphs.index.locate import locate, narrowed

    with tempfile.TemporaryDirectory(prefix="studykvm-source-") as folder:
        source = locate(args.source, flags, Path(folder), args.profile)
        if args.only:
            source = narrowed(source, args.only)
        output = Path(args.output or f"{source.tree.name}.index")
        progress = None if args.quiet or not sys.stderr.isatty() else _bar
        try:
            report = build.build(source, output, args.jobs, progress, args.scheduler)
        except KeyboardInterrupt:
            kept = "the old index is as it was" if output.exists() else "no index was written"
            print(f"\nstudykvm: interrupted; {kept}", file=sys.stderr)
            return 130
    if progress is not None:
        print("\r\x1b[K", end="", file=sys.stderr)
    _told(report)
    if args.ship:
        size = store.compress(output, Path(args.ship))
        print(f"{args.ship}: {size / 1e6:.1f} MB")
    return 0


def _bar(done: int, total: int, path: str) -> None:
    width = 30
    filled = width * done // max(total, 1)
    print(
        f"\r\x1b[K[{'#' * filled}{'.' * (width - filled)}] {done}/{total} {path[:60]}",
        end="",
        file=sys.stderr,
    )


def _told(report: "Report") -> None:
    functions, edges = counted(report.functions, "function"), counted(report.edges, "call")
    calling = "that calls" if report.sites == 1 else "that call"
    sites = f"{counted(report.sites, 'place')} {calling} through pointers ({report.unresolved} unresolved)"
    print(f"{report.output}: {functions}, {edges}, {sites}")
    kept = report.files - report.read
    unchanged = f", {kept:,} unchanged" if kept else ""
    print(f"{counted(report.read, 'file')} read{unchanged}, {report.seconds:.1f} s")
    for problem in report.problems:
        print(f"  {problem}")
    if report.failed:
        print(
            f"{counted(len(report.failed), 'file')} with errors; what could be read of them is in the index:"
        )
        for path, errors in sorted(report.failed.items()):
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            print(f"  {path}: {errors[0]}{more}")
