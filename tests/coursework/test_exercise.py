"""`studykvm exercise`: start, check, hints, progress; and notebooks that nobody should have to trust."""

import json
import os
import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest

from studykvm.cli import main
from studykvm.coursework import check, hint, lab, predict, progress, session, sheets
from studykvm.coursework.checking import check_file
from studykvm.coursework.progress import FILE, Progress
from studykvm.coursework.questions import exercises
from studykvm.errors import StudyError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(session, "_read", {})
    return tmp_path


def written(folder, *cells, number=8, name="mine.py"):
    """A plain-text notebook of ours with these cells of code."""
    head = f"# ---\n# jupyter:\n#   studykvm:\n#     exercise: {number}\n# ---\n"
    first = "from studykvm.coursework import check"
    path = folder / name
    path.write_text(head + "".join(f"\n# %%\n{cell}\n" for cell in (first, *cells)))
    return path


def verdicts(checked):
    return {verdict.question: verdict for verdict in checked.verdicts}


@pytest.mark.parametrize("plain", [False, True], ids=["ipynb", "plain"])
def test_from_start_to_check(here, capsys, plain):
    options = ["--plain"] if plain else []
    assert main(["exercise", "start", "8", *options]) == 0
    name = "8_read_write_commit" + (".py" if plain else ".ipynb")
    text = (here / name).read_text()
    answered = text.replace('check(\\"8.3\\", ...)', 'check(\\"8.3\\", 3)').replace(
        'check("8.3", ...)', 'check("8.3", 3)'
    )
    assert answered != text
    # Only the cells that matter, or this test would take as long as the exercise.
    lines = [c.text for c in sheets.cells(here / name) if c.kind == "code" and "check(" in c.text]
    short = written(
        here, *[x.replace('check("8.3", ...)', 'check("8.3", 3)') for x in lines if "run(" not in x]
    )
    capsys.readouterr()
    assert main(["exercise", "check", short.name]) == 1
    out = capsys.readouterr().out
    assert "8.3: right" in out and "8.1: not answered yet" in out
    assert "1 of 9 questions of exercise 8 are right." in out
    assert json.loads((here / FILE).read_text())["questions"]["8.3"]["right"] is True
    assert main(["exercise", "progress"]) == 0
    assert " 8.3   right    1 tries" in capsys.readouterr().out
    assert main(["exercise", "list"]) == 0
    assert "1 of 9 questions right" in capsys.readouterr().out


def test_start_never_overwrites(here, capsys):
    for name in ("5_hda.ipynb", "5_hda-2.ipynb", "5_hda-3.ipynb"):
        assert main(["exercise", "start", "5"]) == 0
        assert name in capsys.readouterr().out
        (here / name).write_text("mine")
    assert (here / "5_hda.ipynb").read_text() == "mine"


def test_answers_in_the_terminal(here, capsys):
    assert main(["exercise", "answer", "5.1", "drive_add"]) == 0
    assert "5.1: right" in capsys.readouterr().out
    assert main(["exercise", "answer", "8.1", '{"no medium":', '"-ENOMEDIUM"}']) == 1
    assert "8.1: partly right" in capsys.readouterr().out
    assert main(["exercise", "answer", "8.2", "['bdrv_check_request',"]) == 1
    assert not (here / FILE).exists()


def test_hints_come_one_by_one(here, capsys):
    assert main(["exercise", "start", "5"]) == 0
    for word in ("hint 1 of 2", "hint 2 of 2", "these were all hints"):
        capsys.readouterr()
        assert main(["exercise", "hint", "5.1"]) == 0
        assert word in capsys.readouterr().out
    hint("5.99")
    assert "no question '5.99'" in capsys.readouterr().out


def test_predictions_are_kept_and_not_judged(here, capsys):
    Progress.open().create()
    predict("5.3")
    predict("5.3", {"bdrv_open2": 1})
    predict("5.3", "later")
    predict("0", 1)
    out = capsys.readouterr().out
    assert "what do you expect?" in out and "noted" in out and "✗" not in out
    assert Progress.open().of("5.3")["predicted"] == "{'bdrv_open2': 1}"


