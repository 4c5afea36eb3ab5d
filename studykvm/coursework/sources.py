"""Evidence that lies ready: who called whom in a recording of the real program, and what its source says.

- `recorded(name) -> Calls`: a recording as a call tree by line numbers, which count from 1
- `Calls.calls(a, b)`, `Calls.chain(a, b)`, `Calls.children(line)`: lines that show something
- `Source()`: the index of the real source: `known(name)`, `edge(a, b)`, `callers(name)`
- `Name(file, name)`: a function, `file` empty when a student left it out; `matches`

A line stands under the nearest line above it that was recorded, which is not always who called it: signal
handlers stand under what they interrupted, generated code is invisible, and from the third main_loop_wait on
a recording of the emulator leaves most functions out. `Calls.sure` tells; where it is not sure, the source
must have the call, too.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from graphs import recordings
from graphs.calls import CallTable
from graphs.index import explain
from graphs.index.query import Edge, Function, Index

_HANDLERS = {"host_alarm_handler", "aio_signal_handler"}
_HELPERS = {"qemu-malloc.c", "cutils.c", "osdep.c", "compatfd.c", "bswap.h"}


class Name(NamedTuple):
    """A function as somebody names it."""

    file: str
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.name}" if self.file else self.name

    def matches(self, file: str, name: str) -> bool:
        """Whether it is that function; a file may be given by its last parts.

        >>> Name("qcow.c", "qcow_open").matches("block/qcow.c", "qcow_open")
        True
        >>> Name("", "qcow_open").matches("block/qcow2.c", "qcow_open")
        True
        >>> Name("block/qcow", "qcow_open").matches("block/qcow.c", "qcow_open")
        True
        """
        if self.name != name:
            return False
        given = self.file.removeprefix("./")
        if given and "." not in given.rpartition("/")[2]:
            file = file.rpartition(".")[0]
        return given in ("", file) or file.endswith("/" + given)


def _complete(calls: Calls) -> int:
    """The line up to which every function is recorded."""
    if calls.label[0] not in "de":
        return len(calls.parents)
    turns = calls.lines(Name("vl.c", "main_loop_wait"))
    return turns[2] if len(turns) > 2 else len(calls.parents)


class Calls:
    """The calls of one run of the real program.

    Parameters
    ----------
    label : str
        How texts call it.
    """

    def __init__(self, label: str, table: CallTable) -> None:
        self.label = label
        self.table = table
        self.parents: list[int] = []
        stacks: dict[int, list[int]] = {}
        for at, (depth, thread) in enumerate(zip(table.depth, table.thread, strict=True)):
            stack = stacks.setdefault(thread, [])
            # Functions that were left out of a recording leave gaps in its depths.
            while stack and table.depth[stack[-1]] >= depth:
                stack.pop()
            self.parents.append(stack[-1] if stack else -1)
            stack.append(at)
        self._lines: dict[int, list[int]] = {}
        for at, number in enumerate(table.function):
            self._lines.setdefault(number, []).append(at)
        self._complete = _complete(self)
        self._known: dict[tuple[int, int], bool] = {}

    def sure(self, at: int) -> bool:
        """Whether the function in a line was called by the one it stands under."""
        up = self.parents[at]
        if up < 0:
            return False
        (by, caller), (file, name) = self.name(up), self.name(at)
        if name in _HANDLERS or (caller == "cpu_x86_exec" and name.startswith(("helper_", "__"))):
            return False
        if at < self._complete:
            return True
        key = (self.table.function[up], self.table.function[at])
        if key not in self._known:
            self._known[key] = source().edge(Name(by, caller), Name(file, name)) is not None
        return self._known[key]

    def name(self, at: int) -> tuple[str, str]:
        """C file and name of the function called in a line."""
        return self.table.names[self.table.function[at]]

    def numbers(self, wanted: Name) -> set[int]:
        """The numbers of the functions that `wanted` may mean."""
        return {n for n, name in enumerate(self.table.names) if wanted.matches(*name) and n in self._lines}

    def lines(self, wanted: Name) -> list[int]:
        """Where a function is called, in order."""
        return sorted(at for number in self.numbers(wanted) for at in self._lines[number])

    def calls(self, caller: Name, callee: Name) -> int | None:
        """The first line in which `caller` itself calls `callee`."""
        callers, function = self.numbers(caller), self.table.function
        for at in self.lines(callee):
            if self.parents[at] >= 0 and function[self.parents[at]] in callers and self.sure(at):
                return at
        return None

    def chain(self, above: Name, below: Name) -> list[int]:
        """The lines from a call of `above` down to the nearest `below` under it; empty if there is none."""
        wanted = self.numbers(above)
        best: list[int] = []
        for at in self.lines(below):
            chain, up = [at], self.parents[at]
            while up >= 0 and self.table.function[up] not in wanted:
                chain.append(up)
                up = self.parents[up]
            if up >= 0 and (not best or len(chain) + 1 < len(best)):
                best = [*reversed([*chain, up])]
        return best

    def stack(self, at: int) -> list[int]:
        """The lines from the outermost call down to a line."""
        out = [at]
        while self.parents[out[-1]] >= 0:
            out.append(self.parents[out[-1]])
        return out[::-1]

    def children(self, at: int, helpers: bool = True) -> list[int]:
        """The lines of the calls that the call in a line makes itself; the telling ones without `helpers`."""
        depth, thread = self.table.depth[at], self.table.thread[at]
        out = []
        for below in range(at + 1, len(self.parents)):
            if self.table.thread[below] != thread:
                continue
            if self.table.depth[below] <= depth:
                break
            if self.parents[below] == at:
                file, _ = self.name(below)
                if self.sure(below) and (helpers or file not in _HELPERS):
                    out.append(below)
        return out

    def where(self, *lines: int) -> str:
        """Name lines for a reader: the recording, and how to look at them."""
        first, last = min(lines) + 1, max(lines) + 1
        span = f"line {first}" if first == last else f"lines {first}-{last}"
        return f"{span} of {self.label}"


@cache
def recorded(name: str) -> Calls:
    """Load a recording that ships."""
    recording = recordings.load(name)
    return Calls(_label(recording.name), recording.calls)


def _label(name: str) -> str:
    """As few of a recording's words as it takes to tell it from the others."""
    words = name.split("_")
    shorter = ("_".join(words[:count]) for count in range(1, len(words)))
    others = [other + "_" for other in recordings.names() if other != name]
    return next((label for label in shorter if not any(o.startswith(label + "_") for o in others)), name)


