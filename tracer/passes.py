"""Passes over call trees: pure functions from tree to tree.

- `build(calls)`: the tree of a trace's calls, under a root without a call.
- `from_function`, `only`, `thread`, `cut`: smaller trees.
- `fold(root, key)`: repeats of equal calls, and of equal sequences of calls, become one node with a count.
- `select(root, ...)`: all of these, in the order that users expect.

Trees are never changed, so passes share the nodes they leave alone. No pass recurses: recordings are deep.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from tracer.errors import TracerError
from tracer.fileformat import FunctionInfo
from tracer.trace import Call

LONGEST_PERIOD = 16


@dataclass(slots=True, eq=False)
class Node:
    """A place in the tree.

    Attributes
    ----------
    call
        The call, the first one of a fold; None for the root, and for a folded sequence.
    children
        The calls it made, or those of the sequence.
    count
        How many times in a row.
    hidden
        How many children were cut.
    """

    call: Call | None = None
    children: list[Node] = field(default_factory=list)
    count: int = 1
    hidden: int = 0


Key = Callable[[Call], Hashable]
Rule = Callable[[Node, list[Node], int], list[Node]]


def build(calls: Iterable[Call]) -> Node:
    """Return the tree of calls that are given in order of entry."""
    root = Node()
    nodes: dict[Call | None, Node] = {None: root}
    for call in calls:
        node = nodes[call] = Node(call)
        nodes[call.parent].children.append(node)
    return root


def walk(root: Node) -> Iterator[tuple[Node, int]]:
    """Yield every node below the root with its depth, parents first."""
    stack = [(child, 0) for child in reversed(root.children)]
    while stack:
        node, depth = stack.pop()
        yield node, depth
        stack += [(child, depth + 1) for child in reversed(node.children)]


def _rebuild(root: Node, rule: Rule) -> Node:
    """Apply `rule` from the leaves up: (node, new children, depth) -> the nodes in its place."""
    order = list(walk(root))
    done: dict[Node, list[Node]] = {}

    def below(node: Node) -> list[Node]:
        return [new for child in node.children for new in done.pop(child)]

    for node, depth in reversed(order):
        done[node] = rule(node, below(node), depth)
    return replace(root, children=below(root))


def matches(info: FunctionInfo, glob: str) -> bool:
    """Whether a function's name, its file, or ``file:name`` matches a glob.

    Examples
    --------
    >>> info = FunctionInfo(0, "block/qcow.c", "qcow_open", "m", 1, ())
    >>> [matches(info, glob) for glob in ("qcow_*", "block/*", "block/qcow.c:*", "raw_*")]
    [True, True, True, False]
    """
    return any(fnmatchcase(text, glob) for text in (info.name, info.file, f"{info.file}:{info.name}"))


def _chosen(root: Node, globs: Sequence[str], option: str) -> set[int]:
    """Return the functions of the tree that match; complain when there is none."""
    infos = {node.call.info.fid: node.call.info for node, _ in walk(root) if node.call is not None}
    chosen: set[int] = set()
    for glob in globs:
        found = {fid for fid, info in infos.items() if matches(info, glob)}
        if not found:
            names = sorted({text for info in infos.values() for text in (info.name, info.file)})
            near = difflib.get_close_matches(glob, names, 3)
            hint = (
                f"; did you mean {', '.join(near)}?"
                if near
                else "; `studykvm trace stats FILE` lists what was called"
            )
            raise TracerError(f"{option} {glob}: no such call in this trace{hint}")
        chosen |= found
    return chosen


def from_function(root: Node, glob: str) -> Node:
    """Keep the outermost calls of a function, as the new top."""
    chosen = _chosen(root, [glob], "--from")
    top: list[Node] = []
    stack = list(reversed(root.children))
    while stack:
        node = stack.pop()
        if node.call is not None and node.call.info.fid in chosen:
            top.append(node)
        else:
            stack += reversed(node.children)
    return replace(root, children=top)


def only(root: Node, globs: Sequence[str]) -> Node:
    """Keep the calls of matching functions; what they call through others moves up to them."""
    chosen = _chosen(root, globs, "--only")

    def rule(node: Node, children: list[Node], depth: int) -> list[Node]:
        if node.call is not None and node.call.info.fid in chosen:
            return [replace(node, children=children)]
        return children

    return _rebuild(root, rule)


def thread(root: Node, number: int) -> Node:
    """Keep the calls of one thread.

    Parameters
    ----------
    number : int
        As `Call.thread` counts them.

    Raises
    ------
    TracerError
        When no call is of that thread.
    """
    numbers = {node.call.thread for node, _ in walk(root) if node.call is not None}
    if number not in numbers:
        known = ", ".join(map(str, sorted(numbers))) or "none"
        raise TracerError(f"--thread {number}: no such thread in this trace; there is {known}")

    def rule(node: Node, children: list[Node], depth: int) -> list[Node]:
        if node.call is None or node.call.thread == number:
            return [replace(node, children=children)]
        return children

    return _rebuild(root, rule)


def cut(root: Node, depth: int) -> Node:
    """Keep `depth` levels."""

    def rule(node: Node, children: list[Node], level: int) -> list[Node]:
        if level >= depth:
            return []
        if level == depth - 1:
            return [replace(node, children=[], hidden=len(node.children))]
        return [replace(node, children=children)]

    return _rebuild(root, rule)


def by_function(call: Call) -> Hashable:
    """Tell calls apart by function, thread and how they ended."""
    return (call.info.fid, call.thread, call.exc, call.open)


def by_arguments(call: Call) -> Hashable:
    """Tell calls apart by arguments and return value too."""
    return (by_function(call), repr(call.args), repr(call.ret))


def fold(root: Node, key: Key = by_function) -> Node:
    """Fold calls that follow one another and are equal, with all they call, under `key`."""
    shapes: dict[Hashable, int] = {}
    shape_of: dict[Node, int] = {}

    def shape(key: Hashable) -> int:
        return shapes.setdefault(key, len(shapes))

    def rule(node: Node, children: list[Node], depth: int) -> list[Node]:
        folded = _fold_siblings(children, shape_of, shape)
        new = replace(node, children=folded)
        call = None if node.call is None else key(node.call)
        inner = tuple((shape_of[child], child.count) for child in folded)
        shape_of[new] = shape((call, inner, node.hidden))
        return [new]

    top = _rebuild(root, rule)
    return replace(top, children=_fold_siblings(top.children, shape_of, shape))


def _fold_siblings(
    nodes: list[Node], shape_of: dict[Node, int], shape: Callable[[Hashable], int]
) -> list[Node]:
    runs: list[Node] = []
    for node in nodes:
        if runs and shape_of[runs[-1]] == shape_of[node]:
            shaped = shape_of[node]
            runs[-1] = replace(runs[-1], count=runs[-1].count + node.count)
            shape_of[runs[-1]] = shaped
        else:
            runs.append(node)
    marks = [(shape_of[node], node.count) for node in runs]
    result: list[Node] = []
    at = 0
    while at < len(runs):
        period, times = _best_period(marks, at)
        if times == 1:
            result.append(runs[at])
        else:
            sequence = Node(None, runs[at : at + period], times)
            shape_of[sequence] = shape(("sequence", tuple(marks[at : at + period])))
            result.append(sequence)
        at += period * times
    return result


def _best_period(marks: list[tuple[int, int]], at: int) -> tuple[int, int]:
    """Return the length and the number of repeats of the sequence at `at` that covers most."""
    best = (1, 1)
    for period in range(2, min(LONGEST_PERIOD, (len(marks) - at) // 2) + 1):
        if marks[at] != marks[at + period]:
            continue
        pattern, times = marks[at : at + period], 1
        while marks[at + times * period : at + (times + 1) * period] == pattern:
            times += 1
        if times > 1 and period * times > best[0] * best[1]:
            best = (period, times)
    return best


def select(
    root: Node,
    *,
    start: str | None = None,
    globs: Sequence[str] = (),
    number: int | None = None,
    depth: int | None = None,
) -> Node:
    """Apply `thread`, `from_function`, `only` and `cut`, as far as they are asked for.

    Parameters
    ----------
    start : str
        Keep what is below calls of this function.
    globs : sequence of str
        Keep functions or files that match one of these patterns.
    number : int
        Keep this thread.
    depth : int
        Levels kept, from 1.
    """
    if number is not None:
        root = thread(root, number)
    if start is not None:
        root = from_function(root, start)
    if globs:
        root = only(root, globs)
    if depth is not None:
        root = cut(root, depth)
    return root
