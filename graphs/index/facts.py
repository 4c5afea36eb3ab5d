"""What one translation unit tells: plain lists, ready to be packed, merged and compared.

A symbol is a short string, the same in every unit that mentions it:

    f::bdrv_open           function with external linkage        f:block.c:bdrv_close_all   static one, with
    its file v::bdrv_qcow           variable                              v:vl.c:drives
    l:FILE:FUNC:x:12:5     local variable, by its declaration    p:f::bdrv_open:1           second parameter
    r:f::bdrv_open         what the function returns             a:f::error_report          its variadic
    arguments m:block_int.h:BlockDriver.bdrv_open   field                  s:FILE:FUNC:L:C:N          result
    of an
    indirect call e:FILE:NAME            enum constant                         t:FILE:NAME
    struct, union,
    enum, typedef

A place is one integer: file number in `Unit.files`, line, column; see `place` and `unplace`.

BY_NAME + a name is a function of which the unit knows no more than that; merging finds out which.

- `Unit`: the facts of one file; `pack()` and `Unit.unpack()` for the incremental store and for processes.
- `USES`, `FLOW_KINDS`, `SITE_KINDS`: names of the small integers used in the rows.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, fields
from typing import Any

_COLUMN_BITS, _LINE_BITS = 12, 24
_COLUMN_MASK, _LINE_MASK = (1 << _COLUMN_BITS) - 1, (1 << _LINE_BITS) - 1

USES = ("read", "write", "call", "address", "declaration", "definition", "type")
READ, WRITE, CALL, ADDRESS, DECLARATION, DEFINITION, TYPE = range(7)

BY_NAME = "f:?:"

FLOW_KINDS = ("assignment", "initialiser", "argument", "return", "address passed")
ASSIGNED, INITIALISED, PASSED, RETURNED, ALIASED = range(5)

SITE_KINDS = ("field", "variable", "parameter", "array", "result", "expression")


def place(file: int, line: int, column: int) -> int:
    """One integer for a place.

    >>> unplace(place(3, 120, 7))
    (3, 120, 7)
    """
    return (file << (_COLUMN_BITS + _LINE_BITS)) | (line << _COLUMN_BITS) | min(column, _COLUMN_MASK)


def unplace(where: int) -> tuple[int, int, int]:
    """File number, line and column of a place."""
    return where >> (_COLUMN_BITS + _LINE_BITS), (where >> _COLUMN_BITS) & _LINE_MASK, where & _COLUMN_MASK


@dataclass
class Unit:
    """Facts of one translation unit.

    Attributes
    ----------
    path : str
        The C file, relative to the tree.
    files, keys : list of str
        Paths and symbols that the rows refer to by number.
    depends : list of str
        Files of the tree that were read for it, itself included.
    errors : list of str
        Errors of the parser; the facts are then what could be read.
    functions : list
        [symbol, place, last line, static, signature class, signature text, macro that made it, constructor?,
        parameter names, inline?]
    calls : list
        [caller, callee symbol, place]; a caller is a number into `functions`, -1 for a file-scope
        initialiser.
    sites : list
        Calls through pointers: [caller, place, kind, label, source symbols, arguments, class, type, result
        symbol]; arguments are [position, symbols].
    flows : list
        [to, from, kind, place, caller]: a value that may be a function goes from one symbol to another.
    references : array of int
        Flat triples: symbol, use, place.
    records : list
        [symbol, keyword, place, [[field, type, place, carries a function pointer?, its class], ...]]
    enums : list
        [enum symbol, place, [[name, value, place], ...]]
    variables : list
        [symbol, type, place, static, defined?]
    rows : list
        Table rows with a string and symbols: [table symbol, row, string, place, [[field, symbol], ...]]
    cases : list
        [caller, constant symbol, place, place of the end]
    """

    path: str
    files: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    depends: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    functions: list[list[Any]] = field(default_factory=list)
    calls: list[list[int]] = field(default_factory=list)
    sites: list[list[Any]] = field(default_factory=list)
    flows: list[list[int]] = field(default_factory=list)
    references: array[int] = field(default_factory=lambda: array("q"))
    records: list[list[Any]] = field(default_factory=list)
    enums: list[list[Any]] = field(default_factory=list)
    variables: list[list[Any]] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    cases: list[list[int]] = field(default_factory=list)

    def pack(self) -> bytes:
        """The facts as bytes."""
        import msgpack

        values = [getattr(self, name) for name in _NAMES]
        values[_REFERENCES] = self.references.tobytes()
        packed: bytes = msgpack.packb(values)
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> Unit:
        """Facts from bytes made by `pack`, on a machine of the same byte order."""
        import msgpack

        values = msgpack.unpackb(data, strict_map_key=False)
        values[_REFERENCES] = array("q", values[_REFERENCES])
        return cls(*values)


_NAMES = [f.name for f in fields(Unit)]
_REFERENCES = _NAMES.index("references")
