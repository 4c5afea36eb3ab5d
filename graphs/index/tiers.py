"""The three tiers of what a call through a pointer may reach, each within the one before.

signature   every function whose address is taken and whose type has the same shape
field       of these, the ones put into that field by name anywhere, and, if anything else is put there too,
            those that are handed around as values
flow        the ones whose name really flows to the pointer; the index's edges

A function that a cast lets flow where its type does not fit belongs to all three.

- `tiers(index, site)`: a `Tiers` with three sets of function numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphs.index.facts import ADDRESS
from graphs.index.query import Index
from graphs.index.resolve import compatible


@dataclass(frozen=True)
class Tiers:
    """Functions by number; `flow` is within `field`, `field` within `signature`."""

    signature: frozenset[int]
    field: frozenset[int]
    flow: frozenset[int]


def tiers(index: Index, site: int) -> Tiers:
    """The tiers of the call through a pointer with that number."""
    klass, kind, through, programs = index.db.execute(
        "SELECT class, kind, through, programs FROM sites WHERE id = ?", (site,)
    ).fetchone()
    flow = frozenset(edge.callee for edge in index._edges("e.site = ?", site))
    programs &= index.mask
    rows = index.db.execute(
        "SELECT DISTINCT f.id, f.class, f.programs FROM functions f "
        "JOIN refs r ON r.symbol = f.symbol WHERE r.use = ?",
        (ADDRESS,),
    )
    fitting = (
        frozenset(n for n, own, bits in rows if bits & programs and klass and compatible(klass, own)) | flow
    )
    if kind != "field" or through is None:
        return Tiers(fitting, fitting, flow)
    return Tiers(fitting, (_stored(index, through) & fitting) | flow, flow)


def _stored(index: Index, field: int) -> frozenset[int]:
    named = _functions(index, "fl.target = ?", field)
    others = index.db.execute(
        "SELECT 1 FROM flows fl JOIN symbols s ON s.id = fl.source "
        "WHERE fl.target = ? AND s.kind != 'function'",
        (field,),
    ).fetchone()
    if others is None:
        return named
    # Something else is put there: whatever is handed around as a value may come with it.
    return named | _functions(
        index, "EXISTS (SELECT 1 FROM symbols t WHERE t.id = fl.target AND t.kind != 'field')"
    )


def _functions(index: Index, where: str, *values: object) -> frozenset[int]:
    query = f"SELECT DISTINCT f.id FROM flows fl JOIN functions f ON f.symbol = fl.source WHERE {where}"
    return frozenset(row[0] for row in index.db.execute(query, values))
