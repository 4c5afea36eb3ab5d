"""A macro's expansion, one step at a time, as the preprocessor does it.

- `steps(text, definitions)`: the text after each replacement, with the macro that was replaced.
- `definitions_before(source, path, line, scratch)`: the macros that are defined where a line of a file
  stands.
- `statement(lines, line)`: the text from a line on until its parentheses are closed.

Replacement follows C99 6.10.3: arguments of # and ## as they are written, a macro's own name not again within
what it became. An argument is replaced where it comes to stand, which gives the same in the end as before it
is put
there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ctypes import c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from graphs.index import clang

if TYPE_CHECKING:
    from graphs.index.build import Source

_TOKEN = re.compile(
    r"""\s+ | [A-Za-z_]\w* | \.?\d(?:[eEpP][+-]|[\w.])* | "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*'
    | \.\.\. | \#\# | << | >> | -> | \+\+ | -- | && | \|\| | [<>=!+\-*/%&|^]= | .""",
    re.VERBOSE | re.DOTALL,
)
_DEFINITION = re.compile(r"(\w+)(\([^)]*\))?(.*)", re.DOTALL)
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_MOST = 400


class Token(NamedTuple):
    """A piece of text, and the macros it must not be replaced by."""

    text: str
    hidden: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Macro:
    """A definition; `parameters` is None for a macro without any list."""

    name: str
    parameters: tuple[str, ...] | None
    body: tuple[str, ...]
    place: str = ""

    @property
    def variadic(self) -> str | None:
        """Name of the last parameter if it takes all remaining arguments."""
        if self.parameters and self.parameters[-1].endswith("..."):
            return self.parameters[-1].removesuffix("...").strip() or "__VA_ARGS__"
        return None


def define(text: str, place: str = "") -> Macro | None:
    """A macro from the text behind `#define`.

    >>> define("twice(x) ((x) + (x))").parameters
    ('x',)
    """
    match = _DEFINITION.match(_COMMENT.sub(" ", text.replace("\\\n", " ")).strip())
    if match is None:
        return None
    name, listed, body = match.groups()
    parameters = None
    if listed is not None:
        parameters = tuple(p.strip() for p in listed[1:-1].split(",")) if listed[1:-1].strip() else ()
    return Macro(name, parameters, tuple(_words(body.strip())), place)


def _words(text: str) -> list[str]:
    return [" " if word.isspace() else word for word in _TOKEN.findall(text)]


def steps(text: str, definitions: dict[str, Macro]) -> Iterator[tuple[Macro, str]]:
    """Each replacement, leftmost first: the macro and the whole text after it.

    >>> macros = {m.name: m for m in map(define, ["A(x) B(x, 1)", "B(a, b) a##b"])}
    >>> [(macro.name, text) for macro, text in steps("f(A(n));", macros)]
    [('A', 'f(B(n, 1));'), ('B', 'f(n1);')]
    """
    tokens = [Token(word) for word in _words(_COMMENT.sub(" ", text))]
    for _ in range(_MOST):
        found = _first(tokens, definitions)
        if found is None:
            return
        start, end, macro, arguments = found
        tokens[start:end] = _replaced(macro, arguments, tokens[start].hidden)
        yield macro, re.sub(r"\s+", " ", "".join(token.text for token in tokens)).strip()


def _first(
    tokens: list[Token], definitions: dict[str, Macro]
) -> tuple[int, int, Macro, list[list[Token]]] | None:
    for at, token in enumerate(tokens):
        macro = definitions.get(token.text)
        if macro is None or macro.name in token.hidden:
            continue
        if macro.parameters is None:
            return at, at + 1, macro, []
        after = _arguments(tokens, at + 1)
        if after is not None:
            return at, after[0], macro, after[1]
    return None


def _arguments(tokens: list[Token], at: int) -> tuple[int, list[list[Token]]] | None:
    """Arguments in parentheses at `at`, with the end of the list; None if there is no list."""
    while at < len(tokens) and tokens[at].text == " ":
        at += 1
    if at >= len(tokens) or tokens[at].text != "(":
        return None
    depth = 0
    out: list[list[Token]] = [[]]
    for end in range(at, len(tokens)):
        word = tokens[end].text
        if word == "(":
            depth += 1
            if depth == 1:
                continue
        elif word == ")":
            depth -= 1
            if depth == 0:
                return end + 1, [_stripped(argument) for argument in out]
        elif word == "," and depth == 1:
            out.append([])
            continue
        out[-1].append(tokens[end])
    return None


def _stripped(tokens: list[Token]) -> list[Token]:
    while tokens and tokens[0].text == " ":
        tokens = tokens[1:]
    while tokens and tokens[-1].text == " ":
        tokens = tokens[:-1]
    return tokens


