"""One replay of the tools' scenarios for all tests, also when several processes run them."""

import fcntl
from pathlib import Path

import pytest

from tests.truth.replay import replay_tools


@pytest.fixture(scope="session")
def replayed(tmp_path_factory, worker_id) -> Path:
    """The folder with NAME.trace and NAME.out of every a*, b* and c* scenario."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "replay"
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            folder.mkdir()
            replay_tools(folder)
    return folder
