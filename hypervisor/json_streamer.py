"""A stream of bytes cut into JSON messages and read: json-streamer.c, with json-lexer.c and json-parser.c.

A message ends where its braces and brackets are closed; a word outside of any is a message, too. Strings may
stand in single quotes. Two limits keep a client from filling memory or the stack: `MAX_SIZE` bytes and
`MAX_DEPTH` levels a message. What is no JSON gives one error, and reading goes on with the next line; in
0.12.4 such a connection is dead from then on.

- `json_message_parser_init(func) -> JSONMessageParser`; `func(parser, text)` gets each message, or None.
- `json_message_parser_feed(parser, buffer, size)`.
- `json_parser_parse(text) -> object`: raises `ValueError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from tracer import Struct, traced

C_FILE = "json-streamer.c"

MAX_SIZE: Final = 1 << 18
MAX_DEPTH: Final = 64
_START, _WORD, _STRING, _ESCAPE, _SKIP = range(5)

Emit = Callable[["JSONMessageParser", "str | None"], None]


class JSONMessageParser(Struct):
    """`JSONMessageParser`: what has come of a message, and where in it we are.

    Parameters
    ----------
    state
        Between tokens, in a number or keyword, in a string, after its backslash, or skipping to a line's end.
    quote
        The string's quote.
    depth
        Braces and brackets that are open.
    """

    emit: Emit | None = None
    depth: int = 0
    state: int = _START
    quote: int = 0
    text: bytearray | None = None


@traced
def json_message_parser_init(func: Emit) -> JSONMessageParser:
    """Begin to read; `func` gets each message, None for what is none."""
    return JSONMessageParser(emit=func, text=bytearray())


def _restart(parser: JSONMessageParser, state: int) -> None:
    parser.depth, parser.state, parser.text = 0, state, bytearray()


def _fail(parser: JSONMessageParser, byte: int) -> None:
    _restart(parser, _START if byte in b"\r\n" else _SKIP)
    assert parser.emit is not None
    parser.emit(parser, None)


def _complete(parser: JSONMessageParser) -> None:
    text = bytes(parser.text or b"")
    _restart(parser, _START)
    assert parser.emit is not None
    try:
        parser.emit(parser, text.decode())
    except UnicodeDecodeError:
        parser.emit(parser, None)


def _is_word(byte: int) -> bool:
    return byte < 128 and chr(byte).isalnum()


def _between(parser: JSONMessageParser, byte: int) -> None:
    """A byte where a token may begin."""
    assert parser.text is not None
    if byte in b" \t\r\n":
        if parser.text:
            parser.text.append(byte)
        return
    parser.text.append(byte)
    if byte in b"\"'":
        parser.state, parser.quote = _STRING, byte
    elif byte in b"{[":
        parser.depth += 1
        if parser.depth > MAX_DEPTH:
            _fail(parser, byte)
    elif byte in b"]}":
        parser.depth -= 1
        if parser.depth < 0:
            _fail(parser, byte)
        elif parser.depth == 0:
            _complete(parser)
    elif byte in b",:":
        if parser.depth == 0:
            _fail(parser, byte)
    elif _is_word(byte) or byte in b"-":
        parser.state = _WORD
    else:
        _fail(parser, byte)


def _take(parser: JSONMessageParser, byte: int) -> None:
    text = parser.text
    assert text is not None
    if parser.state == _SKIP:
        if byte in b"\r\n":
            parser.state = _START
    elif len(text) >= MAX_SIZE:
        _fail(parser, byte)
    elif parser.state == _STRING:
        text.append(byte)
        if byte == 0x5C:
            parser.state = _ESCAPE
        elif byte == parser.quote:
            parser.state = _START
            if parser.depth == 0:
                _complete(parser)
    elif parser.state == _ESCAPE:
        text.append(byte)
        parser.state = _STRING
    elif parser.state == _WORD and (_is_word(byte) or byte in b".+-"):
        text.append(byte)
    else:
        if parser.state == _WORD:
            parser.state = _START
            if parser.depth == 0:
                _complete(parser)
        _between(parser, byte)


@traced
def json_message_parser_feed(parser: JSONMessageParser, buffer: bytes, size: int) -> int:
    """Take bytes; 0."""
    for byte in buffer[:size]:
        _take(parser, byte)
    return 0


_TOKEN = re.compile(
    r"""\s*(?:([{}\[\],:]|-?\d[\d.eE+-]*|true\b|false\b)|"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')\s*""",
    re.DOTALL,
)
_INT64_MAX = (1 << 63) - 1
_REWRITTEN = {"'": "'", "u0000": ""}


def _integer(digits: str) -> int:
    """What strtoll makes of it: the nearest 64-bit number."""
    number = int(digits[:24])
    return max(-_INT64_MAX - 1, min(_INT64_MAX, number))


def _standard(token: re.Match[str]) -> str:
    """A token as RFC 8259 writes it."""
    plain, double, single = token.groups()
    if plain is not None:
        return str(plain)
    body = double if double is not None else re.sub(r'(\\.)|"', lambda m: m[1] or '\\"', single, flags=re.S)
    # C's strings end at a NUL, so one that is written out vanishes.
    return '"' + re.sub(r"\\(u0000|.)", lambda m: _REWRITTEN.get(m[1], m[0]), body, flags=re.S) + '"'


@traced(file="json-parser.c")
def json_parser_parse(text: str) -> Any:
    r"""Read one message: a dict, list, str, int, float or bool.

    Raises
    ------
    ValueError
        It is no JSON, or has `null`, which 0.12.4 does not know.

    Examples
    --------
    >>> json_parser_parse("{'execute': 'query-status', 'n': [1, 2.5, true]}")
    {'execute': 'query-status', 'n': [1, 2.5, True]}
    """
    found, at = [], 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise ValueError(f"no JSON at character {at}")
        found.append(_standard(token))
        at = token.end()
    return json.loads(" ".join(found), strict=False, parse_int=_integer)