def test_without_start_nothing_is_written(here, capsys):
    check("5.1", "main")
    hint("5.1")
    assert list(here.iterdir()) == []
    main(["exercise", "progress"])
    assert "No progress is kept here" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"questions": 3}', '{"questions": {"5.1": 7}}', "\xff\xfe", "[" * 100_000],
    ids=["empty", "cut", "list", "number", "entry", "bytes", "deep"],
)  # fmt: skip
def test_damaged_progress_is_put_aside(here, capsys, text):
    (here / FILE).write_text(text, encoding="latin-1")
    Progress.open().answered("5.1", True)
    assert "could not be read; it is kept as" in capsys.readouterr().out
    (aside,) = here.glob("*.damaged")
    assert aside.read_text(encoding="latin-1") == text
    assert Progress.open().of("5.1")["right"] is True


def test_a_folder_that_cannot_be_written_does_not_stop_a_check(here, capsys, monkeypatch):
    Progress.open().create()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(progress.tempfile, "mkstemp", full)
    check("8.3", 3)
    out = capsys.readouterr().out
    assert "8.3: right" in out and "could not be kept: No space left on device" in out


def test_progress_that_cannot_be_read_does_not_stop_a_check(here, capsys, monkeypatch):
    def denied(*_, **__):
        raise StudyError("studykvm-progress.json: Permission denied; it holds your progress")

    monkeypatch.setattr(Progress, "open", denied)
    assert check("8.3", 3).right
    hint("8.3")
    out = capsys.readouterr().out
    assert "8.3: right" in out and "Permission denied" in out and "hint 1 of 2" in out


def test_a_disk_that_is_full_leaves_no_half_a_notebook(here, capsys, monkeypatch):
    real = open

    def small(*args, **kwargs):
        file = real(*args, **kwargs)
        if args[1:2] == ("x",):
            file.write = lambda text: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        return file

    monkeypatch.setattr("builtins.open", small)
    assert main(["exercise", "start", "5"]) == 1
    assert "5_hda.ipynb could not be written: No space left on device" in capsys.readouterr().err
    assert not list(here.glob("*.ipynb"))


def test_start_tells_of_jupyter_where_it_lacks(here, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(here))
    assert main(["exercise", "start", "5"]) == 0
    assert "Jupyter is not here: `pip install jupyterlab`, or take a Python file" in capsys.readouterr().out


FOREIGN = {
    "other.ipynb": '{"cells": [], "metadata": {}, "nbformat": 4}',
    "strange.ipynb": '{"cells": [], "metadata": {"studykvm": 5}, "nbformat": 4}',
    "broken.ipynb": "{",
    "cells.ipynb": '{"cells": [7], "metadata": {}}',
    "deep.ipynb": "[" * 200_000,
    "other.py": "print(1)\n",
    "unknown.py": "#     exercise: 99\n",
    "text.txt": "hello",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_ours_is_told(here, capsys, name):
    (here / name).write_text(FOREIGN[name])
    assert main(["exercise", "check", name]) == 1
    said = capsys.readouterr().err
    assert said.startswith("studykvm: ") and len(said.splitlines()) == 1 and "fault of studykvm" not in said


def test_bytes_and_nothing_and_too_much(here, capsys):
    (here / "bytes.ipynb").write_bytes(b"\xff\xfe\x00")
    with open(here / "huge.ipynb", "wb") as huge:
        huge.truncate(sheets.LARGEST + 1)
    for name, word in (
        ("bytes.ipynb", "is no text"),
        ("huge.ipynb", "clear its outputs"),
        ("no.ipynb", "No such"),
    ):
        assert main(["exercise", "check", name]) == 1
        assert word in capsys.readouterr().err


def test_an_endless_cell_is_stopped_and_the_others_count(here):
    path = written(
        here, 'check("8.2", ["bdrv_check_request", "raw_write"])', "while True: pass", 'check("8.3", 3)'
    )
    checked = check_file(path, seconds=1)
    assert verdicts(checked)["8.2"].right and verdicts(checked)["8.3"].right
    assert checked.remarks == ["cell 3: stopped after 1 seconds"]


def test_a_cell_that_will_not_be_stopped_is_ended_and_what_was_answered_counts(here, monkeypatch):
    monkeypatch.setattr("studykvm.coursework.checking.MOST_SECONDS", 5)
    stubborn = "import signal\nsignal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True:\n    pass"
    checked = check_file(written(here, 'check("8.3", 3)', stubborn, 'check("8.4", "b")'), seconds=1)
    assert verdicts(checked)["8.3"].right
    assert verdicts(checked)["8.4"].word == "not answered yet"
    assert "took too long altogether" in checked.remarks[0]


def test_errors_in_cells_do_not_hide_the_others(here):
    cells = [
        "1 / 0",
        "this is no Python",
        "raise SystemExit(3)",
        "%matplotlib inline\n!ls",
        'check("8.3", 3)',
    ]
    checked = check_file(written(here, *cells))
    assert verdicts(checked)["8.3"].right
    assert [remark.partition(":")[0] for remark in checked.remarks] == ["cell 2", "cell 3", "cell 4"]
    for remark, word in zip(
        checked.remarks, ("ZeroDivisionError", "SyntaxError", "left off by exit"), strict=True
    ):
        assert word in remark


def test_a_notebook_that_ends_its_process(here):
    checked = check_file(written(here, 'check("8.3", 3)', "import os; os._exit(0)", 'check("8.4", "b")'))
    assert verdicts(checked)["8.3"].right and verdicts(checked)["8.4"].word == "not answered yet"
    assert checked.remarks == ["the notebook ended before its last cell"]


def test_a_thread_left_behind_is_not_waited_for(here):
    import time

    start = time.monotonic()
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(200,)).start()"
    assert verdicts(check_file(written(here, thread, 'check("8.3", 3)')))["8.3"].right
    assert time.monotonic() - start < 60


