"""Sound captured into files: a part of monitor.c, and of audio/wavcapture.c.

The model's machine makes no sound, so a file has its header and nothing else, as 0.12.4's has without a
sound card.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from hypervisor.monitor import Arguments, Monitor, monitor_printf
from hypervisor.program import on_exit, on_reset
from tracer import Struct, traced

C_FILE = "monitor.c"


class WAVState(Struct):
    """`WAVState`: a file and what is put into it."""

    f: BinaryIO | None = None
    path: str = ""
    freq: int = 0
    bits: int = 0
    nchannels: int = 0


_captures: list[WAVState] = []


@on_reset
@on_exit
def _reset() -> None:
    while _captures:
        wav_destroy(_captures.pop())


def _header(freq: int, bits: int, nchannels: int) -> bytes:
    """The 44 bytes before the samples; how many there are is written at the end."""
    frame = bits // 8 * nchannels
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, nchannels, freq, freq * frame & 0xFFFFFFFF, frame, bits)
    return b"RIFF" + bytes(4) + b"WAVE" + form + b"data" + bytes(4)


@traced(file="audio/wavcapture.c")
def wav_destroy(opaque: WAVState) -> None:
    """Write how long the file is, and close it."""
    if opaque.f is not None:
        with opaque.f as f:
            f.seek(4)
            f.write(struct.pack("<I", 36))
        opaque.f = None


@traced(file="audio/wavcapture.c")
def wav_capture_info(opaque: WAVState, mon: Monitor) -> None:
    """Print what is captured."""
    form = (opaque.freq, opaque.bits, opaque.nchannels)
    monitor_printf(mon, "Capturing audio(%d,%d,%d) to %s: %d bytes\n", *form, opaque.path, 0)


@traced(file="audio/wavcapture.c")
def wav_start_capture(mon: Monitor, s: WAVState, path: str, freq: int, bits: int, nchannels: int) -> int:
    """Begin a file; 0, or -1 after a message."""
    if bits not in (8, 16):
        monitor_printf(mon, "incorrect bit count %d, must be 8 or 16\n", bits)
        return -1
    if nchannels not in (1, 2):
        monitor_printf(mon, "incorrect channel count %d, must be 1 or 2\n", nchannels)
        return -1
    try:
        s.f = open(path, "wb")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        monitor_printf(mon, "Failed to open wave file `%s'\nReason: %s\n", path, why)
        return -1
    s.f.write(_header(freq & 0xFFFFFFFF, bits, nchannels))
    s.path, s.freq, s.bits, s.nchannels = path, freq, bits, nchannels
    return 0


@traced
def do_wav_capture(mon: Monitor, qdict: Arguments) -> None:
    """Obey `wavcapture`; one that fails is forgotten, which makes 0.12.4 crash later."""
    s = WAVState()
    form = (qdict.get("freq", 44100), qdict.get("bits", 16), qdict.get("nchannels", 2))
    if wav_start_capture(mon, s, qdict["path"], *form):
        monitor_printf(mon, "Faied to add wave capture\n")
    else:
        _captures.insert(0, s)


@traced
def do_stop_capture(mon: Monitor, qdict: Arguments) -> None:
    """Obey `stopcapture`."""
    if 0 <= qdict["n"] < len(_captures):
        wav_destroy(_captures.pop(qdict["n"]))


@traced
def do_info_capture(mon: Monitor) -> None:
    """Obey `info capture`."""
    for number, s in enumerate(_captures):
        monitor_printf(mon, "[%d]: ", number)
        wav_capture_info(s, mon)
