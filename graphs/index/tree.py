"""The nodes below one declaration, in preorder, as parallel lists: what the visitor leaves behind.

`clang_visitChildren` is called once a declaration; the visitor only takes notes. All questions are asked
afterwards, and only about the nodes that matter.

- `Tree.read(cursor)`: fill the lists from a declaration (the lists are used again for the next one).
- `tree.kind[i]`, `tree.cursor[i]`, `tree.parent[i]`: node 0 is the declaration itself.
- `tree.end[i]`: the first node after the subtree of `i`; `tree.below(i)`, `first(i)`, `last(i)`, `several(i)`
  follow from it.
- `tree.wanted`: the nodes that name something or act: those that need a second look. Beside each, in
  `tree.target`, the address of the declaration that it names, and in `tree.number`, clang's number for where
  it stands: 0 if it was not asked for.
- `children(cursor)`: the cursors directly below one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphs.index import clang, visitor
from graphs.index.clang import Cursor

# What to do with a node: names, literals and references to types have nothing below them that an index wants.
_PLAIN, _LEAF, _NAME, _MEMBER, _ACTION = range(5)
_CLASS = bytearray(1000)
for _kind in (*range(40, 50), 106, 107, 108, 109, 110, *range(400, 500)):
    _CLASS[_kind] = _LEAF
for _kind in (clang.K_DECLREF, clang.K_TYPEREF, clang.K_MEMBERREF):
    _CLASS[_kind] = _NAME
_CLASS[clang.K_MEMBER] = _MEMBER
for _kind in (
    clang.K_CALL, clang.K_BINARY, clang.K_VAR, clang.K_RETURN, clang.K_SWITCH, clang.K_COMPOUND_LITERAL,
    clang.K_STRUCT, clang.K_UNION,
):  # fmt: skip
    _CLASS[_kind] = _ACTION
CLASSES = bytes(_CLASS)


class Tree:
    """A declaration and everything below it."""

    def __init__(self) -> None:
        self.lib = clang.library()
        self.kind: list[int] = []
        self.cursor: Sequence[Cursor] = []
        self.parent: list[int] = []
        self.end: list[int] = []
        self.wanted: list[int] = []
        self.target: list[int] = []
        self.number: list[int] = []

    def read(self, cursor: Cursor) -> None:
        """Forget the nodes of before and take those below `cursor`."""
        compiled = visitor.compiled()
        if compiled is not None:
            columns = compiled.tree(cursor)
            self.kind, self.parent, self.end, self.wanted, self.target, self.number = columns
            self.cursor = compiled.nodes.cursors
            return
        cursors = [cursor]
        self.kind, self.parent, self.wanted, self.cursor = [cursor.kind], [-1], [], cursors
        self.lib.visitChildren(cursor, clang.VISITOR(self._visitor(cursors)), None)
        end = self.end = list(range(1, len(cursors) + 1))
        parents = self.parent
        for i in range(len(cursors) - 1, 0, -1):
            up = parents[i]
            if end[up] < end[i]:
                end[up] = end[i]
        referenced = self.lib.getCursorReferenced
        self.target = [
            (referenced(cursors[i]).d0 or 0) if _CLASS[self.kind[i]] != _ACTION else 0 for i in self.wanted
        ]
        self.number = [0] * len(self.wanted)

    def _visitor(self, cursors: list[Cursor]) -> Callable[..., int]:
        kinds, classes, want = self.kind, _CLASS, self.wanted.append
        add_kind, add_cursor, add_parent = kinds.append, cursors.append, self.parent.append
        where = {cursors[0].d0: 0}

        def visit(cursor: Cursor, parent: Cursor, _data: object) -> int:
            # An expression is known by its Stmt, a declaration by its Decl.
            up = where[parent.d1 if parent.kind >= 100 else parent.d0]
            kind = cursor.kind
            here = len(kinds)
            add_kind(kind)
            add_cursor(cursor)
            add_parent(up)
            what = classes[kind]
            if what:
                if what == _LEAF:
                    return 1
                want(here)
                if what == _NAME:
                    return 1
            where[cursor.d1 if kind >= 100 else cursor.d0] = here
            return 2

        return visit

    def below(self, i: int) -> list[int]:
        """The nodes directly below node `i`."""
        end, out = self.end, []
        stop, i = end[i], i + 1
        while i < stop:
            out.append(i)
            i = end[i]
        return out

    def last(self, i: int) -> int:
        """The last node directly below node `i`, `i` itself if it is a leaf; the first is `i` + 1."""
        end = self.end
        stop, at = end[i], i + 1
        while at < stop:
            i, at = at, end[at]
        return i

    def several(self, i: int) -> bool:
        """Whether there is more than one node directly below node `i`."""
        end = self.end
        return i + 1 < end[i] and end[i + 1] < end[i]


def children(cursor: Cursor) -> list[Cursor]:
    """The cursors directly below `cursor`."""
    compiled = visitor.compiled()
    if compiled is None:
        out: list[Cursor] = []
        clang.children(cursor, out)
        return out
    found, kinds, _ = compiled.list(cursor)
    return [Cursor.from_buffer_copy(found.cursors[i]) for i in range(len(kinds))]


def placed(cursor: Cursor) -> tuple[list[int], list[int], Sequence[Cursor]]:
    """What is directly below `cursor`: kinds, clang's numbers of where it stands (0: not asked), cursors."""
    compiled = visitor.compiled()
    if compiled is None:
        out: list[Cursor] = []
        clang.children(cursor, out)
        return [c.kind for c in out], [0] * len(out), out
    found, kinds, numbers = compiled.list(cursor)
    return kinds, numbers, found.cursors
