"""What a student gives as an answer, in whatever form, made into plain values; and its limits.

- `functions(answer)`: names of functions, from a list, a chain ``"a -> b"``, or a sentence
- `edges(answer)`: pairs, from pairs, a dict, chains or a networkx graph
- `values(answer, keys)`: a number, a dict, or a sentence such as "0 for success and -1 for failure"
- `number(text)`: a number, also ``0x10`` or ``-EIO``

What is not an answer at all raises `BadAnswer`, with a word on what would be one.
"""

from __future__ import annotations

import errno
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from studykvm.coursework.sources import Name, source

MOST = 2_000
"""The most items of an answer; no question wants a tenth of that."""
LONGEST = 20_000
_ARROW = re.compile(r"\s*(?:-+>|=+>|→|›|»|>)\s*")
_WORD = re.compile(r"(?:[\w./-]+\.[ch]:)?[A-Za-z_]\w*")
_FILE_AFTER = re.compile(r"^\s*([A-Za-z_]\w*)\s*(?:\(\s*\))?\s*(?:@|\(|in )\s*([\w./-]+\.[ch])\s*\)?\s*$")


class BadAnswer(Exception):
    """What was given cannot be an answer to this kind of question."""


def limited(answer: Any) -> list[Any]:
    """Take the items of an answer, which may be endless.

    Raises
    ------
    BadAnswer
        When there are more than `MOST`.

    Examples
    --------
    >>> limited(x for x in "ab")
    ['a', 'b']
    """
    if isinstance(answer, Mapping):
        answer = answer.items()
    items = list(itertools.islice(iter(answer), MOST + 1))
    if len(items) > MOST:
        counted = f"{len(answer):,}" if hasattr(answer, "__len__") else f"more than {MOST:,}"
        raise BadAnswer(f"{counted} items are no answer: name those that the question asks for")
    return items


def _text(answer: str) -> str:
    if len(answer) > LONGEST:
        raise BadAnswer(f"a text of {len(answer):,} letters is no answer: a few lines will do")
    return answer


def function(item: Any) -> Name:
    """Read one function: ``name``, ``name()``, ``file:name``, ``name (file)`` or (file, name).

    Raises
    ------
    BadAnswer
        For anything else.

    Examples
    --------
    >>> function("block/qcow.c:qcow_open()"), function(("block.c", "bdrv_open"))
    (Name(file='block/qcow.c', name='qcow_open'), Name(file='block.c', name='bdrv_open'))
    """
    if isinstance(item, tuple) and len(item) == 2 and all(isinstance(part, str) for part in item):
        return Name(item[0].strip(), item[1].strip())
    if callable(item) and hasattr(item, "__name__"):
        return Name("", item.__name__)
    if hasattr(item, "function") and hasattr(item, "file"):
        return Name(str(item.file), str(item.function))
    if not isinstance(item, str):
        raise BadAnswer(f"{_shown(item)} is no function: write its name as text, 'name' or 'file:name'")
    turned = _FILE_AFTER.match(_text(item))
    if turned:
        return Name(turned[2], turned[1])
    plain = re.sub(r"\s*\(.*\)\s*;?$", "", item.strip().strip("`'\"&"), flags=re.DOTALL)
    file, _, name = plain.rpartition(":")
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise BadAnswer(f"{_shown(item)} is no function: write 'name' or 'file:name'")
    return Name(file.strip(), name)


def functions(answer: Any) -> list[Name]:
    """Read functions in order: a list of them, a chain, lines, or the functions that a sentence names.

    >>> [str(name) for name in functions("main -> drive_add()")]
    ['main', 'drive_add']
    >>> [str(name) for name in functions("I think that bdrv_new() does it.")]
    ['bdrv_new']
    """
    if isinstance(answer, str):
        return _from_text(answer)
    if isinstance(answer, tuple) and len(answer) == 2 and str(answer[0]).endswith((".c", ".h")):
        return [function(answer)]
    if not isinstance(answer, Iterable):
        return [function(answer)]
    items = limited(answer)
    if isinstance(answer, Mapping):
        items = [key for key, _ in items]
    if isinstance(answer, set | frozenset):
        items = sorted(items, key=str)
    return [function(item) for item in items]


def _from_text(text: str) -> list[Name]:
    words = _text(text).strip()
    pieces = [piece for piece in re.split(r"\s*(?:-+>|=+>|→|[,;\n])\s*", words) if piece]
    try:
        return [function(piece) for piece in pieces]
    except BadAnswer:
        pass
    known = source().known
    named = [function(word) for word in _WORD.findall(words) if known(word)]
    if not named:
        raise BadAnswer("no function of qemu-kvm 0.12.4 is named in this answer")
    return named


