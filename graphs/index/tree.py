"""The nodes below one declaration, in preorder, as parallel lists: what the visitor leaves behind.

`clang_visitChildren` is called once a declaration; its callback only appends. All questions are asked
afterwards, and only about the nodes that matter.

- `Tree.read(cursor)`: fill the lists from a declaration (the lists are used again for the next one).
- `tree.wanted`: the nodes that name something or act: those that need a second look.
- `tree.kind[i]`, `tree.cursor[i]`, `tree.parent[i]`, `tree.children[i]`: node 0 is the declaration itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphs.index import clang
from graphs.index.clang import Cursor

_NONE: tuple[int, ...] = ()
# What to do with a node: names, literals and references to types have nothing below them that an index wants.
_PLAIN, _LEAF, _NAME, _ACTION = range(4)
_CLASS = [_PLAIN] * 1000
for _kind in (*range(40, 50), 106, 107, 108, 109, 110, *range(400, 500)):
    _CLASS[_kind] = _LEAF
for _kind in (clang.K_DECLREF, clang.K_TYPEREF, clang.K_MEMBERREF):
    _CLASS[_kind] = _NAME
for _kind in (
    clang.K_MEMBER, clang.K_CALL, clang.K_BINARY, clang.K_VAR, clang.K_RETURN, clang.K_SWITCH,
    clang.K_COMPOUND_LITERAL, clang.K_STRUCT, clang.K_UNION,
):  # fmt: skip
    _CLASS[_kind] = _ACTION


class Tree:
    """A declaration and everything below it."""

    def __init__(self) -> None:
        self.lib = clang.library()
        self.kind: list[int] = []
        self.cursor: list[Cursor] = []
        self.parent: list[int] = []
        self.children: list[Any] = []
        self.wanted: list[int] = []
        self._where: dict[int, int] = {}
        self._callback = clang.VISITOR(self._visitor())

    def read(self, cursor: Cursor) -> None:
        """Forget the nodes of before and take those below `cursor`."""
        for column in (self.kind, self.cursor, self.parent, self.children, self.wanted):
            column.clear()
        self._where.clear()
        self.kind.append(cursor.kind)
        self.cursor.append(cursor)
        self.parent.append(-1)
        self.children.append(_NONE)
        self._where[cursor.d0] = 0
        self.lib.visitChildren(cursor, self._callback, None)

    def _visitor(self) -> Callable[..., int]:
        kinds, cursors, parents, children, where = (
            self.kind,
            self.cursor,
            self.parent,
            self.children,
            self._where,
        )
        classes, want = _CLASS, self.wanted.append
        add_kind, add_cursor, add_parent, add_children = (
            kinds.append,
            cursors.append,
            parents.append,
            children.append,
        )

        def visit(cursor: Cursor, parent: Cursor, _data: object) -> int:
            # An expression is known by its Stmt, a declaration by its Decl.
            up = where[parent.d1 if parent.kind >= 100 else parent.d0]
            kind = cursor.kind
            here = len(kinds)
            add_kind(kind)
            add_cursor(cursor)
            add_parent(up)
            add_children(_NONE)
            below = children[up]
            if below:
                below.append(here)
            else:
                children[up] = [here]
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
