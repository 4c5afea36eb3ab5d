"""The structures of a trace at one step, as boxes with fields and pointers.

- `at(trace, place) -> Structures`, a drawing: place is `120`, `qcow_open`, `qcow_open:exit`,
  `bdrv_open2:exit#3`.
- `find_step(trace, place) -> (step, since)`.
- `sheet`, `table`, `arrow`: what it consists of, for sequences of pictures (`graphs.draw.frames`).

What is drawn starts from the block devices (or from what the globs name) and follows the pointers, the
nearest first, until the page is full. Fields that are 0, NULL or empty are only counted. What changed after
step `since` stands out.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any

from graphs.draw.dot import Dot, Markup, html
from graphs.draw.drawing import Drawing
from graphs.draw.engine import FONT
from graphs.errors import GraphsError
from graphs.wording import counted
from tracer.values import show

if TYPE_CHECKING:
    from tracer import Trace

_ROOTS = ("BlockDriverState",)
_PLACE = re.compile(r"(?P<function>[^:#]+)(:(?P<side>enter|exit))?(#(?P<number>[0-9]+))?")
_INK, _FAINT, _PALE, _NEW = "#0f172a", "#64748b", "#94a3b8", "#fde68a"
_COLOURS = [
    ("#dbeafe", "#1d4ed8"), ("#ffedd5", "#c2410c"), ("#dcfce7", "#15803d"), ("#f3e8ff", "#7e22ce"),
    ("#ccfbf1", "#0f766e"), ("#fce7f3", "#be185d"),
]  # fmt: skip
_TEXT_LIMIT = 28

State = dict[str, Any]


def _meant(place: str) -> str:
    """Suggest the place that something misspelt comes nearest to.

    >>> _meant("qcow_open:entry"), _meant("qcow_open:return#2"), _meant(":x")
    ('did you mean qcow_open:enter?', 'did you mean qcow_open:exit#2?', 'say FUNC, FUNC:exit or FUNC:exit#3')
    """
    function, _, rest = place.replace("#", ":#", 1).partition(":")
    side, _, number = rest.partition("#")
    side = side.strip(": ").lower()
    if not function or ":" in side:
        return "say FUNC, FUNC:exit or FUNC:exit#3"
    sides = {"en": "enter", "in": "enter", "st": "enter", "be": "enter", "ca": "enter"}
    sides |= {"ex": "exit", "ou": "exit", "re": "exit", "le": "exit", "do": "exit"}
    side = "exit" if side == "end" else sides.get(side[:2], "")
    number = "".join(filter(str.isdecimal, number))
    meant = function + (f":{side}" if side else "") + (f"#{number}" if number else "")
    if side or number:
        return f"did you mean {meant}?"
    return f"say {function}, {function}:enter or {function}:exit"


def find_step(trace: Trace, place: str) -> tuple[int, int]:
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
        raise GraphsError(f"{place!r} is no place; {_meant(place)}")
    function, number = fits["function"], int(fits["number"] or 1)
    calls = [call for call in trace.calls() if call.function == function]
    if not 1 <= number <= len(calls):
        import difflib

        known = {call.function for call in trace.calls()}
        near = ", ".join(difflib.get_close_matches(function, known, n=3))
        listed = "`studykvm trace stats FILE` lists what was called"
        hint = f"#1 to #{len(calls)}" if calls else f"did you mean {near}?" if near else listed
        raise GraphsError(f"{place}: no such call in this trace; {hint}")
    call = calls[number - 1]
    if fits["side"] != "exit":
        return call.step, call.step - 1
    if call.exit_step is None:
        raise GraphsError(f"{place}: the trace ends before this call does")
    return call.exit_step, call.step


@dataclass
class Structures(Drawing):
    """The structures at one step.

    Attributes
    ----------
    trace : Trace
        The trace.
    step : int
        A step of it.
    since : int
        Fields with another value than after this step are marked.
    globs : sequence of str
        Structs (`BDRVQcowState`) or objects (`BlockDriverState#1`) to start from; block devices if empty.
    limit : int
        How many to draw at most.
    """

    trace: Trace
    step: int
    since: int
    globs: Sequence[str] = ()
    limit: int = 14

    @cached_property
    def state(self) -> State:
        """All structures after the step."""
        return self.trace.state_at(self.step)

    @cached_property
    def before(self) -> State:
        """All structures after the step that changes are counted from."""
        return self.trace.state_at(self.since) if self.since >= 0 else {}

    @cached_property
    def reached(self) -> list[str]:
        """What could be drawn, from left to right.

        Raises
        ------
        GraphsError
            If there is nothing of the kind.
        """
        found = reached(self.state, self.globs)
        if not found:
            there = ", ".join(sorted({fields.struct for fields in self.state.values()}))
            wanted = " or ".join(self.globs or _ROOTS)
            raise GraphsError(
                f"no {wanted} exists at step {self.step}; there is {there or 'no structure at all'}"
            )
        return found

    @property
    def chosen(self) -> list[str]:
        """What is drawn."""
        return self.reached[: self.limit]

    def dot(self) -> str:
        """Return the page, in Graphviz's language."""
        page = sheet(self._legend())
        colours = colours_of(self.state[name].struct for name in self.chosen)
        for name in self.chosen:
            fields, old = self.state[name], self.before.get(name)
            rows = [
                field
                for field, value in fields.items()
                if not is_silent(value) or (old is not None and old.get(field) != value)
            ]
            look = Look(colours[fields.struct], self.chosen)
            tooltip = f"{fields.struct} {name}"
            page.node(name, {"label": table(name, fields, old, rows, look), "tooltip": tooltip})
            for field, value in fields.items():
                if (target := target_of(value)) in self.chosen:
                    page.edge(name, target, arrow(name, field, look), ports=field)
        return page.text()

    def _legend(self) -> Markup:
        more = len(self.reached) - len(self.chosen)
        rows = [
            'arrow: pointer; <font color="#b45309">yellow</font>: new or changed here; '
            "fields that are 0, NULL or empty are only counted",
        ]
        if more:
            rows.append(f"pointers without an arrow lead to {counted(more, 'more structure')}")
        where = html(path_at(self.trace, self.step))
        return lines([f"<b>structures after step {self.step}</b>, in {where}", *rows])

    def nodes(self) -> list[dict[str, Any]]:
        """Return the structures with all their fields."""
        return [
            {"id": name, "name": name, "file": self.state[name].struct, "new": name not in self.before}
            | {"fields": {field: show(value) for field, value in self.state[name].items()}}
            for name in self.chosen
        ]

    def links(self) -> list[dict[str, Any]]:
        """Return the pointers."""
        return [
            {"source": name, "target": target, "kind": field}
            for name in self.chosen
            for field, value in self.state[name].items()
            if (target := target_of(value)) in self.chosen
        ]

    def __str__(self) -> str:
        """Return the structures as text: what is drawn, a field a line."""
        rows = [f"structures after step {self.step}, in {path_at(self.trace, self.step)}"]
        for name in self.chosen:
            rows.append(f"{name} ({self.state[name].struct})")
            rows += [f"  {k} = {show(v)}" for k, v in self.state[name].items() if not is_silent(v)]
        return "\n".join(rows)


