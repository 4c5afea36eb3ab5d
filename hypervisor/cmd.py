"""The command interpreter under qemu-io: cmd.c, which QEMU took from xfsprogs.

- `cmdinfo_t`: one command: its names, its function, how many arguments it takes.
- `add_command`, `add_user_command`, `add_args_command`, `add_check_command`: set it up.
- `command_loop()`: run the commands given by `add_user_command`, else those of stdin.
- `find_command`, `command`, `command_usage`, `quit_init`, `help_init`.
- `breakline`, `doneline`, `fetchline`: a line, and its words.
- `cvtnum`, `cvtstr`, `tsub`, `tdiv`, `timestr`: numbers, sizes and times as text.

A command's function takes ``(argc, argv)`` and returns nonzero to end the loop. Time values
are microseconds here, so C's `struct timeval` is an int.
"""

import sys
from collections.abc import Callable

from hypervisor.program import on_reset
from hypervisor.qemu_option_parameter import strtoll
from hypervisor.wording import modern
from tracer import Struct, traced

C_FILE = "cmd.c"

CMD_FLAG_GLOBAL = 0x80000000
DEFAULT_TIME = 0
TERSE_FIXED_TIME = 1
VERBOSE_FIXED_TIME = 2
_INT_MIN = -(1 << 31)


class cmdinfo_t(Struct):
    """`cmdinfo_t`: one command of the interpreter.

    Parameters
    ----------
    name, altname : str or None
        `const char *`: what the user types, in full and for short.
    cfunc : callable
        `cfunc_t`: ``int (int argc, char **argv)``.
    argmin, argmax : int
        How many arguments it takes; `argmax` -1 means any number.
    flags : int
        CMD_FLAG_GLOBAL, or bits of the program's own.
    args, oneline : str or None
        What help says of the arguments and of the purpose.
    help : callable or None
        `helpfunc_t`: prints the long help.
    """

    name: str = ""
    altname: str | None = None
    cfunc: Callable[[int, list[str]], int] | None = None
    argmin: int = 0
    argmax: int = 0
    canpush: int = 0
    flags: int = 0
    args: str | None = None
    oneline: str | None = None
    help: Callable[[], None] | None = None


cmdtab: list[cmdinfo_t] = []
_cmdline: list[str] = []


class _Hooks:
    """cmd.c's `args_func`, `check_func` and `progname`, and what C does not keep: a failure."""

    args: Callable[[int], int] | None = None
    check: Callable[[cmdinfo_t], int] | None = None
    progname = "qemu-io"
    failed = False


_hooks = _Hooks()


@on_reset
def _reset() -> None:
    global _hooks
    cmdtab.clear()
    _cmdline.clear()
    _hooks = _Hooks()


def set_progname(name: str) -> None:
    """Set the name of the prompt; in C the variable `progname`."""
    _hooks.progname = name


def fail() -> None:
    """Note that a command failed, which 0.12.4 forgets and 7.2's exit status tells."""
    _hooks.failed = True


def failed() -> bool:
    """Tell whether any command of this run failed."""
    return _hooks.failed


@traced
def compare(a: cmdinfo_t, b: cmdinfo_t) -> int:
    """Order two commands by name: negative, zero or positive."""
    return (a.name > b.name) - (a.name < b.name)


def _qsort(table: list[cmdinfo_t]) -> list[cmdinfo_t]:
    """Sort as the C library's `qsort` does, by merging halves, so that `compare` sees the same pairs."""
    if len(table) < 2:
        return table
    half = len(table) // 2
    left, right = _qsort(table[:half]), _qsort(table[half:])
    merged = []
    while left and right:
        merged.append((left if compare(left[0], right[0]) <= 0 else right).pop(0))
    return merged + left + right


@traced
def add_command(ci: cmdinfo_t) -> None:
    """Add a command to the table, which stays sorted."""
    cmdtab[:] = _qsort([*cmdtab, ci])


@traced
def check_command(ci: cmdinfo_t) -> int:
    """Ask the program whether `ci` may run now."""
    return _hooks.check(ci) if _hooks.check else 1


