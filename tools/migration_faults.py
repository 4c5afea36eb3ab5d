"""Let things go wrong while a machine moves, again and again: one whole machine is left, whatever it was.

    python -m tools.migration_faults [--count 500] [--seed 1] [--jobs 2] [--kind cut] [--first 0]

A guest counts on its serial line, so that every number that is missing or comes twice shows. Each fault has
its own destination; one source lives as long as no fault ends it. After each fault:

- never do both machines run; a source that failed or gave up runs, one that handed over stands;
- the machine goes on counting where it was, here or there, and the source also after it has stood;
- a destination that did not get all refuses `cont`, and has not run;
- somebody says what happened;
- both still obey their monitors, end when told to, and leave no process.

The exit status is 1 if one of these does not hold; number and seed, which are printed, repeat it.

- `KINDS`: what goes wrong.
- `run(count, seed, folder, ...) -> list[Outcome]`
"""

from __future__ import annotations

import argparse
import os
import random
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from studykvm.guests import write_count_disk
from tools.moving import SILENCE, Between, Machine, Stuck, wait_until

_FAILED = r"studykvm: migration failed: .*; the machine (goes on|stands) here"
_NOT_LOADED = "load of migration failed"
_SEE = "see whether it runs there"
# What somebody says, at the source or at the destination, if the fault had an effect.
KINDS = {
    "none": "",
    "cut": _NOT_LOADED,
    "reset": f"{_NOT_LOADED}|{_FAILED}",
    "stall": "",
    "hang": f"took nothing for|sent nothing for|{_NOT_LOADED}",
    "slow": "",
    "change": f"{_NOT_LOADED}|changed on its way",
    "kill source": "",
    "kill destination": f"{_FAILED}|{_SEE}",
    "disk full": "cannot be written at sector .*: No space left on device",
    "file full": "No space left on device",
    "command ends": "the command ended with status|Broken pipe",
    "command hangs": "took nothing for|the command ended with status",
    "port taken": "Address already in use",
    "nobody there": "Connection refused|No such file or directory",
    "cancel": "",
}
_DISK = 3 << 20
_TOGETHER = ("none", "stall", "slow", "cancel")


@dataclass
class Outcome:
    """How one fault ended.

    Parameters
    ----------
    how : str
        What `info migrate` said at the end; "killed" where the source was.
    runs : str
        Who ran then: "source", "destination" or "nobody".
    wrong : list of str
        What should not be.
    said : str
        What was printed on standard error by both.
    """

    number: int
    kind: str
    how: str = ""
    runs: str = ""
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    said: str = ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _in_a_row(numbers: list[int]) -> bool:
    """Whether numbers count from 1 without gap.

    >>> _in_a_row([1, 2, 3]), _in_a_row([1, 3]), _in_a_row([])
    (True, False, False)
    """
    return bool(numbers) and numbers == list(range(1, len(numbers) + 1))


class _Stranger:
    """Somebody else who has the port: hangs up, talks, or keeps silent."""

    def __init__(self, manner: str) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.manner, self.over = manner, threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        self.server.settimeout(20)
        try:
            line, _ = self.server.accept()
            with line:
                if self.manner == "talks":
                    line.sendall(b"220 mail.example.org ESMTP\r\n" * 100)
                if self.manner != "hangs up":
                    self.over.wait(20)
        except OSError:
            pass

    def close(self) -> None:
        self.over.set()
        self.server.close()


