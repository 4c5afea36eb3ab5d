"""A call graph as a page: boxes in the colours of their files, arrows, a legend; small enough to read.

- `Picture`: `Box`es and `Arrow`s, whatever they come from; `kinds` name the styles of arrows.
- `to_dot(picture, limit) -> str`: condensed to about `limit` boxes, in the orientation that fits a page best.

Condensing keeps every name: it moves small ones into the boxes of their callers.

1. Functions with the very same callers and callees, by arrows of the same kinds, become one box, "cow_probe
   and 9 more".
2. Functions that call nothing and have many callers are listed inside the boxes of these callers.
3. As long as there are too many boxes, those that call nothing go into their callers' boxes, the farthest
   from the start first. If all call something, the one with the fewest neighbours goes, and dashed arrows
   lead from its callers to what it calls.

Where everything leads to one goal, all this is done the other way round, from the callers' end.

The ends of arrows of a kind in `Picture.kept` stay boxes of their own, whatever there is around them.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from graphs.draw.dot import Dot, Markup, html
from graphs.draw.drawing import Drawing
from graphs.draw.engine import FONT, layout, size

_TWINS = 3
_HELPER_CALLERS = 3
_LISTED = 6
_PAGE = 1.414
# How far a shape may be from a page's, as a logarithm: good enough at once; good enough for all boxes.
_PAGE_LIKE, _TOLERABLE = 0.15, 0.3
# How far beyond the middles of the outermost boxes an arrow may run, in points.
_MARGIN = 110
_FEW, _CROWDED = 20, 2.2
_THROUGH = "calls through functions in small print"

# Fill and line of each file, most important first: soft fills, lines dark enough to follow.
_COLOURS = [
    ("#dbeafe", "#1d4ed8"), ("#dcfce7", "#15803d"), ("#ffedd5", "#c2410c"), ("#f3e8ff", "#7e22ce"),
    ("#fee2e2", "#b91c1c"), ("#ccfbf1", "#0f766e"), ("#fef9c3", "#a16207"), ("#fce7f3", "#be185d"),
    ("#e0e7ff", "#4338ca"), ("#ecfccb", "#4d7c0f"),
]  # fmt: skip
_PLAIN = ("#f1f5f9", "#475569")
# These keep their colour from picture to picture, in the order of the colours.
_USUAL = ("block.c", "block/qcow.c", "block/raw-posix.c", "posix-aio-compat.c", "vl.c", "block/qcow2.c")
_INK, _FAINT = "#0f172a", "#64748b"

_Notes = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Box:
    """A function.

    Attributes
    ----------
    name : str
        Shown in bold.
    group : str
        Its C file; boxes of one group share a frame and a colour.
    weight : int
        How often it was called; 0 shows nothing.
    tooltip : str
        Shown by a browser that rests on the box.
    twins : tuple of str
        Functions that the box stands for besides `name`.
    also : tuple of str
        Functions folded into the box, which it calls.
    url : str
        Where a click leads.
    notes : tuple of (str, tuple of str)
        More small print: what the names are, and the names.
    line : int
        Line of its definition in the C file, 0 if not known.
    alias : str
        What small print calls it, where its name alone would not tell.
    """

    name: str
    group: str
    weight: int = 0
    tooltip: str = ""
    twins: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    url: str = ""
    notes: _Notes = ()
    line: int = 0
    alias: str = ""

    @property
    def small(self) -> str:
        """What small print calls it."""
        return self.alias or self.name

    @property
    def title(self) -> str:
        """The name, and how many more it stands for."""
        return f"{self.name} and {len(self.twins)} more" if self.twins else self.name


@dataclass(frozen=True)
class Arrow:
    """A call from one function to another, `kind` one of the picture's kinds."""

    weight: int = 1
    tooltip: str = ""
    kind: str = ""
    url: str = ""


