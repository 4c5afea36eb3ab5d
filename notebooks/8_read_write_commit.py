# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   studykvm:
#     exercise: 8
# ---

# %% [markdown]
# # 8  bdrv_read, bdrv_write, commit; migration
#
# > What do bdrv_read() and bdrv_write() check, and what do they return? What do do_commit() and bdrv_commit() do? Move
# > a running machine to another one: by which command, and what do both sides do?
#
# Requests first, right ones and wrong ones; then many of them, a commit; then a machine that moves. About an hour.
#
# Replace the `...` in the cells with `check`. `hint("8.1")` helps, step by step. In a terminal:
# `studykvm exercise answer 8.4 a`.

# %%
import errno
from importlib.util import find_spec

from hypervisor.block import (
    bdrv_delete,
    bdrv_getlength,
    bdrv_init,
    bdrv_new,
    bdrv_open,
    bdrv_read,
    bdrv_set_dirty_tracking,
    bdrv_write,
)
from hypervisor.block_int import BDRV_O_RDWR
from hypervisor.program import program
from studykvm.coursework import check, hint, predict
from studykvm.coursework.lab import bars, move, picture, recorded, run
from studykvm.guests import write_counting_disk, write_demo_disk
from tracer import load

# %% [markdown]
# ## Predict first
#
# `commit`: does it compare the overlay with the base? Does it copy everything? How would you do it?

# %%
predict("8.4", ...)
predict("8.1", ...)

# %% [markdown]
# ## Reading and writing, right and wrong
#
# A raw disk of 16 MiB: a sector that it has, and one behind its end.

# %%
write_demo_disk("base.img")
run("io -c 'read 0 512' -c 'read 16M 512' --trace read.trace base.img")
run("trace show read.trace --from bdrv_read --depth 3 --args")

# %% [markdown]
# The first read is QEMU's own: it looks at the beginning to find out the format. A negative result is an errno, whose name
# `errno.errorcode` knows: `errno.errorcode[2]` is ENOENT.

# %%
picture("draw read.trace --from bdrv_read", "read.svg")

# %% [markdown]
# The model's functions can be called without a tool, too. A bs without a file is a drive without a medium; `bs.read_only = 1`
# makes an image read-only; and a write is `bdrv_write(bs, 0, bytes(512), 1)`. Put them where bdrv_getlength stands.

# %%
with program("qemu-io"):
    bdrv_init()
    bs = bdrv_new("mine")
    bdrv_open(bs, "base.img", BDRV_O_RDWR)
    print(bdrv_getlength(bs))
    bdrv_delete(bs)

# %% [markdown]
# ### 8.1
# **What do bdrv_read() and bdrv_write() return** for a drive without a medium, out of range, on a read-only image, and
# when all is well?

# %%
check("8.1", {"no medium": ..., "out of range": ..., "read-only": ..., "all is well": ...})

# %% [markdown]
# ### 8.2
# A write into a raw image: **what does bdrv_write() call itself, in order?**

# %%
check("8.2", ...)

# %% [markdown]
# bdrv_write() has one more duty while a migration copies disks: it notes in a bitmap what became dirty. A bit stands for
# more than a sector. For how many? Write elsewhere, and count.

# %%
with program("qemu-io"):
    bdrv_init()
    bs = bdrv_new("mine")
    bdrv_open(bs, "base.img", BDRV_O_RDWR)
    bdrv_set_dirty_tracking(bs, 1)
    for number in (5000, 5001):
        bdrv_write(bs, number, bytes(512), 1)
    print(sum(byte.bit_count() for byte in bs.dirty_bitmap), "of", 8 * len(bs.dirty_bitmap), "bits")
    bdrv_delete(bs)

# %% [markdown]
# ### 8.3
# Dirty tracking is on. Sectors 0, 100, 2047, 2048 and 9000 are written. **How many bits of dirty_bitmap are set?**

# %%
check("8.3", ...)

# %% [markdown]
# ## Commit
#
# Nine sectors into an overlay, then a commit, traced. The disk has 32,768 sectors. How many of them are read and written?

# %%
run("img create -f qcow -b base.img overlay.img")
run("io -c 'write -P 1 0 512' -c 'write -P 2 1M 4k' overlay.img", quiet=True)
run("img commit --trace commit.trace overlay.img")
commit = load("commit.trace")
inside = next(commit.calls(function="bdrv_commit"))
bars(
    {
        name: sum(1 for call in commit.calls(function=name) if call.parent is inside)
        for name in ("bdrv_read", "bdrv_write")
    }
)

