"""A picture of the text screen: what `screendump` of the monitor writes.

A character is 9 x 16 dots, as on a VGA, so 80 x 25 of them make 720 x 400. The model draws them in GNU
Unifont (data/unifont-cp437.hex), where the real one takes the font that the VGA BIOS has loaded. A name that
ends in .png gives a PNG, any other the PPM of 0.12.4.

- `vga_hw_screen_dump(filename)`: raises OSError.
- `picture(cells, columns)`: the dots, three bytes each.
"""

from __future__ import annotations

import struct
import zlib
from functools import cache
from importlib.resources import files
from typing import Final

from tracer import traced

C_FILE = "console.c"

WIDTH: Final = 9
HEIGHT: Final = 16
# Blue, green and red have 0xaa, bright ones 0x55 more; dark yellow is brown, as on a CGA.
_PALETTE = tuple(
    bytes(0xAA * (n >> bit & 1) + 0x55 * (n >> 3) for bit in (2, 1, 0)) if n != 6 else b"\xaa\x55\x00"
    for n in range(16)
)


@cache
def _font() -> tuple[bytes, ...]:
    text = (files("hypervisor") / "data" / "unifont-cp437.hex").read_text(encoding="ascii")
    rows = [line.partition(":")[2] for line in text.splitlines() if not line.startswith("#")]
    return tuple(map(bytes.fromhex, rows))


@cache
def _line(character: int, attribute: int, row: int) -> bytes:
    """One row of a character's dots; box drawing reaches into the ninth column."""
    bits = _font()[character][row] << 1
    if 0xC0 <= character <= 0xDF:
        bits |= bits >> 1 & 1
    front, back = _PALETTE[attribute & 15], _PALETTE[attribute >> 4 & 7]
    return b"".join(front if bits >> dot & 1 else back for dot in range(WIDTH - 1, -1, -1))


def picture(cells: bytes, columns: int = 80) -> bytes:
    r"""Dots of a text screen.

    Parameters
    ----------
    cells
        Two bytes each: the character of code page 437 and its attribute, colours of background and letter.

    Examples
    --------
    >>> len(picture(b"A\x07" * 4, columns=2)) == 2 * 9 * 2 * 16 * 3
    True
    """
    rows = []
    for at in range(0, len(cells), 2 * columns):
        letters = cells[at : at + 2 * columns]
        pairs = list(zip(letters[::2], letters[1::2], strict=True))
        rows += [b"".join(_line(*pair, row) for pair in pairs) for row in range(HEIGHT)]
    return b"".join(rows)


def _ppm(dots: bytes, width: int, height: int) -> bytes:
    return b"P6\n%d %d\n%d\n" % (width, height, 255) + dots


def _png(dots: bytes, width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    step = 3 * width
    lines = b"".join(b"\0" + dots[at : at + step] for at in range(0, step * height, step))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, body) for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    )


@traced
def vga_hw_screen_dump(filename: str) -> None:
    """Write a picture of the text screen; raises OSError."""
    from hypervisor.hw import vga

    cells, columns = vga.text_cells(vga.the_vga)
    make = _png if filename.lower().endswith(".png") else _ppm
    with open(filename, "wb") as file:
        file.write(make(picture(cells, columns), WIDTH * columns, HEIGHT * vga.ROWS))