@dataclass
class Picture(Drawing):
    """What to draw.

    Attributes
    ----------
    title : str
        First line of the legend.
    boxes : dict of key to Box
        Keys are any strings that are not shown.
    arrows : dict of (key, key) to Arrow
        From caller to callee.
    kinds : dict of str to (style, colour)
        Arrow kinds other than the plain one, in Graphviz's words; each gets a line in the legend. An empty
        colour stands for that of the caller's file.
    kept : frozenset of str
        Kinds of arrows that condensing leaves alone.
    loose : frozenset of str
        Kinds of arrows that do not lead on: folding the box between two of them leaves no dashed arrow.
    through : (style, colour)
        Arrows that condensing makes.
    goal : str
        Key of a box towards which everything leads; "" if all leads away from a start. It stays, and others
        go into the boxes of what they call instead of those of their callers.
    limit : int
        About how many boxes a page shows.
    """

    title: str
    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: dict[tuple[str, str], Arrow] = field(default_factory=dict)
    kinds: dict[str, tuple[str, str]] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()
    loose: frozenset[str] = frozenset()
    through: tuple[str, str] = ("dashed", "")
    goal: str = ""
    limit: int = 50

    def dot(self) -> str:
        """Return the page; see `to_dot`."""
        return to_dot(self, self.limit)

    def nodes(self) -> list[dict[str, Any]]:
        """Return all functions."""
        return [
            {"id": key, "name": box.name, "file": box.group}
            | ({"line": box.line} if box.line else {})
            | ({"calls": box.weight} if box.weight else {})
            | ({"note": box.tooltip} if box.tooltip else {})
            | ({"url": box.url} if box.url else {})
            | {label: list(names) for label, names in box.notes}
            for key, box in self.boxes.items()
        ]

    def links(self) -> list[dict[str, Any]]:
        """Return all arrows."""
        return [
            {"source": tail, "target": head, "kind": arrow.kind or "call", "times": arrow.weight}
            | ({"evidence": arrow.tooltip} if arrow.tooltip else {})
            | ({"url": arrow.url} if arrow.url else {})
            for (tail, head), arrow in self.arrows.items()
        ]

    def __str__(self) -> str:
        """Say what it shows, in one line."""
        return f"{self.title}: {len(self.boxes):,} functions, {len(self.arrows):,} different calls"


def to_dot(picture: Picture, limit: int = 50) -> str:
    """Condense a picture to at most about `limit` boxes and write it as DOT.

    Where arrows would cover the page, there are fewer boxes. A layout takes a hundredth of a second: one
    after the other is tried until one has about the shape of a page, and the best of them is taken. Fewer
    boxes are tried only if none is near that shape, and must gain a better one.
    """
    total = len(picture.boxes)
    limit = _readable(picture, limit)
    best, least, off, boxes = "", math.inf, math.inf, 0
    directions = ["LR", "TB"]
    way: tuple[Picture, str, str] = picture, "", ""
    for share in (1, 0.8, 0.6):
        small = condense(picture, int(limit * share))
        if len(small.boxes) == boxes:
            continue
        boxes = len(small.boxes)
        for direction in directions:
            for ranking in ("false", "true"):
                dot = _dot(small, total, direction, ranking)
                width, height = size(dot)
                off_page = abs(math.log(max(width, 1) / max(height, 1) / _PAGE))
                emptiness = math.log(max(width * height, 1) / (boxes or 1))
                cost = off_page + emptiness + (1 - share)
                if cost < least:
                    best, least, off, way = dot, cost, off_page, (small, direction, ranking)
            if off < _PAGE_LIKE:
                break
        if off < _TOLERABLE:
            break
        directions = [way[1]]
    return _drawn_in(best, total, *way)


def _drawn_in(dot: str, total: int, picture: Picture, direction: str, ranking: str) -> str:
    """Have arrows that run back round the outside of everything run a shorter way, where that saves room."""
    laid = layout(dot)
    around = _around(laid, direction)
    if not around:
        return dot
    turned = _dot(picture, total, direction, ranking, around)
    return turned if _area(layout(turned)) < _area(laid) else dot


def _around(laid: Any, direction: str) -> set[tuple[str, str]]:
    """The arrows against the direction that leave the room which the middles of the boxes take up."""
    places = {
        part["_gvid"]: tuple(map(float, part["pos"].split(","))) for part in laid["objects"] if "pos" in part
    }
    names = {part["_gvid"]: part["name"] for part in laid["objects"]}
    axis, forward = (0, 1) if direction == "LR" else (1, -1)
    across = [place[1 - axis] for place in places.values()]
    low, high = min(across) - _MARGIN, max(across) + _MARGIN
    out = set()
    for edge in laid.get("edges", ()):
        tail, head = edge["tail"], edge["head"]
        if forward * (places[head][axis] - places[tail][axis]) >= 0:
            continue
        points = (pair.lstrip("es,").split(",") for pair in edge["pos"].split(" "))
        if not all(low < float(point[1 - axis]) < high for point in points):
            out.add((names[tail], names[head]))
    return out


