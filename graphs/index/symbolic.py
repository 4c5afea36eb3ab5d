"""Questions about symbols: references, structs, function pointers by field, options and tables.

All take an `Index` first; rows come back as small tuples, sorted by place.

- `references(index, name)`, `struct(index, name)`, `stores(index, field)`, `dispatches(index, field)`
- `rows(index, string)`, `cases(index, constant)`, `calls_between(index, ...)`
"""

from __future__ import annotations

from dataclasses import dataclass

from graphs.errors import GraphsError
from graphs.index.facts import USES
from graphs.index.query import Edge, Function, Index


@dataclass(frozen=True)
class Symbol:
    """A named thing of the sources."""

    id: int
    kind: str
    file: str
    name: str
    scope: str

    def __str__(self) -> str:
        owner = f"{self.scope}." if self.scope else ""
        return f"{self.kind} {owner}{self.name}" + (f" ({self.file})" if self.file else "")


@dataclass(frozen=True)
class Reference:
    """Where a symbol is used, how, and in which function ("" outside)."""

    use: str
    file: str
    line: int
    column: int
    function: str


_KINDS = "('function', 'variable', 'field', 'constant', 'type')"


def symbols(index: Index, name: str) -> list[Symbol]:
    """Symbols of that name; `STRUCT.FIELD` and `file:name` narrow it.

    Raises
    ------
    GraphsError
        when there is none; the nearest names are told.
    """
    file, _, rest = name.rpartition(":")
    scope, _, bare = rest.rpartition(".")
    query = f"SELECT id, kind, file, name, scope FROM symbols WHERE kind IN {_KINDS} AND name = ? ORDER BY id"
    found = [Symbol(*row) for row in index.db.execute(query, (bare,))]
    if scope:
        found = [s for s in found if s.scope == scope or s.scope.rpartition(".")[2] == scope]
    if file:
        found = [s for s in found if s.file == file or s.file.endswith("/" + file)]
    found = [s for s in found if s.file != "<system>"]
    if not found:
        query = f"SELECT DISTINCT name FROM symbols WHERE kind IN {_KINDS}"
        near = [f"{scope}.{n}" for n in index._near(bare, f"{query} AND scope = ?", scope)] if scope else []
        near = near or index._near(bare, query)
        raise GraphsError(index._no("symbol", name, near))
    return found


def references(index: Index, symbol: Symbol) -> list[Reference]:
    """Every place where a symbol stands in the sources."""
    spans: dict[int, list[tuple[int, int, str]]] = {}
    out = []
    query = (
        "SELECT r.use, r.file, files.path, r.line, r.column FROM refs r JOIN files ON files.id = r.file "
        "WHERE r.symbol = ? ORDER BY files.path, r.line, r.column"
    )
    for use, file, path, line, column in index.db.execute(query, (symbol.id,)).fetchall():
        if file not in spans:
            spans[file] = index.db.execute(
                "SELECT line, last_line, name FROM functions WHERE file = ?", (file,)
            ).fetchall()
        within = next((name for first, last, name in spans[file] if first <= line <= last), "")
        out.append(Reference(USES[use], path, line, column, within))
    return out


@dataclass(frozen=True)
class Field:
    """A field of a struct."""

    symbol: int
    name: str
    type: str
    pointer: str


@dataclass(frozen=True)
class Struct:
    """A struct or union with its fields."""

    name: str
    keyword: str
    file: str
    line: int
    fields: list[Field]


def structs(index: Index, name: str) -> list[Struct]:
    """Structs and unions of that name.

    Raises
    ------
    GraphsError
        when there is none.
    """
    file, _, bare = name.rpartition(":")
    bare = bare.removeprefix("struct ").removeprefix("union ")
    query = (
        "SELECT r.id, s.name, r.keyword, files.path, r.line FROM records r JOIN symbols s ON s.id = r.symbol "
        "JOIN files ON files.id = r.file WHERE s.name = ? ORDER BY files.path"
    )
    out = []
    for number, own, keyword, path, line in index.db.execute(query, (bare,)).fetchall():
        if file and path != file and not path.endswith("/" + file):
            continue
        rows = index.db.execute(
            "SELECT f.symbol, s.name, f.type, f.pointer FROM fields f JOIN symbols s ON s.id = f.symbol "
            "WHERE f.record = ? ORDER BY f.position",
            (number,),
        )
        out.append(Struct(own, keyword, path, line, [Field(*row) for row in rows]))
    if not out:
        near = index._near(bare, "SELECT name FROM records JOIN symbols ON symbols.id = records.symbol")
        raise GraphsError(index._no("struct", name, near))
    return out


