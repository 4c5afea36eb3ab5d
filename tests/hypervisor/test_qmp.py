"""QMP of 0.12.4: what programs send, what comes back, and a client that nobody here wrote.

What `ANSWERS` expects, 0.12.4 itself sent to the same line, byte for byte.
"""

import asyncio
import json
import math
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor.json_streamer import (
    MAX_DEPTH,
    MAX_SIZE,
    json_message_parser_feed,
    json_message_parser_init,
    json_parser_parse,
)
from hypervisor.monitor_commands import info_cmds, mon_cmds
from hypervisor.qjson import qobject_to_json
from tests.hypervisor import guest_code as asm
from tests.hypervisor.test_chardev import read_until, unix_client

GREETING = b'{"QMP": {"capabilities": []}}\r\n'
EMPTY = '{"return": {}}'
STOPPED = '{"return": {"singlestep": false, "running": false}}'


def failed(kind, desc, /, **data):
    words = ", ".join(f'"{key}": "{value}"' for key, value in data.items())
    return f'{{"error": {{"class": "{kind}", "desc": "{desc}", "data": {{{words}}}}}}}'


def unknown(name):
    return failed("CommandNotFound", f"The command {name} has not been found", name=name)


def bad_input(expected):
    return failed("QMPBadInputObject", "Bad QMP input object", expected=expected)


def missing(name):
    return failed("MissingParameter", f"Parameter {name} is missing", name=name)


def wrong_type(name, expected):
    text = f"Invalid parameter type, expected: {expected}"
    return failed("InvalidParameterType", text, name=name, expected=expected)


