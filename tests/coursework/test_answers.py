"""The forms of answers, what is no answer, and that an answer is told nothing.

What is right is that of test_judges.
"""

import itertools
import traceback

import pytest

from studykvm.cli import main
from studykvm.coursework import questions
from studykvm.coursework.session import judged
from tests.coursework.test_judges import GRAPH, RIGHT, START_WAY

QUESTIONS = [question for exercise in questions.exercises() for question in exercise.questions]
STATEMENT = "it asks the overlay whether it holds the sector"
FORMS = {
    "5.1": [
        "vl:drive_add",
        "vl.c: drive_add",
        "./vl.c:drive_add",
        "`drive_add()`",
        "&drive_add",
        "drive_add (vl.c)",
        "drive_add@vl.c",
        "DriveInfo *drive_add(const char *file, const char *fmt, ...)",
    ],
    "5.2": [
        [*itertools.pairwise(START_WAY)],
        " > ".join(START_WAY),
        " => ".join(START_WAY),
        " → ".join(START_WAY),
        [f"`{name}()`" for name in START_WAY],
    ],
    "5.5": [
        " ; ".join(f"{a} -> {b}" for a, b in GRAPH),
        "digraph g {\n" + "\n".join(f'"{a}" -> "{b}" [label=x];' for a, b in GRAPH) + "}",
        "graph TD\n" + "\n".join(f"{a} --> {b}" for a, b in GRAPH),
        {a: {y: {} for x, y in GRAPH if x == a} for a, _ in GRAPH},
        [list(pair) for pair in GRAPH],
        set(GRAPH),
        (f"{a} -> {b}" for a, b in GRAPH),
    ],
    "6.5": ["block:bdrv_delete", ("block.c", "bdrv_delete"), {"bdrv_delete": True}],
    "8.3": [3.0, "0x3", " 3 ", [3], (3,)],
    "8.4": ["(b)", "b)", "B.", "option b", "b: it asks the overlay", ["b"], "Answer: b", STATEMENT.upper()],
    "8.7": ["migrate -d -b tcp:0:4444", "migrate -d exec:'nc localhost 4444'", "migrate  -d   tcp::4444"],
}


@pytest.mark.parametrize("name", FORMS)
def test_every_right_form_is_right(name):
    for answer in FORMS[name]:
        verdict = judged(name, answer)
        assert verdict.right, f"{answer}\n{verdict}"


def test_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip("numpy")
    assert judged("8.3", numpy.int64(3)).right and judged("8.3", numpy.float32(3)).right
    assert judged("5.3", numpy.array([5, 4, 1])).right
    counts = {"bdrv_open2": numpy.uint8(5), "raw_open": numpy.int32(4), "qcow_open": numpy.bool_(True)}
    assert judged("5.3", counts).right


def test_sizes_follow_the_base_that_was_used():
    """A header of 48 bytes, the base's name, and at the next eighth byte 8 bytes for each 2 MiB."""
    for base, mib in (("base.img", 16), ("a_much_longer_name.raw", 64), ("b", 16), ("x" * 150, 8)):
        new = (48 + len(base) + 7) // 8 * 8 + mib // 2 * 8
        made = {"base": base, "size": f"{mib} MiB"}
        assert judged("4.3", made | {"committed": new}).right
        assert [part.ok for part in judged("4.1", made | {"new": new, "grows": -1}).parts] == [True, False]
        assert f"overlay of {mib} MiB on {base[:30]}" in str(judged("4.3", made | {"committed": 0}))


NO_BASE = {
    "a number": {"base": 7},
    "empty": {"base": ""},
    "long": {"base": "x" * 2000},
    "huge": {"size": "1T"},
    "uneven": {"size": 1000},
    "a word": {"size": "large"},
}


@pytest.mark.parametrize("given", NO_BASE)
def test_a_base_that_cannot_be(given):
    assert f"is no {'name' if 'base' in NO_BASE[given] else 'size'} of a base" in str(
        judged("4.3", {"committed": 1} | NO_BASE[given])
    )