class _Pair:
    """A source, and the faults it lives through, one after another."""

    def __init__(self, folder: Path, chosen: random.Random) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.started: list[Machine] = []
        self.begun = False
        self.disk = folder / "count.img"
        write_count_disk(
            str(self.disk), chosen.choice((0, 16, 64, 300)), chosen.choice((2_000, 20_000)), _DISK
        )
        self.source = self._start("source", self.disk)
        wait_until(lambda: len(self.source.numbers()) > 20, "the source counts")
        self.source.ask(f'migrate "exec:cat > {folder}/probe"')
        self.length = (folder / "probe").stat().st_size
        self.source.ask("cont")

    def _start(self, name: str, disk: Path, *argv: str, room: int | None = None) -> Machine:
        self.started.append(Machine(self.folder, name, disk, *argv, room=room))
        return self.started[-1]

    def end(self) -> None:
        """Kill what still runs."""
        for machine in self.started:
            machine.kill()

    def fault(self, outcome: Outcome, chosen: random.Random) -> None:
        """Let one thing go wrong, and look at what is left."""
        complained = self.source.err.stat().st_size
        destination = between = None
        name = f"destination{outcome.number}"
        detached = chosen.choice(("-d ", ""))
        self.source.ask(f"migrate_set_speed {chosen.choice(('1g', '32m', '4m', '600k'))}")
        if outcome.kind in ("file full", "command ends", "command hangs"):
            self._migrate(detached, self._command(outcome.kind, chosen))
        elif outcome.kind == "nobody there":
            way = chosen.choice((f"tcp:127.0.0.1:{_free_port()}", f"unix:{self.folder}/nowhere"))
            self._migrate(detached, way)
        elif outcome.kind == "port taken":
            between = _Stranger(chosen.choice(("hangs up", "talks", "keeps silent")))
            at = f"tcp:127.0.0.1:{between.port}"
            destination = self._start(name, self.disk, "-incoming", at)
            self._migrate(detached, at)
        elif outcome.kind == "disk full":
            disk = self.folder / "other.img"
            with open(disk, "wb") as file:
                file.truncate(_DISK)
            at = f"tcp:127.0.0.1:{_free_port()}"
            destination = self._start(name, disk, "-incoming", at, room=chosen.randrange(_DISK))
            self._migrate(f"{detached}-b ", at)
        else:
            to, uri = self._listening(chosen)
            destination = self._start(name, self.disk, "-incoming", uri)
            between = self._between(outcome.kind, to, destination, chosen)
            if outcome.kind == "cancel":
                detached = "-d "
                self.source.ask("migrate_set_speed 64k")
            self._migrate(detached, between.uri)
        if outcome.kind == "cancel":
            time.sleep(chosen.random() / 3)
            self.source.ask("migrate_cancel")
        outcome.how = self._ended()
        here = self.source.status()
        there = self._settled(destination, outcome) if destination is not None else "nowhere"
        happened = not isinstance(between, Between) or between.passed > between.place
        outcome.said = self.source.complaints(complained)
        if destination is not None:
            outcome.said += destination.complaints()
        self._judge(outcome, here, there, happened)
        if between is not None:
            between.close()
        if destination is not None:
            self._look_at_destination(destination, outcome, there)
        if outcome.how != "killed":
            self._look_at_source(outcome)

    def _command(self, kind: str, chosen: random.Random) -> str:
        if kind == "file full":
            return '"exec:cat > /dev/full"'
        if kind == "command hangs":
            return '"exec:exec sleep 30"'
        # Little enough to be noticed: a pipe keeps 64 KiB that nobody reads.
        some = chosen.randrange(max(self.length - 200_000, 1))
        ends = ("exit 3", f"exec head -c {some} > /dev/null", "cat > /dev/null; exit 4")
        return f'"exec:{chosen.choice(ends)}"'

    def _listening(self, chosen: random.Random) -> tuple[tuple[str, int] | str, str]:
        if chosen.random() < 0.5:
            port = _free_port()
            return ("127.0.0.1", port), f"tcp:127.0.0.1:{port}"
        path = f"{self.folder}/in"
        return path, f"unix:{path}"

    def _between(
        self, kind: str, to: tuple[str, int] | str, destination: Machine, chosen: random.Random
    ) -> Between:
        path = self.folder / "out"
        path.unlink(missing_ok=True)
        at = chosen.choice((("127.0.0.1", 0), str(path)))
        # The machine's last part, where every byte counts, is short.
        place = chosen.choice((chosen.randrange(self.length), max(self.length - chosen.randrange(9000), 0)))
        acts = {"kill source": self.source.process.kill, "kill destination": destination.process.kill}
        return Between(at, to, kind, place, chosen, acts.get(kind, lambda: None))

    def _migrate(self, options: str, uri: str) -> None:
        self.begun = "migration failed" not in self.source.ask(f"migrate {options}{uri}", 40)

    def _ended(self) -> str:
        """How the migration ended, once it has."""
        if not self.begun:
            return "failed"
        deadline = time.monotonic() + 40
        while self.source.alive:
            said = re.findall(r"Migration status: (\w+)", self.source.ask("info migrate", 40))
            if said and said[-1] != "active":
                return str(said[-1])
            if time.monotonic() > deadline:
                raise Stuck("the migration neither ends nor fails")
            time.sleep(0.02)
        return "killed"

    @staticmethod
    def _settled(destination: Machine, outcome: Outcome) -> str:
        """What the destination does once it has loaded all or given up."""
        deadline = time.monotonic() + (0 if outcome.kind == "port taken" else 4 * SILENCE)
        while True:
            status = destination.status()
            said = destination.complaints()
            if status != "paused" or _NOT_LOADED in said or "the source went" in said:
                return status
            if outcome.how == "completed" and outcome.kind != "port taken":
                # 0.12.4 does not start a machine that came over a unix socket.
                destination.ask("cont")
                return destination.status()
            if time.monotonic() > deadline:
                return status
            time.sleep(0.02)

    @staticmethod
    def _judge(outcome: Outcome, here: str, there: str, happened: bool) -> None:
        """Which of the two runs, and what was said."""
        wrong, how, kind = outcome.wrong, outcome.how, outcome.kind
        outcome.runs = {(1, 0): "source", (0, 1): "destination", (1, 1): "both", (0, 0): "nobody"}[
            here == "running", there == "running"
        ]
        if outcome.runs == "both":
            wrong.append("both machines run")
        elif how == "completed" and outcome.runs != "destination" and _SEE not in outcome.said:
            wrong.append(f"completed, but the source is {here} and the destination {there}")
        elif how in ("failed", "cancelled") and outcome.runs != "source":
            wrong.append(f"{how}, but the source is {here} and the destination {there}")
        if kind in _TOGETHER and how != "completed" and (kind, how) != ("cancel", "cancelled"):
            wrong.append(f"{how}, though nothing broke")
        elif kind not in _TOGETHER and happened and how == "completed" and _SEE not in outcome.said:
            wrong.append("completed, though something went wrong")
        if how == "failed" and kind != "nobody there" and not re.search(_FAILED, outcome.said):
            wrong.append("the source does not say why it failed")
        if happened and not re.search(KINDS[kind], outcome.said):
            wrong.append("nobody says what happened")
        if "Traceback" in outcome.said or "This is a fault of studykvm" in outcome.said:
            wrong.append("it ended with a fault of its own")

    def _text(self, destination: Machine | None = None) -> list[int]:
        """The numbers that came at the source and then at the destination."""
        machines = [self.source] if destination is None else [self.source, destination]
        text = "".join(each.serial.read_text(errors="replace") for each in machines if each.serial.exists())
        first = re.search(r"^1$", text, re.M)
        lines = text[first.start() :].split("\n")[:-1] if first else []
        return [int(line) if line.isdigit() else 0 for line in lines]

    def _look_at_destination(self, destination: Machine, outcome: Outcome, there: str) -> None:
        if there == "paused" and outcome.kind != "port taken":
            answer = destination.ask("cont")
            if "is incomplete" not in answer:
                # All had come when the source was killed.
                if outcome.how != "killed":
                    outcome.wrong.append(f"the destination takes `cont`: {answer!r}")
                there = destination.status()
            elif not re.search(_NOT_LOADED, outcome.said):
                outcome.wrong.append("the destination does not say that it lacks a part")
            elif destination.status() != "paused" or destination.numbers():
                outcome.wrong.append("the destination ran though it had not got all")
        if there == "running":
            wait_until(lambda: len(destination.numbers()) > 3, "the destination counts")
            if not _in_a_row(self._text(destination)):
                outcome.wrong.append("the destination does not go on where the source was")
        if destination.alive and (status := destination.quit()):
            outcome.wrong.append(f"the destination ends with {status}")

    def _look_at_source(self, outcome: Outcome) -> None:
        if self.source.status() == "paused":
            self.source.ask("cont")
        had = len(self.source.numbers())
        wait_until(lambda: len(self.source.numbers()) > had + 3, "the source counts on")
        if not _in_a_row(self._text()):
            outcome.wrong.append("the source does not go on where it was")
        wait_until(lambda: not self.source.children(), "what the source started ends", 4 * SILENCE)


