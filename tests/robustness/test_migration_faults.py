"""Whatever goes wrong while a machine moves: one whole machine is left, and nobody hangs.

A few faults of each kind; `python -m tools.migration_faults --count 500` lets many happen.
"""

import os
import tempfile
from pathlib import Path

import pytest

from tools import migration_faults
from tools.migration_faults import KINDS

SEED = int(os.environ.get("STUDYKVM_SEED", "1"))
pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")


@pytest.fixture
def folder():
    """Its name is short enough for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="mf", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("share", range(4))
def test_faults(folder, share):
    kinds = list(KINDS)[share::4]
    found = migration_faults.run(len(kinds), SEED, folder, kinds=kinds)
    assert [(outcome.kind, outcome.wrong, outcome.said) for outcome in found if outcome.wrong] == []
    assert [outcome.kind for outcome in found] == kinds
    assert migration_faults.left_behind(folder) == []
