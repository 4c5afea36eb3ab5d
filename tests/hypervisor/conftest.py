"""Fixtures of the emulator's tests."""

import pytest

from tests.hypervisor.machines import Machine


@pytest.fixture
def machine():
    started = []

    def start(*argv):
        started.append(Machine(*argv))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.process.communicate()
