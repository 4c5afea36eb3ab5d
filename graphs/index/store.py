"""The index file: one SQLite database. `SCHEMA` below is its documentation.

- `write(path, merged, resolved, ...)`: write a whole index beside `path` and rename it there, so that an
  interruption leaves the old one.
- `connect(path)`: open an index, plain or compressed; a file that is none, or of another version, is a clear
  error.
- `compress(source, target)`: the small form that ships: without the units' facts, packed.

Places are file, line, column (both from 1). `programs` are sets of bits, one a row of `programs`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from graphs.errors import GraphsError
from graphs.index.facts import FLOW_KINDS, SITE_KINDS, unplace
from graphs.index.merge import Merged
from graphs.index.resolve import KINDS, Resolved

FORMAT = 3
MAGIC = b"studykvm index\n"

SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
-- format, tree, identity, profile, clang, arguments ...

CREATE TABLE programs (bit INTEGER PRIMARY KEY, name TEXT, program TEXT);
-- link sets: bit 1, 2, 4 ...; "system" is qemu-system-x86_64

CREATE TABLE files (id INTEGER PRIMARY KEY, path TEXT UNIQUE, programs INTEGER, unit INTEGER, errors TEXT);
-- every file that facts come from; unit: parsed by itself, not only included; errors: the parser's

CREATE TABLE functions (
    id INTEGER PRIMARY KEY, file INTEGER, name TEXT, line INTEGER, column INTEGER, last_line INTEGER,
    static INTEGER, inline INTEGER, macro TEXT, constructor INTEGER, class TEXT, signature TEXT,
    parameters TEXT, programs INTEGER, symbol INTEGER);
-- definitions; identity is (file, name). macro: the macro that wrote it. constructor: 1 runs before main,
-- 2 after it, 3 both. class: shape of its type, e.g. i(pi)

CREATE TABLE symbols (id INTEGER PRIMARY KEY, kind TEXT, file TEXT, name TEXT, scope TEXT);
-- kind: function, variable, local, parameter, field, constant, type ...; file: '' for external linkage;
-- scope: the function of a local or parameter, the record of a field

CREATE TABLE edges (
    id INTEGER PRIMARY KEY, caller INTEGER, callee INTEGER, kind INTEGER, file INTEGER, line INTEGER,
    column INTEGER, site INTEGER, programs INTEGER, evidence TEXT);
-- caller NULL: the program's start. kind: number into edge_kinds. evidence: flows, first step first

CREATE TABLE edge_kinds (id INTEGER PRIMARY KEY, name TEXT);

CREATE TABLE sites (
    id INTEGER PRIMARY KEY, caller INTEGER, file INTEGER, line INTEGER, column INTEGER, kind TEXT,
    through INTEGER, class TEXT, type TEXT, programs INTEGER, resolved INTEGER);
-- calls through pointers; kind: field, variable, parameter, array, result, expression; through: a symbol

CREATE TABLE flows (
    id INTEGER PRIMARY KEY, target INTEGER, source INTEGER, kind TEXT, function INTEGER, file INTEGER,
    line INTEGER, column INTEGER, programs INTEGER);
-- a value that may be a function goes from symbol to symbol: assignment, initialiser, argument, return

CREATE TABLE externals (caller INTEGER, name TEXT, file INTEGER, line INTEGER, column INTEGER,
    programs INTEGER);
-- calls to functions outside the tree, the first of each caller

CREATE TABLE records (id INTEGER PRIMARY KEY, symbol INTEGER, keyword TEXT, file INTEGER, line INTEGER);
CREATE TABLE fields (
    record INTEGER, position INTEGER, symbol INTEGER, type TEXT, pointer TEXT, class TEXT,
    PRIMARY KEY (record, position)) WITHOUT ROWID;
-- pointer: f can hold a function, a array of such, v pointer to void, '' none

CREATE TABLE constants (symbol INTEGER PRIMARY KEY, enumeration INTEGER, value INTEGER, file INTEGER,
    line INTEGER);
CREATE TABLE variables (symbol INTEGER, type TEXT, static INTEGER, file INTEGER, line INTEGER,
    programs INTEGER);

CREATE TABLE rows (id INTEGER PRIMARY KEY, variable INTEGER, string TEXT, file INTEGER, line INTEGER);
CREATE TABLE row_items (row INTEGER, position INTEGER, field INTEGER, symbol INTEGER,
    PRIMARY KEY (row, position)) WITHOUT ROWID;
-- tables with strings: options, monitor commands, drivers by name; items: what stands beside the string

CREATE TABLE cases (function INTEGER, constant INTEGER, file INTEGER, line INTEGER, last_line INTEGER);
-- case labels that name a constant, with the lines they handle

CREATE TABLE refs (symbol INTEGER, file INTEGER, line INTEGER, column INTEGER, use INTEGER,
    PRIMARY KEY (symbol, file, line, column, use)) WITHOUT ROWID;
-- use: 0 read, 1 write, 2 call, 3 address taken, 4 declaration, 5 definition, 6 type

CREATE TABLE units (path TEXT PRIMARY KEY, digest TEXT, depends TEXT, facts BLOB) WITHOUT ROWID;
-- what each file told, for re-indexing; empty in an index that ships
CREATE TABLE digests (path TEXT PRIMARY KEY, size INTEGER, modified INTEGER, digest TEXT) WITHOUT ROWID;
"""

