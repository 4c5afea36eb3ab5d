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
sizes = {"base": os.path.getsize("base.img"), "overlay, new": os.path.getsize("overlay.img")}
run("img info overlay.img")

# %% [markdown]
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
sizes["overlay, written"] = os.path.getsize("overlay.img")
bars({name: size for name, size in sizes.items() if name != "base"})

# %% [markdown]
# Which parts of the disk are in the overlay now, which still in the base?

# %%
run("img map --modern overlay.img")

# %% [markdown]
# One of the guest's writes, from the device down to the file:

# %%
picture("draw write.trace --from qcow_aio_write_cb", "write.svg")

# %% [markdown]
# ### 4.1
# A qcow overlay on a base of 16 MiB with the name base.img. **How many bytes has the file when it is new, and by how many
# does it grow when one sector is written?** (The guest wrote several. `studykvm io` can write just one, into a new one.)

# %%
check("4.1", {"new": ..., "grows": ...})

# %% [markdown]
# ### 4.2
# Byte 0 of a base is 0. 7 is written there through an overlay, then the overlay is committed. **What is byte 0 of the
# base before and after the commit?**

# %%
check("4.2", {"base before commit": ..., "base after commit": ...})

# %% [markdown]
# ## Commit, while the machine runs


# %%
def directory(image: str) -> bool:
    """Is the directory's name in the root directory? That begins behind 5 sectors and two tables of 64."""
    with open(image, "rb") as disk:
        disk.seek((5 + 2 * 64) * 512)
        return b"IN_GUEST   " in disk.read(512)


print("in the base before:", directory("base.img"))
boot("overlay.img", "commit all", trace="commit.trace")
print("in the base after: ", directory("base.img"))
sizes["overlay, committed"] = os.path.getsize("overlay.img")
bars({name: size for name, size in sizes.items() if name != "base"})

# %%
picture("draw commit.trace --from do_commit --depth 4", "commit.svg")

# %% [markdown]
# ### 4.3
# **How many bytes has the qcow overlay after the commit?**

# %%
check("4.3", ...)

# %% [markdown]
# ### 4.4
# **The same three sizes for a qcow2 overlay**, with one sector written: new, written, committed. Try it, it takes three
# commands of `studykvm img` and `studykvm io`.

# %%
check("4.4", {"new": ..., "written": ..., "committed": ...})

# %% [markdown]
# ### 4.5
# **Does a commit need the guest to stop, or the overlay to be closed?**
#
# - a: the overlay is closed and opened again
# - b: the machine is stopped first
# - c: neither: the monitor commits while the guest runs

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
print("in the overlay:", os.path.getsize("thrown.img"), "bytes; in the base:", directory("fresh.img"))
os.remove("thrown.img")
