"""What a student gives as an answer, in whatever form, made into plain values; and its limits.

- `functions(answer)`: names of functions, from a list, a chain ``"a -> b"``, or a sentence
- `chain(answer)`: the same for a way of calls, also from pairs that hang together
- `edges(answer)`: pairs, from pairs, a dict, chains or a networkx graph
- `values(answer, keys)`: a number, a dict, or a sentence such as "0 for success and -1 for failure"
- `number(text)`: a number, also ``0x10`` or ``-EIO``

What is not an answer at all raises `BadAnswer`, with a word on what would be one.
"""

from __future__ import annotations

import errno
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from studykvm.coursework.sources import Name, source

MOST = 2_000
"""The most items of an answer; no question wants a tenth of that."""
LONGEST = 20_000
_ARROW = re.compile(r"\s*(?:-+>|=+>|→|›|»|>)\s*")
_FRAME = re.compile(
    r"(?:strict\s+)?digraph[^{]*\{|^\s*(?:graph|flowchart)\s+\w+\s*$|[{}]|\[[^\]]*\]", re.MULTILINE
)
"""What DOT and Mermaid write around calls."""
_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(")
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


def text_of(answer: str) -> str:
    """Give a text, unless it is too long."""
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
    turned = _FILE_AFTER.match(text_of(item))
    if turned:
        return Name(turned[2], turned[1])
    bare = re.sub(r"\s*\(.*\)\s*;?$", "", item.strip().strip("`'\"&*"), flags=re.DOTALL).strip("`'\"&*")
    file, _, name = (part.strip(": ") for part in bare.rpartition(":"))
    prototype = _CALL.search(item) if " " in bare else None
    if prototype:
        return Name("", prototype[1])
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
    return [function(item) for item in items]


def chain(answer: Any) -> list[Name]:
    """Read a way of calls: functions in order, or pairs of which each begins where the last ended.

    >>> [str(name) for name in chain([("a", "b"), ("b", "c")])]
    ['a', 'b', 'c']
    """
    if isinstance(answer, list | tuple) and answer:
        pairs = [pair for pair in answer if isinstance(pair, list | tuple) and len(pair) == 2]
        if len(pairs) == len(answer) and all(a[1] == b[0] for a, b in itertools.pairwise(pairs)):
            return [function(pairs[0][0]), *(function(pair[1]) for pair in pairs)]
    return functions(answer)


def _from_text(text: str) -> list[Name]:
    words = text_of(text).strip()
    pieces = [piece for piece in re.split(r"\s*(?:-+>|=+>|[→›»>,;|\n])\s*", words) if piece]
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
    >>> [(str(a), str(b)) for a, b in edges('digraph g { "a" -> b, c; }')]
    [('a', 'b'), ('a', 'c')]
    """
    found: list[tuple[Name, Name]] = []
    if isinstance(answer, str):
        for line in re.split(r"[;\n]", _FRAME.sub("", text_of(answer))):
            found += _in_line(line.strip())
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


def _in_line(line: str) -> list[tuple[Name, Name]]:
    """The calls in one line: chains with commas between them; what follows a comma alone is called, too."""
    found: list[tuple[Name, Name]] = []
    for part in filter(None, line.split(",")):
        ends = [function(piece) for piece in _ARROW.split(part.strip()) if piece]
        if len(ends) == 1 and found:
            found.append((found[-1][0], ends[0]))
        found += itertools.pairwise(ends)
    return found


def number(value: Any) -> int | float | None:
    """Read a number: also hexadecimal text, and errno's names.

    >>> number("-EIO"), number("0x12"), number("32,768"), number("16 MiB"), number("many")
    (-5, 18, 32768, 16777216.0, None)
    """
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str) or len(value) > 80:
        return None
    text = re.sub(r"\(.*\)|\b(bytes?|sectors?|times|bits?)$", "", value.strip().strip("`'\"").lower()).strip()
    text = text.replace(",", "").replace("_", "")
    sign = -1 if text.startswith("-") else 1
    bare = text.lstrip("+-")
    code = getattr(errno, bare.upper(), None)
    if isinstance(code, int):
        return sign * code
    scaled = re.fullmatch(r"([\d.]+)\s*([kmg])(?:i?b)?", bare)
    try:
        if scaled:
            return sign * float(scaled[1]) * 2.0 ** (10 * " kmg".index(scaled[2]))
        return sign * int(bare, 0)
    except ValueError:
        pass
    try:
        read = float(bare)
    except ValueError:
        return None
    return sign * read if math.isfinite(read) else None


_NAMED = re.compile(r"(?P<key>[^:=]+?)\s*[:=]\s*(?P<value>-?\w[\w., -]*)")
_SAID = (
    re.compile(
        r"(?P<value>-?[\w.]+)\s+(?:for|on|if|when|in case of|after|at)\s+(?:an?\s+|the\s+)?(?P<key>[\w ]+)"
    ),
    re.compile(r"(?P<key>[\w />.'()-]+?)\s*(?:gives|returns|is)\s*(?P<value>-?\w[\w., -]*)"),
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
        said = {}
        for piece in re.split(r",(?!\d{3}\b)|;|\n|\band\b", text_of(answer)):
            patterns = (_NAMED,) if re.search("[:=]", piece) else _SAID
            found = next(filter(None, (pattern.search(piece) for pattern in patterns)), None)
            key = _key_in(found["key"], [*keys, *words]) if found else None
            if found and key:
                said[key] = found["value"].strip()
        if said:
            return said
    elif isinstance(answer, list | tuple) and len(answer) == len(keys):
        return dict(zip(keys, answer, strict=True))
    elif len(keys) == 1:
        return {keys[0]: answer}
    wanted = ", ".join(f"{key!r}: ..." for key in keys)
    raise BadAnswer(f"{_shown(answer)} does not say which value is which: write {{{wanted}}}")


def _key_in(text: str, keys: list[str]) -> str | None:
    low = " ".join(text.lower().split())
    fits = [key for key in keys if key.lower() in low or (len(low) > 3 and low in key.lower())]
    return next(iter(meant(text, keys)), max(fits, key=len) if fits else None)


def fold(key: str) -> str:
    """A key regardless of case, blanks, dashes, and how a pointer is followed.

    >>> fold("bs->Total_sectors") == fold("bs.total-sectors")
    True
    """
    return re.sub(r"[\s_-]+", " ", key.lower().replace("->", ".")).strip()


def meant(said: str, keys: list[str]) -> list[str]:
    """The key that is meant; its first words do, if no other key has them.

    >>> meant("read_only", ["read-only", "no medium"]), meant("drv", ["drv after", "opaque after"])
    (['read-only'], ['drv after'])
    """
    low = fold(said)
    begun = [key for key in keys if fold(key).startswith(f"{low} ")]
    return [key for key in keys if fold(key) == low] or (begun if len(begun) == 1 else [])


def same(given: Any, truth: Any) -> bool:
    """Whether a value that was given is the true one; text regardless of case, None is NULL.

    >>> same("NULL", None), same("0x10", 16), same("Raw", "raw"), same("yes", True), same("1", 2)
    (True, True, True, True, False)
    """
    if truth is None:
        words = ("null", "none", "0", "0x0", "nullptr", "nil", "nothing")
        return (
            given is None or number(given) == 0 or (isinstance(given, str) and given.strip().lower() in words)
        )
    if isinstance(truth, bool) and isinstance(given, str):
        return given.strip().lower() in (("true", "yes", "1", "y") if truth else ("false", "no", "0", "n"))
    if isinstance(truth, str):
        return isinstance(given, str) and given.strip().strip("'\"&").lower() == truth.lower()
    read = number(given)
    return read is not None and read == truth


def _shown(item: Any) -> str:
    text = repr(item) if isinstance(item, str | int | float | bool | None | tuple) else type(item).__name__
    return text if len(text) <= 60 else text[:57] + "..."
