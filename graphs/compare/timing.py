"""A normal form in which two runs of one program are equal, however fast their threads were.

- `settle(forest, rows) -> dict[str, Tree]`: a tree a role, `main` and `workers` and any other thread.

The rules are named and explained in `data/scope.toml`:

- workers: all threads that begin in `aio_thread` become one list of the requests they handled.
- spawn: `spawn_thread` goes, wherever `qemu_paio_submit` needed it.
- polls: of `posix_aio_process_queue` stay the requests found finished, moved up into the
  `qemu_aio_wait` that waited for them; neighbouring waits become one.
- order: under `qemu_aio_flush` finished requests are sorted.
- alarm: `qemu_rearm_alarm_timer` goes, wherever the alarm had to be set, and `qemu_event_read`.
"""

from graphs.calls import Name
from graphs.compare.projection import ROOT, Row, threads
from graphs.compare.trees import Forest, Runs, Tree

_WORKER = "aio_thread"
_NOT_COMPARED = {"spawn_thread", "posix_aio_flush", "qemu_rearm_alarm_timer", "qemu_event_read"}
_OPENED = {"posix_aio_read", "qemu_aio_process_queue"}


def settle(forest: Forest, rows: list[Row]) -> dict[str, Tree]:
    """Return the normal form of every role, in the given forest."""
    workers = {row.thread for row in rows if row.depth == 0 and row.name[1] == _WORKER}
    settler = _Settler(forest)
    roles: dict[str, Tree] = {}
    for number, tree in threads(forest, [row for row in rows if row.thread not in workers]).items():
        roles["main" if number == 0 else f"thread {len(roles)}"] = settler.settle(tree)
    if workers:
        roles["workers"] = forest.grow(ROOT, _requests([row for row in rows if row.thread in workers]))
    return roles


def _requests(rows: list[Row]) -> list[tuple[int, Name]]:
    """Return what workers did with requests, in the order in which they were taken up."""
    begun: dict[int, list[tuple[int, Name]]] = {}
    requests: list[list[tuple[int, Name]]] = []
    for row in rows:
        if row.depth == 1:
            begun[row.thread] = []
            if row.name[1].startswith("handle_"):
                requests.append(begun[row.thread])
        if row.depth >= 1:
            begun[row.thread].append((row.depth - 1, row.name))
    return [call for request in requests for call in request]


class _Settler:
    """Rewrites trees bottom-up, each different one once."""

    def __init__(self, forest: Forest) -> None:
        self._forest = forest
        self._done: dict[Tree, Runs] = {}

    def settle(self, tree: Tree) -> Tree:
        return self._forest.make(tree.name, self._called(tree))

    def _runs(self, tree: Tree) -> Runs:
        """What stands in the place of `tree`: itself rewritten, its calls, or nothing."""
        if tree not in self._done:
            self._done[tree] = self._rewrite(tree)
        return self._done[tree]

    def _rewrite(self, tree: Tree) -> Runs:
        function = tree.name[1]
        if function in _NOT_COMPARED:
            return ()
        called = self._called(tree)
        if function == "posix_aio_process_queue":
            return tuple((found, 1) for request in _finished(called) for found in request)
        if function in _OPENED:
            return called
        if function == "qemu_aio_flush":
            called = tuple(self._any_order(child) for child in called)
        return ((self._forest.make(tree.name, called), 1),)

    def _called(self, tree: Tree) -> Runs:
        runs: list[tuple[Tree, int]] = []
        for child, count in tree.runs:
            now = self._runs(child)
            for run in [(now[0][0], now[0][1] * count)] if len(now) == 1 else now * count:
                if run[0].name[1] == "qemu_aio_wait":
                    before = runs.pop()[0].runs if runs and runs[-1][0].name == run[0].name else ()
                    run = self._forest.make(run[0].name, before + run[0].runs * run[1]), 1
                runs.append(run)
        return tuple(runs)

    def _any_order(self, run: tuple[Tree, int]) -> tuple[Tree, int]:
        tree, count = run
        if tree.name[1] != "qemu_aio_wait":
            return run
        requests = sorted(_finished(tree.runs), key=lambda request: [part.serial for part in request])
        parts = [(part, 1) for request in requests for part in request]
        return self._forest.make(tree.name, parts), count


def _finished(runs: Runs) -> list[list[Tree]]:
    """Group the calls of one look at the queue by request; looks that found nothing are dropped.

    A request is `qemu_paio_error`, then, if it has finished, `qemu_paio_return`, its callback and
    `qemu_aio_release`.
    """
    requests: list[list[Tree]] = []
    for tree, count in runs:
        for _ in range(count):
            if tree.name[1] == "qemu_paio_error" or not requests:
                requests.append([])
            requests[-1].append(tree)
    return [request for request in requests if len(request) > 1 or request[0].name[1] != "qemu_paio_error"]
