"""Three witnesses of one small program: who saw which call, and what only the model claims."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

pytest.importorskip("clang", reason="needs libclang: pip install libclang")

from graphs.calls import CallTable
from graphs.draw.links import Links
from graphs.errors import GraphsError
from graphs.index.build import build
from graphs.index.locate import locate
from graphs.index.query import Index
from graphs.recordings import Recording
from graphs.witnesses import lay, open_source, page, report, tabled
from graphs.witnesses.source import Source

PROGRAM = """
typedef unsigned long pthread_t;
int pthread_create(pthread_t *, const void *, void *(*)(void *), void *);
void (*signal(int, void (*)(int)))(int);
int atexit(void (*)(void));

struct driver { int (*open)(int); int (*close)(int); };

static int lowest(int n) { return n; }
static int third(int n) { return lowest(n); }
static int second(int n) { return third(n); }
static int first(int n) { return second(n); }
static int raw_open(int n) { return first(n); }
static int raw_close(int n) { return n; }
static struct driver raw = { raw_open, raw_close };
static void tick(void) { }
static void on_alarm(int n) { tick(); }
static void *worker(void *p) { tick(); return p; }
static void at_end(void) { }
static void __attribute__((constructor)) early(void) { tick(); }
static int work(struct driver *d) { return d->open(1); }
static int never(int n) { return d_never(n); }
int d_never(int n) { return never(n); }
int main(void)
{
    pthread_t t;
    signal(14, on_alarm);
    atexit(at_end);
    pthread_create(&t, 0, worker, 0);
    return work(&raw) + raw.close(1);
}
"""
FILE = "boot.c"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("witnesses")
    (folder / FILE).write_text(PROGRAM)
    output = folder / "boot.index"
    build(locate([str(folder / FILE)], [], folder), output)
    with Index.open(output) as index:
        yield Source(index)


def table(text: str) -> CallTable:
    """Two spaces a level; `@1` is thread 1."""
    result = CallTable()
    for line in filter(str.strip, text.splitlines()):
        name, _, thread = line.strip().partition("@")
        result.append((len(line) - len(line.lstrip())) // 2, (FILE, name), int(thread or 0))
    return result


def laid(source, text, recorded=None, heard=(), quiet=()):
    recording = Recording("r", "qemu-io", table(recorded), None) if recorded else None
    named = [{(FILE, name) for name in names} for names in (heard, quiet)]
    return lay(tabled(table(text)), source, *named, recording)


def titles(witnesses):
    return {str(seen): seen.title for seen in witnesses.calls}


BOOT = """
early
  tick
main
  work
    raw_open
worker@1
  tick@1
at_end
"""


def test_what_the_system_begins_is_in_the_source(source):
    found = titles(laid(source, BOOT))
    assert {call for call, title in found.items() if title == "traced and in source"} == {
        "(the system) -> early", "early -> tick", "(the system) -> main", "main -> work", "work -> raw_open",
        "(the system) -> worker", "worker -> tick", "(the system) -> at_end",
    }  # fmt: skip
    assert "traced only" not in found.values()


def test_a_signal_handler_may_strike_anywhere(source):
    found = laid(source, "main\n  work\n    on_alarm\n      tick")
    assert titles(found)["(the system) -> on_alarm"] == "traced and in source"
    assert titles(found)["on_alarm -> tick"] == "traced and in source"
    assert not found.faults


def test_calls_that_only_the_model_makes_are_faults_with_their_place(source):
    found = laid(source, "main\n  tick\n  no_such\nraw_close\n")
    assert [(str(seen), seen.first) for seen in found.faults] == [
        ("main -> tick", "line 2"), ("main -> no_such", "line 3"), ("(the system) -> raw_close", "line 4"),
    ]  # fmt: skip
    text = "\n".join(report.lines(found))
    assert "no_such (boot.c) is no function of that program" in text
    assert "nothing in the source gives it to the system" in text
    assert "3 of the trace's 4 different calls are not in the source" in text


def test_functions_that_the_trace_leaves_out_are_named(source):
    (seen,) = [s for s in laid(source, "main\n  work\n    raw_open\n      third").calls if s.through]
    assert str(seen) == "raw_open -> (first) -> (second) -> third"
    assert seen.title == "traced and in source"


def test_a_function_that_the_trace_would_show_lies_on_no_way(source):
    found = laid(source, "main\n  work\n    raw_open\n      third", heard={"second"})
    assert [str(seen) for seen in found.faults] == ["raw_open -> third"]


def test_a_way_is_not_longer_than_believable_but_quiet_functions_count_little(source):
    calls = "main\n  work\n    lowest"
    assert [str(seen) for seen in laid(source, calls).faults] == ["work -> lowest"]
    (seen,) = [s for s in laid(source, calls, quiet={"raw_open", "first"}).calls if s.through]
    assert str(seen) == "work -> (raw_open) -> (first) -> (second) -> (third) -> lowest"


def test_in_source_only_are_calls_of_what_ran_to_what_the_model_has(source):
    found = laid(source, "main\n  work", heard={"raw_close", "never", "d_never"})
    assert {call for call, title in titles(found).items() if title == "in source only"} == {
        "main -> raw_close"
    }
    assert found.beyond == {
        # never and d_never call one another, and so on: counted by hand in PROGRAM.
        "calls in source out of functions that did not run in the trace": 9,
        "calls in source to functions that the model leaves out": 1,
    }


def test_the_recording_is_the_third_witness(source):
    real = """
