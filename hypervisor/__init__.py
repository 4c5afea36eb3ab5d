"""The model of qemu-kvm 0.12.4: one module a C file, under QEMU's names.

- ``hypervisor.program.program(name)``: a process of one of the three programs
- ``hypervisor.qemu_img.main``, ``hypervisor.qemu_io.main``, ``hypervisor.vl.main``: their main()
- ``hypervisor.block``: block.c, what everything else opens and reads disks with
"""
