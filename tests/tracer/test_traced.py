"""The decorator: what a traced function stays, and what is recorded of its calls."""

import asyncio
import gc
import inspect
import os
import pickle
import signal
import sys
import threading
import weakref

import pytest

from tracer import TracerError, record, registry, traced
from tracer.functions import traced_as

C_FILE = "block/test.c"


@traced
def leaf(number):
    """Double."""
    return 2 * number


@traced
def caller(a, /, b=2, *rest, type=3, **more):
    return leaf(a) + b


@traced(name="bdrv_raw_open", file="block/raw.c")
def renamed():
    raise OSError(2, "gone")


@traced
def counting(end):
    received = []
    for number in range(end):
        received.append((yield leaf(number)))
    return received


@traced
def down(levels):
    return 0 if levels == 0 else 1 + down(levels - 1)


class Base:
    def method(self):
        return 1


class Derived(Base):
    @traced
    def method(self):
        return super().method() + 1

    @staticmethod
    @traced
    def static(__hidden):
        return __hidden

    @classmethod
    @traced
    def of_class(cls):
        return cls


def recorded(function, *args, **kwargs):
    with record() as recording:
        function(*args, **kwargs)
    return recording.trace


def shape(trace):
    return [(call.depth, call.function) for call in trace.calls()]


def test_a_call_is_recorded_with_arguments_and_result():
    calls = list(recorded(caller, 1, 5, 6, type=7, z=8).calls())
    assert shape(recorded(caller, 1)) == [(0, "caller"), (1, "leaf")]
    assert calls[0].args == {"a": 1, "b": 5, "type": 7, "*rest": ("(", 6), "**more": ("{", "z", 8)}
    assert calls[0].ret == 7
    assert calls[1].args == {"number": 1}
    assert (calls[1].ret, calls[1].parent, calls[1].file, calls[1].thread) == (2, calls[0], "block/test.c", 0)
    assert calls[0].t_enter <= calls[1].t_enter <= calls[1].t_exit <= calls[0].t_exit
    assert calls[1].path == ("caller", "leaf")


@pytest.mark.parametrize(
    "function", [leaf, caller, counting, Derived.method, Derived.static, Derived.of_class]
)
def test_recording_changes_nothing_that_can_be_seen(function):
    def seen():
        plain = getattr(function, "__func__", function)
        return (
            [id(function), function.__doc__, function.__name__, function.__qualname__],
            [inspect.signature(function), inspect.isgeneratorfunction(function), inspect.getsource(function)],
            [plain.__defaults__, plain.__kwdefaults__, plain.__globals__.keys(), plain.__closure__],
            pickle.dumps(function),
        )  # fmt: skip

    before, code = seen(), function.__code__
    with record():
        assert function.__code__ is not code
        assert seen() == before
    assert function.__code__ is code


def test_kinds_of_functions_keep_their_flags():
    async def coroutine():
        await asyncio.sleep(0)

    async def generator():
        yield 1

    traced(coroutine)
    traced(generator)
    with record():
        assert inspect.iscoroutinefunction(coroutine)
        assert inspect.isasyncgenfunction(generator)


def test_calls_go_wrong_as_they_did():
    with pytest.raises(TypeError) as idle:
        leaf()
    with record(), pytest.raises(TypeError) as while_recording:
        leaf()
    assert str(while_recording.value) == str(idle.value)
    with record(), pytest.raises(TypeError):
        caller(a=1)


def test_exceptions_pass_unchanged():
    with record() as recording, pytest.raises(OSError) as caught:
        renamed()
    assert caught.value.args == (2, "gone")
    assert caught.value.__context__ is None
    (call,) = recording.trace.calls()
    assert (call.file, call.function, call.exc) == (
        "block/raw.c",
        "bdrv_raw_open",
        ("FileNotFoundError", "[Errno 2] gone"),
    )
    assert not call.open


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_exceptions_that_are_no_errors_are_recorded_too(kind):
    @traced
    def leave():
        raise kind

    with record() as recording, pytest.raises(kind):
        leave()
    assert next(recording.trace.calls()).exc == (kind.__name__, "")


def test_methods_closures_and_mangled_names():
    with record() as recording:
        assert Derived().method() == 2
        assert Derived.static(5) == 5
        assert Derived.of_class() is Derived
    assert [call.function for call in recording.trace.calls()] == ["method", "static", "of_class"]
    assert [list(call.args) for call in recording.trace.calls()] == [["self"], ["_Derived__hidden"], ["cls"]]


def test_names_that_the_recording_code_uses_may_be_parameters():
    space = {"C_FILE": "x.c", "traced": traced}
    exec(
        "@traced\n"
        "def f(_t, _t_, type, append, *, _tnumber=1, encode=2): return _t, _t_, type, append, _tnumber",
        space,
    )
    with record():
        assert space["f"](1, 2, 3, 4, _tnumber=5) == (1, 2, 3, 4, 5)


