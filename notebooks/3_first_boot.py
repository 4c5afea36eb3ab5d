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
#     exercise: 3
# ---

# %% [markdown]
# # 3  Building, and the first boot
#
# > Build QEMU. What do configure and make decide, and which programs come of it? Make a disk image and a boot medium,
# > and boot for the first time. What happens before the guest's first instruction, and what is the first thing it
# > reads?
#
# You will see what configure and make decide through what they leave: the index of the real source was built by the
# same decisions, and in it each function knows the programs it is in. About an hour.
#
# Replace the `...` in the cells with `check`. `hint("3.1")` helps, step by step. In a terminal:
# `studykvm exercise answer 3.2 'main -> main_loop'`.

# %%
import re
import shutil
import struct
import subprocess
from pathlib import Path

import graphs
from graphs.index import profile
from studykvm.coursework import check, hint, predict
from studykvm.coursework.lab import bars, picture, recorded, run
from studykvm.guests import write_boot_cd, write_demo_disk
from tracer import load
from tracer.values import show as shown

# %% [markdown]
# ## Predict first
#
# make builds an emulator and three tools from one tree. Which files are in all of them? And when you boot: who reads the
# disk first, the guest or QEMU?

# %%
predict("3.1", ...)
predict("3.4", ...)

# %% [markdown]
# ## What configure decides
#
# configure looks at the host and writes config-host.mak, and for each target a config-target.mak. make turns both into
# headers. These are the headers by which the index was built. Which of their lines would be others on your machine?

# %%
source = graphs.open()
build = profile.load(source.graph["profile"]).data
for header, text in build["scratch"].items():
    print(f"--- {header}\n{text.strip().replace('{version}', '0.12.4')}")

# %% [markdown]
# A decision takes effect where the source asks for it. CONFIG_LINUX_AIO was found; CONFIG_KVM is a matter of the target,
# and not of the tools. Which programs have the functions that these decisions let in?

# %%
for node, data in source.nodes(data=True):
    if data["name"] in ("laio_submit", "kvm_run"):
        print(f"{node:<32} {', '.join(data['programs'])}")

# %% [markdown]
# ## What make decides
#
# Which files are linked into which program: how many they are, and how many functions come of them.

# %%
for name, linked in build["sets"].items():
    files = linked["files"] + [file for part in linked["with"] for file in build["parts"][part]["files"]]
    print(f"{name:<7} {linked['program']:<19} {len(files):>3} C files")
sizes = {}
for _, data in source.nodes(data=True):
    for program in data["programs"]:
        sizes[program] = sizes.get(program, 0) + 1
bars(sizes)

# %% [markdown]
# The tools have no main loop, no monitor, no clock, and still the block layer calls for them. So some functions are there
# twice. Which of the two is in which program?

# %%
for node, data in source.nodes(data=True):
    if data["name"] in ("qemu_bh_new", "monitor_printf", "qemu_get_clock"):
        print(node)

# %% [markdown]
# ### 3.1
# **Into which programs goes each of these files?** `source.nodes[node]["programs"]` tells it of one function, as above.

# %%
check("3.1", {"block/qcow.c": ..., "qemu-tool.c": ..., "vl.c": ..., "qemu-io.c": ...})

# %% [markdown]
# ## A disk image, a boot medium, the first boot
#
# A new disk holds nothing. Whoever boots from it is told so, by the BIOS and not by QEMU.

# %%
run("img create -f raw empty.img 16M")
run("boot -hda empty.img")

# %% [markdown]
# So one boots from a medium first: a CD, whose block 17 names a catalog, which names the program to load (El Torito).

# %%
write_boot_cd("cd.img")
print(Path("cd.img").read_bytes()[17 * 2048 :][:30])
run("boot -hda empty.img -cdrom cd.img -boot d")

# %% [markdown]
# An installer would now write to the disk. Here is one with a small guest on it: its first sector is a program, if the
# last two bytes say so.

# %%
write_demo_disk("disk.img")
sector = Path("disk.img").read_bytes()[:512]
print(sector[:16].hex(" "), "...", sector[510:].hex(" "))
run("img info disk.img")
run("boot -hda disk.img --trace boot.trace")

# %% [markdown]
# main() prepares, and then there is only the loop:

# %%
picture("draw boot.trace --from main_loop --depth 2", "loop.svg")

