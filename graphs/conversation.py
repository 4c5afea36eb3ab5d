"""Two machines that speak with each other, in one picture: what `graphs.migration_join` joined.

Calls of both sides stand in the order of time; an arrow leads from where bytes of the stream were written to
where they were read.

    source                                          destination
    tcp_wait_for_connect
      qemu_savevm_state_begin
        socket_write  == bytes 0 to 32,767 ==>
                                                    qemu_loadvm_state
                                                      socket_get_buffer  <== bytes 0 to 20,479

- `is_joined(trace)`: whether a trace has two sides.
- `chosen(root)`: the calls worth seeing where nobody asks for others.
- `text_lines(trace, root)`: two columns. `mermaid_lines(trace, root)`: a sequence diagram.
- `add_arrows(picture, trace, root)`: for a call graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracer.passes import Node, by_function, fold, matches, only, walk
from tracer.trace import Call, Trace
from tracer.values import escape

if TYPE_CHECKING:
    from graphs.draw.picture import Picture

SIDES = ("source", "destination")
LEFT = 66
_STREAM = "bytes of the stream"
MESSAGE_LIMIT = 500
_ABOUT = (
    "*:migration*.c", "do_*migrate*", "buffered_rate_tick", "buffered_flush", "buffered_close", "ram_*",
    "block_save_live", "block_load", "blk_send", "qemu_savevm_state_*", "qemu_loadvm_state", "vmstate_save",
    "vmstate_load", "socket_get_buffer", "stdio_get_buffer", "vm_start", "do_vm_stop", "qemu_announce_self",
)  # fmt: skip
_Range = tuple[int, int]


@dataclass
class _Line:
    """A call, or several that look the same."""

    call: Call
    depth: int
    count: int
    time: int
    above: _Line | None

    @property
    def side(self) -> str:
        """Whose it is."""
        return self.call.file.partition(":")[0]

    @property
    def text(self) -> str:
        """The function, and how often it came."""
        return escape(self.call.function) + (f"  x{self.count}" if self.count > 1 else "")


class _Stream:
    """Which calls wrote and read which bytes."""

    def __init__(self, trace: Trace) -> None:
        stream = trace.meta["stream"]
        self.written = {(thread, time): (begin, end) for thread, time, begin, end in stream["written"]}
        self.read = {(thread, time): (begin, end) for thread, time, begin, end in stream["read"]}

    def writes(self, call: Call) -> _Range | None:
        """The bytes that a call wrote."""
        return self.written.get((call.thread, call.t_enter))

    def reads(self, call: Call) -> _Range | None:
        """The bytes that a call read."""
        return self.read.get((call.thread, call.t_enter))

    def key(self, call: Call) -> Hashable:
        """Tell calls apart; who wrote or read is like nobody else."""
        return by_function(call), self.writes(call), self.reads(call)


def is_joined(trace: Trace) -> bool:
    """Whether a trace was joined of two."""
    return "stream" in trace.meta


def chosen(root: Node) -> Node:
    """The calls that a migration is about."""
    infos = {node.call.info.fid: node.call.info for node, _ in walk(root) if node.call is not None}
    return only(root, [glob for glob in _ABOUT if any(matches(info, glob) for info in infos.values())])


def _conversation(trace: Trace, root: Node) -> tuple[list[_Line], _Stream]:
    stream = _Stream(trace)
    found: list[_Line] = []
    waiting: list[tuple[Node, int, int, _Line | None]] = [(fold(root, stream.key), 0, 1, None)]
    while waiting:
        node, depth, count, above = waiting.pop()
        line = above
        if node.call is not None:
            # A read has its bytes when it ends.
            time = node.call.t_exit if stream.reads(node.call) else node.call.t_enter
            line = _Line(node.call, depth, node.count * count, time or node.call.t_enter, above)
            found.append(line)
        inner, times = (depth + 1, 1) if node.call else (depth, count * node.count)
        waiting += [(child, inner, times, line) for child in reversed(node.children)]
    found.sort(key=lambda line: line.time)
    return found, stream


def _bytes(part: _Range) -> str:
    return f"bytes {part[0]:,} to {part[1] - 1:,}"


def text_lines(trace: Trace, root: Node) -> Iterator[str]:
    """Yield both sides in two columns, one call a line."""
    lines, stream = _conversation(trace, root)
    yield f"{SIDES[0]:<{LEFT}}{SIDES[1]}"
    for line in lines:
        text = "  " * line.depth + line.text
        if part := stream.writes(line.call):
            arrow = f"  == {_bytes(part)} "
            text += arrow + "=" * (LEFT - 4 - len(text) - len(arrow)) + "=>"
        elif part := stream.reads(line.call):
            text += f"  <== {_bytes(part)}"
        yield text if line.side == SIDES[0] else " " * LEFT + text


def _participants(lines: list[_Line]) -> dict[str, str]:
    files = sorted({line.call.file for line in lines}, key=lambda file: SIDES.index(file.partition(":")[0]))
    return {file: f"f{number}" for number, file in enumerate(files)}


def mermaid_lines(trace: Trace, root: Node) -> Iterator[str]:
    """Yield a sequence diagram: a box for each side, its C files in it; after MESSAGE_LIMIT calls, a note."""
    lines, stream = _conversation(trace, root)
    shown = lines[:MESSAGE_LIMIT]
    names = _participants(shown)
    yield "sequenceDiagram"
    for side in SIDES:
        yield f"  box transparent {side}"
        for file, name in names.items():
            if file.startswith(f"{side}:"):
                yield f"    participant {name} as {escape(file.partition(':')[2])}"
        yield "  end"
    writes = [(part, names[line.call.file]) for line in shown if (part := stream.writes(line.call))]
    for line in shown:
        here = names[line.call.file]
        above = names[line.above.call.file] if line.above else here
        times = f" x{line.count}" if line.count > 1 else ""
        yield f"  {above}->>{here}: {escape(line.call.function)}(){times}"
        if part := stream.reads(line.call):
            wrote = [name for (begin, end), name in writes if begin < part[1] and part[0] < end]
            if wrote:
                yield f"  {wrote[-1]}-){here}: {_bytes(part)}"
    if len(lines) > len(shown):
        last = names[shown[-1].call.file]
        yield f"  Note over {last}: only the first {MESSAGE_LIMIT} of {len(lines):,} calls are shown"


def add_arrows(picture: Picture, trace: Trace, root: Node) -> None:
    """Add arrows to a call graph of both sides: who wrote what whom read."""
    from graphs.draw.picture import Arrow

    stream = _Stream(trace)
    calls = [node.call for node, _ in walk(root) if node.call is not None]
    writers = {f"{call.file}:{call.function}" for call in calls if stream.writes(call)}
    readers = Counter(f"{call.file}:{call.function}" for call in calls if stream.reads(call))
    picture.kinds[_STREAM] = ("bold", "#d95f02")
    picture.kept |= {_STREAM}
    for writer in writers:
        for reader, times in readers.items():
            told = f"what {writer} writes, {reader} reads, {times:,} times"
            picture.arrows[writer, reader] = Arrow(times, told, _STREAM)
