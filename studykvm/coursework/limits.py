"""Reading what a stranger wrote, without going deeper than the machine's stack.

The model raises Python's recursion limit, for reads go call within call; a file nested a hundred thousand
deep must not use that up.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

_DEEPEST = 2_000


@contextlib.contextmanager
def shallow() -> Iterator[None]:
    """Run the body with a recursion limit that the stack can bear; RecursionError where it is met."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(min(limit, _DEEPEST))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def parsed(text: str) -> Any:
    """Read JSON.

    Raises
    ------
    ValueError
        when it is none, or nested too deep.

    Examples
    --------
    >>> parsed("[" * 100_000)
    Traceback (most recent call last):
        ...
    ValueError: nested too deep
    """
    try:
        with shallow():
            return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
