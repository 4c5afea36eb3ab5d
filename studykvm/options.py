"""Options that several commands share.

- `positive`, `natural`: the types of a number from 1 on, from 0 on
- `warn_if_damaged(path, trace)`: for after a trace was read
- `add_links(parser)`, `links(args)`: --tree and --link, where the boxes and arrows of a picture lead.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphs.draw.links import Links
    from tracer import Trace


def positive(text: str) -> int:
    """Read a number from 1 on.

    >>> positive("12")
    12
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def natural(text: str) -> int:
    """Read a number from 0 on.

    >>> natural("0")
    0
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 on")
    return int(text)


def warn_if_damaged(path: str, trace: Trace) -> None:
    """Say what is wrong with a trace, of which only a part was read."""
    if trace.damage is not None:
        damage = trace.damage.removeprefix(f"{path}: ")
        print(f"studykvm: warning: {path}: {damage}", file=sys.stderr)


def add_links(parser: argparse.ArgumentParser) -> None:
    """Add --tree and --link to a command."""
    parser.add_argument("--tree", metavar="DIR", help="the sources: boxes and arrows link to their lines")
    parser.add_argument(
        "--link", metavar="URL", help="link there instead; {file} and {line} are filled in (STUDYKVM_LINK)"
    )


def links(args: argparse.Namespace) -> Links:
    """Return the links that a command's options ask for."""
    from graphs.draw.links import Links

    return Links.of(args.tree, args.link or os.environ.get("STUDYKVM_LINK"))
