"""Every question: right answers in several forms, wrong ones, and what real students answered.

What is right stands here as the recordings were read by hand (see each line's reason), not as our own
program prints it.
"""

import itertools

import networkx
import pytest

from studykvm.coursework import questions
from studykvm.coursework.session import judged

OPEN_WAY = ["bdrv_open2", "qcow_open", "bdrv_file_open", "bdrv_open2", "raw_open"]
START_WAY = ["main", "qemu_opts_foreach", "drive_init_func", "drive_init", "bdrv_open2"]
COMMIT_WAY = ["do_commit", "bdrv_commit", "bdrv_write", "raw_write", "raw_pwrite", "raw_pwrite_aligned"]
REGISTER_WAY = [
    "main",
    "bdrv_init_with_whitelist",
    "bdrv_init",
    "module_call_init",
    "bdrv_raw_init",
    "bdrv_register",
]
# The order that README.md of the recordings gives for probing, from the last registered to the first.
PROBED = [
    "cow",
    "qcow",
    "vdi",
    "vmdk",
    "cloop",
    "dmg",
    "bochs",
    "vpc",
    "vvfat",
    "qcow2",
    "parallels",
    "nbd",
    "raw",
]
REGISTERED = ["pc_machine_init", *(f"bdrv_{name}_init" for name in reversed(PROBED))]
TURN = [
    "qemu_bh_update_timeout",
    "stdio_read_poll",
    "slirp_select_fill",
    "qemu_mutex_unlock_iothread",
    "qemu_mutex_lock_iothread",
    "qemu_event_read",
    "slirp_select_poll",
    "qemu_rearm_alarm_timer",
    "qemu_get_clock",
    "qemu_run_timers",
    "qemu_get_clock",
    "qemu_run_timers",
    "qemu_get_clock",
    "qemu_run_timers",
    "qemu_bh_poll",
]
OPENING = [
    "find_hdev_driver",
    "find_image_format",
    "bdrv_is_whitelisted",
    "qcow_open",
    "bdrv_new",
    "path_combine",
    "bdrv_open2",
    "bdrv_key_required",
]
GRAPH = [
    *itertools.pairwise(START_WAY[3:] + OPEN_WAY[1:]),
    *itertools.pairwise(["bdrv_open2", "find_image_format", "bdrv_file_open"]),
    *itertools.pairwise(["find_image_format", "bdrv_pread", "bdrv_read", "raw_read", "raw_pread"]),
    ("drive_init", "bdrv_new"),
    ("find_image_format", "bdrv_delete"),
    ("bdrv_delete", "bdrv_close"),
    ("bdrv_close", "raw_close"),
]


GEOMETRY = [
    "bdrv_get_geometry",
    "bdrv_get_geometry_hint",
    "bdrv_get_translation_hint",
    "guess_disk_lchs",
    "bdrv_set_geometry_hint",
]


def arrow(way):
    return " -> ".join(way)