def test_much_output_memory_and_depth_and_no_input(here):
    cells = [
        "for _ in range(100_000): print('x' * 100)",
        "x = bytearray(8 << 30)",
        "def f(): return f()\nf()",
        "input()",
        "import os; os.mkdir('sub'); os.chdir('sub')",
        'check("8.3", 3)',
    ]
    checked = check_file(written(here, *cells, name="a name with blanks.py"))
    assert verdicts(checked)["8.3"].right
    words = ("MemoryError", "RecursionError", "EOFError")
    assert all(word in remark for word, remark in zip(words, checked.remarks, strict=True))


def test_a_trace_of_ones_own_explains_in_a_check_of_the_notebook_too(here):
    lab.run("img create -f raw base.img 1M", quiet=True)
    lab.run("img create -f qcow -b base.img overlay.img", quiet=True)
    lab.run("io --trace own.trace -c 'read 0 512' overlay.img", quiet=True)
    path = written(here, 'check("5.4", "bdrv_open2 -> qcow_open -> raw_open", trace="own.trace")', number=5)
    assert "in your trace, too, 2 functions stand between" in str(verdicts(check_file(path))["5.4"])


def test_what_was_right_in_the_terminal_is_remembered(here, capsys):
    Progress.open().create()
    assert main(["exercise", "answer", "8.3", "3"]) == 0
    path = written(here, 'check("8.4", "b")')
    assert main(["exercise", "check", path.name]) == 1
    out = capsys.readouterr().out
    assert "1 of 9 questions of exercise 8 are right. 1 more was right before." in out


def test_edited_checks_do_not_count(here):
    cells = [
        'def check(name, answer):\n    print(name, "right")',
        'check("8.3", 3)',
        "import studykvm.coursework.judge as j\nj.judge = lambda *a: None",
        "from studykvm.coursework.verdict import Verdict\nVerdict.right = True",
    ]
    checked = verdicts(check_file(written(here, *cells)))
    assert checked["8.3"].word == "not answered yet" and "check changed?" in str(checked["8.3"])
    assert "the notebook has no check of it" in str(checked["8.4"])


def test_a_judge_changed_in_the_notebook_judges_nothing(here):
    cells = [
        "from studykvm.coursework import session\nsession.judged = lambda *a: 1 / 0",
        'check("8.3", 99)',
    ]
    assert verdicts(check_file(written(here, *cells)))["8.3"].word == "not right"


