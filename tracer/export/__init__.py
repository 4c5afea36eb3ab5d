"""Traces in the formats of other tools; one module each.

- `FORMATS`: name -> module; `exporter(name)`: the exporter, imported when it is asked for.
- `write(trace, root, name, out)`: exports to a text file.
"""

from __future__ import annotations

import importlib
from typing import TextIO

from tracer.errors import TracerError
from tracer.export.base import Exporter
from tracer.passes import Node
from tracer.trace import Trace

FORMATS = ("text", "calls", "chrome", "folded", "speedscope", "dot", "mermaid", "jsonl")


def exporter(name: str) -> Exporter:
    """Return the exporter of that name.

    Raises
    ------
    TracerError
        For a name that is none of `FORMATS`.

    Examples
    --------
    >>> exporter("chrome").suffix
    '.json'
    """
    if name not in FORMATS:
        raise TracerError(f"--format {name}: no such format; there are {', '.join(FORMATS)}")
    module = importlib.import_module(f"tracer.export.{name}")
    found: Exporter = module.EXPORTER
    return found


def write(trace: Trace, name: str, out: TextIO, root: Node | None = None) -> None:
    """Write a trace, or the tree `root` of a part of it, to a text file in a format."""
    for line in exporter(name).lines(trace, trace.tree() if root is None else root):
        out.write(line + "\n")
