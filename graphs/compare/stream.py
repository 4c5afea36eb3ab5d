"""Comparing how a machine is saved and loaded: savevm.c, migration and the block layer under them.

What the guest's memory holds decides how many pages are sent whole and where the stream's buffer is full; the
clock decides how often a migration's loop turns. Both sides are brought into a form without that:

- buffers: handing on 32 KiB, or asking for more, happens in the midst of anything. It is taken out of there,
  and each different way of doing it becomes an entry of a list of its own.
- pages: so does each different way of saving or loading a page of memory or a chunk of a disk.
- clusters: the longer the stream, the more clusters of the image. In the block layer equal neighbours count
  as one.
- turns: a migration's loop, `migrate_fd_put_ready`, is a part of its own: what all its turns did, each
  different thing once. It may be called while the connection is made or by a timer; there it stands without
  its calls.
- waiting: so do the writes of a migration, and whether the other side took bytes at once is left out.
- threads: how the worker's answer is waited for is left out, as `graphs.compare.timing` does.

- `fold(table, root, number, keep) -> Folded`: the calls of one call, in that form.
- `compare_stream(calls, recording, root, known) -> list of str`: what differs; empty if nothing does.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from graphs.calls import CallTable, Name
from graphs.recordings import Recording

TAKE = (
    "aio.c:*",
    "block-migration.c:*",
    "block.c:*",
    "block/*.c:*",
    "buffered_file.c:*",
    "migration*.c:*",
    "posix-aio-compat.c:*",
    "savevm.c:*",
    "vl.c:is_dup_page",
    "vl.c:ram_*",
    "vl.c:vm_*",
    "vl.c:do_vm_stop",
)
_BUFFERS = {"qemu_fflush", "qemu_fill_buffer", "buffered_flush", "migrate_fd_put_buffer"}
_PAGES = {
    "ram_save_live": {"ram_save_block", "qemu_file_rate_limit"},
    "ram_load": {"qemu_get_buffer"},
    "block_load": {"qemu_get_buffer", "bdrv_find", "bdrv_write"},
    "block_save_live": {"qemu_file_get_rate_limit", "blk_mig_save_bulked_block"},
    "flush_blks": {"blk_send", "qemu_file_rate_limit"},
    "blk_mig_save_dirty_blocks": {"mig_save_device_dirty"},
}
LOOP = "migrate_fd_put_ready"
_LIVE = {"block_load", "ram_load"}
_POLLS = {"qemu_paio_error", "file_errno", "socket_errno", "migrate_fd_wait_for_unfreeze"}
_WAITING = {
    "qemu_aio_wait",
    "qemu_aio_flush",
    "qemu_aio_process_queue",
    "posix_aio_process_queue",
    "posix_aio_read",
    "posix_aio_flush",
}


@dataclass
class Node:
    """A call and its calls."""

    name: Name
    calls: "list[Node]" = field(default_factory=list)
    known_text: str = ""

    def text(self) -> str:
        """The whole subtree on one line; asked for only once it does not change any more."""
        if not self.known_text:
            inside = " ".join(call.text() for call in self.calls)
            self.known_text = f"{self.name[1]}({inside})" if inside else self.name[1]
        return self.known_text


@dataclass(frozen=True)
class Folded:
    """A call in the common form.

    Attributes
    ----------
    tree : tuple of str
        The calls, each indented by its depth.
    buffers : frozenset of str
        Each different way in which a buffer was handed on or filled.
    """

    tree: tuple[str, ...]
    buffers: frozenset[str]


def fold(
    table: CallTable, root: str, number: int = 1, keep: Callable[[Name], bool] = lambda name: True
) -> Folded | None:
    """Fold the `number`-th call of a function; None if there is none."""
    nodes = list(_calls(table, root, keep))
    if root == LOOP and nodes:
        return _folded(Node(nodes[0].name, [call for node in nodes for call in node.calls]))
    return _folded(nodes[number - 1]) if number <= len(nodes) else None


def _folded(node: Node) -> Folded:
    buffers: list[Node] = []
    _take_buffers(node, buffers)
    for each in buffers:
        _take_buffers(each, buffers)
    for each in (node, *buffers):
        _fold(each)
    if node.name[1] == LOOP:
        node.calls = list({call.text(): call for call in node.calls}.values())
    # Whether all of memory went before the connection was full, so that no page was left, is chance.
    buffers = [each for each in buffers if each.calls or each.name[1] != "ram_save_block"]
    if node.name[1] == LOOP:
        # Which kinds of pages were left for the loop is chance; how they are saved is seen where it began.
        buffers = [each for each in buffers if each.name[1] != "ram_save_block"]
    return Folded(tuple(_lines(node, 0)), frozenset(each.text() for each in buffers))


def _calls(table: CallTable, root: str, keep: Callable[[Name], bool]) -> Iterator[Node]:
    kept = [keep(name) for name in table.names]
    for at, function in enumerate(table.function):
        if table.names[function][1] == root:
            yield _tree(table, at, kept)


def _tree(table: CallTable, at: int, kept: list[bool]) -> Node:
    thread, top = table.thread[at], table.depth[at]
    node = Node(table.names[table.function[at]])
    open_ = [(top, node)]
    for row in range(at + 1, len(table)):
        if table.thread[row] != thread:
            continue
        depth, function = table.depth[row], table.function[row]
        if depth <= top:
            break
        if not kept[function]:
            # As if it had not been written: so it is in a recording, where its calls hang on the line above.
            continue
        while open_[-1][0] >= depth:
            open_.pop()
        child = Node(table.names[function])
        open_[-1][1].calls.append(child)
        open_.append((depth, child))
    return node


def _take_buffers(node: Node, buffers: list[Node]) -> None:
    rest = []
    for call in node.calls:
        if call.name[1] in _BUFFERS or call.name[1] in _PAGES.get(node.name[1], ()):
            buffers.append(call)
            continue
        if call.name[1] == LOOP:
            call.calls = []
        _take_buffers(call, buffers)
        rest.append(call)
    node.calls = rest


def _fold(node: Node) -> None:
    """Rewrite a tree from the leaves up."""
    calls: list[Node] = []
    for call in node.calls:
        if call.name[1] in _POLLS and node.name[1] != "tcp_start_outgoing_migration":
            continue
        _fold(call)
        calls += call.calls if call.name[1] in _WAITING else [call]
    node.calls = list(_without_repeats(calls))


def _without_repeats(calls: list[Node]) -> Iterator[Node]:
    """Leave out parts of live sections that are as one before, and work on a cluster as on the one before."""
    seen: set[str] = set()
    before = ""
    for call in calls:
        text = call.text()
        if any(each.name[1] in _LIVE for each in call.calls):
            repeated = text in seen
        else:
            repeated = call.name[0].startswith("block/") and text == before
        if not repeated:
            yield call
        seen.add(text)
        before = text


def _lines(node: Node, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{node.name[1]}"
    for call in node.calls:
        yield from _lines(call, depth + 1)


def covers(name: Name) -> bool:
    """Whether a function is one of those that save and load a machine.

    >>> covers(("savevm.c", "do_savevm")), covers(("hw/pc.c", "pc_init1"))
    (True, False)
    """
    return any(fnmatchcase(":".join(name), pattern) for pattern in TAKE)


def compare_stream(
    calls: CallTable,
    recording: Recording,
    root: str,
    known: Collection[Name] = (),
    number: int = 1,
    recorded: int = 0,
) -> list[str]:
    """Lay one call of the model over the same one of a recording.

    Functions are compared that both the model and any recording of this kind has.

    Parameters
    ----------
    number, recorded : int
        The how manieth call of the model, and which of the recording, if that is another.

    Returns
    -------
    list of str
        What differs, a line each: `+` the model's only, `-` the recording's only.
    """
    both = (calls.functions() | set(known)) & recording.calls.functions()
    ours, theirs = (
        fold(table, root, which, lambda name: name in both and covers(name))
        for table, which in ((calls, number), (recording.calls, recorded or number))
    )
    if ours is None or theirs is None:
        return [f"{root}: {'the model' if ours is None else 'the recording'} does not call it"]
    found = list(_differences(list(ours.tree), list(theirs.tree)))
    found += [f"+ somewhere inside: {text}" for text in sorted(ours.buffers - theirs.buffers)]
    return found + [f"- somewhere inside: {text}" for text in sorted(theirs.buffers - ours.buffers)]


def _differences(ours: list[str], theirs: list[str]) -> Iterator[str]:
    """Each run of lines that one side lacks, under the calls that it stands in."""
    from difflib import SequenceMatcher

    for tag, a, b, c, d in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        for sign, lines, begin, end in (("+", ours, a, b), ("-", theirs, c, d)):
            if tag != "equal" and begin < end:
                yield f"in {' > '.join(_around(lines, begin))}:"
                yield from (f"{sign} {line}" for line in lines[begin:end])


def _around(lines: list[str], at: int) -> list[str]:
    """The calls that a line stands in, the outermost first."""
    found: list[str] = []
    depth = len(lines[at]) - len(lines[at].lstrip())
    for line in reversed(lines[:at]):
        here = len(line) - len(line.lstrip())
        if here < depth:
            found.insert(0, line.strip())
            depth = here
    return found
