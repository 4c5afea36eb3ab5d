"""With the words of 7.2, the tools say and do what QEMU's own do, command by command."""

import re
import shlex

import pytest

from tests.hypervisor.tools import Shown, needs_qemu, ours, theirs, untimed

SESSIONS = {
    "info, check and map": """
        qemu-img create -f qcow2 -o compat=0.10 b.img 1M
        qemu-img info b.img
        qemu-img info --output=json b.img
        qemu-img check b.img
        qemu-img check --output=json b.img
        qemu-img create -f qcow c.img 1M
        qemu-img info c.img
        qemu-img check c.img
        qemu-img map --output=json c.img
        qemu-io -f qcow2 -c "write -P 5 65536 4096" -c "write -P 6 300000 200" b.img
        qemu-io -c "write -P 5 65536 4096" c.img
        qemu-img map --output=json b.img
        qemu-img map -s 64k -l 64k b.img
        qemu-img map b.img
        qemu-img map --output=json c.img
        qemu-img map --output=xml c.img
        qemu-img map
    """,
    "snapshots": """
        qemu-img create -f qcow2 -o compat=0.10 b.img 1M
        qemu-img snapshot -c one b.img
        qemu-img snapshot -l b.img
        qemu-img info b.img
        qemu-img snapshot -a one b.img
        qemu-img snapshot -a two b.img
        qemu-img snapshot -d two b.img
        qemu-img snapshot -d one b.img
        qemu-img snapshot -l -c x b.img
        qemu-img snapshot
        qemu-img check b.img
        qemu-img create -f qcow c.img 1M
        qemu-img snapshot -c x c.img
    """,
    "wrong options": """
        qemu-img
        qemu-img frob
        qemu-img info
        qemu-img info nothere.img
        qemu-img create -f raw a.img 1M
        qemu-img info -f foo a.img
        qemu-img info -f qcow2 a.img
        qemu-img info -Z a.img
        qemu-img info a.img -f
        qemu-img info --output=xml a.img
        qemu-img check -f raw a.img
        qemu-img commit -f raw a.img
        qemu-img convert
        qemu-img convert a.img
        qemu-img convert nothere.img x.img
        qemu-img convert -f raw -O foo a.img x.img
        qemu-img convert -c -f raw -O raw a.img x.img
        qemu-img compare a.img
        qemu-img compare -f raw a.img nothere.img
        qemu-img rebase a.img
        qemu-img resize a.img
        qemu-img resize a.img foo
    """,
    "create": """
        qemu-img create
        qemu-img create -f foo x.img 1M
        qemu-img create -f raw x.img
        qemu-img create -f raw x.img 1M 2M
        qemu-img create -f raw x.img abc
        qemu-img create -f raw x.img 8E
        qemu-img create -f raw x.img 1.5k
        qemu-img info -f raw x.img
        qemu-img create -f raw -b a.img x.img
        qemu-img create -f raw -o size=1M x.img 1M
        qemu-img create -f raw a.img 1M
        qemu-img create -f qcow2 -b a.img x.img
        qemu-img create -f qcow2 -b a.img -F raw -o compat=0.10 x.img
        qemu-img create -f qcow2 -b x.img -F qcow2 x.img
        qemu-img create -f qcow2 -b "" -F raw x.img
        qemu-img create -f qcow -b a.img -F raw w.img
        qemu-img create -f qcow2 -b nothere.img -F raw -o compat=0.10 y.img
        qemu-img create -f qcow2 -b a.img -F foo -o compat=0.10 y.img
        qemu-img create -f qcow2 -u -b nothere.img -F raw -o compat=0.10 y.img
        qemu-img create -f qcow2 -u -b nothere.img -F raw -o compat=0.10 y.img 1M
        qemu-img create -f qcow2 -o cluster_size=1234 z.img 1M
        qemu-img create -f qcow2 -o foo=bar z.img 1M
        qemu-img create -f qcow2 -o , z.img 1M
        qemu-img info y.img
        qemu-img info --backing-chain x.img
        qemu-img info --backing-chain --output=json x.img
        qemu-img info --backing-chain y.img
        qemu-io -c "read 0 512" y.img
    """,
    "resize": """
        qemu-img create -q -f raw a.img 1M
        qemu-img resize -f raw a.img 2M
        qemu-img resize -f raw a.img -1M
        qemu-img resize -f raw --shrink a.img -1M
        qemu-img resize -f raw --shrink a.img -10M
        qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=512 b.img 1M
        qemu-io -c "write -P 3 1048064 512" b.img
        qemu-img resize b.img 200M
        qemu-img resize b.img +1M
        qemu-io -c "write -P 4 200M 1M" -c "read -P 3 1048064 512" -c "read -P 0 1M 199M" b.img
        qemu-img check b.img
        qemu-img info b.img
        qemu-img create -q -f qcow c.img 1M
        qemu-img resize c.img 2M
    """,
    "rebase": """
        qemu-img create -f raw base.img 1M
        qemu-img create -f raw other.img 512k
        qemu-io -f raw -c "write -P 1 0 1M" base.img
        qemu-io -f raw -c "write -P 2 0 512k" other.img
        qemu-img create -f qcow2 -o compat=0.10 -b base.img -F raw top.img
        qemu-io -c "write -P 3 128k 64k" top.img
        qemu-img map --output=json top.img
        qemu-img map top.img
        qemu-img rebase -b other.img -F raw top.img
        qemu-img info top.img
        qemu-img map --output=json top.img
        qemu-io -c "read -P 1 0 128k" -c "read -P 3 128k 64k" -c "read -P 1 192k 832k" top.img
        qemu-img rebase -u -b base.img -F raw top.img
        qemu-img info top.img
        qemu-img rebase -b "" top.img
        qemu-img info top.img
        qemu-img check top.img
        qemu-io -c "read -P 1 0 128k" -c "read -P 3 128k 64k" -c "read -P 1 192k 832k" top.img
        qemu-img rebase -b nothere.img -F raw top.img
        qemu-img rebase -b base.img -F foo top.img
        qemu-img rebase -b base.img top.img
    """,
    "convert and compare": """
        qemu-img create -f raw s.img 1M
        qemu-io -f raw -c "write -P 7 0 64k" s.img
        qemu-img convert -f raw -O qcow2 -o compat=0.10 s.img q.img
        qemu-img compare -f raw s.img q.img
        qemu-img convert -c -f raw -O qcow2 -o compat=0.10 s.img qc.img
        qemu-img check qc.img
        qemu-img convert -O raw qc.img r.img
        qemu-img compare -f raw -F raw s.img r.img
        qemu-io -f raw -c "write -P 8 512k 1k" r.img
        qemu-img compare -f raw -F raw s.img r.img
        qemu-img resize -f raw q.img 2M
        qemu-img resize -f raw s.img 2M
        qemu-img compare -f raw -F qcow2 s.img qc.img
        qemu-img compare -f raw -F qcow2 -s s.img qc.img
        qemu-img compare -q -f raw -F raw s.img r.img
        qemu-img convert -f raw -O qcow2 -B s.img s.img q.img x.img
        qemu-img convert -n -f raw -O raw s.img r.img
    """,
    "qemu-io": """
        qemu-img create -f qcow2 -o compat=0.10 a.img 1M
        qemu-io -c "read 0 1M" -c "read 1M 512" -c "write 1M 512" -c "read 1048575 2" a.img
        qemu-io -c "read -P 1 0 512" -c "readv -P 1 0 512 512" a.img
        qemu-io -c "read -v 0 20" a.img
        qemu-io -c "read foo 512" -c "read 0 foo" -c "read" -c "read 0" a.img
        qemu-io -c "read -P 300 0 512" -c "read -P 0 -s 100 -l 600 0 512" a.img
        qemu-io -c "write -P 1 10 20" -c "read -v 0 48" a.img
        qemu-io -c "writev -P 1 10 20 30" -c "readv -v 1 22 33" a.img
        qemu-io -c "aio_write -P 2 0 512 512" -c aio_flush -c "aio_read -P 2 0 1024" -c aio_flush a.img
        qemu-io -c "aio_write -P 2 1 511" -c aio_flush -c "aio_read -P 2 1 511" -c aio_flush a.img
        qemu-io -c "length" -c "map" -c "alloc 0" -c "alloc 0 1M" -c "alloc 512k 64k" a.img
        qemu-io -c "foo" a.img
        qemu-io -c "open b" a.img
        qemu-io -c "close" -c "read 0 512" a.img
        qemu-io -c "read 0 512" nothere.img
        qemu-io -r -c "read 0 512" a.img
        qemu-io -c "truncate 2M" -c length a.img
        qemu-io -c "write -z 0 64k" -c "read -P 0 0 64k" a.img
        qemu-io -c "write -z -P 1 0 64k" -c "write -n 0 64k" -c "write -u 0 64k" a.img
        qemu-io -c "write 0 3G" -c "read 0 3G" -c "writev 0 1G 1G 1G" a.img
        qemu-io -c "open -o driver=qcow2 a.img" -c length
        qemu-io -c "open -r a.img" -c length -c close -c quit -c length
        qemu-io -f qcow2 -c "write -c 128k 64k" -c "write -c 100 64k" a.img
        qemu-io -t foo a.img
        qemu-io -i foo a.img
        qemu-io -f foo -c quit a.img
    """,
}


def comparable(shown: Shown) -> Shown:
    """Leave out what depends on the clock, the file system, and on features younger than 0.12.4."""
    out, err = (untimed(text) for text in shown[1:])
    words = r"('|fmt=|size=|backing|preallocation)"
    out = re.sub(
        r"^Formatting .*$",
        lambda line: " ".join(word for word in line[0].split(" ") if re.match(words, word)),
        out,
        flags=re.M,
    )
    gone = r"disk size:|Image end offset:|.*fragmented"
    gone += r"| *\"(actual-size|image-end-offset|date-n?sec|icount|(total|allocated|fragmented)-clusters)\""
    out = re.sub(rf"^({gone}).*\n", "", out, flags=re.M)
    return Shown(shown.status, re.sub(r" +0?$", "", out, flags=re.M), err)


@needs_qemu
@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_shows_what_qemus_own_tools_show(name, tmp_path, monkeypatch):
    commands = [shlex.split(line) for line in SESSIONS[name].strip().splitlines()]
    shown = []
    for folder, run in (("ours", lambda *argv: ours(*argv, modern=True)), ("theirs", theirs)):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        shown.append([(command, comparable(run(*command))) for command in commands])
    for mine, real in zip(*shown, strict=True):
        assert mine == real
