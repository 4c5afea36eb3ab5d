"""From DOT to a file, by the Graphviz that the pygraphviz wheel carries: no `dot`, no system font needed.

- `render(dot, format) -> bytes`: svg, png, pdf or dot.
- `write(dot, path)`: the format by the name's ending.
- `size(dot) -> (width, height)`: of the laid-out drawing, in points.

The drawings use Roboto from PyPI, so they look the same on every machine. An SVG names stand-ins for
viewers that lack it, and how wide each text is, so that no stand-in runs out of its box.
"""

import html
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from graphs.errors import GraphsError

FONT = "Roboto"
FORMATS = ("svg", "png", "pdf", "dot")


def write(dot: str, path: str | Path) -> None:
    """Render into a file.

    Raises
    ------
    GraphsError
        If the ending is none of `FORMATS`.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        wanted = ", ".join(f"{path.stem}.{kind}" for kind in FORMATS)
        raise GraphsError(f"{path}: cannot draw a {kind or 'file without an ending'}; name it {wanted}")
    data = render(dot, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def render(dot: str, format: str) -> bytes:
    """Lay out a graph and return it in the given format."""
    if format == "dot":
        return dot.encode()
    graph = _graphviz().AGraph(string=dot)
    graph.graph_attr["dpi"] = "144" if format == "png" else "72"
    data: bytes = graph.draw(format=format, prog="dot")
    if format == "svg":
        layout = json.loads(graph.draw(format="json", prog="dot"))
        return _for_any_font(data.decode(), _widths(layout)).encode()
    return data


def _widths(layout: Any) -> dict[tuple[float, float, str], float]:
    """Return the width of each text that Graphviz's JSON draws, by its place and what it says."""
    widths: dict[tuple[float, float, str], float] = {}
    parts = [layout]
    while parts:
        part = parts.pop()
        if isinstance(part, dict) and part.get("op") == "T":
            x, y = part["pt"]
            widths[x, y, part["text"]] = part["width"]
        elif isinstance(part, dict | list):
            parts += part.values() if isinstance(part, dict) else part
    return widths


def _for_any_font(svg: str, widths: dict[tuple[float, float, str], float]) -> str:
    """Name stand-ins for the font, and have each text drawn as wide as with the font itself."""

    def fit(text: re.Match[str]) -> str:
        x, y, attributes, content = text.groups()
        width = widths.get((float(x), -float(y), html.unescape(content)))
        length = f' textLength="{width:g}" lengthAdjust="spacingAndGlyphs"' if width else ""
        return f'x="{x}" y="{y}"{length}{attributes}>{content}</text>'

    svg = re.sub(r'x="([^"]*)" y="([^"]*)"([^<>]*)>([^<>]+)</text>', fit, svg)
    stand_ins = f'font-family="{FONT}, Helvetica, Arial, Liberation Sans, sans-serif"'
    svg = svg.replace(f'font-family="{FONT} Bold"', f'{stand_ins} font-weight="bold"')
    return svg.replace(f'font-family="{FONT}"', stand_ins)


def size(dot: str) -> tuple[float, float]:
    """Lay out a graph and return its width and height.

    >>> width, height = size("digraph { a -> b -> c }")
    >>> width < height
    True
    """
    graph = _graphviz().AGraph(string=dot)
    graph.layout(prog="dot")
    left, bottom, right, top = map(float, graph.graph_attr["bb"].split(","))
    return right - left, top - bottom


@cache
def _graphviz() -> Any:
    """Import pygraphviz and let its fontconfig, which reads its settings once, find our font only."""
    import pygraphviz

    fonts = files("font_roboto") / "files"
    before = os.environ.get("FONTCONFIG_FILE")
    with tempfile.TemporaryDirectory(prefix="studykvm-fonts-") as folder, _quiet():
        settings = Path(folder, "fonts.conf")
        settings.write_text(
            '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">'
            f"<fontconfig><dir>{escape(str(fonts))}</dir><cachedir>{folder}</cachedir>"
            # Pango rounds the places of letters of hinted fonts, which looks bad when scaled.
            '<match target="font"><edit name="hinting"><bool>false</bool></edit></match></fontconfig>',
            encoding="utf-8",
        )
        os.environ["FONTCONFIG_FILE"] = str(settings)
        try:
            pygraphviz.AGraph(string=f'digraph {{ a [fontname="{FONT}"] }}').draw(format="png", prog="dot")
        finally:
            if before is None:
                del os.environ["FONTCONFIG_FILE"]
            else:
                os.environ["FONTCONFIG_FILE"] = before
    return pygraphviz


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what C code prints: fontconfig complains of sample files of newer versions."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