def _worker(folder: Path, seed: int, numbers: list[int], kinds: list[str], show: bool) -> list[Outcome]:
    """Let some faults happen, one after another."""
    found: list[Outcome] = []
    pair: _Pair | None = None
    for number in numbers:
        chosen = random.Random(f"{seed}:{number}")
        outcome = Outcome(number, kinds[number % len(kinds)])
        begun = time.monotonic()
        try:
            if pair is None:
                pair = _Pair(folder / str(number), chosen)
            pair.fault(outcome, chosen)
        except (Stuck, OSError, AssertionError) as error:
            outcome.wrong.append(f"{type(error).__name__}: {error}")
            if pair is not None:
                outcome.said = outcome.said or pair.source.complaints()[-1000:]
        outcome.seconds = time.monotonic() - begun
        found.append(outcome)
        if show:
            verdict = "; ".join(outcome.wrong) or "well"
            print(
                f"{number:4} {outcome.kind:<16} {outcome.how:<10} {outcome.runs:<12}"
                f" {outcome.seconds:5.1f} s  {verdict}",
                flush=True,
            )
            if outcome.wrong:
                print("     " + outcome.said.strip().replace("\n", "\n     "), flush=True)
        if pair is not None and (outcome.how == "killed" or outcome.wrong or number % 40 == 39):
            if pair.source.alive and not outcome.wrong and (status := pair.source.quit()):
                outcome.wrong.append(f"the source ends with {status}")
            pair.end()
            pair = None
    if pair is not None:
        pair.end()
    return found


