"""QMP, the monitor that programs speak to: a part of monitor.c (0.12.4's, the first that had it).

    <- {"QMP": {"capabilities": []}}
    -> {"execute": "query-status", "id": 1}
    <- {"return": {"singlestep": false, "running": true}, "id": 1}
    <- {"timestamp": {"seconds": 1267020223, "microseconds": 435656}, "event": "STOP"}

A client of today's QMP expects a version in the greeting and negotiates: with the words of QEMU 7.2 (see
`hypervisor.wording`) the greeting has one, and `qmp_capabilities` is answered.

- `handle_qmp_command(parser, tokens)`: execute one message.
- `monitor_protocol_event(event, data)`: tell all clients of an event, QEVENT_*.
- `monitor_protocol_emitter(mon, data)`: answer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hypervisor import icount, monitor, wording
from hypervisor.json_streamer import (
    JSONMessageParser,
    json_message_parser_feed,
    json_message_parser_init,
    json_parser_parse,
)
from hypervisor.monitor import (
    Arguments,
    Monitor,
    monitor_call_handler,
    monitor_ctrl_mode,
    monitor_handler_ported,
    monitor_has_error,
    monitor_printf,
    monitors,
    qemu_errors_to_mon,
    qemu_errors_to_previous,
)
from hypervisor.monitor import qemu_error_new as error
from hypervisor.monitor_commands import Command
from hypervisor.monitor_parse import compare_cmd, monitor_find_command
from hypervisor.qemu_char import CHR_EVENT_OPENED
from hypervisor.qerror import (
    QERR_COMMAND_NOT_FOUND,
    QERR_INVALID_PARAMETER_TYPE,
    QERR_JSON_PARSING,
    QERR_MISSING_PARAMETER,
    QERR_QMP_BAD_INPUT_OBJECT,
    qerror_human,
)
from hypervisor.qjson import QObject, qobject_to_json
from hypervisor.version import QEMU_PKGVERSION, QEMU_VERSION
from tracer import traced

C_FILE = "monitor.c"

QEVENT_DEBUG, QEVENT_SHUTDOWN, QEVENT_RESET, QEVENT_POWERDOWN, QEVENT_STOP = range(5)
_EVENTS = ("DEBUG", "SHUTDOWN", "RESET", "POWERDOWN", "STOP")


@traced
def monitor_json_emitter(mon: Monitor, data: QObject) -> None:
    """Send an object in one line."""
    json = qobject_to_json(data)
    mon.control.print_enabled = 1
    monitor_printf(mon, "%s\n", json)
    mon.control.print_enabled = 0


@traced
def monitor_protocol_emitter(mon: Monitor, data: QObject) -> None:
    """Answer with a result, or with the error that the command left."""
    qmp: dict[str, Any] = {}
    if not monitor_has_error(mon):
        qmp["return"] = {} if data is None else data
    else:
        assert mon.error is not None and mon.error.error is not None
        qmp["error"] = mon.error.error | {"desc": qerror_human(mon.error)}
        mon.error = None
    if mon.control.has_id:
        qmp["id"] = mon.control.id
        mon.control.has_id, mon.control.id = 0, None
    monitor_json_emitter(mon, qmp)


@traced
def timestamp_put(qdict: dict[str, Any]) -> None:
    """Add the time."""
    seconds, microseconds = divmod(icount.time_ns() // 1000, 1_000_000)
    qdict["timestamp"] = {"seconds": seconds, "microseconds": microseconds}


@traced
def monitor_protocol_event(event: int, data: QObject) -> None:
    """Tell all clients of an event."""
    listening = [mon for mon in monitors() if monitor_ctrl_mode(mon)]
    qmp: dict[str, Any] = {}
    timestamp_put(qmp)
    qmp["event"] = _EVENTS[event]
    if data is not None:
        qmp["data"] = data
    for mon in listening:
        monitor_json_emitter(mon, qmp)


def _negotiate(mon: Monitor, qdict: Arguments) -> None:
    """Agree to whatever a client of today's QMP enables: there is nothing to enable."""


_CAPABILITIES = Command("qmp_capabilities", "", "", "", "monitor_qmp:_negotiate", "*")


class CmdArgs(NamedTuple):
    """`CmdArgs`: one entry of a command's list of argument types."""

    name: str
    type: str
    optional: bool


@traced
def check_opt(cmd_args: CmdArgs, name: str, args: Arguments) -> int:
    """Look at an argument that is missing; 0, or -1 after an error."""
    if not cmd_args.optional:
        error(QERR_MISSING_PARAMETER, name=name)
        return -1
    if cmd_args.type == "-":
        args[name] = 0
    return 0


