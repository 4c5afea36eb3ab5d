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
#     exercise: 6
# ---

# %% [markdown]
# # 6  Constructors; bdrv_open and bdrv_close
#
# > What does block_init() become, step by step? Who calls bdrv_register(), when, and in which order? Who calls
# > bdrv_open() and bdrv_close(), what do they call, and what becomes of the structures and the links between them?
#
# First a toy of your own, then the real source, then a run. About an hour.
#
# Replace the `...` in the cells with `check`. `hint("6.1")` helps, step by step. In a terminal:
# `studykvm exercise answer 6.4 bdrv_new`.

# %%
import shutil
import subprocess
from pathlib import Path

from studykvm.coursework import check, hint, predict
from studykvm.coursework.lab import picture, recorded, run
from tracer import load

# %% [markdown]
# ## Predict first
#
# A function with `__attribute__((constructor))` runs before main(). Two files have one each; the linker gets them as
# `a.o b.o`. Which runs first? And in a program linked in 2010?

# %%
predict("6.3", ...)

# %% [markdown]
# ## A toy
#
# Compile it, run it, change it: a second constructor, a priority, another order of the files.

# %%
Path("toy.h").write_text("""\
typedef void (*init_fn)(void);
void remember(init_fn fn, int type);
enum { BLOCK, DEVICE };
#define module_init(function, type) \\
    static void __attribute__((constructor)) do_init_ ## function(void) { remember(function, type); }
#define block_init(function) module_init(function, BLOCK)
""")
Path("one.c").write_text("""\
#include <stdio.h>
#include "toy.h"
static void one_init(void) { puts("one_init: now I may use everything"); }
block_init(one_init)
static void __attribute__((destructor)) bye(void) { puts("destructor of one.c, after main"); }
""")
Path("two.c").write_text("""\
#include <stdio.h>
#include "toy.h"
static void two_init(void) { puts("two_init: so may I"); }
block_init(two_init)
""")
Path("toy.c").write_text("""\
#include <stdio.h>
#include "toy.h"
static init_fn noted[8];
static int count;
void remember(init_fn fn, int type) { printf("a constructor notes number %d\\n", count); noted[count++] = fn; }
int main(void) {
    puts("main begins");
    for (int i = 0; i < count; i++) noted[i]();
    puts("main ends");
    return 0;
}
""")
if shutil.which("gcc"):
    for order in (["one.c", "two.c"], ["two.c", "one.c"]):
        subprocess.run(["gcc", "-o", "toy", "toy.c", *order], check=True)
        print(f"--- gcc toy.c {' '.join(order)}")
        print(subprocess.run(["./toy"], capture_output=True, text=True).stdout)
else:
    print("gcc is not here: apt-get install gcc libc6-dev")

# %% [markdown]
# Where does the program note what is to run before main()? In a section of pointers, one for each constructor:

# %%
if shutil.which("gcc") and shutil.which("objdump"):
    said = subprocess.run(["objdump", "-h", "toy"], capture_output=True, text=True).stdout
    for line in said.splitlines():
        if any(section in line for section in (".init_array", ".fini_array", ".ctors", ".dtors")):
            _, name, size, *_ = line.split()
            print(f"{name:<12} {int(size, 16)} bytes, {int(size, 16) // 8} pointers")

# %% [markdown]
# Two constructors and one destructor are yours, one of each the compiler's own.
#
# What does the preprocessor make of `block_init(two_init)`? Step by step: each time it knows one macro more. These are
# the lines of toy.h; module.h of the real program has nearly the same, and three kinds of modules.

# %%
macros = [
    "#define block_init(function) module_init(function, BLOCK)",
    "#define module_init(function, type) static void __attribute__((constructor))"
    " do_init_ ## function(void) { remember(function, type); }",
]
if shutil.which("gcc"):
    for known in range(3):
        text = "\n".join([*macros[:known], "block_init(two_init)"])
        out = subprocess.run(["gcc", "-E", "-P", "-"], input=text, capture_output=True, text=True).stdout
        print(f"{known} macros known:  {out.strip()}")

# %% [markdown]
# And in the real source, who hands something to register_module_init? Every file with a `block_init`, `device_init` or
# `machine_init` has such a constructor; here are those of the block drivers.