def test_a_report_full_of_rubbish(here):
    cell = (
        "import os\nwith open(os.environ['STUDYKVM_COURSEWORK_REPORT'], 'ab') as f:\n"
        "    f.write(b'[]\\n7\\n{\\n\\xff\\n{\"question\": []}\\n' + b'{' * 10**6 + b'\\n')"
    )
    assert verdicts(check_file(written(here, cell, 'check("8.3", 3)')))["8.3"].right


def test_answers_too_large_or_of_a_wrong_kind_come_with_a_word(here):
    cells = [
        'check("8.5", [str(i) for i in range(10**6)])', 'check("8.3", object())', 'check("8.4", "b" * 10**6)',
        'x = []\nx.append(x)\ncheck("8.2", x)', 'import itertools\ncheck("8.6", itertools.count())',
        'check("8.7", print)',
    ]  # fmt: skip
    checked = verdicts(check_file(written(here, *cells)))
    assert "1,000,000 items" in str(checked["8.5"])
    assert "'object' is no answer" in str(checked["8.3"])
    assert "1,000,000 letters" in str(checked["8.4"])
    assert "nested too deep" in str(checked["8.2"])
    assert "more than 2,000 items" in str(checked["8.6"])
    assert checked["8.7"].word == "not right"


def test_forms_survive_the_way_to_the_checker(here):
    cells = [
        'check("5.1", ("vl.c", "drive_add"))',
        'check("5.3", {"bdrv_open2": 5, "raw_open": ..., "qcow_open": 1})',
        "import networkx\n"
        'check("5.5", networkx.DiGraph([("drive_init", "bdrv_new"), ("drive_init", "bdrv_open2")]))',
    ]
    checked = verdicts(check_file(written(here, *cells, number=5)))
    assert checked["5.1"].right
    assert [part.ok for part in checked["5.3"].parts] == [True, True, False]
    assert [part.ok for part in checked["5.5"].parts] == [True, True, False]


def test_check_leaves_the_notebook_as_it_is(here):
    path = written(here, 'check("8.3", 3)')
    before = path.read_bytes()
    check_file(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["start", "12"], "there is no exercise 12; there are"),
        (["hint", "5"], "there is no question '5'"),
        (["evidence", "zzz", "1-2"], "no recording"),
        (["evidence", "d01", "x"], "write lines as"),
        (["evidence", "d01", "9-3"], "has lines 1-"),
        (["check", "x.py", "--seconds", "0"], "choose 1 to 600"),
    ],
    ids=["start", "hint", "recording", "lines", "span", "seconds"],
)
def test_wrong_use(here, capsys, argv, word):
    assert main(["exercise", *argv]) == 1
    assert word in capsys.readouterr().err


