"""The questions, as data: one TOML file an exercise in ``exercises/``.

- `exercises() -> list[Exercise]`, `exercise(number)`, `question(name)`

A file has `number`, `title`, `asked` (the question as the course asked it), `notebook` (its name), and
``[[question]]`` tables: `id`, `kind` (one of `judge.KINDS`), `text`, `form` (what an answer looks like),
`hints` (in steps) and what the kind's judge wants to derive the truth from. The truth itself is nowhere.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from studykvm.errors import StudyError


@dataclass(frozen=True)
class Question:
    """One question; `spec` is what its judge wants."""

    id: str
    kind: str
    text: str
    form: str
    hints: tuple[str, ...]
    spec: dict[str, Any]


@dataclass(frozen=True)
class Exercise:
    """One exercise of the course."""

    number: int
    title: str
    asked: str
    notebook: str
    questions: tuple[Question, ...]


def _exercise(text: str) -> Exercise:
    table = tomllib.loads(text)
    own = {"id", "kind", "text", "form", "hints"}
    questions = tuple(
        Question(
            one["id"], one["kind"], one["text"], one["form"], tuple(one["hints"]),
            {key: value for key, value in one.items() if key not in own},
        )
        for one in table["question"]
    )  # fmt: skip
    return Exercise(table["number"], table["title"], table["asked"].strip(), table["notebook"], questions)


@cache
def exercises() -> list[Exercise]:
    """All exercises, in order."""
    folder = files("studykvm.coursework") / "exercises"
    texts = [entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.endswith(".toml")]
    return sorted(map(_exercise, texts), key=lambda one: one.number)


def exercise(number: int | str) -> Exercise:
    """One exercise.

    Raises
    ------
    StudyError
        when there is none of that number.
    """
    for one in exercises():
        if str(one.number) == str(number).strip():
            return one
    there = ", ".join(str(one.number) for one in exercises())
    raise StudyError(f"there is no exercise {number}; there are {there}")


def question(name: Any) -> Question:
    """One question by its name, such as "5.4".

    Raises
    ------
    StudyError
        when there is none.
    """
    known = {one.id: one for e in exercises() for one in e.questions}
    wanted = str(name).strip()
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else "`studykvm exercise list` names them all"
    raise StudyError(f"there is no question {wanted[:20]!r}; {hint}")
