"""Units to one body of facts: every function, record, place once, whatever unit told it.

- `merge(units, programs, everywhere)`: the `Merged` facts; the order of `units` does not matter.

Headers and templates are told by every unit that reads them; the first unit by name gives the row, calls and
references are united.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from graphs.index.facts import BY_NAME, Unit, place


class Function(NamedTuple):
    """A definition; `programs` is a set of bits."""

    key: str
    place: int
    last_line: int
    static: bool
    klass: str
    signature: str
    macro: str
    constructor: int
    parameters: tuple[str, ...]
    inline: bool
    programs: int


class Call(NamedTuple):
    """A direct call: the caller's number or -1, the callee's key."""

    caller: int
    callee: str
    place: int
    programs: int


class Site(NamedTuple):
    """A call through a pointer."""

    caller: int
    place: int
    kind: int
    label: str
    sources: tuple[str, ...]
    arguments: tuple[tuple[int, tuple[str, ...]], ...]
    klass: str
    type: str
    result: str
    programs: int


class Flow(NamedTuple):
    """A value goes from one symbol to another, in a function (or -1)."""

    target: str
    source: str
    kind: int
    place: int
    caller: int
    programs: int


@dataclass
class Merged:
    """Facts of all units, with one numbering of files.

    Attributes
    ----------
    files : list of str
        Sorted paths.
    functions : list of Function
        Sorted by path and name; callers are numbers into this list.
    references : list of set of int
        Those of each symbol, by its number; each is place and use packed into one integer: the place from
        bit 3 on.
    """

    files: list[str] = field(default_factory=list)
    errors: dict[str, list[str]] = field(default_factory=dict)
    file_programs: dict[str, int] = field(default_factory=dict)
    functions: list[Function] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    symbols: list[str] = field(default_factory=list)
    references: list[set[int]] = field(default_factory=list)
    records: dict[str, tuple[str, int, list[tuple[str, str, str, str]]]] = field(default_factory=dict)
    enums: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    variables: dict[tuple[str, int], tuple[str, bool, bool, int]] = field(default_factory=dict)
    rows: list[tuple[str, str, int, tuple[tuple[str, str], ...]]] = field(default_factory=list)
    cases: list[tuple[int, str, int, int]] = field(default_factory=list)


class _Merger:
    def __init__(self, units: list[bytes], programs: Mapping[str, int], everywhere: int) -> None:
        self.packed = units
        self.programs = programs
        self.everywhere = everywhere
        self.out = Merged()
        self.functions: dict[tuple[str, str], list[Any]] = {}
        self.named: dict[str, list[str]] = {}

    def run(self) -> Merged:
        out = self.out
        files: set[str] = set()
        symbols: set[str] = set()
        for unit in self._units():
            files.update(unit.files, (unit.path,))
            symbols.update(f"f::{key[4:]}" if key.startswith(BY_NAME) else key for key in unit.keys)
            self._functions(unit)
        out.files = sorted(files)
        out.symbols = sorted(symbols)
        self.file_number = {path: n for n, path in enumerate(out.files)}
        self.symbol_number = {key: n for n, key in enumerate(out.symbols)}
        self._number_functions()
        calls: dict[tuple[int, str, int], int] = {}
        sites: dict[tuple[int, int, str, str], list[Any]] = {}
        flows: dict[tuple[str, str, int, int, int], int] = {}
        out.references = [set() for _ in out.symbols]
        for unit in self._units():
            self._unit(unit, calls, sites, flows)
        out.calls = [Call(*k, v) for k, v in sorted(calls.items())]
        out.sites = [Site(*v) for _, v in sorted(sites.items())]
        out.flows = [Flow(*k, v) for k, v in sorted(flows.items())]
        out.rows = sorted(set(out.rows), key=lambda row: (row[0], row[2], row[1]))
        out.cases = sorted(set(out.cases))
        return out

    def _mask(self, unit: Unit) -> int:
        return self.programs.get(unit.path, self.everywhere)

    def _place(self, unit: Unit, where: int) -> int:
        if where < 0:
            return 0
        files = self._files
        return (files[where >> 36] << 36) | (where & ((1 << 36) - 1))

    def _enter(self, unit: Unit) -> None:
        self._files = [self.file_number[path] for path in unit.files]

    def _units(self) -> Iterator[Unit]:
        # Unpacked one at a time, twice: all of them at once would be most of the memory that indexing takes.
        for packed in self.packed:
            yield Unit.unpack(packed)

    def _functions(self, unit: Unit) -> None:
        mask = self._mask(unit)
        for row in unit.functions:
            key = unit.keys[row[0]]
            path = unit.files[row[1] >> 36]
            identity = (path, key.rpartition(":")[2])
            found = self.functions.get(identity)
            if found is None:
                where = row[1] & ((1 << 36) - 1)
                self.functions[identity] = [
                    key,
                    where,
                    row[2],
                    bool(row[3]),
                    *row[4:8],
                    tuple(row[8]),
                    row[9],
                    mask,
                ]
            else:
                found[-1] |= mask

    def _number_functions(self) -> None:
        order = sorted(self.functions)
        for path, name in order:
            row = self.functions[path, name]
            row[1] |= self.file_number[path] << 36
            self.out.functions.append(Function(*row))
        self.function_number = {identity: n for n, identity in enumerate(order)}

    def _found(self, unit: Unit, key: str) -> str:
        """The key of a function that a unit knows by name only: its own, else a static one it reads."""
        name = key[len(BY_NAME) :]
        if not self.named:
            for path, known in self.functions:
                self.named.setdefault(known, []).append(path)
        seen = {unit.path, *unit.depends}
        for path in sorted(self.named.get(name, ()), key=lambda path: path != unit.path):
            own: str = self.functions[path, name][0]
            if path in seen and not own.startswith("f::"):
                return own
        return f"f::{name}"

    def _unit(
        self,
        unit: Unit,
        calls: dict[tuple[int, str, int], int],
        sites: dict[tuple[int, int, str, str], list[Any]],
        flows: dict[tuple[str, str, int, int, int], int],
    ) -> None:
        self._enter(unit)
        out, mask = self.out, self._mask(unit)
        keys = unit.keys = [self._found(unit, key) if key.startswith(BY_NAME) else key for key in unit.keys]
        files = self._files
        low = (1 << 36) - 1
        callers = [
            self.function_number[unit.files[row[1] >> 36], keys[row[0]].rpartition(":")[2]]
            for row in unit.functions
        ]
        callers.append(-1)
        for caller, callee, where in unit.calls:
            entry = (callers[caller], keys[callee], (files[where >> 36] << 36) | (where & low))
            calls[entry] = calls.get(entry, 0) | mask
        for site in unit.sites:
            self._site(unit, site, callers, sites, mask)
        for target, source, kind, where, caller in unit.flows:
            flow = (keys[target], keys[source], kind, self._place(unit, where), callers[caller])
            flows[flow] = flows.get(flow, 0) | mask
        refer = [out.references[self.symbol_number[key]].add for key in keys]
        rows = iter(unit.references)
        for symbol, use, where in zip(rows, rows, rows, strict=True):
            refer[symbol]((files[where >> 36] << 39) | ((where & low) << 3) | use)
        if unit.errors:
            out.errors[unit.path] = unit.errors
        for path in unit.files:
            out.file_programs[path] = out.file_programs.get(path, 0) | mask
        self._declarations(unit, callers)

    def _site(
        self,
        unit: Unit,
        site: list[Any],
        callers: list[int],
        sites: dict[tuple[int, int, str, str], list[Any]],
        mask: int,
    ) -> None:
        keys = unit.keys
        caller, where, kind, label, sources, arguments, klass, kind_text, result = site
        where = self._place(unit, where)
        identity = (callers[caller], where, keys[result], label)
        found = sites.get(identity)
        if found is not None:
            found[-1] |= mask
            return
        passed = tuple((position, tuple(keys[v] for v in values)) for position, values in arguments)
        sites[identity] = [
            callers[caller], where, kind, label, tuple(dict.fromkeys(keys[s] for s in sources)), passed,
            klass,
            kind_text, keys[result], mask,
        ]  # fmt: skip

    def _declarations(self, unit: Unit, callers: list[int]) -> None:
        out, keys = self.out, unit.keys
        for number, keyword, where, fields in unit.records:
            if keys[number] not in out.records:
                members = [(keys[f], kind, carrier, klass) for f, kind, carrier, klass in fields]
                out.records[keys[number]] = (keyword, self._place(unit, where), members)
        for number, _where, constants in unit.enums:
            owner = keys[number] if number >= 0 else ""
            for constant, value, where in constants:
                out.enums.setdefault(keys[constant], (owner, value, self._place(unit, where)))
        for number, kind, where, static, defined in unit.variables:
            if defined:
                place_ = self._place(unit, where)
                out.variables.setdefault((keys[number], place_), (kind, bool(static), True, self._mask(unit)))
        for number, _row, string, where, items in unit.rows:
            named = tuple((keys[a] if a >= 0 else "", keys[b]) for a, b in items)
            out.rows.append((keys[number], string, self._place(unit, where), named))
        for caller, constant, where, end in unit.cases:
            out.cases.append(
                (callers[caller], keys[constant], self._place(unit, where), self._place(unit, end))
            )


def merge(units: Mapping[str, bytes], programs: Mapping[str, int], everywhere: int = 1) -> Merged:
    """All facts once.

    Parameters
    ----------
    units : mapping
        Path to packed `Unit`; the order does not matter.
    programs : mapping
        Path of a C file to the bits of the programs it is linked into.
    everywhere : int
        Bits for units that no program lists, such as the common headers.
    """
    return _Merger([units[path] for path in sorted(units)], programs, everywhere).run()


__all__ = ["Call", "Flow", "Function", "Merged", "Site", "merge", "place"]
