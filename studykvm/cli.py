"""The `studykvm` command: a table of commands, each imported only when it is called.

- `main(argv=None) -> int`: dispatches, records a trace when asked, turns errors into one line.
- `COMMANDS`: name -> Command(module or "module:function", help, group, traceable).

`--trace FILE` among a traceable command's arguments, or the environment variable
STUDYKVM_TRACE, records the run; `%p` in the name becomes the process id.
STUDYKVM_DEBUG=1 lets an unexpected error show its traceback.
"""

import codecs
import gc
import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable

from studykvm import __version__


class Command:
    """A row of the command table."""

    def __init__(self, module: str, help: str, group: str, traceable: bool = False) -> None:
        self.module, self.help, self.group, self.traceable = module, help, group, traceable


_PLAIN = dict(zip("─│┌┐└┘✓✗·×µ█", "-|++++yn*xu#", strict=True)) | {"…": "...", "→": "->"}
_COLLECT_AFTER = 200_000
"""Objects between two looks for cycles that nobody holds."""
_TAGLINE = "Run a traced boot, see every call and structure change, hold it against the real QEMU."
_RUN, _READ = "run the machine and its tools", "read what was recorded"
_ASK = "ask the source of the real QEMU"
_LEARN = "learn"

COMMANDS: dict[str, Command] = {
    "boot": Command("boot", "boot a guest from an image, in QEMU's spelling (-hda FILE ...)", _RUN, True),
    "img": Command("img", "create, inspect, commit and convert images (qemu-img)", _RUN, True),
    "io": Command("io", "read and write an image request by request (qemu-io)", _RUN, True),
    "nbd": Command("nbd", "serve an image to a real QEMU, or any NBD client", _RUN, True),
    "demo": Command("demo", "make an overlay, boot it traced and draw what happened", _RUN),
    "trace": Command("trace", "show, count or export a trace", _READ),
    "migration": Command("migration", "show a saved machine, chart a migration", _READ),
    "compare": Command("compare", "hold a trace against a recording of the real program", _READ),
    "draw": Command("draw", "draw the call graph of a trace", _READ),
    "structures": Command("structures", "draw the structures of a trace at one step", _READ),
    "functions": Command("functions", "list every modelled function and where it is", _READ),
    "callers": Command("ask:callers", "who calls a function, and how it is known", _ASK),
    "callees": Command("ask:callees", "what a function calls, through pointers too", _ASK),
    "path": Command("ask:path", "how one function reaches another", _ASK),
    "why": Command("ask:why", "the evidence for a call, link by link", _ASK),
    "graph": Command("ask:graph", "draw a call graph, or hold it against a recording", _ASK),
    "xref": Command("lookup:xref", "every place where a symbol stands", _ASK),
    "struct": Command("lookup:struct", "a structure's fields, and who implements its pointers", _ASK),
    "sets": Command("lookup:sets", "who puts which function into STRUCT.FIELD", _ASK),
    "calls": Command("lookup:calls", "who calls through STRUCT.FIELD", _ASK),
    "option": Command("lookup:option", "what handles an option such as -hda", _ASK),
    "expand": Command("lookup:expand", "what the macros in a line become, step by step", _ASK),
    "cycles": Command("overview:cycles", "functions that reach themselves", _ASK),
    "dead": Command("overview:dead", "functions that main does not reach", _ASK),
    "edges": Command("overview:edges", "all calls, as a table", _ASK),
    "diff": Command("overview:diff", "what changed between two indexes", _ASK),
    "exercise": Command("exercise", "the questions of the course: notebooks, hints, checks", _LEARN),
    "index": Command("index", "read C sources into an index", _ASK),
}


def _usage() -> str:
    lines = ["usage: studykvm COMMAND [ARGUMENTS]", "", _TAGLINE, ""]
    for group in dict.fromkeys(c.group for c in COMMANDS.values()):
        lines.append(f"{group}:")
        lines += [f"  {name:<11} {c.help}" for name, c in COMMANDS.items() if c.group == group]
        lines.append("")
    lines += ["studykvm COMMAND --help explains a command. boot, img, io and nbd take --trace FILE,"]
    lines += ["and --trace-only 'block*,aio.c' for calls of these C files alone."]
    return "\n".join(lines)


