"""Recordings of the real qemu-kvm 0.12.4 that ship with the project, and others given by path.

- `names()`, `load(name_or_path) -> Recording`: `a01_create_raw`, a prefix that fits one (`a01`), or a
  path to `NAME.calls.gz` (or a folder that holds one), as recordings kept elsewhere come.
- `Recording`: its calls, the program, the scenario (command line, monitor input, output).
- `functions(program)`: every function that any shipped recording of that program shows.
- `structures(name) -> list`: the structure events of `structures_NAME.json.gz`.

All data is one zip archive, `data/recordings/qemu-kvm-0.12.4.zip`, made by `tools/pack_recordings.py`:
`functions.tsv` (C file TAB function, by number), `scenarios.json`, `NAME.calls` (see `CallTable.pack`)
and `structures_NAME.json`.
"""

import json
import shlex
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from graphs.calls import CallTable, Name
from graphs.errors import GraphsError

ARCHIVE = "qemu-kvm-0.12.4.zip"
PROGRAMS = ("qemu-img", "qemu-io", "qemu-system-x86_64")


@dataclass(frozen=True)
class Scenario:
    """How a recording was made, and what the program printed.

    Attributes
    ----------
    command : str
        The command line as noted, program first.
    monitor : tuple of str
        Lines given to the monitor, `sleep N` between them.
    output : str
        What was printed; the last line is `rc=STATUS`.
    """

    command: str
    monitor: tuple[str, ...]
    output: str

    @property
    def argv(self) -> list[str]:
        """The command as arguments, program first.

        The notes leave out the quotes around the commands of qemu-io's `-c` and around `exec:`
        commands; they are put back: a `-c` command goes on up to the next `-c`, or to the file name.

        >>> Scenario("qemu-io -n -c read -P 0 0 512 -c quit", (), "").argv
        ['qemu-io', '-n', '-c', 'read -P 0 0 512', '-c', 'quit']
        >>> Scenario("qemu-io -c read 0 512 -c map a.img", (), "").argv
        ['qemu-io', '-c', 'read 0 512', '-c', 'map', 'a.img']
        >>> Scenario("qemu-system-x86_64 -incoming exec:cat state.bin -nographic", (), "").argv
        ['qemu-system-x86_64', '-incoming', 'exec:cat state.bin', '-nographic']
        """
        if self.command.startswith("qemu-io ") and "'" not in self.command:
            head, *commands = self.command.split(" -c ")
            words = commands[-1].split() if commands else []
            name = [words.pop()] if len(words) > 1 else []
            commands[-1:] = [" ".join(words)]
            return [*head.split(), *(word for c in commands for word in ("-c", c)), *name]
        words = shlex.split(self.command)
        argv = words[:1]
        for word in words[1:]:
            if argv[-1].startswith("exec:") and not word.startswith("-"):
                argv[-1] += f" {word}"
            else:
                argv.append(word)
        return argv


@dataclass(frozen=True)
class Recording:
    """One run of the real program.

    Attributes
    ----------
    name : str
        `a01_create_raw`, ...; its first letter is its kind (see `graphs.compare.scope`).
    program : str
        One of `PROGRAMS`.
    calls : CallTable
        Every recorded call.
    scenario : Scenario or None
        None for a recording outside that comes without its `scenarios.json`.
    """

    name: str
    program: str
    calls: CallTable
    scenario: Scenario | None


def names() -> list[str]:
    """Return the names of the recordings that ship.

    >>> names()[0]
    'a01_create_raw'
    """
    return sorted(Path(member).stem for member in _members() if member.endswith(".calls"))


