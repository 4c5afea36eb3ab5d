"""Guests to boot: boot sectors as bytes, with their nasm source beside them.

- `boot_sector(name)`: the 512 bytes of a guest; "demo" is the only one.
- `write_demo_disk(path, size)`: a raw disk that boots the demo guest.

The demo guest reads sectors 0 to 3, prints the text in sector 1, writes sector 5 and switches the machine
off.
"""

from importlib.resources import files

SECTOR = 512
WRITTEN_SECTOR = 5
WRITTEN_TEXT = b"studykvm wrote  "
GREETING = b"hello from the base image below the overlay"


def boot_sector(name: str = "demo") -> bytes:
    """Return a guest's boot sector."""
    return files(__package__).joinpath(f"{name}.bin").read_bytes()


def write_demo_disk(path: str, size: int = 16 << 20) -> None:
    """Make a raw disk of `size` bytes that boots the demo guest, sparse beyond sector 1."""
    with open(path, "wb") as disk:
        disk.write(boot_sector() + GREETING.ljust(SECTOR, b"\0"))
        disk.truncate(size)
