"""Reading files in this process, in several, or on a dask cluster; the units are the same.

- `read(work, paths, jobs, scheduler)`: units of `paths` as they come, the common headers' among them.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

from graphs.errors import GraphsError
from graphs.index.facts import Unit
from graphs.index.precompiled import PSEUDO

if TYPE_CHECKING:
    from graphs.index.build import Work, _Reader

_reader: _Reader | None = None


def read(work: Work, paths: list[str], jobs: int, scheduler: str | None) -> Iterator[Unit]:
    """Units of the files `paths` in whatever order they get ready."""
    if scheduler is not None:
        return _on_cluster(work, paths, scheduler)
    if jobs > 1 and len(paths) > 1:
        return _in_processes(work, paths, jobs)
    return _here(work, paths)


def _here(work: Work, paths: list[str]) -> Iterator[Unit]:
    from graphs.index.build import _Reader

    reader = _Reader(work)
    if reader.header is not None:
        yield reader.header.unit
    for path in paths:
        yield reader.read(path)


def _in_processes(work: Work, paths: list[str], jobs: int) -> Iterator[Unit]:
    from graphs.index.build import _Reader

    global _reader
    # The precompiled header is made once, here; the forked processes inherit it.
    _reader = _Reader(work)
    if _reader.header is not None:
        yield _reader.header.unit
    sizes = {path: _size(work, path) for path in paths}
    order = sorted(paths, key=lambda path: -sizes[path])
    context = multiprocessing.get_context("fork")
    pool = context.Pool(min(jobs, len(paths)), initializer=_worker)
    try:
        for packed in pool.imap_unordered(_read_packed, order, chunksize=4):
            yield Unit.unpack(packed)
        pool.close()
    except BaseException:
        pool.terminate()
        raise
    finally:
        pool.join()
        _reader = None


def _size(work: Work, path: str) -> int:
    from pathlib import Path

    try:
        return (Path(work.tree) / path).stat().st_size
    except OSError:
        return 0


def _worker() -> None:
    import gc

    gc.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _read_packed(path: str) -> bytes:
    assert _reader is not None
    return _reader.read(path).pack()


def _on_cluster(work: Work, paths: list[str], scheduler: str) -> Iterator[Unit]:
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise GraphsError("--scheduler needs dask.distributed: pip install 'studykvm[cluster]'") from None
    try:
        client = Client(scheduler, timeout="10s")
    except (OSError, TimeoutError, ValueError) as error:
        raise GraphsError(f"no dask scheduler answers at {scheduler}: {error}") from None
    with client:
        pieces = [paths[n::16] for n in range(16) if paths[n::16]]
        futures = [client.submit(read_piece, work, piece, pure=False) for piece in pieces]
        told = False
        for future in as_completed(futures):
            for packed in future.result():
                unit = Unit.unpack(packed)
                if unit.path == PSEUDO:
                    if told:
                        continue
                    told = True
                yield unit


def read_piece(work: Work, paths: list[str]) -> list[bytes]:
    """Packed units of some files, with the common headers' if one was made; runs on a worker."""
    import tempfile
    from dataclasses import replace

    with tempfile.TemporaryDirectory(prefix="studykvm-index-") as folder:
        mine = replace(work, scratch=folder) if work.headers else work
        return [unit.pack() for unit in _here(mine, paths)]
