"""The structures of a trace step by step: pictures in which every box keeps its place.

- `Frames(trace, first, last, ...)`: what changes between two steps; `frames.write(folder)` draws it.
- `between(trace, start, end, at)`: the two steps, from places (see `graphs.draw.structures.find_step`).

There is one frame for each step at which a drawn structure came, went or changed. One layout is made of all
that any frame shows: each structure with every field that is ever set, each pointer that ever points
somewhere, each column as wide as its longest text. The frames are drawn with these places given, and without
what does not exist yet.

`write` leaves `frame-0001.svg` ... and `index.html`, which steps through them and needs nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import unescape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphs.draw import engine
from graphs.draw.dot import Markup, html
from graphs.draw.structures import (
    Look,
    State,
    arrow,
    colours_of,
    find_step,
    is_silent,
    lines,
    path_at,
    reached,
    sheet,
    short,
    shown,
    starts,
    table,
    target_of,
    title,
)
from graphs.errors import GraphsError
from graphs.wording import counted
from tracer.state import StructState

if TYPE_CHECKING:
    from tracer import Trace
    from tracer.session import Event

KINDS = ("svg", "png")
_CHANGES, _WIDEST = 4, 140
_LETTER = 5.6
_NAME = re.compile(r"frame-[0-9]{4,}\.(svg|png)")


@dataclass(frozen=True)
class Change:
    """What happened to a structure: a field's old and new value; without a field, that it came or went."""

    object: str
    field: str
    old: str
    new: str

    def __str__(self) -> str:
        """Say it in a line.

        >>> str(Change("BDRVQcowState#1", "cluster_bits", "0", "12"))
        'BDRVQcowState#1->cluster_bits = 12 (was 0)'
        """
        if not self.field:
            return f"{self.object} {self.new}"
        return f"{self.object}->{self.field} = {self.new} (was {self.old})"


@dataclass(frozen=True)
class Frame:
    """One picture.

    Attributes
    ----------
    step : int
        After which step.
    path : str
        The functions that run, outermost first.
    state, before : dict of str to StructState
        What is drawn, and what was drawn before.
    changes : tuple of Change
        What is different.
    """

    step: int
    path: str
    state: State
    before: State
    changes: tuple[Change, ...]


def between(
    trace: Trace, start: str | None = None, end: str | None = None, at: str | None = None
) -> tuple[int, int]:
    """Return the first and the last step of a range.

    Parameters
    ----------
    trace : Trace
        The trace.
    start, end : str, optional
        Places, see `find_step`; the beginning and the end of the trace if not said.
    at : str, optional
        A call, `FUNC` or `FUNC#k`: from its entry to its exit.

    Raises
    ------
    GraphsError
        If there is no such place, or the end comes before the start.
    """
    last = len(trace) - 1
    if last < 0:
        raise GraphsError("this trace is empty: nothing happened while it was recorded")
    if at is not None:
        find_step(trace, at)  # says what is wrong with it
        name, _, number = at.partition("#")
        call = name.removesuffix(":enter").removesuffix(":exit")
        numbered = f"#{number}" if number else ""
        first = find_step(trace, f"{call}:enter{numbered}")[0]
        return first, find_step(trace, f"{call}:exit{numbered}")[0]
    first = find_step(trace, start)[0] if start is not None else 0
    last = find_step(trace, end)[0] if end is not None else last
    if last < first:
        raise GraphsError(f"{end} is step {last}, before {start or 'the beginning'}, which is step {first}")
    return first, last