# %% [markdown]
# And what of it reaches the two files. Between bdrv_commit() and raw-posix.c stand others, which are left out here; name
# them with `--only`, or leave `--only` out, and you see more.

# %%
picture("draw commit.trace --from bdrv_commit --only bdrv_commit --only 'raw_*'", "commit.svg")

# %% [markdown]
# ### 8.4
# **How does bdrv_commit() find out which sectors to copy?**
#
# - a: it compares each sector of the overlay with the base
# - b: it asks the overlay whether it holds the sector
# - c: it copies all sectors, by the driver's own asynchronous requests

# %%
check("8.4", ...)

# %% [markdown]
# ### 8.5
# **Which functions does bdrv_commit() call itself**, when a qcow overlay is committed into a raw base?

# %%
check("8.5", ...)

# %% [markdown]
# ### 8.6
# `commit all` is typed at the monitor. **By which way do the bytes come from do_commit() to raw_pwrite_aligned()?** The real
# program's begins in line 35879 of d01.

# %%
recorded("d01", 35879, 35880)

# %%
check("8.6", ...)

# %% [markdown]
# ## Migration
#
# What do you type? The recordings e01, e02, e05 and e08 are of machines that moved, or did not: `studykvm compare --list`.
# The monitor tells what the command takes:

# %%
run("boot -net none -m 4 -S -nographic -serial null -monitor stdio", typed=["help migrate", "quit"])

# %% [markdown]
# ### 8.7
# A machine with -incoming waits on port 4444 of this host. **Which command moves your machine there, with the prompt
# back at once?**

# %%
check("8.7", ...)

# %% [markdown]
# Now do it: a guest that counts, A to Z over and over on its serial line. It begins here, then it moves. Does it lose a
# letter? The question above is for port 4444; here the port is one that is free.

# %%
write_counting_disk("count.img")
machine = "boot -net none -m 4 -hda count.img -snapshot -nographic -monitor stdio"
move(
    f"{machine} -serial file:source.txt --trace source.trace",
    machine + " -serial file:destination.txt --trace destination.trace -incoming tcp:127.0.0.1:{port}",
    [("source.txt", "ABCDEFGH"), "migrate tcp:127.0.0.1:{port}", "info migrate", "info status", "quit"],
    [("destination.txt", "XYZA"), "info status", "quit"],
)
print("the last letters here: ", open("source.txt").read()[-30:])
print("the first letters there:", open("destination.txt").read()[:30])

# %% [markdown]
# Two traces were recorded, one on each side. Joined by the bytes that went from one to the other, they are one conversation:
# the source begins a state, the destination loads it, and there the machine starts.

# %%
run("trace join source.trace destination.trace -o both.trace")
both = load("both.trace")
told = ("do_migrate", "qemu_savevm_state_begin", "ram_load", "migrate_fd_cleanup", "vm_start")
seen = set()
for call in both.calls():
    if call.function in told and (call.file, call.function) not in seen:
        seen.add((call.file, call.function))
        print(f"{call.step:>7} {call.file:<28} {call.function}")

# %% [markdown]
# Memory first, while the machine runs; then what has changed meanwhile; and the rest when it stands still. How much at a
# time, a chart tells; what the two sides do with it, the pictures.

# %%
if find_spec("matplotlib"):
    picture("migration chart source.trace", "chart.svg")
else:
    print("matplotlib is not here: pip install matplotlib")

# %%
picture("draw source.trace --from qemu_savevm_state_iterate --depth 3", "source.svg")

# %%
picture("draw destination.trace --from qemu_loadvm_state --depth 3", "destination.svg")

# %% [markdown]
# ### 8.8
# The source has sent nearly all of its memory. **What does migrate_fd_put_ready() call itself then, in order?**

# %%
check("8.8", ...)

# %% [markdown]
# ### 8.9
# Somebody connects to the machine that waits. **What does tcp_accept_incoming_migration() call itself, in order?**

# %%
check("8.9", ...)

# %% [markdown]
# ## Change something and see
#
# Commit a second time. How many sectors does it copy now? Does it take less time, and what does it spend that on?

# %%
run("img commit --trace again.trace overlay.img")
again = load("again.trace")
inside = next(again.calls(function="bdrv_commit"))
for name in ("bdrv_read", "bdrv_write"):
    print(name, sum(1 for call in again.calls(function=name) if call.parent is inside))
print(f"{commit.stats().calls:,} calls the first time, {again.stats().calls:,} the second")
