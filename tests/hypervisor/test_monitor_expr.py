"""Expressions of the monitor against Python's own arithmetic, and lines cut into arguments."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hypervisor import monitor
from hypervisor.monitor import Monitor
from hypervisor.monitor_commands import info_cmds, mon_cmds
from hypervisor.monitor_expr import get_expr
from hypervisor.monitor_parse import get_str, monitor_parse_command
from hypervisor.qemu_char import CharDriverState


class Listener:
    """A monitor, and what is printed on it."""

    def __init__(self):
        self.said = ""
        self.mon = Monitor(chr=CharDriverState(chr_write=self.write), fds={})

    def write(self, chr, buf, length):
        self.said += buf.decode().replace("\r\n", "\n")
        return length


@pytest.fixture
def listener(monkeypatch):
    listener = Listener()
    monkeypatch.setattr(monitor, "cur_mon", listener.mon)
    return listener


def wrap(number):
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def divide(a, b):
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


OPERATORS = [
    {"+": lambda a, b: a + b, "-": lambda a, b: a - b},
    {"&": lambda a, b: a & b, "|": lambda a, b: a | b, "^": lambda a, b: a ^ b},
    {"*": lambda a, b: a * b, "/": divide, "%": lambda a, b: a - b * divide(a, b)},
]
"""From the weakest to the strongest, as 0.12.4 has them: & is stronger than +, unlike in C."""
NUMBERS = st.integers(0, (1 << 63) - 1) | st.integers(0, 9)
SPELLINGS = st.sampled_from([str, hex, lambda n: f"0{n:o}"])


@st.composite
def expressions(draw, level=0, depth=2):
    """(text, value) of an expression whose operators are of this level or stronger."""
    if level < len(OPERATORS):
        text, value = draw(expressions(level + 1, depth))
        for _ in range(draw(st.integers(0, 2))):
            operator = draw(st.sampled_from(sorted(OPERATORS[level])))
            more, other = draw(expressions(level + 1, depth))
            if other or operator not in "/%":
                text += f"{draw(st.sampled_from(['', ' ']))}{operator} {more}"
                value = wrap(OPERATORS[level][operator](value, other))
        return text, value
    kind = draw(st.sampled_from(["number", "sign", "bracket"])) if depth else "number"
    if kind == "number":
        number = draw(NUMBERS)
        return draw(SPELLINGS)(number), number
    if kind == "sign":
        sign = draw(st.sampled_from("+-~"))
        text, value = draw(expressions(len(OPERATORS), depth - 1))
        return sign + text, wrap({"+": value, "-": -value, "~": ~value}[sign])
    text, value = draw(expressions(0, depth - 1))
    return f"({text} )", value


@given(expressions())
def test_values(expression):
    text, value = expression
    listener = Listener()
    assert get_expr(listener.mon, f" {text} rest") == (0, value, "rest")
    assert listener.said == ""


@given(st.text("0123456789abcxXulg()+-*/%&|^~'$ \t.", max_size=30))
def test_any_text_is_a_value_or_one_message(text):
    listener = Listener()
    # Registers want a machine.
    ret, value, _ = get_expr(listener.mon, text.replace("$", "#"))
    assert (ret, listener.said.count("\n")) in ((0, 0), (-1, 1))
    assert value == wrap(value)


@given(st.text(st.characters(codec="utf-8"), max_size=60))
@example("\x85")
@example("eject \u3000a")
def test_any_line_is_cut(line):
    listener = Listener()
    held, monitor.cur_mon = monitor.cur_mon, listener.mon
    try:
        qdict = {}
        cmd = monitor_parse_command(listener.mon, line.replace("$", "#"), qdict)
        assert cmd is not None or listener.said or not line.strip(" \t\n\v\f\r")
        get_str(1024, line)
    finally:
        monitor.cur_mon = held


CUT = {
    "eject -f ide1-cd0": {"force": 1, "device": "ide1-cd0"},
    "eject ide1-cd0": {"force": 0, "device": "ide1-cd0"},
    'change ide1-cd0 "a b\\n" raw': {"device": "ide1-cd0", "target": "a b\n", "arg": "raw"},
    "change ide1-cd0 a.img": {"device": "ide1-cd0", "target": "a.img"},
    "migrate -d -i tcp:0:1": {"detach": 1, "blk": 0, "inc": 1, "uri": "tcp:0:1"},
    "migrate -b tcp:0:1": {"detach": 0, "blk": 1, "inc": 0, "uri": "tcp:0:1"},
    "x/3ob 16+1": {"count": 3, "format": ord("o"), "size": 1, "addr": 17},
    "sendkey a 5*2": {"string": "a", "hold_time": 10},
    "balloon 2": {"value": 2 << 20},
    "i/h 0x70 . 5": {"count": 1, "format": ord("x"), "size": 2, "addr": 0x70, "index": 5},
    "info": {},
}


@pytest.mark.parametrize("line", CUT)
def test_arguments(listener, line, monkeypatch):
    from hypervisor import monitor_parse

    monkeypatch.setattr(monitor_parse, "_default_format", dict(monitor_parse._DEFAULT_FORMAT))
    qdict = {}
    cmd = monitor_parse_command(listener.mon, line, qdict)
    assert cmd is not None, listener.said
    assert qdict == CUT[line]


def test_every_command_has_its_functions():
    for cmd in (*mon_cmds, *info_cmds):
        if cmd.is_modelled():
            assert callable(cmd.handler())
        if cmd.is_modelled() and cmd.user_print_name:
            assert callable(cmd.user_print)
    names = [name for cmd in mon_cmds for name in cmd.name.split("|")]
    assert len(names) == len(set(names))
