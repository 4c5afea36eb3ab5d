"""One parsed file to its facts: declarations at file scope, function bodies, initialisers.

- `walk(tu, path, full, roots)`: the `Unit` of a translation unit that libclang has parsed.

Everything that stands in a file of the tree is taken, headers and included templates too; merging keeps one
of each.
The bodies are read by `bodies.Body`, initialisers by `initialisers.Initialisers`.
"""

from __future__ import annotations

from graphs.index import clang
from graphs.index.bodies import Body
from graphs.index.clang import Cursor, Location, text
from graphs.index.facts import DECLARATION, DEFINITION, Unit, unplace
from graphs.index.places import Places
from graphs.index.symbols import FIELD, Record, Symbols
from graphs.index.tree import Tree, children, placed

_DECLARATIONS = frozenset(
    {clang.K_FUNCTION, clang.K_VAR, clang.K_STRUCT, clang.K_UNION, clang.K_ENUM, clang.K_TYPEDEF}
)


class Walker:
    """The walk over one translation unit."""

    def __init__(self, tu: int, path: str, full: str, roots: dict[str, str]) -> None:
        self.lib = clang.library()
        self.tu = tu
        self.unit = Unit(path)
        self.places = Places(tu, self.unit, full, roots)
        self.symbols = Symbols(self.unit, self.places)
        self.tree = Tree()
        self.body = Body(self.unit, self.tree, self.symbols, self.places)
        self.seen: set[int] = set()

    def run(self) -> Unit:
        """Walk, and return the facts."""
        for cursor, where in self._top():
            if cursor.kind == clang.K_FUNCTION:
                self._function(cursor, where)
            elif cursor.kind == clang.K_VAR:
                self._variable(cursor, where)
            elif cursor.kind in (clang.K_STRUCT, clang.K_UNION):
                self._record(cursor, where)
            elif cursor.kind == clang.K_ENUM:
                self._enum(cursor, where)
            elif cursor.kind == clang.K_TYPEDEF:
                self._typedef(cursor, where)
        self.body.finish_records(self._local_record)
        return self.unit

    def _top(self) -> list[tuple[Cursor, int]]:
        """Declarations at file scope that stand in the tree, and where."""
        kinds, numbers, cursors = placed(self.lib.getTranslationUnitCursor(self.tu))
        out: list[tuple[Cursor, int]] = []
        first, last = 0, -1
        for i, (kind, number) in enumerate(zip(kinds, numbers, strict=True)):
            if first <= number <= last or kind not in _DECLARATIONS:
                continue
            where = self.places.at(number, cursors[i])
            if where >= 0:
                # The visitor's memory is used again.
                out.append((Cursor.from_buffer_copy(cursors[i]), where))
            elif number:
                first, last = self.places.outside(number)
        return out

    def _reference(self, number: int, use: int, where: int) -> None:
        if number >= 0 and where >= 0:
            self.unit.references.extend((number, use, where))

    def _function(self, cursor: Cursor, where: int) -> None:
        symbol = self.symbols.of(cursor)
        if not self.lib.isCursorDefinition(cursor):
            self._reference(symbol.number, DECLARATION, where)
            return
        self._reference(symbol.number, DEFINITION, where)
        self.symbols.function_key = symbol.key
        self.tree.read(cursor)
        names = self._parameters()
        kind = self.lib.getCursorType(cursor)
        end = self.places.of(self.lib.getRangeEnd(self.lib.getCursorExtent(cursor)))
        self.unit.functions.append(
            [
                symbol.number,
                where,
                unplace(max(where, end))[1],
                self.lib.getCursorLinkage(cursor) == clang.LINKAGE_INTERNAL,
                self.symbols.signature(kind),
                self.symbols.spelled(kind),
                self._macro(self.lib.getCursorLocation(cursor)),
                self._constructor(),
                names,
                bool(self.lib.Cursor_isFunctionInlined(cursor)),
            ]
        )
        self.body.function(len(self.unit.functions) - 1, symbol)

    def _parameters(self) -> list[str]:
        names: list[str] = []
        tree = self.tree
        for child in tree.below(0):
            if tree.kind[child] == clang.K_PARM:
                self.symbols.parameter(tree.cursor[child], len(names))
                names.append(text(self.lib.getCursorSpelling(tree.cursor[child])))
        return names

    def _macro(self, location: Location) -> str:
        if not location.raw & 0x80000000:
            return ""
        written = self.places.text_at(location, 80)
        size = 0
        while size < len(written) and (written[size].isalnum() or written[size] == "_"):
            size += 1
        return written[:size]

    def _constructor(self) -> int:
        """1 for what runs before main, 2 for what runs after it, 3 for both."""
        tree = self.tree
        if not any(tree.kind[child] == clang.K_UNEXPOSED_ATTR for child in tree.below(0)):
            return 0
        # The attribute may stand on the first declaration alone.
        first = self.lib.getCanonicalCursor(tree.cursor[0])
        written = "".join(clang.declaration(cursor) for cursor in (tree.cursor[0], first))
        return ("__attribute__((constructor" in written) + 2 * ("__attribute__((destructor" in written)

    def _variable(self, cursor: Cursor, where: int) -> None:
        symbol = self.symbols.of(cursor)
        if symbol.number < 0:
            return
        # Without `extern` a declaration at file scope is a definition, be it a tentative one.
        defined = self.lib.Cursor_getStorageClass(cursor) != clang.STORAGE_EXTERN or bool(
            self.lib.isCursorDefinition(cursor)
        )
        self._reference(symbol.number, DEFINITION if defined else DECLARATION, where)
        static = self.lib.getCursorLinkage(cursor) == clang.LINKAGE_INTERNAL
        kind = self.symbols.spelled(self.lib.getCursorType(cursor))
        self.unit.variables.append([symbol.number, kind, where, static, defined])
        self.tree.read(cursor)
        self.symbols.function_key = f"f:{self.unit.path}:"
        self.body.variable(symbol)

    def _local_record(self, cursor: Cursor) -> None:
        self._record(cursor, self.places.of(self.lib.getCursorLocation(cursor)))

    def _record(self, cursor: Cursor, where: int) -> None:
        if not self.lib.isCursorDefinition(cursor) or cursor.d0 in self.seen:
            return
        self.seen.add(cursor.d0)
        record = self.symbols.record(cursor)
        if where < 0:
            return
        number = self.symbols.number(f"t:{record.key}")
        self._reference(number, DEFINITION, where)
        fields: list[list[object]] = []
        self._fields(record, fields)
        self.unit.records.append([number, "union" if record.union else "struct", where, fields])

    def _fields(self, record: Record, rows: list[list[object]]) -> None:
        for symbol, kind, nested in record.fields:
            if symbol.kind == FIELD:
                function = self.symbols.function_type(kind) if symbol.carrier in ("f", "a") else None
                rows.append(
                    [
                        symbol.number,
                        self.symbols.spelled(kind),
                        symbol.carrier,
                        self.symbols.signature(function) if function is not None else "",
                    ]
                )
            if nested is not None:
                self._fields(nested, rows)

    def _enum(self, cursor: Cursor, where: int) -> None:
        rows = []
        for constant in children(cursor):
            if constant.kind != clang.K_ENUMCONST:
                continue
            symbol = self.symbols.of(constant)
            place = self.places.of(self.lib.getCursorLocation(constant))
            if symbol.number >= 0 and place >= 0:
                self._reference(symbol.number, DEFINITION, place)
                rows.append([symbol.number, self.lib.getEnumConstantDeclValue(constant), place])
        symbol = self.symbols.of(cursor)
        if symbol.number >= 0:
            self._reference(symbol.number, DEFINITION, where)
        self.unit.enums.append([symbol.number, where, rows])

    def _typedef(self, cursor: Cursor, where: int) -> None:
        symbol = self.symbols.of(cursor)
        self._reference(symbol.number, DEFINITION, where)


def walk(tu: int, path: str, full: str, roots: dict[str, str]) -> Unit:
    """Facts of a parsed translation unit.

    Parameters
    ----------
    tu : int
        The CXTranslationUnit.
    path, full : str
        The file, in the tree and on disk.
    roots : dict
        Folders whose files belong to the tree: absolute prefix to the prefix of their path in the index.
    """
    return Walker(tu, path, full, roots).run()