class CuriousNumber(int):
    """A number that looks at what it is compared with."""

    def __eq__(self, other):
        SEEN.append(other)
        return True

    __lt__ = __gt__ = __le__ = __ge__ = __ne__ = __eq__
    __hash__ = int.__hash__

    def __index__(self):
        return 1

    __int__ = __index__


class CuriousText(str):
    """A text that does."""

    def __eq__(self, other):
        SEEN.append(other)
        return True

    __ne__ = __eq__
    __hash__ = str.__hash__

    def strip(self, *_):
        return self

    lower = __str__ = strip


SEEN: list[object] = []


@pytest.mark.parametrize("name", [question.id for question in QUESTIONS if question.kind != "measured"])
@pytest.mark.parametrize("kind", [CuriousNumber, CuriousText], ids=["number", "text"])
def test_an_answer_is_not_told_what_it_is_compared_with(name, kind):
    form = RIGHT.get(name, [dict.fromkeys(("new", "grows", "written", "committed", "flag", "KVM"))])[0]
    keys = list(form) if isinstance(form, dict) else ["x"]
    one = kind(1)
    for answer in (one, [one], {key: one for key in keys}, {one: one}, [(one, one)], (one, one)):
        SEEN.clear()
        judged(name, answer)
        assert all(isinstance(other, kind) for other in SEEN), SEEN


@pytest.mark.parametrize(
    "name",
    [one.id for one in QUESTIONS if one.kind in ("functions", "order", "path", "first function")],
)
def test_who_names_everything_learns_nothing(name):
    from studykvm.coursework.sources import source

    everything = [function.name for function in source().index.all_functions.values()][:1900]
    verdict = judged(name, everything)
    assert len(verdict.parts) == 2 and verdict.word == "not right", verdict


def test_who_takes_all_statements_has_chosen_none():
    assert "this may mean a or b" in str(judged("8.4", "it compares what is allocated"))
    assert "none of the statements" in str(judged("8.4", "a or b"))


def test_interrupted_while_it_is_judged_it_shows_no_frame_of_a_judge(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("studykvm.coursework.judge.judge", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        judged("8.3", 1)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert [frame.name for frame in frames][1:] == ["judged"] and caught.value.__suppress_context__


def test_a_set_is_no_answer_where_the_order_matters():
    assert "a set has no order" in str(judged("8.2", {"raw_write", "bdrv_check_request"}))
    assert "a set has no order" in str(judged("5.2", set(START_WAY)))


def test_evidence_is_true():
    """A call that is made at another time, or could be made, is not denied."""
    assert "another time it does, lines 1378-1386 of d01" in str(judged("7.1", ["raw_open"]))
    assert "the source could (by name, vl.c:4228)" in str(judged("2.7", "a"))
    assert "the source could (through BlockDriver.bdrv_create" in str(judged("7.6", "a"))
    assert "neither c01 nor the source of bdrv_commit" in str(judged("8.4", "a"))


def test_where_to_look_is_a_command_that_works(capsys):
    look = str(judged("8.8", ["qemu_fclose"])).rpartition("studykvm exercise evidence ")[2].split()
    assert main(["exercise", "evidence", *look]) == 0
    assert "migrate_fd_put_ready" in capsys.readouterr().out
    told = str(judged("6.4", ["img_create"])).rpartition(": studykvm ")[2].splitlines()[0].split()
    assert main(told) == 0
    assert "bdrv_open" in capsys.readouterr().out


def test_the_command_goes_where_the_other_machine_waits():
    for answer, word in {
        "migrate -d tcp:0:5555": "no machine waits on that port",
        "migrate -d tcp:10.1.2.3:4444": "is that one another?",
        "migrate tcp:0:4444 -d": "options before the argument",
        "migrate -d exec:cat": "nothing of it goes to port 4444",
        "migrate -d -x tcp:0:4444": "'-x' is no option of migrate",
        "migrate tcp:0:4444": "the prompt does not come back at once",
    }.items():
        assert word in str(judged("8.7", answer)), judged("8.7", answer)


def test_every_question_has_right_answers_in_tests():
    measured_or_made_there = {"2.3", "2.4", "2.5", "4.1", "4.3", "4.4"}
    assert {question.id for question in QUESTIONS} == set(RIGHT) | measured_or_made_there