def test_evidence_shows_the_lines_that_an_explanation_names(here, capsys):
    assert main(["exercise", "evidence", "d01", "1455-1456"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["1455", "qcow_open", "block/qcow.c"]
    assert second.split() == ["1456", "bdrv_file_open", "block.c"]
    # Line 32434 of d02 is of thread 1, line 32426 of the main one.
    assert main(["exercise", "evidence", "d02", "32426-32434"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["32426", "kvm_mutex_unlock", "qemu-kvm.c"]
    assert lines[-1].split() == ["32434", "[t1]", "kvm_run", "qemu-kvm.c"]


def test_show_prints_questions_and_choices(capsys):
    assert main(["exercise", "show", "8"]) == 0
    out = capsys.readouterr().out
    assert all(question.id in out for question in exercises()[-1].questions)
    assert "a: it compares each sector" in out
    assert main(["exercise", "show", "5.4"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()] == ["5.4"]


def test_answers_may_hold_arrows_and_options(here, capsys):
    assert main(["exercise", "answer", "5.1", "-hda", "is read by", "bdrv_new()"]) == 1
    assert "bdrv_new is never given the file's name" in capsys.readouterr().out
    assert main(["exercise", "answer", "5.4", "bdrv_open2", "->", "qcow_open"]) == 1
    assert "✓ bdrv_open2 -> qcow_open" in capsys.readouterr().out
    assert main(["exercise", "answer", "5.4"]) == 1
    assert "5.4: not answered yet" in capsys.readouterr().out


def test_hints_go_on_in_a_terminal_where_nothing_was_started(here, capsys):
    for word in ("hint 1 of 2", "hint 2 of 2", "these were all hints", "these were all hints"):
        session._read.clear()
        assert main(["exercise", "hint", "5.4"]) == 0
        assert word in capsys.readouterr().out


def test_lab_runs_and_draws(here, capsys):
    (here / "base.img").write_bytes(bytes(1 << 20))
    lab.run("io -c 'read 0 512' --trace io.trace base.img")
    lab.picture("draw io.trace --from bdrv_read", "read.svg")
    out = capsys.readouterr().out
    assert "$ studykvm io" in out and f"(picture: {os.path.realpath('read.svg')})" in out
    with pytest.raises(StudyError, match="nothing was drawn"):
        lab.picture("draw missing.trace", "no.svg")


def test_a_counting_guest_moves_without_a_gap(here, capsys):
    from studykvm.guests import write_counting_disk

    write_counting_disk("count.img")
    boot = "boot -net none -m 4 -hda count.img -snapshot -nographic -monitor stdio -serial file:{}"
    said, answered = lab.move(
        boot.format("source.txt"),
        boot.format("destination.txt") + " -incoming tcp:127.0.0.1:{port}",
        [("source.txt", "ABCDEFGH"), "migrate tcp:127.0.0.1:{port}", "info migrate", "info status", "quit"],
        [("destination.txt", "XYZA"), "info status", "quit"],
    )
    assert "Migration status: completed" in said and "VM status: paused" in said
    assert "VM status: running" in answered
    before, after = ((here / name).read_text() for name in ("source.txt", "destination.txt"))
    # The built-in BIOS says on the serial line, too, what it boots.
    letters = before.partition("\n")[2] + after
    assert len(after) > 3 and letters == (string.ascii_uppercase * len(letters))[: len(letters)]


def test_a_wrong_way_is_explained_by_ones_own_trace(here, capsys):
    from studykvm.guests import write_demo_disk
    from tracer import load

    write_demo_disk("base.img")
    lab.run("img create -f qcow -b base.img overlay.img")
    lab.run("io --trace own.trace -c 'read 0 512' overlay.img")
    capsys.readouterr()
    verdict = check("5.4", "bdrv_open -> bdrv_open2 -> qcow_open -> raw_open", trace="own.trace")
    (remark,) = [part.text for part in verdict.parts if "your trace" in part.text]
    first, last = map(int, remark.rpartition("steps ")[2].split("-"))
    calls = {call.step: call.function for call in load("own.trace").calls()}
    assert (calls[first], calls[last]) == ("qcow_open", "raw_open")
    assert "2 functions stand between qcow_open and raw_open" in remark
    missing = check("5.4", "bdrv_open2 -> raw_open", trace="missing.trace")
    assert missing.word == "partly right" and "your trace tells nothing of it: missing.trace" in str(missing)
    assert "your trace" not in str(check("5.2", "main -> drive_init", trace="own.trace"))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("sed"), reason="apt-get install sed")
def test_the_end_of_the_readmes_tour_is_what_happens(here):
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    shown = readme[readme.index("    $ mkdir course && cd course") :].partition("\n\n")[0]
    lines = [line[4:] for line in shown.splitlines()]
    at = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    (here / "studykvm").write_text(f'#!/bin/sh\nexec {sys.executable} -m studykvm "$@"\n')
    (here / "studykvm").chmod(0o755)
    path = f"{here}{os.pathsep}{os.environ['PATH']}"
    root = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": path}
    folder = here
    for begin, end in zip(at, [*at[1:], len(lines)], strict=True):
        command = lines[begin][2:]
        done = subprocess.run(
            command,
            shell=True,
            cwd=folder,
            env=os.environ | root,
            capture_output=True,
            text=True,
            timeout=250,
        )
        said = done.stdout
        for expected in [line for line in lines[begin + 1 : end] if line != "..."]:
            assert expected in said.splitlines(), (command, said, done.stderr)
        folder = here / "course"
