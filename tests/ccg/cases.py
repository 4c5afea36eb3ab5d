"""The cases of this folder: their expectation, what happens when they run, and what an index of them says.

An edge is (caller, callee, kind), a pair (caller, callee); functions are "file:name" with the file relative
to the case's folder, `START` is the program's start.

- `all_cases()`: every case; `Case.edges`, `Case.beyond`: its expectation (expected.toml, see README.md).
- `compile_runtime(folder)`, `happened(case, runtime, folder)`: the pairs of a run, by the runtime in
  _runtime/.
- `indexed(case, folder)`: the edges that graphs.index tells (the flow tier).
- `score(found, expected)`: hits, recall, precision.
"""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
START = "<start>"
MAIN = "main.c:main"
_WRAPPED = ("pthread_create", "sigaction", "signal", "atexit")
# DWARF 5 as gcc 12 writes it makes addr2line name the wrong file for functions in headers.
_COMPILER = ("gcc", "-O0", "-gdwarf-4", "-w", "-pthread", "-no-pie")

Pair = tuple[str, str]


@dataclass(frozen=True)
class Expected:
    """An edge of an expectation.

    Attributes
    ----------
    caller, callee : str
        "file:name".
    kind : str
        How it is called.
    idle : str
        Why it does not happen in the run of the test, "" if it does.
    missed : str
        Why the index does not find it, "" if it does.
    """

    caller: str
    callee: str
    kind: str
    idle: str = ""
    missed: str = ""

    @property
    def pair(self) -> Pair:
        """Caller and callee."""
        return self.caller, self.callee


@dataclass(frozen=True)
class Beyond:
    """An edge that the index tells though C does not have it, and why."""

    caller: str
    callee: str
    kind: str
    why: str


@dataclass
class Case:
    """One folder.

    Attributes
    ----------
    flags, link : list of str
        For compiler and index; for the compiler alone.
    """

    folder: Path
    sources: list[str]
    edges: list[Expected]
    beyond: list[Beyond] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    link: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def pairs(self) -> set[Pair]:
        """All expected pairs."""
        return {edge.pair for edge in self.edges}


def load(folder: Path) -> Case:
    """Read a case."""
    data = tomllib.loads((folder / "expected.toml").read_text())
    data["edges"] = [Expected(**edge) for edge in data["edges"]]
    data["beyond"] = [Beyond(**edge) for edge in data.get("beyond", [])]
    return Case(folder, **data)


def all_cases() -> list[Case]:
    """Every case, by name."""
    return [load(path.parent) for path in sorted(HERE.glob("*/expected.toml"))]


def compile_runtime(folder: Path) -> Path:
    """The runtime's object file, made in `folder`."""
    out = folder / "pairs.o"
    subprocess.run(
        [*_COMPILER, "-c", HERE / "_runtime" / "pairs.c", "-o", out], check=True, capture_output=True
    )
    return out


def happened(case: Case, runtime: Path, folder: Path) -> set[Pair]:
    """Compile and run a case in `folder`; who called whom, but for the start of main.

    Raises
    ------
    RuntimeError
        when it does not compile, or ends with another status than 0.
    """
    program, noted = folder / case.name, folder / f"{case.name}.pairs"
    wraps = [f"-Wl,--wrap={name}" for name in _WRAPPED]
    command: list[str | Path] = [*_COMPILER]
    command += ["-finstrument-functions", *case.flags, *case.sources, runtime, *wraps, *case.link]
    _run([*command, "-o", program], case.folder)
    _run([program], case.folder, {**os.environ, "CCG_PAIRS": str(noted)})
    rows = [line.split() for line in noted.read_text().splitlines()]
    names = _names(program, sorted({address for row in rows for address in row} - {"0"}), case.folder)
    pairs = {(names.get(caller, START), names[callee]) for caller, callee in rows}
    return pairs - {(START, MAIN)}


def _run(command: Sequence[str | Path], folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"{Path(command[0]).name} in {folder.name} ended with {done.returncode}: {done.stderr}"
        )
    return done.stdout


def _names(program: Path, addresses: list[str], folder: Path) -> dict[str, str]:
    """Address to "file:name", where the definition stands."""
    told = _run(["addr2line", "-f", "-e", program, *addresses], folder).splitlines()
    out = {}
    for address, name, place in zip(addresses, told[::2], told[1::2], strict=True):
        path = Path(os.path.normpath(place.rpartition(":")[0]))
        out[address] = f"{path.relative_to(folder)}:{name}"
    return out


def indexed(case: Case, folder: Path) -> set[tuple[str, str, str]]:
    """Index a case with its flags; its edges.

    Raises
    ------
    GraphsError
        when it cannot be indexed.
    """
    from graphs.index.build import build
    from graphs.index.locate import locate
    from graphs.index.query import Index

    output = folder / f"{case.name}.index"
    build(locate([str(case.folder / name) for name in case.sources], case.flags, folder), output)
    with Index.open(output) as index:
        name = {number: str(function) for number, function in index.all_functions.items()}
        return {
            (START if edge.caller is None else name[edge.caller], name[edge.callee], edge.kind)
            for edge in index.edges()
        }


@dataclass
class Score:
    """Pairs found, expected, and both."""

    found: int = 0
    expected: int = 0
    hits: int = 0

    def __add__(self, other: Score) -> Score:
        """Two scores together."""
        return Score(self.found + other.found, self.expected + other.expected, self.hits + other.hits)

    @property
    def recall(self) -> float:
        """Share of the expected pairs that were found."""
        return self.hits / self.expected if self.expected else 1.0

    @property
    def precision(self) -> float:
        """Share of the found pairs that were expected."""
        return self.hits / self.found if self.found else 1.0


def score(found: set[Pair], expected: set[Pair]) -> Score:
    """Hold pairs against the expected ones."""
    return Score(len(found), len(expected), len(found & expected))
