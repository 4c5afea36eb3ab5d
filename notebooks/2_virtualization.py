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
#     exercise: 2
# ---

# %% [markdown]
# # 2  Virtualization, and what this machine offers
#
# > What is virtualization, what does one gain and lose by it? What is a process VM, what a system VM? What are a
# > classic and a hosted VMM? Where do Xen, Hyper-V, ESX, KVM and OpenVZ belong? What does your own machine offer?
#
# Half of this is words, half can be measured. Do both. About an hour.
#
# Replace the `...` in the cells with `check`. `hint("2.1")` helps, step by step. In a terminal:
# `studykvm exercise answer 2.7 b`.

# %%
import os
import textwrap
import time
from pathlib import Path

from studykvm.coursework import check, exits, hint, predict
from studykvm.coursework.lab import bars, picture, recorded, run, stacks

# %% [markdown]
# ## Predict first
#
# With a processor that helps, a guest that only computes runs about as fast as without a machine around it. A guest that
# writes to a port must leave its processor each time, and something outside serves it. What does one such exit cost:
# nanoseconds, microseconds, milliseconds? And in a translator such as unicorn, which is QEMU's TCG as a library?

# %%
predict("2.4", ...)
predict("2.5", ...)

# %% [markdown]
# ## Words
#
# A virtual machine offers an interface that another layer implements. It matters which interface: that of a system's
# calls (one program runs in it), or that of a whole machine (an operating system runs in it). And it matters who has the
# hardware: who schedules, who drives the disk.

# %%
stacks(
    {
        "a process VM": ["one program", "virtual machine", "operating system", "hardware"],
        "a classic VMM": ["programs", "guest's system", "VMM", "hardware"],
        "a hosted VMM": ["programs", "guest's system", "VMM", "operating system", "hardware"],
    }
)

# %% [markdown]
# What does one gain? Several systems on one machine, kept apart; a machine as a file, that is copied, stopped, moved. What
# does one lose? Speed at each exit, memory for each system, and a layer that must be trusted. Which of these do you find
# again in what you measure below?
#
# What is known of the five:
#
# - Xen: the boot loader loads it first. It starts a Linux, dom0, which has the drivers and asks it for further domains.
# - Hyper-V: a Windows is installed. Once Hyper-V is switched on, the boot loader loads it first, and that Windows goes
#   on as its first partition.
# - ESX: is installed on an empty machine, and brings a kernel of its own with drivers for disks and network.
# - KVM: a module of Linux. A guest is a process with a thread for each of its processors.
# - OpenVZ: a changed Linux. `uname -r` says the same in each of its environments, which have users, processes and files
#   of their own.
#
# ### 2.1
# **Where do Xen, Hyper-V, ESX, KVM and OpenVZ belong: classic VMM, hosted VMM, or neither?** Draw them first: what stands
# on what? Each `...` is a layer to be named, and you may add some.

# %%
stacks(
    {
        "Xen": ["programs", ..., ..., "hardware"],
        "Hyper-V": ["programs", ..., ..., "hardware"],
        "ESX": ["programs", ..., ..., "hardware"],
        "KVM": ["programs", ..., ..., "hardware"],
        "OpenVZ": ["programs", ..., ..., "hardware"],
    },
    "mine.svg",
)

# %%
check("2.1", {"Xen": ..., "Hyper-V": ..., "ESX": ..., "KVM": ..., "OpenVZ": ...})

# %% [markdown]
# ### 2.2
# **Process VM or system VM?** `qemu-x86_64` runs one program of Linux for x86_64 on another processor, and hands on its
# system calls.

# %%
check(
    "2.2",
    {
        "Java virtual machine": ...,
        "qemu-x86_64 (user mode)": ...,
        "qemu-system-x86_64": ...,
        "Xen guest": ...,
    },
)

# %% [markdown]
# ## This very machine
#
# What its first processor can do, as Linux tells it. `vmx` is the help of Intel's processors for virtual machines (VT-x),
# `svm` that of AMD's (AMD-V), `ept` and `npt` their second page tables; `hypervisor` is never set by a processor itself,
# but by what pretends to be one.

# %%
flags = []
if Path("/proc/cpuinfo").exists():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line.split()[2:] for line in lines if line.startswith("flags")), [])
print(textwrap.fill(" ".join(flags) or "no flags in /proc/cpuinfo", 110))

