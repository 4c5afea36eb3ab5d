"""The coursework: the questions of the course, asked, explored and checked against evidence.

In a notebook or a Python session: ``from studykvm.coursework import check, hint, predict`` and, for what is
tried out, ``from studykvm.coursework import lab``.

- ``check("5.4", answer)``: judges an answer part by part, and says on what evidence
- ``hint("5.4")``: the next hint; ``predict("5.4", answer)``: notes what you expect before you look

The truth is in no file here: it is derived when an answer is checked, from the recordings of the real
qemu-kvm 0.12.4, from the index of its source, or from a run of the model made on the spot::

    questions.toml ─► questions ─► judge ◄─ sources (recordings, index), scenes (runs of the model)
    answer ─► plain ─► answers ────┘ └─► verdict ─► progress beside the notebook
"""

from studykvm.coursework.session import check, hint, predict

__all__ = ["check", "hint", "predict"]
