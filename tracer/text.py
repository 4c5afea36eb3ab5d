"""The call tree as text, for the console.

- `render_tree(trace, ...)`: the whole text.
- `tree_lines(root, ...)`: its lines, from a tree that passes have prepared.

::

    main  qemu-img.c
      bdrv_new_open
        bdrv_new  block.c
        bdrv_read  x12
      [t1] aio_thread  posix-aio-compat.c

A file is named where it differs from the caller's; ``[t1]`` marks another thread than 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tracer.passes import Key, Node, by_arguments, by_function, fold, select, walk
from tracer.state import Write
from tracer.trace import Call, Trace
from tracer.values import escape, show

INDENT = "  "


def render_tree(
    trace: Trace,
    *,
    fold: bool = True,
    args: bool = False,
    state: bool = False,
    depth: int | None = None,
    start: str | None = None,
    only: Sequence[str] = (),
    thread: int | None = None,
) -> str:
    """Return a trace's call tree as text.

    Parameters
    ----------
    fold
        Show repeats once, with a count.
    args, state
        Show arguments and return values; show the field writes under the call that made them.
    depth
        Number of levels.
    start
        Show the outermost calls of this function only (a glob; ``file:function`` too).
    only
        Globs over functions and files; other calls are left out, not what they call.
    thread
        Show one thread.
    """
    root = select(trace.tree(), start=start, globs=only, number=thread, depth=depth)
    return "\n".join(tree_lines(root, fold_repeats=fold, args=args, writes=trace.writes() if state else ()))


def tree_lines(
    root: Node, *, fold_repeats: bool = True, args: bool = False, writes: Iterable[Write] = ()
) -> Iterator[str]:
    """Yield the lines of a tree; what looks equal is folded.

    Parameters
    ----------
    fold_repeats : bool
        Put equal neighbours into one line with their number.
    args : bool
        Show arguments and results; then only calls with the same ones are equal.
    writes : iterable of Write
        Changes of structures, shown below the call that made them.
    """
    written: dict[Call | None, list[str]] = {}
    for write in writes:
        text = f"{write.object}.{escape(write.field)}: {show(write.old)} -> {show(write.new)}"
        written.setdefault(write.call, []).append(text)
    if fold_repeats:
        plain: Key = by_arguments if args else by_function
        root = fold(root, (lambda call: (plain(call), tuple(written.get(call, ())))) if written else plain)
    # the file named last on each level
    files: list[str] = []
    for node, depth in walk(root):
        pad = INDENT * depth
        del files[depth:]
        parent = files[-1] if files else ""
        if node.call is None:
            files.append(parent)
            yield f"{pad}these {len(node.children)}  x{node.count}"
            continue
        files.append(node.call.file)
        yield pad + _line(node, node.call, args, node.call.file != parent)
        for text in written.get(node.call, ()):
            yield f"{pad}{INDENT}* {text}"
        if node.hidden:
            yield f"{pad}{INDENT}... {node.hidden} more"


def _line(node: Node, call: Call, args: bool, with_file: bool) -> str:
    text = f"[t{call.thread}] " if call.thread else ""
    text += escape(call.function)
    if args:
        shown = ", ".join(f"{escape(name)}={show(value)}" for name, value in call.args.items())
        text += f"({shown})"
        if call.exc is None and not call.open:
            text += f" = {show(call.ret)}"
    if call.exc is not None:
        text += f"  raised {escape(': '.join(filter(None, call.exc)))}"
    elif call.open:
        text += "  (no return)"
    if with_file:
        text += f"  {escape(call.file)}"
    return text + (f"  x{node.count}" if node.count > 1 else "")
