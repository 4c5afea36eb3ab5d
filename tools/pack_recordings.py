"""Pack a folder of recordings into the archive that ships: `python -m tools.pack_recordings DIR`.

DIR holds NAME.calls.gz, scenarios.json and structures_*.json.gz. The arguments (NAME.args.gz) are left out:
nothing reads them. The archive is written byte for byte the same from the same folder.
"""

import gzip
import json
import sys
from pathlib import Path
from zipfile import ZIP_LZMA, ZIP_STORED, ZipFile, ZipInfo

import graphs
from graphs.calls import CallTable, Name
from graphs.recordings import ARCHIVE, PROGRAMS, _program


def main(argv: list[str]) -> int:
    """Write the archive beside the package's other data; say how big it is."""
    if len(argv) != 1 or not list(Path(argv[0]).glob("*.calls.gz")):
        print("usage: python -m tools.pack_recordings DIR   (DIR holds NAME.calls.gz files)", file=sys.stderr)
        return 2
    folder = Path(argv[0])
    target = Path(graphs.__file__).parent / "data" / "recordings" / ARCHIVE
    target.parent.mkdir(parents=True, exist_ok=True)
    names: list[Name] = []
    programs: dict[str, set[int]] = {program: set() for program in PROGRAMS}
    with ZipFile(target, "w") as archive:
        for path in sorted(folder.glob("*.calls.gz")):
            calls = CallTable.read(path, names)
            programs[_program(calls)] |= set(calls.function)
            _add(archive, path.name.removesuffix(".gz"), calls.pack(), ZIP_STORED)
        for path in sorted(folder.glob("structures_*.json.gz")):
            events = json.loads(gzip.decompress(path.read_bytes()))
            _add(archive, path.name.removesuffix(".gz"), _dense(events), ZIP_LZMA)
        _add(
            archive, "scenarios.json", _dense(json.loads((folder / "scenarios.json").read_bytes())), ZIP_LZMA
        )
        _add(archive, "functions.tsv", "".join(f"{f}\t{n}\n" for f, n in names).encode(), ZIP_LZMA)
        listed = {program: sorted(numbers) for program, numbers in programs.items()}
        _add(archive, "programs.json", _dense(listed), ZIP_LZMA)
    print(f"{target}: {target.stat().st_size:,} bytes")
    return 0


def _dense(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _add(archive: ZipFile, name: str, data: bytes, compression: int) -> None:
    # A fixed date: the same folder gives the same bytes.
    info = ZipInfo(name, (2010, 1, 1, 0, 0, 0))
    info.compress_type = compression
    archive.writestr(info, data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