def at(trace: Trace, place: str, globs: Sequence[str] = (), limit: int = 14) -> Structures:
    """Return the structures at a place of a trace: see `find_step`."""
    step, since = find_step(trace, place)
    return Structures(trace, step, since, globs, limit)


@dataclass(frozen=True)
class Look:
    """How a structure is drawn.

    Attributes
    ----------
    colours : (str, str)
        Fill and line.
    chosen : collection of str
        What pointers may lead to.
    widths : dict of str to float
        Points that the columns of fields, of values and the title take at least.
    """

    colours: tuple[str, str]
    chosen: Collection[str]
    widths: Mapping[str, float] = dataclasses.field(default_factory=dict)


def sheet(legend: Markup) -> Dot:
    """Return an empty page for structures."""
    return Dot(
        {
            "rankdir": "LR", "fontname": FONT, "fontsize": 11, "fontcolor": _INK, "labelloc": "b",
            "labeljust": "l", "nodesep": 0.3, "ranksep": 0.9, "pad": 0.3, "bgcolor": "white", "label": legend,
        },
        {"shape": "plain", "fontname": FONT, "fontsize": 10, "fontcolor": _INK},
        {"arrowsize": 0.7, "penwidth": 1.3},
    )  # fmt: skip


def lines(rows: Sequence[str]) -> Markup:
    """Return rows of marked-up text, one below the other."""
    return Markup('<br align="left"/>'.join(["", *rows]) + '<br align="left"/>')


def path_at(trace: Trace, step: int) -> str:
    """Return the innermost functions that run at a step."""
    begun = (call for call in trace.calls() if call.step <= step)
    around = [call for call in begun if call.exit_step is None or step <= call.exit_step]
    return " > ".join(around[-1].path[-5:]) if around else "before the first call"


