"""What the user named, as something to index: a tree, a tarball, a compile_commands.json, or plain files.

- `locate(names, flags, scratch)`: the `Source`; tarballs are unpacked below `scratch`.
- `narrowed(source, patterns)`: the same with some of its files.
"""

from __future__ import annotations

import json
import os
import shlex
import tarfile
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from graphs.errors import GraphsError
from graphs.index import profile
from graphs.index.build import Source
from graphs.index.builtin import builtin_headers

_WHOLE = "all"
# Of a compiler's command line, what changes how a file is read; -I and its like take the next word along.
_WITH_WORD = ("-I", "-D", "-U", "-include", "-isystem", "-idirafter", "-iquote")
_ALONE = ("-std=", "-f", "-m", "-ansi", "-pthread")


def locate(names: list[str], flags: list[str] | None, scratch: Path, family: str | None = None) -> Source:
    """The source that `names` mean.

    Parameters
    ----------
    names : list of str
        One tree or tarball, or C files.
    flags : list of str, optional
        Compiler arguments for plain files.
    family : str, optional
        Name of a profile to use instead of the one found.

    Raises
    ------
    GraphsError
        when there is nothing there, or no way to read it.
    """
    if flags is not None or all(Path(name).is_file() and name.endswith((".c", ".h")) for name in names):
        return _plain(names, flags or [])
    if len(names) != 1:
        raise GraphsError(
            "name one tree or tarball, or C files with their flags: studykvm index a.c b.c -- -Iinclude"
        )
    path = Path(names[0])
    if not path.exists():
        raise GraphsError(f"no source at {path}; name a tree, a tarball, or C files")
    tree = (path if path.is_dir() else _unpacked(path, scratch)).resolve()
    if not any(tree.iterdir()):
        raise GraphsError(f"{path} is empty; name a source tree")
    for place in (tree / "compile_commands.json", tree / "build" / "compile_commands.json"):
        if place.is_file() and family is None:
            return _database(tree, place)
    found = profile.load(family) if family else profile.find(tree)
    if found is None:
        raise GraphsError(
            f"{path} is no QEMU tree that a profile knows, and has no compile_commands.json; configure it so "
            "that it has one, or name files: studykvm index FILES -- FLAGS"
        )
    return Source(tree, found.files(tree), {}, found)


def narrowed(source: Source, patterns: list[str]) -> Source:
    """The source with only the files that lie in a folder, or match a glob, among `patterns`.

    Raises
    ------
    GraphsError
        when a pattern finds no file.
    """
    kept: set[str] = set()
    for pattern in patterns:
        inside = pattern.rstrip("/") + "/"
        found = {path for path in source.files if path.startswith(inside) or fnmatchcase(path, pattern)}
        if not found:
            folders = sorted({path.partition("/")[0] for path in source.files if "/" in path})
            raise GraphsError(
                f"no C file to index in {source.tree.name} matches {pattern!r}"
                + (f"; its folders are {', '.join(folders)}" if folders else "")
            )
        kept |= found
    return replace(source, files={path: sets for path, sets in source.files.items() if path in kept})


def _plain(names: list[str], flags: list[str]) -> Source:
    files = []
    for name in names:
        if not Path(name).is_file():
            raise GraphsError(f"no C file {name}")
        files.append(Path(name).resolve())
    tree = Path(os.path.commonpath([file.parent for file in files]))
    here = Path.cwd()
    own = _arguments(flags, here)
    paths = [file.relative_to(tree).as_posix() for file in files]
    return Source(tree, {path: (_WHOLE,) for path in paths}, dict.fromkeys(paths, own))


def _database(tree: Path, path: Path) -> Source:
    try:
        entries = json.loads(path.read_text())
        files: dict[str, tuple[str, ...]] = {}
        arguments: dict[str, list[str]] = {}
        for entry in entries:
            folder = Path(entry["directory"])
            full = (folder / entry["file"]).resolve()
            words = entry.get("arguments") or shlex.split(entry["command"])
            if full.suffix != ".c" or not full.is_relative_to(tree) or not full.is_file():
                continue
            name = full.relative_to(tree).as_posix()
            files.setdefault(name, (_WHOLE,))
            arguments.setdefault(name, _arguments(words[1:], folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GraphsError(f"{path} cannot be read as a compilation database: {error!r}") from None
    if not files:
        raise GraphsError(f"{path} names no C file of {tree}")
    return Source(tree, dict(sorted(files.items())), arguments)


def _arguments(words: list[str], folder: Path) -> list[str]:
    """What libclang needs of a compiler's arguments; folders made absolute."""
    out = ["-xc", "-w", "-ferror-limit=0", "-nobuiltininc", "-isystem", str(builtin_headers())]
    rest = iter(words)
    for word in rest:
        option = next((o for o in _WITH_WORD if word.startswith(o)), None)
        if option is not None:
            value = word[len(option) :] or next(rest, "")
            if option not in ("-D", "-U") and value:
                value = str(folder / value)
            out += [option, value]
        elif word.startswith(_ALONE):
            out.append(word)
    return out


def _extract(archive: tarfile.TarFile, scratch: Path) -> None:
    if hasattr(tarfile, "data_filter"):
        archive.extractall(scratch, filter="data")
        return
    # Python before 3.11.4 (Debian 12) has no filters: files and folders that stay inside, no links
    plain = (member for member in archive.getmembers() if member.isfile() or member.isdir())
    archive.extractall(scratch, [m for m in plain if (scratch / m.name).resolve().is_relative_to(scratch)])


def _unpacked(path: Path, scratch: Path) -> Path:
    try:
        with tarfile.open(path) as archive:
            _extract(archive, scratch.resolve())
    except (OSError, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or "nothing that tar or its compressors know"
        raise GraphsError(
            f"{path} is neither a tree nor a tarball that can be unpacked ({reason}); name a folder, a"
            " tarball, or C files with their flags behind --"
        ) from None
    inside = [entry for entry in scratch.iterdir() if entry.is_dir()]
    return inside[0] if len(inside) == 1 else scratch
