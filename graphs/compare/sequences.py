"""The longest common order of two sequences that are given as runs (value, how often in a row).

- `match(ours, theirs, key)`: cuts both into alternating blocks, equal and not.

Sequences that are nearly equal, the usual case, are solved exactly by Myers' greedy algorithm, whose
cost grows with the number of differences and not with the length: each value becomes one character, so
stretches of equal values are compared as strings. With more than `_EXACT` differences `difflib` matches whole
runs instead, which finds the large common blocks and stays fast.
"""

from collections.abc import Callable, Hashable, Sequence
from difflib import SequenceMatcher
from typing import Generic, TypeVar

_EXACT = 400
T = TypeVar("T")
Run = tuple[T, int]
Block = tuple[bool, tuple[Run[T], ...], tuple[Run[T], ...]]
_Span = tuple[int, int, int]


def match(ours: Sequence[Run[T]], theirs: Sequence[Run[T]], key: Callable[[T], Hashable]) -> list[Block[T]]:
    """Cut both sequences into blocks.

    Parameters
    ----------
    ours, theirs : sequence of (value, int)
        Two sequences of runs.
    key : callable
        Values with the same key count as equal.

    Returns
    -------
    list of (bool, tuple, tuple)
        Whether the two parts are equal, the part of `ours`, the part of `theirs`. Equal parts have the same
        length; runs are split where needed.

    Examples
    --------
    >>> match([("a", 5), ("b", 1), ("a", 3)], [("a", 9)], key=str)
    [(True, (('a', 5),), (('a', 5),)), (False, (('b', 1),), (('a', 1),)), (True, (('a', 3),), (('a', 3),))]
    """
    codes: dict[Hashable, str] = {}
    texts = []
    for runs in (ours, theirs):
        parts = [codes.setdefault(key(value), chr(len(codes))) * count for value, count in runs]
        texts.append("".join(parts))
    left, right = texts
    head = _common(left, 0, right, 0)
    tail = _common(left[head:][::-1], 0, right[head:][::-1], 0)
    middle = left[head : len(left) - tail], right[head : len(right) - tail]
    spans = [(i + head, j + head, n) for i, j, n in _myers(*middle) or _large_blocks(*middle)]
    cut_ours, cut_theirs = _Cutter(ours), _Cutter(theirs)
    blocks: list[Block[T]] = []
    at = 0, 0
    for i, j, length in [(0, 0, head), *spans, (len(left) - tail, len(right) - tail, tail)]:
        if at != (i, j):
            blocks.append((False, cut_ours.take(i - at[0]), cut_theirs.take(j - at[1])))
        if length:
            blocks.append((True, cut_ours.take(length), cut_theirs.take(length)))
        at = i + length, j + length
    return blocks


def _common(ours: str, i: int, theirs: str, j: int) -> int:
    """Return how many characters from `i` and `j` on are equal, comparing stretches as wholes.

    >>> _common("xxabcabd", 2, "abcabc", 0)
    5
    """
    limit = min(len(ours) - i, len(theirs) - j)
    length, step = 0, 1
    while length < limit:
        step = min(step, limit - length)
        if ours[i + length : i + length + step] == theirs[j + length : j + length + step]:
            length += step
            step *= 2
        elif step == 1:
            break
        else:
            step //= 2
    return length


def _myers(ours: str, theirs: str) -> list[_Span] | None:
    """Return the equal stretches (start, start, length) of a shortest edit, or None beyond `_EXACT` edits."""
    reach = {1: 0}
    history: list[dict[int, int]] = []
    for edits in range(_EXACT):
        history.append(dict(reach))
        for diagonal in range(-edits, edits + 1, 2):
            i, _ = _step(reach, edits, diagonal)
            i += _common(ours, i, theirs, i - diagonal)
            reach[diagonal] = i
            if i >= len(ours) and i - diagonal >= len(theirs):
                return _walk_back(history, len(ours), len(theirs))
    return None


def _step(reach: dict[int, int], edits: int, diagonal: int) -> tuple[int, int]:
    """Return where the best path enters a diagonal, and the diagonal that it comes from."""
    left, right = reach.get(diagonal - 1, -1), reach.get(diagonal + 1, -1)
    if diagonal == -edits or (diagonal != edits and left < right):
        return right, diagonal + 1
    return left + 1, diagonal - 1


def _walk_back(history: list[dict[int, int]], i: int, j: int) -> list[_Span]:
    spans: list[_Span] = []
    for edits in range(len(history) - 1, -1, -1):
        diagonal = i - j
        start, before = _step(history[edits], edits, diagonal)
        if i > start:
            spans.append((start, start - diagonal, i - start))
        i = history[edits][before]
        j = i - before
    return spans[::-1]


def _large_blocks(ours: str, theirs: str) -> list[_Span]:
    """Match whole runs of the same character, the counts of which may differ."""
    folded = [_fold(text) for text in (ours, theirs)]
    matcher = SequenceMatcher(None, [c for c, _, _ in folded[0]], [c for c, _, _ in folded[1]])
    spans = []
    for a, b, size in matcher.get_matching_blocks():
        for (_, i, n), (_, j, m) in zip(folded[0][a : a + size], folded[1][b : b + size], strict=True):
            spans.append((i, j, min(n, m)))
    return spans


def _fold(text: str) -> list[tuple[str, int, int]]:
    """Return (character, start, length) of each run."""
    runs: list[tuple[str, int, int]] = []
    at = 0
    while at < len(text):
        length = _common(text, at + 1, text, at) + 1
        runs.append((text[at], at, length))
        at += length
    return runs


class _Cutter(Generic[T]):
    """Takes runs off the front of a sequence."""

    def __init__(self, runs: Sequence[Run[T]]) -> None:
        self._rest = list(reversed(runs))

    def take(self, length: int) -> tuple[Run[T], ...]:
        taken = []
        while length:
            value, count = self._rest.pop()
            if count > length:
                self._rest.append((value, count - length))
                count = length
            taken.append((value, count))
            length -= count
        return tuple(taken)