_INDEXES = """
CREATE INDEX functions_name ON functions (name);
CREATE INDEX symbols_name ON symbols (name);
CREATE INDEX edges_caller ON edges (caller);
CREATE INDEX edges_callee ON edges (callee);
CREATE INDEX sites_through ON sites (through);
CREATE INDEX flows_target ON flows (target);
CREATE INDEX flows_source ON flows (source);
CREATE INDEX rows_string ON rows (string);
CREATE INDEX items_symbol ON row_items (symbol);
CREATE INDEX cases_constant ON cases (constant);
CREATE INDEX records_symbol ON records (symbol);
CREATE INDEX fields_symbol ON fields (symbol);
"""

_SYMBOL_KINDS = {
    "f": "function", "v": "variable", "l": "local", "p": "parameter", "r": "returned", "a": "variadic",
    "m": "field",     "s": "call", "e": "constant", "t": "type",
}  # fmt: skip


def split_key(key: str) -> tuple[str, str, str, str]:
    """Kind, file, name and scope of a symbol's key.

    >>> split_key("m:block_int.h:BlockDriver.bdrv_open")
    ('field', 'block_int.h', 'bdrv_open', 'BlockDriver')
    >>> split_key("p:f:vl.c:drive_init:1"), split_key("f::main")
    (('parameter', 'vl.c', '1', 'drive_init'), ('function', '', 'main', ''))
    """
    letter, _, rest = key.partition(":")
    kind = _SYMBOL_KINDS[letter]
    if letter in "pra":
        position = ""
        if letter == "p":
            rest, _, position = rest.rpartition(":")
        _, file, name = rest.split(":", 2)
        return kind, file, position, name
    file, _, name = rest.partition(":")
    if letter == "m":
        record, _, member = name.partition(".")
        if name.startswith("(unnamed"):
            end = name.index(")") + 1
            record, member = name[:end], name[end + 1 :]
        return kind, file, member, record
    if letter in "ls":
        scope, _, name = name.partition(":")
        return kind, file, name, scope
    return kind, file, name, ""


def _placed(where: str) -> str:
    """File, line and column in SQL, of an expression for a place; see `facts.place`."""
    return f"({where}) >> 36, (({where}) >> 12) & {0xFFFFFF}, ({where}) & {0xFFF}"


