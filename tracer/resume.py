"""Calls that end by an exception, and calls that are suspended and go on later.

- `about(error)`: an exception as (type, text).
- `drivers(session, fid)`: what the recording code of a generator, a coroutine or an asynchronous generator
  hands its steps to: it records where control leaves the function and where it comes back.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from tracer.session import Session
from tracer.values import STR_LIMIT, type_name

_HEAP_TYPE = 1 << 9
_PLAIN = (int, str, bool, float, type(None))
_flags: Callable[[type], int] = type.__dict__["__flags__"].__get__


def about(error: BaseException) -> tuple[str, str]:
    """Return an exception's type and text; the text only where no code of the program makes it."""
    kind = type(error)
    name = type_name(kind)
    if _flags(kind) & _HEAP_TYPE or not all(_plain(arg) for arg in error.args):
        return name, ""
    if isinstance(error, OSError) and not _plain(error.filename):
        return name, ""
    try:
        return name, str(error)[:STR_LIMIT]
    except Exception:
        return name, ""


def _plain(value: object) -> bool:
    kind = type(value)
    return any(kind is plain for plain in _PLAIN)


def drivers(session: Session, fid: int) -> dict[int, Callable[[Any], Any]]:
    """Return the drivers of function `fid` by code flag."""
    append, thread, clock, encode = session.append, session.thread, session.clock, session.encode

    def suspended(token: int) -> None:
        if session.active:
            append(("y", thread.n, clock(), token))

    def resumed(token: int) -> None:
        if session.active:
            append(("r", thread.n, clock(), token))

    def returned(value: Any) -> None:
        if session.active:
            append((~fid, thread.n, clock(), encode(value)))

    def failed(error: BaseException) -> None:
        if session.active:
            append(("x", thread.n, clock(), fid, *about(error)))

    def paced(inner: Any, token: int) -> Generator[Any, Any, Any]:
        """Run `inner` to its end, recording each suspension: ``yield from`` spelt out (PEP 380)."""
        step, argument = inner.send, None
        while True:
            try:
                item = step(argument)
            except StopIteration as stop:
                return stop.value
            suspended(token)
            try:
                argument = yield item
                step = inner.send
            except GeneratorExit:
                resumed(token)
                inner.close()
                raise
            except BaseException as error:
                argument, step = error, inner.throw
            resumed(token)

    def generator(inner: Any) -> Generator[Any, Any, Any]:
        try:
            value = yield from paced(inner, next(session.tokens))
        except BaseException as error:
            failed(error)
            raise
        returned(value)
        return value

    @types.coroutine
    def awaited(inner: Any) -> Generator[Any, Any, Any]:
        return (yield from generator(inner))

    @types.coroutine
    def awaited_step(inner: Any, token: int) -> Generator[Any, Any, Any]:
        return (yield from paced(inner, token))

    class AsyncSteps:
        """The steps of one asynchronous generator."""

        def __init__(self, inner: AsyncGenerator[Any, Any]) -> None:
            self.inner, self.token = inner, next(session.tokens)

        async def step(self, awaitable: Any) -> Any:
            try:
                value = await awaited_step(awaitable, self.token)
            except StopAsyncIteration:
                returned(None)
                raise
            except BaseException as error:
                failed(error)
                raise
            suspended(self.token)
            return value

        async def send(self, value: Any) -> Any:
            resumed(self.token)
            return await self.step(self.inner.asend(value))

        async def throw(self, error: BaseException) -> Any:
            resumed(self.token)
            return await self.step(self.inner.athrow(error))

        async def close(self, error: BaseException) -> None:
            resumed(self.token)
            try:
                await awaited_step(self.inner.aclose(), self.token)
            finally:
                failed(error)

    return {
        inspect.CO_GENERATOR: generator,
        inspect.CO_COROUTINE: awaited,
        inspect.CO_ASYNC_GENERATOR: AsyncSteps,
    }
