"""Reading files in this process, in several, or on a dask cluster; the facts are the same.

- `read(work, paths, jobs, scheduler)`: (path, files read, packed facts) of `paths` as they come, the common
  headers' among them.
- `Reader(work, paths)`: one process's parser with its precompiled header.

While one file is walked in Python, clang already parses the next ones in a second thread: it needs no lock of
ours. Where it does not keep up, both parse.
"""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphsError
from graphs.index import clang
from graphs.index.parse import Parsed, Parser
from graphs.index.precompiled import PSEUDO, Header, Texts
from graphs.index.tree import CLASSES
from graphs.index.visitor import Building

if TYPE_CHECKING:
    from graphs.index.build import Work
    from graphs.index.facts import Unit

Facts = tuple[str, list[str], bytes]
_PIECE = 6
_AHEAD = 2
_SWITCH = 0.0002  # seconds


class Reader:
    """Reads files of a tree one after the other.

    Parameters
    ----------
    paths : list of str
        Those to come; their texts are looked into while clang makes the precompiled header.
    """

    def __init__(self, work: Work, paths: list[str]) -> None:
        self.work = work
        self.parser = Parser(Path(work.tree), work.arguments, work.roots)
        self.header: Header | None = None
        if work.headers:
            visitor = Building(Path(work.scratch), CLASSES)
            texts = Texts(Path(work.tree), work.arguments)
            with ThreadPoolExecutor(1) as thread:
                made = thread.submit(Header.build, self.parser, work.headers, Path(work.scratch), texts)
                texts.gather(paths)
                self.header = made.result()
            self.parser.use_header(self.header)
            visitor.finish()

    def all(self, paths: Iterable[str], common: bool = False) -> Iterator[Unit]:
        """Units of files; some are already being parsed while one is walked.

        With `common`, that of the common headers too, if there is a precompiled one.
        """
        left = iter(paths)
        coming: deque[Future[Parsed]] = deque()
        with _quick_switches(), ThreadPoolExecutor(1) as thread:

            def ahead() -> None:
                for path in islice(left, _AHEAD - len(coming)):
                    coming.append(thread.submit(self._parsed, path, self._common(path)))

            ahead()
            if common and self.header is not None:
                yield self.header.facts()
            while coming:
                # Rather than wait for the other thread, take a file off it.
                path = None if coming[0].done() else next(left, None)
                if path is None:
                    parsed = coming.popleft().result()
                else:
                    parsed = self._parsed(path, self._common(path))
                ahead()
                yield self.parser.facts(parsed)

    def _common(self, path: str) -> bool:
        # Asked where the walk is: the thread that parses would wait for the interpreter at every turn.
        return path not in self.work.own and self.parser.common(path)

    def _parsed(self, path: str, common: bool) -> Parsed:
        return self.parser.parsed(path, self.work.own.get(path), common)


@contextmanager
def _quick_switches() -> Iterator[None]:
    """A parsed file must not wait long for the walk to let the next parse begin."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


_reader: Reader | None = None


def _pack(unit: Unit) -> Facts:
    return unit.path, unit.depends, unit.pack()


def read(work: Work, paths: list[str], jobs: int, scheduler: str | None) -> Iterator[Facts]:
    """Facts of the files `paths` in whatever order they get ready."""
    if scheduler is not None:
        return _on_cluster(work, paths, scheduler)
    if jobs > 1 and len(paths) > 1:
        return _in_processes(work, paths, jobs)
    return _here(work, paths)


def _here(work: Work, paths: list[str]) -> Iterator[Facts]:
    reader = Reader(work, paths)
    for unit in reader.all(paths, common=True):
        yield _pack(unit)
    reader.parser.close()
    del reader
    clang.trim()


def _in_processes(work: Work, paths: list[str], jobs: int) -> Iterator[Facts]:
    global _reader
    # The precompiled header is made once, here; the forked processes inherit it.
    _reader = Reader(work, paths)
    order = sorted(paths, key=lambda path: -_size(work, path))
    pieces = [order[n : n + _PIECE] for n in range(0, len(order), _PIECE)]
    context = multiprocessing.get_context("fork")
    pool = context.Pool(min(jobs, len(pieces)), initializer=_worker)
    try:
        coming = pool.imap_unordered(_read_piece, pieces)
        if _reader.header is not None:
            yield _pack(_reader.header.facts())
        for piece in coming:
            yield from piece
        pool.close()
    except BaseException:
        pool.terminate()
        raise
    finally:
        pool.join()
        _reader = None


def _size(work: Work, path: str) -> int:
    try:
        return (Path(work.tree) / path).stat().st_size
    except OSError:
        return 0


def _worker() -> None:
    import gc

    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _read_piece(paths: list[str]) -> list[Facts]:
    assert _reader is not None
    return [_pack(unit) for unit in _reader.all(paths)]


def _on_cluster(work: Work, paths: list[str], scheduler: str) -> Iterator[Facts]:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError:
        raise GraphsError("--scheduler needs dask.distributed: pip install 'studykvm[cluster]'") from None
    try:
        client = distributed.Client(scheduler, timeout="10s")
    except (OSError, TimeoutError, ValueError) as error:
        raise GraphsError(f"no dask scheduler answers at {scheduler}: {error}") from None
    with client:
        futures = [
            client.submit(read_piece, work, paths[n::16], pure=False) for n in range(16) if paths[n::16]
        ]
        told = False
        for future in distributed.as_completed(futures):
            for facts in future.result():
                if facts[0] == PSEUDO:
                    if told:
                        continue
                    told = True
                yield facts


def read_piece(work: Work, paths: list[str]) -> list[Facts]:
    """Facts of some files, with the common headers' if one was made; runs on a worker."""
    import tempfile
    from dataclasses import replace

    with tempfile.TemporaryDirectory(prefix="studykvm-index-") as folder:
        mine = replace(work, scratch=folder) if work.headers else work
        return list(_here(mine, paths))
