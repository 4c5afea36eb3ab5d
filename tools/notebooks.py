"""Write the .ipynb beside each plain-text notebook: `python -m tools.notebooks`.

The pairs are committed; tests/coursework holds them against each other. jupytext keeps them in step while
one edits (`jupytext --sync notebooks/5_hda.py`), this writes them without outputs and always alike.
"""

import sys
from pathlib import Path

from studykvm.coursework.sheets import notebook

FOLDER = Path(__file__).parent.parent / "notebooks"


def main() -> int:
    """Write all pairs."""
    for source in sorted(FOLDER.glob("*.py")):
        source.with_suffix(".ipynb").write_text(notebook(source.read_text("utf-8")), "utf-8")
        print(source.with_suffix(".ipynb").name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
