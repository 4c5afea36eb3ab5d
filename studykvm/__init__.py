"""studykvm: understand QEMU and KVM from the inside.

The face of the project: the `studykvm` command (`cli`, one module a command in
`commands/`) over three libraries that also serve on their own: `tracer`, `hypervisor`, `graphs`.
"""

__version__ = "0.1.0"
