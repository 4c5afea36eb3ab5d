"""The micro-benchmark of C call features: what each folder expects, what really happens, and what a tool finds.

- `FEATURES`: the folders. `expected(folder)`: its edges, with how they are known and whether its run makes them.
- `observed(folder, scratch)`: the edges of a real run, compiled with gcc -finstrument-functions.
- `found(folder, scratch)`: the edges of our index.

A function is its name; where a feature has several of a name, file:name.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
FEATURES = sorted(path.parent for path in HERE.glob("features/*/expected.tsv"))
START = "-"


def expected(folder: Path) -> dict[tuple[str, str], tuple[set[str], bool]]:
    """(caller, callee) to (kinds, does the run make the call?)."""
    out: dict[tuple[str, str], tuple[set[str], bool]] = {}
    for line in (folder / "expected.tsv").read_text().splitlines()[1:]:
        caller, callee, kind, run = line.split("\t")
        kinds, seen = out.get((caller, callee), (set(), False))
        out[caller, callee] = (kinds | {kind}, seen or run == "seen")
    return out


def observed(folder: Path, scratch: Path) -> set[tuple[str, str]]:
    """Edges of a run; the program must exit with 0."""
    program = scratch / "program"
    sources = [str(path) for path in sorted(folder.glob("*.c"))]
    words = ["gcc", "-std=gnu11", "-g", "-w", "-O0", "-no-pie", "-pthread", "-finstrument-functions", "-o", str(program)]
    subprocess.run([*words, *sources, str(HERE / "trace.c")], check=True)
    log = scratch / "pairs"
    subprocess.run([str(program)], check=True, env={**os.environ, "CCG_OUT": str(log)})
    listing = subprocess.run(["nm", "-l", str(program)], check=True, capture_output=True, text=True).stdout
    names = {}
    for line in listing.splitlines():
        symbol, _, place = line.partition("\t")
        words = symbol.split()
        if len(words) == 3 and words[1] in "tT":
            names[int(words[0], 16)] = (Path(place.rpartition(":")[0]).name, words[2])
    pairs = [line.split() for line in log.read_text().splitlines()]
    identities = [tuple(names.get(int(word, 16), ("", START)) for word in pair) for pair in pairs]
    twins = _twins({identity for pair in identities for identity in pair})
    return {(_shown(a, twins), _shown(b, twins)) for a, b in identities if b[1] != "main"}


def found(folder: Path, scratch: Path) -> dict[tuple[str, str], set[str]]:
    """(caller, callee) to kinds, by our index."""
    from graphs.index.build import build
    from graphs.index.locate import locate
    from graphs.index.query import Index

    output = scratch / "feature.index"
    build(locate([str(path) for path in sorted(folder.glob("*.c"))], ["-std=gnu11"], scratch), output)
    out: dict[tuple[str, str], set[str]] = {}
    with Index.open(output) as index:
        functions = index.all_functions
        twins = _twins({(f.file, f.name) for f in functions.values()})
        for edge in index.edges():
            caller = START
            if edge.caller is not None:
                caller = _shown((functions[edge.caller].file, functions[edge.caller].name), twins)
            callee = _shown((functions[edge.callee].file, functions[edge.callee].name), twins)
            out.setdefault((caller, callee), set()).add(edge.kind)
    return out


def _twins(identities: set[tuple[str, str]]) -> set[str]:
    names = [name for _, name in identities]
    return {name for name in names if names.count(name) > 1 and name != START}


def _shown(identity: tuple[str, str], twins: set[str]) -> str:
    file, name = identity
    return f"{file}:{name}" if name in twins else name