@traced
def check_arg(cmd_args: CmdArgs, args: Arguments) -> int:
    """Look at an argument's type; 0, or -1 after an error."""
    name = cmd_args.name
    if name not in args:
        return check_opt(cmd_args, name, args)
    value = args[name]
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if cmd_args.type in "FBs":
        right, expected = isinstance(value, str), "string"
    elif cmd_args.type == "-":
        right, expected = isinstance(value, int), "bool"
        args[name] = int(value) if right else value
    else:
        right, expected = is_int, "int"
    if not right:
        error(QERR_INVALID_PARAMETER_TYPE, name=name, expected=expected)
        return -1
    return 0


def _expected(args_type: str) -> list[CmdArgs]:
    """What a command's list of types asks for.

    >>> _expected("force:-f,device:B")[0]
    CmdArgs(name='force', type='-', optional=True)
    """
    found = []
    for entry in filter(None, args_type.split(",")):
        name, _, kind = entry.partition(":")
        found.append(CmdArgs(name, kind[0], kind[0] == "-" or kind[1:2] == "?"))
    return found


@traced
def monitor_check_qmp_args(cmd: Command, args: Arguments) -> int:
    """Look at the arguments of a message; 0, or -1 after an error."""
    return -1 if any(check_arg(cmd_args, args) < 0 for cmd_args in _expected(cmd.args_type)) else 0


def _find(name: str, message: dict[str, Any]) -> Command | None:
    """The command of a message; `query-ITEM` is `info ITEM`. None after an error."""
    if compare_cmd(name, "info"):
        error(QERR_COMMAND_NOT_FOUND, name=name)
        return None
    if name.startswith("query-"):
        message["arguments"] = {"item": name.removeprefix("query-")}
        return monitor_find_command("info")
    if wording.modern() and name == "qmp_capabilities":
        return _CAPABILITIES
    cmd = monitor_find_command(name)
    if cmd is None or not cmd.is_modelled() or not monitor_handler_ported(cmd):
        error(QERR_COMMAND_NOT_FOUND, name=name)
        return None
    return cmd


def _read(tokens: str | None) -> dict[str, Any] | None:
    """A message; None after an error."""
    try:
        obj = None if tokens is None else json_parser_parse(tokens)
    except ValueError:
        obj = None
    if obj is None:
        error(QERR_JSON_PARSING)
        return None
    if not isinstance(obj, dict):
        error(QERR_QMP_BAD_INPUT_OBJECT, expected="object")
        return None
    return obj


def _command(mon: Monitor, tokens: str | None) -> tuple[Command, Arguments] | None:
    """The command of a message and its arguments; None when the answer is out or an error is kept."""
    message = _read(tokens)
    if message is None:
        return None
    if "id" in message:
        mon.control.has_id, mon.control.id = 1, message["id"]
    name = message.get("execute")
    if not isinstance(name, str):
        error(QERR_QMP_BAD_INPUT_OBJECT, expected="string" if "execute" in message else "execute")
        return None
    cmd = _find(name, message)
    if cmd is None:
        return None
    args = message.get("arguments", {})
    if not isinstance(args, dict):
        # 0.12.4 ends here.
        error(QERR_QMP_BAD_INPUT_OBJECT, expected="object")
        return None
    return None if monitor_check_qmp_args(cmd, args) < 0 else (cmd, args)


@traced
def handle_qmp_command(parser: JSONMessageParser, tokens: str | None) -> None:
    """Execute a message and answer it; `tokens` is its text, None for what is none."""
    mon = monitor.cur_mon
    assert mon is not None
    qemu_errors_to_mon(mon)
    found = _command(mon, tokens)
    if found is None:
        monitor_protocol_emitter(mon, None)
    else:
        monitor_call_handler(mon, *found)
    qemu_errors_to_previous()


@traced
def monitor_control_read(opaque: Monitor, buf: bytes, size: int) -> None:
    """Take bytes of messages."""
    old_mon, monitor.cur_mon = monitor.cur_mon, opaque
    assert opaque.control.parser is not None
    json_message_parser_feed(opaque.control.parser, buf, size)
    monitor.cur_mon = old_mon


def _greeting() -> dict[str, Any]:
    capabilities: dict[str, Any] = {"capabilities": []}
    if wording.modern():
        major, minor, micro = map(int, QEMU_VERSION.split("."))
        numbers = {"major": major, "minor": minor, "micro": micro}
        capabilities["version"] = {"qemu": numbers, "package": QEMU_PKGVERSION}
    return {"QMP": capabilities}


@traced
def monitor_control_event(opaque: Monitor, event: int) -> None:
    """Greet a client."""
    if event == CHR_EVENT_OPENED:
        opaque.control.parser = json_message_parser_init(handle_qmp_command)
        opaque.control.has_id = 0
        monitor_json_emitter(opaque, _greeting())