RIGHT = {
    "2.1": [
        {"Xen": "classic", "Hyper-V": "type 1", "ESX": "Bare-metal", "KVM": "hosted", "OpenVZ": "container"},
        # Of KVM both is said, with reasons.
        {"xen": "native", "hyper-v": "classic VMM", "esx": "classic", "kvm": "Type 1", "openvz": "neither"},
    ],
    "2.2": [
        {
            "Java virtual machine": "process",
            "qemu-x86_64 (user mode)": "process VM",
            "qemu-system-x86_64": "System",
            "Xen guest": "system VM",
        }
    ],
    "2.6": ["ap_main_loop -> kvm_main_loop_cpu -> kvm_cpu_exec -> kvm_run"],
    "2.7": ["b", "on a thread of its own"],
    "3.1": [
        {
            "block/qcow.c": ["system", "img", "io", "nbd"],
            "qemu-tool.c": "qemu-img, qemu-io, qemu-nbd",
            "vl.c": {"emulator"},
            "qemu-io.c": ("io",),
        }
    ],
    "3.2": ["main -> main_loop -> tcg_cpu_exec -> qemu_cpu_exec -> cpu_x86_exec"],
    "3.3": [["ide_init_drive", "bdrv_guess_geometry", "guess_disk_lchs", "bdrv_read"]],
    "3.4": [{"sector": 0, "sectors": 1}, "sector: 0, sectors: 1"],
    # Lines 29591 to 29612 of d01: the calls one level below, in whatever order.
    "3.5": [
        GEOMETRY,
        set(GEOMETRY),
        ", ".join(reversed(GEOMETRY)),
        [f"block.c:{name}()" for name in GEOMETRY],
    ],
    "5.1": [
        "drive_add",
        "drive_add()",
        "vl.c:drive_add",
        ("vl.c", "drive_add"),
        ["drive_add"],
        "it is drive_add",
    ],
    "5.2": [START_WAY, arrow(START_WAY), tuple(START_WAY), ", ".join(START_WAY), "\n".join(START_WAY)],
    "5.3": [
        {"bdrv_open2": 5, "raw_open": 4, "qcow_open": 1},
        {"raw_open": "4", "qcow_open": "0x1", "bdrv_open2": 5},
        "bdrv_open2: 5, raw_open: 4, qcow_open: 1",
        [5, 4, 1],
    ],
    "5.4": [OPEN_WAY, arrow(OPEN_WAY), ["block.c:bdrv_open2", "block/qcow.c:qcow_open", *OPEN_WAY[2:]]],
    "5.5": [
        GRAPH,
        "\n".join(f"{a} -> {b}" for a, b in GRAPH),
        networkx.DiGraph(GRAPH),
        {a: [y for x, y in GRAPH if x == a] for a, _ in GRAPH},
    ],
    "5.6": [TURN, arrow(TURN), [*TURN[:4], "select", *TURN[4:]]],
    "6.1": [["do_qemu_init_bdrv_qcow_init", "register_module_init", "find_type"]],
    "6.2": [REGISTER_WAY, arrow(REGISTER_WAY)],
    "6.3": [REGISTERED, ", ".join(REGISTERED)],
    # grep over the sources: five calls, two functions of the name main among those that could be meant.
    "6.4": [
        ["qcow_create2", "vmdk_parent_open", "enable_write_target", "openfile", "qemu-nbd.c:main"],
        {
            ("block/qcow2.c", "qcow_create2"),
            "vmdk.c:vmdk_parent_open",
            "enable_write_target",
            "openfile()",
            "main",
        },
    ],
    "6.5": [{"bdrv_delete"}, "bdrv_delete", ["block.c:bdrv_delete"]],
    "6.6": [
        {"success": 0, "wrong magic": -1, "missing file": -2},
        {"success": "0", "wrong magic": "-EPERM", "missing file": "-ENOENT"},
        [0, -1, -2],
    ],
    "6.7": [
        {"drv after bdrv_close": None, "opaque after bdrv_close": None},
        {"drv after bdrv_close": "NULL", "opaque after bdrv_close": "null"},
    ],
    "7.1": [OPENING, ["pstrcpy", *OPENING[:2], "qemu_mallocz", *OPENING[2:]]],
    # Lines 1455 to 1552 of d01; without bswap.h and qemu-malloc.c the three reads stand in a row.
    "7.2": [
        ["bdrv_file_open", "bdrv_pread"],
        "qcow_open -> bdrv_file_open -> bdrv_pread -> bdrv_pread -> bdrv_pread",
        ["bdrv_file_open", "bdrv_pread", "be32_to_cpus", "be64_to_cpus", "qemu_malloc", "bdrv_pread"],
    ],
    "7.3": [
        {
            "bs->drv": "qcow",
            "s->hd->drv": "raw",
            "bs->backing_hd->drv": "RAW",
            "bs->backing_hd->backing_hd": None,
        }
    ],
    # 64 MiB are 131072 sectors; level 2 maps 1 << (9 + 12) bytes an entry of level 1: thirty-two of them.
    "7.4": [
        {"bs->total_sectors": 64 << 11, "s->cluster_bits": 9, "s->l2_bits": 12, "s->l1_size": 32},
        {"bs.total_sectors": "131,072", "s.cluster_bits": "9 bits", "s.l2_bits": "0xc", "s.l1_size": 32.0},
    ],
    "7.5": [{"bdrv_open2": 12, "raw_open": 9, "qcow_open": 3}],
    "7.6": ["b", "B", "qcow2; its format is handed over"],
    "8.1": [
        {"no medium": -123, "out of range": -5, "read-only": -13, "all is well": 0},
        {"no medium": "-ENOMEDIUM", "out of range": "-EIO", "read_only": "-EACCES", "all is well": "0"},
    ],
    "8.2": [["bdrv_check_request", "raw_write"], "bdrv_check_request, raw_write"],
    # 2048 sectors a bit: 0, 100 and 2047 share one, 2048 has one, 9000 another.
    "8.3": [3, "3", {"bits": 3}],
    "8.4": ["b", "it asks the overlay whether the sector is allocated there"],
    "8.5": [{"bdrv_getlength", "qcow_is_allocated", "bdrv_read", "bdrv_write", "qcow_make_empty"}],
    "8.6": [COMMIT_WAY, arrow(COMMIT_WAY)],
    "8.7": [
        "migrate -d tcp:0:4444",
        "(qemu) migrate -d tcp:localhost:4444",
        "`migrate -d tcp:127.0.0.1:4444`",
    ],
    # The truth's README, points 12 and 13.
    "8.8": [
        "qemu_savevm_state_iterate, vm_stop, qemu_aio_flush, bdrv_flush_all, qemu_savevm_state_complete, "
        "migrate_fd_cleanup"
    ],
    "8.9": [
        [
            "qemu_fopen_socket",
            "qemu_loadvm_state",
            "qemu_announce_self",
            "qemu_set_fd_handler2",
            "vm_start",
            "qemu_fclose",
        ]
    ],
    # Header 48, padded name of the base to 64, eight entries of level 1 at 8 bytes each, behind the name.
    "4.2": [{"base before commit": 0, "base after commit": 7}],
    "4.5": ["c", "neither, it runs on"],
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_in_every_form_are_right(name):
    for answer in RIGHT[name]:
        verdict = judged(name, answer)
        assert verdict.right, f"{answer}\n{verdict}"


SENTENCES = {
    "2.1": "Xen: type 1, Hyper-V: classic; ESX = bare metal\nKVM is hosted, OpenVZ: container",
    "2.2": "Java virtual machine: process, qemu-x86_64 (user mode): process VM, qemu-system-x86_64: system, "
    "Xen guest: system",
    "3.1": "block/qcow.c: all, qemu-tool.c: img io nbd, vl.c: system, qemu-io.c: io",
    "4.2": "base before commit: 0, base after commit: 7",
    "5.3": "5 for bdrv_open2, 4 for raw_open, 1 for qcow_open",
    "6.6": "0 for success, -EPERM for wrong magic, -ENOENT for a missing file",
    "6.7": "drv: NULL and opaque: NULL",
    "7.3": "bs->drv: qcow, s->hd->drv: raw, bs->backing_hd->drv: raw, bs->backing_hd->backing_hd: NULL",
    "7.4": "bs->total_sectors = 131,072, s->cluster_bits = 9, s->l2_bits = 12, s->l1_size = 32",
    "8.1": "no medium: -ENOMEDIUM, out of range: -EIO, read-only: -EACCES, all is well: 0",
    "8.3": "3 bits",
}


@pytest.mark.parametrize("name", SENTENCES)
def test_right_answers_in_words_are_right(name):
    assert judged(name, SENTENCES[name]).right, judged(name, SENTENCES[name])


def test_sizes_are_those_of_the_images(tmp_path, monkeypatch):
    """Exercise 4's numbers: what a student reads off with `ls -l`, here off images made for it."""
    from tests.hypervisor.tools import img, io_

    monkeypatch.chdir(tmp_path)
    for fmt, question in (("qcow", None), ("qcow2", "4.4")):
        (tmp_path / "base.img").write_bytes(bytes(16 << 20))
        overlay = tmp_path / f"overlay.{fmt}"
        img("create", "-f", fmt, "-b", "base.img", str(overlay))
        # The same length of name as the model's run has: it stands in the file.
        new = overlay.stat().st_size
        io_(str(overlay), "write -P 7 0 512")
        written = overlay.stat().st_size
        img("commit", str(overlay))
        committed = overlay.stat().st_size
        if question:
            assert judged(question, {"new": new, "written": written, "committed": committed}).right
        else:
            assert judged("4.1", {"new": new, "grows": written - new}).right
            assert judged("4.3", committed).right


def parts(name, answer):
    verdict = judged(name, answer)
    assert not verdict.right
    return [(part.ok, part.text) for part in verdict.parts]


def test_a_student_said_that_bdrv_new_reads_hda():
    ((ok, text),) = parts("5.1", "-hda is read by bdrv_new()")
    assert ok is False and "never given the file's name" in text and 'device_name="ide0-hd0"' in text
    assert "drive_add" not in text


def test_a_student_said_that_qcow_open_calls_raw_open():
    """bdrv_open does not run in the emulator; the middle is right; raw_open is two calls further down."""
    _, never, right, between, _ = parts("5.4", "bdrv_open -> bdrv_open2 -> qcow_open -> raw_open")
    assert never[0] is False and "never calls bdrv_open" in never[1] and "block.c:353" in never[1]
    assert right[0] is True and "bdrv_open2 -> qcow_open" in right[1]
    assert between[0] is False and "does not call it itself: through 2 other functions" in between[1]
    assert "bdrv_file_open" not in between[1]


def test_a_student_said_that_qcow_open_returns_0_and_minus_1():
    answer = "qcow_open returns 0 for success and -1 for failure"
    assert [ok for ok, _ in parts("6.6", answer)] == [True, True, False]


def test_a_student_said_that_commit_compares():
    ((ok, text),) = parts("8.4", "bdrv_commit compares each sector of the overlay with the base")
    assert ok is False and "memcmp" in text and "is_allocated" not in text


def test_a_student_migrated_to_a_web_address():
    answers = [ok for ok, _ in parts("8.7", "`migrate -d tcp://...`")]
    assert answers == [True, True, False]
    assert "the migration failed" in parts("8.7", "migrate -d tcp://0:4444")[-1][1]


WRONG = {
    "a shorter way": ("5.2", "main -> drive_init -> bdrv_open2", "through 2 other functions"),
    "another file": ("5.4", "bdrv_open2 -> raw_open", "for another file"),
    "backwards": ("5.4", "raw_open -> bdrv_open2", "the other way round"),
    "misspelt": ("5.1", "drive_ad", "did you mean drive_add"),
    "too few": ("5.3", {"bdrv_open2": 2, "raw_open": 4, "qcow_open": 1}, "more often than 2"),
    "too many": ("5.3", {"bdrv_open2": 9, "raw_open": 4, "qcow_open": 1}, "not as often as 9"),
    "one missing": ("8.2", ["raw_write"], "1 function missing"),
    "wrong order": ("8.2", ["raw_write", "bdrv_check_request"], "not at this place"),
    "library": ("8.5", ["memcpy"], "C library's"),
    "wrong file": ("5.1", "block.c:drive_add", "drive_add is not in block.c"),
    "sign": ("8.1", {"read-only": 13}, "the sign is the other"),
    "sectors": ("7.4", {"bs->total_sectors": 64 << 20}, "sectors and bytes"),
    "loose": ("5.5", [("bdrv_close", "raw_close")], "nothing in your graph leads from drive_init"),
    "other command": ("8.7", "savevm x", "another command"),
    "no port": ("8.7", "migrate -d tcp:localhost", "host and port"),
    "no statement": ("8.4", "because", "none of the statements"),
    "definition": ("2.1", {"OpenVZ": "classic"}, "How many kernels run?"),
    "no word": ("2.2", {"Xen guest": "purple"}, "is none of process, system"),
    "no program": ("3.1", {"vl.c": ["kernel"]}, "is no program of"),
    "not linked": ("3.1", {"vl.c": ["img"]}, "no function of it is in img"),
    "a key too many": ("8.1", {"paper jam": 3}, "is not asked for"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_are_explained(name):
    question, answer, word = WRONG[name]
    assert word in str(judged(question, answer)), judged(question, answer)


@pytest.mark.parametrize(
    "question", [q.id for e in questions.exercises() for q in e.questions if q.kind != "measured"]
)
@pytest.mark.parametrize(
    "answer",
    [
        list(map(str, range(10**6))), itertools.count(), "x" * 10**6, 42, 1e308, object(), [[[[[]]]]], b"raw",
        {1: {2: {3: 4}}}, {"a": object()}, [None], {None}, "\0", "-> -> ->", "a" * 300, type, float("nan"),
    ],
    ids=[
        "million", "endless", "long", "number", "big", "object", "nested", "bytes",
        "dicts", "thing", "none", "set", "nul", "arrows", "word", "class", "nan",
    ],
)  # fmt: skip
def test_nothing_that_is_given_breaks_a_check(question, answer):
    verdict = judged(question, answer)
    assert not verdict.right and len(str(verdict)) < 8000
    assert "Traceback" not in str(verdict) and "this answer led to" not in str(verdict)


@pytest.mark.parametrize("question", [q.id for e in questions.exercises() for q in e.questions])
def test_no_answer_yet_shows_the_form_of_one(question):
    for blank in (..., None, "", " ... "):
        assert judged(question, blank).word == "not answered yet"


@pytest.mark.parametrize(
    "answer", ["many", "-3", [1], {"a": 1}, float("nan"), 0, "1" * 90, object()],
    ids=["word", "negative", "list", "dict", "nan", "zero", "long", "object"],
)  # fmt: skip
def test_no_measurement_is_made_for_what_is_no_measure(answer, monkeypatch):
    monkeypatch.setattr("studykvm.coursework.exits.costs", lambda accel: 1 / 0)
    assert "microseconds, as a number" in str(judged("2.4", answer))


def test_a_measured_cost_is_right_within_a_factor_of_five(monkeypatch):
    monkeypatch.setattr("studykvm.coursework.exits.costs", lambda accel: (2.0, 2.0))
    assert judged("2.4", 9.9).right and judged("2.4", "0.41 us").right and judged("2.4", "2000 ns").right
    assert "more than five times" in str(judged("2.4", 10.1))
    assert "less than a fifth" in str(judged("2.4", "0.3"))
    monkeypatch.setattr("studykvm.coursework.exits.costs", lambda accel: None)
    assert judged("2.5", 7).right
    monkeypatch.setattr("studykvm.coursework.exits.costs", lambda accel: (20.0, 1.0))
    assert judged("2.4", 0.3).right and judged("2.4", 90).right and not judged("2.4", 101).right


def test_what_an_exit_costs_can_be_measured():
    from studykvm.coursework import exits

    clock, spent = exits.costs("unicorn")
    # Unicorn's hook of a port, by its own measure 0.36 us; a hundred times that on a busy machine.
    assert 0.02 < clock < 40 and 0.02 < spent < 10


def test_this_machine_is_probed_as_the_shell_would():
    from pathlib import Path

    text = Path("/proc/cpuinfo").read_text().split()
    modules = {path.name for path in Path("/sys/module").glob("kvm*")}
    helped = "kvm_pvm" not in modules and {"kvm_intel", "kvm_amd", "vmx", "svm"} & (modules | set(text))
    kind = "processor" if helped else "software"
    answer = {
        "flag": next((flag for flag in ("vmx", "svm") if flag in text), "none"),
        "/dev/kvm": Path("/dev/kvm").exists(),
        "KVM": kind if Path("/dev/kvm").exists() else "none",
        "inside a machine": "hypervisor" in text,
    }
    assert judged("2.3", answer).right
    answer["/dev/kvm"] = not answer["/dev/kvm"]
    assert [part.ok for part in judged("2.3", answer).parts] == [True, False, True, True]


def test_lines_whose_caller_was_left_out_prove_nothing():
    """From the third turn on, d01 has bmdma_cmd_writeb under main_loop_wait, which does not call it."""
    verdict = judged("5.5", [("main_loop_wait", "bmdma_cmd_writeb")])
    assert verdict.parts[0].ok is False
    # A signal came while bdrv_pread's caller ran: who was interrupted did not call the handler.
    assert judged("5.5", [("main", "host_alarm_handler")]).parts[0].ok is False


@pytest.mark.parametrize("question", ["5.1", "5.3", "5.5", "6.6", "8.4", "2.1", "3.1", "2.4", "8.7"])
def test_an_answer_nested_without_end_is_no_crash(question, monkeypatch):
    import sys

    # What a run of the tools leaves behind in the same process.
    monkeypatch.setattr("studykvm.coursework.exits.costs", lambda accel: (1.0, 1.0))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000_000)
    try:
        for kind in (tuple, list):
            answer = kind()
            for _ in range(100_000):
                answer = kind([answer])
            assert not judged(question, answer).right
            assert not judged(question, {"bdrv_open2": answer}).right
    finally:
        sys.setrecursionlimit(limit)


def test_a_question_that_is_not_there():
    assert "there is no question '5.99'" in str(judged("5.99", "main"))


def test_the_files_hold_no_answers():
    """No wrong part nor hint names what RIGHT has and the question does not."""
    from importlib.resources import files

    for name, answers in RIGHT.items():
        if isinstance(answers[0], list) and all(isinstance(one, str) for one in answers[0]):
            for entry in (files("studykvm.coursework") / "exercises").iterdir():
                assert arrow(answers[0]) not in entry.read_text()
                assert ", ".join(answers[0]) not in entry.read_text()
        assert all(isinstance(hint, str) and hint for hint in questions.question(name).hints)