def _bound(macro: Macro, arguments: list[list[Token]]) -> dict[str, list[Token]]:
    parameters = list(macro.parameters or ())
    rest = macro.variadic
    if rest is None:
        return dict(zip(parameters, [*arguments, *([[]] * len(parameters))], strict=False))
    fixed = len(parameters) - 1
    out = dict(zip(parameters[:fixed], [*arguments, *([[]] * fixed)], strict=False))
    remaining: list[Token] = []
    for number, argument in enumerate(arguments[fixed:]):
        remaining += [*([Token(","), Token(" ")] if number else []), *argument]
    out[rest] = remaining
    return out


def _replaced(macro: Macro, arguments: list[list[Token]], hidden: frozenset[str]) -> list[Token]:
    bound = _bound(macro, arguments)
    hide = hidden | {macro.name}
    out: list[Token] = []
    body = list(macro.body)
    at = 0
    paste = False
    while at < len(body):
        word = body[at]
        following = at + 1
        if word == "#" and macro.parameters is not None:
            while following < len(body) and body[following] == " ":
                following += 1
            if following < len(body) and body[following] in bound:
                text = "".join(token.text for token in bound[body[following]])
                out.append(Token('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"', hide))
                at = following + 1
                continue
        if word == "##":
            while out and out[-1].text == " ":
                out.pop()
            paste = True
        elif word == " " and paste:
            pass
        else:
            new = bound[word] if word in bound else [Token(word, hide)]
            if paste:
                out = _pasted(out, new, hide)
                paste = False
            else:
                out += new
        at = following
    return out


def _pasted(left: list[Token], right: list[Token], hide: frozenset[str]) -> list[Token]:
    if left and left[-1].text == "," and not right:
        return left[:-1]  # GNU: a comma before empty variable arguments goes away
    if not left or not right or left[-1].text == ",":
        return [*left, *right]
    return [*left[:-1], Token(left[-1].text + right[0].text, hide), *right[1:]]


def statement(lines: list[str], line: int) -> str:
    """Text from a line on, until parentheses are closed and no backslash goes on."""
    text = ""
    for own in lines[line - 1 : line + 40]:
        text += own.removesuffix("\\") + ("\n" if own.endswith("\\") else "")
        if text.count("(") <= text.count(")") and not own.endswith("\\"):
            break
        text += " "
    return text.strip()


def definitions_before(source: Source, path: str, line: int, scratch: Path) -> dict[str, Macro]:
    """Macros as they are defined where `line` of the file `path` stands.

    Parameters
    ----------
    source : Source
        The tree, with the way its files are read.
    path : str
        A C file of it, or a header; a header is looked at from the first C file that is known.
    """
    from graphs.index.build import Report, prepare
    from graphs.index.parse import Parser

    work = prepare(source, scratch, Report(scratch))
    parser = Parser(source.tree, work.arguments, work.roots)
    own = work.own.get(path)
    tu = parser.parse(str(source.tree / path), own or work.arguments, clang.PARSE_DETAILED_RECORD)
    if not tu:
        return {}
    try:
        cursors: list[clang.Cursor] = []
        clang.children(parser.lib.getTranslationUnitCursor(tu), cursors)
        return _collect(cursors, str(source.tree / path), line, work.roots)
    finally:
        parser.lib.disposeTranslationUnit(tu)
        parser.close()


def _collect(cursors: list[clang.Cursor], full: str, line: int, roots: dict[str, str]) -> dict[str, Macro]:
    lib = clang.library()
    texts: dict[int, tuple[str, bytes]] = {}
    out: dict[str, Macro] = {}
    for cursor in cursors:
        if cursor.kind not in (clang.K_MACRO_DEFINITION, clang.K_MACRO_EXPANSION):
            continue
        extent = lib.getCursorExtent(cursor)
        file, row, _, start = clang.expansion(lib.getRangeStart(extent))
        if not file:
            continue
        if file not in texts:
            name = clang.text(lib.getFileName(c_void_p(file)))
            try:
                texts[file] = (name, Path(name).read_bytes())
            except OSError:
                texts[file] = (name, b"")
        name, data = texts[file]
        if name == full and row >= line:
            break
        if cursor.kind == clang.K_MACRO_DEFINITION:
            end = clang.expansion(lib.getRangeEnd(extent))[3]
            shown = next(
                (prefix + name[len(root) :] for root, prefix in roots.items() if name.startswith(root)), name
            )
            macro = define(data[start:end].decode(errors="replace"), f"{shown}:{row}")
            if macro is not None:
                out[macro.name] = macro
    return out
