r"""The trace file: written chunk by chunk while the program runs, checked and decoded on demand when read.

- `Writer(path)`: creates the file and appends chunks, each by one write: a killed run ends at a chunk.
- `read(path)`: checks the whole file; returns `Contents`: metadata, functions, undecoded chunks, damage.

Layout, all numbers big-endian::

    "SKVMTRC\n"  u16 major  u16 minor
    chunk*:  char kind  u32 items  u32 raw length  u32 stored length  u32 crc32(header so far + data)
             data: zlib(msgpack(...))

    "M"  a map: program, argv, python, started, clock, note
    "F"  a list of [fid, file, name, module, line, [param]]; before the first event that mentions fid
    "E"  a list of events (tracer/session.py)
    "Z"  a map: events; says that the recording ended in order

A reader skips chunk kinds and event kinds that it does not know, and values at the end of an event that it
does not know: that is what a newer minor version may add.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from tracer.errors import DamagedTraceError, TracerError
from tracer.session import Event
from tracer.values import STR_LIMIT, Value

MAGIC: Final = b"SKVMTRC\n"
MAJOR: Final = 1
MINOR: Final = 0
RAW_LIMIT: Final = 16 << 20
"""Most bytes that a chunk may unpack to; a writer splits larger ones, a reader refuses them."""

_VERSION = struct.Struct(">HH")
_CHUNK = struct.Struct(">cIII")
_CRC = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """A function as the trace's table has it: C file and name, Python module and line, parameter names."""

    fid: int
    file: str
    name: str
    module: str
    line: int
    params: tuple[str, ...]


@dataclass
class Contents:
    """What a file holds. `chunks`: (number of events, function that decodes them)."""

    meta: dict[str, Any] = field(default_factory=dict)
    functions: dict[int, FunctionInfo] = field(default_factory=dict)
    chunks: list[tuple[int, Callable[[], Sequence[Event]]]] = field(default_factory=list)
    damage: str | None = None


class Writer:
    """Appends chunks to a new trace file.

    Raises
    ------
    TracerError
        When the file cannot be made, or `path` is a file that is no trace: it is not overwritten.
    """

    def __init__(self, path: str) -> None:
        self._packer = msgpack.Packer()
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise TracerError(f"{path}: cannot write a trace there: {error.strerror}") from error
        try:
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                if os.read(self._fd, len(MAGIC)) not in (b"", MAGIC):
                    raise TracerError(
                        f"{path}: exists and is no trace, so it is not overwritten; name another file"
                    )
                os.ftruncate(self._fd, 0)
                os.lseek(self._fd, 0, os.SEEK_SET)
            self._write(MAGIC + _VERSION.pack(MAJOR, MINOR))
        except OSError as error:
            os.close(self._fd)
            raise TracerError(f"{path}: cannot write a trace there: {error.strerror}") from error
        except TracerError:
            os.close(self._fd)
            raise

    def map(self, kind: bytes, content: dict[str, Any]) -> None:
        """Append a chunk that holds one map."""
        self._chunk(kind, 1, msgpack.packb(content, unicode_errors="surrogatepass"))

    def items(self, kind: bytes, items: Sequence[Any]) -> None:
        """Append a list, in as many chunks as its size asks for."""
        try:
            raw = self._packer.pack(items)
        except (OverflowError, ValueError, TypeError):
            # lone surrogates and huge integers; rare, and asking for them costs time
            self._packer.reset()
            slow = msgpack.Packer(unicode_errors="surrogatepass")
            raw = slow.pack([_packable(item) for item in items])
        if len(raw) <= RAW_LIMIT:
            self._chunk(kind, len(items), raw)
        elif len(items) > 1:
            half = len(items) // 2
            self.items(kind, items[:half])
            self.items(kind, items[half:])
        else:
            head, tail = items[0][:3], items[0][3:]
            self.items(kind, [(*head, *[("?", "too large to record") for _ in tail])])

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _chunk(self, kind: bytes, items: int, raw: bytes) -> None:
        data = zlib.compress(raw, 1)
        header = _CHUNK.pack(kind, items, len(raw), len(data))
        self._write(header + _CRC.pack(zlib.crc32(data, zlib.crc32(header))) + data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]


