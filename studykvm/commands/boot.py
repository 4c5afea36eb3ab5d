"""`studykvm boot`: boot a guest from an image, in QEMU's spelling.

Everything but `--trace-io` and `--modern` is an option of qemu-kvm 0.12.4. Afterwards the text screen is
printed, unless -nographic showed it all along, and on stderr what the run met of the real program's oddities.
"""

import os
import sys


def main(argv: list[str]) -> int:
    """Boot.

    Parameters
    ----------
    argv : list of str
        Options in QEMU's spelling.

    Returns
    -------
    int
        0 when the guest, the monitor or a signal ended the run; 1 for wrong options, images that do not
        open, a machine that could not go on, and one whose disk requests failed, whatever ended it.
    """
    from hypervisor import bios, trace_io, wording
    from hypervisor.boot import run_boot

    if "--modern" in argv:
        argv = [word for word in argv if word != "--modern"]
        os.environ[wording.VARIABLE] = "modern"
    if "--trace-io" in argv:
        argv = [word for word in argv if word != "--trace-io"]
        trace_io.enable()
    try:
        result = run_boot(argv)
    finally:
        if "-nographic" not in argv and bios.screen_text():
            print(bios.screen_text(), flush=True)
    for failure in result.failures:
        print(f"studykvm: {failure}", file=sys.stderr)
    _print_notes(result.notes)
    return result.status


def _print_notes(notes: dict[str, str]) -> None:
    """Say on stderr what the reader may wonder about."""
    if not notes:
        return
    import textwrap

    print("\nWhat the real qemu-kvm 0.12.4 does, too, and you might not expect:", file=sys.stderr)
    for text in notes.values():
        print(textwrap.fill(text, 100, initial_indent="- ", subsequent_indent="  "), file=sys.stderr)