def load(name: str) -> Recording:
    """Load a recording by name, by a prefix that fits one only, or by path.

    Raises
    ------
    GraphsError
        If there is none, several fit, or the file is not a recording.

    Examples
    --------
    >>> load("a01").scenario.argv
    ['qemu-img', 'create', '-f', 'raw', 'base_raw.img', '64M']
    """
    path = Path(name)
    if name not in names() and path.exists():
        return _load_outside(path)
    fits = [name] if name in names() else [known for known in names() if known.startswith(name)]
    if len(fits) != 1:
        import difflib

        numbered = [known for known in names() if known.partition("_")[0] == name.partition("_")[0]]
        near = fits or numbered or difflib.get_close_matches(name, names(), n=4, cutoff=0.6)
        problem = "fits several recordings" if fits else "is no recording that ships, nor a file"
        hint = f"take one of: {', '.join(near)}" if near else "`studykvm compare --list` names them all"
        raise GraphsError(f"{name!r} {problem}; {hint}")
    calls = CallTable.unpack(_read(f"{fits[0]}.calls"), list(_function_names()))
    return Recording(fits[0], _program(calls), calls, _scenarios().get(fits[0]))


@cache
def functions(program: str) -> frozenset[Name]:
    """Return every function that any shipped recording of `program` shows.

    >>> ("block.c", "bdrv_open2") in functions("qemu-img")
    True
    """
    listed = json.loads(_read("programs.json"))[program]
    numbered = _function_names()
    return frozenset(numbered[number] for number in listed)


def structures(name: str) -> list[dict[str, Any]]:
    """Return the structure events recorded as `structures_NAME.json.gz`.

    Each is a dict with `ev` (`enter`, `exit` or `snapshot`), `fn`, `args` or `ret`, and the structures.
    """
    events: list[dict[str, Any]] = json.loads(_read(f"structures_{name}.json"))
    return events


def structure_names() -> list[str]:
    """Return what `structures` knows.

    >>> structure_names()[0]
    'qemu_io_qcow_on_raw'
    """
    prefix = "structures_"
    return sorted(Path(m).stem.removeprefix(prefix) for m in _members() if m.startswith(prefix))


def parse_scenario(noted: dict[str, str]) -> Scenario:
    """Read one value of `scenarios.json`."""
    command, _, script = noted["command"].partition("\nmonitor script:\n")
    command = command.removeprefix("$ ").removeprefix("(as nobody) ")
    return Scenario(command, tuple(script.splitlines()), noted["output"])


def _load_outside(path: Path) -> Recording:
    if path.is_dir():
        found = sorted(path.glob("*.calls.gz")) + sorted(path.glob("*.calls"))
        if len(found) != 1:
            listed = f"{len(found)} recordings: name one of them" if found else "no NAME.calls.gz"
            raise GraphsError(f"{path}: this folder holds {listed}")
        path = found[0]
    name = path.name.removesuffix(".gz").removesuffix(".calls")
    noted = path.parent / "scenarios.json"
    scenario = None
    if noted.is_file():
        try:
            listed = json.loads(noted.read_text())
            scenario = parse_scenario(listed[name]) if name in listed else None
        except (ValueError, KeyError, TypeError) as error:
            raise GraphsError(f"{noted}: not a list of scenarios ({error}); repair or remove it") from error
    calls = CallTable.read(path)
    return Recording(name, _program(calls), calls, scenario)


def _program(calls: CallTable) -> str:
    """Tell the program by the file of `main`; a recording cut before it counts as the emulator."""
    mains = {"qemu-img.c": "qemu-img", "qemu-io.c": "qemu-io"}
    for file, function in calls.functions():
        if function == "main" and file in mains:
            return mains[file]
    return "qemu-system-x86_64"


@cache
def _archive() -> ZipFile:
    return ZipFile(str(files("graphs") / "data" / "recordings" / ARCHIVE))


def _members() -> list[str]:
    return _archive().namelist()


def _read(member: str) -> bytes:
    try:
        return _archive().read(member)
    except KeyError as error:
        raise GraphsError(f"no {member!r} among the recordings that ship") from error


@cache
def _function_names() -> tuple[Name, ...]:
    rows = (line.split("\t") for line in _read("functions.tsv").decode().splitlines())
    return tuple((file, function) for file, function in rows)


@cache
def _scenarios() -> dict[str, Scenario]:
    return {name: parse_scenario(noted) for name, noted in json.loads(_read("scenarios.json")).items()}
