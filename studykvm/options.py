"""Options that several commands share.

- `positive`: the type of a number from 1 on
- `add_links(parser)`, `links(args)`: --tree and --link, where the boxes and arrows of a picture lead.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphs.draw.links import Links


def positive(text: str) -> int:
    """Read a number from 1 on.

    >>> positive("12")
    12
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


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
