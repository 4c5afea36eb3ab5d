"""What a comparison looks at: read from `data/scope.toml`, where each rule has its reason.

- `scope_of(recording) -> Scope`: by the kind of the recording, the first letter of its name.
- `known_differences()`: scenarios that cannot be equal, and why.
- `timing_rules()`: what depends on how fast threads are, and why.
"""

import tomllib
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

from graphs.calls import Name
from graphs.recordings import Recording


@dataclass(frozen=True)
class Scope:
    """The functions to compare, and how far.

    Attributes
    ----------
    take, leave : tuple of str
        Patterns over `C file:function`; `leave` wins.
    until : str
        The comparison ends where the main thread first enters this function; empty for the whole run.
    reason : str
        Why so.
    absent : tuple of str
        Patterns of functions inside which, where the model lacks them, calls are left out.
    present : tuple of str
        Patterns of functions to which `absent` does not apply.
    lost : tuple of str
        Patterns of functions that are left out there, with all that they call.
    """

    take: tuple[str, ...]
    leave: tuple[str, ...]
    until: str
    reason: str
    absent: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    def covers(self, name: Name) -> bool:
        """Tell whether a function is compared.

        >>> Scope(("block/qcow*.c:*",), (), "", "").covers(("block/qcow2-cluster.c", "get_cluster_offset"))
        True
        """
        text = ":".join(name)
        return _fits(text, self.take) and not _fits(text, self.leave)

    def may_lack(self, name: Name) -> bool:
        """Tell whether, if the model lacks a function, some of its calls are left out.

        >>> scope = Scope((), (), "", "", absent=("hw/*",), present=("hw/ide/*",))
        >>> scope.may_lack(("hw/hpet.c", "hpet_init")), scope.may_lack(("hw/ide/core.c", "ide_init"))
        (True, False)
        """
        text = ":".join(name)
        return _fits(text, self.absent) and not _fits(text, self.present)

    def loses(self, name: Name) -> bool:
        """Tell whether a function is left out inside one that the model lacks."""
        return _fits(":".join(name), self.lost)


@dataclass(frozen=True)
class KnownDifference:
    """A scenario that the model cannot repeat call for call.

    Attributes
    ----------
    reason : str
        Why not.
    until : str
        Both are equal up to the first call of this function; empty if they go on being equal.
    leave : tuple of str
        Patterns of functions without which both are equal.
    """

    reason: str
    until: str
    leave: tuple[str, ...]


def scope_of(recording: Recording) -> Scope:
    """Return the scope for a recording; a name of no known kind counts by its program."""
    kinds = {kind: row for row in _data()["scope"] for kind in row["kinds"]}
    fallback = "d" if recording.program.startswith("qemu-system") else "b"
    row = kinds.get(recording.name[:1], kinds[fallback])
    return Scope(
        tuple(row["take"]),
        tuple(row["leave"]),
        row.get("until", ""),
        row["reason"],
        tuple(row.get("absent", ())),
        tuple(row.get("present", ())),
        tuple(row.get("lost", ())),
    )


def part_scope(recording: Recording) -> Scope:
    """Return the scope for a part of a recording: that of the whole, without its end."""
    return replace(scope_of(recording), until="", reason=_data()["parts"]["reason"])


def stream_rows() -> list[dict[str, Any]]:
    """Return the parts that write or read saved state, as `data/scope.toml` says them."""
    return list(_data()["stream"])


def stream_note() -> str:
    """Return what may make saved state differ."""
    return str(_data()["streams"]["note"])


def part_rows() -> list[dict[str, Any]]:
    """Return the parts of a run worth comparing, as `data/scope.toml` says them."""
    return list(_data()["part"])


def handlers() -> dict[Name, str]:
    """Return the signal handlers that are left out with all they call, each with the reason."""
    return {_name(row["name"]): row["reason"] for row in _data()["handler"]}


def reaches() -> dict[Name, frozenset[str]]:
    """Return for each signal handler the functions that, beside it, are calls of its own."""
    return {_name(row["name"]): frozenset(row.get("reaches", ())) for row in _data()["handler"]}


def outside() -> tuple[frozenset[Name], frozenset[Name]]:
    """Return functions that are called by ways which recordings leave out, and what they may be inside."""
    row = _data()["outside"]
    return frozenset(map(_name, row["acts"])), frozenset(map(_name, row["within"]))


def lacking() -> dict[tuple[Name, Name], str]:
    """Return the calls, as (caller, called), that are left out with all inside, each with the reason."""
    return {(_name(row["caller"]), _name(row["calls"])): row["reason"] for row in _data()["lacks"]}


def timing_rules() -> dict[str, str]:
    """Return the timing rules, each with the reason.

    >>> list(timing_rules())
    ['workers', 'spawn', 'polls', 'order', 'alarm']
    """
    return {row["rule"]: row["reason"] for row in _data()["timing"]}


def known_differences() -> dict[str, KnownDifference]:
    """Return the scenarios that cannot be equal, by name."""
    return {
        row["scenario"]: KnownDifference(row["reason"], row.get("until", ""), tuple(row.get("leave", ())))
        for row in _data().get("differs", [])
    }


def _name(text: str) -> Name:
    file, _, function = text.partition(":")
    return file, function


def _fits(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads((files("graphs") / "data" / "scope.toml").read_text(encoding="utf-8"))
