"""Judges of answers that name functions: one, a set, a way of calls, an order, a graph."""

from __future__ import annotations

import itertools
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from graphs.calls import CallTable
from studykvm.coursework import answers, scenes
from studykvm.coursework.answers import BadAnswer
from studykvm.coursework.sources import Calls, Name, recorded, source
from studykvm.coursework.verdict import Part

if TYPE_CHECKING:
    from tracer import Call, Trace


_MOST_OF_A_SET = 30
_MOST_OF_A_WAY = 60


def _few(named: list[Name], most: int) -> list[Name]:
    """Refuse an answer that names everything, in the hope that something of it is right."""
    if len(named) > most:
        raise BadAnswer(f"{len(named):,} functions are no answer: name those that the question asks for")
    return named


def _named(text: str) -> Name:
    return answers.function(text)


def _stranger(name: Name) -> Part | None:
    """A part for what is no function of the program; None if it is one."""
    if source().named(name):
        return None
    if name.file and source().named(Name("", name.name)):
        return Part(False, f"{name.name} is not in {name.file}")
    library = source().library(name.name)
    if library:
        return Part(
            False, f"{name.name} is the C library's; {_plural(len(library), 'place')} in the source call it"
        )
    near = source().near(name)
    hint = f"; did you mean {', '.join(near[:3])}?" if near else ""
    return Part(False, f"{name} is no function of qemu-kvm 0.12.4{hint}")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# -- which function is the first to be given a text


def first_function(spec: dict[str, Any], answer: Any) -> list[Part]:
    """Which function is the first that is given the name of the image: judged by a boot of the model."""
    named = answers.functions(answer)
    if len(named) > 5:
        raise BadAnswer("name one function")
    first = scenes.carriers()[0]
    parts = []
    for name in named:
        if name.matches(first.file, first.function):
            parts.append(Part(True, f"{_shown_call(first, 1)} is step {first.step} of a boot made now"))
        else:
            parts.append(_stranger(name) or Part(False, _not_first(name, first.step)))
    return parts


def _shown_call(call: Call, arguments: int) -> str:
    from tracer.values import show

    told = [f"{key}={show(value)}" for key, value in call.args.items()]
    return f"{call.function}({', '.join(told[:arguments])}{', ...' if len(told) > arguments else ''})"


def _not_first(name: Name, step: int) -> str:
    calls = scenes.given(name.name)
    if not calls:
        return f"{name.name} is not called at all in a boot with -hda {scenes.IMAGE}"
    if name.name == "main":
        return "main has all arguments, but does not read what stands behind -hda: it hands it on. To whom?"
    with_it = [c for c in calls if scenes.IMAGE in c.args.values()]
    if with_it:
        return (
            f"{name.name} is given {scenes.IMAGE!r}, too, but only in step {with_it[0].step} of a boot made "
            f"now; somebody is given it before, in step {step}"
        )
    more = f" (and {_plural(len(calls) - 1, 'more call')} without it)" if len(calls) > 1 else ""
    return f"{name.name} is never given the file's name: its first call is {_shown_call(calls[0], 3)}{more}"


# -- a set of functions


def _truth_set(spec: dict[str, Any]) -> tuple[set[tuple[str, str]], str]:
    """What a set question asks for, and where that is shown."""
    if "callers_of" in spec:
        return source().callers(_named(spec["callers_of"])), "the source"
    calls = recorded(spec["recording"])
    if "called_by" in spec:
        lines = calls.lines(_named(spec["called_by"]))
        below = {
            calls.name(child) for at in lines[: spec.get("times", 20)] for child in calls.children(at, False)
        }
        return below, calls.label
    found = set()
    for at in calls.lines(_named(spec["callers_in"])):
        if calls.sure(at):
            found.add(calls.name(calls.parents[at]))
    return found, calls.label


def function_set(spec: dict[str, Any], answer: Any) -> list[Part]:
    """A set of functions, in any order."""
    named = list(dict.fromkeys(_few(answers.functions(answer), _MOST_OF_A_SET)))
    truth, where = _truth_set(spec)
    parts, found = [], set()
    for name in named:
        fits = {one for one in truth if name.matches(*one)}
        found |= fits
        if fits:
            parts.append(Part(True, f"{name}: {_why_in(spec, name, where)}"))
        else:
            parts.append(_stranger(name) or Part(False, _why_not_in(spec, name, where)))
    missing = len(truth - found)
    if missing:
        parts.append(Part(False, f"{_plural(missing, 'function')} missing"))
    return parts


def _pair(spec: dict[str, Any], name: Name) -> tuple[Name, Name]:
    if "called_by" in spec:
        return _named(spec["called_by"]), name
    return name, _named(spec.get("callers_of") or spec["callers_in"])


def _why_in(spec: dict[str, Any], name: Name, where: str) -> str:
    caller, callee = _pair(spec, name)
    if "recording" in spec:
        at = recorded(spec["recording"]).calls(caller, callee)
        if at is not None:
            return recorded(spec["recording"]).where(at)
    edge = source().edge(caller, callee)
    return f"calls it {source().how(edge)}" if edge else where


