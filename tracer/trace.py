"""A finished recording.

- `Trace`: events, calls, functions; filters.
- `Call`, `FunctionInfo`.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tracer.values import Value


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """A function as the trace's table has it."""

    fid: int
    file: str
    name: str
    module: str
    line: int
    params: tuple[str, ...]


class Call:
    """One call."""

    __slots__ = ("_args", "depth", "exc", "exit_step", "info", "parent", "ret", "step", "t_enter", "t_exit", "thread")

    def __init__(self, step: int, depth: int, thread: int, info: FunctionInfo, t_enter: int, args: Any, parent: Call | None) -> None:
        self.step = step
        self.depth = depth
        self.thread = thread
        self.info = info
        self.t_enter = t_enter
        self._args = args
        self.parent = parent
        self.t_exit: int | None = None
        self.exit_step: int | None = None
        self.ret: Value = None
        self.exc: tuple[str, str] | None = None

    @property
    def file(self) -> str:
        return self.info.file

    @property
    def function(self) -> str:
        return self.info.name

    @property
    def args(self) -> dict[str, Value]:
        return dict(zip(self.info.params, self._args[3:], strict=False))


class Trace:
    def __init__(self, chunks: Iterable[Sequence[Any]], functions: dict[int, FunctionInfo], meta: dict[str, Any]) -> None:
        self._chunks = chunks
        self.functions = functions
        self.meta = meta

    def events(self) -> Iterator[Any]:
        for chunk in self._chunks:
            yield from chunk

    def calls(self) -> Iterator[Call]:
        out: list[Call] = []
        stacks: dict[int, list[Call]] = {}
        parked: dict[int, list[Call]] = {}
        for step, event in enumerate(self.events()):
            kind, thread, t = event[:3]
            stack = stacks.setdefault(thread, [])
            if type(kind) is int:
                if kind >= 0:
                    parent = stack[-1] if stack else None
                    call = Call(step, len(stack), thread, self.functions[kind], t, event, parent)
                    stack.append(call)
                    out.append(call)
                elif stack:
                    call = stack.pop()
                    call.t_exit, call.exit_step, call.ret = t, step, event[3]
            elif kind == "x":
                call = stack.pop()
                call.t_exit, call.exit_step, call.exc = t, step, event[4:6]
            elif kind == "y":
                parked[event[3]] = [stack.pop()]
            elif kind == "r":
                stack += parked.pop(event[3])
        return iter(out)