def field(index: Index, name: str) -> Symbol:
    """The field `STRUCT.FIELD`.

    Raises
    ------
    GraphsError
        when there is none, or several structs have it.
    """
    if "." not in name:
        raise GraphsError(f"{name!r} is no field; say STRUCT.FIELD, such as BlockDriver.bdrv_open")
    found = [s for s in symbols(index, name) if s.kind == "field"]
    if not found:
        raise GraphsError(index._no("field", name, []))
    if len(found) > 1:
        listed = "\n".join(f"  {s.file}:{s.scope}.{s.name}" for s in found)
        raise GraphsError(f"{len(found)} fields are called {name}; say which, as file:STRUCT.FIELD\n{listed}")
    return found[0]


@dataclass(frozen=True)
class Store:
    """A value put into a field."""

    value: str
    kind: str
    place: str
    function: str


def stores(index: Index, number: int) -> list[Store]:
    """What is put into a symbol, where: functions, and the symbols that bring them."""
    query = (
        "SELECT flows.source, flows.kind, files.path, flows.line, flows.function, flows.programs FROM flows "
        "JOIN files ON files.id = flows.file WHERE target = ? ORDER BY files.path, flows.line"
    )
    out = []
    for source, kind, path, line, function, programs in index.db.execute(query, (number,)).fetchall():
        if programs & index.mask:
            owner = index.by_number(function).name if function is not None else ""
            out.append(Store(index.symbol_name(source), kind, f"{path}:{line}", owner))
    return out


@dataclass(frozen=True)
class Dispatch:
    """A call through a pointer, and what it may call."""

    site: int
    caller: Function | None
    place: str
    targets: list[Function]


def dispatches(index: Index, number: int) -> list[Dispatch]:
    """Calls through a field or variable."""
    query = (
        "SELECT s.id, s.caller, files.path, s.line FROM sites s JOIN files ON files.id = s.file "
        "WHERE s.through = ? ORDER BY files.path, s.line, s.column"
    )
    out = []
    for site, caller, path, line in index.db.execute(query, (number,)).fetchall():
        edges = index._edges("e.site = ?", site)
        targets = [index.by_number(n) for n in dict.fromkeys(e.callee for e in edges)]
        owner = index.by_number(caller) if caller is not None else None
        out.append(Dispatch(site, owner, f"{path}:{line}", sorted(targets, key=lambda f: (f.file, f.name))))
    return out


@dataclass(frozen=True)
class Row:
    """A row of a table that a string names."""

    table: str
    string: str
    place: str
    items: list[tuple[str, Symbol]]


def rows(index: Index, string: str) -> list[Row]:
    """Rows that bear a string, such as an option's name."""
    query = (
        "SELECT r.id, r.variable, r.string, files.path, r.line FROM rows r JOIN files ON files.id = r.file "
        "WHERE r.string = ? ORDER BY files.path, r.line"
    )
    out = []
    for number, variable, own, path, line in index.db.execute(query, (string,)).fetchall():
        items = index.db.execute(
            "SELECT i.field, s.id, s.kind, s.file, s.name, s.scope FROM row_items i "
            "JOIN symbols s ON s.id = i.symbol "
            "WHERE i.row = ? ORDER BY i.position",
            (number,),
        ).fetchall()
        named = [(index.symbol_name(f), Symbol(*rest)) for f, *rest in items]
        out.append(Row(index.symbol_name(variable), own, f"{path}:{line}", named))
    return out


@dataclass(frozen=True)
class Case:
    """The lines of a switch that handle a constant."""

    function: Function
    file: str
    line: int
    last_line: int


def cases(index: Index, constant: Symbol) -> list[Case]:
    """Case labels of a constant."""
    query = (
        "SELECT c.function, files.path, c.line, c.last_line FROM cases c JOIN files ON files.id = c.file "
        "WHERE c.constant = ? ORDER BY files.path, c.line"
    )
    return [
        Case(index.by_number(function), path, line, last)
        for function, path, line, last in index.db.execute(query, (constant.id,)).fetchall()
    ]


def calls_between(index: Index, case: Case) -> list[Edge]:
    """Calls that stand in the lines of a case."""
    return [
        edge
        for edge in index.callees(case.function)
        if edge.file == case.file and case.line <= edge.line < max(case.last_line, case.line + 1)
    ]
