"""What a notebook calls: `check`, `hint`, `predict`. Each prints; none lets a traceback out.

Under ``studykvm exercise check FILE`` the answers are also handed to the checker, which judges them itself.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from studykvm.coursework.answers import BadAnswer
from studykvm.coursework.plain import plain
from studykvm.coursework.progress import FILE, Progress
from studykvm.coursework.questions import question
from studykvm.coursework.verdict import Part, Verdict
from studykvm.errors import StudyError

REPORT = "STUDYKVM_COURSEWORK_REPORT"
"""The environment variable that names the file for `exercise check`."""


def check(name: str, answer: Any = ..., trace: Any = None) -> Verdict:
    """Judge an answer to a question, such as ``check("5.4", "a -> b")``, and print what can be said of it.

    With ``trace="boot.trace"`` a wrong way of calls is explained by that trace of yours, too.
    """
    if os.environ.get(REPORT):
        _report(str(name), answer, trace)
        return Verdict(str(name), [Part(None, "handed to the checker")])
    verdict = judged(name, answer, trace)
    print(verdict)
    if any(part.ok is not None for part in verdict.parts):
        _progress().answered(verdict.question, verdict.right)
    return verdict


def judged(name: str, answer: Any, trace: Any = None) -> Verdict:
    """Judge without printing; whatever goes wrong becomes a verdict."""
    from graphs.errors import GraphsError
    from hypervisor.errors import HypervisorError
    from studykvm.coursework.judge import judge
    from tracer.errors import TracerError

    try:
        asked = question(name)
        try:
            answer = answer if answer is ... else _plain(asked.id, answer)
        except BadAnswer as wrong:
            form = Part(None, f"a form that fits: {asked.form}")
            return Verdict(asked.id, [Part(False, str(wrong)), form])
        return judge(asked, answer, trace)
    except KeyboardInterrupt:
        # Nor should an interrupted one show where it was.
        raise KeyboardInterrupt from None
    except (StudyError, GraphsError, HypervisorError, TracerError, OSError) as error:
        return Verdict(str(name)[:20], [Part(False, f"it cannot be judged: {error}")])
    except Exception as error:
        # A traceback would show what the truth is.
        kind = type(error).__name__
        return Verdict(str(name)[:20], [Part(False, f"it cannot be judged: this answer led to a {kind}")])


def hint(name: str) -> None:
    """Print the next hint to a question; each call goes one step further."""
    try:
        asked = question(name)
    except StudyError as error:
        print(error)
        return
    progress = _progress()
    step = max(progress.of(asked.id)["hints"], _read.get(asked.id, 0))
    if step >= len(asked.hints):
        print(f"{asked.id}: these were all hints. The last one: {asked.hints[-1]}")
        return
    print(f"{asked.id}, hint {step + 1} of {len(asked.hints)}: {asked.hints[step]}")
    _read[asked.id] = step + 1
    progress.hinted(asked.id, step + 1)


_read: dict[str, int] = {}


def _progress() -> Progress:
    """The progress of this folder; one that is not kept where the file cannot be read."""
    try:
        return Progress.open()
    except StudyError as error:
        print(error)
        return Progress(Path(FILE), False)


def predict(name: str, answer: Any = ...) -> None:
    """Note what you expect, before you look; it is not judged."""
    try:
        asked = question(name)
    except StudyError as error:
        print(error)
        return
    if answer is ...:
        print(f"{asked.id}: what do you expect? {asked.text}")
        return
    text = repr(answer)[:500] if not isinstance(answer, str) else answer[:500]
    print(f"{asked.id}: noted. Now look, and then check.")
    _progress().predicted(asked.id, text)


def _report(name: str, answer: Any, trace: Any) -> None:
    row: dict[str, Any] = {"question": name[:20]}
    if answer is not ...:
        try:
            row["answer"] = _plain(name, answer)
        except BadAnswer as wrong:
            row["error"] = str(wrong)
        except Exception as error:
            row["error"] = f"it cannot be read: this answer led to a {type(error).__name__}"
    if isinstance(trace, str):
        row["trace"] = os.path.abspath(trace)
    with open(os.environ[REPORT], "a", encoding="utf-8") as report:
        report.write(json.dumps(row) + "\n")


def _plain(name: str, answer: Any) -> Any:
    """An answer as plain values; a set of several is none where the order matters."""
    if isinstance(answer, set | frozenset) and len(answer) > 1 and question(name).kind in ("path", "order"):
        raise BadAnswer("a set has no order: write a list, or 'a -> b'")
    return plain(answer)
