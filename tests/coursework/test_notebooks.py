"""The notebooks: pairs in step, each executed whole, pictures in every one, nothing answered in them."""

import re
from pathlib import Path

import pytest

from studykvm.coursework import sheets
from studykvm.coursework.answers import functions
from studykvm.coursework.questions import exercises
from tests.coursework.test_judges import RIGHT

FOLDER = Path(__file__).parents[2] / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))


def test_every_exercise_has_its_notebook():
    assert {one.notebook for one in exercises()} == {path.stem for path in SOURCES}
    for one in exercises():
        assert sheets.number_of(FOLDER / f"{one.notebook}.py") == one.number
        assert sheets.number_of(FOLDER / f"{one.notebook}.ipynb") == one.number


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_the_pair_is_in_step(source):
    paired = source.with_suffix(".ipynb").read_text("utf-8")
    assert paired == sheets.notebook(source.read_text("utf-8")), "python -m tools.notebooks writes it"
    jupytext = pytest.importorskip("jupytext", reason="pip install 'studykvm[notebooks]'")
    theirs = jupytext.read(source)
    assert [(c.cell_type, c.source) for c in theirs.cells] == [(c.kind, c.text) for c in sheets.cells(source)]
    assert theirs.metadata["studykvm"]["exercise"] == sheets.number_of(source)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_it_opens_with_the_question_and_asks_before_it_shows(source):
    cells = sheets.cells(source)
    exercise = next(one for one in exercises() if one.notebook == source.stem)
    asked = " ".join(re.sub(r"^> ?", "", cells[0].text, flags=re.MULTILINE).split())
    assert " ".join(exercise.asked.split()) in asked
    code = [cell.text for cell in cells if cell.kind == "code"]
    first_run = next(
        at for at, text in enumerate(code) if re.search(r"^\s*(run|picture)\(", text, re.MULTILINE)
    )
    assert any("predict(" in text for text in code[:first_run])
    for question in exercise.questions:
        (after,) = (
            re.split(rf'check\(\s*"{question.id}"', text)[1:]
            for text in code
            if f'"{question.id}"' in text and "check(" in text
        )
        assert "..." in after[0]


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_it_runs_whole_and_has_pictures(source, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    nbformat = pytest.importorskip("nbformat", reason="pip install 'studykvm[notebooks]'")
    nbclient = pytest.importorskip("nbclient", reason="pip install 'studykvm[notebooks]'")
    pytest.importorskip("ipykernel", reason="pip install 'studykvm[notebooks]'")
    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    pictures = [out for out in outputs if "image/svg+xml" in out.get("data", {})]
    assert pictures and all("<svg" in out.data["image/svg+xml"] for out in pictures)
    for drawn in (out.data["image/svg+xml"] for out in pictures):
        # A page is not wide, and what does not fit would be cut off.
        root = drawn[drawn.index("<svg") : drawn.index(">", drawn.index("<svg"))]
        assert "max-width:100%" in root and "viewBox" in root
        width = re.search(r'width="([\d.]+)(pt)?"', root)
        assert float(width[1]) * (4 / 3 if width[2] else 1) <= 940
    text = "".join(out.get("text", "") for out in outputs)
    exercise = next(one for one in exercises() if one.notebook == source.stem)
    for question in exercise.questions:
        assert f"{question.id}: not answered yet" in text
    assert "cannot be judged" not in text and "Traceback" not in text and "usage:" not in text
    assert "✗" not in text and "✓" not in text
    for question in exercise.questions:
        if question.kind in ("path", "order", "functions"):
            assert not _told(notebook, question.id), question.id


def _told(notebook, name):
    """Whether an output before a question shows all functions of its answer together, if they are several."""
    wanted = {function.name for function in functions(RIGHT[name][0])}
    for cell in notebook.cells:
        if cell.cell_type == "code" and f'"{name}"' in cell.source and "check(" in cell.source:
            return False
        for out in cell.get("outputs", []) if len(wanted) > 2 else []:
            shown = out.get("text") or out.get("data", {}).get("image/svg+xml", "")
            if wanted <= set(re.findall(r"\w+", shown)):
                return True
    raise AssertionError(f"{name} is not asked")
