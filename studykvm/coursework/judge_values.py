"""Judges of answers that are values: field values, numbers, how often something is called, a choice."""

from __future__ import annotations

import re
import shlex
import socket
from typing import Any

from graphs import recordings
from studykvm.coursework import answers, scenes
from studykvm.coursework.answers import BadAnswer
from studykvm.coursework.sources import recorded, source
from studykvm.coursework.verdict import Part


def values(spec: dict[str, Any], answer: Any) -> list[Part]:
    """Values by name, as a run of the model made now shows them.

    `keys` are what is asked for; `words` stands for several of them at once; `made_with` names what the
    run depends on and an answer may tell, with what is meant where it does not.
    """
    settings: dict[str, Any] = dict(spec.get("made_with", {}))
    if isinstance(answer, dict):
        told = {answers.fold(key): value for key, value in answer.items()}
        settings = {key: told.get(key, default) for key, default in settings.items()}
        answer = {key: value for key, value in answer.items() if answers.fold(key) not in settings}
    shown = scenes.seen(spec["scene"], **(scenes.settings(**settings) if settings else {}))
    seen = {key: shown[key] for key in spec["keys"]}
    words: dict[str, list[str]] = spec.get("words", {})
    given = answers.values(answer, list(seen), words)
    parts, named = [], set()
    for said, value in given.items():
        keys = words.get(said) or answers.meant(said, list(seen))
        named |= set(keys)
        if not keys:
            parts.append(Part(False, f"{said[:40]!r} is not asked for; asked are {', '.join(seen)}"))
        for key in keys:
            called = spec.get("called", {}).get(key, {})
            parts.append(_value(key, called.get(str(value).strip().lower(), value), seen[key]))
    return parts + _unsaid(list(seen), named)


def _unsaid(keys: list[str], named: set[str]) -> list[Part]:
    missing = [key for key in keys if key not in named]
    return [Part(False, f"nothing is said of {', '.join(missing)}")] if missing else []


def _value(key: str, given: Any, seen: scenes.Seen) -> Part:
    if answers.same(given, seen.value):
        return Part(True, f"{key}: seen in a run made now, {seen.how}")
    shown = answers._shown(given)
    true, read = seen.value, answers.number(given)
    if isinstance(true, bool):
        return Part(False, f"{key}: not {shown} in a run made now, {seen.how}")
    if isinstance(true, int) and read is None and given is not None:
        return Part(False, f"{key}: {shown} is no number")
    hint = ""
    if isinstance(true, int) and read is not None:
        if read == -true and true:
            hint = ": the sign is the other"
        elif true < 0 and read < 0:
            hint = ": it is another negative number"
        elif true and (read == true * 512 or read * 512 == true):
            hint = ": sectors and bytes are taken for each other"
        elif abs(read - true) <= 1:
            hint = ": it is near"
        else:
            hint = ": it is more" if true > read else ": it is less"
    elif true is None:
        hint = ": it is a pointer; think of where it points"
    return Part(False, f"{key}: not {shown} in a run made now, {seen.how}{hint}")


def counts(spec: dict[str, Any], answer: Any) -> list[Part]:
    """How often functions are called in a recording; with `under`, below the first call of one."""
    calls = recorded(spec["recording"])
    truth = {}
    for key, function in spec["keys"].items():
        lines = calls.lines(answers.function(function))
        if "under" in spec:
            start = calls.lines(answers.function(spec["under"]))[spec.get("time", 1) - 1]
            lines = [at for at in lines if start in calls.stack(at)]
        truth[key] = lines
    given = answers.values(answer, list(truth))
    parts, named = [], set()
    for said, value in given.items():
        found = answers.meant(said.removesuffix("()"), list(truth))
        read = answers.number(value)
        named |= set(found)
        if not found:
            parts.append(Part(False, f"{said[:40]!r} is not asked for; asked are {', '.join(truth)}"))
        elif read is None:
            parts.append(Part(False, f"{said}: {answers._shown(value)} is no number"))
        elif read == len(truth[found[0]]):
            parts.append(Part(True, f"{said}: counted in {calls.label}"))
        else:
            parts.append(Part(False, _miscounted(calls.where, found[0], truth[found[0]], read)))
    return parts + _unsaid(list(truth), named)


def _miscounted(where: Any, key: str, lines: list[int], read: float) -> str:
    if not lines:
        return f"{key}: not {read:g}: {where(0).split(' of ')[1]} never has it there"
    if read > len(lines):
        return f"{key}: not as often as {read:g}; the last is in {where(lines[-1])}"
    one = lines[min(int(max(read, 0)), len(lines) - 1)]
    return f"{key}: more often than {read:g}; one more is in {where(one)}"


def choice(spec: dict[str, Any], answer: Any) -> list[Part]:
    """One of several statements, each of which the recording bears out or not."""
    options: dict[str, dict[str, Any]] = spec["options"]
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if not isinstance(answer, str):
        raise BadAnswer(f"choose one of {', '.join(options)}")
    low = answer.strip().lower().strip("\"'`")
    letter = _LETTER.fullmatch(low)
    chosen = [letter[1]] if letter and letter[1] in options else []
    chosen = chosen or [key for key, option in options.items() if _words(option["statement"]) == _words(low)]
    chosen = chosen or [key for key, option in options.items() if re.search(option["words"], low)]
    if not chosen:
        raise BadAnswer(f"this is none of the statements; choose one of {', '.join(options)}")
    if len(chosen) > 1:
        raise BadAnswer(f"this may mean {' or '.join(chosen)}; choose one of {', '.join(options)}")
    return [_claim(spec, chosen[0], options[chosen[0]])]


