"""Declarations to symbols: what a cursor is called, of what type it is, whether it can carry a function.

- `Symbols(unit, places)`: the memory of one translation unit; every declaration is asked once, by its
  address.
- `symbols.of(cursor)`: the `Symbol` of a referenced declaration.
- `symbols.record(cursor)`: the `Record` of a struct or union, nested and anonymous members included.
- `symbols.carrier(type)`: "f" pointer to function, "a" array of such, "v" pointer to void, "" anything else.
- `symbols.signature(type)`: the class of a function type, e.g. ``i(ppi)``: integers, pointers, floats,
  structs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphs.index import clang
from graphs.index.clang import Cursor, Type, text
from graphs.index.facts import Unit
from graphs.index.tree import children

if TYPE_CHECKING:
    from graphs.index.places import Places

FUNCTION, VARIABLE, LOCAL, PARAMETER, FIELD, CONSTANT, TYPENAME, OTHER = "fvlpmet?"


@dataclass(slots=True)
class Symbol:
    """One declaration.

    Attributes
    ----------
    kind : str
        One of the letters that open a symbol's key.
    number : int
        Its key's number in the unit; -1 when it has no key (outside the tree and not a function, or not asked
        yet).
    carrier : str
        See `Symbols.carrier`.
    carriers : tuple of int or None
        For a function: positions of parameters that can carry a function.
    fixed : int
        For a function: how many parameters it has, variable ones not counted.
    old : bool
        For a function: declared without a prototype.
    cursor : Cursor or None
        For a function: its declaration, until `Symbols.shaped` has asked about its type.
    """

    kind: str
    key: str
    number: int
    carrier: str = ""
    carriers: tuple[int, ...] | None = None
    fixed: int = 0
    variadic: bool = False
    old: bool = False
    returns: str = ""
    outside: bool = False
    va_list: bool = False
    cursor: Cursor | None = None


@dataclass(slots=True)
class Record:
    """A struct or union: `key` without the leading letter, and its fields in order.

    Each field is (symbol, type, nested anonymous record or None).
    """

    key: str
    fields: list[tuple[Symbol, Type, Record | None]] = field(default_factory=list)
    union: bool = False


class Symbols:
    """Symbols of one translation unit."""

    def __init__(self, unit: Unit, places: Places) -> None:
        self.unit = unit
        self.places = places
        self.lib = clang.library()
        self.known: dict[int, Symbol] = {}
        self.numbers: dict[str, int] = {}
        self.records: dict[int, Record] = {}
        self.nested: dict[int, str] = {}
        self.carriers: dict[int, str] = {}
        self.letters: dict[int, str] = {}
        self.spellings: dict[int, str] = {}
        self.signatures: dict[int, str] = {}
        self.shapes: dict[int, tuple[bool, bool, int, str, tuple[int, ...]]] = {}
        self.prefixes: dict[int, str] = {}
        self.function_key = ""
        self.nothing = Symbol(OTHER, "", -1)

    def number(self, key: str) -> int:
        """The number of a key, new or old."""
        found = self.numbers.get(key)
        if found is None:
            found = self.numbers[key] = len(self.unit.keys)
            self.unit.keys.append(key)
        return found

    def of(self, cursor: Cursor) -> Symbol:
        """The symbol that a declaration's cursor stands for."""
        symbol = self.known.get(cursor.d0)
        if symbol is None:
            symbol = self.known[cursor.d0] = self._name(cursor)
        return symbol

    def _name(self, cursor: Cursor) -> Symbol:
        kind = cursor.kind
        if kind == clang.K_FUNCTION:
            return self._function(cursor)
        if kind == clang.K_VAR:
            return self._variable(cursor)
        if kind == clang.K_FIELD:
            return self._member(cursor)
        if kind == clang.K_ENUMCONST:
            return self._placed(cursor, CONSTANT)
        if kind == clang.K_PARM:
            # Its function was not entered yet: a parameter of a prototype or of a pointer's type.
            return self.nothing
        if kind in (clang.K_STRUCT, clang.K_UNION, clang.K_ENUM, clang.K_TYPEDEF):
            return self._placed(cursor, TYPENAME)
        return self.nothing

    def _member(self, cursor: Cursor) -> Symbol:
        parent = self.lib.getCursorSemanticParent(cursor)
        prefix = self.prefixes.get(parent.d0)
        if prefix is None:
            name = text(self.lib.getCursorSpelling(parent))
            path = self.places.path_of(parent)
            # Whose name hangs on what is around it needs the whole record; so do those of the system, which
            # are few.
            prefix = "" if not name or "(" in name or path is None else f"m:{path}:{name}."
            self.prefixes[parent.d0] = prefix
        if not prefix:
            self.record(parent)
            return self.known.get(cursor.d0, self.nothing)
        key = prefix + text(self.lib.getCursorSpelling(cursor))
        return Symbol(FIELD, key, self.number(key), self.carrier(self.lib.getCursorType(cursor)))

    def _placed(self, cursor: Cursor, letter: str) -> Symbol:
        path = self.places.path_of(cursor)
        name = text(self.lib.getCursorSpelling(cursor))
        if path is None or not name or "(" in name:
            return Symbol(letter, "", -1, outside=True)
        key = f"{letter}:{path}:{name}"
        return Symbol(letter, key, self.number(key))

    def _function(self, cursor: Cursor) -> Symbol:
        lib = self.lib
        name = text(lib.getCursorSpelling(cursor))
        outside = False
        if lib.getCursorLinkage(cursor) == clang.LINKAGE_INTERNAL:
            definition = lib.getCursorDefinition(cursor)
            path = self.places.path_of(definition if definition.d0 else cursor)
            outside = path is None
            key = f"f:{path or '<system>'}:{name}"
        else:
            outside = name.startswith("__builtin_") or name.startswith("__sync_")
            key = f"f::{name}"
        return Symbol(FUNCTION, key, self.number(key), carrier="f", outside=outside, cursor=cursor)

    def shaped(self, symbol: Symbol) -> Symbol:
        """The symbol of a function with what its type tells; most that are only declared are never asked."""
        cursor, symbol.cursor = symbol.cursor, None
        if cursor is None:
            return symbol
        kind = self.lib.getCursorType(cursor)
        shape = self.shapes.get(kind.d0)
        if shape is None:
            shape = self.shapes[kind.d0] = self._shape(kind)
        symbol.old, symbol.variadic, symbol.fixed, symbol.returns, symbol.carriers = shape
        return symbol

    def _shape(self, kind: Type) -> tuple[bool, bool, int, str, tuple[int, ...]]:
        lib = self.lib
        old = kind.kind == clang.T_FUNCTION_NOPROTO
        fixed = max(0, lib.getNumArgTypes(kind))
        carriers = tuple(i for i in range(fixed) if self.carrier(lib.getArgType(kind, i)))
        variadic = not old and bool(lib.isFunctionTypeVariadic(kind))
        return old, variadic, fixed, self.carrier(lib.getResultType(kind)), carriers

    def _variable(self, cursor: Cursor) -> Symbol:
        lib = self.lib
        linkage = lib.getCursorLinkage(cursor)
        name = text(lib.getCursorSpelling(cursor))
        kind = lib.getCursorType(cursor)
        carrier = self.carrier(kind)
        if linkage == clang.LINKAGE_NONE:
            # Seen through a reference only: a local of the function being walked.
            return self.local(cursor)
        if linkage == clang.LINKAGE_INTERNAL:
            path = self.places.path_of(cursor)
            if path is None:
                return Symbol(VARIABLE, "", -1, carrier, outside=True)
            key = f"v:{path}:{name}"
        else:
            key = f"v::{name}"
        return Symbol(VARIABLE, key, self.number(key), carrier)

    def local(self, cursor: Cursor) -> Symbol:
        """Symbol of a local variable; it has a key only if it can carry a function."""
        lib = self.lib
        kind = lib.getCursorType(cursor)
        carrier = self.carrier(kind)
        if not carrier:
            va_list = "va_list" in self.spelled(kind)
            symbol = Symbol(LOCAL, "", -1, va_list=va_list)
        else:
            symbol = Symbol(LOCAL, self.local_key(cursor), -1, carrier)
            symbol.number = self.number(symbol.key)
        self.known[cursor.d0] = symbol
        return symbol

    def local_key(self, cursor: Cursor) -> str:
        """Key of a local variable of the function being walked."""
        _, line, column, _ = clang.expansion(self.lib.getCursorLocation(cursor))
        name = text(self.lib.getCursorSpelling(cursor))
        return f"l:{self.function_key[2:]}:{name}:{line}:{column}"

    def parameter(self, cursor: Cursor, position: int) -> Symbol:
        """Symbol of the parameter at `position` of the function being walked."""
        key = f"p:{self.function_key}:{position}"
        symbol = Symbol(PARAMETER, key, -1, self.carrier(self.lib.getCursorType(cursor)))
        if symbol.carrier:
            symbol.number = self.number(key)
        self.known[cursor.d0] = symbol
        return symbol

    def record(self, cursor: Cursor) -> Record:
        """The record that a struct's or union's cursor stands for (its definition, if there is one)."""
        found = self.records.get(cursor.d0)
        if found is not None:
            return found
        lib = self.lib
        definition = lib.getCursorDefinition(cursor)
        if definition.d0 and definition.d0 != cursor.d0:
            record = self.record(definition)
            self.records[cursor.d0] = record
            return record
        name = text(lib.getCursorSpelling(cursor))
        if not name or "(" in name:
            parent = lib.getCursorSemanticParent(cursor)
            if parent.kind in (clang.K_STRUCT, clang.K_UNION):
                self.record(parent)
                found = self.records.get(cursor.d0)
                if found is not None:
                    return found
            _, line, column, _ = clang.expansion(lib.getCursorLocation(cursor))
            name = f"(unnamed at {line}:{column})"
        path = self.places.path_of(cursor)
        return self._fill(cursor, f"{path or '<system>'}:{name}", path is None)

    def _fill(self, cursor: Cursor, key: str, outside: bool) -> Record:
        lib = self.lib
        record = self.records[cursor.d0] = Record(key, union=cursor.kind == clang.K_UNION)
        found = children(cursor)
        inner = {c.d0: c for c in found if c.kind in (clang.K_STRUCT, clang.K_UNION)}
        # Unnamed bit-fields are no members: nothing initialises them.
        named = [
            (c, name) for c in found if c.kind == clang.K_FIELD and (name := text(lib.getCursorSpelling(c)))
        ]
        shown = set()
        for child, name in named:
            kind = lib.getCursorType(child)
            declared = self.declared(kind) if inner else None
            nested = None
            if declared is not None and declared.d0 in inner and lib.Cursor_isAnonymous(declared):
                shown.add(declared.d0)
                nested = self.records.get(declared.d0) or self._fill(declared, f"{key}.{name}", outside)
            field_key = f"m:{key}.{name}"
            symbol = Symbol(FIELD, field_key, self.number(field_key), self.carrier(kind), outside=outside)
            self.known[child.d0] = symbol
            record.fields.append((symbol, kind, nested))
        nameless = [child for address, child in inner.items() if address not in shown]
        self._anonymous(record, nameless, [child for child, _ in named], key, outside)
        return record

    def _anonymous(
        self, record: Record, inner: list[Cursor], fields: list[Cursor], key: str, outside: bool
    ) -> None:
        # Members of a struct or union without a name belong to the one around it, where it stands.
        lib = self.lib
        inner = [child for child in inner if lib.Cursor_isAnonymousRecordDecl(child)]
        if not inner:
            return
        entries = [(self.nothing, lib.getCursorType(c), self._fill(c, key, outside)) for c in inner]
        order = [clang.expansion(lib.getCursorLocation(c))[3] for c in (*fields, *inner)]
        every = zip(order, [*record.fields, *entries], strict=True)
        record.fields = [entry for _, entry in sorted(every, key=lambda pair: pair[0])]

    def declared(self, kind: Type) -> Cursor | None:
        """The struct or union that a type is, or is an array of."""
        lib = self.lib
        kind = lib.getCanonicalType(kind)
        while kind.kind in clang.ARRAYS:
            kind = lib.getCanonicalType(lib.getArrayElementType(kind))
        if kind.kind != clang.T_RECORD:
            return None
        cursor: Cursor = lib.getTypeDeclaration(kind)
        return cursor

    def carrier(self, kind: Type) -> str:
        """Whether values of a type can be functions: "f", "a", "v" or ""."""
        found = self.carriers.get(kind.d0)
        if found is not None:
            return found
        lib = self.lib
        inner = lib.getCanonicalType(kind)
        array = inner.kind in clang.ARRAYS
        depth = 0
        while True:
            if inner.kind == clang.T_POINTER:
                inner = lib.getPointeeType(inner)
            elif inner.kind in clang.ARRAYS:
                inner = lib.getCanonicalType(lib.getArrayElementType(inner))
            else:
                break
            depth += 1
        result = ""
        if inner.kind in clang.FUNCTIONS:
            result = "a" if array else "f"
        elif inner.kind == clang.T_VOID and depth:
            result = "a" if array else "v"
        self.carriers[kind.d0] = result
        return result

    def function_type(self, kind: Type) -> Type | None:
        """The function type behind pointers and arrays, or None."""
        lib = self.lib
        inner: Type = lib.getCanonicalType(kind)
        while inner.kind not in clang.FUNCTIONS:
            if inner.kind == clang.T_POINTER:
                inner = lib.getPointeeType(inner)
            elif inner.kind in clang.ARRAYS:
                inner = lib.getCanonicalType(lib.getArrayElementType(inner))
            else:
                return None
        return inner

    def signature(self, kind: Type) -> str:
        """Class of a function type, e.g. ``v(pi)``; ``.`` closes a variadic one, ``?`` has no prototype."""
        found = self.signatures.get(kind.d0)
        if found is None:
            found = self.signatures[kind.d0] = self._class(kind)
        return found

    def _class(self, kind: Type) -> str:
        lib = self.lib
        result = self._letter(lib.getResultType(kind))
        if kind.kind == clang.T_FUNCTION_NOPROTO:
            return result + "(?)"
        letters = "".join(
            self._letter(lib.getArgType(kind, i)) for i in range(max(0, lib.getNumArgTypes(kind)))
        )
        return f"{result}({letters}{'.' if lib.isFunctionTypeVariadic(kind) else ''})"

    def spelled(self, kind: Type) -> str:
        """A type in C."""
        found = self.spellings.get(kind.d0)
        if found is None:
            found = text(self.lib.getTypeSpelling(kind))
            if " at /" in found:  # clang names what has no name by its place, in full
                found = self.places.inside(found)
            self.spellings[kind.d0] = found
        return found

    def _letter(self, kind: Type) -> str:
        found = self.letters.get(kind.d0)
        if found is None:
            canonical = self.lib.getCanonicalType(kind).kind
            if canonical == clang.T_VOID:
                found = "v"
            elif canonical == clang.T_POINTER or canonical in clang.ARRAYS:
                found = "p"
            elif clang.T_FIRST_FLOAT <= canonical <= clang.T_LAST_FLOAT:
                found = "f"
            elif canonical == clang.T_RECORD:
                found = "s"
            else:
                found = "i"
            self.letters[kind.d0] = found
        return found