def _area(laid: Any) -> float:
    left, low, right, high = map(float, laid["bb"].split(","))
    return (right - left) * (high - low)


def _readable(picture: Picture, limit: int) -> int:
    """Lower the limit until there are few enough arrows to be followed."""
    while limit > _FEW:
        small = condense(picture, limit)
        if len(small.arrows) <= _CROWDED * len(small.boxes):
            break
        limit = max(_FEW, int(0.85 * min(limit, len(small.boxes))))
    return limit


def condense(picture: Picture, limit: int) -> Picture:
    """Return a picture of about `limit` boxes; see the module's docstring.

    >>> boxes = {key: Box(key, "a.c") for key in ("main", "x1", "x2", "x3")}
    >>> small = condense(Picture("", boxes, {("main", key): Arrow() for key in ("x1", "x2", "x3")}), 9)
    >>> [box.title for box in small.boxes.values()]
    ['main', 'x1 and 2 more']
    """
    if picture.goal:
        small = condense(replace(_turned(picture), goal=""), limit)
        return replace(_turned(small), goal=picture.goal)
    result = _join_twins(_aliased(picture))
    kept = _kept(result)
    callers, callees = _neighbours(result)
    helpers = [
        key
        for key in result.boxes
        if not callees[key] and len(callers[key]) >= _HELPER_CALLERS and key not in kept
    ]
    if len(result.boxes) > limit // 2:
        result = _fold(result, helpers)
    while len(result.boxes) > limit:
        callers, callees = _neighbours(result)
        distance = _distances(result)
        foldable = [key for key in result.boxes if callers[key] - {key} and key not in kept]
        leaves = [key for key in foldable if not (callees[key] - {key})]
        if not leaves:
            inner = [key for key in foldable if callees[key]]
            if not inner:
                break
            result = _contract(result, min(inner, key=lambda key: len(callers[key]) * len(callees[key])))
            continue
        leaves.sort(key=lambda key: (-distance[key], result.boxes[key].weight))
        result = _fold(result, leaves[: max(1, (len(result.boxes) - limit + 1) // 2)])
    return result


def _turned(picture: Picture) -> Picture:
    """Turn all arrows round."""
    arrows = {(head, tail): arrow for (tail, head), arrow in picture.arrows.items()}
    return replace(picture, arrows=arrows)


def _aliased(picture: Picture) -> Picture:
    """Have small print tell functions of the same name by their files."""
    count = Counter(box.name for box in picture.boxes.values())
    boxes = {
        key: replace(box, alias=f"{box.name} ({box.group})") if count[box.name] > 1 and box.group else box
        for key, box in picture.boxes.items()
    }
    return replace(picture, boxes=boxes)


def _kept(picture: Picture) -> set[str]:
    """Return the boxes at the ends of arrows that condensing leaves alone."""
    return {key for ends, arrow in picture.arrows.items() if arrow.kind in picture.kept for key in ends}


def _neighbours(picture: Picture) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    callers: dict[str, set[str]] = defaultdict(set)
    callees: dict[str, set[str]] = defaultdict(set)
    for tail, head in picture.arrows:
        callers[head].add(tail)
        callees[tail].add(head)
    return callers, callees


def _distances(picture: Picture) -> dict[str, int]:
    """Return how far each box is from those that nothing calls."""
    callers, callees = _neighbours(picture)
    distance = {key: 0 for key in picture.boxes if not callers[key] - {key}}
    frontier = list(distance)
    while frontier:
        key = frontier.pop(0)
        for head in callees[key]:
            if head not in distance:
                distance[head] = distance[key] + 1
                frontier.append(head)
    return defaultdict(int, distance)


def _join_twins(picture: Picture) -> Picture:
    around: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for (tail, head), arrow in picture.arrows.items():
        around[head].add(("from", tail, arrow.kind))
        around[tail].add(("to", head, arrow.kind))
    kept = _kept(picture)
    families: dict[frozenset[tuple[str, str, str]], list[str]] = defaultdict(list)
    for key, box in picture.boxes.items():
        if key not in kept and not box.notes:
            families[frozenset(around[key])].append(key)
    gone: dict[str, str] = {}
    boxes = dict(picture.boxes)
    for family in families.values():
        if len(family) >= _TWINS:
            boxes[family[0]] = _joined([picture.boxes[key] for key in family])
            gone |= dict.fromkeys(family[1:], family[0])
    arrows: dict[tuple[str, str], Arrow] = {}
    for (tail, head), arrow in picture.arrows.items():
        ends = gone.get(tail, tail), gone.get(head, head)
        known = arrows.get(ends)
        arrows[ends] = replace(known, weight=known.weight + arrow.weight) if known else arrow
    return replace(picture, boxes={key: box for key, box in boxes.items() if key not in gone}, arrows=arrows)


def _joined(family: list[Box]) -> Box:
    first, groups = family[0], {box.group for box in family}
    return Box(
        first.name,
        first.group if len(groups) == 1 else "",
        sum(box.weight for box in family),
        "\n".join(f"{box.name} ({box.group})" for box in family),
        tuple(box.small for box in family[1:]),
    )


def _fold(picture: Picture, keys: Iterable[str]) -> Picture:
    """List boxes that call nothing inside the boxes of their callers."""
    gone = set(keys)
    also: dict[str, list[str]] = defaultdict(list)
    notes: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for (tail, head), arrow in picture.arrows.items():
        if head in gone and tail not in gone:
            box = picture.boxes[head]
            if arrow.kind in picture.loose:
                notes[tail].setdefault(arrow.kind, []).extend((box.small, *box.twins))
            else:
                also[tail] += [box.small, *box.twins, *box.also]
    boxes = {
        key: replace(
            box, also=tuple(dict.fromkeys((*box.also, *also[key]))), notes=_noted(box.notes, notes[key])
        )
        if key in also or key in notes
        else box
        for key, box in picture.boxes.items()
        if key not in gone
    }
    arrows = {ends: arrow for ends, arrow in picture.arrows.items() if not gone & set(ends)}
    return replace(picture, boxes=boxes, arrows=arrows)


def _noted(notes: _Notes, more: dict[str, list[str]]) -> _Notes:
    """Add names to small print.

    >>> _noted((("in source only", ("f",)),), {"in source only": ["g", "f"]})
    (('in source only', ('f', 'g')),)
    """
    found = {label: list(names) for label, names in notes}
    for label, names in more.items():
        found.setdefault(label, []).extend(names)
    return tuple((label, tuple(dict.fromkeys(names))) for label, names in found.items())


def _contract(picture: Picture, gone: str) -> Picture:
    """Fold a box that calls others: its callers get it in small print, and dashed arrows to what it calls."""
    callers, callees = _neighbours(picture)
    arrows = dict(picture.arrows)
    for tail in callers[gone] - {gone}:
        for head in callees[gone] - {gone, tail}:
            way = arrows[tail, gone], arrows[gone, head]
            if any(arrow.kind in picture.loose for arrow in way):
                continue
            weight = min(arrow.weight for arrow in way)
            arrows.setdefault((tail, head), Arrow(weight, "", _THROUGH))
    return _fold(replace(picture, arrows=arrows, kinds={**picture.kinds, _THROUGH: picture.through}), [gone])


def _dot(
    picture: Picture, total: int, direction: str, ranking: str, turned: Container[tuple[str, str]] = ()
) -> str:
    colours = _colours(picture)
    heaviest = max((arrow.weight for arrow in picture.arrows.values()), default=1)
    counted = _is_counted(picture)
    dot = Dot(
        {
            "rankdir": direction, "newrank": ranking, "fontname": FONT, "fontsize": 11, "fontcolor": _INK,
            "labelloc": "b", "labeljust": "l", "nodesep": 0.14, "ranksep": 0.45 if direction == "TB" else 0.6,
            "pad": 0.3, "bgcolor": "white", "label": _legend(picture, total), "tooltip": picture.title,
        },
        {
            "shape": "box", "style": "filled,rounded", "fontname": FONT, "fontsize": 11, "height": 0.2,
            "margin": "0.09,0.045", "fontcolor": _INK, "penwidth": 1,
        },
        {"arrowsize": 0.6, "fontname": FONT, "fontsize": 9, "fontcolor": _FAINT},
    )  # fmt: skip
    for group, (fill, line) in colours.items():
        if group:
            dot.cluster(
                group,
                {
                    "label": group, "style": "filled,rounded", "fillcolor": fill + "70", "color": line + "60",
                    "fontcolor": line, "fontname": f"{FONT} Bold", "fontsize": 12, "labelloc": "t",
                    "labeljust": "l", "margin": 9, "tooltip": group,
                },
            )  # fmt: skip
    for key, box in picture.boxes.items():
        fill, line = colours.get(box.group, _PLAIN)
        look = {"label": _label(box), "fillcolor": "white", "color": line, "tooltip": box.tooltip or box.name}
        if box.url:
            look |= {"URL": box.url, "target": "_blank"}
        dot.node(key, look, box.group or None)
    for (tail, head), arrow in picture.arrows.items():
        style, colour = picture.kinds.get(arrow.kind, ("solid", ""))
        colour = colour or colours.get(picture.boxes[tail].group, _PLAIN)[1]
        width = 0.8 + 2.0 * math.log1p(arrow.weight - 1) / math.log1p(max(heaviest, 20))
        look = {"color": colour + "b0", "style": style, "penwidth": f"{width:.2f}"}
        if arrow.weight > 1 and counted:
            look["xlabel"] = f"×{arrow.weight:,}"
        if arrow.url:
            look |= {"URL": arrow.url, "target": "_blank"}
        words = "calls" if arrow.kind != _THROUGH else "through others calls"
        told = f"{picture.boxes[tail].name} {words} {picture.boxes[head].name}"
        dot.edge(tail, head, look | {"tooltip": arrow.tooltip or told}, turned=(tail, head) in turned)
    return dot.text()


def _colours(picture: Picture) -> dict[str, tuple[str, str]]:
    """Give each file a colour: the usual ones theirs, then those with most functions what is left."""
    count = Counter(box.group for box in picture.boxes.values() if box.group)
    usual = {file: colour for file, colour in zip(_USUAL, _COLOURS, strict=False) if file in count}
    left = [colour for colour in _COLOURS if colour not in usual.values()]
    others = sorted(count.keys() - usual.keys(), key=lambda group: (-count[group], group))
    return usual | dict(zip(others, [*left, *[_PLAIN] * len(others)], strict=False))


def _label(box: Box) -> Markup:
    times = f' <font color="{_FAINT}" point-size="9">×{box.weight:,}</font>' if box.weight > 1 else ""
    rows = [f"<b>{html(box.title)}</b>{times}"]
    rows += [
        f'<font color="{_FAINT}" point-size="8.5">{html(row)}</font>'
        for row in _small_print(box.twins + box.also)
    ]
    rows += [
        f'<font color="{_FAINT}" point-size="8.5"><i>{html(row)}</i></font>'
        for label, names in box.notes
        for row in _small_print((f"{label}: {names[0]}", *names[1:]))
    ]
    return Markup('<br align="left"/>'.join(rows) + ('<br align="left"/>' if len(rows) > 1 else ""))


def _small_print(names: tuple[str, ...], width: int = 34) -> list[str]:
    """Wrap names to lines; say how many there are beyond the first few.

    >>> _small_print(("a", "b", "c", "d", "e", "f", "g", "h"))
    ['a, b, c, d, e, f', 'and 2 more']
    """
    lines = [""]
    for name in names[:_LISTED]:
        if lines[-1] and len(lines[-1]) + len(name) + 2 > width:
            lines.append("")
        lines[-1] += f", {name}" if lines[-1] else name
    if len(names) > _LISTED:
        lines.append(f"and {len(names) - _LISTED} more")
    return lines if names else []


def _words(picture: Picture) -> str:
    """Say what boxes and arrows are, as far as there are such."""
    counted = _is_counted(picture)
    also = any(box.also for box in picture.boxes.values())
    return (
        "box: a function"
        + (", ×n the times it was called" if counted else "")
        + (
            f", in small print {'who else calls it' if picture.goal else 'what it also calls'}"
            if also
            else ""
        )
        + "; frame: its C file"
        + ("; arrow: calls, thicker the oftener" if counted else "; arrow: calls")
    )


def _is_counted(picture: Picture) -> bool:
    """Tell whether functions ran; a source knows no numbers."""
    return any(box.weight for box in picture.boxes.values())


def _legend(picture: Picture, total: int) -> Markup:
    shown = len(picture.boxes)
    rows = [
        f"<b>{html(picture.title)}</b>",
        f"{total:,} functions" + (f" in {shown:,} boxes" if shown < total else ""),
        _words(picture),
    ]
    rows += [
        f'<font color="{colour or _INK}">{html(style)} arrow</font>: {html(kind)}'
        for kind, (style, colour) in picture.kinds.items()
    ]
    return Markup('<br align="left"/>'.join(["", *rows]) + '<br align="left"/>')
