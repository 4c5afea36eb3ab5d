"""Structures of the model against those that were recorded from the real program.

- `compare(trace, events) -> list[str]`: what differs, one line each; empty when equal.

Looked at are the entry and the exit of `FUNCTIONS`, and all named block devices at the start of the main
loop. The k-th call of a function here is the k-th there. Equal means: the same scalar fields, and a
one-to-one map between addresses there and objects here that fits every pointer. An address may be used again
for another object when the first one has gone. `IGNORED` fields are left out, each for its reason.

A recorded structure is a dict of its fields, with `@` its address and `opaque->` the driver's own one.
Pointers are `"0x9fb5d0"`, `"&bdrv_raw"` or `"&cdrom_change_cb (hw/ide/core.c)"`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracer import Call, Trace

FUNCTIONS = ("bdrv_open2", "qcow_open", "raw_open", "bdrv_close")
LOOPS = ("main_loop", "command_loop")

_BUFFER = "a buffer: its address is free, and a trace does not hold its content"
IGNORED = {
    "fd": "a file descriptor: the lowest that is free",
    "aligned_buf": _BUFFER,
    "l1_table": _BUFFER,
    "l2_cache": _BUFFER,
    "cluster_cache": _BUFFER,
    "cluster_data": _BUFFER,
    "refcount_table": _BUFFER,
    "refcount_block_cache": _BUFFER,
    "snapshots": _BUFFER,
    "dirty_bitmap": _BUFFER,
    "cluster_allocs": "the head of a list: a structure in C, a list of Python here",
}

Recorded = dict[str, Any]
State = dict[str, Any]


def compare(trace: Trace, events: list[Recorded]) -> list[str]:
    """Hold a trace against the events of one `structures_*.json.gz` (see `graphs.recordings.structures`)."""
    pairing = _Pairing()
    for place, step, object_, recorded in _moments(trace, events):
        if step is None:
            pairing.faults.append(f"{place}: the model does not come there")
            continue
        state = trace.state_at(step)
        if isinstance(recorded, list):
            pairing.devices(place, state, recorded)
        else:
            pairing.bind(place, state, str(recorded["@"]), object_)
            pairing.structure(place, state, recorded)
    return pairing.faults


def _moments(
    trace: Trace, events: list[Recorded]
) -> Iterator[tuple[str, int | None, Any, Recorded | list[Recorded]]]:
    """Yield (place, step, encoded object, recorded structure or device list) in recorded order."""
    calls: dict[str, list[Call]] = {name: [] for name in (*FUNCTIONS, *LOOPS)}
    for made in trace.calls():
        if made.function in calls:
            calls[made.function].append(made)
    entered: Counter[str] = Counter()
    open_: list[int] = []
    for event in events:
        function = event.get("fn") or str(event.get("at", "")).removeprefix("entry of ")
        if event["ev"] == "snapshot":
            if function in LOOPS:
                step = calls[function][0].step if calls[function] else None
                yield f"start of {function}", step, None, event["all"]["bdrv_first"]
        elif function in FUNCTIONS and "bs" in event:
            if event["ev"] == "enter":
                open_.append(entered[function])
                entered[function] += 1
            number = open_[-1] if event["ev"] == "enter" else open_.pop()
            call = calls[function][number] if number < len(calls[function]) else None
            step = None if call is None else call.step if event["ev"] == "enter" else call.exit_step
            place = f"{function}:{event['ev']}#{number + 1}"
            yield place, step, call.args.get("bs") if call else None, event["bs"]


class _Pairing:
    """Which object here is which address there, and what did not fit."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._object: dict[str, str] = {}
        self._address: dict[str, str] = {}

    def devices(self, place: str, state: State, recorded: list[Recorded]) -> None:
        """Compare all block devices, starting from the first of the list."""
        heads = [fields["bdrv_first"] for fields in state.values() if fields.get("bdrv_first")]
        if not heads:
            self.faults.append(f"{place}: the model has no named device")
            return
        self.bind(place, state, str(recorded[0]["@"]), heads[0])
        for structure in recorded:
            self.structure(place, state, structure)

    def bind(self, place: str, state: State, address: str, value: Any) -> None:
        """Pair an address with an object; complain if either has another partner that still exists."""
        if not (isinstance(value, tuple) and len(value) == 2 and value[0] == "@"):
            self.faults.append(f"{place}: {value!r} is no pointer to a structure; recorded is {address}")
            return
        name = value[1]
        known = self._object.get(address)
        if known not in (None, name) and known in state:
            self.faults.append(f"{place}: points to {name}, where the real program points to {known}")
        taken = self._address.get(name)
        if taken not in (None, address):
            self.faults.append(f"{place}: points to {name}, which is another object in the real program")
        self._object[address], self._address[name] = name, address

    def structure(self, place: str, state: State, recorded: Recorded) -> None:
        """Compare one structure, whose address is paired, and the driver's own one behind it."""
        name = self._object.get(str(recorded["@"]))
        if name is None or name not in state:
            self.faults.append(f"{place}: nothing here points to the structure reached {_how(recorded)}")
            return
        self._fields(place, state, name, recorded)
        behind = recorded.get("opaque->")
        opaque = state[name].get("opaque")
        if behind and isinstance(opaque, tuple) and opaque[1] in state:
            inner = state[opaque[1]]
            if inner.struct != recorded["opaque type"].split()[-1]:
                self.faults.append(f"{place}: {name}->opaque is a {inner.struct}: {recorded['opaque type']}")
            self._fields(place, state, opaque[1], behind)

    def _fields(self, place: str, state: State, name: str, recorded: Recorded) -> None:
        ours = state[name]
        for field, theirs in recorded.items():
            if field in IGNORED or not field.isidentifier():
                continue
            where = f"{place}: {name}->{field}"
            if field not in ours:
                self.faults.append(f"{where} is not modelled")
            elif isinstance(theirs, str) and theirs.startswith("0x"):
                self.bind(where, state, theirs, ours[field])
            elif _plain(theirs) != ours[field]:
                self.faults.append(f"{where} is {ours[field]!r}, recorded {theirs!r}")


def _plain(theirs: Any) -> Any:
    """Turn a recorded value into what a trace would hold.

    >>> _plain("&cdrom_change_cb (hw/ide/core.c)"), _plain("overlay.img"), _plain(None)
    (('&', 'cdrom_change_cb'), 'overlay.img', None)
    """
    if isinstance(theirs, str) and theirs.startswith("&"):
        return "&", theirs[1:].partition(" ")[0]
    return theirs


def _how(recorded: Recorded) -> str:
    return f"by {recorded['reached by']}" if "reached by" in recorded else f"as {recorded['@']}"
