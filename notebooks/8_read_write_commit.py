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
# About an hour.

# %%
from studykvm.coursework import check, hint, predict
from studykvm.coursework.lab import bars, move, picture, recorded, run
from studykvm.guests import write_counting_disk, write_demo_disk
from tracer import load
from tracer.values import show as shown

# %% [markdown]
# ## Predict first
#
# `commit`: does it compare the overlay with the base? Does it copy everything? How would you do it?

# %%
predict("8.4", ...)
predict("8.1", ...)

# %% [markdown]
# ## Reading and writing, right and wrong

# %%
write_demo_disk("base.img")
run("img create -f qcow -b base.img overlay.img")
run("io -c 'read 0 512' -c 'write -P 7 1024 512' -c 'read 16M 512' --trace io.trace overlay.img")
run("trace show io.trace --from bdrv_read --depth 3 --args")

# %% [markdown]
# Requests and their results; a negative one is an errno, whose name `errno.errorcode` knows.

# %%
import errno

for call in load("io.trace").calls(function="bdrv_*"):
    if isinstance(call.ret, int) and call.ret < 0:
        print(call.function, shown(call.ret), errno.errorcode[-call.ret])

# %% [markdown]
# ### 8.1
# **What do bdrv_read() and bdrv_write() return** for a drive without a medium, out of range, on a read-only image, and
# when all is well?

# %%
check("8.1", {"no medium": ..., "out of range": ..., "read-only": ..., "all is well": ...})

# %%
run("io -c 'write -P 9 0 512' --trace raw.trace base.img")
picture("draw raw.trace --from bdrv_write", "write.svg")

# %% [markdown]
# ### 8.2
# A write into a raw image: **what does bdrv_write() call itself, in order?**

# %%
check("8.2", ...)

# %% [markdown]
# ### 8.3
# Dirty tracking is on. Sectors 0, 100, 2047, 2048 and 9000 are written. **How many bits of dirty_bitmap are set?**

# %%
check("8.3", ...)

# %% [markdown]
# ## Commit
#
# Some sectors into the overlay, then a commit, traced.

# %%
run("io -c 'write -P 1 0 512' -c 'write -P 2 1M 4k' overlay.img", quiet=True)
run("img commit --trace commit.trace overlay.img")
run("trace show commit.trace --from bdrv_commit --depth 2")

# %%
picture("draw commit.trace --from bdrv_commit --depth 4", "commit.svg")

# %%
commit = load("commit.trace")
bars(
    {
        name: sum(1 for _ in commit.calls(function=name))
        for name in ("qcow_is_allocated", "bdrv_read", "bdrv_write")
    }
)

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
# `commit all` is typed at the monitor. **By which way do the bytes come from do_commit() to raw_pwrite_aligned()?**

# %%
recorded("d01", 35879, 35882)
check("8.6", ...)

# %% [markdown]
# ## Migration
#
# What do you type? The recordings e01, e02, e05 and e08 are of machines that moved, or did not.

# %%
run(
    "boot -net none -m 4 -hda overlay.img -nographic -serial null -monitor stdio",
    typed=[2, "help migrate", "quit"],
)

# %% [markdown]
# ### 8.7
# A machine with -incoming waits on port 4444 of this host. **Which command moves your machine there, with the prompt
# back at once?**

# %%
check("8.7", ...)

# %% [markdown]
# Now do it: a guest that counts, A to Z over and over on its serial line. It begins here, then it moves. The
# question above is for port 4444; here the port is one that is free.

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

# %%
picture("draw source.trace --from migrate_fd_connect --depth 3 --boxes 30", "source.svg")

# %%
picture("draw destination.trace --from tcp_accept_incoming_migration --depth 3 --boxes 30", "destination.svg")

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
# Commit a second time. How many sectors does it copy now, and what does it ask all the same?

# %%
run("img commit --trace again.trace overlay.img")
again = load("again.trace")
bars(
    {
        name: sum(1 for _ in again.calls(function=name))
        for name in ("qcow_is_allocated", "bdrv_read", "bdrv_write")
    }
)
