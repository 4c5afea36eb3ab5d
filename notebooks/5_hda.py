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
#     exercise: 5
# ---

# %% [markdown]
# # 5  -hda: from argv to the open file
#
# > Which code reads the option -hda? Follow it from argv to the open file: who reads the option string, and when is
# > the file opened? Draw the call graph, as deep as you like. What do main(), main_loop() and main_loop_wait() do?
#
# You will boot a guest from an overlay, record every call, and look for yourself. Below, what you run is a model of
# qemu-kvm 0.12.4; what your answers are held against are recordings of the real program. Take about an hour.
#
# Replace the `...` in the cells with `check`. `hint("5.1")` helps, step by step. In a terminal:
# `studykvm exercise answer 5.1 NAME`.

# %%
from studykvm.coursework import check, hint, predict
from studykvm.coursework.lab import picture, recorded, run
from studykvm.guests import write_demo_disk
from tracer import load

# %% [markdown]
# ## Predict first
#
# `qemu-system-x86_64 -hda overlay.img`: you know C, you know `main(argc, argv)`. When main() meets `-hda`, does it open
# the file at once? How often will the file be opened until the guest's first instruction? Write down what you expect;
# it is kept, and not judged.

# %%
predict("5.1", ...)
predict("5.3", ...)

# %% [markdown]
# ## Run and trace
#
# A raw base that boots a guest of one sector, an overlay on it, and a boot with every call recorded.

# %%
write_demo_disk("base.img")
run("img create -f qcow -b base.img overlay.img")
run("boot -hda overlay.img --trace boot.trace")

# %% [markdown]
# How much was that? The trace knows; so do you, in a moment.

# %%
boot = load("boot.trace")
stats = boot.stats()
print(f"{stats.calls:,} calls of {len(stats.functions):,} functions")
for call in boot.calls(depth=1, thread=0):
    if call.parent is not None and call.parent.function == "main":
        print(f"{call.step:>7} {call.function}")

# %% [markdown]
# These are the calls that main() makes itself: options, machine, devices, and at the end the loop. The left column is
# the step in the trace. Which of them know the name of a file? Nobody named base.img on the command line: it stands in the
# overlay. Who gets to know it, and when? Look for it among the arguments.

# %%
for call in boot.calls():
    known = [name for name, value in call.args.items() if isinstance(value, str) and "base.img" in value]
    if known and not call.function.startswith("str"):
        print(f"{call.step:>7} {'  ' * call.depth}{call.function}({', '.join(known)})  {call.file}")

# %% [markdown]
# Now the same for the name that was on the command line: change the cell.
#
# ### 5.1
# main() meets -hda overlay.img among its arguments. **Which function is the first to be given the file's name?**

# %%
check("5.1", ...)

# %% [markdown]
# And what does the real source say? When you have answered: `run("option hda")`. The index of qemu-kvm 0.12.4 knows where
# an option is handled.
#
# ## From the list of drives to the open file
#
# Between noting the drive and opening the file lies half of main(). This is where it ends: `drive_init`, with what it asks
# of the block layer. Four drives, of which three have no file.

# %%
run("trace show boot.trace --from drive_init --depth 2 --only drive_init --only 'bdrv_*' --args")

# %% [markdown]
# ### 5.2
# **By which way of calls does main() reach bdrv_open2()?** Begin with main, end with bdrv_open2.

# %%
check("5.2", ..., trace="boot.trace")

# %% [markdown]
# ### 5.3
# overlay.img is a qcow overlay on a raw base. Until drive_init() returns: **how often is each entered?**

# %%
check("5.3", {"bdrv_open2": ..., "raw_open": ..., "qcow_open": ...})

# %% [markdown]
# ### 5.4
# Does qcow_open() call raw_open()? Draw before you answer. This is how a raw image is opened, without an overlay; draw the
# same of boot.trace, with qcow_open among the names.

# %%
run("boot -hda base.img --trace raw.trace", quiet=True)
chosen = "--only bdrv_open2 --only bdrv_file_open --only raw_open --only find_image_format"
picture(f"draw raw.trace --from bdrv_open2 {chosen}", "open.svg")

# %% [markdown]
# **By which way of calls does bdrv_open2() of an overlay reach raw_open() through the overlay's format?**

# %%
check("5.4", ..., trace="boot.trace")

# %% [markdown]
# ## The call graph
#
# What can be called (the source) is more than what was called (the trace). First the trace of the raw image from
# drive_init on, then what the source could do within two calls. `--depth` is as deep as you like.

# %%
picture("draw raw.trace --from drive_init --depth 3", "trace_graph.svg")

# %%
picture("graph drive_init --depth 2", "source_graph.svg")

# %% [markdown]
# ### 5.5
# **Draw the call graph from drive_init() on**: twelve calls or more, each as caller and callee, that hang together. You
# may write it down, or take it from the trace with a loop (below): either way you should be able to explain each arrow.

# %%
graph = []
for call in boot.calls(thread=0):
    if call.parent is not None and call.parent.function == "drive_init":
        pass  # what belongs into your graph?
check("5.5", graph or ..., trace="boot.trace")

# %% [markdown]
# ## The loop
#
# main() ends in main_loop(), and that turns main_loop_wait() over and over, with the guest's processor in between.

# %%
picture("draw boot.trace --from main_loop --depth 3", "loop.svg")

# %% [markdown]
# One turn of main_loop_wait() in the trace of the model:

# %%
turn = next(call for call in boot.calls(function="main_loop_wait"))
for call in boot.calls():
    if call.parent is turn:
        print(call.step, call.function)

# %% [markdown]
# The model has fewer devices than a whole PC. The real program's first turn is in recording d01 and begins in line 31337.
# Here are its first lines; read on with `recorded`.

# %%
recorded("d01", 31337, 31342)

# %% [markdown]
# ### 5.6
# **What does main_loop_wait() of the real program call itself, in order?** Repeats in a row count once.

# %%
check("5.6", ...)

# %% [markdown]
# ## Change something and see
#
# With the raw image alone there is no overlay. How often is each entered now? Explain the difference to 5.3.

# %%
raw = load("raw.trace")
for name in ("bdrv_open2", "raw_open", "qcow_open", "bdrv_file_open"):
    print(name, sum(1 for _ in raw.calls(function=name)))

# %% [markdown]
# Then name an image that is not there: where in the way of 5.2 does the program give up?

# %%
run("boot -hda missing.img --trace missing.trace")
run(
    "trace show missing.trace --from drive_init --depth 4 --only 'bdrv_*' --only 'find_*' --only drive_init --args"
)
