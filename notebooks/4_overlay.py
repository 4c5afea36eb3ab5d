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
#     exercise: 4
# ---

# %% [markdown]
# # 4  Overlay and commit
#
# > Create an overlay on a base image. Write something from inside the guest: a directory with a file in_BASE_HOST.txt.
# > Watch the sizes of both images. commit all: what happens to the base, what to the overlay? Make a new overlay: does
# > it show what was written?
#
# The guest is a small program that makes a directory with a file in it on a FAT disk, as an operating system would. Its
# source is `studykvm/guests/makedir.asm`. About an hour.
#
# Replace the `...` in the cells with `check`. `hint("4.1")` helps, step by step. In a terminal:
# `studykvm exercise answer 4.5 b`.

# %%
import os

from studykvm.coursework import check, hint, predict
from studykvm.coursework.lab import bars, picture, run
from studykvm.guests import write_fat_disk

# %% [markdown]
# ## Predict first
#
# The base has 16 MiB. How large is a new overlay? How much larger when the guest has written one sector? And after a
# commit?

# %%
predict("4.1", ...)
predict("4.3", ...)

# %% [markdown]
# ## A base, an overlay, a guest that writes

# %%
write_fat_disk("base.img")
run("img create -f qcow -b base.img overlay.img")
run("img info overlay.img")

# %% [markdown]
# `disk size` is what the file takes on the host's disk, in blocks; what `ls -l` calls its size is another number.
#
# The guest makes its directory; then the monitor is asked what the disk had to do, and the machine is switched off.

# %%
BOOT = "boot -m 4 -hda {} -nographic -serial file:screen.txt -monitor stdio"
DONE = ("screen.txt", "IN_GUEST")  # what to wait for: the guest says it on the serial line, too


def boot(image: str, *typed: str, trace: str = "") -> None:
    """Boot, wait until the guest has done its work, type at the monitor, switch off."""
    if os.path.exists("screen.txt"):
        os.remove("screen.txt")
    run(BOOT.format(image) + (f" --trace {trace}" if trace else ""), typed=[DONE, *typed, "quit"])
    print("The guest said:", open("screen.txt").read().split("\n", 1)[-1])


boot("overlay.img", "info blockstats", trace="write.trace")
for name in ("base.img", "overlay.img"):
    found = os.stat(name)
    print(f"{name:<12} size {found.st_size:>11,}   on the host's disk {found.st_blocks * 512:>7,}")

# %% [markdown]
# Which parts of the disk are in the overlay now, which still in the base? What is in neither reads as zeros.

# %%
print(run("img map --modern overlay.img", quiet=True))

# %% [markdown]
# The guest wrote 3,584 bytes, and the overlay grew by ten times that. A cluster that is not there yet costs more than its
# data: get_cluster_offset() looks it up, makes room at the end of the file, and notes where that is.

# %%
picture("draw write.trace --from get_cluster_offset --depth 3", "write.svg")

# %% [markdown]
# How large are its writes? The third column is the length in bytes:

# %%
run("trace show write.trace --only bdrv_pwrite --args")

# %% [markdown]
# ### 4.1
# A qcow overlay on a base of 16 MiB with the name base.img. **How many bytes has the file when it is new, and by how many
# does it grow when one sector is written?** Try it: make a new one, and write one sector by
# `run("io -c 'write 0 512' one.img")`. If your base has another name or size, say so, for both
# stand in the file: `{"base": "mine.img", "size": "64M", "new": ..., "grows": ...}`.

# %%
check("4.1", {"new": ..., "grows": ...})

# %% [markdown]
# ### 4.2
# Byte 0 of a base is 0. 7 is written there through an overlay, then the overlay is committed. **What is byte 0 of the
# base before and after the commit?**

# %%
check("4.2", {"base before commit": ..., "base after commit": ...})

# %% [markdown]
# ## Commit
#
# The guest is still there and waits when the monitor commits. Is the machine running meanwhile? It is asked before and after.


# %%
def directory(image: str) -> bool:
    """Is the directory's name in the root directory? That begins behind 5 sectors and two tables of 64."""
    with open(image, "rb") as disk:
        disk.seek((5 + 2 * 64) * 512)
        return b"IN_GUEST   " in disk.read(512)


print("in the base before:", directory("base.img"))
boot("overlay.img", "info status", "commit all", "info status", trace="commit.trace")
print("in the base after: ", directory("base.img"))

# %% [markdown]
# What of the commit reached the files: do_commit() at the top, and at the bottom raw-posix.c, which reads and writes them.
# What stands between is exercise 8.

# %%
picture("draw commit.trace --from do_commit --only do_commit --only 'raw_p*'", "commit.svg")

# %% [markdown]
# ### 4.3
# **How many bytes has the qcow overlay after the commit?**

# %%
check("4.3", ...)

# %% [markdown]
# ### 4.4
# **The same three sizes for a qcow2 overlay**, with one sector written: new, written, committed. Try it: it takes three
# commands of `studykvm img` and `studykvm io`, and `os.path.getsize` after each.

# %%
check("4.4", {"new": ..., "written": ..., "committed": ...})

# %% [markdown]
# ### 4.5
# **Does a commit need the guest to stop, or the overlay to be closed?**
#
# - a: the overlay is closed and opened again
# - b: the machine is stopped first
# - c: neither: the monitor commits, and the machine goes on

# %%
check("4.5", ...)

# %% [markdown]
# ## A new overlay
#
# The guest looks before it makes a directory. What does it say now, and how much does the new overlay grow?

# %%
run("img create -f qcow -b base.img new.img")
before = os.path.getsize("new.img")
boot("new.img", "info blockstats")
print("grown by", os.path.getsize("new.img") - before)

# %% [markdown]
# ## Change something and see
#
# Make a second overlay from a fresh base, let the guest write, and throw the overlay away instead of committing it. What
# have you got then, and what is that good for?

# %%
write_fat_disk("fresh.img")
run("img create -f qcow2 -b fresh.img thrown.img")
boot("thrown.img")
bars({"in the overlay": os.path.getsize("thrown.img"), "in the base": int(directory("fresh.img"))})
os.remove("thrown.img")
