"""The model's structures are those recorded: the same pointers between them, the same fields."""

import copy

import pytest

from graphs import recordings
from graphs.structures_compare import compare
from tests.truth.replay import replay_start, run
from tracer import load, record

QEMU_IO = "qemu_io_qcow_on_raw"


@pytest.fixture
def images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("qemu-img", "create", "-f", "raw", "base_raw.img", "16M")
    run("qemu-img", "create", "-f", "qcow", "-b", "base_raw.img", "overlay.img")


@pytest.fixture
def trace(images):
    with record() as recording:
        run("qemu-io", "-c", "read 0 512", "overlay.img")
    return recording.trace


def test_qemu_io_builds_the_recorded_structures(trace):
    assert compare(trace, recordings.structures(QEMU_IO)) == []


@pytest.mark.parametrize(
    ("name", "scenario"),
    [
        ("system_hda_qcow_on_raw", "d01_boot_tcg_qcow"),
        ("system_hda_qcow2_on_raw", "d04_boot_tcg_qcow2_savevm"),
    ],
)
def test_the_emulator_builds_the_recorded_structures(tmp_path, name, scenario):
    trace = load(replay_start(tmp_path, scenario))
    assert compare(trace, recordings.structures(name)) == []


def swap(events, field, value):
    """Change one field of the overlay's device at its last exit of bdrv_open2."""
    exits = [e for e in events if e.get("fn") == "bdrv_open2" and e["ev"] == "exit"]
    exits[-1]["bs"][field] = value


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("total_sectors", 1, "total_sectors is 32768, recorded 1"),
        ("drv", "&bdrv_vmdk", "recorded '&bdrv_vmdk'"),
        ("backing_hd", None, "recorded None"),
        ("opaque", "0x1", "is another object in the real program"),
        ("newer_field", 0, "newer_field is not modelled"),
    ],
)
def test_a_difference_is_named(trace, field, value, said):
    events = copy.deepcopy(recordings.structures(QEMU_IO))
    swap(events, field, value)
    fault = compare(trace, events)[0]
    assert fault.startswith("bdrv_open2:exit#1: BlockDriverState#1->")
    assert said in fault


def test_a_trace_of_something_else_is_not_equal(images):
    with record() as recording:
        run("qemu-img", "info", "base_raw.img")
    faults = compare(recording.trace, recordings.structures(QEMU_IO))
    assert "start of command_loop: the model does not come there" in faults
