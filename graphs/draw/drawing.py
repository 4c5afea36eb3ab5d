"""What every drawing can do: be written in any format, and display itself in Jupyter.

- `Drawing`: base of `graphs.draw.picture.Picture` and `graphs.draw.structures.Structures`.
- `FORMATS`: svg, png, pdf and dot by Graphviz; mmd, graphml and json as text.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from graphs.draw import engine, texts
from graphs.errors import GraphsError

FORMATS = (*engine.FORMATS, *texts.KINDS)


class Drawing:
    """A graph with a layout; subclasses say what it consists of."""

    def dot(self) -> str:
        """Return the page, in Graphviz's language."""
        raise NotImplementedError

    def nodes(self) -> list[dict[str, Any]]:
        """Return all nodes, also those that the page folds: see `graphs.draw.texts`."""
        raise NotImplementedError

    def links(self) -> list[dict[str, Any]]:
        """Return all links."""
        raise NotImplementedError

    def save(self, path: str | Path) -> None:
        """Write into a file, in the format that its ending names.

        Raises
        ------
        GraphsError
            If the ending is none of `FORMATS`, or the file cannot be written.
        """
        kind = format_of(path)
        data = self.rendered(kind)
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(data)
        except OSError as error:
            raise GraphsError(f"{path} cannot be written: {error.strerror}") from None

    def rendered(self, kind: str) -> bytes:
        """Return the drawing in one of `FORMATS`."""
        if kind in texts.KINDS:
            return texts.write(kind, self.nodes(), self.links()).encode()
        return engine.render(self.dot(), kind)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What Jupyter shows: the SVG, and the text where there can be none."""
        bundle = {"text/plain": str(self)}
        # Without Graphviz, or with nothing to draw, the text stands alone.
        with contextlib.suppress(ImportError, GraphsError):
            bundle["image/svg+xml"] = self.rendered("svg").decode()
        return bundle


def format_of(path: str | Path) -> str:
    """Return the format that a file's name asks for.

    >>> format_of("boot.SVG")
    'svg'

    Raises
    ------
    GraphsError
        If there is no such format.
    """
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in FORMATS:
        wanted = ", ".join(f"{Path(path).stem}.{known}" for known in FORMATS)
        raise GraphsError(f"{path}: cannot draw a {kind or 'file without an ending'}; name it {wanted}")
    return kind