# %% [markdown]
# KVM shows itself as a device. Which kind it is, the module behind it tells, if the kernel lets you see it: kvm_intel and
# kvm_amd use the processor's help, kvm_pvm does without. Then a first guest under KVM; where there is none, QEMU's
# words and a boot without.

# %%
print("the devices: ", *sorted(str(path) for path in Path("/dev").glob("*kvm*")))
print("the modules: ", *sorted(path.name for path in Path("/sys/module").glob("kvm*")))
Path("one.img").write_bytes(exits.guest(1).ljust(1 << 20, b"\0"))
run("boot -net none -m 4 -hda one.img -enable-kvm")

# %% [markdown]
# ### 2.3
# **What does it offer?** The flag of its processor (vmx, svm or none), whether there is /dev/kvm, what executes a guest
# under it (the processor, software, or none if there is no KVM), and whether this machine is itself a guest.

# %%
check("2.3", {"flag": ..., "/dev/kvm": ..., "KVM": ..., "inside a machine": ...})

# %% [markdown]
# ## The cost of one exit
#
# A guest of a few bytes: it writes to port 80h again and again. Its code, and what a million of these writes take:

# %%
print(exits.guest(1_000_000)[:12].hex(" "), " mov ecx, 1000000; out 80h, al; dec ecx; jnz")
Path("million.img").write_bytes(exits.guest(1_000_000).ljust(1 << 20, b"\0"))
BOOT = "boot -net none -m 4 -hda"


def milliseconds(command: str) -> int:
    """How long a command of studykvm takes."""
    start = time.perf_counter()
    run(command, quiet=True)
    return round((time.perf_counter() - start) * 1000)


few, many = milliseconds(f"{BOOT} one.img"), milliseconds(f"{BOOT} million.img")
bars({"one write, ms": few, "a million, ms": many})

# %% [markdown]
# And under KVM, where this machine has one you may use: 40,000 writes, for each may cost more.

# %%
Path("many.img").write_bytes(exits.guest(40_000).ljust(1 << 20, b"\0"))
if os.access("/dev/kvm", os.R_OK | os.W_OK):
    few_kvm, many_kvm = (
        milliseconds(f"{BOOT} one.img -enable-kvm"),
        milliseconds(f"{BOOT} many.img -enable-kvm"),
    )
    bars({"one write under KVM, ms": few_kvm, "40,000 under KVM, ms": many_kvm})
else:
    print("no KVM that you may use")

# %% [markdown]
# ### 2.4 and 2.5
# **How many microseconds does one exit cost, with unicorn and with KVM?** `exits.cost("kvm")` does what you did by
# hand; where this machine has no KVM, it gives None, and any number will do.

# %%
check("2.4", ...)

# %%
check("2.5", ...)

# %% [markdown]
# Where does such an exit go? Under unicorn to a function that is called out of translated code: a trace of the million
# shows how seldom the loop around it was left. Under KVM each write ends the ioctl KVM_RUN.

# %%
run(f"{BOOT} million.img --trace million.trace", quiet=True)
run("trace stats million.trace --only cpu_x86_exec --only main_loop_wait")

# %% [markdown]
# ## KVM in the source
#
# What happens around the ioctl: who calls whom, as the source of qemu-kvm 0.12.4 has it.

# %%
picture("graph kvm_cpu_exec --depth 2 --boxes 40", "kvm.svg")

# %% [markdown]
# And as it happened: recording d02 is of the real program with KVM, d01 of the same boot without. A mark such as [t2]
# stands for a thread; the main one has none.

# %%
recorded("d02", 32433, 32445)

# %% [markdown]
# ### 2.6
# **By which way of calls does the thread of a vCPU come from ap_main_loop() to kvm_run()?**

# %%
check("2.6", ...)

# %% [markdown]
# ### 2.7
# **On which thread does the code of a guest run under KVM?**
#
# - a: on the main thread, in main_loop()
# - b: on a thread of its own for each vCPU
# - c: on the threads that read and write images

# %%
check("2.7", ...)

# %% [markdown]
# ## Change something and see
#
# A guest that computes instead: replace the write to the port by an instruction that stays inside, and time again. What
# does the difference tell about the code that most programs consist of? (The bars hold the start of the machine, too.)

# %%
inside = bytearray(exits.guest(1_000_000))
inside[6:8] = b"\x90\x90"  # nop; nop, where out 80h, al was
Path("inside.img").write_bytes(inside.ljust(1 << 20, b"\0"))
bars({"a million writes, ms": many, "nothing to serve, ms": milliseconds(f"{BOOT} inside.img")})
