"""At the switch the two machines are equal, looked at from outside: memory, processor and devices, byte for
byte.

Hypothesis chooses what stands in memory, how fast the guest changes it, the rate and the moment.
STUDYKVM_EXAMPLES says how many times.
"""

import os
import random
import struct
import time

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hypervisor.stream_reader import read_stream
from studykvm import guests
from tests.hypervisor.test_migration import Side, assert_counts_on, free_port

EXAMPLES = int(os.environ.get("STUDYKVM_EXAMPLES", "3"))
PAGE = 4096
FREE_PAGES = range(0x200, 0x800)
"""Those of 8 MiB that the guest leaves alone."""
# The clock that the guest reads would go on while both machines stand.
CLOCK = ("-rtc", "clock=vm")

contents = st.one_of(
    st.integers(0, 255).map(lambda byte: bytes([byte]) * PAGE),
    st.integers(0, 1 << 32).map(lambda seed: random.Random(seed).randbytes(PAGE)),
    # One byte only, but for one.
    st.tuples(st.integers(0, 255), st.integers(0, PAGE - 1)).map(
        lambda drawn: bytes([drawn[0]]) * drawn[1] + b"\xa5" + bytes([drawn[0]]) * (PAGE - 1 - drawn[1])
    ),
)


def with_pages(path, pages):
    """A saved machine with other contents in its memory."""
    with open(path, "rb") as file:
        end = next(part for part in read_stream(file) if (part.idstr, part.kind) == ("ram", "end"))
    stream = path.read_bytes()
    at = end.offset + end.size - 8
    assert stream[at : at + 8] == struct.pack(">Q", 0x10)
    more = b"".join(struct.pack(">Q", number * PAGE | 8) + page for number, page in pages.items())
    return stream[:at] + more + stream[at:]


def looked_at(side, folder, name):
    """Memory, registers and devices of a machine that stands."""
    memory, state = folder / f"{name}.memory", folder / f"{name}.state"
    side.ask(f'pmemsave 0 {8 << 20} "{memory}"')
    registers = side.ask("info registers").partition("EAX=")[2]
    side.ask(f'migrate "exec:cat > {state}"')
    with open(state, "rb") as file:
        parts = [part for part in read_stream(file) if part.kind == "full"]
    stream = state.read_bytes()
    devices = {
        (part.idstr, part.instance_id): stream[part.offset : part.offset + part.size] for part in parts
    }
    return memory.read_bytes(), registers, devices


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    filled=st.dictionaries(st.sampled_from(FREE_PAGES), contents, max_size=40),
    pages=st.sampled_from((0, 1, 60, 448)),
    turns=st.sampled_from((0, 2_000, 100_000)),
    speed=st.sampled_from(("300k", "2m", "32m", "1g")),
    downtime=st.sampled_from(("1ms", "30ms", "1")),
    moment=st.floats(0, 0.3),
    unix=st.booleans(),
)
def test_both_sides_are_equal_at_the_switch(
    machine, tmp_path_factory, filled, pages, turns, speed, downtime, moment, unix
):
    folder = tmp_path_factory.mktemp("equal")
    guests.write_count_disk(str(folder / "count.img"), pages, turns)

    def side(name, *argv):
        return Side(machine, folder, name, *CLOCK, *argv, memory="8")

    first = side("first")
    first.wait_for_numbers(5)
    first.ask(f'migrate "exec:cat > {folder}/first.state"')
    first.stop()
    (folder / "filled.state").write_bytes(with_pages(folder / "first.state", filled))
    at = f"unix:{folder}/way" if unix else f"tcp:127.0.0.1:{free_port()}"
    destination = side("destination", "-S", "-incoming", at)
    source = side("source", "-incoming", f"exec:cat {folder}/filled.state")
    source.wait_for_numbers(5)
    time.sleep(moment)
    source.ask(f"migrate_set_speed {speed}")
    source.ask(f"migrate_set_downtime {downtime}")
    source.ask(f"migrate {at}", seconds=90)
    assert "Migration status: completed" in source.ask("info migrate")
    assert source.status() == destination.status() == "paused"
    here, there = (looked_at(each, folder, name) for each, name in ((source, "here"), (destination, "there")))
    for what, ours, theirs in zip(("memory", "registers", "devices"), here, there, strict=True):
        assert ours == theirs, what
    for number, page in filled.items():
        assert there[0][number * PAGE : (number + 1) * PAGE] == page
    assert {"cpu", "timer", "ide", "i8259", "serial"} <= {name for name, _ in there[2]}
    destination.ask("cont")
    destination.wait_for_numbers(5)
    source.stop()
    destination.stop()
    assert_counts_on(first.numbers() + source.numbers() + destination.numbers())