class _Writer:
    def __init__(self, db: sqlite3.Connection, merged: Merged, resolved: Resolved) -> None:
        self.db = db
        self.merged = merged
        self.resolved = resolved
        self.symbol = {key: n for n, key in enumerate(merged.symbols)}

    def _symbol(self, key: str) -> int | None:
        found = self.symbol.get(key)
        if found is None and key:
            found = self.symbol[key] = len(self.symbol)
        return found

    def all(self) -> None:
        self._functions()
        self._calls()
        self._data()
        # Last: writing the rows above may have named symbols that no unit had.
        self.db.executemany(
            "INSERT INTO symbols VALUES (?,?,?,?,?)", ((n, *split_key(key)) for key, n in self.symbol.items())
        )

    def _functions(self) -> None:
        merged = self.merged
        units = {f for f in merged.file_programs}
        self.db.executemany(
            "INSERT INTO files VALUES (?,?,?,?,?)",
            (
                (n, path, merged.file_programs.get(path, 0), path in units and path.endswith(".c"),
                 "\n".join(merged.errors.get(path, ())))
                for n, path in enumerate(merged.files)
            ),
        )  # fmt: skip

        def rows() -> Iterator[tuple[Any, ...]]:
            for n, f in enumerate(merged.functions):
                file, line, column = unplace(f.place)
                yield (
                    n, file, f.key.rpartition(":")[2], line, column, f.last_line, f.static, f.inline, f.macro,
                    f.constructor, f.klass, f.signature, ", ".join(f.parameters), f.programs,
                    self._symbol(f.key),
                )  # fmt: skip

        self.db.executemany(f"INSERT INTO functions VALUES ({','.join('?' * 15)})", rows())

    def _calls(self) -> None:
        merged, resolved = self.merged, self.resolved
        number = {id(flow): n for n, flow in enumerate(merged.flows)}
        extra: dict[Any, int] = {}

        def flow_number(flow: Any) -> str:
            n = number.get(id(flow))
            if n is None:
                n = extra.setdefault(flow, len(merged.flows) + len(extra))
            return str(n)

        unresolved = set(resolved.unresolved)
        self.db.executemany("INSERT INTO edge_kinds VALUES (?,?)", list(enumerate(KINDS)))
        kind = {name: n for n, name in enumerate(KINDS)}
        self.db.executemany(
            f"INSERT INTO edges VALUES (?1, ?2, ?3, ?4, {_placed('?5')}, ?6, ?7, ?8)",
            (
                (n, e.caller if e.caller >= 0 else None, e.callee, kind[e.kind], e.place,
                 e.site if e.site >= 0 else None, e.programs, " ".join(map(flow_number, e.evidence)) or None)
                for n, e in enumerate(resolved.edges)
            ),
        )  # fmt: skip
        self.db.executemany(
            "INSERT INTO sites VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                (n, s.caller if s.caller >= 0 else None, *unplace(s.place), SITE_KINDS[s.kind],
                 self._symbol(s.label) if s.label else None, s.klass, s.type, s.programs, n not in unresolved)
                for n, s in enumerate(merged.sites)
            ),
        )  # fmt: skip
        flows = [*merged.flows, *extra]
        self.db.executemany(
            f"INSERT INTO flows VALUES (?1, ?2, ?3, ?4, ?5, {_placed('?6')}, ?7)",
            (
                (n, self._symbol(f.target), self._symbol(f.source), FLOW_KINDS[f.kind],
                 f.caller if f.caller >= 0 else None, f.place, f.programs)
                for n, f in enumerate(flows)
            ),
        )  # fmt: skip
        self.db.executemany(
            "INSERT INTO externals VALUES (?,?,?,?,?,?)",
            (
                (caller if caller >= 0 else None, callee.rpartition(":")[2], *unplace(where), programs)
                for (caller, callee), (where, programs) in sorted(resolved.externals.items())
            ),
        )

    def _data(self) -> None:
        merged, symbol = self.merged, self._symbol
        for n, (key, (keyword, where, members)) in enumerate(sorted(merged.records.items())):
            file, line, _ = unplace(where)
            self.db.execute("INSERT INTO records VALUES (?,?,?,?,?)", (n, symbol(key), keyword, file, line))
            self.db.executemany(
                "INSERT INTO fields VALUES (?,?,?,?,?,?)",
                (
                    (n, i, symbol(f), kind, carrier, klass)
                    for i, (f, kind, carrier, klass) in enumerate(members)
                ),
            )
        self.db.executemany(
            "INSERT INTO constants VALUES (?,?,?,?,?)",
            (
                (symbol(key), symbol(owner), max(-(1 << 63), min(value, (1 << 63) - 1)), *unplace(where)[:2])
                for key, (owner, value, where) in sorted(merged.enums.items())
            ),
        )
        self.db.executemany(
            "INSERT INTO variables VALUES (?,?,?,?,?,?)",
            (
                (symbol(key), kind, static, *unplace(where)[:2], programs)
                for (key, where), (kind, static, _, programs) in sorted(merged.variables.items())
            ),
        )
        for n, (table, string, where, items) in enumerate(merged.rows):
            self.db.execute(
                "INSERT INTO rows VALUES (?,?,?,?,?)", (n, symbol(table), string, *unplace(where)[:2])
            )
            self.db.executemany(
                "INSERT INTO row_items VALUES (?,?,?,?)",
                ((n, i, symbol(target), symbol(item)) for i, (target, item) in enumerate(items)),
            )
        self.db.executemany(
            "INSERT INTO cases VALUES (?,?,?,?,?)",
            (
                (caller, symbol(constant), *unplace(where)[:2], unplace(end)[1])
                for caller, constant, where, end in merged.cases
            ),
        )

        # Taken apart by SQLite: rows made here, a hundred thousand of them, take longer than to write them.
        self.db.executemany(
            f"INSERT INTO refs VALUES (?1, {_placed('?2 >> 3')}, ?2 & 7)",
            ((n, found) for n, each in enumerate(merged.references) for found in sorted(each)),
        )


