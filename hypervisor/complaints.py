"""What the drivers tell the user of a damaged image, on stderr; ours.

- `say(text)`: one line, once a run: 0.12.4 asks a second time for what was refused, and would say it twice
"""

from __future__ import annotations

import sys

from hypervisor.program import on_reset
from hypervisor.wording import modern

_said: set[str] = set()


@on_reset
def _reset() -> None:
    _said.clear()


def say(text: str) -> None:
    """Print a line, unless this run has; 7.2's words are made of what drivers say each time."""
    if text not in _said or modern():
        print(text, file=sys.stderr)
    _said.add(text)
