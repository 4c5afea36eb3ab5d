"""`studykvm exercise`: the coursework in a terminal, with or without Jupyter."""

import argparse
import sys
from pathlib import Path

from studykvm.errors import StudyError

_EXAMPLES = """\
examples:
  studykvm exercise start 5                 a fresh notebook in this folder (--plain: a Python file)
  studykvm exercise show 5                  its questions (5.4: that one)
  studykvm exercise answer 5.1 main         judge one answer
  studykvm exercise hint 5.1                the next hint
  studykvm exercise check 5_hda.ipynb       run the notebook, judge all its answers
  studykvm exercise evidence d01 1455-1470  what an explanation points to
"""


def main(argv: list[str]) -> int:
    """Run one of the actions; 1 when a notebook has an answer that is not right."""
    parser = argparse.ArgumentParser(
        prog="studykvm exercise",
        description="The questions of the course: asked, explored, and checked against evidence.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="the exercises, and how far you are")
    start = actions.add_parser("start", help="a fresh notebook in this folder")
    start.add_argument("number", metavar="N")
    start.add_argument("--plain", action="store_true", help="a Python file instead of an .ipynb")
    show = actions.add_parser("show", help="the questions of an exercise, or one of them")
    show.add_argument("number", metavar="N[.M]")
    hint = actions.add_parser("hint", help="the next hint to a question")
    hint.add_argument("question", metavar="N.M")
    answer = actions.add_parser("answer", help="judge one answer")
    answer.add_argument("question", metavar="N.M")
    # REMAINDER, for an answer may begin with "-hda" or hold "->".
    answer.add_argument(
        "answer", nargs=argparse.REMAINDER, metavar="ANSWER", help="as text, or in Python's spelling"
    )
    check = actions.add_parser("check", help="run a notebook and judge its answers")
    check.add_argument("file", metavar="FILE")
    check.add_argument("--seconds", type=int, default=60, metavar="S", help="the most a cell may take (60)")
    actions.add_parser("progress", help="every question, and what became of it")
    evidence = actions.add_parser("evidence", help="lines of a recording, as explanations name them")
    evidence.add_argument("recording", metavar="NAME")
    evidence.add_argument("lines", metavar="FROM-TO")
    args = parser.parse_args(argv)
    return int(globals()[f"_{args.action}"](args) or 0)


def _list(args: argparse.Namespace) -> None:
    from studykvm.coursework.progress import Progress
    from studykvm.coursework.questions import exercises

    progress = Progress.open()
    for one in exercises():
        right = sum(progress.of(q.id)["right"] for q in one.questions)
        print(f"{one.number:>2}  {one.title:<45} {right} of {len(one.questions)} questions right")
    print("\n`studykvm exercise start N` puts a fresh notebook here.")


def _start(args: argparse.Namespace) -> None:
    import shutil

    from studykvm.coursework.sheets import start

    path = start(args.number, Path.cwd(), args.plain)
    print(f"{path.name} is here, fresh. Your progress is kept beside it.")
    if args.plain:
        print(f"Edit it, run it with `python {path.name}`; `studykvm exercise check {path.name}` judges it.")
    else:
        print(f"Open it with `jupyter lab {path.name}`; `studykvm exercise check {path.name}` judges it.")
        if not any(map(shutil.which, ("jupyter-lab", "jupyter-notebook"))):
            again = f"studykvm exercise start {args.number} --plain"
            print(f"Jupyter is not here: `pip install jupyterlab`, or take a Python file: `{again}`.")


def _show(args: argparse.Namespace) -> None:
    import textwrap

    from studykvm.coursework.questions import exercise, question

    wanted = args.number.strip()
    if "." in wanted:
        questions = [question(wanted)]
    else:
        one = exercise(wanted)
        questions = list(one.questions)
        print(f"Exercise {one.number}: {one.title}\n\n{one.asked}\n")
    for asked in questions:
        print(textwrap.fill(f"{asked.id}  {asked.text}", 100, subsequent_indent="     "))
        options = asked.spec.get("options", {})
        for key, option in options.items() if asked.kind == "choice" else ():
            print(f"     {key}: {option['statement']}")
        print(f"     answer: {asked.form}\n")


def _hint(args: argparse.Namespace) -> None:
    from studykvm.coursework.progress import FILE, Progress
    from studykvm.coursework.questions import question
    from studykvm.coursework.session import hint

    asked = question(args.question).id
    progress = Progress.open()
    if not progress.kept:
        progress.create()
        print(f"(From now on {FILE} here keeps which hints you have read.)")
    hint(asked)


def _answer(args: argparse.Namespace) -> int:
    import ast

    from studykvm.coursework.limits import shallow
    from studykvm.coursework.questions import question
    from studykvm.coursework.session import check

    text = " ".join(args.answer[1:] if args.answer[:1] == ["--"] else args.answer)
    try:
        with shallow():
            answer = ast.literal_eval(text) if text[:1] in "{[(\"'" else text
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        answer = text
    return int(not check(question(args.question).id, answer).right)


def _check(args: argparse.Namespace) -> int:
    from studykvm.coursework.checking import check_file
    from studykvm.coursework.progress import Progress
    from studykvm.coursework.sheets import number_of

    if not 1 <= args.seconds <= 600:
        raise StudyError(f"--seconds {args.seconds}: choose 1 to 600")
    number_of(args.file)
    print(f"Running {args.file}, cell by cell ...", file=sys.stderr, flush=True)
    checked = check_file(args.file, args.seconds)
    progress = Progress.open(Path(args.file).parent)
    before = 0
    for verdict in checked.verdicts:
        print(verdict)
        if any(part.ok is not None for part in verdict.parts):
            progress.answered(verdict.question, verdict.right)
        elif progress.of(verdict.question)["right"]:
            before += 1
            print("  · it was right before, elsewhere")
    for remark in checked.remarks:
        print(f"· {remark}")
    right = sum(verdict.right for verdict in checked.verdicts)
    more = f" {before} more {'was' if before == 1 else 'were'} right before." if before else ""
    print(f"\n{right} of {len(checked.verdicts)} questions of exercise {checked.number} are right.{more}")
    return int(right < len(checked.verdicts))


def _progress(args: argparse.Namespace) -> None:
    from studykvm.coursework.progress import FILE, Progress
    from studykvm.coursework.questions import exercises

    progress = Progress.open()
    if not progress.kept:
        print(f"No progress is kept here ({FILE}): `studykvm exercise start N` begins.")
        return
    for one in exercises():
        print(f"{one.number}  {one.title}")
        for question in one.questions:
            state = progress.of(question.id)
            word = "right" if state["right"] else "tried" if state["tries"] else "open"
            print(f"   {question.id:<5} {word:<6} {state['tries']:>3} tries, {state['hints']} hints read")


def _evidence(args: argparse.Namespace) -> None:
    from studykvm.coursework.sources import recorded

    calls = recorded(args.recording)
    first, _, last = args.lines.partition("-")
    if not first.isdigit() or not (last or "0").isdigit():
        raise StudyError(f"{args.lines!r}: write lines as 1455-1470")
    start, end = int(first) - 1, min(int(last or first), len(calls.parents))
    if not 0 <= start < end:
        raise StudyError(f"{args.lines}: {calls.label} has lines 1-{len(calls.parents)}")
    depths = calls.table.depth[start : min(end, start + 2000)]
    base = min(depths)
    for at in range(start, min(end, start + 2000)):
        file, name = calls.name(at)
        thread = f"[t{calls.table.thread[at]}] " if calls.table.thread[at] else ""
        print(f"{at + 1:>7} {'  ' * (calls.table.depth[at] - base)}{thread}{name}  {file}")
