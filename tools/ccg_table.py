"""Our index beside cflow, cscope and doxygen on the call features of tests/ccg: recall and precision.

    python -m tools.ccg_table [--features] [--write FILE] [NAME ...]

Each tool reads the same files with the same macros, in the way that suits it best: cflow behind gcc's
preprocessor and told of GNU's words, cscope asked for what each function calls, doxygen by its references
between functions, with attributes taken away. What they say is taken as pairs (caller, callee) among the
functions that the case defines, and held against the case's expectation. Where a tool gives a bare name, it
is the function of the same file, or else every function of that name.

- `TOOLS`: name to a function from (case, functions, scratch folder) to pairs.
- `absent(name)`: why one cannot run.
- `measure(cases)`: the pairs of every tool on every case; `render(...)`: the table as Markdown.

A program that is not installed loses its column; a line below the table says how to get it.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.ccg.cases import START, Case, Pair, Score, all_cases, indexed, score

OURS = "studykvm"
GROUPS = {
    "by name (direct, macro)": {"direct", "macro"},
    "through a struct's field": {"field"},
    "through a table": {"table"},
    "through a parameter": {"parameter"},
    "through a variable or expression": {"variable"},
    "by the system (constructor, signal, thread, library)": {
        "constructor", "destructor", "signal", "thread", "library",
    },
}  # fmt: skip

# GNU C's words, which cflow has to be told.
_CFLOW_WORDS = (
    "__attribute__:wrapper", "__asm__:wrapper", "__extension__:qualifier", "__restrict:qualifier",
    "__inline:qualifier", "__const:qualifier", "__builtin_va_list:type", "_Atomic:wrapper",
    "__thread:qualifier",
)  # fmt: skip

_DOXYFILE = """INPUT = "{folder}"
OUTPUT_DIRECTORY = "{out}"
RECURSIVE = YES
FILE_PATTERNS = *.c *.h *.def
OPTIMIZE_OUTPUT_FOR_C = YES
EXTRACT_ALL = YES
EXTRACT_STATIC = YES
SOURCE_BROWSER = YES
REFERENCES_RELATION = YES
MACRO_EXPANSION = YES
SEARCH_INCLUDES = YES
PREDEFINED = "__attribute__(x)=" "__asm__(x)=" "__extension__=" "__thread=" "_Atomic(x)=x" {defines}
GENERATE_HTML = NO
GENERATE_LATEX = NO
GENERATE_XML = YES
XML_PROGRAMLISTING = NO
QUIET = YES
WARNINGS = NO
"""

HEAD = """# C call features: four tools

Made by `python -m tools.ccg_table --features --write tests/ccg/TABLE.md`. Recall: share of the expected edges
that the tool tells; precision: share of what it tells that is expected. cflow and doxygen take every mention
of a function for a call of it by the function around, which now and then hits a call through a pointer.

"""

Functions = set[str]


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout


def _defines(case: Case) -> list[str]:
    return [flag for flag in case.flags if flag.startswith("-D")]


def _meant(name: str, file: str, functions: Functions) -> set[str]:
    """The functions that a bare name in a file means."""
    if f"{file}:{name}" in functions:
        return {f"{file}:{name}"}
    return {function for function in functions if function.rpartition(":")[2] == name}


def cflow(case: Case, functions: Functions, scratch: Path) -> set[Pair]:
    """Pairs that cflow shows: a function and the level below it."""
    words = [word for symbol in _CFLOW_WORDS for word in ("-s", symbol)]
    preprocess = "--cpp=" + " ".join(["gcc", "-E", *_defines(case)])
    shown = _run(["cflow", "--all", preprocess, *words, *case.sources], case.folder)
    above: dict[int, str] = {}
    pairs: set[Pair] = set()
    for line in shown.splitlines():
        found = re.match(r"( *)(\w+)\(\)(?: <.* at (.+):\d+>)?", line)
        if found is None:
            continue
        level = len(found[1]) // 4
        function = f"{found[3]}:{found[2]}"
        if function in functions:
            above[level] = function
            if level and above.get(level - 1):
                pairs.add((above[level - 1], function))
        else:
            above[level] = ""
    return pairs


def cscope(case: Case, functions: Functions, scratch: Path) -> set[Pair]:
    """Pairs that cscope finds: functions called by each function."""
    base = str(scratch / "cscope.out")
    files = sorted(
        str(path.relative_to(case.folder))
        for path in case.folder.rglob("*")
        if path.suffix in (".c", ".h", ".def")
    )
    _run(["cscope", "-b", "-k", "-f", base, *files], case.folder)
    pairs = set()
    for name in sorted({function.rpartition(":")[2] for function in functions}):
        for line in _run(["cscope", "-d", "-k", "-f", base, "-L", "-2", name], case.folder).splitlines():
            file, callee, _ = line.split(" ", 2)
            if f"{file}:{name}" in functions:
                pairs |= {(f"{file}:{name}", meant) for meant in _meant(callee, file, functions)}
    return pairs


def doxygen(case: Case, functions: Functions, scratch: Path) -> set[Pair]:
    """Pairs that doxygen's XML has: functions and the functions they refer to."""
    out = scratch / "doxygen"
    out.mkdir()
    defines = " ".join(flag[2:] for flag in _defines(case))
    (scratch / "Doxyfile").write_text(_DOXYFILE.format(folder=case.folder, out=out, defines=defines))
    _run(["doxygen", str(scratch / "Doxyfile")], case.folder)
    names: dict[str, str] = {}
    references: set[tuple[str, str]] = set()
    for path in (out / "xml").glob("*.xml"):
        for member in ElementTree.parse(path).iter("memberdef"):
            location = member.find("location")
            if member.get("kind") != "function" or location is None:
                continue
            file = Path(location.get("bodyfile") or location.get("file") or "")
            if file.is_relative_to(case.folder):
                file = file.relative_to(case.folder)
            names[member.get("id", "")] = f"{file}:{member.findtext('name')}"
            references |= {
                (member.get("id", ""), node.get("refid", "")) for node in member.iter("references")
            }
    pairs = {(names.get(caller, ""), names.get(callee, "")) for caller, callee in references}
    return {(caller, callee) for caller, callee in pairs if caller in functions and callee in functions}