class Source:
    """The index of the real source."""

    def __init__(self) -> None:
        self.index = Index.open()

    def named(self, wanted: Name) -> list[Function]:
        """The functions that `wanted` may mean."""
        return [f for f in self.index.named(wanted.name) if wanted.matches(f.file, f.name)]

    def known(self, word: str) -> bool:
        """Whether a word, also as file:name, is a function of the program."""
        file, _, name = word.rpartition(":")
        return bool(self.named(Name(file, name)))

    def library(self, word: str) -> list[tuple[str, str, int]]:
        """Where a function outside the program, such as memcmp, is called: caller, file, line."""
        query = (
            "SELECT x.caller, files.path, x.line FROM externals x JOIN files ON files.id = x.file "
            "WHERE x.name = ? ORDER BY x.caller, x.line"
        )
        rows = self.index.db.execute(query, (word,)).fetchall()
        return [(self.index.by_number(caller).name, path, line) for caller, path, line in rows]

    def near(self, wanted: Name) -> list[str]:
        """Names like it."""
        return self.index._near(wanted.name, "SELECT DISTINCT name FROM functions")

    def edge(self, caller: Name, callee: Name) -> Edge | None:
        """A call from one to the other."""
        goals = {f.id for f in self.named(callee)}
        for function in self.named(caller):
            for edge in self.index.callees(function):
                if edge.callee in goals:
                    return edge
        return None

    def how(self, edge: Edge) -> str:
        """Say how a call is known."""
        return explain.how(self.index, edge)

    def callers(self, wanted: Name) -> set[tuple[str, str]]:
        """Who calls it, as (file, name)."""
        found = set()
        for function in self.named(wanted):
            for edge in self.index.callers(function):
                if edge.caller is not None:
                    by = self.index.by_number(edge.caller)
                    found.add((by.file, by.name))
        return found


@cache
def source() -> Source:
    """The index that ships, opened once."""
    return Source()