@traced
def add_check_command(cf: Callable[[cmdinfo_t], int]) -> None:
    """Set the function that `check_command` asks."""
    _hooks.check = cf


@traced
def command_usage(ci: cmdinfo_t) -> int:
    """Print how a command is used; 0, so that the loop goes on."""
    print(f"{ci.name} {ci.args} -- {ci.oneline}")
    fail()
    return 0


@traced
def command(ct: cmdinfo_t, argc: int, argv: list[str]) -> int:
    """Run one command, after a look at whether it may run and at its argument count."""
    if not check_command(ct):
        fail()
        return 0
    count = argc - 1
    if count < ct.argmin or (ct.argmax != -1 and count > ct.argmax):
        if ct.argmax == -1:
            expected = f"at least {ct.argmin}"
        elif ct.argmin == ct.argmax:
            expected = f"{ct.argmin}"
        else:
            expected = f"between {ct.argmin} and {ct.argmax}"
        print(f"bad argument count {count} to {argv[0]}, expected {expected} arguments", file=sys.stderr)
        fail()
        return 0
    assert ct.cfunc is not None
    return ct.cfunc(argc, argv)


@traced
def find_command(cmd: str) -> cmdinfo_t | None:
    """Find a command by either of its names."""
    return next((ct for ct in cmdtab if cmd in (ct.name, ct.altname)), None)


@traced
def add_user_command(optarg: str) -> None:
    """Queue a command line; with any queued, stdin is not read."""
    _cmdline.append(optarg)


@traced
def args_command(index: int) -> int:
    """Ask the program for the target after `index`; 0 when there is none."""
    return _hooks.args(index) if _hooks.args else 0


@traced
def add_args_command(af: Callable[[int], int]) -> None:
    """Set the function that `args_command` asks."""
    _hooks.args = af


def _not_found(name: str) -> None:
    print(f'command "{name}" not found', file=sys.stderr)
    fail()


@traced
def command_loop() -> None:
    """Run the queued command lines, or read them from stdin, until one returns nonzero."""
    done = 0
    for line in _cmdline:
        if done:
            break
        v, c = breakline(line)
        if c:
            ct = find_command(v[0])
            if ct is None:
                _not_found(v[0])
            elif ct.flags & CMD_FLAG_GLOBAL:
                done = command(ct, c, v)
            else:
                j = 0
                while not done and (j := args_command(j)):
                    done = command(ct, c, v)
        doneline(line, v)
    if _cmdline:
        return
    while not done:
        fetched = fetchline()
        if fetched is None:
            break
        v, c = breakline(fetched)
        if c:
            ct = find_command(v[0])
            if ct:
                done = command(ct, c, v)
            else:
                _not_found(v[0])
        doneline(fetched, v)


@traced
def get_prompt() -> str:
    """Give the prompt: the program's name and ``>``."""
    return f"{_hooks.progname}> "


@traced
def fetchline() -> str | None:
    """Prompt for a line and read it, without its newline; None at the end of stdin."""
    print(get_prompt(), end="", flush=True)
    line = sys.stdin.readline()
    return line.removesuffix("\n") if line else None


@traced
def qemu_strsep(input: str | None, delim: str) -> tuple[str | None, str | None]:
    """Cut a word off; the word, and what is left, both None once nothing is."""
    if input is None:
        return None, None
    word, found, rest = input.partition(delim)
    return word, rest if found else None


@traced
def breakline(input: str) -> tuple[list[str], int]:
    """Split a line at blanks; the words, and how many."""
    words: list[str] = []
    rest: str | None = input
    while True:
        p, rest = qemu_strsep(rest, " ")
        if p is None:
            return words, len(words)
        if p:
            words.append(p)


@traced
def doneline(input: str, vec: list[str]) -> None:
    """Free a line and its words, which Python does by itself."""


@traced
def cvtnum(s: str) -> int:
    """Read a number in C's notation with an optional unit, k to e; -1 if it is none.

    A single letter that is no unit is ignored.

    >>> cvtnum("64M") == 64 << 20, cvtnum("0x200"), cvtnum("1kB"), cvtnum("7x")
    (True, 512, -1, 7)
    """
    i, rest = strtoll(s)
    if rest == s or len(rest) > 1:
        return -1
    shift = 10 * ("kmgtpe".find(rest.lower()) + 1) if rest else 0
    return i << shift


