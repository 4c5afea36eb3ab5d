"""`studykvm io`: the disk exerciser, in qemu-io's own options and words.

- `main(argv) -> int`: ``[-c command]... [options] [file]``; without ``-c`` it reads commands.
  ``--modern`` anywhere, or STUDYKVM_WORDING=modern, chooses the words of QEMU 7.2.
"""

from studykvm.tool import run_tool


def main(argv: list[str]) -> int:
    """Run qemu-io with `argv`, which does not hold its name."""
    return run_tool("qemu-io", argv)