def _why_not_in(spec: dict[str, Any], name: Name, where: str) -> str:
    caller, callee = _pair(spec, name)
    if "recording" in spec:
        return _why_no_link(recorded(spec["recording"]), caller, callee).text
    function, goal = (source().named(one) for one in (caller, callee))
    way = source().index.path_between(function[0], goal[0]) if function and goal else None
    if way:
        through = _plural(len(way) - 2, "other function")
        look = f"studykvm path {function[0].name} {callee.name}"
        return f"{caller.name} reaches {callee.name}, but through {through}: {look}"
    return f"no call of {callee.name} in {caller.name}, nor in anything it calls, is in {where}"


# -- a way of calls


def _why_no_link(calls: Calls, caller: Name, callee: Name) -> Part:
    """Say what the recording shows of a call that is not made."""
    for name in (caller, callee):
        if not calls.lines(name):
            edge = source().edge(caller, callee)
            if edge is not None:
                text = f"the source has this call ({source().how(edge)}), but this program"
                return Part(False, f"{caller.name} -> {callee.name}: {text} never calls {name.name}")
            return Part(
                False, f"{caller.name} -> {callee.name}: {name.name} is never called in {calls.label}"
            )
    chain = calls.chain(caller, callee)
    if len(chain) == 2:
        return Part(
            False,
            f"{caller.name} -> {callee.name}: another time it does, {calls.where(*chain)}, but not here",
        )
    if chain:
        between = _plural(len(chain) - 2, "other function")
        return Part(
            False,
            f"{caller.name} -> {callee.name}: {callee.name} is reached, but {caller.name} does not call it "
            f"itself: through {between}, see {calls.where(chain[0], chain[-1])}",
        )
    if calls.chain(callee, caller):
        return Part(False, f"{caller.name} -> {callee.name}: it is the other way round")
    at = calls.lines(callee)[0]
    return Part(
        False,
        f"{caller.name} -> {callee.name}: in {calls.label} {callee.name} is called in line {at + 1} first, "
        f"and never under {caller.name}",
    )


def _link(calls: Calls, caller: Name, callee: Name) -> Part:
    at = calls.calls(caller, callee)
    if at is not None:
        return Part(True, f"{caller.name} -> {callee.name}: {calls.where(calls.parents[at], at)}")
    stranger = _stranger(caller) or _stranger(callee)
    return stranger or _why_no_link(calls, caller, callee)


def path(spec: dict[str, Any], answer: Any) -> list[Part]:
    """A way of calls from one function to another; every way that the recording shows is right."""
    calls = recorded(spec["recording"])
    named = _few(answers.chain(answer), _MOST_OF_A_WAY)
    if len(named) < 2:
        raise BadAnswer("a way of calls has two functions at least")
    start, goal = _named(spec["start"]), _named(spec["goal"])
    parts = []
    if not _same(named[0], start):
        parts.append(Part(False, f"the way is asked from {start.name}; yours begins with {named[0].name}"))
    chain = _nested(calls, named)
    if chain:
        parts += [
            Part(True, f"{calls.name(a)[1]} -> {calls.name(b)[1]}: {calls.where(a, b)}")
            for a, b in itertools.pairwise(chain)
        ]
    else:
        parts += [_link(calls, caller, callee) for caller, callee in itertools.pairwise(named)]
    if not _same(named[-1], goal):
        parts.append(Part(False, f"the way is asked to {goal.name}; yours ends with {named[-1].name}"))
    if not chain and all(part.ok for part in parts):
        parts.append(Part(False, "each call is made, but never all of them one within the other"))
    via = spec.get("via")
    if (
        via
        and not any(_named(via).matches(*calls.name(at)) for at in chain)
        and all(part.ok for part in parts)
    ):
        parts.append(
            Part(False, "this way is taken, too, but for another file than the one that is asked for")
        )
    return parts


def _same(given: Name, wanted: Name) -> bool:
    return given.name == wanted.name and (not given.file or not wanted.file or given.matches(*wanted))


def _nested(calls: Calls, named: list[Name]) -> list[int]:
    """The lines of one chain of calls with exactly these functions; empty if there is none."""
    numbers = [calls.numbers(name) for name in named]
    for at in calls.lines(named[-1]):
        chain, up = [], at
        for wanted in reversed(numbers):
            if up < 0 or calls.table.function[up] not in wanted:
                break
            chain.append(up)
            up = calls.parents[up]
        else:
            if all(calls.sure(one) for one in chain[:-1]):
                return chain[::-1]
    return []


# -- an order of calls


