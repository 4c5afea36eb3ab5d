"""Judges of words: where something belongs, in which programs a file is, what was measured."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from studykvm.coursework import answers, exits
from studykvm.coursework.answers import BadAnswer
from studykvm.coursework.sources import source
from studykvm.coursework.verdict import Part

_ROUNDS = 20_000
_PROGRAMS = {
    "system": ("system", "qemu", "qemu-kvm", "emulator", "qemu-system-x86_64"),
    "img": ("img", "qemu-img"),
    "io": ("io", "qemu-io"),
    "nbd": ("nbd", "qemu-nbd"),
}
_TOLERANCE = 5.0


def digest(question: str, key: str, word: str) -> str:
    """What a question of definitions keeps of a right word: no evidence has it, and nobody reads it off.

    >>> digest("2.1", "Xen", "classic") == digest("2.1", "Xen", "hosted")
    False
    """
    salt = f"{question} {key}".encode()
    return hashlib.pbkdf2_hmac("sha256", word.encode(), salt, _ROUNDS, 9).hex()


def _given(answer: Any, keys: list[str]) -> tuple[dict[str, Any], list[Part]]:
    """Named values that are asked for, and parts for those that are not or are missing."""
    wanted: dict[str, Any] = {}
    parts = []
    for said, value in answers.values(answer, keys).items():
        meant = answers.meant(said, keys)
        wanted |= dict.fromkeys(meant, value)
        if not meant:
            parts.append(Part(False, f"{said[:40]!r} is not asked for; asked are {', '.join(keys)}"))
    missing = [key for key in keys if key not in wanted]
    if missing:
        parts.append(Part(False, f"nothing is said of {', '.join(missing)}"))
    return wanted, parts


def placed(spec: dict[str, Any], answer: Any) -> list[Part]:
    """Where things belong: definitions, which no recording holds; `think` asks back."""
    words: dict[str, list[str]] = spec["words"]
    wanted, parts = _given(answer, list(spec["places"]))
    told = []
    for key, value in wanted.items():
        found = _named(str(value)[:200], words)
        if len(found) != 1:
            which = "may be several" if found else "is none"
            told.append(Part(False, f"{key}: {str(value)[:40]!r} {which} of {', '.join(words)}"))
        elif digest(spec["name"], key, found[0]) in spec["places"][key]:
            told.append(Part(True, f"{key}: {found[0]}"))
        else:
            told.append(Part(False, f"{key}: not {found[0]}. {spec['think'][key]}"))
    return told + parts


def _named(text: str, words: dict[str, list[str]]) -> list[str]:
    """Which of the words, or of their other forms, a text has; "neither" goes before what it denies."""
    low = " ".join(re.findall(r"\w+", text.lower().replace("_", " ")))
    forms = {
        word: [" ".join(re.findall(r"\w+", form.lower())) for form in (word, *words[word])] for word in words
    }
    found = [word for word in words if any(re.search(rf"\b{form}\b", low) for form in forms[word])]
    return ["neither"] if "neither" in found else found


def programs(spec: dict[str, Any], answer: Any) -> list[Part]:
    """Which programs a source file is linked into, as the index of the real source knows."""
    wanted, parts = _given(answer, spec["files"])
    told = []
    for file, value in wanted.items():
        if isinstance(value, str):
            value = [word for word in re.split(r"[,;+&\s]+", value.strip().lower()) if word != "and"]
        if not isinstance(value, list | tuple | set | frozenset):
            raise BadAnswer(f"{file}: name programs, such as ['system', 'img']")
        said = {str(one).strip().lower() for one in answers.limited(value)}
        said = set(_PROGRAMS) if said & {"all", "every", "everything"} else said - {"none", "nothing"}
        named = {name for name, forms in _PROGRAMS.items() if said & set(forms)}
        strange = said - {form for forms in _PROGRAMS.values() for form in forms}
        if strange:
            told.append(
                Part(False, f"{file}: {sorted(strange)[0][:40]!r} is no program of {', '.join(_PROGRAMS)}")
            )
        told += [_linked(file, name, name in _linked_into(file)) for name in sorted(named)]
        missing = len(_linked_into(file) - named)
        if missing:
            told.append(Part(False, f"{file}: {missing} more program{'s' * (missing > 1)}"))
    return told + parts


def _linked(file: str, program: str, there: bool) -> Part:
    if there:
        return Part(True, f"{file}: {program} has functions of it")
    return Part(False, f"{file}: no function of it is in {program}")


def _linked_into(file: str) -> set[str]:
    index = source().index
    bits = 0
    for function in index.all_functions.values():
        if function.file == file:
            bits |= function.programs
    return set(index.program_names(bits))


def measured(spec: dict[str, Any], answer: Any) -> list[Part]:
    """A cost in microseconds, held against a measurement made now; right within a factor of five.

    By the clock or by the processors' time: either may be meant, and a busy machine tells them apart.
    """
    value = answers.number(answer) if not isinstance(answer, str) else _microseconds(answer)
    if value is None or value != value or value <= 0:
        raise BadAnswer("give microseconds, as a number greater than 0")
    now = exits.costs(spec["accel"])
    if now is None:
        return [
            Part(True, f"{spec['accel']} cannot be used on this machine, so nothing can be held against it")
        ]
    if value > max(now) * _TOLERANCE:
        return [Part(False, f"{value:g} µs are more than five times what a measurement made now gave")]
    if value < min(now) / _TOLERANCE:
        return [Part(False, f"{value:g} µs are less than a fifth of what a measurement made now gave")]
    return [Part(True, f"a measurement made now gave {now[0]:.1f} µs; it varies from run to run")]


def _microseconds(text: str) -> float | None:
    found = re.fullmatch(r"\s*([\d.]+(?:e-?\d+)?)\s*(ns|us|µs|ms)?\s*", text)
    if not found or len(text) > 80:
        return None
    try:
        return float(found[1]) * {"ns": 1e-3, "ms": 1e3}.get(found[2], 1.0)
    except ValueError:
        return None
