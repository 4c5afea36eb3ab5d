"""graphs: the evidence beside a trace, and all drawing.

What the real program did (recordings), what its source says (the index), and how a trace
of the model compares with both. Knows `tracer`, not `hypervisor`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from graphs.index.api import CallGraph


def open(path: str | Path | None = None, program: str | None = None) -> CallGraph:
    """Open a source index as a `networkx.MultiDiGraph`; see `graphs.index.api` for its attributes.

    Parameters
    ----------
    path : str or Path, optional
        An index made by `studykvm index`; by default the one of qemu-kvm 0.12.4, which ships.
    program : str, optional
        Only this link set: "system", "img", "io" or "nbd".

    Raises
    ------
    GraphsError
        when the file is missing, damaged, or of another version.
    """
    from graphs.index.api import open_index

    return open_index(path, program)
