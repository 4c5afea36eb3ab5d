"""Programs of 2010: constructors in link order, modules, and several runs in one process."""

import sys

import pytest

from graphs import recordings
from hypervisor import constructors, module, quirks
from hypervisor.block import bdrv_init, drivers, statics
from hypervisor.block.raw_posix import bdrv_raw
from hypervisor.errors import HypervisorError
from hypervisor.program import linked, on_exit, on_reset, program
from tracer import record


@pytest.mark.parametrize(
    ("recording", "table"),
    [
        ("a01_create_raw", constructors.BLOCK),
        ("b01_io_raw_rw", constructors.BLOCK),
        ("d01_boot_tcg_qcow", constructors.SYSTEM),
    ],
)
def test_constructors_are_those_of_the_recordings(recording, table):
    calls = recordings.load(recording).calls
    begun = [name for depth, name, _ in calls if depth == 0 and name[1].startswith("do_qemu_init_")]
    assert begun == [(file, f"do_qemu_init_{function}") for file, function, _ in table]


def loading(trace):
    """The calls of constructors and of module.c."""
    return [
        call for call in trace.calls() if call.file == "module.c" or call.function.startswith("do_qemu_init_")
    ]


def test_constructors_run_traced_once_a_program():
    for _ in range(2):
        with record(None) as rec, program("qemu-img"):
            pass
        calls = loading(rec.trace)
        assert [call.function for call in calls[:4]] == [
            "do_qemu_init_bdrv_raw_init",
            "register_module_init",
            "find_type",
            "init_types",
        ]
        assert len(calls) == 4 * len(constructors.BLOCK)
        assert calls[1].args == {"fn": ("&", "bdrv_raw_init"), "type": module.MODULE_INIT_BLOCK}


def test_what_is_not_modelled_registers_and_is_never_called():
    run = module.constructor("hw/nothing.c", "nothing_register", module.MODULE_INIT_DEVICE)
    with record(None) as rec, program("qemu-img"):
        run()
        module.module_call_init(module.MODULE_INIT_DEVICE)
    calls = loading(rec.trace)
    assert ("hw/nothing.c", "do_qemu_init_nothing_register") in [(call.file, call.function) for call in calls]
    assert calls[-3].function == "module_call_init" and calls[-1].function == "init_types"


def test_static_variables_are_fresh_in_every_run():
    for _ in range(2):
        with program("qemu-io"):
            assert statics.first_drv is None and not quirks.notes()
            bdrv_init()
            assert len(list(drivers())) == 16
            assert bdrv_raw.next is None and statics.first_drv.format_name == "cow"
            quirks.note("seen", "once")


def test_hooks_run_and_the_recursion_limit_returns():
    before, ran = sys.getrecursionlimit(), []
    on_reset(lambda: ran.append("reset"))
    on_exit(lambda: ran.append("exit"))
    with pytest.raises(ZeroDivisionError), program("qemu-img"):
        assert ran == ["reset"] and sys.getrecursionlimit() >= before
        _ = 1 // 0
    assert ran == ["reset", "exit"] and sys.getrecursionlimit() == before


def test_errors():
    with pytest.raises(HypervisorError, match="choose one of qemu-img"), program("qemu-nbd"):
        pass
    with pytest.raises(HypervisorError, match="qemu_bh_new is called outside"):
        linked.qemu_bh_new(print, None)
