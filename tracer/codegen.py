"""Recording code: what a traced function's ``__code__`` is while a trace runs.

- `recording_code(fid, code, original, session)`: code with the signature, the closure variables and the
  kind (plain, generator, coroutine, asynchronous generator) of `code`, that records and calls `original`.

The generated function is, for ``def f(a, b)``::

    number = thread.n
    event = (fid, number, clock(), a if type(a) is int or ... else encode(a), ...)
    try:
        append(event)
        result = call(a, b)
    except BaseException as error:
        append(("x", number, clock(), fid, *about(error)))
        raise
    append((~fid, number, clock(), result if type(result) is int or ... else encode(result)))
    return result

Its helpers are constants of the code object: neither the module's globals nor the signature show them.
"""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from types import CodeType, FunctionType, NoneType
from typing import Any

from tracer.resume import about, drivers
from tracer.session import Session

_MARK = "\0studykvm "


def recording_code(fid: int, code: CodeType, original: FunctionType, session: Session) -> CodeType:
    """Return code that records a call of function `fid` and calls `original`, whose code is `code`."""
    names = code.co_varnames[: _parameter_count(code)]
    kind = code.co_flags & _KIND_FLAGS
    # functions that differ in parameter names alone share a template, unless it must pass them by name
    shape = (
        names if code.co_kwonlyargcount else _some_names(len(names)),
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        kind,
        code.co_freevars,
    )
    form = session.forms.get(shape)
    if form is None:
        form = session.forms[shape] = _Form(_template(*shape), session)
    suspending = kind & _SUSPENDING
    drive = drivers(session, fid)[suspending] if suspending else None
    return form.template.replace(
        co_consts=form.consts(fid, original, drive),
        co_varnames=names + form.others,
        co_name=code.co_name,
        co_qualname=code.co_qualname,
        co_filename=code.co_filename,
        co_firstlineno=code.co_firstlineno,
    )


class _Form:
    """A template with what is the same for all functions of a session."""

    def __init__(self, template: CodeType, session: Session) -> None:
        self.template = template
        self.others = template.co_varnames[_parameter_count(template) :]
        common: dict[str, Any] = {
            "append": session.append,
            "thread": session.thread,
            "clock": session.clock,
            "encode": session.encode,
            "kind": type,
            "NoneType": NoneType,
            "int": int,
            "bool": bool,
            "about": about,
        }
        common = {_MARK + name: value for name, value in common.items()}
        marks = [const if isinstance(const, str) else None for const in template.co_consts]
        self._consts = [
            const if mark is None else common.get(mark, const)
            for mark, const in zip(marks, template.co_consts, strict=True)
        ]
        self._own = [marks.index(_MARK + name) if _MARK + name in marks else None for name in _OWN]

    def consts(self, fid: int, original: FunctionType, drive: Any) -> tuple[Any, ...]:
        """Constants of one function's code."""
        consts = self._consts.copy()
        for place, value in zip(self._own, (fid, ~fid, original, drive), strict=True):
            if place is not None:
                consts[place] = value
        return tuple(consts)


_OWN = ("fid", "rid", "call", "drive")
_SUSPENDING = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_KIND_FLAGS = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | _SUSPENDING


def _parameter_count(code: CodeType) -> int:
    stars = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return code.co_argcount + code.co_kwonlyargcount + stars


@functools.cache
def _some_names(count: int) -> tuple[str, ...]:
    return tuple(f"p{i}" for i in range(count))


@functools.cache
def _template(
    names: tuple[str, ...], argcount: int, posonly: int, kwonly: int, flags: int, freevars: tuple[str, ...]
) -> CodeType:
    """Compile the recording code of one shape, with a marked string in place of each helper.

    In the source below, ``@name`` is a helper and ``$name`` a variable that no parameter is called.
    """
    prefix = "_t"
    while any(name.startswith(prefix) for name in (*names, *freevars)):
        prefix += "_"
    rest = list(names[argcount + kwonly :])
    star = "*" + rest.pop(0) if flags & inspect.CO_VARARGS else ""
    double = "**" + rest.pop(0) if flags & inspect.CO_VARKEYWORDS else ""
    signature = [*names[:posonly], *(["/"] if posonly else []), *names[posonly:argcount]]
    keywords = names[argcount : argcount + kwonly]
    signature += [star or "*"] if star or keywords else []
    signature += [*keywords, *([double] if double else [])]
    passed = [*names[:argcount], *([star] if star else []), *(f"{k}={k}" for k in keywords)]
    passed += [double] if double else []
    recorded = "".join(", " + _recorded(name) for name in names)
    call = f"@call({', '.join(passed)})"
    body = ["$number = @thread.n", f"$event = (@fid, $number, @clock(){recorded})"]
    if flags & inspect.CO_ASYNC_GENERATOR:
        body += [
            "@append($event)",
            f"$steps = @drive({call})",
            "$step = $steps.step($steps.inner.asend(None))",
            "while True:",
            "    try:",
            "        $value = await $step",
            "    except StopAsyncIteration:",
            "        return",
            "    try:",
            "        $step = $steps.send((yield $value))",
            "    except GeneratorExit as $error:",
            "        await $steps.close($error)",
            "        raise",
            "    except BaseException as $error:",
            "        $step = $steps.throw($error)",
        ]
    elif flags & inspect.CO_COROUTINE:
        body += ["@append($event)", f"return await @drive({call})"]
    elif flags & inspect.CO_GENERATOR:
        body += ["@append($event)", f"return (yield from @drive({call}))"]
    else:
        body += [
            "try:",
            "    @append($event)",
            f"    $result = {call}",
            "except BaseException as $error:",
            "    @append(('x', $number, @clock(), @fid, *@about($error)))",
            "    raise",
            f"@append((@rid, $number, @clock(), {_recorded('$result')}))",
            "return $result",
        ]
    # named, never run: so the code has the closure variables of the original
    body += [f"{name}" for name in freevars]
    definition = "async def" if flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR) else "def"
    lines = ["def outer():"]
    lines += [f"    {name} = None" for name in freevars]
    lines += [f"    {definition} inner({', '.join(signature)}):"]
    lines += [f"        {line}" for line in body]
    source = re.sub(r"@(\w+)", lambda helper: repr(_MARK + helper[1]), "\n".join(lines).replace("$", prefix))
    with warnings.catch_warnings():
        # a string is called: until it is replaced
        warnings.simplefilter("ignore", SyntaxWarning)
        module = compile(source, "<tracer>", "exec", dont_inherit=True)
    return _inner(_inner(module))


def _recorded(name: str) -> str:
    """Return the expression for a value's encoding; the commonest kinds spare the call."""
    plain = f"($kind := @kind({name})) is @int or $kind is @NoneType or $kind is @bool"
    return f"{name} if {plain} else @encode({name})"


def _inner(code: CodeType) -> CodeType:
    return next(const for const in code.co_consts if isinstance(const, CodeType))
