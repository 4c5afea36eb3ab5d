"""Links from drawings to the lines of the real source.

- `Links.of(tree, pattern)`: from what the user names; without either there are no links, only tooltips.
- `links.url(file, line)`: where a click leads, "" for nowhere.

A pattern is an address with `{file}` and `{line}`: `vscode://file/home/me/qemu/{file}:{line}` opens an
editor, `https://host/qemu.git/tree/{file}?h=TAG#n{line}` a web view of git.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from graphs.errors import GraphsError


@dataclass(frozen=True)
class Links:
    """How to reach a line of the source.

    >>> Links("https://example.org/{file}#n{line}").url("hw/ide/core.c", 7)
    'https://example.org/hw/ide/core.c#n7'
    >>> Links().url("vl.c", 1)
    ''
    """

    pattern: str = ""

    def url(self, file: str, line: int) -> str:
        """Return the address of a line."""
        return self.pattern.replace("{file}", quote(file)).replace("{line}", str(line))

    @classmethod
    def of(cls, tree: str | None, pattern: str | None = None) -> Links:
        """Return links into a source tree, or by a pattern, which wins.

        Raises
        ------
        GraphsError
            If the tree is no folder, or the pattern does not say where the file goes.
        """
        if pattern:
            if "{file}" not in pattern:
                raise GraphsError(
                    f"{pattern!r} is no pattern of links; it wants {{file}} and may have {{line}}"
                )
            return cls(pattern)
        if tree:
            if not Path(tree).is_dir():
                raise GraphsError(f"{tree}: no such folder; name the one where the sources lie")
            return cls(Path(tree).absolute().as_uri() + "/{file}#L{line}")
        return cls()
