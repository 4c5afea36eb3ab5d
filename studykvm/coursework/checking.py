"""Checking a whole notebook: it is run in a process of its own, and its answers are judged here.

- `check_file(path, seconds) -> Checked`: verdicts by question, and what went wrong on the way
"""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studykvm.coursework import sheets
from studykvm.coursework.limits import parsed, shallow
from studykvm.coursework.questions import exercise
from studykvm.coursework.session import REPORT, judged
from studykvm.coursework.verdict import Part, Verdict

SECONDS = 60
MOST_SECONDS = 600
_REPORT_LIMIT = 16 << 20


@dataclass
class Checked:
    """What came of a notebook: verdicts in the order of the questions, and remarks."""

    number: int
    verdicts: list[Verdict] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def check_file(path: str | Path, seconds: int = SECONDS) -> Checked:
    """Run and judge a notebook.

    Parameters
    ----------
    seconds : int
        The most that a cell may take; all together take `MOST_SECONDS` at most.

    Raises
    ------
    StudyError
        when the file is not a notebook of the coursework.
    """
    path = Path(path)
    wanted = exercise(sheets.number_of(path))
    code = [cell.text for cell in sheets.cells(path) if cell.kind == "code"]
    checked = Checked(wanted.number)
    rows = _run(path, seconds, checked)
    given: dict[str, dict[str, Any]] = {}
    for row in rows:
        if "question" in row:
            given[str(row["question"])] = row
        elif "error" in row:
            checked.remarks.append(f"cell {row.get('cell')}: {row['error']}")
    called = _checks_in(code)
    for question in wanted.questions:
        if question.id not in given:
            checked.verdicts.append(Verdict(question.id, [Part(None, _absent(question.id, called))]))
            continue
        row = given[question.id]
        if "error" in row:
            checked.verdicts.append(Verdict(question.id, [Part(False, str(row["error"]))]))
        else:
            trace = row.get("trace")
            own = trace if isinstance(trace, str) else None
            checked.verdicts.append(judged(question.id, row.get("answer", ...), own))
    return checked


def _absent(name: str, called: set[str]) -> str:
    if name not in called:
        return f'the notebook has no check of it; put back: check("{name}", ...)'
    return "no answer came: was its cell stopped, or check changed?"


def _checks_in(code: list[str]) -> set[str]:
    """The questions that are checked somewhere in the code."""
    from studykvm.coursework.runner import plain

    found: set[str] = set()
    for text in code:
        try:
            with shallow():
                tree = ast.parse(plain(text))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "check":
                found |= {str(one.value) for one in node.args[:1] if isinstance(one, ast.Constant)}
    return found


def _run(path: Path, seconds: int, checked: Checked) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        command = [sys.executable, "-m", "studykvm.coursework.runner", path.name, str(seconds)]
        root = str(Path(__file__).parents[2])
        search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        environment = os.environ | {REPORT: str(report), "MPLBACKEND": "Agg", "PYTHONPATH": search}
        process = subprocess.Popen(
            command,
            cwd=path.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(min(MOST_SECONDS, max(4 * seconds, seconds + 30)))
        except subprocess.TimeoutExpired:
            checked.remarks.append("the notebook took too long altogether and was stopped")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        rows = _rows(report)
    if not any("finished" in row for row in rows) and not checked.remarks:
        checked.remarks.append("the notebook ended before its last cell")
    return rows


def _rows(report: Path) -> list[dict[str, Any]]:
    rows = []
    if report.exists():
        with open(report, encoding="utf-8", errors="replace") as lines:
            for line in lines.read(_REPORT_LIMIT).splitlines():
                try:
                    row = parsed(line)
                except ValueError:
                    continue
                if isinstance(row, dict):
                    rows.append(row)
    return rows