@dataclass
class Frames:
    """The steps of a range at which drawn structures change.

    Attributes
    ----------
    trace : Trace
        The trace.
    first, last : int
        The range.
    globs : sequence of str
        Structs or objects to start from; block devices if empty.
    limit : int
        How many structures to draw at most.
    most : int
        How many frames to make at most.
    """

    trace: Trace
    first: int
    last: int
    globs: Sequence[str] = ()
    limit: int = 14
    most: int = 200

    def __post_init__(self) -> None:
        self.total = self.left_out = 0
        self.chosen: dict[str, None] = {}

    @cached_property
    def frames(self) -> list[Frame]:
        """The frames; the first one shows how things were at the start.

        Raises
        ------
        GraphsError
            If nothing of the kind exists in the range.
        """
        # The state is kept by hand: a copy of all structures at each step would take minutes.
        state = self.trace.state_at(self.first)
        before = self._visible(state)
        made = [Frame(self.first, path_at(self.trace, self.first), before, before, ())]
        for step, event, call in self.trace.struct_events():
            if not self.first < step <= self.last or not self._matters(state, before, event):
                continue
            visible = self._visible(state)
            changes = tuple(_changes(before, visible))
            if changes:
                self.total += 1
                if len(made) < self.most:
                    path = " > ".join(call.path[-5:]) if call else "no function"
                    made.append(Frame(step, path, visible, before, changes))
                before = visible
        if not self.chosen:
            wanted = " or ".join(self.globs) or "BlockDriverState"
            raise GraphsError(f"no {wanted} exists between step {self.first} and step {self.last}")
        self.total += 1
        return made

    def _matters(self, state: State, visible: State, event: Event) -> bool:
        """Apply an event; tell whether what is drawn may be another now."""
        kind, name = event[0], event[3]
        if kind == "n":
            state[name] = StructState(name, event[4], dict(event[5]))
            return bool(starts(state, self.globs, (name,)))
        if kind == "f":
            state.pop(name, None)
        elif name in state:
            state[name][event[4]] = event[6]
        return name in visible

    def _visible(self, state: State) -> State:
        """Copy what is drawn; what comes first is drawn, up to the limit."""
        found = reached(state, self.globs)
        for name in found:
            if len(self.chosen) < self.limit:
                self.chosen[name] = None
        self.left_out = max(self.left_out, len(found) - self.limit)
        return {
            name: StructState(name, state[name].struct, state[name]) for name in found if name in self.chosen
        }

    def write(
        self, folder: str | Path, kind: str = "svg", tick: Callable[[int], None] = lambda _: None
    ) -> None:
        """Draw the frames into a folder, with a page that steps through them.

        Parameters
        ----------
        folder : str or Path
            Made if it is not there; frames of an earlier time are replaced.
        kind : str
            "svg" or "png".
        tick : callable
            Called with the number of frames that are done.

        Raises
        ------
        GraphsError
            If the folder cannot be written.
        """
        folder = Path(folder)
        frames, sheet_ = self.frames, _Sheet(self)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.iterdir():
                if _NAME.fullmatch(old.name):
                    old.unlink()
            for number, frame in enumerate(frames, 1):
                dot = sheet_.dot(frame, number)
                (folder / f"frame-{number:04}.{kind}").write_bytes(engine.render(dot, kind, prog="nop2"))
                tick(number)
            (folder / "index.html").write_text(_page(frames, self, kind), encoding="utf-8")
        except OSError as error:
            raise GraphsError(f"{error.filename or folder} cannot be written: {error.strerror}") from None

    def __str__(self) -> str:
        """Say how many frames there are."""
        return f"{counted(self.total, 'change')} between step {self.first} and step {self.last}"


def _changes(before: State, after: State) -> Iterator[Change]:
    for name in after:
        if name not in before:
            yield Change(name, "", "", "is new")
            continue
        for key, value in after[name].items():
            if before[name].get(key) != value:
                yield Change(name, key, short(before[name].get(key)), short(value))
    for name in before:
        if name not in after:
            yield Change(name, "", "", "is gone")