def _packable(value: Value) -> Value:
    """Replace integers beyond 64 bits by their hexadecimal text."""
    if type(value) is int and not -(1 << 63) <= value < 1 << 64:
        return ("?", hex(value)[:STR_LIMIT])
    if isinstance(value, tuple):
        return tuple(_packable(item) for item in value)
    if isinstance(value, dict):
        return {key: _packable(item) for key, item in value.items()}
    return value


def read(path: str) -> Contents:
    """Check a trace file and return its contents, as far as they are sound.

    Raises
    ------
    DamagedTraceError
        When nothing can be read: no file, a directory, empty, no trace, of another major version.
    """
    try:
        with open(path, "rb") as file:
            data = memoryview(file.read())
    except OSError as error:
        raise DamagedTraceError(f"{path}: cannot read: {error.strerror}") from error
    start = len(MAGIC) + _VERSION.size
    if not data:
        raise DamagedTraceError(f"{path}: empty file; record a trace with --trace {path}")
    if bytes(data[: len(MAGIC)]) != MAGIC or len(data) < start:
        raise DamagedTraceError(f"{path}: not a trace of studykvm; record one with --trace FILE")
    major, minor = _VERSION.unpack_from(data, len(MAGIC))
    if major != MAJOR:
        raise DamagedTraceError(
            f"{path}: trace format {major}.{minor}; this version reads {MAJOR}.x. "
            "Read it with the studykvm that wrote it"
        )
    contents = Contents()
    try:
        _read_chunks(contents, data, start)
    except DamagedTraceError as error:
        contents.damage = f"{path}: {error}; what comes before it was read"
    return contents


def _read_chunks(contents: Contents, data: memoryview, at: int) -> None:
    ended = False
    while at < len(data):
        body = at + _CHUNK.size + _CRC.size
        if body > len(data):
            raise DamagedTraceError(f"cut off in a chunk's header at byte {at}")
        kind, items, raw_length, length = _CHUNK.unpack_from(data, at)
        if body + length > len(data):
            raise DamagedTraceError(f"cut off or damaged in the chunk at byte {at}")
        stored = data[body : body + length]
        (crc,) = _CRC.unpack_from(data, at + _CHUNK.size)
        if zlib.crc32(stored, zlib.crc32(data[at : at + _CHUNK.size])) != crc:
            raise DamagedTraceError(f"damaged chunk at byte {at} (checksum)")
        if kind == b"E":
            contents.chunks.append((items, lambda s=stored, r=raw_length, a=at: _unpack(s, r, a)))  # type: ignore[misc]
        elif kind == b"F":
            _add_functions(contents, _unpack(stored, raw_length, at), at)
        elif kind == b"M":
            meta = _unpack(stored, raw_length, at)
            if not isinstance(meta, dict):
                raise DamagedTraceError(f"damaged chunk at byte {at} (metadata)")
            contents.meta.update(meta)
        elif kind == b"Z":
            ended = True
        at = body + length
    if not ended:
        raise DamagedTraceError("the recording was not ended in order, so its last second may be missing")


def _add_functions(contents: Contents, table: Any, at: int) -> None:
    try:
        for fid, file, name, module, line, params, *_ in table:
            info = FunctionInfo(
                int(fid), str(file), str(name), str(module), int(line), tuple(map(str, params))
            )
            contents.functions[info.fid] = info
    except (TypeError, ValueError):
        raise DamagedTraceError(f"damaged chunk at byte {at} (function table)") from None


def _unpack(stored: memoryview, raw_length: int, at: int) -> Any:
    """Decompress and decode one chunk, never beyond its declared and permitted size."""
    if raw_length > RAW_LIMIT:
        raise DamagedTraceError(
            f"the chunk at byte {at} claims {raw_length} bytes; at most {RAW_LIMIT} are allowed"
        )
    try:
        raw = zlib.decompressobj().decompress(stored, raw_length + 1)
        if len(raw) != raw_length:
            raise ValueError("length")
        return msgpack.unpackb(raw, use_list=False, unicode_errors="surrogatepass")
    except (zlib.error, ValueError, TypeError, RecursionError, msgpack.UnpackException):
        raise DamagedTraceError(f"damaged chunk at byte {at} (content)") from None