def colours_of(structs: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Give each kind of structure its colours."""
    kinds = dict.fromkeys(structs)
    return {struct: _COLOURS[number % len(_COLOURS)] for number, struct in enumerate(kinds)}


def arrow(name: str, field: str, look: Look) -> dict[str, str | int | float]:
    """Return the attributes of a pointer's arrow."""
    return {"color": look.colours[1] + "c0", "tooltip": f"{name}->{field}"}


def is_silent(value: Any) -> bool:
    """Whether a value says nothing: 0, NULL, empty."""
    return value in (None, 0, "", ("?", "StructType"))


def target_of(value: Any) -> str | None:
    """Return the object that a field points to; static ones bear their symbol's name."""
    if isinstance(value, tuple) and len(value) == 2 and value[0] in ("@", "&"):
        return f"&{value[1]}" if value[0] == "&" else str(value[1])
    return None


def starts(state: State, globs: Sequence[str], names: Iterable[str]) -> list[str]:
    """Return those of the named objects that drawing starts from."""
    return [
        name
        for name in names
        if any(fnmatchcase(name, g) or fnmatchcase(state[name].struct, g) for g in globs or _ROOTS)
    ]


def reached(state: State, globs: Sequence[str]) -> list[str]:
    """Return the objects to draw, from left to right; what static objects point to is not followed."""
    waiting = starts(state, globs, state)
    found = dict.fromkeys(waiting)
    while waiting:
        name = waiting.pop(0)
        if name.startswith("&"):
            continue
        for value in state[name].values():
            target = target_of(value)
            if target is not None and target in state and target not in found:
                found[target] = None
                waiting.append(target)
    return list(found)


def table(name: str, fields: Any, before: Any, rows: Sequence[str], look: Look) -> Markup:
    """Draw a structure.

    Parameters
    ----------
    name : str
        The object.
    fields : StructState
        Its fields.
    before : StructState or None
        The same before; None for a new one.
    rows : sequence of str
        The fields to show; the others are counted.
    look : Look
        How.
    """
    fill, line = look.colours
    if before is None:
        fill = _NEW
    least = {column: f' width="{round(width)}"' for column, width in look.widths.items()}
    head = f'<td bgcolor="{fill}" colspan="2" align="left"{least.get("title", "")}>'
    cells = [f"<tr>{head}{title(name, fields, before is None)}</td></tr>"]
    for row in rows:
        value = fields.get(row)
        colour = f' bgcolor="{_NEW}"' if before is not None and before.get(row) != value else ""
        text = shown(value, look.chosen)
        if is_silent(value) and not colour:
            text = f'<font color="{_PALE}">{text}</font>'
        cells.append(
            f'<tr><td align="left"{colour}><font color="{_FAINT}">{html(row)}</font></td>'
            f'<td align="left" port="{html(row)}"{colour}{least.get("value", "")}>{text}</td></tr>'
        )
    silent = len(fields) - len(rows)
    if silent:
        more = f"{counted(silent, 'field')} {'is' if silent == 1 else 'are'} 0, NULL or empty"
        cells.append(
            f'<tr><td colspan="2" align="left"><font color="{_FAINT}" point-size="8">{more}</font></td></tr>'
        )
    return Markup(
        f'<table border="1" cellborder="0" cellspacing="0" cellpadding="2.5" color="{line}" style="rounded" '
        f'bgcolor="white">{"".join(cells)}</table>'
    )


def title(name: str, fields: Any, new: bool) -> str:
    """Return the head of a structure: its name, what it calls itself, its kind, and whether it is new."""
    said = fields.get("device_name") or fields.get("format_name") or fields.get("filename") or ""
    text = f"<b>{html(name)}</b>" + (f"  <i>{html(_cut(str(said)))}</i>" if said else "")
    if not name.startswith(fields.struct):
        text += f' <font point-size="9">{html(fields.struct)}</font>'
    return text + (' <font point-size="9">new</font>' if new else "")


def shown(value: Any, chosen: Collection[str]) -> str:
    """Return a value as it stands in its cell."""
    return html(short(value)) + (" •" if target_of(value) in chosen else "")


def short(value: Any) -> str:
    """Return a value as a C programmer would write it, not too long.

    >>> short(18446744073709551615), short("a" * 40), short(("@", "BlockDriverState#1"))
    ('0xffffffffffffffff', '"aaaaaaaaaaaaaaaaaaaaaaaaaa…', 'BlockDriverState#1')
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 32:
        return hex(value)
    return _cut(show(value))


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…"
