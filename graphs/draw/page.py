"""A call graph as a page of DOT: few enough boxes, an orientation that fits, colours of files, a legend.

- `to_dot(picture, limit) -> str`: condensed to about `limit` boxes (`graphs.draw.condense`).
"""

import math
from collections import Counter
from collections.abc import Container
from typing import Any

from graphs.draw.condense import THROUGH, gathered, thinned
from graphs.draw.dot import Dot, Markup, html
from graphs.draw.engine import FONT, layout, size
from graphs.draw.picture import Box, Picture

_LISTED = 6
_PAGE = 1.414
# How far a shape may be from a page's, as a logarithm: good enough at once; good enough for all boxes.
_PAGE_LIKE, _TOLERABLE = 0.15, 0.3
# How far beyond the middles of the outermost boxes an arrow may run, in points.
_MARGIN = 110
_FEW, _CROWDED = 20, 2.2

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


def to_dot(picture: Picture, limit: int = 50) -> str:
    """Condense a picture to at most about `limit` boxes and write it as DOT.

    Where arrows would cover the page, there are fewer boxes. A layout takes a hundredth of a second: one
    after the other is tried until one has about the shape of a page, and the best of them is taken. Fewer
    boxes are tried only if none is near that shape, and must gain a better one.
    """
    total = len(picture.boxes)
    picture = gathered(picture)
    limit = _readable(picture, limit)
    best, least, off, boxes = "", math.inf, math.inf, 0
    directions = ["LR", "TB"]
    way: tuple[Picture, str, str] = picture, "", ""
    for share in (1, 0.8, 0.6):
        small = thinned(picture, int(limit * share))
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
        small = thinned(picture, limit)
        if len(small.arrows) <= _CROWDED * len(small.boxes):
            break
        limit = max(_FEW, int(0.85 * min(limit, len(small.boxes))))
    return limit


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
        words = "calls" if arrow.kind != THROUGH else "through others calls"
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
        lines.append(f"and {len(names) - _LISTED:,} more")
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
