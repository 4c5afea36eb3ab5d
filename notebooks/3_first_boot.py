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
# configure writes two files of decisions, make reads them. You will see them through what they leave: the index of the
# real source, in which each function knows the programs it is in. About an hour.

# %%
import re
import shutil
import struct
import subprocess
from pathlib import Path

import graphs
from studykvm.coursework import check, hint, predict
from studykvm.coursework.lab import bars, picture, recorded, run
from studykvm.guests import write_demo_disk
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
# ## What was built

# %%
source = graphs.open()
print(source)
sizes = {}
for _, data in source.nodes(data=True):
    for program in data["programs"]:
        sizes[program] = sizes.get(program, 0) + 1
bars(sizes)

# %% [markdown]
# Some files exist twice in spirit: the tools have no main loop, no monitor, no clock, and still the block layer calls for
# them. Who offers `qemu_bh_new` in which program?

# %%
for node, data in source.nodes(data=True):
    if data["name"] in ("qemu_bh_new", "monitor_printf", "qemu_get_clock"):
        print(f"{node:<32} {', '.join(data['programs'])}")

# %% [markdown]
# ### 3.1
# **Into which programs goes each of these files?**

# %%
check("3.1", {"block/qcow.c": ..., "qemu-tool.c": ..., "vl.c": ..., "qemu-io.c": ...})

# %% [markdown]
# ## A disk, a boot medium, the first boot
#
# The first sector of a disk is a program, if its last two bytes say so.

# %%
write_demo_disk("disk.img")
sector = Path("disk.img").read_bytes()[:512]
print(sector[:16].hex(" "), "...", sector[510:].hex(" "))
run("img info disk.img")
run("boot -hda disk.img --trace boot.trace")

# %%
picture("draw boot.trace --from main --depth 2 --boxes 40", "main.svg")

# %% [markdown]
# ### 3.2
# **By which way of calls does main() of the real program come to cpu_x86_exec(), which runs the guest's code?**

# %%
recorded("d01", 31332, 31338)
check("3.2", ...)

# %% [markdown]
# ## Before the guest's first instruction
#
# All requests to the disk, with where they come from:

# %%
boot = load("boot.trace")
started = next(boot.calls(function="vm_start")).step
for call in boot.calls():
    asked = call.function == "bdrv_read" and call.parent.function != "bdrv_pread"
    if asked or (call.function.startswith("bdrv_aio_") and call.parent.function == "dma_bdrv_cb"):
        when = "before" if call.step < started else "after"
        sector = shown(call.args["sector_num"])
        print(
            f"{call.step:>6} {when} vm_start: {call.function}(sector_num={sector}) in {call.parent.function}"
        )

# %%
picture("draw boot.trace --from ide_init_drive --depth 6", "geometry.svg")

# %% [markdown]
# ### 3.3
# **By which way of calls does ide_init_drive() come to bdrv_read()?**

# %%
check("3.3", ...)

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

# %%
modules = Path("/usr/lib/grub/i386-pc")
if modules.is_dir() and shutil.which("grub-mkimage"):
    Path("grub.cfg").write_text("serial\nterminal_output serial\necho GRUB is here\nls\n")
    used = ["biosdisk", "part_msdos", "serial", "terminal", "echo", "ls"]
    make = ["grub-mkimage", "-O", "i386-pc", "-p", "/boot", "-c", "grub.cfg", "-o", "core.img", *used]
    subprocess.run(make, check=True)
    table = struct.pack("<BxxxBxxxII", 0x80, 6, 2048, 2048) + bytes(48)
    first = (modules / "boot.img").read_bytes()[:440].ljust(446, b"\0") + table + b"\x55\xaa"
    Path("grub.img").write_bytes((first + Path("core.img").read_bytes()).ljust(4 << 20, b"\0"))
    bios = "-bios seabios" if Path("/usr/share/seabios").is_dir() else ""
    command = f"boot {bios} -hda grub.img -nographic -monitor stdio -serial file:grub.txt --trace grub.trace"
    run(command, typed=[("grub.txt", "grub>"), "info blockstats", "quit"])
    print(re.sub(r"\x1b(\[[^A-Za-z]*[A-Za-z]|c)", "", Path("grub.txt").read_text(errors="replace")))
    reads = sum(1 for _ in load("grub.trace").calls(function="ide_sector_read"))
    print(reads, "sectors were read until GRUB had loaded itself, each by a port and not by DMA")
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
