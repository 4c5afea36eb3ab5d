"""`studykvm img`: the image tool, in qemu-img's own options and words.

- `main(argv) -> int`: ``create|info|check|commit|convert|snapshot|rebase|resize|compare|map ...``.
  ``--modern`` anywhere, or STUDYKVM_WORDING=modern, chooses the words of QEMU 7.2.
"""

from studykvm.tool import run_tool


def main(argv: list[str]) -> int:
    """Run qemu-img with `argv`, which does not hold its name."""
    return run_tool("qemu-img", argv)
