"""What a check says: parts, each right, wrong or undecided, with the evidence in words.

- `Part(ok, text)`; `Verdict(question, parts)`: `str` of it is what a student reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_MARKS = {True: "✓", False: "✗", None: "·"}
_SHOWN = 40


@dataclass(frozen=True)
class Part:
    """One part of an answer: right, wrong, or (None) only a remark."""

    ok: bool | None
    text: str


@dataclass
class Verdict:
    """A judged answer.

    Examples
    --------
    >>> print(Verdict("5.1", [Part(True, "main calls it"), Part(False, "one is missing")]))
    5.1: partly right
      ✓ main calls it
      ✗ one is missing
    """

    question: str
    parts: list[Part] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether every part is right."""
        decided = [part.ok for part in self.parts if part.ok is not None]
        return bool(decided) and all(decided)

    @property
    def word(self) -> str:
        """The whole in one word or two."""
        decided = [part.ok for part in self.parts if part.ok is not None]
        if not decided:
            return "not answered yet"
        if all(decided):
            return "right"
        return "partly right" if any(decided) else "not right"

    def __str__(self) -> str:
        lines = [f"{self.question}: {self.word}"]
        lines += [f"  {_MARKS[part.ok]} {part.text}" for part in self.parts[:_SHOWN]]
        if len(self.parts) > _SHOWN:
            lines.append(f"  · and {len(self.parts) - _SHOWN} more parts")
        return "\n".join(lines)

    def _ipython_display_(self) -> None:
        """Nothing: `check` has printed it already."""
