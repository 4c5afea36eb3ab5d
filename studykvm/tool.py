"""Run one of QEMU's tools in this process.

- `run_tool(program, argv) -> int`: start the program, call its main, end it.
"""

import os
import sys

from hypervisor import wording
from hypervisor.program import program


def run_tool(name: str, argv: list[str]) -> int:
    """Run qemu-img or qemu-io.

    Parameters
    ----------
    name : str
        The program, which is also what it calls itself.
    argv : list of str
        Its arguments; ``--modern`` among them chooses the words of QEMU 7.2.

    Returns
    -------
    int
        The exit status. Errors may leave by SystemExit instead.
    """
    if "--modern" in argv:
        argv = [word for word in argv if word != "--modern"]
        os.environ[wording.VARIABLE] = "modern"
    # qemu-tool.c runs a bottom half at once: a long read of nothing is a call in a call in a call.
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 1_000_000))
    with program(name):
        if name == "qemu-img":
            from hypervisor import qemu_img as tool
        else:
            from hypervisor import qemu_io as tool  # type: ignore[no-redef]
        return tool.main([name, *argv])
