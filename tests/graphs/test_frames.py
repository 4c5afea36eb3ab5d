"""Structures step by step: every change has its frame, and every box its place."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from graphs.draw.frames import Frames, between
from graphs.errors import GraphsError
from studykvm import cli
from tracer import Struct, free, record, traced

C_FILE = "block.c"
SVG = "{http://www.w3.org/2000/svg}"


class BDRVRawState(Struct):
    fd: int = 0


class BlockDriverState(Struct):
    device_name: str = ""
    filename: str = ""
    opaque: BDRVRawState | None = None
    total_sectors: int = 0
    read_only: int = 0


@traced
def raw_open(bs):
    bs.opaque = BDRVRawState()
    bs.opaque.fd = 7
    bs.total_sectors = 1


@traced
def bdrv_open2(bs):
    bs.filename = "a </script> name that is long enough to be cut"
    raw_open(bs)
    bs.total_sectors = 1 << 50


@traced
def bdrv_close(bs):
    opaque, bs.opaque = bs.opaque, None
    free(opaque)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames") / "a.trace"
    with record(path) as recording:
        bs = BlockDriverState(device_name="hda")
        bdrv_open2(bs)
        bdrv_close(bs)
    return path, recording.trace


@pytest.fixture
def trace(recorded):
    return recorded[1]


def told(frames):
    return [[str(change) for change in frame.changes] for frame in frames.frames]


def test_each_change_of_what_is_drawn_is_a_frame(trace):
    assert told(Frames(trace, *between(trace, at="bdrv_open2"))) == [
        [],
        ['BlockDriverState#1->filename = "a </script> name that is l… (was "")'],
        ["BlockDriverState#1->opaque = BDRVRawState#1 (was NULL)", "BDRVRawState#1 is new"],
        ["BDRVRawState#1->fd = 7 (was 0)"],
        ["BlockDriverState#1->total_sectors = 1 (was 0)"],
        ["BlockDriverState#1->total_sectors = 0x4000000000000 (was 1)"],
    ]
    closing = told(Frames(trace, *between(trace, start="bdrv_close")))
    assert closing[1:] == [
        ["BlockDriverState#1->opaque = NULL (was BDRVRawState#1)", "BDRVRawState#1 is gone"]
    ]


def test_the_frames_of_a_call_name_it(trace):
    frames = Frames(trace, *between(trace, at="raw_open#1")).frames
    assert [frame.path for frame in frames[1:]] == ["bdrv_open2 > raw_open"] * 3


def places(path):
    """Where the heads of the structures stand, and the size of the page."""
    root = ElementTree.parse(path).getroot()
    heads = {
        text.text: (text.get("x"), text.get("y"))
        for text in root.iter(f"{SVG}text")
        if "#" in (text.text or "")
    }
    return {name: at for name, at in heads.items() if re.fullmatch(r"\w+#\d", name)}, root.get("viewBox")


def test_boxes_keep_their_places_and_pages_their_size(trace, tmp_path):
    frames = Frames(trace, *between(trace))
    frames.write(tmp_path / "new" / "folder")
    drawn = sorted((tmp_path / "new" / "folder").glob("frame-*.svg"))
    assert len(drawn) == len(frames.frames) == frames.total > 6
    found = [places(path) for path in drawn]
    assert len({size for _, size in found}) == 1
    for name in ("BlockDriverState#1",):
        assert len({heads[name] for heads, _ in found if name in heads}) == 1
    assert any(len(heads) == 1 for heads, _ in found) and any(len(heads) > 1 for heads, _ in found)


def test_what_changed_is_marked_in_its_frame_only(trace, tmp_path):
    Frames(trace, *between(trace, at="raw_open")).write(tmp_path)
    marked = [(tmp_path / f"frame-{n:04}.svg").read_text().count('fill="#fde68a"') for n in (1, 2, 3, 4)]
    # The start; opaque's two cells and the new box's head; fd's two cells; total_sectors' two.
    assert marked == [0, 3, 2, 2]


def test_the_page_names_all_frames_and_stays_one_script(trace, tmp_path):
    Frames(trace, *between(trace)).write(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert page.count("</script>") == 1
    listed = json.loads(re.search(r"const frames = (.*);\n", page)[1].replace("<\\/", "</"))
    assert [row["file"] for row in listed] == sorted(path.name for path in tmp_path.glob("frame-*"))
    assert listed[1]["path"][-1] == "bdrv_open2"


def test_more_frames_than_wanted_are_cut_and_told(recorded, tmp_path, capsys):
    path, _ = recorded
    assert cli.main(["structures", str(path), "--frames", str(tmp_path / "d"), "--most", "3"]) == 0
    out = capsys.readouterr()
    assert "the first 3 are drawn" in out.err and "--most" in out.err
    assert "3 frames" in out.out
    assert len(list((tmp_path / "d").glob("frame-*.svg"))) == 3


def test_old_frames_go_and_other_files_stay(recorded, tmp_path):
    path, _ = recorded
    for name in ("frame-0099.svg", "frame-1.svg", "notes.txt"):
        (tmp_path / name).write_text("x")
    command = ["structures", str(path), "--at", "raw_open", "--frames", str(tmp_path), "--format", "png"]
    assert cli.main(command) == 0
    assert not (tmp_path / "frame-0099.svg").exists()
    assert (tmp_path / "notes.txt").exists() and (tmp_path / "frame-1.svg").exists()
    assert (tmp_path / "frame-0001.png").read_bytes().startswith(b"\x89PNG")
    assert "frame-0001.png" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"start": "bdrv_close", "end": "raw_open"}, "before bdrv_close"),
        ({"at": "raw_opne"}, "did you mean raw_open"),
        ({"end": "10000"}, "this trace has steps 0 to"),
    ],
)
def test_wrong_ranges_are_explained(trace, where, said):
    with pytest.raises(GraphsError, match=said):
        between(trace, **where)


def test_a_folder_that_is_a_file_and_structures_that_never_come_are_explained(trace, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(GraphsError, match="file cannot be written: "):
        Frames(trace, *between(trace)).write(tmp_path / "file")
    with pytest.raises(GraphsError, match="no QemuOpts exists between step 0"):
        Frames(trace, *between(trace), ["QemuOpts"]).write(tmp_path / "d")


def test_a_trace_of_nothing_is_explained(tmp_path, capsys):
    path = tmp_path / "empty.trace"
    with record(path):
        pass
    for command in (
        ["structures", str(path), "--frames", str(tmp_path)],
        ["draw", str(path), "-o", "x.svg"],
        ["compare", str(path)],
    ):
        assert cli.main(command) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "empty" in line or "there is no call in it" in line
