"""What the value of an expression may come from, and where values that may be functions go.

- `Values`: over the nodes of one declaration; `values(i)` gives the numbers of the symbols that node `i` may
  take its value from, `flow(target, i, ...)` notes that it goes into a symbol.
- `strip(i)`: the node inside parentheses and casts; `chosen(i)`: what a generic selection selects.

`bodies.Body` fills `symbol_at` and `site_at` while it passes over the nodes, and answers for calls.
"""

from __future__ import annotations

from bisect import bisect_left

from graphs.index import clang
from graphs.index.clang import (
    K_BINARY,
    K_CALL,
    K_CAST,
    K_COMPOUND_LITERAL,
    K_CONDITIONAL,
    K_DECLREF,
    K_GENERIC,
    K_INITLIST,
    K_MEMBER,
    K_PAREN,
    K_STMTEXPR,
    K_SUBSCRIPT,
    K_UNARY,
    K_UNEXPOSED,
)
from graphs.index.facts import ALIASED, Unit
from graphs.index.places import Places
from graphs.index.symbols import FUNCTION, Symbol, Symbols
from graphs.index.tree import Tree

_WRAPPERS = frozenset({K_UNEXPOSED, K_PAREN, K_CAST})


class Values:
    """Values in one translation unit.

    Attributes
    ----------
    caller, owner : int, Symbol or None
        The function whose body is in the tree: its number in the unit (-1 at file scope), its symbol.
    taken : list of int
        Nodes that name a function other than to call it.
    symbol_at : dict
        Node to the symbol it names.
    site_at : dict
        Call to the node of its callee; below -1, minus two minus the symbol of what an indirect call returns.
    """

    def __init__(self, unit: Unit, tree: Tree, symbols: Symbols, places: Places) -> None:
        self.unit = unit
        self.tree = tree
        self.symbols = symbols
        self.places = places
        self.lib = clang.library()
        self.caller = -1
        self.owner: Symbol | None = None
        self.taken: list[int] = []
        self.symbol_at: dict[int, Symbol] = {}
        self.site_at: dict[int, int] = {}

    def indirect(self, i: int) -> None:
        """Take a call through a pointer that stands inside another one: met first from outside."""
        raise NotImplementedError

    def strip(self, i: int) -> int:
        """The node inside parentheses, casts, and the * and & that mean nothing on functions."""
        kinds, end = self.tree.kind, self.tree.end
        while True:
            kind = kinds[i]
            if kind == K_GENERIC and (chosen := self.chosen(i)):
                i = chosen
                continue
            if kind not in _WRAPPERS and kind != K_UNARY:
                return i
            stop, below = end[i], i + 1
            if below == stop:
                return i
            if end[below] == stop:
                i = below
            elif kind == K_UNEXPOSED:
                return i
            else:
                i = self.tree.last(i)

    def chosen(self, i: int) -> int:
        """The association of a generic selection that has the selection's type; 0 if unsure."""
        values = [child for child in self.tree.below(i)[1:] if self.tree.kind[child] >= 100]
        fitting = [child for child in values if self._type(child) == self._type(i)]
        return fitting[0] if len(fitting) == 1 else 0

    def _type(self, i: int) -> int:
        """The canonical type of a node, by its address."""
        found: int = self.lib.getCanonicalType(self.lib.getCursorType(self.tree.cursor[i])).d0
        return found

    def operator(self, i: int) -> int:
        """The number that libclang gives the binary operator at node `i` (`CXBinaryOperatorKind`)."""
        operator: int = self.lib.getCursorBinaryOperatorKind(self.tree.cursor[i])
        return operator

    def holds_function(self, i: int) -> bool:
        """Whether a function's name stands below node `i`, other than to be called."""
        if not self.taken:
            return False
        position = bisect_left(self.taken, i)
        return position < len(self.taken) and self.taken[position] < self.tree.end[i]

    def may_carry(self, i: int) -> bool:
        """Whether the value of node `i` may be a function: one stands there, or a symbol carrying some."""
        if self.holds_function(i):
            return True
        symbol = self.symbol_at.get(self.strip(i))
        return symbol is not None and symbol.carrier in ("f", "a")

    def values(self, i: int) -> list[int]:
        """Numbers of the symbols that the value of node `i` may come from."""
        tree = self.tree
        kind = tree.kind[i]
        if kind in (K_DECLREF, K_MEMBER):
            return self._named(i)
        if kind == K_CALL:
            return self._returned(i)
        first = i + 1
        if first == tree.end[i]:
            return []
        if kind in (K_CAST, K_PAREN):
            return self.values(tree.last(i))
        if kind == K_UNEXPOSED:
            if not tree.several(i):
                return self._va_arg(i) or self.values(first)
            return self._each(i)
        if kind == K_SUBSCRIPT:
            return self.values(first) or self.values(tree.last(i))
        if kind == K_COMPOUND_LITERAL:
            return self._listed(i)
        if kind == K_UNARY:
            return self.values(first)
        if kind == K_CONDITIONAL:
            return [v for child in tree.below(i)[1:] for v in self.values(child)]
        if kind == K_BINARY:
            operator = self.operator(i)
            if operator in (clang.OP_ASSIGN, clang.OP_COMMA):
                return self.values(tree.last(i))
            return self._each(i) if operator in (6, 7) else []
        if kind == K_STMTEXPR:
            block = tree.last(first)
            return self.values(block) if block != first else []
        if kind == K_GENERIC:
            chosen = self.chosen(i)
            if chosen:
                return self.values(chosen)
            return self._each(i, 1)
        return []

    def _each(self, i: int, start: int = 0) -> list[int]:
        tree = self.tree
        return [v for child in tree.below(i)[start:] if tree.kind[child] >= 100 for v in self.values(child)]

    def _listed(self, i: int) -> list[int]:
        """Values in a compound literal that is a pointer or an array; structs have fields instead."""
        if not self.symbols.carrier(self.lib.getCursorType(self.tree.cursor[i])):
            return []
        below = [self.tree.last(i)]
        out: list[int] = []
        while below:
            node = below.pop()
            if self.tree.kind[node] == K_INITLIST:
                below += reversed(self.tree.below(node))
            else:
                out += self.values(node)
        return out

    def _named(self, i: int) -> list[int]:
        symbol = self.symbol_at.get(i)
        if symbol is None or symbol.number < 0 or not symbol.carrier:
            return []
        return [symbol.number]

    def _returned(self, i: int) -> list[int]:
        callee = self.site_at.get(i)
        if callee is None:
            return []
        if callee < -1:
            return [-callee - 2]
        symbol = self.symbol_at.get(callee)
        if symbol is not None and symbol.kind == FUNCTION:
            return [self.symbols.number(f"r:{symbol.key}")] if self.symbols.shaped(symbol).returns else []
        self.indirect(i)
        callee = self.site_at[i]
        return [-callee - 2] if callee < -1 else []

    def _va_arg(self, i: int) -> list[int]:
        symbol = self.symbol_at.get(self.strip(i))
        if symbol is not None and symbol.va_list and self.owner is not None:
            return [self.symbols.number(f"a:{self.owner.key}")]
        return []

    def flow(self, target: str, source: int, kind: int, where: int) -> None:
        """Node `source` goes into the symbol with key `target`."""
        values = self.values(source)
        if not values:
            return
        number = self.symbols.number(target)
        self.flow_numbers(number, values, kind, where)
        if self._aliases(source):
            for value in values:
                self.unit.flows.append([value, number, ALIASED, where, self.caller])

    def flow_numbers(self, target: int, values: list[int], kind: int, where: int) -> None:
        """Each of `values` goes into the symbol `target`."""
        for value in values:
            if value != target:
                self.unit.flows.append([target, value, kind, where, self.caller])

    def _aliases(self, i: int) -> bool:
        """Whether what is passed is the address of something that holds functions, to be written through."""
        tree = self.tree
        while tree.kind[i] in _WRAPPERS and tree.end[i] > i + 1:
            i = tree.last(i)
        inner = self.symbol_at.get(self.strip(i))
        if inner is None or inner.kind == FUNCTION:
            return False
        if tree.kind[i] == K_UNARY:
            return bool(self.lib.getCursorUnaryOperatorKind(tree.cursor[i]) == clang.OP_ADDRESS)
        return inner.carrier == "a"
