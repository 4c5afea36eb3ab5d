"""Fixtures of the emulator's tests."""

import pytest

from tests.hypervisor.machines import Machine


@pytest.fixture
def machine():
    started = []

    def start(*argv, **options):
        started.append(Machine(*argv, **options))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
            running.process.communicate()
