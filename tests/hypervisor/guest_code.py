"""Small guests in machine code, for the tests: each piece is the bytes of the assembly beside it."""

import os
from pathlib import Path

ORIGIN = 0x7C00
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
"""For programs started in another folder."""
_STRING = 496


def put(letter):
    """Print a letter: mov al, letter; mov ah, 0eh; mov bx, 7; int 10h."""
    return bytes((0xB0, ord(letter), 0xB4, 0x0E, 0xBB, 7, 0, 0xCD, 0x10))


def put_result():
    """Print K or E by the carry flag, then AH as two letters from A on.

    mov cx, ax; mov al, 'K'; jnc +2; mov al, 'E'; mov ah, 0eh; mov bx, 7; int 10h;
    mov al, ch; shr al, 4; add al, 'A'; int 10h; mov al, ch; and al, 15; add al, 'A'; int 10h
    """
    tele = bytes((0xB4, 0x0E, 0xBB, 7, 0, 0xCD, 0x10))
    return (
        bytes((0x89, 0xC1, 0xB0, 0x4B, 0x73, 0x02, 0xB0, 0x45))
        + tele
        + bytes((0x88, 0xE8, 0xC0, 0xE8, 0x04, 0x04, 0x41))
        + tele
        + bytes((0x88, 0xE8, 0x24, 0x0F, 0x04, 0x41))
        + tele
    )


def put_bytes(address, count):
    """Print `count` bytes at `address`: mov si; mov cx; lodsb; mov ah, 0eh; mov bx, 7; int 10h; loop."""
    return (
        b"\xfc\xbe"
        + address.to_bytes(2, "little")
        + b"\xb9"
        + count.to_bytes(2, "little")
        + bytes((0xAC, 0xB4, 0x0E, 0xBB, 7, 0, 0xCD, 0x10, 0xE2, 0xF6))
    )


def chs(function, count, cylinder, head, sector, buffer, drive=None):
    """Call int 13h: mov ax; mov bx; mov cx; mov dh, head; [mov dl, drive]; int 13h."""
    cx = (cylinder & 0xFF) << 8 | (cylinder >> 2 & 0xC0) | sector
    words = [(0xB8, function << 8 | count), (0xBB, buffer), (0xB9, cx)]
    code = b"".join(bytes((op,)) + word.to_bytes(2, "little") for op, word in words) + bytes((0xB6, head))
    return code + (b"" if drive is None else bytes((0xB2, drive))) + b"\xcd\x13"


def lba(function, count, block, buffer, drive=0x80, at=0x600):
    """Call int 13h by block number; the packet is stored at `at` word by word."""
    words = [16, count, buffer & 0xF, buffer >> 4, *(block >> 16 * i & 0xFFFF for i in range(4))]
    code = b""
    for i, word in enumerate(words):
        # mov word [at + 2 i], word
        code += b"\xc7\x06" + (at + 2 * i).to_bytes(2, "little") + word.to_bytes(2, "little")
    # mov si, at; mov ah, function; mov dl, drive; int 13h
    return code + b"\xbe" + at.to_bytes(2, "little") + bytes((0xB4, function, 0xB2, drive, 0xCD, 0x13))


OFF = b"\xfc\xbe" + (ORIGIN + _STRING).to_bytes(2, "little") + bytes.fromhex("ba0089b90800f36ef4ebfd")
"""cld; mov si, string; mov dx, 8900h; mov cx, 8; rep outsb; hlt; jmp $-1: switch the machine off."""
APM_OFF = bytes.fromhex("b80753bb0100b90300cd15f4ebfd")
"""mov ax, 5307h; mov bx, 1; mov cx, 3; int 15h; hlt; jmp $-1: the same by the BIOS."""


def boot_sector(code):
    """A boot sector that runs `code`."""
    assert len(code) <= _STRING
    return code.ljust(_STRING, b"\0") + b"Shutdown".ljust(14, b"\0") + b"\x55\xaa"


def write_disk(path, code, size=1 << 20, rest=b""):
    """A raw disk that runs `code`; `rest` begins in sector 1."""
    with open(path, "wb") as disk:
        disk.write(boot_sector(code) + rest)
        disk.truncate(size)
    return str(path)
