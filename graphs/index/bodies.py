"""Function bodies and initialisers to facts: calls, flows of function values, references.

One pass over the nodes of a declaration, outermost first, then the few nodes that act. Which symbols a value
may come from is answered by `values.Values`.

- `Body.function(number, symbol)`: the body in the tree belongs to that function.
- `Body.variable(symbol)`: the tree is a variable at file scope with its initialiser.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from graphs.index import clang
from graphs.index.clang import (
    K_BINARY,
    K_CALL,
    K_CASE,
    K_CAST,
    K_COMPOUND,
    K_COMPOUND_ASSIGN,
    K_COMPOUND_LITERAL,
    K_DECLREF,
    K_DEFAULT,
    K_GENERIC,
    K_INITLIST,
    K_MEMBER,
    K_MEMBERREF,
    K_PAREN,
    K_RETURN,
    K_SIZEOF,
    K_STRUCT,
    K_SUBSCRIPT,
    K_SWITCH,
    K_TYPEREF,
    K_UNARY,
    K_UNEXPOSED,
    K_UNION,
    K_VAR,
    Cursor,
)
from graphs.index.facts import (
    ADDRESS,
    ASSIGNED,
    BY_NAME,
    CALL,
    INITIALISED,
    PASSED,
    READ,
    RETURNED,
    TYPE,
    WRITE,
    Unit,
)
from graphs.index.initialisers import Initialisers
from graphs.index.places import Places
from graphs.index.symbols import CONSTANT, FIELD, FUNCTION, LOCAL, PARAMETER, Symbol, Symbols
from graphs.index.tree import Tree
from graphs.index.values import Values

_CLEANUP = re.compile(r"\bcleanup\((\w+)\)")


class Body(Values):
    """Facts of the declarations of one translation unit."""

    def __init__(self, unit: Unit, tree: Tree, symbols: Symbols, places: Places) -> None:
        super().__init__(unit, tree, symbols, places)
        self.locate = self.lib.getCursorLocation
        self.initialisers = Initialisers(self)
        self.local_records: list[Cursor] = []
        self.callees: dict[int, int] = {}
        self.idle: set[int] = set()
        self.called_at: dict[int, int] = {}

    def function(self, number: int, symbol: Symbol) -> None:
        """Take the facts of the function whose tree was read."""
        self.caller, self.owner = number, self.symbols.shaped(symbol)
        self._pass()

    def variable(self, symbol: Symbol) -> None:
        """Take the facts of a variable at file scope."""
        self.caller, self.owner = -1, None
        self.symbols.known[self.tree.cursor[0].d0] = symbol
        self._pass()

    def finish_records(self, record: Callable[[Cursor], None]) -> None:
        """Hand over the structs that were declared inside functions."""
        for cursor in self.local_records:
            record(cursor)
        # The two know each other: without this, memory would wait for the collector, which is off.
        del self.initialisers

    def _pass(self) -> None:
        tree, cursors = self.tree, self.tree.cursor
        kinds = tree.kind
        self.taken, self.callees = [], {}
        self.symbol_at, self.site_at, self.idle, self.called_at = {}, {}, set(), {}
        todo: list[int] = [] if kinds[0] == clang.K_FUNCTION else [0]
        known, symbols, symbol_at = self.symbols.known, self.symbols, self.symbol_at
        referenced, mention = self.lib.getCursorReferenced, self._mention
        for i, target, number in zip(tree.wanted, tree.target, tree.number, strict=True):
            if target:
                symbol = known.get(target)
                if symbol is None:
                    symbol = symbols.of(referenced(cursors[i]))
                symbol_at[i] = symbol
                letter = symbol.kind
                if letter != LOCAL and letter != PARAMETER:
                    mention(i, kinds[i], symbol, number)
                continue
            kind = kinds[i]
            if kind == K_CALL:
                if self._find_callee(i):
                    todo.append(i)
            elif kind in _LATER:
                todo.append(i)
            elif kind in (K_STRUCT, K_UNION):
                # The tree's cursors are used again.
                self.local_records.append(Cursor.from_buffer_copy(cursors[i]))
        for i in todo:
            _ACTIONS[kinds[i]](self, i)

    # -- references
    # ---------------------------------------------------------------------------------------------

    def _mention(self, i: int, kind: int, symbol: Symbol, number: int) -> None:
        letter = symbol.kind
        if symbol.number < 0 or (symbol.outside and letter != FUNCTION):
            return
        if letter == FUNCTION:
            called = self._function_mentioned(i)
            use = TYPE if i in self.idle else CALL if called else ADDRESS
        elif letter == CONSTANT:
            use = READ
        elif kind == K_TYPEREF:
            use = TYPE
        elif kind == K_MEMBERREF:
            use = WRITE
        else:
            use = self._use(i)
        if symbol.outside:
            return
        where = self.places.at(number, self.tree.cursor[i])
        if where >= 0:
            self.unit.references.extend((symbol.number, use, where))
            if use == CALL:
                self.called_at[i] = where

    def _function_mentioned(self, i: int) -> bool:
        if i in self.callees:
            return True
        self.taken.append(i)
        return False

    def _use(self, i: int) -> int:
        tree = self.tree
        kinds, parents = tree.kind, tree.parent
        while True:
            up = parents[i]
            kind = kinds[up]
            if kind == K_PAREN:
                i = up
            elif kind == K_BINARY:
                if up + 1 == i and self.operator(up) == clang.OP_ASSIGN:
                    return WRITE
                return READ
            elif kind == K_COMPOUND_ASSIGN:
                return WRITE if up + 1 == i else READ
            elif kind == K_UNARY:
                operator = self.lib.getCursorUnaryOperatorKind(tree.cursor[up])
                if operator == clang.OP_ADDRESS:
                    return ADDRESS
                return WRITE if operator <= clang.OP_PREDEC else READ
            elif kind == K_UNEXPOSED and kinds[parents[up]] == K_SUBSCRIPT:
                # An element written is a write to the array.
                if parents[up] + 1 != up:
                    return READ
                i = parents[up]
            elif (kind == K_SUBSCRIPT and up + 1 == i) or kind == K_MEMBER:
                i = up
            else:
                return READ

    # -- calls
    # --------------------------------------------------------------------------------------------------

    def _find_callee(self, i: int) -> bool:
        """Note which node names the function that is called; False if the call is not carried out."""
        if i + 1 == self.tree.end[i]:
            return True
        n = self.strip(i + 1)
        if self.tree.kind[n] == K_DECLREF:
            self.callees[n] = i
        if self._for_its_type(i):
            self.idle.add(n)
            return False
        self.site_at[i] = n
        return True

    def _for_its_type(self, i: int) -> bool:
        """Whether an expression is there for its type alone: in sizeof, typeof, or not chosen by _Generic."""
        kinds, parents, end = self.tree.kind, self.tree.parent, self.tree.end
        while (up := parents[i]) >= 0 and kinds[up] < K_COMPOUND:
            kind = kinds[up]
            if kind == K_SIZEOF or (kind == K_CAST and end[up] != end[i]):
                return True
            if kind == K_GENERIC:
                chosen = self.chosen(up)
                if up + 1 == i or (chosen and chosen != i):
                    return True
            elif kind == K_VAR:
                return self._in_type(up, i)
            i = up
        return False

    def _in_type(self, variable: int, i: int) -> bool:
        """Whether node `i` belongs to a variable's type, not to its initialiser or to an array's size."""
        lib, cursor = self.lib, self.tree.cursor[variable]
        if self.tree.end[variable] == self.tree.end[i] and lib.Cursor_getVarDeclInitializer(cursor).d1:
            return False
        kind: int = lib.getCanonicalType(lib.getCursorType(cursor)).kind
        return kind != clang.T_VARIABLE_ARRAY

    def indirect(self, i: int) -> None:
        """Take a call through a pointer before its turn."""
        self._call(i)

    def _call(self, i: int) -> None:
        callee = self.site_at.get(i)
        if callee is None or callee < 0:
            return
        symbol = self.symbol_at.get(callee)
        kind = self.tree.kind[callee]
        arguments = self.tree.below(i)[1:]
        where = self.called_at.get(callee, -1)
        if where < 0:
            where = self.places.of(self.lib.getCursorLocation(self.tree.cursor[callee]))
        if where < 0:
            where = self.places.of(self.lib.getCursorLocation(self.tree.cursor[i]))
        if kind == K_DECLREF and symbol is not None and symbol.kind == FUNCTION:
            if not symbol.outside:
                self.unit.calls.append([self.caller, symbol.number, where])
            self._pass_arguments(symbol, arguments, where)
            return
        self._indirect(i, callee, symbol, arguments, where)

    def _pass_arguments(self, symbol: Symbol, arguments: list[int], where: int) -> None:
        carriers = self.symbols.shaped(symbol).carriers or ()
        for position in carriers:
            if position < len(arguments):
                self.flow(f"p:{symbol.key}:{position}", arguments[position], PASSED, where)
        if symbol.variadic or symbol.old or (not carriers and self.taken):
            for position in range(symbol.fixed, len(arguments)):
                if self.may_carry(arguments[position]):
                    key = f"a:{symbol.key}" if symbol.variadic else f"p:{symbol.key}:{position}"
                    self.flow(key, arguments[position], PASSED, where)
        elif self.taken:
            for position, argument in enumerate(arguments):
                if position not in carriers and self.holds_function(argument):
                    self.flow(f"p:{symbol.key}:{position}", argument, PASSED, where)

    def _indirect(self, i: int, callee: int, symbol: Symbol | None, arguments: list[int], where: int) -> None:
        lib = self.lib
        sources = self.values(i + 1)
        kind, label = self._describe(callee, symbol)
        function = self.symbols.function_type(lib.getCursorType(self.tree.cursor[i + 1]))
        signature, spelled = "", ""
        if function is not None:
            signature = self.symbols.signature(function)
            spelled = self.symbols.spelled(function)
        passed = []
        for position, argument in enumerate(arguments):
            values = self.values(argument)
            if values:
                passed.append([position, values])
        result = self.symbols.number(self._result_key(where))
        self.site_at[i] = -result - 2
        self.unit.sites.append([self.caller, where, kind, label, sources, passed, signature, spelled, result])

    def _result_key(self, where: int) -> str:
        number = sum(1 for site in self.unit.sites if site[1] == where)
        owner = self.owner.key[2:] if self.owner else ""
        return f"s:{owner}:{(where >> 12) & 0xFFFFFF}:{where & 0xFFF}:{number}"

    def _describe(self, callee: int, symbol: Symbol | None) -> tuple[int, str]:
        kind = self.tree.kind[callee]
        if kind == K_SUBSCRIPT:
            base = self.strip(callee + 1)
            inner = self.symbol_at.get(base)
            return 3, inner.key if inner else ""
        if symbol is not None:
            if symbol.kind == FIELD:
                return 0, symbol.key
            if symbol.kind == PARAMETER:
                return 2, symbol.key
            return 1, symbol.key
        return (4 if kind == K_CALL else 5), ""

    # -- statements
    # ---------------------------------------------------------------------------------------------

    def _assign(self, i: int) -> None:
        left, end = i + 1, self.tree.end
        right = end[left]
        if end[right] != end[i]:
            return
        inner = self.strip(left)
        while self.tree.kind[inner] == K_SUBSCRIPT:
            inner = self.strip(inner + 1)
        symbol = self.symbol_at.get(inner)
        # Whether it is an assignment at all takes a call: last.
        if not (symbol and symbol.carrier and symbol.number >= 0) and not self.holds_function(right):
            return
        if self.operator(i) != clang.OP_ASSIGN:
            return
        if symbol is None:
            targets = self.values(left)
        elif symbol.carrier and symbol.number >= 0:
            targets = [symbol.number]
        else:
            targets = [self._forced(symbol, inner)]
        values = self.values(right)
        if not values or not targets:
            return
        where = self.places.of(self.lib.getCursorLocation(self.tree.cursor[inner]))
        for target in targets:
            if target >= 0:
                self.flow_numbers(target, values, ASSIGNED, where)

    def _forced(self, symbol: Symbol, i: int) -> int:
        """A key for something that is no pointer, yet a function's address is stored in it."""
        if symbol.number < 0 and symbol.kind == LOCAL:
            target = self.lib.getCursorReferenced(self.tree.cursor[i])
            symbol.key = self.symbols.local_key(target)
            symbol.number = self.symbols.number(symbol.key)
        if symbol.number >= 0:
            symbol.carrier = "v"
        return symbol.number

    def _declared(self, i: int) -> None:
        tree = self.tree
        last = tree.last(i)
        if last == i:
            return
        kind = tree.kind[last]
        cursor = tree.cursor[i]
        if tree.kind[i + 1] == clang.K_UNEXPOSED_ATTR:
            self._cleanup(cursor)
        if not 100 <= kind < K_COMPOUND:
            return
        if kind == K_INITLIST:
            symbol = self.symbols.known.get(cursor.d0) or self.symbols.of(cursor)
            self.initialisers.variable(last, symbol, self.caller < 0)
            return
        symbol = self.symbols.known.get(cursor.d0) or self.symbols.local(cursor)
        if symbol.carrier not in ("f", "v"):
            if not self.holds_function(last):
                return
            symbol.number = symbol.number if symbol.number >= 0 else self._forced_local(symbol, cursor)
        if symbol.number >= 0:
            where = self.places.of(self.lib.getCursorLocation(cursor))
            self.flow_numbers(symbol.number, self.values(last), INITIALISED, where)

    def _cleanup(self, cursor: Cursor) -> None:
        """The function that a cleanup attribute calls at the end of a variable's life."""
        match = _CLEANUP.search(clang.declaration(cursor))
        if match:
            where = self.places.of(self.lib.getCursorLocation(cursor))
            self.unit.calls.append([self.caller, self.symbols.number(BY_NAME + match[1]), where])

    def _forced_local(self, symbol: Symbol, cursor: Cursor) -> int:
        symbol.key = self.symbols.local_key(cursor)
        symbol.carrier = "v"
        return self.symbols.number(symbol.key)

    def _literal(self, i: int) -> None:
        last = self.tree.last(i)
        if self.tree.kind[last] == K_INITLIST:
            self.initialisers.variable(last, self.symbols.nothing, False)

    def _return(self, i: int) -> None:
        value, owner = i + 1, self.owner
        if value == self.tree.end[i] or owner is None:
            return
        if owner.returns or self.holds_function(value):
            where = self.places.of(self.lib.getCursorLocation(self.tree.cursor[i]))
            self.flow(f"r:{owner.key}", value, RETURNED, where)

    def _switch(self, i: int) -> None:
        tree = self.tree
        blocks = [c for c in tree.below(i) if tree.kind[c] == K_COMPOUND]
        if not blocks:
            return
        marks: list[tuple[int, Symbol | None]] = []
        for child in tree.below(blocks[0]):
            node = child
            while tree.kind[node] in (K_CASE, K_DEFAULT) and tree.end[node] > node + 1:
                label = node + 1 if tree.kind[node] == K_CASE else node
                symbol = self.symbol_at.get(self.strip(label)) if tree.kind[node] == K_CASE else None
                marks.append((node, symbol))
                node = tree.last(node)
        self._cases(i, marks)

    def _cases(self, switch: int, marks: list[tuple[int, Symbol | None]]) -> None:
        locate, tree = self.lib.getCursorLocation, self.tree
        end = self.places.of(self.lib.getRangeEnd(self.lib.getCursorExtent(tree.cursor[switch])))
        starts = [self.places.of(locate(tree.cursor[node])) for node, _ in marks]
        for index, (_node, symbol) in enumerate(marks):
            if symbol is None or symbol.kind != CONSTANT or symbol.number < 0:
                continue
            later = index + 1
            # Labels that stand together share their statements.
            while later < len(marks) and marks[later][0] == marks[later - 1][0] + self._label_size(
                marks[later - 1][0]
            ):
                later += 1
            stop = starts[later] if later < len(marks) else end
            self.unit.cases.append([self.caller, symbol.number, starts[index], stop])

    def _label_size(self, node: int) -> int:
        """Nodes of a case label itself, so that the next one nested directly below can be told."""
        return max(1, self.tree.last(node) - node)


_ACTIONS: dict[int, Callable[[Body, int], None]] = {
    K_CALL: Body._call,
    K_BINARY: Body._assign,
    K_VAR: Body._declared,
    K_RETURN: Body._return,
    K_SWITCH: Body._switch,
    K_COMPOUND_LITERAL: Body._literal,
}
_LATER = frozenset(_ACTIONS)
