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
#     exercise: 7
# ---

# %% [markdown]
# # 7  bdrv_open2 on an overlay
#
# > Take bdrv_open2() of an overlay apart, with and without -snapshot: what is called in which order, and what becomes
# > of BlockDriverState, BlockDriver, BDRVQcowState and BDRVRawState at each step?
#
# One call that enters itself again: you follow the structures from the first field written to the last. About an hour.
#
# Replace the `...` in the cells with `check`. `hint("7.1")` helps, step by step. In a terminal:
# `studykvm exercise answer 7.6 a`.

# %%
from studykvm.coursework import check, hint, predict
from studykvm.coursework.lab import picture, recorded, run
from studykvm.guests import write_demo_disk
from tracer import load
from tracer.values import show as shown

# %% [markdown]
# ## Predict first
#
# How many BlockDriverStates are there when a qcow overlay on a raw base is open? Which has which driver?

# %%
predict("7.3", ...)
predict("7.5", ...)

# %% [markdown]
# ## Run and trace
#
# First the base alone, which is raw: what bdrv_open2() calls itself, with arguments and results.

# %%
write_demo_disk("base.img")
run("boot -hda base.img --trace raw.trace", quiet=True)
run("trace show raw.trace --from bdrv_open2 --depth 2 --args --no-fold")

# %% [markdown]
# Then the overlay. What more has to be done for it? Look at boot.trace in the same way, or read the real program's call:
# it begins in line 1360 of d01.

# %%
run("img create -f qcow -b base.img overlay.img")
run("boot -hda overlay.img --trace boot.trace", quiet=True)
recorded("d01", 1360, 1362)

# %% [markdown]
# ### 7.1
# **What does the first bdrv_open2(), that of the overlay, call itself, in order?** Helpers may be left out.

# %%
check("7.1", ...)

# %% [markdown]
# ### 7.2
# **And qcow_open() of the overlay?** The real program's call begins in line 1455 of d01.

# %%
recorded("d01", 1455, 1462)

# %%
check("7.2", ...)

# %% [markdown]
# ## Step by step
#
# Every link that bdrv_open2 and what it calls wrote, in order, until qcow_open() returns. The pictures below are stills of
# this film. How does it go on with the base? Let it run to `first.exit_step`.

# %%
boot = load("boot.trace")
first = next(boot.calls(function="bdrv_open2"))
until = next(boot.calls(function="qcow_open")).exit_step
for write in boot.writes():
    if first.step <= write.step <= until and write.field in ("drv", "opaque", "hd", "backing_hd", "fd"):
        print(f"{write.step:>6}  {write.object}.{write.field}: {shown(write.old)} -> {shown(write.new)}")

# %% [markdown]
# The file is open for the first time, to find out its format: a BlockDriverState of its own, which goes away again.

# %%
picture("structures boot.trace --at raw_open:exit", "probe.svg")

# %% [markdown]
# The format is known; qcow_open() begins with an empty BDRVQcowState ...

# %%
picture("structures boot.trace --at qcow_open:enter", "before.svg")

# %% [markdown]
# ... and leaves it filled in, with a BlockDriverState for the bytes of the file.

# %%
picture("structures boot.trace --at qcow_open:exit", "after.svg")

# %% [markdown]
# All changes of all structures during bdrv_open2(), one picture each: open the page in a browser and press the arrow keys.

# %%
run("structures boot.trace --at bdrv_open2 --frames open")

# %% [markdown]
# ### 7.3
# The overlay is open as bs, its BDRVQcowState is s. **Which formats stand at these places, and what at the last?**

# %%
check(
    "7.3", {"bs->drv": ..., "s->hd->drv": ..., "bs->backing_hd->drv": ..., "bs->backing_hd->backing_hd": ...}
)

# %% [markdown]
# ### 7.4
# An overlay on a base of 64 MiB. **What do these fields hold?** The picture above is of a base of 16 MiB: which of them depend
# on the size? Derive before you try.

# %%
check("7.4", {"bs->total_sectors": ..., "s->cluster_bits": ..., "s->l2_bits": ..., "s->l1_size": ...})

# %% [markdown]
# ## With -snapshot
#
# The same overlay, but the guest's writes are to be thrown away. What does bdrv_open2() call now, before the base of the
# overlay is even thought of?

# %%
run("boot -snapshot -hda overlay.img --trace snapshot.trace", quiet=True)
run("trace show snapshot.trace --from bdrv_open2 --depth 2 --no-fold --only 'bdrv_*' --only get_tmp_filename")

# %%
chosen = "--only drive_init --only 'bdrv_*' --only get_tmp_filename"
picture(f"draw snapshot.trace --from drive_init --depth 3 {chosen}", "snapshot.svg")

# %% [markdown]
# The image is opened for a first time, only to learn its size, and is about to be closed again: a BlockDriverState that nobody
# will see, with its own links; that of the drive is still empty. How many structures will there be in the end? Draw it:
# `--at bdrv_open2:exit`.

# %%
picture("structures snapshot.trace --at bdrv_delete:enter#3", "size.svg")

# %% [markdown]
# ### 7.5
# **How often is each entered until drive_init() returns?**

# %%
check("7.5", {"bdrv_open2": ..., "raw_open": ..., "qcow_open": ...})

# %% [markdown]
# ### 7.6
# **Which format has the temporary overlay, and does probing take part in opening it?**
#
# - a: qcow; its format is found by probing
# - b: qcow2; its format is handed over
# - c: raw, a full copy of the image

# %%
check("7.6", ...)

# %% [markdown]
# ## Change something and see
#
# The same base under three overlays, one on the other. How does the number of calls of bdrv_open2 grow with each?

# %%
run("img create -f qcow -b overlay.img second.img")
run("img create -f qcow -b second.img third.img")
for name in ("base.img", "overlay.img", "second.img", "third.img"):
    run(f"io -c 'open {name}' -c close --trace chain.trace", quiet=True)
    print(name, sum(1 for _ in load("chain.trace").calls(function="bdrv_open2")))
