"""`studykvm index`: from a source tree to an index file.

- `Source`: what is to be read: a tree with a profile, a compile_commands.json, or plain files with flags.
- `prepare(source, scratch, report)`: the headers that configure would write, and the arguments.
- `build(source, output, jobs=1, progress=None, scheduler=None)`: make or renew the index; a `Report` says
  what was done.

Files whose inputs did not change since the index at `output` was made are not read again. The result is the
same as from scratch: facts are merged and resolved anew each time.
"""

from __future__ import annotations

import gc
import hashlib
import json
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from graphs.errors import GraphsError
from graphs.index import clang, merge, profile, resolve, store
from graphs.index.precompiled import PSEUDO

Progress = Callable[[int, int, str], None]

# Below this many files a precompiled header costs more than it saves.
_FEW = 8


@dataclass
class Source:
    """What is read, and how.

    Attributes
    ----------
    tree : Path
        Root; paths in the index are relative to it.
    files : dict
        C file to the names of its programs.
    arguments : dict
        C file to its own compiler arguments; those that are absent take the profile's.
    profile : Profile or None
        The family's, if one knows the tree.
    """

    tree: Path
    files: dict[str, tuple[str, ...]]
    arguments: dict[str, list[str]] = field(default_factory=dict)
    profile: profile.Profile | None = None

    def programs(self) -> list[tuple[int, str, str]]:
        """(bit, name, program) of the link sets."""
        if self.profile is not None:
            sets = self.profile.data["sets"]
            return [(1 << n, name, rule.get("program", name)) for n, (name, rule) in enumerate(sets.items())]
        names = sorted({name for programs in self.files.values() for name in programs})
        return [(1 << n, name, name) for n, name in enumerate(names)]

    def masks(self) -> dict[str, int]:
        """Bits of the programs of each file."""
        bits = {name: bit for bit, name, _ in self.programs()}
        return {path: sum(bits[name] for name in names) for path, names in self.files.items()}


@dataclass
class Report:
    """What an indexing run did."""

    output: Path
    files: int = 0
    read: int = 0
    functions: int = 0
    edges: int = 0
    sites: int = 0
    unresolved: int = 0
    seconds: float = 0.0
    failed: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass
class Work:
    """Everything a process needs to read files; picklable."""

    tree: str
    arguments: list[str]
    roots: dict[str, str]
    scratch: str
    headers: list[str]
    own: dict[str, list[str]]


def build(
    source: Source,
    output: Path,
    jobs: int = 1,
    progress: Progress | None = None,
    scheduler: str | None = None,
) -> Report:
    """Make or renew the index at `output`.

    Parameters
    ----------
    jobs : int
        Processes that parse.
    progress : callable
        Called with (files done, files in all, file at work).
    scheduler : str, optional
        Address of a dask.distributed scheduler that spreads the parsing.

    Raises
    ------
    GraphsError
        when there is nothing to read, or the index cannot be written.
    """
    started = time.perf_counter()
    if not source.files:
        raise GraphsError(f"no C files to index under {source.tree}")
    report = Report(output, files=len(source.files))
    with _paused_collector(), tempfile.TemporaryDirectory(prefix="studykvm-index-") as folder:
        scratch = Path(folder)
        work = prepare(source, scratch, report)
        meta = _identity(source)
        old = _previous(output, meta)
        digests = _Digests(source.tree, scratch, old.digests)
        todo = [path for path in source.files if not old.fresh(path, digests)]
        if len(todo) < _FEW and not (PSEUDO in old.units and not old.fresh(PSEUDO, digests)):
            work.headers = []
        else:
            todo = list(source.files) if PSEUDO in old.units and not old.fresh(PSEUDO, digests) else todo
        units = old.keep(set(source.files) - set(todo), digests)
        with _interruption(scheduler is None) as check:
            for path, depends, facts in _read_all(work, todo, jobs, progress, scheduler):
                units[path] = depends, facts
                check()
        report.read = len(todo)
        _write(source, output, meta, units, digests, report)
    report.seconds = time.perf_counter() - started
    return report


@contextmanager
def _paused_collector() -> Iterator[None]:
    # Facts are millions of small objects without cycles: collecting them only costs.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _interruption(here: bool) -> Iterator[Callable[[], None]]:
    """Ctrl-C counts between two files: within one a callback of libclang would lose it, and half the file."""
    pressed: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    ours = (
        here
        and before is signal.default_int_handler
        and threading.current_thread() is threading.main_thread()
    )

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    if ours:
        signal.signal(signal.SIGINT, lambda number, _frame: pressed.append(number))
    try:
        yield check
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
    check()


def prepare(source: Source, scratch: Path, report: Report) -> Work:
    """Write the headers that reading needs into `scratch`; what a process must know to read files."""
    roots = {f"{source.tree}/": "", f"{scratch}/": "<generated>/"}
    if source.profile is None:
        return Work(str(source.tree), ["-xc"], roots, str(scratch), [], source.arguments)
    report.problems += source.profile.prepare(source.tree, scratch)
    arguments = source.profile.arguments(source.tree, scratch)
    headers = list(source.profile.data.get("pch", {}).get("headers", []))
    return Work(str(source.tree), arguments, roots, str(scratch), headers, source.arguments)