@traced
def cvtstr(value: float) -> str:
    """Say a size in the largest unit that fits.

    A whole number of bytes is said without decimals, even when the unit divides it badly: 1536
    is "2 KiB". From 2 GiB on C's conversion to int overflows, and the decimals are back.

    >>> cvtstr(512), cvtstr(64 << 20), cvtstr(4 << 30)
    ('512.000000 bytes', '64 MiB', '4.000 GiB')
    """
    power = next((p for p in (60, 50, 40, 30, 20, 10) if value >= 1 << p), 0)
    if not power:
        text = f"{value:f} bytes"
        return text.replace(".000000", "") if modern() else text
    scaled, unit = value / (1 << power), "KMGTPE"[power // 10 - 1] + "iB"
    if modern():
        return f"{scaled:.3f}".removesuffix(".000") + f" {unit}"
    truncated = int(value) if value < -_INT_MIN else _INT_MIN
    return f"{scaled:.{0 if value == truncated else 3}f} {unit}"


@traced
def tsub(t1: int, t2: int) -> int:
    """Take one time from another, in microseconds."""
    return t1 - t2


@traced
def tdiv(value: float, tv: int) -> float:
    """Give `value` per second; infinite when no time has passed."""
    return value * 1e6 / tv if tv else float("inf") if value else float("nan")


@traced
def timestr(tv: int, format: int) -> str:
    """Say a time: fractions of a second below one second, else hours, minutes, seconds.

    The fraction is multiplied only after C has cut it to an integer, so it is always 0 here.
    """
    seconds = tv // 1_000_000
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if format & TERSE_FIXED_TIME:
        if not hours:
            return f"{minutes}:{seconds % 60:02}.00"
        format |= VERBOSE_FIXED_TIME
    if format & VERBOSE_FIXED_TIME or seconds:
        return f"{hours}:{minutes:02}:{seconds % 60:02}.00"
    return "0.0000 sec"


@traced
def quit_f(argc: int, argv: list[str]) -> int:
    """`quit`: end the loop."""
    return 1


@traced
def quit_init() -> None:
    """Add the command `quit`."""
    add_command(
        cmdinfo_t(
            name="quit",
            altname="q",
            cfunc=quit_f,
            argmin=-1,
            argmax=-1,
            flags=CMD_FLAG_GLOBAL,
            oneline="exit the program",
        )
    )


@traced
def help_all() -> None:
    """Print a line a command."""
    for ct in cmdtab:
        help_oneline(ct.name, ct)
    print("\nUse 'help commandname' for extended help.")


@traced
def help_f(argc: int, argv: list[str]) -> int:
    """`help [command]`: print what there is, or what one command does."""
    if argc == 1:
        help_all()
        return 0
    ct = find_command(argv[1])
    if ct is None:
        print(f"command {argv[1]} not found")
        fail()
        return 0
    help_onecmd(argv[1], ct)
    return 0


@traced
def help_onecmd(cmd: str, ct: cmdinfo_t) -> None:
    """Print all there is to say about one command."""
    help_oneline(cmd, ct)
    if ct.help:
        ct.help()


@traced
def help_oneline(cmd: str | None, ct: cmdinfo_t) -> None:
    """Print one command's line: its name (both names without `cmd`), arguments and purpose."""
    if cmd:
        print(cmd, end=" ")
    else:
        print(ct.name, end=" ")
        if ct.altname:
            print(f"(or {ct.altname})", end=" ")
    if ct.args:
        print(ct.args, end=" ")
    print(f"-- {ct.oneline}")


@traced
def help_init() -> None:
    """Add the command `help`."""
    add_command(
        cmdinfo_t(
            name="help",
            altname="?",
            cfunc=help_f,
            argmin=0,
            argmax=1,
            flags=CMD_FLAG_GLOBAL,
            args="[command]",
            oneline="help for one or all commands",
        )
    )
