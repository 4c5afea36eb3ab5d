"""A comparison as text: the verdict, three figures, the first differences as trees.

- `lines(comparison, limit=3) -> list[str]`
- `part_lines(found) -> list[str]`: a table of compared parts.
"""

from collections.abc import Iterator, Sequence
from textwrap import wrap

from graphs.calls import Name
from graphs.compare import Comparison
from graphs.compare.alignment import Difference
from graphs.compare.parts import Part
from graphs.compare.scope import handlers, known_differences, lacking, stream_note, timing_rules
from graphs.compare.trees import Runs, Tree
from graphs.wording import counted

_DEPTH = 3
_ROWS = 12
_NAMES = 12


def lines(comparison: Comparison, limit: int = 3) -> list[str]:
    """Return the report, line by line.

    Parameters
    ----------
    comparison : Comparison
        What to report.
    limit : int
        How many differences to print.
    """
    return [*_verdict(comparison), "", *_figures(comparison), *_notes(comparison), *_trees(comparison, limit)]


def part_lines(
    found: Sequence[tuple[Part, Comparison | None]],
    streams: Sequence[tuple[Part, Sequence[str] | None]] = (),
) -> list[str]:
    """Return a table of compared parts, one line each.

    Parameters
    ----------
    found : sequence of (Part, Comparison or None)
        None where the trace does not have the part.
    streams : sequence of (Part, list of str or None)
        Parts that write or read saved state: what differs.
    """
    rows = ["", "inside single calls, where the guest and the number of turns do not matter:"]
    for part, comparison in found:
        verdict = "not in the trace"
        if comparison is not None and comparison.equal:
            verdict = f"equal, {comparison.equal_calls:,} calls" + (
                ", but for timing" if comparison.timing else ""
            )
        elif comparison is not None:
            differences = sum(len(each) for each in comparison.differences.values())
            verdict = f"{differences} different, see --subtree '{part.selector}'"
        rows.append(f"  {part.title + ':':<52} {verdict}")
    for part, found_there in streams:
        verdict = "not in the trace" if found_there is None else "equal, however much state there is"
        if found_there:
            verdict = f"{len(found_there)} different, see --subtree '{part.selector}'"
        rows.append(f"  {part.title + ':':<52} {verdict}")
    if any(found_there for _, found_there in streams):
        rows += _wrapped("  ", stream_note())
    return rows


def _verdict(comparison: Comparison) -> Iterator[str]:
    recording = comparison.recording
    inside = f", inside {comparison.part}" if comparison.part else ""
    if comparison.equal:
        how = "call for call" if comparison.timing is None else "call for call, but for timing (below)"
        yield f"{recording.name}{inside}: equal {how}"
    else:
        count = sum(len(found) for found in comparison.differences.values())
        differences = "difference" if count == 1 else "differences"
        yield f"{recording.name}{inside}: not equal, {count:,} {differences}"
    if recording.scenario is not None:
        yield f"  {recording.scenario.command}"
    known = known_differences().get(recording.name)
    if known is not None:
        yield f"  cannot be equal: {known.reason}"


def _figures(comparison: Comparison) -> Iterator[str]:
    share = f"{int(comparison.share * 10000) / 100:.2f} %"
    yield (
        f"calls equal in order            {share:>9}   {comparison.equal_calls:,} of the model's "
        f"{comparison.ours:,} and the recording's {comparison.theirs:,}"
    )
    yield _functions("functions only in the recording", comparison.only_theirs, comparison.unmodelled)
    yield _functions("functions only in the trace", comparison.only_ours, frozenset())


def _functions(title: str, names: frozenset[Name], unmodelled: frozenset[Name]) -> str:
    listed = [
        f"{function} ({file})" + (" [not modelled]" if (file, function) in unmodelled else "")
        for file, function in sorted(names)
    ]
    more = [f"and {len(listed) - _NAMES} more"] if len(listed) > _NAMES else []
    return f"{title:<32}{len(names):>9}   {', '.join(listed[:_NAMES] + more)}".rstrip()


def _notes(comparison: Comparison) -> Iterator[str]:
    scope = comparison.scope
    yield ""
    compared = f"{', '.join(pattern.removesuffix(':*') for pattern in scope.take)}"
    if scope.leave:
        left = dict.fromkeys(pattern.partition(":")[2] for pattern in scope.leave)
        compared += f" without {', '.join(left)}"
    if scope.until:
        compared += f", up to the first {scope.until.partition(':')[2]}"
    yield from _wrapped("compared: ", f"{compared}. {scope.reason}")
    if comparison.absent:
        folders = sorted({file.partition("/")[0] for file in comparison.absent})
        lost = ", ".join(pattern.removesuffix(":*") for pattern in scope.lost)
        text = f"calls to {lost} inside functions of {', '.join(folders)} that the model lacks."
        yield from _wrapped("left out: ", text)
        for (caller, called), reason in lacking().items():
            yield from _wrapped("left out: ", f"{called[1]} as called by {caller[1]}. {reason}")
    if comparison.unrecorded:
        names = ", ".join(sorted(function for _, function in comparison.unrecorded))
        yield from _wrapped("left out: ", f"of the model, what no recording keeps behind its start: {names}.")
    for name, reason in handlers().items():
        if name in comparison.recording.calls.functions():
            yield from _wrapped("left out: ", f"{name[1]} and what it calls. {reason}")
    if comparison.timing is not None:
        ours, theirs = comparison.timing
        yield f"left to timing: {counted(ours, 'call')} of the model, {theirs:,} of the recording"
        for rule, reason in timing_rules().items():
            yield from _wrapped(f"  {rule + ':':<9}", reason)


def _wrapped(head: str, text: str) -> list[str]:
    return wrap(head + text, width=100, subsequent_indent=" " * len(head), break_on_hyphens=False)


def _trees(comparison: Comparison, limit: int) -> Iterator[str]:
    left = limit
    for role, differences in comparison.differences.items():
        for number, difference in enumerate(differences, 1):
            if left == 0:
                break
            left -= 1
            yield ""
            yield (
                f"{role}, difference {number} of {len(differences):,}, "
                f"after {difference.equal_before:,} equal calls   (- recording only, + model only)"
            )
            yield from _difference(difference)


def _difference(difference: Difference) -> Iterator[str]:
    for level, (_, function) in enumerate(difference.path):
        yield f"    {'  ' * level}{function}"
    indent = max(1, len(difference.path))
    if not difference.path:
        yield "    (the outermost calls)"
    yield from _side(" ", difference.before, indent, 1)
    yield from _side("-", difference.theirs, indent, _DEPTH)
    yield from _side("+", difference.ours, indent, _DEPTH)
    yield from _side(" ", difference.after, indent, 1)


def _side(mark: str, runs: Runs, indent: int, depth: int) -> Iterator[str]:
    rows = list(_rows(runs, depth))
    for level, tree, count in rows[:_ROWS]:
        times = f"  x{count:,}" if count > 1 else ""
        inside = f"  ({tree.size - 1:,} calls inside)" if level == depth - 1 and tree.size > 1 else ""
        yield f"  {mark} {'  ' * (indent + level)}{tree.name[1]}  {tree.name[0]}{times}{inside}"
    if len(rows) > _ROWS:
        yield f"  {mark} {'  ' * indent}... and {sum(t.size * n for t, n in runs) - _ROWS:,} more calls"


def _rows(runs: Runs, depth: int, level: int = 0) -> Iterator[tuple[int, Tree, int]]:
    for tree, count in runs:
        yield level, tree, count
        if level + 1 < depth:
            yield from _rows(tree.runs, depth, level + 1)
