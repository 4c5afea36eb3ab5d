"""Structures: ids, writes, states, and that an idle one is an ordinary object."""

import copy
import pickle
import threading
import weakref
from dataclasses import field
from typing import ClassVar

import pytest

from tracer import Struct, TracerError, free, record, symbol, traced

C_FILE = "block.c"


class Driver(Struct):
    name: str = ""


class State(Struct):
    size: int = 0
    drv: Driver | None = None
    next: "State | None" = None
    table: list = field(default_factory=list)
    _private: int = 0


@traced
def grow(state, size):
    state.size = size
    return state


def test_an_idle_struct_is_an_ordinary_object():
    state = State(size=3)
    assert State.__setattr__ is object.__setattr__
    assert "__call__" not in type(State).__dict__
    assert state != State(size=3)
    assert repr(state) == "State(size=3, drv=None, next=None, table=<list[0]>)"
    with pytest.raises(TypeError):
        State(3)
    with record():
        pass
    assert State.__setattr__ is object.__setattr__
    assert "__call__" not in type(State).__dict__


def test_ids_count_creations_by_class():
    with record() as recording:
        first, second, driver = State(), State(), Driver()
        assert grow(second, 1) is second
        grow(first, 2)
        del driver
    assert [(o.id, o.struct, o.freed) for o in recording.trace.objects()] == [
        ("State#1", "State", None), ("State#2", "State", None), ("Driver#1", "Driver", None),
    ]  # fmt: skip
    assert [call.args["state"] for call in recording.trace.calls()] == [("@", "State#2"), ("@", "State#1")]


def test_an_object_older_than_the_recording_is_announced_where_it_is_first_seen():
    old = State(size=7, drv=Driver(name="raw"))
    with record() as recording:
        State()
        grow(old, 8)
    (call,) = recording.trace.calls()
    assert call.args == {"state": ("@", "State#2"), "size": 8}
    before = recording.trace.state_at(call.step)
    assert before["State#2"] == {
        "size": 7, "drv": ("@", "Driver#1"), "next": None, "table": ("[",),
    }  # fmt: skip
    assert before["State#2"].struct == "State"
    assert before["Driver#1"] == {"name": "raw"}
    assert recording.trace.state_at(call.exit_step)["State#2"]["size"] == 8


def test_writes_say_who_and_when():
    @traced
    def outer(state):
        grow(state, 5)
        state.drv = Driver(name="qcow")

    with record() as recording:
        state = State()
        outer(state)
        state.drv = None
        state._private = 9
        state.other = 1
    trace = recording.trace
    assert [(w.field, w.old, w.new, w.path) for w in trace.writes("State")] == [
        ("size", 0, 5, ("outer", "grow")),
        ("drv", None, ("@", "Driver#1"), ("outer",)),
        ("drv", ("@", "Driver#1"), None, ()),
    ]
    assert [w.step for w in trace.writes("State#1", "drv")] == [w.step for w in trace.writes("State", "drv")]
    assert trace.writes("State#2") == []
    (grown,) = trace.calls(function="grow")
    (write,) = trace.writes("State", "size")
    assert (write.call, write.thread, write.object) == (grown, 0, "State#1")
    assert grown.step < write.step < grown.exit_step


def test_any_step_can_be_asked_for_in_any_order():
    with record() as recording:
        state = State()
        for size in range(1, 20):
            state.size = size
        free(state)
        State()
    trace = recording.trace
    assert [trace.state_at(step)["State#1"]["size"] for step in range(20)] == list(range(20))
    assert trace.state_at(3)["State#1"]["size"] == 3
    assert trace.state_at(20) == {}
    assert list(trace.state_at(21)) == ["State#2"]
    assert trace.state_at(-1) == {}
    trace.state_at(3)["State#1"]["size"] = 99
    assert trace.state_at(3)["State#1"]["size"] == 3
    assert next(o for o in trace.objects() if o.id == "State#1").freed == 20


def test_a_ring_and_a_long_list_are_announced_without_recursion():
    head = State()
    node = head
    for _ in range(5000):
        node.next = State()
        node = node.next
    node.next = head
    with record() as recording:
        grow(head, 1)
    assert len(recording.trace.objects()) == 5001
    (call,) = recording.trace.calls()
    assert recording.trace.state_at(call.step)["State#5001"]["next"] == ("@", "State#1")


