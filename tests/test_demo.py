"""The demonstration: one command, a page of text, three pictures, an overlay written by a guest."""

import json
import re
import shlex

from studykvm import cli
from studykvm.guests import WRITTEN_SECTOR, WRITTEN_TEXT
from tracer import load


def test_the_demo_boots_prints_and_draws(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", "-o", "build/demo"]) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "build/demo"

    assert len(out.splitlines()) < 150
    assert "│ Sector 1 says: hello from the base image below the overlay" in out
    for told in ("qcow_open  block/qcow.c", "ide_write_dma_cb", "get_cluster_offset", "Try next:"):
        assert told in out

    assert WRITTEN_TEXT in (folder / "overlay.img").read_bytes()
    sector = slice(WRITTEN_SECTOR * 512, (WRITTEN_SECTOR + 1) * 512)
    assert (folder / "base.img").read_bytes()[sector] == bytes(512)

    called = {call.function for call in load(folder / "boot.trace").calls()}
    assert {"drive_add", "qcow_open", "cpu_x86_exec", "qcow_aio_writev", "aio_thread"} <= called
    assert (folder / "boot.png").read_bytes().startswith(b"\x89PNG")
    assert b"qcow_aio_write_cb" in (folder / "boot.svg").read_bytes()
    assert "Drawn: witnesses.svg" in out
    assert b"traced, in source and recorded" in (folder / "witnesses.svg").read_bytes()


def test_every_call_of_the_demo_is_in_the_source(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main(["demo"])
    capsys.readouterr()
    assert cli.main(["compare", "build/demo/boot.trace", "-o", "part.json", "--from", "qcow_open"]) == 0
    out = capsys.readouterr().out
    assert re.match(r"all [0-9,]+ different calls of the trace are in the source of qemu-kvm 0.12.4", out)
    assert "  pci_data_read -> (pci_dev_find_by_addr) -> pci_find_device\n" in out
    assert json.loads((tmp_path / "part.json").read_text())["nodes"]


def test_what_the_demo_says_to_try_next_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main(["demo"])
    commands = re.findall(r"^  studykvm (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        assert cli.main(shlex.split(command)) == 0, command
