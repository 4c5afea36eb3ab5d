"""Fewer boxes for a call graph that has too many for a page.

- `condense(picture, limit) -> Picture`: about `limit` boxes; in two steps, for several limits,
  `thinned(gathered(picture), limit)`.
- `THROUGH`: the kind of the arrows that stand for calls through functions in small print.

It keeps every name: it moves small ones into the boxes of their callers.

1. Functions with the very same callers and callees, by arrows of the same kinds, become one box, "cow_probe
   and 9 more".
2. Functions that call nothing and have many callers are listed inside the boxes of these callers.
3. As long as there are too many boxes, those that call nothing go into their callers' boxes, the farthest
   from the start first. If all call something, the one with the fewest neighbours goes, and dashed arrows
   lead from its callers to what it calls.

Where everything leads to one goal, all this is done the other way round, from the callers' end.

The ends of arrows of a kind in `Picture.kept` stay boxes of their own, whatever there is around them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace

from graphs.draw.picture import Arrow, Box, Notes, Picture

THROUGH = "calls through functions in small print"
_TWINS = 3
_HELPER_CALLERS = 3
# Where there are more boxes than that, a share of those too many goes at once.
_MANY, _SHARE = 180, 3


def condense(picture: Picture, limit: int) -> Picture:
    """Return a picture of about `limit` boxes; see the module's docstring.

    >>> boxes = {key: Box(key, "a.c") for key in ("main", "x1", "x2", "x3")}
    >>> small = condense(Picture("", boxes, {("main", key): Arrow() for key in ("x1", "x2", "x3")}), 9)
    >>> [box.title for box in small.boxes.values()]
    ['main', 'x1 and 2 more']
    """
    return thinned(gathered(picture), limit)


def gathered(picture: Picture) -> Picture:
    """Join twins, and bring a picture of very many boxes down to some: what all limits have in common."""
    if picture.goal:
        small = gathered(replace(_turned(picture), goal=""))
        return replace(_turned(small), goal=picture.goal)
    joined = _join_twins(_aliased(picture))
    return thinned(joined, _MANY) if len(joined.boxes) > _MANY else joined


def thinned(picture: Picture, limit: int) -> Picture:
    """Return a picture whose twins are joined, of about `limit` boxes."""
    if len(picture.boxes) <= limit // 2:
        return picture
    if picture.goal:
        small = thinned(replace(_turned(picture), goal=""), limit)
        return replace(_turned(small), goal=picture.goal)
    result = picture
    kept = _kept(result)
    callers, callees = _neighbours(result)
    helpers = [
        key
        for key in result.boxes
        if not callees[key] and len(callers[key]) >= _HELPER_CALLERS and key not in kept
    ]
    result = _fold(result, helpers)
    while len(result.boxes) > limit:
        callers, callees = _neighbours(result)
        foldable = [key for key in result.boxes if callers[key] - {key} and key not in kept]
        leaves = [key for key in foldable if not (callees[key] - {key})]
        if not leaves:
            inner = [key for key in foldable if callees[key]]
            if not inner:
                break
            inner.sort(key=lambda key: len(callers[key]) * len(callees[key]))
            result = _contract(result, _apart(inner, (len(result.boxes) - _MANY) // _SHARE, callers))
            continue
        distance = _distances(result)
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


def _noted(notes: Notes, more: dict[str, list[str]]) -> Notes:
    """Add names to small print.

    >>> _noted((("in source only", ("f",)),), {"in source only": ["g", "f"]})
    (('in source only', ('f', 'g')),)
    """
    found = {label: list(names) for label, names in notes}
    for label, names in more.items():
        found.setdefault(label, []).extend(names)
    return tuple((label, tuple(dict.fromkeys(names))) for label, names in found.items())


def _apart(keys: list[str], number: int, callers: dict[str, set[str]]) -> list[str]:
    """Return the first so many of the keys, one at least, of which none calls another."""
    found = set[str]()
    beside = set[str]()
    for key in keys:
        if len(found) >= max(1, number):
            break
        if key not in beside and not callers[key] & found:
            found.add(key)
            beside |= callers[key]
    return [key for key in keys if key in found]


def _contract(picture: Picture, gone: list[str]) -> Picture:
    """Fold boxes that call others: callers get them in small print, and dashed arrows to what they call.

    None of the boxes calls another one of them.
    """
    callers, callees = _neighbours(picture)
    arrows = dict(picture.arrows)
    for box in gone:
        for tail in callers[box] - {box}:
            for head in callees[box] - {box, tail}:
                way = arrows[tail, box], arrows[box, head]
                if any(arrow.kind in picture.loose for arrow in way):
                    continue
                weight = min(arrow.weight for arrow in way)
                arrows.setdefault((tail, head), Arrow(weight, "", THROUGH))
    return _fold(replace(picture, arrows=arrows, kinds={**picture.kinds, THROUGH: picture.through}), gone)
