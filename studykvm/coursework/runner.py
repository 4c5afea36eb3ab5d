"""Runs a notebook's cells one after the other, for ``studykvm exercise check``: in a process of its own.

``python -m studykvm.coursework.runner FILE SECONDS`` with the report's name in the environment. A cell that
fails or takes longer than SECONDS is told in the report, and the next one runs; the answers given so far
are in the report whatever happens then. Lines for Jupyter or the shell (``%...``, ``!...``) are left out.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
from types import FrameType
from typing import Any

from studykvm.coursework.session import REPORT
from studykvm.coursework.sheets import cells

MEMORY = 4 << 30
"""The most memory that a notebook may take, in bytes."""


class TooLong(BaseException):
    """A cell took longer than it may."""


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TooLong


def plain(code: str) -> str:
    r"""Leave out what only Jupyter understands.

    >>> plain("%matplotlib inline\nx = 1\n!ls")
    'pass\nx = 1\npass'
    """
    if code.startswith("%%"):
        return "pass"
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.MULTILINE)


def tell(what: dict[str, Any]) -> None:
    """Add a line to the report."""
    with open(os.environ[REPORT], "a", encoding="utf-8") as report:
        report.write(json.dumps(what) + "\n")


def run(path: str, seconds: int) -> None:
    """Run the cells of a notebook."""
    signal.signal(signal.SIGALRM, _too_long)
    names: dict[str, Any] = {"__name__": "__main__", "display": print}
    number = 0
    for cell in cells(path):
        if cell.kind != "code":
            continue
        number += 1
        try:
            signal.alarm(seconds)
            exec(compile(plain(cell.text), f"<cell {number}>", "exec"), names)
        except TooLong:
            tell({"cell": number, "error": f"stopped after {seconds} seconds"})
        except SystemExit:
            tell({"cell": number, "error": "it left off by exit; what stands below in it did not run"})
        except BaseException as error:
            tell({"cell": number, "error": f"{type(error).__name__}: {error}"[:300]})
        finally:
            signal.alarm(0)
    tell({"finished": number})


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    run(sys.argv[1], int(sys.argv[2]))
    # Threads that a cell left behind are not waited for.
    os._exit(0)