def test_a_generator_is_suspended_where_it_yields():
    with record() as recording:
        generator = counting(2)
        assert next(generator) == 0
        leaf(10)
        assert generator.send("a") == 2
        with pytest.raises(StopIteration) as stop:
            generator.send("b")
    assert stop.value.value == ["a", "b"]
    calls = list(recording.trace.calls())
    assert [(c.depth, c.function, c.args.get("number")) for c in calls] == [
        (0, "counting", None), (1, "leaf", 0), (0, "leaf", 10), (1, "leaf", 1),
    ]  # fmt: skip
    assert calls[0].ret == ("[", "a", "b")


def test_a_generator_is_closed_thrown_into_and_abandoned():
    @traced
    def catching():
        while True:
            try:
                yield 1
            except ValueError:
                yield "caught"

    with record() as recording:
        generator = catching()
        next(generator)
        assert generator.throw(ValueError) == "caught"
        generator.close()
        with pytest.raises(StopIteration):
            next(generator)
        other = catching()
        next(other)
        del other
        leaf(1)
    calls = list(recording.trace.calls())
    assert [(c.depth, c.function) for c in calls] == [(0, "catching"), (0, "catching"), (0, "leaf")]
    assert [c.exc for c in calls[:2]] == [("GeneratorExit", "")] * 2


def test_a_generator_may_outlive_the_recording():
    with record() as recording:
        generator = counting(3)
        next(generator)
    events = len(recording.trace)
    assert list(generator) == [2, 4]
    assert len(recording.trace) == events
    assert next(recording.trace.calls()).open


def test_coroutines_nest_in_their_own_order():
    @traced
    async def child(number):
        await asyncio.sleep(0)
        return leaf(number)

    @traced
    async def stream(end):
        for number in range(end):
            await asyncio.sleep(0)
            try:
                yield leaf(number)
            except ValueError:
                yield "caught"

    async def program():
        assert await asyncio.gather(child(1), child(2)) == [2, 4]
        assert [item async for item in stream(2)] == [0, 2]
        steps = stream(2)
        assert await steps.asend(None) == 0
        assert await steps.athrow(ValueError()) == "caught"
        await steps.aclose()

    trace = recorded(asyncio.run, program())
    calls = list(trace.calls())
    under = [(c.args["number"], c.parent.function) for c in calls if c.function == "leaf"]
    assert under == [(1, "child"), (2, "child"), (0, "stream"), (1, "stream"), (0, "stream")]
    assert [c.parent.args for c in calls if c.function == "leaf"][:2] == [{"number": 1}, {"number": 2}]
    assert [c.exc for c in calls if c.function == "stream"] == [None, ("GeneratorExit", "")]
    assert not any(c.open for c in calls)


def test_threads_are_numbered_by_first_appearance():
    def work(number):
        caller(number)

    with record() as recording:
        for number in range(3):
            thread = threading.Thread(target=work, args=(number,))
            thread.start()
            thread.join()
        leaf(9)
    assert [(c.thread, c.depth, c.function) for c in recording.trace.calls()] == [
        (1, 0, "caller"), (1, 1, "leaf"), (2, 0, "caller"), (2, 1, "leaf"), (3, 0, "caller"), (3, 1, "leaf"),
        (0, 0, "leaf"),
    ]  # fmt: skip


def test_threads_that_run_at_once_nest_each_for_itself():
    barrier = threading.Barrier(4)

    def work():
        barrier.wait()
        for number in range(500):
            caller(number)

    with record() as recording:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in (1, 2, 3, 4):
        assert shape(recording.trace)[0] == (0, "caller")
        names = [(c.depth, c.function) for c in recording.trace.calls(thread=number)]
        assert names == [(0, "caller"), (1, "leaf")] * 500


def test_a_signal_handler_nests_wherever_it_strikes():
    @traced
    def handler(number, frame):
        leaf(1)

    @traced
    def spinning():
        for _ in range(3000):
            leaf(0)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with record() as recording:
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            spinning()
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    calls = list(recording.trace.calls())
    struck = [c for c in calls if c.function == "handler"]
    assert struck
    for call in calls:
        assert call.open is False
        if call.parent is not None:
            assert call.parent.step < call.step < call.exit_step < call.parent.exit_step
    assert sum(c.function == "leaf" and c.args["number"] == 0 for c in calls) == 3000
    assert all(c.function == "leaf" for c in calls if c.parent in struck)


def test_an_interrupt_that_raises_leaves_the_nesting_right():
    class Stop(Exception):
        pass

    def handler(number, frame):
        raise Stop

    @traced
    def spinning():
        while True:
            leaf(0)

    before = signal.signal(signal.SIGALRM, handler)
    # an exception that strikes inside a callback of the collector is lost
    gc.disable()
    try:
        with record() as recording:
            for _ in range(50):
                with pytest.raises(Stop):
                    signal.setitimer(signal.ITIMER_REAL, 0.001)
                    spinning()
    finally:
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert {(c.depth, c.function) for c in recording.trace.calls()} == {(0, "spinning"), (1, "leaf")}


