"""Initialiser lists as they were written: positions, designators and left-out braces are followed here.

libclang shows lists as the programmer wrote them, so which field the third value of an inner list fills must
be worked out from the types, by C's own rules (C99 6.7.8).

- `Initialisers.variable(node, symbol, table)`: one list that initialises a variable or a compound literal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphs.index import clang
from graphs.index.clang import K_DECLREF, K_INITLIST, K_MEMBERREF, K_STRING, K_UNEXPOSED, Type
from graphs.index.facts import INITIALISED
from graphs.index.symbols import CONSTANT, FUNCTION, Record, Symbol

if TYPE_CHECKING:
    from graphs.index.bodies import Body


class Initialisers:
    """Reads the initialiser lists of one translation unit."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.lib = clang.library()
        self.table: Symbol | None = None
        self.items: list[list[int]] = []
        self.name: tuple[str, int] | None = None
        self.depth = 0

    def variable(self, node: int, symbol: Symbol, table: bool) -> None:
        """Follow the list at `node`, which initialises `symbol`; keep the rows of a `table` at file scope."""
        kind = self.lib.getCursorType(self.body.tree.cursor[node])
        if not table and not self.body.taken and not self._interesting(node):
            return
        self.table = symbol if table and symbol.number >= 0 else None
        self._fill(node, kind, symbol, 0)

    def _interesting(self, node: int) -> bool:
        body = self.body
        end = body.tree.end[node]
        return any(node < i < end and s.carrier in ("f", "v", "a") for i, s in body.symbol_at.items())

    def _fill(self, node: int, kind: Type, target: Symbol, depth: int) -> None:
        canonical = self.lib.getCanonicalType(kind)
        values = self.body.tree.below(node)
        if canonical.kind in clang.ARRAYS:
            self._array(values, 0, canonical, target, depth)
        elif canonical.kind == clang.T_RECORD:
            record = self.body.symbols.record(self.lib.getTypeDeclaration(canonical))
            if depth <= 1:
                self._row(node, record, values, target, depth)
            else:
                self._record(values, 0, record, target, depth)
        elif values:
            self._scalar(values[0], target)

    def _row(self, node: int, record: Record, values: list[int], target: Symbol, depth: int) -> None:
        """A struct at the top of a table: what stands in it is remembered together with its string."""
        outer = self.items, self.name
        self.items, self.name = [], None
        self._record(values, 0, record, target, depth)
        if self.table is not None and self.name is not None:
            body = self.body
            where = body.places.of(body.lib.getCursorLocation(body.tree.cursor[node]))
            string, _ = self.name
            number = len(body.unit.rows)
            body.unit.rows.append([self.table.number, number, string, where, self.items])
        self.items, self.name = outer

    def _array(self, values: list[int], at: int, kind: Type, target: Symbol, depth: int) -> int:
        lib, tree = self.lib, self.body.tree
        element = lib.getCanonicalType(lib.getArrayElementType(kind))
        aggregate = element.kind == clang.T_RECORD or element.kind in clang.ARRAYS
        while at < len(values):
            node = values[at]
            if self._designated(node):
                if depth and tree.kind[node + 1] == K_MEMBERREF:
                    return at
                if element.kind == clang.T_RECORD and any(
                    tree.kind[child] == K_MEMBERREF for child in tree.below(node)[:-1]
                ):
                    record = self.body.symbols.record(lib.getTypeDeclaration(element))
                    self._by_name(node, record, depth + 1)
                    at += 1
                    continue
                node = tree.last(node)
            if not aggregate:
                self._scalar(node, target)
                at += 1
            elif tree.kind[node] == K_INITLIST:
                self._fill(node, element, target, depth + 1)
                at += 1
            elif node != values[at]:
                # Behind a designator stands one value, braces or not.
                self._flat([node], 0, node, element, target, depth + 1)
                at += 1
            else:
                at = max(at + 1, self._flat(values, at, node, element, target, depth + 1))
        return at

    def _flat(self, values: list[int], at: int, node: int, kind: Type, target: Symbol, depth: int) -> int:
        """A value where an aggregate is due: it is that aggregate, or its first member, braces left out."""
        own = self.lib.getCanonicalType(self.lib.getCursorType(self.body.tree.cursor[node]))
        if own.kind == kind.kind and own.kind in (clang.T_RECORD, *clang.ARRAYS):
            return at + 1
        if kind.kind in clang.ARRAYS:
            if self._string(node) is not None:
                return at + 1
            return max(at + 1, self._counted(values, at, kind, target, depth))
        record = self.body.symbols.record(self.lib.getTypeDeclaration(kind))
        return max(at + 1, self._record(values, at, record, target, depth, elided=True))

    def _counted(self, values: list[int], at: int, kind: Type, target: Symbol, depth: int) -> int:
        size = max(1, self.lib.getArraySize(kind))
        element = self.lib.getCanonicalType(self.lib.getArrayElementType(kind))
        for _ in range(size):
            if at >= len(values) or self._designated(values[at]):
                break
            if element.kind == clang.T_RECORD or element.kind in clang.ARRAYS:
                at = self._flat(values, at, values[at], element, target, depth)
            else:
                self._scalar(values[at], target)
                at += 1
        return at

    def _record(
        self, values: list[int], at: int, record: Record, target: Symbol, depth: int, elided: bool = False
    ) -> int:
        tree = self.body.tree
        position = 0
        first = at
        while at < len(values):
            node = values[at]
            if self._designated(node):
                if elided and at > first:
                    return at
                if tree.kind[node + 1] != K_MEMBERREF:
                    return at
                position = self._by_name(node, record, depth) + 1
                at += 1
                continue
            if position >= len(record.fields):
                return at
            at = self._member(values, at, record, position, depth)
            position += 1
            if record.union:
                return at if elided else len(values)
            if elided and position >= len(record.fields):
                return at
        return at

    def _member(self, values: list[int], at: int, record: Record, position: int, depth: int) -> int:
        symbol, kind, nested = record.fields[position]
        node = values[at]
        canonical = self.lib.getCanonicalType(kind)
        if self.body.tree.kind[node] == K_INITLIST:
            if nested is not None and canonical.kind == clang.T_RECORD:
                self._record(self.body.tree.below(node), 0, nested, symbol, depth + 2)
            else:
                self._fill(node, kind, symbol, depth + 2)
            return at + 1
        if nested is not None and canonical.kind == clang.T_RECORD:
            return max(at + 1, self._record(values, at, nested, symbol, depth + 2, elided=True))
        if canonical.kind == clang.T_RECORD or canonical.kind in clang.ARRAYS:
            return self._flat(values, at, node, canonical, symbol, depth + 2)
        self._scalar(node, symbol)
        return at + 1

    def _by_name(self, node: int, record: Record, depth: int) -> int:
        """Initialise the member that designators name; its position among the fields of `record`."""
        body = self.body
        tree = body.tree
        children = tree.below(node)
        symbol: Symbol = body.symbols.nothing
        position, within = 0, record
        outermost = True
        for child in children[:-1]:
            if tree.kind[child] != K_MEMBERREF:
                continue
            named = body.symbol_at.get(child)
            if named is None:
                continue
            symbol = named
            index = self._index(within, named)
            if outermost:
                position, outermost = index, False
            if 0 <= index < len(within.fields) and within.fields[index][2] is not None:
                within = within.fields[index][2] or within
        value = children[-1]
        if tree.kind[value] == K_INITLIST:
            kind = self.lib.getCursorType(tree.cursor[value])
            self._fill(value, kind, symbol, depth + 2)
        else:
            self._scalar(value, symbol)
        return position

    def _index(self, record: Record, symbol: Symbol) -> int:
        for index, (own, _kind, nested) in enumerate(record.fields):
            if own.number == symbol.number >= 0:
                return index
            if nested is not None and own.number < 0 and self._index(nested, symbol) >= 0:
                return index
        return -1

    def _designated(self, node: int) -> bool:
        tree = self.body.tree
        if tree.kind[node] != K_UNEXPOSED:
            return False
        if not tree.several(node):
            return False
        return bool(
            tree.kind[node + 1] == K_MEMBERREF
            or self.lib.getCanonicalType(self.lib.getCursorType(tree.cursor[node])).kind == clang.T_VOID
        )

    def _string(self, node: int) -> str | None:
        tree = self.body.tree
        inner = self.body.strip(node)
        if tree.kind[inner] != K_STRING:
            return None
        return clang.text(self.lib.getCursorSpelling(tree.cursor[inner]))[1:-1]

    def _scalar(self, node: int, target: Symbol) -> None:
        """One value goes into one place."""
        body = self.body
        values = body.values(node)
        inner = body.strip(node)
        if values and target.number >= 0:
            where = body.places.of(self.lib.getCursorLocation(body.tree.cursor[inner]))
            body.flow_numbers(target.number, values, INITIALISED, where)
        if self.table is None:
            return
        if body.tree.kind[inner] == K_STRING:
            if self.name is None:
                string = self._string(node)
                if string:
                    self.name = (string, inner)
        elif body.tree.kind[inner] == K_DECLREF:
            symbol = body.symbol_at.get(inner)
            if symbol is not None and symbol.kind in (FUNCTION, CONSTANT) and symbol.number >= 0:
                self.items.append([target.number, symbol.number])
