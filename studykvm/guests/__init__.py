"""Guests to boot: boot sectors as bytes, with their nasm source beside them.

- `boot_sector(name)`: the bytes of a guest: "demo", "makedir", "count", "counting" or "medium".
- `write_demo_disk(path, size)`: a raw disk that boots the demo guest.
- `write_counting_disk(path)`: a raw disk that boots the counting guest.
- `write_fat_disk(path, size)`: a raw disk with a FAT16 file system that boots the makedir guest.
- `write_count_disk(path, pages, turns)`: a raw disk that boots the count guest.
- `write_boot_cd(path)`: a CD that boots the medium guest.

The demo guest reads sectors 0 to 3, prints the text in sector 1, writes sector 5 and switches the machine
off. The makedir guest makes the directory IN_GUEST with a file in it, or shows the file if it is there, and
then waits. The count guest counts on the serial line and writes pages of memory as it goes, for ever; the
counting guest sends it the letters of the alphabet. The medium guest says that it runs, and switches off.
"""

import struct
from importlib.resources import files

from studykvm.errors import StudyError

SECTOR = 512
CD_BLOCK = 2048
WRITTEN_SECTOR = 5
WRITTEN_TEXT = b"studykvm wrote  "
GREETING = b"hello from the base image below the overlay"
_BIOS_PARAMETERS = struct.Struct("<8sHBHBHHBHHHIIBBBI11s8s")
"""Bytes 3 to 61 of a FAT16 boot sector (ECMA-107, with the extended boot signature)."""


def boot_sector(name: str = "demo") -> bytes:
    """Return what a guest has in its disk's first sectors."""
    return files(__package__).joinpath(f"{name}.bin").read_bytes()


def write_demo_disk(path: str, size: int = 16 << 20) -> None:
    """Make a raw disk of `size` bytes that boots the demo guest, sparse beyond sector 1."""
    with open(path, "wb") as disk:
        disk.write(boot_sector() + GREETING.ljust(SECTOR, b"\0"))
        disk.truncate(size)


def write_count_disk(path: str, pages: int = 16, turns: int = 20_000, size: int = 16 << 20) -> None:
    """Make a raw disk of `size` bytes that boots the count guest.

    Parameters
    ----------
    pages : int
        Pages of memory written for each number, up to 448.
    turns : int
        Turns of an empty loop after each number: how slowly it counts.

    Raises
    ------
    StudyError
        For a count beyond these limits.
    """
    if not 0 <= pages <= 448 or not 0 <= turns < 1 << 32:
        raise StudyError(f"{pages} pages and {turns} turns: choose 0 to 448 pages, and less than 2**32 turns")
    with open(path, "wb") as disk:
        disk.write(boot_sector("count") + struct.pack("<HI", pages, turns).ljust(SECTOR, b"\0"))
        disk.truncate(size)


def write_counting_disk(path: str) -> None:
    """Make a raw disk of 1 MiB that boots the counting guest."""
    with open(path, "wb") as disk:
        disk.write(boot_sector("counting"))
        disk.truncate(1 << 20)


def write_fat_disk(path: str, size: int = 16 << 20) -> None:
    """Make a raw disk with an empty FAT16 file system that boots the makedir guest.

    Parameters
    ----------
    size : int
        In bytes; 8 to 255 MiB, so that FAT16 has the clusters it wants.

    Raises
    ------
    StudyError
        For any other size.
    """
    if not 8 << 20 <= size < 256 << 20 or size % SECTOR:
        raise StudyError(f"a FAT disk of {size} bytes: choose a multiple of 512 from 8 MiB to 255 MiB")
    sectors, reserved, fats, root_entries = size // SECTOR, 5, 2, 512
    # The fewest sectors a cluster, from 2, that keep within the 65,524 clusters of FAT16.
    per_cluster = next(n for n in (2, 4, 8, 16) if sectors // n < 65_000)
    clusters = (sectors - reserved - root_entries * 32 // SECTOR) // per_cluster
    fat_size = ((clusters + 2) * 2 + SECTOR - 1) // SECTOR
    parameters = _BIOS_PARAMETERS.pack(
        *(b"studykvm", SECTOR, per_cluster, reserved, fats, root_entries, 0, 0xF8, fat_size, 63, 16, 0),
        *(sectors, 0x80, 0, 0x29, 0x2010_0301, b"NO NAME    ", b"FAT16   "),
    )
    code = bytearray(boot_sector("makedir"))
    code[3 : 3 + len(parameters)] = parameters
    with open(path, "wb") as disk:
        disk.write(code)
        for number in range(fats):
            disk.seek((reserved + number * fat_size) * SECTOR)
            disk.write(b"\xf8\xff\xff\xff")
        disk.truncate(size)


def write_boot_cd(path: str) -> None:
    """Make a CD that boots the medium guest, without emulation of a disk (El Torito 1.0).

    Block 17 names the catalog, in block 18; the catalog's second entry names the program, in block 19.
    """
    record = b"\0CD001\1EL TORITO SPECIFICATION".ljust(71, b"\0") + struct.pack("<I", 18)
    # Header 1, the PC's platform 0, and a checksum that makes the words' sum zero.
    first = struct.pack("<BB26xHBB", 1, 0, 0x55AA, 0x55, 0xAA)
    entry = struct.pack("<BBHBBHI", 0x88, 0, 0, 0, 0, CD_BLOCK // SECTOR, 19)
    blocks = {16: b"\1CD001\1", 17: record, 18: first + entry, 19: boot_sector("medium")}
    with open(path, "wb") as disc:
        for number, content in blocks.items():
            disc.seek(number * CD_BLOCK)
            disc.write(content.ljust(CD_BLOCK, b"\0"))