def _split_trace_option(argv: list[str]) -> tuple[str | None, list[str], list[str]]:
    """Take `--trace FILE` and `--trace-only PATTERNS`, `=` or not, out of `argv`; the environment fills in.

    >>> _split_trace_option(["create", "--trace", "a.trace", "--trace-only=block*,aio.c", "x.img"])
    ('a.trace', ['block*', 'aio.c'], ['create', 'x.img'])
    """
    from studykvm.errors import StudyError

    found: dict[str, str | None] = {"--trace": os.environ.get("STUDYKVM_TRACE") or None, "--trace-only": None}
    wanted = {
        "--trace": "a file name: --trace boot.trace",
        "--trace-only": "C files: --trace-only 'block*,aio.c'",
    }
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        option, given, value = word.partition("=")
        if option not in found:
            rest.append(word)
            continue
        found[option] = value if given else next(words, None)
        if found[option] is None:
            raise StudyError(f"{option} wants {wanted[option]}")
    path, only = found["--trace"], found["--trace-only"]
    if only is not None and not path:
        raise StudyError("--trace-only says what of a trace to keep; add --trace FILE")
    return path and path.replace("%p", str(os.getpid())), only.split(",") if only else [], rest


def load(command: Command) -> Callable[[list[str]], int]:
    """Import a command's module and return its entry."""
    module, _, function = command.module.partition(":")
    found = importlib.import_module(f"studykvm.commands.{module}")
    entry: Callable[[list[str]], int] = getattr(found, function or "main")
    return entry


def _run(name: str, argv: list[str]) -> int:
    command = COMMANDS[name]
    path, only = None, list[str]()
    if command.traceable:
        path, only, argv = _split_trace_option(argv)
    entry = load(command)
    if path is None:
        return entry(argv)
    import shlex

    from tracer import record
    from tracer.recorder import FLUSH_EVENTS

    # Events that wait to be written are no garbage.
    gc.set_threshold(_COLLECT_AFTER + FLUSH_EVENTS)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        with record(path, note=shlex.join(["studykvm", name, *argv]), only=only):
            return entry(argv)


def _show_warning(message: Warning | str, *where: object, **how: object) -> None:
    print(f"studykvm: warning: {message}", file=sys.stderr)


def _unknown(name: str) -> int:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else "studykvm --help lists the commands"
    print(f"studykvm: no command {name!r}; {hint}", file=sys.stderr)
    return 2


def _known_errors() -> tuple[type[Exception], ...]:
    """The packages' own errors, of those packages that this run has loaded."""
    names = [("tracer", "TracerError"), ("hypervisor", "HypervisorError")]
    names += [("graphs", "GraphsError"), ("studykvm", "StudyError")]
    modules = [(sys.modules.get(f"{package}.errors"), error) for package, error in names]
    return tuple(getattr(module, error) for module, error in modules if module is not None)


def _obey(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help") or argv == ["help"]:
        print(_usage())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(f"studykvm {__version__}")
        return 0
    name, rest = argv[0], argv[1:]
    if name == "help":
        name, rest = rest[0], ["--help"]
    return _run(name, rest) if name in COMMANDS else _unknown(name)


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        The command's exit status; 1 for an error, 2 for wrong usage, 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    _prepare_output()
    # What a command makes it keeps: looking through it after each 700 objects finds nothing.
    gc.set_threshold(_COLLECT_AFTER)
    try:
        status = _obey(argv)
        sys.stdout.flush()
        return status
    except SystemExit as exit_:
        if isinstance(exit_.code, str):
            print(exit_.code, file=sys.stderr)
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if os.environ.get("STUDYKVM_DEBUG"):
            raise
        print(f"studykvm: {_describe(error)}", file=sys.stderr)
        return 1


def _prepare_output() -> None:
    """Make standard output take everything: when it is closed, and when its encoding lacks a letter."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names are bytes; those that are not UTF-8 must still come out as they are.
            universal = stream.encoding.lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if universal else "studykvm")


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for a letter that the output's encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    letter = error.object[error.start]
    if "\udc80" <= letter <= "\udcff":
        return bytes([ord(letter) & 0xFF]), error.start + 1
    return _PLAIN.get(letter) or letter.encode("ascii", "backslashreplace"), error.start + 1


codecs.register_error("studykvm", _plainly)


def _describe(error: Exception) -> str:
    if isinstance(error, _known_errors()):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    kind = type(error).__name__
    return f"{kind}: {error}\nThis is a fault of studykvm; STUDYKVM_DEBUG=1 shows where."
