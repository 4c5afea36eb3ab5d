"""The text screen of the built-in BIOS: int 10h on 80 x 25 characters at B800:0000.

What the guest stores there itself is seen as well. The cursor is where BIOS programs look for it, at
0040:0050.
"""

from __future__ import annotations

from collections.abc import Callable

COLUMNS, ROWS = 80, 25
_SCREEN = 0xB8000
_CURSOR = 0x450
_MODE = 0x449
_BLANK = b" \x07"


class Screen:
    """The screen in the guest's memory.

    Parameters
    ----------
    memory
        The machine's memory.
    echo
        Also gets every byte that is printed; the serial line of a machine without a window.
    """

    def __init__(self, memory: bytearray | memoryview, echo: Callable[[int], None] | None = None) -> None:
        self._memory = memory
        self._echo = echo

    def clear(self) -> None:
        """Blank everything and put the cursor into the first column of the first row."""
        self._memory[_SCREEN : _SCREEN + 2 * COLUMNS * ROWS] = _BLANK * (COLUMNS * ROWS)
        self.move(0, 0)
        self._memory[_MODE : _MODE + 3] = bytes((3, COLUMNS, 0))
        self._memory[0x484] = ROWS - 1

    def cursor(self) -> tuple[int, int]:
        """Row and column, within the screen whatever the guest stored."""
        return min(self._memory[_CURSOR + 1], ROWS - 1), min(self._memory[_CURSOR], COLUMNS - 1)

    def move(self, row: int, column: int) -> None:
        """Put the cursor somewhere."""
        self._memory[_CURSOR : _CURSOR + 2] = bytes((min(column, COLUMNS - 1), min(row, ROWS - 1)))

    def text(self) -> str:
        """Everything on the screen, without blank ends of rows and rows below the last text."""
        cells = bytes(self._memory[_SCREEN : _SCREEN + 2 * COLUMNS * ROWS : 2]).decode("cp437")
        cells = "".join(letter if letter.isprintable() else " " for letter in cells)
        rows = [cells[at : at + COLUMNS].rstrip() for at in range(0, COLUMNS * ROWS, COLUMNS)]
        return "\n".join(rows).rstrip("\n")

    def put(self, byte: int, attribute: int = 7) -> None:
        """Print a byte and move the cursor, as a teletype does."""
        if self._echo is not None:
            self._echo(byte)
        row, column = self.cursor()
        if byte == 0x08:
            column = max(column - 1, 0)
        elif byte == 0x0A:
            row += 1
        elif byte == 0x0D:
            column = 0
        elif byte != 0x07:
            self.store(row, column, byte, attribute)
            column += 1
            if column == COLUMNS:
                row, column = row + 1, 0
        if row == ROWS:
            self.scroll(1, 0, 0, ROWS - 1, COLUMNS - 1, 7)
            row = ROWS - 1
        self.move(row, column)

    def store(self, row: int, column: int, byte: int, attribute: int | None) -> None:
        """Put a character somewhere; None keeps the colours there."""
        at = _SCREEN + 2 * (row * COLUMNS + column)
        self._memory[at] = byte
        if attribute is not None:
            self._memory[at + 1] = attribute

    def load(self, row: int, column: int) -> tuple[int, int]:
        """Character and colours somewhere."""
        at = _SCREEN + 2 * (row * COLUMNS + column)
        return self._memory[at], self._memory[at + 1]

    def repeat(self, byte: int, attribute: int | None, count: int) -> None:
        """Put a character `count` times from the cursor on, which stays."""
        row, column = self.cursor()
        first = row * COLUMNS + column
        for place in range(first, min(first + count, COLUMNS * ROWS)):
            self.store(*divmod(place, COLUMNS), byte, attribute)
        if self._echo is not None:
            for _ in range(min(count, COLUMNS)):
                self._echo(byte)

    def scroll(self, lines: int, top: int, left: int, bottom: int, right: int, attribute: int) -> None:
        """Move a window up by `lines`, down if negative; 0 blanks it."""
        bottom, right = min(bottom, ROWS - 1), min(right, COLUMNS - 1)
        if top > bottom or left > right:
            return
        width, height = 2 * (right - left + 1), bottom - top + 1
        places = [_SCREEN + 2 * (row * COLUMNS + left) for row in range(top, bottom + 1)]
        old = [bytes(self._memory[at : at + width]) for at in places]
        blank = bytes((0x20, attribute)) * (width // 2)
        shift = lines if lines and abs(lines) < height else height
        for number, at in enumerate(places):
            source = number + shift
            self._memory[at : at + width] = old[source] if 0 <= source < height else blank