ANSWERS = {
    '{"execute":"qmp_capabilities"}': unknown("qmp_capabilities"),
    '{"execute":"query-version","id":5}': (
        '{"return": {"qemu": "0.12.4", "package": " (qemu-kvm-0.12.4)"}, "id": 5}'
    ),
    '{"execute":"query-status","id":{"a":[1,2.5,true,"x"]}}': (
        '{"return": {"singlestep": false, "running": false}, "id": {"a": [1, 2.5, true, "x"]}}'
    ),
    '{"execute":"query-status"}': STOPPED,
    "{'execute':'query-status'}": STOPPED,
    '{"execute":"query-\\u0073tatus"}': STOPPED,
    '{"execute":"query-name"}': '{"return": {"name": "vm1"}}',
    '{"execute":"query-kvm"}': '{"return": {"enabled": false, "present": true}}',
    '{"execute":"query-uuid"}': '{"return": {"UUID": "00000000-0000-0000-0000-000000000000"}}',
    '{"execute":"query-mice"}': ('{"return": [{"index": 0, "name": "QEMU PS/2 Mouse", "current": true}]}'),
    '{"execute":"query-migrate"}': EMPTY,
    '{"execute":"query-block"}': (
        '{"return": [{"device": "ide0-hd0", "locked": false, "removable": false, "inserted": {"ro": false, '
        '"drv": "raw", "encrypted": false, "file": "idle.img"}, "type": "hd"}, {"device": "ide1-cd0", '
        '"locked": false, "removable": true, "type": "cdrom"}, {"device": "floppy0", "locked": false, '
        '"removable": true, "type": "floppy"}, {"device": "sd0", "locked": false, "removable": true, '
        '"type": "floppy"}]}'
    ),
    '{"execute":"query-balloon"}': failed(
        "DeviceNotActive", "The balloon device has not been activated by the guest", device="balloon"
    ),
    '{"execute":"query-pci"}': unknown("pci"),
    '{"execute":"query-registers"}': unknown("registers"),
    '{"execute":"query-foo"}': unknown("foo"),
    '{"execute":"foo"}': unknown("foo"),
    '{"execute":"info"}': unknown("info"),
    '{"execute":"x"}': unknown("x"),
    '{"execute":"commit"}': unknown("commit"),
    '{"execute":5}': bad_input("string"),
    '{"exec":5}': bad_input("execute"),
    "{}": bad_input("execute"),
    "[]": bad_input("object"),
    "[1,2\n]": bad_input("object"),
    "5": bad_input("object"),
    '"abc"': bad_input("object"),
    "true": bad_input("object"),
    '{"execute":"eject"}': missing("device"),
    '{"execute":"eject","arguments":{"device":5}}': wrong_type("device", "string"),
    '{"execute":"eject","arguments":{"device":"foo"}}': failed(
        "DeviceNotFound", "The foo device has not been found", device="foo"
    ),
    '{"execute":"eject","arguments":{"device":"ide0-hd0"}}': failed(
        "DeviceNotRemovable", "Device ide0-hd0 is not removable", device="ide0-hd0"
    ),
    '{"execute":"eject","arguments":{"device":"ide1-cd0","force":true}}': EMPTY,
    '{"execute":"eject","arguments":{"device":"ide1-cd0","force":"x"}}': wrong_type("force", "bool"),
    '{"execute":"eject","arguments":{"device":"ide1-cd0","foo":"x"}}': EMPTY,
    '{"execute":"change","arguments":{"device":"ide1-cd0"}}': missing("target"),
    '{"execute":"change","arguments":{"device":"ide1-cd0","target":"idle.img","arg":"foo"}}': failed(
        "InvalidBlockFormat", "Invalid block format foo", name="foo"
    ),
    '{"execute":"memsave","arguments":{"val":0,"size":16,"filename":"m"}}': EMPTY,
    '{"execute":"memsave","arguments":{"val":0,"size":"16","filename":"m"}}': wrong_type("size", "int"),
    '{"execute":"pmemsave","arguments":{"val":0,"size":16,"filename":"/nonexist/m"}}': failed(
        "UndefinedError", "An undefined error has ocurred"
    ),
    '{"execute":"getfd","arguments":{"fdname":"a"}}': failed(
        "FdNotSupplied", "No file descriptor supplied via SCM_RIGHTS"
    ),
    '{"execute":"closefd","arguments":{"fdname":"a"}}': failed(
        "FdNotFound", "Failed to find file descriptor named a", name="a"
    ),
    '{"execute":"stop"}': EMPTY,
}
BROKEN = failed("JSONParsing", "Invalid JSON syntax")
# 0.12.4 is silent from the first of these on.
MALFORMED = {
    '{"execute" "x"}': BROKEN,
    '{"execute":}': BROKEN,
    '{"a":null}': BROKEN,
    "}": BROKEN,
    '{"execute":"query-status"]': BROKEN,
    "}}": BROKEN,
    "[" * 200: BROKEN,
    '{"execute":"query-status","arguments":[]}': STOPPED,
    '{"execute":"eject","arguments":[]}': bad_input("object"),
    "@": BROKEN,
    "\x01\x02": BROKEN,
    '{"execute":"change","arguments":{"device":"ide1-cd0","target":"a\\u0000b"}}': EMPTY,
    '{"execute":"change","arguments":{"device":"ide1-cd0","target":"a\\ud800b"}}': failed(
        "UndefinedError", "An undefined error has ocurred"
    ),
    '"\\x"': BROKEN,
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asm.write_disk("idle.img", asm.put("I") + b"\xf4\xeb\xfd")
    return tmp_path


@pytest.fixture
def start(here, machine):
    def started(*options):
        quiet = ("-nographic", "-serial", "null", "-monitor", "null")
        return machine("-hda", "idle.img", *quiet, "-qmp", "unix:qmp,server,nowait", *options)

    return started


def exchange(client, line):
    client.sendall(line.encode("latin-1") + b"\n")
    return read_until(client, b"\r\n").decode()


def test_every_message_is_answered_as_by_the_real_one(start):
    start("-S", "-name", "vm1")
    with unix_client("qmp") as client:
        assert read_until(client, b"\r\n") == GREETING
        found = {line: exchange(client, line).removesuffix("\r\n") for line in ANSWERS}
    assert found == ANSWERS


def test_malformed_messages_are_answered_and_forgotten(start):
    running = start("-S")
    with unix_client("qmp") as client:
        read_until(client, b"\r\n")
        for line, expected in MALFORMED.items():
            assert (line, exchange(client, line)) == (line, expected + "\r\n")
        client.sendall(b'{"execute":"quit"}\n')
        status, errors = running.end()
    assert status == 0 and "fault of studykvm" not in errors


VALUES = [
    "ide1-cd0", "floppy0", "idle.img", "a\0b", "\ud800", "/nonexist/x", "", "raw", "x" * 500, "fd:a",
    5, -1, 1 << 70, 1.5, True, [], {},
]  # fmt: skip
KEYS = ["device", "target", "arg", "force", "value", "fdname", "password", "item", "id"]


@pytest.mark.parametrize("seed", range(2), ids=["one", "two"])
def test_any_arguments_are_answered(start, seed):
    any_of = random.Random(seed)
    running = start()
    names = [f"query-{cmd.name}" for cmd in info_cmds]
    # What ends the machine, or writes where the arguments say.
    left_out = {"q|quit", "memsave", "pmemsave", "migrate"}
    names += [cmd.name.rpartition("|")[2] for cmd in mon_cmds if cmd.name not in left_out]
    with unix_client("qmp") as client:
        read_until(client, b"\r\n")
        for number in range(120):
            arguments = {key: any_of.choice(VALUES) for key in any_of.sample(KEYS, any_of.randrange(6))}
            message = {"execute": any_of.choice(names), "arguments": arguments, "id": number}
            client.sendall(json.dumps(message).encode() + b"\n")
            said = read_until(client, b'"id": %d' % number)
            while not said.endswith(b"\r\n"):
                said += client.recv(65536)
            assert all(json.loads(line) for line in said.splitlines())
        client.sendall(b'{"execute":"quit"}\n')
        status, errors = running.end()
    assert status == 0 and "fault of studykvm" not in errors


def test_two_messages_in_one_packet_and_one_in_many(start):
    start("-S")
    with unix_client("qmp") as client:
        read_until(client, b"\r\n")
        client.sendall(b'{"execute":"query-status"}{"execute":"query-name"}\n')
        said = read_until(client, b'{"return": {}}\r\n')
        assert said.decode() == f"{STOPPED}\r\n{EMPTY}\r\n"
        for byte in b'{"execute":\n"query-status"}':
            client.sendall(bytes((byte,)))
        assert read_until(client, b"\r\n").decode() == STOPPED + "\r\n"


def test_query_commands_names_what_there_is(start):
    start("-S")
    with unix_client("qmp") as client:
        read_until(client, b"\r\n")
        names = [
            entry["name"] for entry in json.loads(exchange(client, '{"execute":"query-commands"}'))["return"]
        ]
        assert {"pci_add", "pci_del"} <= set(names)
        assert names[:7] == ["quit", "eject", "change", "stop", "cont", "system_reset", "system_powerdown"]
        assert names[-3:] == ["query-uuid", "query-migrate", "query-balloon"]
        for name in names:
            if name.startswith("query-"):
                assert "return" in exchange(client, json.dumps({"execute": name})) or name == "query-balloon"


def test_a_new_client_is_greeted_and_knows_nothing_of_the_last(start):
    running = start("-S")
    with unix_client("qmp") as client:
        read_until(client, b"\r\n")
        client.sendall(b'{"execute":"query-status","id":7')
    with unix_client("qmp") as client:
        assert read_until(client, b"\r\n") == GREETING
        assert exchange(client, '{"execute":"query-status"}') == STOPPED + "\r\n"
        client.sendall(b'{"execute":"quit"}')
        assert running.end()[0] == 0


def test_events(start):
    running = start()
    with unix_client("qmp") as client:
        read_until(client, b"\r\n")
        client.sendall(b'{"execute":"system_reset"}\n')
        said = read_until(client, b"RESET")
        client.sendall(b'{"execute":"system_powerdown"}\n')
        said = read_until(client, b"POWERDOWN", said)
        # The guest has not enabled the button, so it runs on.
        client.sendall(b'{"execute":"quit"}\n')
        assert running.end()[0] == 0
    event = r'\{"timestamp": \{"seconds": \d{10,}, "microseconds": \d+\}, "event": "RESET"\}\r\n'
    assert re.search(event, said.decode())


def test_a_guest_that_switches_off_is_an_event(start):
    asm.write_disk("idle.img", asm.put("I") + asm.OFF)
    running = start("-S")
    with unix_client("qmp") as client:
        read_until(client, b"\r\n")
        client.sendall(b'{"execute":"cont"}\n')
        read_until(client, b'"event": "SHUTDOWN"}\r\n')
        assert running.end()[0] == 0


def test_a_mode_that_is_none(here, machine):
    running = machine("-hda", "idle.img", "-nographic", "-chardev", "null,id=a", "-mon", "chardev=a,mode=foo")
    status, errors = running.end()
    assert status == 1 and 'unknown monitor mode "foo"' in errors


@pytest.mark.parametrize("modern", [False, True], ids=["as-0.12.4", "modern"])
def test_qemus_own_client(start, modern):
    qmp = pytest.importorskip("qemu.qmp", reason="QEMU's client is not here: pip install qemu.qmp")
    asm.write_disk("medium.img", b"")
    running = start(*(["--modern"] if modern else []))
    with unix_client("qmp"):
        pass

    async def talk():
        client = qmp.QMPClient("studykvm")
        # The greeting of 0.12.4 has no version, and nothing is negotiated.
        client.await_greeting = client.negotiate = modern
        await asyncio.wait_for(client.connect("qmp"), 20)
        if modern:
            version = client.greeting.QMP.version["qemu"]
            assert version == {"major": 0, "minor": 12, "micro": 4}
        with client.listener("RESET") as resets:
            assert (await client.execute("query-status"))["running"] is True
            await client.execute("stop")
            assert (await client.execute("query-status"))["running"] is False
            await client.execute("change", {"device": "ide1-cd0", "target": "medium.img"})
            blocks = {entry["device"]: entry for entry in await client.execute("query-block")}
            assert blocks["ide1-cd0"]["inserted"]["file"] == "medium.img"
            await client.execute("eject", {"device": "ide1-cd0"})
            with pytest.raises(qmp.ExecuteError, match="The sd9 device has not been found") as failure:
                await client.execute("eject", {"device": "sd9"})
            assert failure.value.error_class == "DeviceNotFound"
            await client.execute("cont")
            await client.execute("system_reset")
            event = await asyncio.wait_for(resets.get(), 20)
            assert event["event"] == "RESET"
        with pytest.raises(qmp.ExecInterruptedError):
            await client.execute("quit")
        with pytest.raises(EOFError):
            await client.disconnect()

    asyncio.run(talk())
    assert running.end()[0] == 0


def parsed(data, step=7):
    """What the stream parser makes of bytes that come in small pieces."""
    found = []

    def take(parser, text):
        try:
            found.append(ValueError if text is None else json_parser_parse(text))
        except ValueError:
            found.append(ValueError)

    parser = json_message_parser_init(take)
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        json_message_parser_feed(parser, piece, len(piece))
    return found, parser


# C's strings end at a NUL, so there is none in them.
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
leaves = st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | words
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner))
objects = st.dictionaries(words, values, max_size=4)


