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

# %%
import os
from pathlib import Path

from studykvm.coursework import check, exits, hint, predict
from studykvm.coursework.lab import bars, picture, recorded, run, stacks

# %% [markdown]
# ## Predict first
#
# A guest that only computes runs about as fast as without a machine around it. A guest that writes to a port must leave
# its processor each time, and something outside serves it. What does one such exit cost: nanoseconds, microseconds,
# milliseconds? Does KVM make it cheaper than a translator such as unicorn (QEMU's TCG) does?

# %%
predict("2.4", ...)
predict("2.5", ...)

# %% [markdown]
# ## Words
#
# A virtual machine offers an interface that another layer implements. It matters which interface: that of a system's
# calls (one program runs in it), or that of a whole machine (an operating system runs in it). And it matters who has the
# hardware.

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
# ### 2.1
# **Where do Xen, Hyper-V, ESX, KVM and OpenVZ belong: classic VMM, hosted VMM, or neither?**

# %%
check("2.1", {"Xen": ..., "Hyper-V": ..., "ESX": ..., "KVM": ..., "OpenVZ": ...})

# %% [markdown]
# ### 2.2
# **Process VM or system VM?**

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

# %%
flags = []
if Path("/proc/cpuinfo").exists():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line.split()[2:] for line in lines if line.startswith("flags")), [])
print(
    len(flags),
    "flags, among them",
    [flag for flag in flags if flag in ("vmx", "svm", "hypervisor", "ept", "npt")],
)
print(
    "/dev/kvm:", os.path.exists("/dev/kvm"), "and you may use it:", os.access("/dev/kvm", os.R_OK | os.W_OK)
)
print(
    "modules:",
    [name for name in ("kvm_intel", "kvm_amd", "kvm_pvm", "kvm") if os.path.isdir(f"/sys/module/{name}")],
)

# %% [markdown]
# ### 2.3
# **What does it offer?** The flag of its processor (vmx, svm or none), whether there is /dev/kvm, and whether it is itself
# a guest.

# %%
check("2.3", {"flag": ..., "/dev/kvm": ..., "inside a machine": ...})

# %% [markdown]
# ## The cost of one exit
#
# A guest of a few bytes: it writes to port 80h again and again. Its code, and what a million of these writes take:

# %%
print(exits.guest(1_000_000)[:12].hex(" "), " mov ecx, 1000000; out 80h, al; dec ecx; jnz")
Path("exits.img").write_bytes(exits.guest(1_000_000).ljust(1 << 20, b"\0"))
run("boot -net none -m 4 -hda exits.img --trace exits.trace", quiet=True)
Path("none.img").write_bytes(exits.guest(1).ljust(1 << 20, b"\0"))

# %%
import time


def seconds(command: str) -> float:
    """How long a command of studykvm takes."""
    start = time.perf_counter()
    run(command, quiet=True)
    return time.perf_counter() - start


few = seconds("boot -net none -m 4 -hda none.img")
many = seconds("boot -net none -m 4 -hda exits.img")
bars({"one write, ms": round(few * 1000), "a million, ms": round(many * 1000)})

# %% [markdown]
# ### 2.4 and 2.5
# **How many microseconds does one exit cost, with unicorn and with KVM?** `exits.cost("kvm")` does for KVM what you did by
# hand; where this machine has none, it gives None, and any number will do.

# %%
check("2.4", ...)

# %%
check("2.5", ...)

# %% [markdown]
# ## KVM in the source
#
# What happens around the ioctl: who calls whom, as the source of qemu-kvm 0.12.4 has it.

# %%
picture("graph kvm_cpu_exec --depth 2 --boxes 40", "kvm.svg")

# %% [markdown]
# And as it happened: recording d02 is of the real program with KVM, d01 of the same boot without.

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
# does the difference tell about the code that most programs consist of?

# %%
inside = bytearray(exits.guest(1_000_000))
inside[6:8] = b"\x90\x90"  # nop; nop, where out 80h, al was
Path("inside.img").write_bytes(inside.ljust(1 << 20, b"\0"))
bars(
    {
        "writes, ms": round(many * 1000),
        "nothing to serve, ms": round(seconds("boot -net none -m 4 -hda inside.img") * 1000),
    }
)
