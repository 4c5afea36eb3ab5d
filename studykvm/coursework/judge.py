"""Judges: one for each kind of question; each derives the truth and compares part by part.

- `judge(question, answer) -> Verdict`: never raises for whatever answer
- `KINDS`: kind -> judge

A wrong part is explained by what the evidence shows of what was said, not by what would have been right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from studykvm.coursework import judge_calls, judge_values, judge_words
from studykvm.coursework.answers import BadAnswer
from studykvm.coursework.limits import shallow
from studykvm.coursework.questions import Question
from studykvm.coursework.verdict import Part, Verdict

KINDS: dict[str, Callable[[dict[str, Any], Any], list[Part]]] = {
    "first function": judge_calls.first_function,
    "functions": judge_calls.function_set,
    "path": judge_calls.path,
    "order": judge_calls.order,
    "graph": judge_calls.graph,
    "values": judge_values.values,
    "counts": judge_values.counts,
    "choice": judge_values.choice,
    "command": judge_values.command,
    "placed": judge_words.placed,
    "programs": judge_words.programs,
    "measured": judge_words.measured,
}


_SHOWN = 1000
_LINES = re.compile(r"lines? (\d+)(?:-(\d+))? of (\w+)")


def judge(question: Question, answer: Any, trace: Any = None) -> Verdict:
    """Judge an answer; Ellipsis, None and nothing at all are no answer yet.

    Parameters
    ----------
    trace : str or Trace, optional
        A trace of the student's own, in which wrong calls are looked for, too.
    """
    if isinstance(answer, dict) and len(answer) < 100:
        answer = {key: value for key, value in answer.items() if value is not ...} or ...
    if answer is ... or answer is None or (isinstance(answer, str) and answer.strip() in ("", "...")):
        return Verdict(question.id, [Part(None, f"an answer looks like this: {question.form}")])
    try:
        with shallow():
            parts = KINDS[question.kind](question.spec | {"name": question.id}, answer)
        if (
            trace is not None
            and question.kind in ("path", "graph")
            and any(part.ok is False for part in parts)
        ):
            parts = parts + _in_trace(trace, answer)
        return Verdict(question.id, parts + _where_to_look(parts))
    except BadAnswer as wrong:
        return Verdict(
            question.id, [Part(False, str(wrong)), Part(None, f"a form that fits: {question.form}")]
        )
    except RecursionError:
        return Verdict(question.id, [Part(False, "the answer is nested too deep to be read")])


def _in_trace(trace: Any, answer: Any) -> list[Part]:
    from tracer.errors import TracerError

    try:
        return judge_calls.in_trace(trace, answer)
    except (TracerError, OSError) as error:
        return [Part(None, f"your trace tells nothing of it: {error}")]


def _where_to_look(parts: list[Part]) -> list[Part]:
    """A remark on how to see the lines of a recording that a wrong part names; the last, if they are many."""
    for part in parts:
        found = _LINES.search(part.text) if part.ok is False else None
        if found:
            first, last = int(found[1]), int(found[2] or int(found[1]) + 20)
            span = f"{max(first, last - _SHOWN)}-{last}"
            return [Part(None, f"to look at the evidence: studykvm exercise evidence {found[3]} {span}")]
    return []
