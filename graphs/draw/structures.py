"""The structures of a trace at one step, as boxes with fields and pointers.

- `find_step(trace, place) -> (step, since)`: `120`, `qcow_open`, `qcow_open:exit`, `bdrv_open2:exit#3`.
- `to_dot(trace, step, since, globs, limit) -> str`

What is drawn starts from the block devices (or from what the globs name) and follows the pointers, the
nearest first, until the page is full. Fields that are 0, NULL or empty are only counted. What changed after
step `since` stands out.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from graphs.draw.dot import Dot, Markup, html
from graphs.draw.engine import FONT
from graphs.errors import GraphsError

if TYPE_CHECKING:
    from tracer import Trace

_ROOTS = ("BlockDriverState",)
_PLACE = re.compile(r"(?P<function>[^:#]+)(:(?P<side>enter|exit))?(#(?P<number>[0-9]+))?")
_INK, _FAINT, _NEW = "#0f172a", "#64748b", "#fde68a"
_COLOURS = [
    ("#dbeafe", "#1d4ed8"), ("#ffedd5", "#c2410c"), ("#dcfce7", "#15803d"), ("#f3e8ff", "#7e22ce"),
    ("#ccfbf1", "#0f766e"), ("#fce7f3", "#be185d"),
]  # fmt: skip
_TEXT_LIMIT = 28

State = dict[str, Any]


def find_step(trace: "Trace", place: str) -> tuple[int, int]:
    """Turn a place into a step, and the step after which changes count as new.

    Parameters
    ----------
    trace : Trace
        The trace.
    place : str
        `N`, or `FUNC[:enter|:exit][#k]`: the k-th call of a function, the first if not said; its entry if not
        said. At an exit, what changed since the entry is new; else what the step itself changed.

    Raises
    ------
    GraphsError
        If there is no such step, function or call.
    """
    if place.isdecimal():
        step = int(place)
        if step >= len(trace):
            raise GraphsError(f"step {step}: this trace has steps 0 to {len(trace) - 1}")
        return step, step - 1
    fits = _PLACE.fullmatch(place)
    if fits is None:
        raise GraphsError(f"{place!r} is no place; say FUNC, FUNC:exit or FUNC:exit#3")
    function, number = fits["function"], int(fits["number"] or 1)
    calls = [call for call in trace.calls() if call.function == function]
    if not 1 <= number <= len(calls):
        import difflib

        known = {call.function for call in trace.calls()}
        near = ", ".join(difflib.get_close_matches(function, known, n=3))
        hint = f"#1 to #{len(calls)}" if calls else f"did you mean {near}?" if near else "it is never called"
        raise GraphsError(f"{place}: no such call in this trace; {hint}")
    call = calls[number - 1]
    if fits["side"] != "exit":
        return call.step, call.step - 1
    if call.exit_step is None:
        raise GraphsError(f"{place}: the trace ends before this call does")
    return call.exit_step, call.step


def to_dot(trace: "Trace", step: int, since: int, globs: Sequence[str] = (), limit: int = 14) -> str:
    """Draw the state after `step`.

    Parameters
    ----------
    trace : Trace
        The trace.
    step : int
        A step of it.
    since : int
        Fields with another value than after this step are marked.
    globs : sequence of str
        Structs (`BDRVQcowState`) or objects (`BlockDriverState#1`) to start from.
    limit : int
        How many to draw at most.
    """
    before = trace.state_at(since) if since >= 0 else {}
    state = trace.state_at(step)
    reached = _reached(state, globs)
    chosen = reached[:limit]
    if not chosen:
        there = ", ".join(sorted({found.struct for found in state.values()})) or "no structure at all"
        wanted = " or ".join(globs or _ROOTS)
        raise GraphsError(f"no {wanted} exists at step {step}; there is {there}")
    structs = list(dict.fromkeys(state[name].struct for name in chosen))
    colours = {struct: _COLOURS[number % len(_COLOURS)] for number, struct in enumerate(structs)}
    begun = (call for call in trace.calls() if call.step <= step)
    around = [call for call in begun if call.exit_step is None or step <= call.exit_step]
    dot = Dot(
        {
            "rankdir": "LR", "fontname": FONT, "fontsize": 11, "fontcolor": _INK, "labelloc": "b",
            "labeljust": "l", "nodesep": 0.3, "ranksep": 0.9, "pad": 0.3, "bgcolor": "white",
            "label": _legend(step, around[-1].path if around else (), len(reached) - len(chosen)),
        },
        {"shape": "plain", "fontname": FONT, "fontsize": 10, "fontcolor": _INK},
        {"arrowsize": 0.7, "penwidth": 1.3},
    )  # fmt: skip
    for name in chosen:
        fields = state[name]
        fill, line = colours[fields.struct]
        label = _table(name, fields, before.get(name), chosen, fill, line)
        dot.node(name, {"label": label, "tooltip": f"{fields.struct} {name}"})
        for field, value in fields.items():
            target = _target(value)
            if target in chosen:
                dot.edge(name, target, {"color": line + "c0", "tooltip": f"{name}->{field}"}, ports=field)
    return dot.text()


def _target(value: Any) -> str | None:
    """Return the object that a field points to; static ones bear their symbol's name."""
    if isinstance(value, tuple) and len(value) == 2 and value[0] in ("@", "&"):
        return f"&{value[1]}" if value[0] == "&" else str(value[1])
    return None