def test_recursion_as_deep_as_without_recording():
    levels = sys.getrecursionlimit() - 100 - len(inspect.stack())
    assert down(levels) == levels
    limit = sys.getrecursionlimit()
    with record() as recording:
        assert down(levels) == levels
    assert sys.getrecursionlimit() == limit
    assert max(call.depth for call in recording.trace.calls()) == levels


def test_functions_decorated_during_a_recording_are_recorded():
    with record() as recording:

        @traced
        def late():
            return leaf(1)

        late()
    assert shape(recording.trace) == [(0, "late"), (1, "leaf")]


def test_closures_of_one_definition_are_one_function():
    def make(offset):
        @traced
        def closure(number):
            return number + offset

        return closure

    first, second = make(1), make(2)
    assert first.__traced__ is second.__traced__
    with record():
        assert (first(1), second(1)) == (2, 3)
    gone = weakref.ref(first)
    del first
    assert gone() is None


def test_the_registry_has_identity_and_place():
    entry = next(e for e in registry() if e.function is caller)
    assert (entry.file, entry.name, entry.module) == ("block/test.c", "caller", __name__)
    assert entry.params == ("a", "b", "type", "*rest", "**more")
    assert entry.line in range(caller.__code__.co_firstlineno, caller.__code__.co_firstlineno + 2)
    assert [e.fid for e in registry()] == sorted(e.fid for e in registry())


def test_what_cannot_be_traced_is_named():
    with pytest.raises(TracerError, match="len"):
        traced(len)
    namespace = {"__name__": "somewhere", "traced": traced}
    with pytest.raises(TracerError, match=r"C_FILE.*somewhere"):
        exec("@traced\ndef f(): pass", namespace)


def test_a_second_recording_is_refused_and_the_first_goes_on():
    with record() as recording:
        with pytest.raises(TracerError, match="already"):
            record().start()
        with pytest.raises(TracerError, match="ended"):
            _ = recording.trace
        leaf(1)
    assert shape(recording.trace) == [(0, "leaf")]
    assert recording.stop() is None


def test_objects_are_not_kept_alive():
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    with record() as recording:
        leaf_of = traced_as(lambda thing: thing, "leaf_of", "x.c")
        leaf_of(thing)
        del thing
        assert gone() is None
    assert next(recording.trace.calls()).args == {"thing": ("?", "Thing")}


def test_broken_objects_do_no_harm():
    class Hostile(type):
        def __getattribute__(cls, name):
            raise RuntimeError(name)

    class Broken(metaclass=Hostile):
        def __getattribute__(self, name):
            raise RuntimeError(name)

        __repr__ = __str__ = __len__ = __eq__ = __hash__ = __bool__ = None

    class BrokenInt(int):
        __repr__ = __str__ = __add__ = __index__ = __int__ = __eq__ = None
        __hash__ = None

    class BrokenStr(str):
        __repr__ = __str__ = __len__ = __getitem__ = None

    class BrokenError(Exception):
        __str__ = __repr__ = None

    @traced
    def take(*values):
        raise BrokenError(values[0])

    with record() as recording, pytest.raises(BrokenError):
        take(object.__new__(Broken), BrokenInt(5), BrokenStr("five"), b"12", memoryview(b"123"), float("inf"))
    (call,) = recording.trace.calls()
    values = ("(", ("?", "Broken"), 5, "five", ("b", "bytes[2]"), ("b", "memoryview[3]"), float("inf"))
    assert call.args == {"*values": values}
    assert {type(value) for value in values if not isinstance(value, tuple)} == {str, int, float}
    assert call.exc == ("BrokenError", "")


def test_values_are_short():
    ring = []
    ring.append(ring)
    view = memoryview(b"abc")
    view.release()
    with record() as recording:
        for value in ("x" * 1000, [1] * 100, ring, view, leaf, Derived().method, print, renamed, 1 << 100):
            traced_as(lambda value: None, "take", "x.c")(value)
    values = [call.args["value"] for call in recording.trace.calls()]
    assert len(values[0]) == 200
    assert values[0].endswith("x…")
    assert values[1] == ("?", "list[100]")
    assert values[2] == ("[", ("[", ("[", ("?", "list[1]"))))
    assert values[3:8] == [
        ("b", "memoryview[released]"), ("&", "leaf"), ("&", "method"), ("&", "print"), ("&", "bdrv_raw_open"),
    ]  # fmt: skip
    assert values[8] == 1 << 100


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_is_not_recorded(tmp_path):
    path = tmp_path / "a.trace"
    with record(path) as recording:
        leaf(1)
        child = os.fork()
        if child == 0:
            leaf(2)
            recording.stop()
            os._exit(leaf.__code__.co_name != "leaf" or leaf(3) != 6)
        assert os.waitpid(child, 0)[1] == 0
        leaf(4)
    assert recording.trace.damage is None
    assert [call.args["number"] for call in recording.trace.calls()] == [1, 4]