class _Sheet:
    """The places of everything, the same in all frames."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._structs: dict[str, str] = {}
        self._rows: dict[str, dict[str, None]] = {}
        self._pointers: dict[tuple[str, str, str], None] = {}
        for frame in frames.frames:
            for name, fields in frame.state.items():
                self._structs.setdefault(name, fields.struct)
                rows = self._rows.setdefault(name, {})
                rows |= {key: None for key, value in fields.items() if not is_silent(value)}
                for key, value in fields.items():
                    target = target_of(value)
                    if target in frames.chosen:
                        self._pointers[name, key, str(target)] = None
        self._colours = colours_of(self._structs.values())
        self._measure()
        self._lay_out()

    def _measure(self) -> None:
        """Find how wide the widest value, head and legend will be."""
        frames = self._frames
        values: dict[str, set[str]] = {}
        heads: dict[str, set[str]] = {}
        for frame in frames.frames:
            for name, fields in frame.state.items():
                texts = (shown(fields.get(row), frames.chosen) for row in self._rows[name])
                values.setdefault(name, set()).update(texts)
                heads.setdefault(name, set()).add(title(name, fields, new=True))
        widths = engine.text_widths(sorted(set().union(*values.values())))
        self._widths = {
            name: {
                "value": max((widths.get(unescape(text), 0) for text in found), default=0) + 6,
                "title": max(sum(engine.text_widths([head]).values()) for head in heads[name]) + 8,
            }
            for name, found in values.items()
        }
        legends = [
            row for number, frame in enumerate(frames.frames, 1) for row in self._legend(frame, number)
        ]
        # A line may consist of several texts; its letters are wider than those of values.
        longest = max(len(unescape(re.sub("<[^>]*>", "", row))) for row in legends)
        self._wide = longest * _LETTER

    def _lay_out(self) -> None:
        page = sheet(Markup(" "))
        for name in self._structs:
            last = next(f.state[name] for f in reversed(self._frames.frames) if name in f.state)
            page.node(name, {"label": self._table(name, last, last)})
        for name, key, target in self._pointers:
            page.edge(name, target, {"id": f"{name}->{key}->{target}"}, ports=key)
        laid = engine.layout(page.text())
        self._places = {node["name"]: node["pos"] for node in laid.get("objects", ())}
        self._lines = {edge["id"]: edge["pos"] for edge in laid.get("edges", ())}
        _, _, right, top = map(float, laid["bb"].split(","))
        self._corners = (0.0, 0.0), (max(right, self._wide + 20), top)

    def _table(self, name: str, fields: Any, before: Any) -> Markup:
        look = Look(self._colours[self._structs[name]], self._frames.chosen, self._widths[name])
        return table(name, fields, before, list(self._rows[name]), look)

    def dot(self, frame: Frame, number: int) -> str:
        """Return one frame, in Graphviz's language, with the places given."""
        page = sheet(lines(self._legend(frame, number)))
        for corner, (x, y) in zip(("bottom left", "top right"), self._corners, strict=True):
            page.node(corner, {"pos": f"{x:g},{y:g}", "shape": "point", "style": "invis", "width": 0.01})
        for name, fields in frame.state.items():
            page.node(
                name,
                {
                    "label": self._table(name, fields, frame.before.get(name)),
                    "pos": self._places[name],
                    "tooltip": f"{fields.struct} {name}",
                },
            )
        for name, key, target in self._pointers:
            fields = frame.state.get(name)
            if fields is not None and target in frame.state and target_of(fields.get(key)) == target:
                look = Look(self._colours[self._structs[name]], ())
                place = {"pos": self._lines[f"{name}->{key}->{target}"]}
                page.edge(name, target, arrow(name, key, look) | place, ports=key)
        return page.text()

    def _legend(self, frame: Frame, number: int) -> list[str]:
        told = [str(change) for change in frame.changes[:_CHANGES]]
        if len(frame.changes) > _CHANGES:
            told.append(f"and {len(frame.changes) - _CHANGES} more")
        said = "; ".join(told) or "how things are at the start"
        if self._frames.left_out:
            said += f" (and {counted(self._frames.left_out, 'more structure')} not drawn)"
        said = said if len(said) <= _WIDEST else said[: _WIDEST - 1] + "…"
        place = f"frame {number} of {len(self._frames.frames)}, step {frame.step}"
        return [f"<b>{place}</b>, in {html(frame.path)}", html(said)]


def _page(frames: Sequence[Frame], all_: Frames, kind: str) -> str:
    """Fill the page's template with what each frame shows."""
    told = [
        {
            "file": f"frame-{number:04}.{kind}",
            "step": frame.step,
            "path": frame.path.split(" > "),
            "changes": [str(change) for change in frame.changes],
        }
        for number, frame in enumerate(frames, 1)
    ]
    note = f" (the first {len(frames)})" if len(frames) < all_.total else ""
    template = (files("graphs") / "draw" / "frames.html").read_text(encoding="utf-8")
    # A closing tag within the data would end the script.
    data = json.dumps(told, ensure_ascii=False).replace("</", "<\\/")
    return template.replace("@TITLE@", html(f"{all_}{note}")).replace("@FRAMES@", data)