def run(
    count: int,
    seed: int,
    folder: Path,
    *,
    first: int = 0,
    jobs: int = 1,
    kinds: list[str] | None = None,
    show: bool = False,
) -> list[Outcome]:
    """Let `count` things go wrong.

    Parameters
    ----------
    folder : Path
        For disks and what machines print; short, for it has sockets.
    first : int
        Number of the first fault; number and seed decide what happens.
    jobs : int
        How many pairs of machines at once.
    kinds : list of str, optional
        Only these.
    """
    chosen = list(KINDS) if kinds is None else kinds
    numbers = list(range(first, first + count))
    with ThreadPoolExecutor(jobs) as pool:
        shares = [
            pool.submit(_worker, folder / str(job), seed, numbers[job::jobs], chosen, show)
            for job in range(jobs)
        ]
        found = [outcome for share in shares for outcome in share.result()]
    return sorted(found, key=lambda outcome: outcome.number)


def left_behind(folder: Path) -> list[int]:
    """Processes that still work in a folder or were started with it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if str(folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def table(found: list[Outcome]) -> str:
    """Kinds and outcomes, a line for each that occurred."""
    rows = Counter((outcome.kind, outcome.how, outcome.runs) for outcome in found)
    lines = [f"{'what went wrong':<18} {'the migration':<14} {'then runs':<12} {'times':>6}"]
    for kind in KINDS:
        for (of, how, runs), times in sorted(rows.items()):
            if of == kind:
                lines.append(f"{kind:<18} {how or '(stuck)':<14} {runs or '?':<12} {times:>6}")
    wrong = sum(bool(outcome.wrong) for outcome in found)
    longest = max((outcome.seconds for outcome in found), default=0.0)
    return "\n".join([*lines, f"{len(found)} faults, {wrong} not as they should be; longest {longest:.1f} s"])


def main() -> int:
    """Run; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Let migrations fail in every way, and see what is left.")
    parser.add_argument("--count", type=int, default=500, metavar="N", help="how many faults (500)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which ones (1)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first (0)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="pairs of machines at once (2)")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind; repeat")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mf", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        found = run(
            args.count, args.seed, folder, first=args.first, jobs=args.jobs, kinds=args.kind, show=True
        )
        remain = left_behind(folder)
    print(f"\n{table(found)}")
    if remain:
        print(f"left behind: processes {remain}")
    return 1 if remain or any(outcome.wrong for outcome in found) else 0


if __name__ == "__main__":
    sys.exit(main())
