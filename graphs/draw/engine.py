"""From DOT to a file, by the Graphviz that the pygraphviz wheel carries: no `dot`, no system font needed.

- `render(dot, format) -> bytes`: svg, png, pdf or dot.
- `layout(dot)`: where everything would be, as Graphviz's JSON; `size(dot)`: width and height, in points.
- `text_widths(labels)`: how wide texts are.

The drawings use Roboto from PyPI, so they look the same on every machine. An SVG names stand-ins for
viewers that lack it, and how wide each text is, so that no stand-in runs out of its box.
"""

import html
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from graphs.draw.dot import TURNED

FONT = "Roboto"
FORMATS = ("svg", "png", "pdf", "dot")
# Graphviz names an arrow by its ends as they are laid out: "head->tail" where it was turned round.
_TURNED = re.compile(rf'(class="edge {TURNED}">\s*<title>)(.*?)&#45;&gt;(.*?)(</title>)')


def render(dot: str, format: str, prog: str = "dot") -> bytes:
    """Lay out a graph and return it in the given format.

    Parameters
    ----------
    dot : str
        The graph.
    format : str
        One of `FORMATS`.
    prog : str
        Graphviz's engine; "nop2" takes the places that the graph itself names.
    """
    if format == "dot":
        return dot.encode()
    if format != "svg":
        return _laid(dot, (format,), prog, dpi="96" if format == "png" else "72")[0]
    data, laid = _page(dot, prog)
    widths = {(x, y, text): width for x, y, text, width in _texts(json.loads(laid))}
    return _TURNED.sub(r"\1\3&#45;&gt;\2\4", _for_any_font(data.decode(), widths)).encode()


def layout(dot: str) -> Any:
    """Lay out a graph and return what Graphviz's JSON says of it."""
    return json.loads(_page(dot, "dot")[1])


@lru_cache(1)
def _page(dot: str, prog: str) -> list[bytes]:
    """SVG and JSON of a graph: what was laid out to be looked at is often drawn next."""
    return _laid(dot, ("svg", "json"), prog, dpi="72")


def text_widths(labels: Iterable[str]) -> dict[str, float]:
    """Return the width in points of each text of HTML-like labels, by what it says.

    >>> widths = text_widths(["short", "somewhat longer"])
    >>> widths["short"] < widths["somewhat longer"]
    True
    """
    lines = "<br/>".join(labels)
    found = _texts(layout(f'graph {{ a [shape=plain, fontname="{FONT}", fontsize=10, label=<{lines}>] }}'))
    return {text: width for _, _, text, width in found}


def _texts(layout: Any) -> Iterator[tuple[float, float, str, float]]:
    """Yield each text that Graphviz's JSON draws: its place, what it says, its width."""
    parts = [layout]
    while parts:
        part = parts.pop()
        if isinstance(part, dict) and part.get("op") == "T":
            x, y = part["pt"]
            yield x, y, part["text"], part["width"]
        elif isinstance(part, dict | list):
            parts += part.values() if isinstance(part, dict) else part


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
    """Width and height of a graph laid out, but for what arrows take beyond the boxes: they are not led.

    >>> width, height = size("digraph { a -> b -> c }")
    >>> width < height
    True
    """
    _, _, width, height, *_ = _laid(dot, ("plain",), splines="none")[0].split(maxsplit=4)
    return 72 * float(width), 72 * float(height)


def _laid(dot: str, formats: Iterable[str], prog: str = "dot", **attributes: str) -> list[bytes]:
    """Lay out a graph once and return it in each of the formats."""
    pygraphviz, context = _graphviz()
    graph, graphviz = pygraphviz.AGraph(string=dot), pygraphviz.graphviz
    graph.graph_attr.update(attributes)
    if graphviz.gvLayout(context, graph.handle, prog.encode()):
        raise ValueError(f"Graphviz cannot lay out the graph with {prog}")
    try:
        # In front of the data stands whether there was an error, of which the binding has raised already.
        return [graphviz.gvRenderData(context, graph.handle, format.encode())[1] for format in formats]
    finally:
        graphviz.gvFreeLayout(context, graph.handle)


@cache
def _graphviz() -> tuple[Any, Any]:
    """Import pygraphviz and let its fontconfig, which reads its settings once, find our font only.

    With it comes a context of Graphviz, to be used again.
    """
    import pygraphviz

    fonts = files("font_roboto") / "files"
    before = os.environ.get("FONTCONFIG_FILE")
    with tempfile.TemporaryDirectory(prefix="studykvm-fonts-") as folder, _quiet():
        settings = Path(folder, "fonts.conf")
        settings.write_text(
            '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">'
            f"<fontconfig><dir>{html.escape(str(fonts))}</dir><cachedir>{folder}</cachedir>"
            # Pango rounds the places of letters of hinted fonts, which looks bad when scaled.
            '<match target="font"><edit name="hinting"><bool>false</bool></edit></match></fontconfig>',
            encoding="utf-8",
        )
        os.environ["FONTCONFIG_FILE"] = str(settings)
        try:
            context = pygraphviz.graphviz.gvContextWithBuiltins()
            graph = pygraphviz.AGraph(string=f'digraph {{ a [fontname="{FONT}"] }}')
            pygraphviz.graphviz.gvLayout(context, graph.handle, b"dot")
            pygraphviz.graphviz.gvFreeLayout(context, graph.handle)
        finally:
            if before is None:
                del os.environ["FONTCONFIG_FILE"]
            else:
                os.environ["FONTCONFIG_FILE"] = before
    return pygraphviz, context


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
