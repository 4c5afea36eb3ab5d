"""The three tiers of what a call through a pointer may reach, each within the one before.

signature   every function whose address is taken and whose type has the same shape
field       of these, the ones put into that field by name anywhere, and, if anything else is put there too,
            those that are handed around as values
flow        the ones whose name really flows to the pointer; the index's edges

A function that a cast lets flow where its type does not fit belongs to all three.

- `Tiering(index)`: works them out; `tiering.of(site)` is a `Tiers` with three sets of function numbers.
- `tiering.beyond(site)`: the functions that only the wider tiers have, each with the narrowest one that does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from graphs.index.facts import ADDRESS
from graphs.index.query import Index
from graphs.index.resolve import compatible


@dataclass(frozen=True)
class Tiers:
    """Functions by number; `flow` is within `field`, `field` within `signature`."""

    signature: frozenset[int]
    field: frozenset[int]
    flow: frozenset[int]


class Tiering:
    """The tiers of an index's calls through pointers."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._shaped: dict[str, list[tuple[int, int]]] = {}
        self._fields: dict[int, frozenset[int]] = {}

    def of(self, site: int) -> Tiers:
        """The tiers of the call through a pointer with that number."""
        klass, kind, through, programs = self.index.db.execute(
            "SELECT class, kind, through, programs FROM sites WHERE id = ?", (site,)
        ).fetchone()
        programs &= self.index.mask
        flow = frozenset(self._flow[site])
        fitting = frozenset(n for n, bits in self._fitting(klass) if bits & programs) | flow
        if kind != "field" or through is None:
            return Tiers(fitting, fitting, flow)
        return Tiers(fitting, (self._stored(through) & fitting) | flow, flow)

    def beyond(self, site: int) -> Iterator[tuple[int, str]]:
        """Functions that the flow tier leaves out, with "field" or "signature"."""
        found = self.of(site)
        for number in sorted(found.signature - found.flow):
            yield number, "field" if number in found.field else "signature"

    @cached_property
    def _flow(self) -> dict[int, set[int]]:
        out: dict[int, set[int]] = defaultdict(set)
        for site, callee, programs in self.index.db.execute(
            "SELECT site, callee, programs FROM edges WHERE site IS NOT NULL"
        ):
            if programs & self.index.mask:
                out[site].add(callee)
        return out

    @cached_property
    def _taken(self) -> list[tuple[int, str, int]]:
        """Functions whose address is taken somewhere."""
        return self.index.db.execute(
            "SELECT DISTINCT f.id, f.class, f.programs FROM functions f "
            "JOIN refs r ON r.symbol = f.symbol WHERE r.use = ?",
            (ADDRESS,),
        ).fetchall()

    def _fitting(self, klass: str) -> list[tuple[int, int]]:
        if klass not in self._shaped:
            self._shaped[klass] = [
                (n, bits) for n, own, bits in self._taken if klass and compatible(klass, own)
            ]
        return self._shaped[klass]

    def _stored(self, field: int) -> frozenset[int]:
        if field not in self._fields:
            others = self.index.db.execute(
                "SELECT 1 FROM flows fl JOIN symbols s ON s.id = fl.source "
                "WHERE fl.target = ? AND s.kind != 'function'",
                (field,),
            ).fetchone()
            named = self._functions("fl.target = ?", field)
            # If something else is put there, whatever is handed around as a value may come with it.
            self._fields[field] = named if others is None else named | self._handed_around
        return self._fields[field]

    @cached_property
    def _handed_around(self) -> frozenset[int]:
        return self._functions(
            "EXISTS (SELECT 1 FROM symbols t WHERE t.id = fl.target AND t.kind != 'field')"
        )

    def _functions(self, where: str, *values: object) -> frozenset[int]:
        query = f"SELECT DISTINCT f.id FROM flows fl JOIN functions f ON f.symbol = fl.source WHERE {where}"
        return frozenset(row[0] for row in self.index.db.execute(query, values))