main
  qemu_malloc
    work
      raw_open
        first
  raw_close
"""
    found = laid(source, "main\n  work\n    raw_open", real, heard={"raw_close", "first"})
    assert titles(found) == {
        "(the system) -> main": "traced, in source and recorded",
        "main -> work": "traced, in source and recorded",
        "work -> raw_open": "traced, in source and recorded",
        "raw_open -> first": "recorded and in source, not traced",
        "main -> raw_close": "recorded and in source, not traced",
    }
    odd = laid(source, "main\n  tick", "main\n  tick\n  third", heard={"third"})
    assert titles(odd)["main -> tick"] == "traced and recorded, not in source"
    assert titles(odd)["main -> third"] == "recorded only"
    assert not odd.faults


def test_recorded_handlers_do_not_blame_whom_they_interrupted(source):
    # After a handler the recorder may show what it calls beside it.
    real = "main\n  work\n    on_alarm\n    tick\n    raw_open"
    found = titles(laid(source, "main\n  work\n    raw_open", real, heard={"on_alarm", "tick"}))
    assert found == {
        "(the system) -> main": "traced, in source and recorded",
        "main -> work": "traced, in source and recorded",
        "work -> raw_open": "traced, in source and recorded",
        "(the system) -> on_alarm": "recorded and in source, not traced",
    }


def test_of_the_emulator_only_the_complete_part_counts(source):
    rows = CallTable()
    for name in [("vl.c", "main_loop_wait")] * 3:
        rows.append(0, name, 0)
    rows.append(0, (FILE, "raw_close"), 0)
    recording = Recording("d", "qemu-system-x86_64", rows, None)
    found = lay(tabled(table("main")), source, {(FILE, "raw_close")}, (), recording)
    assert "recorded only" not in titles(found).values()


def test_the_table_gives_shares_that_add_up(source):
    text = report.lines(laid(source, BOOT, heard={"raw_close"}))
    assert text[0].startswith("all 8 different calls of the trace are in the source of ")
    rows = [line.split("  ")[0] for line in text if "%" in line]
    assert rows == ["traced and in source", "traced only", "in source only"]
    assert sum(float(line.split("%")[0].split()[-1]) for line in text if "%" in line) == pytest.approx(
        100, abs=0.2
    )


def test_the_picture_has_a_colour_a_kind_and_the_evidence(source):
    found = laid(source, "main\n  work\n    tick", heard={"raw_open", "raw_close"})
    drawn = page.picture(found, "t", Links("src/{file}:{line}"))
    arrow = drawn.arrows["boot.c:main", "boot.c:work"]
    assert arrow.kind == "traced and in source" and arrow.url.startswith("src/boot.c:")
    assert "by name, boot.c:" in arrow.tooltip
    assert drawn.arrows["boot.c:work", "boot.c:tick"].kind == "traced only"
    # What did not run is small print, told by what is known of it.
    assert drawn.boxes["boot.c:work"].notes == (("in source only", ("raw_open",)),)
    svg = drawn.rendered("svg").decode()
    ElementTree.fromstring(svg)
    assert "#dc2626" in svg and "traced only" in svg
    kinds = {link["kind"] for link in json.loads(drawn.rendered("json"))["links"]}
    assert kinds == {"traced and in source", "traced only"}


def test_a_part_is_chosen_by_function_depth_and_name(source):
    found = laid(source, BOOT)
    assert {str(s) for s in page.choose(found, "main", 1).calls} == {"main -> work"}
    assert {str(s) for s in page.choose(found, globs=["main", "w*"]).calls} == {
        "(the system) -> main", "main -> work", "(the system) -> worker",
    }  # fmt: skip
    with pytest.raises(GraphsError, match="no call fits nowhere"):
        page.choose(found, "nowhere")


def test_witnesses_display_themselves(source):
    bundle = laid(source, BOOT)._repr_mimebundle_()
    assert bundle["text/plain"].startswith("all 8 different calls")
    assert "<svg" in bundle["image/svg+xml"]


def test_the_index_that_ships_is_opened_on_the_program_that_ran():
    source = open_source({("qemu-img.c", "main")})
    assert source.line(("qemu-img.c", "main")) and not source.line(("vl.c", "main"))
    source.index.close()