def write(
    path: Path,
    merged: Merged,
    resolved: Resolved,
    meta: dict[str, str],
    programs: list[tuple[int, str, str]],
    units: Iterable[tuple[bytes, str, str, list[str]]],
    digests: Iterable[tuple[str, int, int, str]],
) -> None:
    """Write an index; the file at `path` changes in one step, at the end.

    Parameters
    ----------
    units : iterable
        (packed facts, path, digest of the inputs, files they were read from), for re-indexing.
    digests : iterable
        (path, size, time of change in ns, digest) of every input.

    Raises
    ------
    GraphsError
        when the disk is full or the folder cannot be written; the old index is kept.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    if path.exists() and not path.is_file():
        raise GraphsError(f"the index cannot be written to {path}: that is no file; name another with -o")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(beside, isolation_level=None)) as db:
            db.executescript(
                "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA page_size=4096; BEGIN;" + SCHEMA
            )
            db.executemany("INSERT INTO meta VALUES (?,?)", sorted({**meta, "format": str(FORMAT)}.items()))
            db.executemany("INSERT INTO programs VALUES (?,?,?)", programs)
            _Writer(db, merged, resolved).all()
            db.executemany(
                "INSERT INTO units VALUES (?,?,?,?)",
                ((name, digest, "\n".join(depends), facts) for facts, name, digest, depends in units),
            )
            db.executemany("INSERT INTO digests VALUES (?,?,?,?)", digests)
            db.execute("COMMIT")
            db.executescript("BEGIN;" + _INDEXES + "COMMIT;")
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, sqlite3.Error) as error:
        raise GraphsError(
            f"the index {path} could not be written: {error}; the old one, if any, is unchanged"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def connect(path: Path) -> sqlite3.Connection:
    """Open an index to be read.

    Raises
    ------
    GraphsError
        when there is none, or it is not an index, damaged, or of another version.
    """
    advice = "make one with `studykvm index SRC -o FILE`"
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
            packed = file.read() if head == MAGIC else b""
    except OSError as error:
        raise GraphsError(f"no index at {path} ({error.strerror}); {advice}") from None
    try:
        if packed:
            db = sqlite3.connect(":memory:", check_same_thread=False)
            db.deserialize(zlib.decompress(packed))
        else:
            db = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, check_same_thread=False)
        found = db.execute("SELECT value FROM meta WHERE name='format'").fetchone()
    except (sqlite3.Error, zlib.error, OverflowError) as error:
        raise GraphsError(f"{path} is not an index, or is damaged ({error}); {advice}") from None
    if found is None or found[0] != str(FORMAT):
        version = found[0] if found else "unknown"
        raise GraphsError(f"{path} is an index of format {version}, this is format {FORMAT}; {advice}")
    return db


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))


def compress(source: Path, target: Path) -> int:
    """Write the small form of an index; its size in bytes.

    It lacks what only re-indexing needs, and all of it is one zlib stream behind `MAGIC`.
    """
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        with contextlib.closing(connect(source)) as full:
            full.backup(db)
        db.executescript("DELETE FROM units; DELETE FROM digests;")
        db.execute("UPDATE meta SET value='' WHERE name IN ('tree', 'arguments', 'scratch')")
        db.commit()
        db.execute("VACUUM")
        data = MAGIC + zlib.compress(db.serialize(), 9)
    beside = target.with_name(f".{target.name}.part")
    beside.write_bytes(data)
    os.replace(beside, target)
    return len(data)
