"""Call trees in which equal subtrees are one object.

- `Tree`: a function, its calls in order as runs (`subtree`, how often in a row), its size.
- `Forest.make(name, runs)`: the one tree of that content; trees of one forest are equal if and only
  if they are the same object.
- `Forest.grow(name, calls)`: from (depth, function) rows.

A commit of 64 MiB makes 275,000 calls but a few hundred different subtrees: that is what is stored, and
a comparison of two such trees looks only at what differs.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from graphs.calls import Name


@dataclass(frozen=True, eq=False, slots=True)
class Tree:
    """A call and all it called.

    Attributes
    ----------
    name : (str, str)
        (C file, function).
    runs : tuple of (Tree, int)
        What it called, in order; equal neighbours counted.
    size : int
        Calls in the tree, itself included.
    serial : int
        Order of creation in its forest.
    """

    name: Name
    runs: "Runs"
    size: int
    serial: int

    def walk(self) -> Iterator[Name]:
        """Yield every function called, this one first."""
        yield self.name
        for tree, count in self.runs:
            for _ in range(count):
                yield from tree.walk()

    def functions(self) -> set[Name]:
        """Return the distinct functions called, this one's included."""
        found: set[Name] = set()
        seen: set[Tree] = set()
        waiting = [self]
        while waiting:
            tree = waiting.pop()
            found.add(tree.name)
            new = [child for child, _ in tree.runs if child not in seen]
            seen.update(new)
            waiting += new
        return found


Runs = tuple[tuple[Tree, int], ...]


class Forest:
    """The trees of one comparison."""

    def __init__(self) -> None:
        self._trees: dict[tuple[Name, Runs], Tree] = {}

    def __len__(self) -> int:
        return len(self._trees)

    def make(self, name: Name, runs: Iterable[tuple[Tree, int]] = ()) -> Tree:
        """Return the tree of this content; neighbouring runs of the same tree are joined.

        >>> forest = Forest()
        >>> leaf = forest.make(("a.c", "f"))
        >>> forest.make(("a.c", "g"), [(leaf, 1), (leaf, 2)]) is forest.make(("a.c", "g"), [(leaf, 3)])
        True
        """
        joined: list[tuple[Tree, int]] = []
        for tree, count in runs:
            if joined and joined[-1][0] is tree:
                count += joined.pop()[1]
            joined.append((tree, count))
        key = name, tuple(joined)
        found = self._trees.get(key)
        if found is None:
            size = 1 + sum(tree.size * count for tree, count in joined)
            found = self._trees[key] = Tree(name, key[1], size, len(self._trees))
        return found

    def grow(self, name: Name, calls: Iterable[tuple[int, Name]]) -> Tree:
        """Build a tree under a root `name` from rows that begin at depth 0.

        >>> tree = Forest().grow(("", "main"), [(0, ("a.c", "f")), (1, ("a.c", "g")), (1, ("a.c", "g"))])
        >>> tree.size, tree.runs[0][0].runs[0][1]
        (4, 2)
        """
        open_: list[tuple[Name, list[tuple[Tree, int]]]] = [(name, [])]

        def close() -> None:
            name, runs = open_.pop()
            open_[-1][1].append((self.make(name, runs), 1))

        for depth, called in calls:
            while len(open_) > depth + 1:
                close()
            open_.append((called, []))
        while len(open_) > 1:
            close()
        return self.make(*open_[0])