def edges(answer: Any) -> list[tuple[Name, Name]]:
    """Read calls: pairs (caller, callee), a dict caller -> callees, chains in text, or a networkx graph.

    Raises
    ------
    BadAnswer
        For anything else, and for more than `MOST`.

    Examples
    --------
    >>> [(str(a), str(b)) for a, b in edges("a -> b -> c")]
    [('a', 'b'), ('b', 'c')]
    >>> [(str(a), str(b)) for a, b in edges({"a": ["b", "c"]})]
    [('a', 'b'), ('a', 'c')]
    """
    found: list[tuple[Name, Name]] = []
    if isinstance(answer, str):
        for line in re.split(r"[;\n]", _text(answer)):
            chain = [function(piece) for piece in _ARROW.split(line.strip()) if piece]
            found += itertools.pairwise(chain)
    elif hasattr(answer, "edges") and hasattr(answer, "nodes"):
        found = [(function(a), function(b)) for a, b, *_ in limited(iter(answer.edges()))]
    elif isinstance(answer, Mapping):
        for caller, callees in limited(answer):
            found += [(function(caller), callee) for callee in functions(callees)]
    elif isinstance(answer, Iterable):
        for pair in limited(answer):
            if isinstance(pair, str):
                found += edges(pair)
            elif isinstance(pair, tuple | list) and len(pair) >= 2:
                found += itertools.pairwise([function(one) for one in limited(pair)])
            else:
                raise BadAnswer(f"{_shown(pair)} is no call: write ('caller', 'callee')")
    if not found:
        raise BadAnswer("no calls: write them as [('caller', 'callee'), ...] or 'caller -> callee' in lines")
    if len(found) > MOST:
        raise BadAnswer(f"{len(found):,} calls are no answer: draw what the question asks for")
    return found


def number(value: Any) -> int | float | None:
    """Read a number: also hexadecimal text, and errno's names.

    >>> number("-EIO"), number("0x12"), number("32,768"), number("many")
    (-5, 18, 32768, None)
    """
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str) or len(value) > 80:
        return None
    text = value.strip().lower().replace(",", "").replace("_", "")
    sign = -1 if text.startswith("-") else 1
    bare = text.lstrip("+-")
    code = getattr(errno, bare.upper(), None)
    if isinstance(code, int):
        return sign * code
    try:
        return sign * int(bare, 0)
    except ValueError:
        return None


_SAID = (
    re.compile(
        r"(?P<value>-?[\w.]+)\s+(?:for|on|if|when|in case of|after|at)\s+(?:an?\s+|the\s+)?(?P<key>[\w ]+)"
    ),
    re.compile(r"(?P<key>[\w >.'-]+?)\s*(?:[:=]|gives|returns|is)\s*(?P<value>-?\w+)"),
)


def values(answer: Any, keys: list[str], words: Iterable[str] = ()) -> dict[str, Any]:
    """Read named values; a bare one is meant for the only key. `words` may stand for keys in a sentence.

    Raises
    ------
    BadAnswer
        When the answer does not say which value is which.

    Examples
    --------
    >>> values("qcow_open returns 0 for success and -1 for failure", ["success", "missing"], ["failure"])
    {'success': '0', 'failure': '-1'}
    >>> values(12, ["times"])
    {'times': 12}
    """
    if isinstance(answer, Mapping):
        return {str(key): value for key, value in limited(answer)}
    if isinstance(answer, str):
        if len(keys) == 1:
            return {keys[0]: number(answer.rpartition(":")[2]) if ":" in answer else answer}
        for pattern in _SAID:
            said = {}
            for piece in re.split(r",|;|\n|\band\b", _text(answer)):
                found = pattern.search(piece)
                key = _key_in(found["key"], [*keys, *words]) if found else None
                if found and key:
                    said[key] = found["value"].strip()
            if said:
                return said
    elif len(keys) == 1:
        return {keys[0]: answer}
    elif isinstance(answer, list | tuple) and len(answer) == len(keys):
        return dict(zip(keys, answer, strict=True))
    wanted = ", ".join(f"{key!r}: ..." for key in keys)
    raise BadAnswer(f"{_shown(answer)} does not say which value is which: write {{{wanted}}}")


def _key_in(text: str, keys: list[str]) -> str | None:
    low = " ".join(text.lower().split())
    fits = [key for key in keys if key.lower() in low or (len(low) > 3 and low in key.lower())]
    return max(fits, key=len) if fits else None


def same(given: Any, truth: Any) -> bool:
    """Whether a value that was given is the true one; text regardless of case, None is NULL.

    >>> same("NULL", None), same("0x10", 16), same("Raw", "raw"), same(True, 1), same("1", 2)
    (True, True, True, True, False)
    """
    if truth is None:
        return given is None or (isinstance(given, str) and given.strip().lower() in ("null", "none", "0"))
    if isinstance(truth, str):
        return isinstance(given, str) and given.strip().strip("'\"&").lower() == truth.lower()
    read = number(given)
    return read is not None and read == truth


def _shown(item: Any) -> str:
    text = repr(item) if isinstance(item, str | int | float | bool | None | tuple) else type(item).__name__
    return text if len(text) <= 60 else text[:57] + "..."
