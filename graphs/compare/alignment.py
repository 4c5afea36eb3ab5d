"""Where two call trees differ, and how many calls are equal in order.

- `align(ours, theirs) -> Alignment`: equal calls, and the differences with their surroundings.

Both trees come from one `Forest`, so equal subtrees are the same object and are never entered. What two
nodes called is compared as sequences of subtrees (`graphs.compare.sequences`); what is left over is paired
by function name and entered. Where a whole block has no partner, its calls are matched in flat order, so
that one extra caller in between counts as one difference and not as the loss of all that it called.
"""

from dataclasses import dataclass, field
from itertools import islice

from graphs.calls import Name
from graphs.compare.sequences import match
from graphs.compare.trees import Runs, Tree

_FLAT_LIMIT = 5000


@dataclass(frozen=True)
class Difference:
    """Neighbouring calls that one side has and the other lacks.

    Attributes
    ----------
    path : tuple of (str, str)
        The callers, outermost first.
    before, after : tuple of (Tree, int)
        The equal calls next to it, under the same caller.
    ours, theirs : tuple of (Tree, int)
        What only the model, what only the recording has there.
    equal_before : int
        Equal calls up to here.
    """

    path: tuple[Name, ...]
    before: Runs
    ours: Runs
    theirs: Runs
    after: Runs
    equal_before: int


@dataclass
class Alignment:
    """The result for one thread."""

    equal: int = 0
    differences: list[Difference] = field(default_factory=list)


def align(ours: Tree, theirs: Tree) -> Alignment:
    """Compare two trees that have the same root function; the root itself is not counted."""
    result = Alignment()
    _children(result, ours, theirs, ())
    return result


def _children(result: Alignment, ours: Tree, theirs: Tree, path: tuple[Name, ...]) -> None:
    before: Runs = ()
    blocks = match(ours.runs, theirs.runs, key=lambda tree: tree)
    for position, (same, left, right) in enumerate(blocks):
        if same:
            result.equal += sum(tree.size * count for tree, count in left)
            before = left
        else:
            after = blocks[position + 1][1] if position + 1 < len(blocks) else ()
            _replaced(result, left, right, path, (before[-2:], after[:1]))


def _replaced(
    result: Alignment, left: Runs, right: Runs, path: tuple[Name, ...], around: tuple[Runs, Runs]
) -> None:
    """Pair what differs by function name and enter it; what has no partner is a difference."""
    before, after = around
    for same, ours, theirs in match(left, right, key=lambda tree: tree.name):
        if not same:
            result.differences.append(Difference(path, before, ours, theirs, after, result.equal))
            result.equal += _flat_matches(ours, theirs)
            continue
        before = ()
        for mine, other, count in _pairs(ours, theirs):
            start = result.equal
            result.equal += 1
            _children(result, mine, other, (*path, mine.name))
            result.equal += (result.equal - start) * (count - 1)


def _pairs(ours: Runs, theirs: Runs) -> list[tuple[Tree, Tree, int]]:
    """Lay runs of the same total length over each other; equal neighbouring pairs are counted."""
    pairs = []
    rest = list(reversed(theirs))
    for mine, count in ours:
        while count:
            other, others = rest.pop()
            shared = min(count, others)
            pairs.append((mine, other, shared))
            count -= shared
            if others > shared:
                rest.append((other, others - shared))
    return pairs


def _flat_matches(ours: Runs, theirs: Runs) -> int:
    """Count calls of the same functions in the same order, whatever their nesting."""
    blocks = match(_flat(ours), _flat(theirs), key=lambda name: name)
    return sum(len(left) for same, left, _ in blocks if same)


def _flat(side: Runs) -> list[tuple[Name, int]]:
    names = (name for tree, count in side for _ in range(count) for name in tree.walk())
    return [(name, 1) for name in islice(names, _FLAT_LIMIT)]
