"""Progress, kept in a file beside the notebook: what was tried, what is right, which hints were read.

- `Progress.open(folder)`: reads ``studykvm-progress.json``; `answered`, `hinted`, `predicted` write it
- a file that cannot be read is put aside under another name, never overwritten

``studykvm exercise start`` and the terminal's ``hint`` make it; where there is none, nothing is written.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studykvm.coursework.limits import parsed
from studykvm.errors import StudyError

FILE = "studykvm-progress.json"
_EMPTY = {"tries": 0, "right": False, "hints": 0}


@dataclass
class Progress:
    """What a student has done; `kept` says whether there is a file for it."""

    path: Path
    kept: bool
    questions: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | Path = ".", create: bool = False) -> Progress:
        """Read the progress of a folder.

        Raises
        ------
        StudyError
            When the file is there and is not ours, or cannot be read.
        """
        path = Path(folder) / FILE
        new = cls(path, create)
        try:
            text = path.read_text("utf-8")
        except FileNotFoundError:
            return new
        except OSError as error:
            raise StudyError(f"{path}: {error.strerror}; it holds your progress") from error
        except UnicodeDecodeError:
            text = ""
        try:
            table = parsed(text)["questions"]
            questions = {str(key): {**_EMPTY, **value} for key, value in table.items()}
            for one in questions.values():
                one["tries"], one["hints"], one["right"] = (
                    int(one["tries"]),
                    int(one["hints"]),
                    bool(one["right"]),
                )
        except (ValueError, KeyError, TypeError, AttributeError):
            aside = path.with_suffix(f".{time.strftime('%Y%m%d-%H%M%S')}.damaged")
            os.replace(path, aside)
            print(f"{path.name} could not be read; it is kept as {aside.name}, and a new one begins")
            new.kept = True
            return new
        return cls(path, True, questions)

    def of(self, question: str) -> dict[str, Any]:
        """What is known of a question."""
        return self.questions.setdefault(question, dict(_EMPTY))

    def answered(self, question: str, right: bool) -> None:
        """Note a try."""
        entry = self.of(question)
        entry["tries"] += 1
        entry["right"] = entry["right"] or right
        self._write()

    def hinted(self, question: str, step: int) -> None:
        """Note that hints up to `step` were read."""
        entry = self.of(question)
        entry["hints"] = max(entry["hints"], step)
        self._write()

    def predicted(self, question: str, answer: str) -> None:
        """Note what was expected before looking; the first prediction stays."""
        self.of(question).setdefault("predicted", answer[:500])
        self._write()

    def _write(self) -> None:
        if not self.kept:
            return
        text = json.dumps({"version": 1, "questions": self.questions}, indent=1, sort_keys=True)
        try:
            handle, name = tempfile.mkstemp(prefix=".progress-", dir=self.path.parent)
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(text + "\n")
                os.replace(name, self.path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise
        except OSError as error:
            print(f"{self.path}: your progress could not be kept: {error.strerror}")

    def create(self) -> None:
        """Write the file, so that progress is kept from now on."""
        self.kept = True
        self._write()