TOOLS: dict[str, Callable[[Case, Functions, Path], set[Pair]]] = {
    "cflow": cflow,
    "cscope": cscope,
    "doxygen": doxygen,
}


def absent(name: str) -> str:
    """Why a tool cannot run, "" if it can."""
    needed = [name, "gcc"] if name == "cflow" else [name]
    missing = [program for program in needed if not shutil.which(program)]
    return (
        f"{' and '.join(missing)} not installed; on Debian: apt-get install {' '.join(missing)}"
        if missing
        else ""
    )


def version(name: str) -> str:
    """The first version number that a tool tells of itself."""
    done = subprocess.run(
        [name, "-V" if name == "cscope" else "--version"], capture_output=True, text=True, check=False
    )
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "?"


def measure(cases: list[Case]) -> dict[str, dict[str, set[Pair]]]:
    """Tool to case to the pairs it tells."""
    from graphs.index.query import Index

    present = [name for name in TOOLS if not absent(name)]
    out: dict[str, dict[str, set[Pair]]] = {name: {} for name in (OURS, *present)}
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="ccg-") as folder:
            scratch = Path(folder)
            edges = indexed(case, scratch)
            out[OURS][case.name] = {(caller, callee) for caller, callee, _ in edges}
            with Index.open(scratch / f"{case.name}.index") as index:
                functions = {str(function) for function in index.all_functions.values()}
            functions |= {name for pair in case.pairs for name in pair} - {START}
            for name in present:
                out[name][case.name] = TOOLS[name](case, functions, scratch)
    return out


def total(told: dict[str, set[Pair]], cases: list[Case]) -> Score:
    """The score of one tool over cases."""
    return sum((score(told[case.name], case.pairs) for case in cases), Score())


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share in (0, 1) else f"{100 * share:.1f} %"


def render(told: dict[str, dict[str, set[Pair]]], cases: list[Case], features: bool = False) -> str:
    """The figures as Markdown."""
    tools = list(told)
    heads = [name if name == OURS else f"{name} {version(name)}" for name in tools]
    lines = [f"| {len(cases)} features | edges | {' | '.join(heads)} |", "|---|--:|" + "--:|" * len(tools)]
    for group, kinds in GROUPS.items():
        wanted = {(case.name, edge.pair) for case in cases for edge in case.edges if edge.kind in kinds}
        if wanted:
            cells = [
                _percent(sum(pair in told[tool][name] for name, pair in wanted) / len(wanted))
                for tool in tools
            ]
            lines.append(f"| found: {group} | {len(wanted)} | {' | '.join(cells)} |")
    scores = {tool: total(told[tool], cases) for tool in tools}
    expected = sum(len(case.pairs) for case in cases)
    lines.append(
        f"| **recall** | {expected} | {' | '.join(f'**{_percent(scores[t].recall)}**' for t in tools)} |"
    )
    lines.append(f"| **precision** | | {' | '.join(f'**{_percent(scores[t].precision)}**' for t in tools)} |")
    exact = [sum(told[t][case.name] == case.pairs for case in cases) for t in tools]
    lines.append(f"| features told exactly | | {' | '.join(map(str, exact))} |")
    if features:
        lines += [
            "",
            f"| recall / precision | edges | {' | '.join(heads)} |",
            "|---|--:|" + "--:|" * len(tools),
        ]
        for case in cases:
            each = [score(told[tool][case.name], case.pairs) for tool in tools]
            cells = [f"{100 * s.recall:.0f} / {100 * s.precision:.0f}" for s in each]
            lines.append(f"| {case.name.replace('_', ' ')} | {len(case.pairs)} | {' | '.join(cells)} |")
    lines += ["", *(f"{name}: {absent(name)}" for name in TOOLS if absent(name))]
    return "\n".join(lines).rstrip() + "\n"


def main(argv: list[str]) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="ccg_table", description="The index beside cflow, cscope, doxygen.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="features (all)")
    parser.add_argument("--features", action="store_true", help="recall and precision of every feature too")
    parser.add_argument("--write", metavar="FILE", help="write the table there")
    args = parser.parse_args(argv)
    cases = [case for case in all_cases() if not args.names or case.name in args.names]
    unknown = set(args.names) - {case.name for case in cases}
    if unknown:
        print(
            f"ccg_table: no feature {', '.join(sorted(unknown))}; they are the folders of tests/ccg",
            file=sys.stderr,
        )
        return 2
    table = render(measure(cases), cases, args.features)
    if args.write:
        Path(args.write).write_text(HEAD + table)
    print(table, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
