"""Notebooks as files: plain-text sources, the .ipynb beside them, fresh copies for students.

- `cells(path)`: the cells of a .py source (percent format, as jupytext reads it) or of an .ipynb
- `notebook(text)`: the .ipynb of a plain-text source; always the same bytes for the same text
- `start(number, folder, plain)`: a fresh copy in a student's folder, and a place for progress
- `number_of(path)`: which exercise a file is of

::

    # ---                        the header: YAML, as jupytext writes it; names the exercise
    # %% [markdown]              a cell of text, its lines behind "# "
    # %%                         a cell of code
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from studykvm.coursework.limits import parsed
from studykvm.coursework.progress import Progress
from studykvm.coursework.questions import exercise
from studykvm.errors import StudyError

LARGEST = 20 << 20
"""A notebook of more bytes, pictures included, is not read."""
_MARK = re.compile(r"^# %%(?P<kind> \[markdown\])?\s*$")
_NUMBER = re.compile(r"^#\s+exercise: (\d+)\s*$", re.MULTILINE)
_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


@dataclass(frozen=True)
class Cell:
    """A cell: "code" or "markdown", and its text."""

    kind: str
    text: str


def cells(path: str | Path) -> list[Cell]:
    """Read the cells of a notebook or of its plain-text source.

    Raises
    ------
    StudyError
        when the file is neither.
    """
    text = _read(Path(path))
    if Path(path).suffix != ".ipynb":
        return _percent(text)
    return [
        Cell(cell["cell_type"], _joined(cell["source"]))
        for cell in _json(path, text)["cells"]
        if cell.get("cell_type") in ("code", "markdown")
    ]


def _joined(source: Any) -> str:
    return source if isinstance(source, str) else "".join(map(str, source))


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise StudyError(f"{path} has more than {LARGEST >> 20} MiB: clear its outputs, then try again")
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise StudyError(
            f"{path} is no text: give the notebook that `studykvm exercise start` made"
        ) from None


def _json(path: str | Path, text: str) -> dict[str, Any]:
    try:
        table = parsed(text)
        for cell in table["cells"]:
            _ = cell["cell_type"], cell["source"]
    except (ValueError, KeyError, TypeError):
        raise StudyError(f"{path} is no notebook: start a fresh one with `studykvm exercise start`") from None
    return dict(table)


def _percent(text: str) -> list[Cell]:
    r"""Take a percent-format source apart.

    >>> _percent("# %% [markdown]\n# Hello\n#\n# there\n\n# %%\nprint(1)\n")
    [Cell(kind='markdown', text='Hello\n\nthere'), Cell(kind='code', text='print(1)')]
    """
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        mark = _MARK.match(line)
        if mark:
            found.append(("markdown" if mark["kind"] else "code", []))
        elif found:
            kind, lines = found[-1]
            lines.append(re.sub(r"^# ?", "", line) if kind == "markdown" else line)
    return [Cell(kind, "\n".join(lines).strip("\n")) for kind, lines in found]


def number_of(path: str | Path) -> int:
    """The number of the exercise that a file is of.

    Raises
    ------
    StudyError
        when it is none of ours.
    """
    path = Path(path)
    if path.suffix not in (".py", ".ipynb"):
        raise StudyError(f"{path} is neither an .ipynb nor a .py of the coursework")
    text = _read(path)
    if path.suffix == ".py":
        found = _NUMBER.search(text[:4000])
        number = int(found[1]) if found else None
    else:
        metadata = _json(path, text).get("metadata")
        ours = metadata.get("studykvm") if isinstance(metadata, dict) else None
        number = ours.get("exercise") if isinstance(ours, dict) else None
    if not isinstance(number, int):
        raise StudyError(
            f"{path} is not a notebook of the coursework; `studykvm exercise start N` gives a fresh one"
        )
    return exercise(number).number


def notebook(text: str) -> str:
    """The .ipynb of a plain-text source, without outputs."""
    found = _NUMBER.search(text)
    made = []
    for at, cell in enumerate(_percent(text)):
        one: dict[str, Any] = {
            "cell_type": cell.kind,
            "id": hashlib.sha256(f"{at} {cell.text}".encode()).hexdigest()[:8],
            "metadata": {},
            "source": cell.text.splitlines(keepends=True),
        }
        if cell.kind == "code":
            one |= {"execution_count": None, "outputs": []}
        made.append(dict(sorted(one.items())))
    metadata = {"kernelspec": _KERNEL, "studykvm": {"exercise": int(found[1]) if found else 0}}
    table = {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(table, indent=1, ensure_ascii=False) + "\n"


def template(name: str, suffix: str) -> str:
    """The text of a notebook that ships."""
    inside = files("studykvm.coursework") / "notebooks" / (name + suffix)
    checkout = Path(__file__).parents[2] / "notebooks" / (name + suffix)
    return (inside if inside.is_file() else checkout).read_text("utf-8")


def _write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet, whole or not at all."""
    with open(path, "x", encoding="utf-8") as file:
        try:
            file.write(text)
            file.flush()
        except OSError as error:
            path.unlink()
            raise StudyError(f"{path} could not be written: {error.strerror}") from error


def start(number: int | str, folder: Path, plain: bool = False) -> Path:
    """Put a fresh notebook into `folder`; one that is there already stays, the new one gets a number."""
    wanted = exercise(number)
    suffix = ".py" if plain else ".ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    path, again = folder / (wanted.notebook + suffix), 2
    text = template(wanted.notebook, suffix)
    while True:
        try:
            _write_new(path, text)
            break
        except FileExistsError:
            path, again = folder / f"{wanted.notebook}-{again}{suffix}", again + 1
    Progress.open(folder).create()
    return path