_LETTER = re.compile(
    r"(?:(?:the )?(?:answer|option|statement)(?: is)?:?\s*)?[(\[]?([a-z])(?:[)\].:].*)?", re.DOTALL
)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _claim(spec: dict[str, Any], key: str, option: dict[str, Any]) -> Part:
    """Hold a statement against what it would show: `claim` is a call that must be there, or be absent."""
    calls = recorded(option.get("recording", spec["recording"]))
    caller, callee = (answers.function(one) for one in option["claim"])
    at = calls.calls(caller, callee)
    if at is not None and not option.get("absent"):
        return Part(True, f"{key}: {caller.name} calls {callee.name}, {calls.where(at)}")
    if at is None and option.get("absent"):
        return Part(True, f"{key}: {caller.name} never calls {callee.name} in {calls.label}")
    if at is not None:
        return Part(False, f"{key}: {caller.name} does call {callee.name}, {calls.where(at)}")
    then = f"{key}: then {caller.name} would call {callee.name}; "
    edge = source().edge(caller, callee)
    if edge is not None:
        return Part(
            False, f"{then}the source could ({source().how(edge)}), but {calls.label} has no such call"
        )
    return Part(False, f"{then}neither {calls.label} nor the source of {caller.name} has that call")


_URI = re.compile(r"^(?P<scheme>\w+):(?P<slashes>//)?(?P<rest>.*)$", re.DOTALL)


def command(spec: dict[str, Any], answer: Any) -> list[Part]:
    """A command of the monitor: its word, its options, and the form of its argument as recordings show it."""
    if not isinstance(answer, str) or len(answer) > 1000:
        raise BadAnswer("write the command as text, as it is typed at (qemu)")
    text = answer.strip().strip("`").removeprefix("(qemu)").strip()
    try:
        words = shlex.split(text)
    except ValueError as wrong:
        raise BadAnswer(f"the command cannot be taken apart: {wrong}") from None
    if not words or words[0] != spec["word"]:
        verb = words[0] if words else ""
        return [Part(False, f"{verb[:40]!r} is another command than the one that is asked for")]
    parts = [Part(True, f"{words[0]}: the command")]
    rest = [word for word in words[1:] if not word.startswith("-")]
    before = words[1 : words.index(rest[0])] if rest else words[1:]
    options = [word for word in before if word.startswith("-")]
    if len(options) < len(words) - 1 - len(rest):
        parts.append(Part(False, "the monitor takes options before the argument, not behind it"))
    known = _options(spec["word"])
    for option in options:
        if option not in known.values():
            parts.append(Part(False, f"{option[:40]!r} is no option of {spec['word']}"))
    if known[spec["flag"]] in options:
        parts.append(Part(True, f"{known[spec['flag']]}: given"))
    else:
        parts.append(Part(False, "as it stands, the prompt does not come back at once: an option is missing"))
    if len(rest) != 1:
        return [*parts, Part(False, "it takes one argument: where to")]
    return [*parts, _uri(spec, rest[0])]


def _options(word: str) -> dict[str, str]:
    """A command's options by what the monitor's table calls them."""
    from hypervisor.monitor_commands import mon_cmds

    types = next(one.args_type for one in mon_cmds if one.name == word)
    pairs = (argument.partition(":") for argument in types.split(","))
    return {name: letter for name, _, letter in pairs if letter.startswith("-")}


def _elsewhere(uri: str, scheme: str, port: str) -> str:
    """Say why a migration of a right form would not come to the machine that waits; empty if it would."""
    if scheme != "tcp":
        return "" if re.search(rf"\b{port}\b", uri) else f"nothing of it goes to port {port}"
    found = re.fullmatch(r"tcp:([\w.-]*):(\d+)", uri, re.IGNORECASE)
    if not found:
        return "host and port are both wanted, the port as a number"
    if found[2] != port:
        return "no machine waits on that port"
    here = ("", "0", "0.0.0.0", "localhost", "localhost.localdomain", socket.gethostname().lower())
    local = found[1].lower() in here or found[1].startswith("127.")
    return "" if local else "the machine that waits is on this host; is that one another?"


def _shape(uri: str) -> tuple[str, bool] | None:
    found = _URI.match(uri)
    return (found["scheme"].lower(), bool(found["slashes"])) if found else None


def _uri(spec: dict[str, Any], uri: str) -> Part:
    good: dict[tuple[str, bool] | None, str] = {}
    bad: dict[tuple[str, bool] | None, str] = {}
    for name in spec["recordings"]:
        scenario = recordings.load(name).scenario
        assert scenario is not None
        lines = [shlex.split(line) for line in scenario.monitor if line.startswith(spec["word"])]
        completed = "Migration status: completed" in scenario.output
        for words in lines:
            (good if completed else bad)[_shape(words[-1])] = name.partition("_")[0]
    shape = _shape(uri)
    if shape is None:
        return Part(False, f"{uri[:60]!r} does not say by which way: it lacks a scheme")
    if shape in good:
        elsewhere = _elsewhere(uri, shape[0], str(spec["port"]))
        if elsewhere:
            return Part(False, f"{uri[:60]!r}: {elsewhere}")
        return Part(True, f"{uri[:60]}: so it was done in {good[shape]}, which completed")
    if shape in bad:
        return Part(False, f"{uri[:60]!r}: recording {bad[shape]} tried this form, and the migration failed")
    return Part(False, f"{uri[:60]!r}: no recording shows a migration by {shape[0]!r}")