def _reached(state: State, globs: Sequence[str]) -> list[str]:
    """Return the objects to draw, from left to right; what static objects point to is not followed."""
    starts = [
        name
        for name, fields in state.items()
        if any(fnmatchcase(name, glob) or fnmatchcase(fields.struct, glob) for glob in globs or _ROOTS)
    ]
    found = dict.fromkeys(starts)
    waiting = list(starts)
    while waiting:
        name = waiting.pop(0)
        if name.startswith("&"):
            continue
        for value in state[name].values():
            target = _target(value)
            if target is not None and target in state and target not in found:
                found[target] = None
                waiting.append(target)
    return list(found)


def _table(name: str, fields: Any, before: Any, chosen: list[str], fill: str, line: str) -> Markup:
    said = fields.get("device_name") or fields.get("format_name") or fields.get("filename") or ""
    title = f"<b>{html(name)}</b>" + (f"  <i>{html(str(said))}</i>" if said else "")
    kind = f' <font point-size="9">{html(fields.struct)}</font>' if not name.startswith(fields.struct) else ""
    if before is None:
        fill, kind = _NEW, kind + ' <font point-size="9">new</font>'
    rows = [f'<tr><td bgcolor="{fill}" colspan="2" align="left">{title}{kind}</td></tr>']
    silent = 0
    for field, value in fields.items():
        changed = before is not None and before.get(field) != value
        if value in (None, 0, "", ("?", "StructType")) and not changed:
            silent += 1
            continue
        colour = f' bgcolor="{_NEW}"' if changed else ""
        arrow = " ●" if _target(value) in chosen else ""
        text = html(_short(value)) + arrow
        rows.append(
            f'<tr><td align="left"{colour}><font color="{_FAINT}">{html(field)}</font></td>'
            f'<td align="left" port="{html(field)}"{colour}>{text}</td></tr>'
        )
    if silent:
        more = f"{silent} fields are 0, NULL or empty" if silent > 1 else "1 field is 0, NULL or empty"
        rows.append(
            f'<tr><td colspan="2" align="left"><font color="{_FAINT}" point-size="8">{more}</font></td></tr>'
        )
    return Markup(
        f'<table border="1" cellborder="0" cellspacing="0" cellpadding="2.5" color="{line}" style="rounded" '
        f'bgcolor="white">{"".join(rows)}</table>'
    )


def _short(value: Any) -> str:
    """Return a value as a C programmer would write it, not too long.

    >>> _short(18446744073709551615), _short("a" * 40), _short(("@", "BlockDriverState#1"))
    ('0xffffffffffffffff', '"aaaaaaaaaaaaaaaaaaaaaaaaaa…', 'BlockDriverState#1')
    """
    from tracer.values import show

    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 32:
        return hex(value)
    text = show(value)
    return text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…"


def _legend(step: int, path: tuple[str, ...], more: int) -> Markup:
    where = " > ".join(path[-5:]) or "before the first call"
    rows = [
        f"<b>structures after step {step}</b>, in {html(where)}",
        'arrow: pointer; <font color="#b45309">yellow</font>: new or changed here; '
        "fields that are 0, NULL or empty are only counted",
    ]
    if more:
        rows.append(f"pointers without an arrow lead to {more} more structures")
    return Markup('<br align="left"/>'.join(["", *rows]) + '<br align="left"/>')
