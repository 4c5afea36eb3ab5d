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
# One call, five times entered: you follow the structures from the first field written to the last. About an hour.

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

# %%
write_demo_disk("base.img")
run("img create -f qcow -b base.img overlay.img")
run("boot -hda overlay.img --trace boot.trace", quiet=True)
run("trace show boot.trace --from bdrv_open2 --depth 2 --args --no-fold")

# %% [markdown]
# ### 7.1
# **What does the first bdrv_open2(), that of the overlay, call itself, in order?** Helpers may be left out.

# %%
check("7.1", ...)

# %% [markdown]
# ### 7.2
# **And qcow_open() of the overlay?** The real program's call is in recording d01.

# %%
recorded("d01", 1455, 1462)
check("7.2", ...)

# %% [markdown]
# ## Step by step
#
# Every field that bdrv_open2 and what it calls wrote, in order. This is the film of which the pictures below are stills.

# %%
boot = load("boot.trace")
first = next(boot.calls(function="bdrv_open2"))
for write in boot.writes():
    if first.step <= write.step <= first.exit_step and write.field in (
        "drv",
        "opaque",
        "hd",
        "backing_hd",
        "fd",
    ):
        print(f"{write.step:>6}  {write.object}.{write.field}: {shown(write.old)} -> {shown(write.new)}")

# %%
picture("structures boot.trace --at raw_open:exit", "probe.svg")

# %%
picture("structures boot.trace --at qcow_open:enter", "before.svg")

# %%
picture("structures boot.trace --at qcow_open:exit", "after.svg")

# %% [markdown]
# ### 7.3
# The overlay is open as bs, its BDRVQcowState is s. **Which formats stand at these places, and what at the last?**

# %%
check(
    "7.3", {"bs->drv": ..., "s->hd->drv": ..., "bs->backing_hd->drv": ..., "bs->backing_hd->backing_hd": ...}
)

# %% [markdown]
# ### 7.4
# The base has 16 MiB. **What do these fields hold?** Derive the last from the two before it.

# %%
check("7.4", {"bs->total_sectors": ..., "s->cluster_bits": ..., "s->l2_bits": ..., "s->l1_size": ...})

# %% [markdown]
# ## With -snapshot

# %%
run("boot -snapshot -hda overlay.img --trace snapshot.trace", quiet=True)
picture(
    "draw snapshot.trace --from drive_init --only 'bdrv_*' --only '*_open' --only '*_create'", "snapshot.svg"
)

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
