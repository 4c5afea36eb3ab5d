"""What tracing costs, side by side with viztracer in one run.

Run: ``python benchmarks/bench_tracer.py``. Prints, for the same program of nested calls:

- a traced call with arguments and return value against viztracer with ``log_func_args`` and
  ``log_func_retval``, both to memory and both to a file: target, at most half of viztracer's overhead;
- a decorated call while nothing records against a plain one: target, at most 60 ns more;
- one million events loaded from a file, iterated and paired: target, under 3 s and 500 MB in all.

Times are the process's CPU time, so the flushing thread counts and other programs do not; the least of
several rounds that take turns.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from tracer import Struct, record, traced

C_FILE = "bench.c"
ROUNDS = 5
TURNS = 10_000
CALLS = 4 * TURNS

LOAD = """
import sys, time
from tracer import load
start = time.process_time()
trace = load(sys.argv[1])
events = sum(1 for _ in trace.events())
raw = time.process_time() - start
start = time.process_time()
calls = sum(1 for _ in trace.calls())
tree = time.process_time() - start
# not ru_maxrss: that begins with the parent's
peak = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))
print(events, calls, raw, tree, peak / 1024)
"""


class State(Struct):
    """A struct to pass about."""

    offset: int = 0


class Program:
    """Four functions that call one another with integers, a string, a buffer and an object."""

    def __init__(self, decorate: Callable[..., Callable[..., int]]) -> None:
        @decorate
        def table(state: State, index: int) -> int:
            return index & 255

        @decorate
        def cluster(state: State, offset: int, allocate: int) -> int:
            return table(state, offset >> 9)

        @decorate
        def read(state: State, sector: int, buf: bytearray, count: int) -> int:
            return cluster(state, sector << 9, 0)

        @decorate
        def pread(state: State, name: str, buf: bytearray, sector: int) -> int:
            return read(state, sector, buf, 8)

        self._first = pread
        self._functions = [table, cluster, read, pread]
        self._state, self._buf = State(), bytearray(512)

    def run(self, turns: int = TURNS) -> float:
        """Return the CPU time of a call in ns."""
        first, state, buf = self._first, self._state, self._buf
        start = time.process_time_ns()
        for sector in range(turns):
            first(state, "overlay.img", buf, sector)
        return (time.process_time_ns() - start) / (4 * turns)


def _recorded(program: Program, path: str | None) -> float:
    recording = record(path).start()
    start = time.process_time_ns()
    program.run()
    recording.stop()
    return (time.process_time_ns() - start) / CALLS


def _viztraced(program: Program, path: str | None) -> float:
    from viztracer import VizTracer

    tracer = VizTracer(
        log_func_args=True, log_func_retval=True, verbose=0, tracer_entries=4 * CALLS, output_file=path or "-"
    )
    tracer.start()
    start = time.process_time_ns()
    program.run()
    tracer.stop()
    if path is not None:
        tracer.save()
    spent = (time.process_time_ns() - start) / CALLS
    tracer.clear()
    return spent


def main() -> int:
    """Print the figures; 1 when a target is missed."""
    plain, decorated = Program(lambda function: function), Program(traced)
    peer = importlib.util.find_spec("viztracer") is not None
    times: dict[str, float] = {}

    def note(name: str, value: float) -> None:
        times[name] = min(value, times.get(name, value))

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.trace")
        for _ in range(ROUNDS):
            note("plain", plain.run())
            note("idle", decorated.run())
            note("memory", _recorded(decorated, None))
            note("file", _recorded(decorated, path))
            if peer:
                note("peer memory", _viztraced(plain, None))
                note("peer file", _viztraced(plain, os.path.join(folder, "bench.json")))
        with record(path):
            decorated.run(125_000)
        size = os.path.getsize(path)
        output = subprocess.run(
            [sys.executable, "-c", LOAD, path], check=True, capture_output=True, text=True
        )
    events, calls, raw, tree, memory = map(float, output.stdout.split())

    base = times["plain"]
    over = {name: value - base for name, value in times.items()}
    good = over["idle"] <= 60 and raw + tree < 3 and memory < 500
    print(f"plain call                     {base:8.0f} ns")
    print(f"decorated, idle              + {over['idle']:8.0f} ns   (target 60)")
    print(f"recorded to memory           + {over['memory']:8.0f} ns")
    print(f"recorded to a file           + {over['file']:8.0f} ns")
    if peer:
        ratios = over["memory"] / over["peer memory"], over["file"] / over["peer file"]
        good &= max(ratios) <= 0.5
        print(f"viztracer, to memory         + {over['peer memory']:8.0f} ns")
        print(f"viztracer, saved to a file   + {over['peer file']:8.0f} ns")
        print(f"ratio to viztracer, memory     {ratios[0]:8.2f}      (target 0.50)")
        print(f"ratio to viztracer, file       {ratios[1]:8.2f}      (target 0.50)")
        print(f"our file to its memory         {over['file'] / over['peer memory']:8.2f}")
    else:
        print("viztracer is not installed: no comparison (pip install 'viztracer>=1,<2')")
    print(
        f"{events:.0f} events, {size / 1e6:.1f} MB; decoded in {raw:.2f} s, {calls:.0f} calls in {tree:.2f} s"
    )
    print(f"load and iterate both          {raw + tree:8.2f} s    (target 3)")
    print(f"memory                         {memory:8.0f} MB   (target 500)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