def test_a_write_inside_the_constructor_belongs_to_the_creation():
    class Counted(Struct):
        size: int = 1

        def __post_init__(self):
            self.size += 1

    with record() as recording:
        Counted()
    assert [o.id for o in recording.trace.objects()] == ["Counted#1"]
    assert recording.trace.state_at(0)["Counted#1"] == {"size": 2}
    assert recording.trace.writes() == []


def test_a_constructor_that_shows_the_object_announces_it_then():
    class Shown(Struct):
        size: int = 1

        def __post_init__(self):
            grow(self, 2)

    with record() as recording:
        Shown()
    assert [(w.old, w.new, w.path) for w in recording.trace.writes("Shown")] == [(1, 2, ("grow",))]


def test_a_creation_that_fails_leaves_nothing():
    with record() as recording, pytest.raises(TypeError):
        State(nothing=1)
    assert recording.trace.objects() == []


def test_static_objects_and_functions_have_names():
    raw = symbol(Driver(name="raw"), "bdrv_raw")

    class Opaque:
        pass

    opaque = symbol(Opaque(), "init_type_list")
    with record() as recording:
        state = State(drv=raw)
        state.table = [opaque, grow]
        grow(raw, 1)
    assert recording.trace.state_at(1)["State#1"]["drv"] == ("&", "bdrv_raw")
    assert recording.trace.state_at(9)["&bdrv_raw"] == {"name": "raw"}
    assert recording.trace.writes("State", "table")[0].new == ("[", ("&", "init_type_list"), ("&", "grow"))
    with pytest.raises(TracerError, match="list"):
        symbol([], "a_list")
    gone = weakref.ref(opaque)
    del opaque, state
    assert gone() is None


def test_structs_are_not_kept_alive_and_ids_are_not_reused():
    with record() as recording:
        for _ in range(3):
            state = State()
            gone = weakref.ref(state)
            grow(state, 1)
            del state
            assert gone() is None
    assert [o.id for o in recording.trace.objects()] == ["State#1", "State#2", "State#3"]


def test_a_copy_is_another_object():
    with record() as recording:
        state = State(size=1)
        for other in (copy.copy(state), copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
            grow(other, 2)
        assert state.size == 1
    assert [call.args["state"][1] for call in recording.trace.calls()] == ["State#2", "State#3", "State#4"]


def test_ids_begin_anew_in_each_recording():
    state = State()
    for _ in range(2):
        with record() as recording:
            grow(state, 1)
        assert [o.id for o in recording.trace.objects()] == ["State#1"]


def test_threads_announce_an_object_once():
    states = [State() for _ in range(200)]
    barrier = threading.Barrier(4)

    def work():
        barrier.wait()
        for state in states:
            grow(state, 1)

    with record() as recording:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    ids = [o.id for o in recording.trace.objects()]
    assert len(ids) == len(set(ids)) == 200


def test_another_metaclass_is_refused():
    class Meta(type(Struct)):
        pass

    with pytest.raises(TracerError, match=r"Odd.*Meta"):

        class Odd(Struct, metaclass=Meta):
            pass


def test_a_subclass_with_its_own_rules_keeps_them():
    class Guarded(Struct):
        size: int = 0

        def __setattr__(self, name, value):
            if name == "size" and value < 0:
                raise ValueError(value)
            super().__setattr__(name, value)

    with record() as recording:
        guarded = Guarded()
        with pytest.raises(ValueError, match="-1"):
            guarded.size = -1
        guarded.size = 2
    assert [w.new for w in recording.trace.writes()] == [2]


def test_fields_are_inherited_and_told_apart_from_class_variables():
    class Base(Struct):
        known: ClassVar[int] = 3
        size: int
        table: list = field(default_factory=list)

    class Derived(Base):
        size: int = 5
        table: list | None = None
        name: str = field(default="raw")

    assert vars(Derived()) == {"size": 5, "table": None, "name": "raw"}
    assert vars(Base(size=1)) == {"size": 1, "table": []}
    assert (Derived.name, Derived.size, Base.known) == ("raw", 5, 3)
    assert Base(size=1).table is not Base(size=1).table
    with pytest.raises(TypeError, match="Base: field 'size' wants a value"):
        Base()
    with pytest.raises(TypeError, match="Derived has no field 'nothing'; it has size, table, name"):
        Derived(nothing=1)
    with pytest.raises(TracerError, match="default_factory"):

        class Shared(Struct):
            table: list = []  # noqa: RUF012