# %% [markdown]
# ### 3.2
# **By which way of calls does main() of the real program come to cpu_x86_exec(), which runs the guest's code?** In its first
# turn the guest does not run yet:

# %%
recorded("d01", 31332, 31338)

# %%
check("3.2", ...)

# %% [markdown]
# ## Before the guest's first instruction
#
# Requests to the disk before and after the machine is set going by vm_start():

# %%
boot = load("boot.trace")
started = next(boot.calls(function="vm_start")).step
before, after = {}, {}
for call in boot.calls(function="bdrv_*"):
    if "sector_num" in call.args and call.function in ("bdrv_read", "bdrv_aio_readv", "bdrv_aio_writev"):
        counts = before if call.step < started else after
        counts[call.function] = counts.get(call.function, 0) + 1
print("before vm_start")
bars(before)
print("after vm_start")
bars(after)

# %% [markdown]
# So QEMU itself reads the disk before the guest does. What for? Somebody in here wants to know something of it; draw
# deeper to see who:

# %%
picture("draw boot.trace --from ide_init_drive --depth 2", "init.svg")

# %% [markdown]
# ### 3.3
# **By which way of calls does ide_init_drive() come to bdrv_read()?**

# %%
check("3.3", ...)

# %% [markdown]
# A request names what it wants. This one is the guest's only write:

# %%
write = next(boot.calls(function="bdrv_aio_writev"))
print(write.step, {name: shown(value) for name, value in write.args.items()})

# %% [markdown]
# ### 3.4
# **Which sector is the first that the running machine asks for, and how many sectors?**

# %%
check("3.4", {"sector": ..., "sectors": ...})

# %% [markdown]
# ### 3.5
# **Which functions does bdrv_guess_geometry() call itself**, for the first disk?

# %%
check("3.5", ...)

# %% [markdown]
# ## A guest nobody here wrote
#
# Debian's SeaBIOS instead of the built-in BIOS, and GRUB on the disk, if they are installed (`apt-get install seabios
# grub-pc-bin grub-common`). The disk: GRUB's first sector, and behind it GRUB's core with a script built in.
#
# It reads hundreds of sectors, and still `info blockstats` says 0. Who counts? `studykvm xref rd_bytes` names the lines;
# bdrv_read() is not among them.

# %%
modules = Path("/usr/lib/grub/i386-pc")
if modules.is_dir() and shutil.which("grub-mkimage") and Path("/usr/share/seabios").is_dir():
    Path("grub.cfg").write_text("serial\nterminal_output serial\necho GRUB is here\nls\n")
    used = ["biosdisk", "part_msdos", "serial", "terminal", "echo", "ls"]
    make = ["grub-mkimage", "-O", "i386-pc", "-p", "/boot", "-c", "grub.cfg", "-o", "core.img", *used]
    subprocess.run(make, check=True)
    table = struct.pack("<BxxxBxxxII", 0x80, 6, 2048, 2048) + bytes(48)
    first = (modules / "boot.img").read_bytes()[:440].ljust(446, b"\0") + table + b"\x55\xaa"
    Path("grub.img").write_bytes((first + Path("core.img").read_bytes()).ljust(4 << 20, b"\0"))
    command = (
        "boot -bios seabios -hda grub.img -nographic -monitor stdio -serial file:grub.txt --trace grub.trace"
    )
    run(command, typed=[("grub.txt", "grub>"), "info blockstats", "quit"])
    print(re.sub(r"\x1b(\[[^A-Za-z]*[A-Za-z]|c)", "", Path("grub.txt").read_text(errors="replace")))
    reads = [
        c for c in load("grub.trace").calls(function="bdrv_read") if c.parent.function == "ide_sector_read"
    ]
    print(len(reads), "sectors were read until GRUB had loaded itself, each through a port and not by DMA")
else:
    print("GRUB is not here: apt-get install grub-pc-bin grub-common seabios")

# %% [markdown]
# ## Change something and see
#
# Spoil the two last bytes of the first sector. Who complains, QEMU or the BIOS? How many requests are there now?

# %%
with open("disk.img", "r+b") as disk:
    disk.seek(510)
    disk.write(b"\0\0")
run("boot -hda disk.img --trace spoilt.trace")
asked = sum(1 for _ in load("spoilt.trace").calls(function="bdrv_aio_readv"))
print("requests for reading now:", asked, "instead of", after["bdrv_aio_readv"])