# %%
for line in run("callers register_module_init", quiet=True).splitlines():
    if "bdrv" in line:
        print(line)

# %% [markdown]
# ## Run and trace
#
# qemu-img registers all formats, too, before it does anything. A trace of `studykvm img info`:

# %%
Path("base.img").write_bytes(bytes(1 << 20))
run("img create -f qcow -b base.img overlay.img")
run("img info --trace info.trace overlay.img")
run("trace show info.trace --only 'do_qemu_init_bdrv_qc*' --only register_module_init --depth 2")

# %% [markdown]
# And who calls bdrv_register()? Not the constructors themselves:

# %%
picture("graph bdrv_register --callers --depth 1", "register.svg")

# %% [markdown]
# ### 6.1
# Before main() begins, the constructor of qcow.c runs. **By which way of calls does it reach find_type()?**

# %%
check("6.1", ...)

# %% [markdown]
# ### 6.2
# In main() the noted functions are called. **By which way does the emulator's main() reach bdrv_register() for the
# first driver?** (The tools go another way than the emulator: look at a trace of `studykvm boot`, or at d01.)

# %%
recorded("d01", 1166, 1169)

# %%
check("6.2", ...)

# %% [markdown]
# ### 6.3
# **In which order does module_call_init() call the init functions** of the machine and of the block drivers? Compare
# with your toy. Today constructors stand in a section .init_array, which is run from its first entry to its last; in
# 2010 they stood in .ctors, which was run the other way round. What does that do to an order of files in a Makefile?

# %%
check("6.3", ...)

# %% [markdown]
# The order matters: bdrv_register() puts a driver in front of the others, and find_image_format() asks them from the
# front. Which is asked first?
#
# ## bdrv_open and bdrv_close
#
# What does bdrv_open() call in the source, and what did it in the run? `callers` asks the other way round.

# %%
run("callees bdrv_open")
run("io -c 'open overlay.img' -c 'close' --trace io.trace")
run("trace show io.trace --from bdrv_open --depth 3 --args")

# %%
picture("draw io.trace --from bdrv_open --depth 4", "bdrv_open.svg")

# %% [markdown]
# And bdrv_close(): what it calls, in a run of qemu-io, and who could call it, in the source.

# %%
picture("draw io.trace --from bdrv_close --depth 2", "bdrv_close.svg")

# %%
picture("graph bdrv_close --callers --depth 1 --program system", "closers.svg")

# %% [markdown]
# ### 6.4
# **Which functions of the source call bdrv_open()?**

# %%
check("6.4", ...)

# %% [markdown]
# ### 6.5
# **Which functions call bdrv_close() in a boot**, from start to quit?

# %%
check("6.5", ...)

# %% [markdown]
# ## The structures and their links
#
# When qcow_open() returns, and when the overlay is about to be closed:

# %%
picture("structures io.trace --at qcow_open:exit", "opened.svg")

# %%
picture("structures io.trace --at bdrv_close:enter#3", "closing.svg")

# %% [markdown]
# Two files had been closed before, after their formats were found out; so this is the third call. What is left of the links
# when it returns? Draw it: `bdrv_close:exit#3`. Every change on the way: `structures io.trace --at bdrv_close#3 --frames closing`.
#
# ### 6.6
# **What does qcow_open() return** for a qcow image, for a file without its magic, for a missing file? A format that is named
# is not found out by probing, so that qcow_open() gets every file to see: `boot -drive file=base.img,format=qcow --trace
# forced.trace`, and then `trace show forced.trace --only qcow_open --args`.

# %%
check("6.6", {"success": ..., "wrong magic": ..., "missing file": ...})

# %% [markdown]
# ### 6.7
# **What do bs->drv and bs->opaque hold when bdrv_close(bs) has returned?**

# %%
check("6.7", {"drv after bdrv_close": ..., "opaque after bdrv_close": ...})

# %% [markdown]
# ## Change something and see
#
# Spoil the first byte of the overlay and open it again. Nobody complains: what is it taken for, and why?

# %%
with open("overlay.img", "r+b") as image:
    image.write(b"X")
run("img info overlay.img")
run("io -c 'open overlay.img' -c 'length' --trace spoilt.trace")
print(sum(1 for _ in load("spoilt.trace").calls(function="*_probe")), "probes were asked")