@given(st.lists(objects, max_size=4), st.integers(1, 9))
def test_json_comes_through_the_stream(messages, step):
    data = "\n".join(json.dumps(message, ensure_ascii=False) for message in messages)
    assert parsed(data.encode(), step)[0] == messages


@given(objects)
def test_what_is_written_is_json(message):
    assert json.loads(qobject_to_json(message)) == message


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9))
def test_fractions_are_written_with_six_digits(number):
    assert math.isclose(float(qobject_to_json(number)), number, abs_tol=5e-7)


@given(st.binary(max_size=200))
def test_any_bytes_are_survived_and_the_next_line_is_read(noise):
    found, parser = parsed(noise)
    # Close whatever the noise has opened.
    for closing in (b"\n", b"'\n", b'"\n', b"\\\n'\n", b'"]}' * MAX_DEPTH + b"\n"):
        json_message_parser_feed(parser, closing, len(closing))
    assert len(parser.text) <= MAX_SIZE
    fresh = json_message_parser_init(lambda p, text: found.append(text))
    json_message_parser_feed(fresh, b"{}", 2)
    assert found[-1] == "{}"


def test_a_message_has_a_limit_in_size_and_depth():
    found, parser = parsed(b'{"a": "' + b"x" * (2 * MAX_SIZE), step=4096)
    assert found == [ValueError] and len(parser.text) == 0
    found, _ = parsed(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"[" * (MAX_DEPTH + 1) + b"]\n5 ")
    assert [found[0] is ValueError, *found[1:]] == [False, ValueError, 5]