def _identity(source: Source) -> dict[str, str]:
    name = source.profile.name if source.profile else ""
    title = str(source.profile.data["title"]) if source.profile else ""
    version = source.profile.version(source.tree) if source.profile else ""
    settings = json.dumps(
        [name, source.profile.data if source.profile else {}, source.arguments], sort_keys=True
    )
    return {
        "tree": str(source.tree),
        "identity": f"{title} {version}".strip() or source.tree.name,
        "profile": name,
        "clang": clang.version(),
        "settings": hashlib.sha256(settings.encode()).hexdigest(),
    }


class _Digests:
    """Digests of the inputs, taken once; a file of unchanged size and time is not read for it."""

    def __init__(self, tree: Path, scratch: Path, known: dict[str, tuple[int, int, str]]) -> None:
        self.tree = tree
        self.scratch = scratch
        self.known = known
        self.found: dict[str, tuple[int, int, str]] = {}

    def of(self, path: str) -> str:
        """Digest of one file, '' when it is gone."""
        if path not in self.found:
            self.found[path] = self._take(path)
        return self.found[path][2]

    def _take(self, path: str) -> tuple[int, int, str]:
        full = self.scratch / path[12:] if path.startswith("<generated>/") else self.tree / path
        try:
            status = full.stat()
            before = self.known.get(path)
            if before is not None and before[:2] == (status.st_size, status.st_mtime_ns):
                return before
            digest = hashlib.blake2b(full.read_bytes(), digest_size=12).hexdigest()
        except OSError:
            return (-1, 0, "")
        return status.st_size, status.st_mtime_ns, digest

    def all(self, paths: list[str]) -> str:
        """One digest for several files."""
        return hashlib.blake2b(
            "\n".join(self.of(path) for path in paths).encode(), digest_size=12
        ).hexdigest()


class _Previous:
    """The facts of the index that is being renewed."""

    def __init__(self) -> None:
        self.units: dict[str, tuple[str, list[str]]] = {}
        self.digests: dict[str, tuple[int, int, str]] = {}
        self.path: Path | None = None

    def fresh(self, path: str, digests: _Digests) -> bool:
        """Whether nothing that a unit was read from has changed."""
        known = self.units.get(path)
        return known is not None and digests.all(known[1]) == known[0]

    def keep(self, paths: set[str], digests: _Digests) -> dict[str, tuple[list[str], bytes]]:
        """Facts of the units that stay."""
        if self.path is None:
            return {}
        if PSEUDO in self.units and self.fresh(PSEUDO, digests):
            paths = paths | {PSEUDO}
        with closing(store.connect(self.path)) as db:
            rows = db.execute("SELECT path, facts FROM units")
            return {path: (self.units[path][1], facts) for path, facts in rows if path in paths}


def _previous(output: Path, meta: dict[str, str]) -> _Previous:
    out = _Previous()
    try:
        with closing(store.connect(output)) as db:
            known = dict(db.execute("SELECT name, value FROM meta").fetchall())
            if any(known.get(name) != meta[name] for name in ("tree", "clang", "settings")):
                return out
            out.units = {
                path: (digest, depends.split("\n") if depends else [])
                for path, digest, depends in db.execute("SELECT path, digest, depends FROM units")
            }
            out.digests = {path: (s, m, d) for path, s, m, d in db.execute("SELECT * FROM digests")}
            out.path = output
    except (GraphsError, sqlite3.Error):
        return _Previous()
    return out


def _read_all(
    work: Work, todo: list[str], jobs: int, progress: Progress | None, scheduler: str | None
) -> Iterator[tuple[str, list[str], bytes]]:
    from graphs.index import spread

    done = 0
    for path, depends, facts in spread.read(work, todo, jobs, scheduler):
        if path != PSEUDO:
            done += 1
        if progress is not None:
            progress(done, len(todo), path)
        yield path, depends, facts


def _write(
    source: Source,
    output: Path,
    meta: dict[str, str],
    units: dict[str, tuple[list[str], bytes]],
    digests: _Digests,
    report: Report,
) -> None:
    bits = source.programs()
    everywhere = sum(bit for bit, _, _ in bits)
    merged = merge.merge({path: facts for path, (_, facts) in units.items()}, source.masks(), everywhere)
    generated = source.profile.data.get("generated_code", {}) if source.profile else {}
    resolved = resolve.resolve(merged, [bit for bit, _, _ in bits], generated)
    rows = [(facts, path, digests.all(depends), depends) for path, (depends, facts) in sorted(units.items())]
    read = sorted({path for depends, _ in units.values() for path in depends})
    meta["sources"] = f"{len(read)} files, digest {digests.all(read)}"
    meta["command"] = f"studykvm index {source.tree.name}"
    known = [(path, *values) for path, values in sorted(digests.found.items())]
    store.write(output, merged, resolved, meta, bits, rows, known)
    report.functions = len(merged.functions)
    report.edges = len(resolved.edges)
    report.sites = len(merged.sites)
    report.unresolved = len(resolved.unresolved)
    report.failed = merged.errors


__all__ = ["Progress", "Report", "Source", "Work", "build"]
