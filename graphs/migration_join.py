"""Two traces of a migration as one conversation.

The two machines' clocks need not agree. What they have in common is the stream: its byte number N was written
by the source before the destination had read it. The destination's times are moved, all by the same, as
little as makes that so everywhere; then the events of both are merged by time.

    source       |--write 0..32767--|  |--write 32768..--|
    destination              |--read 0..20479--|  |--read 20480..--|      each read ends after its write began

`meta["stream"]` tells which calls wrote and read which bytes; `graphs.conversation` shows them.

In the joined trace the C files are called `source:savevm.c`, `destination:savevm.c` and so on, structures of
the destination `destination:QEMUFile#1`, and its threads come after the source's.

- `join(source, destination, path) -> Joined`
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphsError
from tracer.fileformat import FunctionInfo, Writer

if TYPE_CHECKING:
    from tracer.trace import Trace

_WRITES = {
    ("migration-tcp.c", "socket_write"),
    ("migration-unix.c", "unix_write"),
    ("migration-exec.c", "file_write"),
    ("migration-fd.c", "fd_write"),
}
_READS = {("savevm.c", "socket_get_buffer"), ("savevm.c", "stdio_get_buffer")}
_BEGINS_WRITING = "migrate_fd_connect"
_BEGINS_READING = "qemu_loadvm_state"
_EVENTS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Joined:
    """What joining found.

    Parameters
    ----------
    written, read : int
        Bytes of the stream, on either side.
    places : int
        Reads by which the clocks were aligned.
    shift : int
        Nanoseconds added to the destination's times.
    events : int
        Events in the joined trace.
    """

    written: int
    read: int
    places: int
    shift: int
    events: int


def _passed(trace: Trace, functions: set[tuple[str, str]], begin: str) -> list[tuple[int, int, int, int]]:
    """When bytes of the last stream went by: entry, exit, how many had gone then, and the thread."""
    found: list[tuple[int, int, int, int]] = []
    total = 0
    for call in trace.calls():
        if call.function == begin:
            found, total = [], 0
        elif (call.file, call.function) in functions and isinstance(call.ret, int) and call.ret > 0:
            total += call.ret
            found.append((call.t_enter, call.t_exit or call.t_enter, total, call.thread))
    return found


def _shift(writes: list[tuple[int, int, int, int]], reads: list[tuple[int, int, int, int]]) -> int:
    """The least shift of the destination's clock by which nothing is read before it is written."""
    needed, at = [], 0
    for _, end, total, _ in reads:
        while at < len(writes) - 1 and writes[at][2] < total:
            at += 1
        needed.append(writes[at][0] - end)
    return max(needed)


def join(source: Trace, destination: Trace, path: str) -> Joined:
    """Write the joined trace.

    Raises
    ------
    GraphsError
        One of the traces has no migration, or they are of different ones.
    """
    writes = _passed(source, _WRITES, _BEGINS_WRITING)
    reads = _passed(destination, _READS, _BEGINS_READING)
    if not writes:
        raise GraphsError("no machine was sent in the first trace: boot the source with --trace, and migrate")
    if not reads:
        raise GraphsError("no machine came in the second trace: boot with -incoming and --trace")
    if reads[-1][2] > writes[-1][2]:
        raise GraphsError(
            f"the destination read {reads[-1][2]:,} bytes and the source wrote {writes[-1][2]:,}: these two"
            " did not speak with each other"
        )
    needed = _shift(writes, reads)
    # Clocks of one computer agree already: then every read ends soon after its write, and nothing is moved.
    shift = needed if not -5_000_000_000 < needed <= 0 else 0
    threads = 1 + max((event[1] for event in source.events()), default=0)
    functions, events = _merge(source, destination, shift, threads)
    stream = {"written": _ranges(writes, 0, 0), "read": _ranges(reads, shift, threads)}
    count = _write(path, functions, events, source.meta | {"stream": stream})
    return Joined(writes[-1][2], reads[-1][2], len(reads), shift, count)


def _ranges(passed: list[tuple[int, int, int, int]], shift: int, threads: int) -> list[list[int]]:
    """Thread and time of entry of each call in the joined trace, and the bytes that it wrote or read."""
    begins = [0, *(total for _, _, total, _ in passed)]
    return [
        [thread + threads, time + shift, begin, total]
        for begin, (time, _, total, thread) in zip(begins, passed, strict=False)
    ]


def _merge(
    source: Trace, destination: Trace, shift: int, threads: int
) -> tuple[dict[int, FunctionInfo], Iterator[tuple[Any, ...]]]:
    first = max(source.functions, default=-1) + 1
    functions = {
        number: replace(info, file=f"source:{info.file}") for number, info in source.functions.items()
    }
    for number, info in destination.functions.items():
        functions[number + first] = replace(info, fid=number + first, file=f"destination:{info.file}")
    moved = (_moved(event, first, threads, shift) for event in destination.events())
    return functions, _by_time(source.events(), moved)


def _by_time(ours: Iterable[tuple[Any, ...]], theirs: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Merge by time; each side keeps its own order, also where its threads' clocks do not."""
    left, right = iter(ours), iter(theirs)
    a, b = next(left, None), next(right, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a[2] <= b[2]):
            assert a is not None
            yield a
            a = next(left, None)
        else:
            yield b
            b = next(right, None)


def _moved(event: tuple[Any, ...], first: int, threads: int, shift: int) -> tuple[Any, ...]:
    kind, thread, time, *rest = event
    thread, time = thread + threads, time + shift
    if isinstance(kind, int):
        number = kind + first if kind >= 0 else ~(~kind + first)
        return (number, thread, time, *map(_renamed, rest))
    if kind == "x":
        return (kind, thread, time, rest[0] + first, *rest[1:])
    if kind in ("y", "r"):
        return (kind, thread, time, -rest[0])
    return (kind, thread, time, f"destination:{rest[0]}", *map(_renamed, rest[1:]))


def _renamed(value: Any) -> Any:
    """Give structures of the destination names of their own, wherever a value speaks of one."""
    if isinstance(value, tuple | list):
        if len(value) == 2 and value[0] == "@":
            return ("@", f"destination:{value[1]}")
        return tuple(_renamed(item) for item in value)
    if isinstance(value, dict):
        return {key: _renamed(item) for key, item in value.items()}
    return value


def _write(
    path: str,
    functions: dict[int, FunctionInfo],
    events: Iterator[tuple[Any, ...]],
    meta: dict[str, Any],
) -> int:
    writer = Writer(path)
    try:
        writer.map(
            b"M", meta | {"program": "migration", "note": "two traces joined by the bytes of the stream"}
        )
        table = [[f.fid, f.file, f.name, f.module, f.line, list(f.params)] for f in functions.values()]
        writer.items(b"F", table)
        count, some = 0, list[tuple[Any, ...]]()
        for event in events:
            some.append(event)
            if len(some) == _EVENTS_AT_ONCE:
                writer.items(b"E", some)
                count, some = count + len(some), []
        if some:
            writer.items(b"E", some)
        count += len(some)
        writer.map(b"Z", {"events": count})
    finally:
        writer.close()
    return count