def order(spec: dict[str, Any], answer: Any) -> list[Part]:
    """What a function calls itself, in order; helpers may be left out, and repeats count once."""
    calls = recorded(spec["recording"])
    if "sequence_of" in spec:
        truth = _order_of(calls, spec)
        optional: set[tuple[str, str]] = set()
    else:
        truth, optional = _children_of(calls, spec)
    named = _few(answers.functions(answer), _MOST_OF_A_WAY)
    names = [function for _, function in truth]
    caller = _named(spec.get("called_by") or spec["sequence_of"])
    if len(named) > 1 and _same(named[0], caller) and names[0] != caller.name:
        named = named[1:]
    parts: list[Part] = []
    known: list[str] = []
    for name in named:
        if any(name.matches(*one) for one in truth):
            known += [name.name] * (known[-1:] != [name.name])
        elif not any(name.matches(*one) for one in optional):
            parts.append(_outside(spec, name) or _stranger(name) or _why_not_child(calls, spec, name))
    parts = list(dict.fromkeys(parts))
    blocks = SequenceMatcher(None, names, known, autojunk=False).get_matching_blocks()
    placed = sorted(at for block in blocks for at in range(block.b, block.b + block.size))
    reached = {at for block in blocks for at in range(block.a, block.a + block.size)}
    shown = [Part(True, "in their places: " + ", ".join(known[at] for at in placed))] if placed else []
    for at in sorted(set(range(len(known))) - set(placed)):
        shown.append(Part(False, f"{known[at]}: is called, but not at this place"))
    return shown + parts + _gaps(names, reached, set(known))


def _gaps(names: list[str], reached: set[int], given: set[str]) -> list[Part]:
    """Say between which functions some are missing, and how many."""
    parts = []
    left = -1
    for right in [*sorted(reached), len(names)]:
        missing = {names[at] for at in range(left + 1, right)} - given
        if missing:
            after = f"after {names[left]}" if left >= 0 else "at the beginning"
            before = f", before {names[right]}" if right < len(names) and left >= 0 else ""
            parts.append(Part(False, f"{_plural(len(missing), 'function')} missing {after}{before}"))
        left = right
    return parts


def _outside(spec: dict[str, Any], name: Name) -> Part | None:
    """A remark for a function of the C library that is called there; no recording holds those."""
    caller = _named(spec.get("called_by") or spec["sequence_of"]).name
    for by, file, line in source().library(name.name):
        if by == caller:
            return Part(
                None, f"{name.name}: yes, {file}:{line}; it is the C library's, which no recording holds"
            )
    return None


def _children_of(calls: Calls, spec: dict[str, Any]) -> tuple[list[tuple[str, str]], set[tuple[str, str]]]:
    at = calls.lines(_named(spec["called_by"]))[spec.get("time", 1) - 1]
    telling = [calls.name(child) for child in calls.children(at, helpers=False)]
    return [name for name, _ in itertools.groupby(telling)], {calls.name(c) for c in calls.children(at)}


def _order_of(calls: Calls, spec: dict[str, Any]) -> list[tuple[str, str]]:
    """The functions between two, in the order of their first calls, chosen by who calls them all."""
    parent = calls.numbers(_named(spec["sequence_of"]))
    found = []
    for at, up in enumerate(calls.parents):
        if up >= 0 and calls.table.function[up] in parent and calls.sure(at):
            name = calls.name(at)
            if name[1].endswith(spec.get("suffix", "")) and name not in found:
                found.append(name)
    return found


def _why_not_child(calls: Calls, spec: dict[str, Any], name: Name) -> Part:
    return _why_no_link(calls, _named(spec.get("called_by") or spec["sequence_of"]), name)


# -- a graph


def graph(spec: dict[str, Any], answer: Any) -> list[Part]:
    """A call graph from a root on: each call judged, `calls` of them wanted, all hanging together."""
    calls = recorded(spec["recording"])
    given = list(dict.fromkeys(answers.edges(answer)))
    if len(given) > 500:
        raise BadAnswer(f"{len(given)} calls are more than one can read: draw fewer")
    parts = [_link(calls, *pair) for pair in given]
    root = _named(spec["root"])
    reached, before = {root.name}, 0
    while len(reached) != before:
        before = len(reached)
        reached |= {b.name for a, b in given if a.name in reached}
    loose = sorted({a.name for a, _ in given} - reached)
    if loose:
        parts.append(Part(False, f"nothing in your graph leads from {root.name} to {', '.join(loose[:5])}"))
    wanted = spec["calls"]
    if len(given) < wanted:
        parts.append(Part(False, f"{_plural(len(given), 'call')}; {wanted} are asked for"))
    return parts


def in_trace(trace: str | Trace, answer: Any) -> list[Part]:
    """Where a student's own trace shows what was said of calls that no recording has: remarks, by steps."""
    from tracer import load

    own = load(trace) if isinstance(trace, str) else trace
    calls = Calls("your trace", CallTable.from_trace(own))
    steps = [call.step for call in own.calls()]
    try:
        pairs = list(dict.fromkeys(answers.edges(answer)))
    except BadAnswer:
        pairs = list(itertools.pairwise(answers.chain(answer)))
    parts = []
    for caller, callee in pairs[:50]:
        chain = calls.chain(caller, callee)
        if len(chain) > 2:
            span = f"steps {steps[chain[0]]}-{steps[chain[-1]]}"
            between = _plural(len(chain) - 2, "function")
            parts.append(
                Part(
                    None,
                    f"in your trace, too, {between} stand between {caller.name} and {callee.name}: {span}",
                )
            )
    return parts
