"""What notebooks try things out with; all of it works in a plain terminal, too.

- `run("img create ...", typed=[...])`: a command of studykvm, its output printed and returned
- `move(source, destination, typed)`: two machines at once
- `show("calls.svg")`: a picture, in the notebook; in a terminal its name
- `picture("draw boot.trace --from main", "calls.svg")`: both at once
- `bars({"new": 120, ...})`: sizes as bars, drawn in text
- `stacks({"classic": ["guest", "VMM", "hardware"]})`: what stands on what, as a picture
- `recorded("d01", 1455, 1470)`: lines of a recording of the real program
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from studykvm.errors import StudyError

SECONDS = 120
_SILENT = 20
Typed: TypeAlias = Sequence[str | tuple[str, str]]


class Said(str):
    """What a command said, printed already: a notebook does not show it once more."""

    def _ipython_display_(self) -> None:
        """Nothing."""


def run(command: str, typed: Typed = (), quiet: bool = False) -> Said:
    """Run a command of studykvm in a process of its own; print and return what it says.

    Parameters
    ----------
    typed : sequence
        What is typed at it, line by line. A pair (file, text) waits until that file, such as that of a
        serial line, has the text.

    Raises
    ------
    StudyError
        when the command, or a text that is waited for, takes too long.
    """
    process = _begin(command)
    text = _end(process, command, typed)
    if not quiet:
        print(f"$ studykvm {command}\n{text}".rstrip())
    return Said(text)


def move(source: str, destination: str, typed: Typed, after: Typed = ("quit",)) -> tuple[str, str]:
    """Run two machines at once: the destination first, in the background; print what both say.

    Parameters
    ----------
    source, destination : str
        Commands; ``{port}`` in them, and in what is typed, is a port that is free.
    typed, after : sequence
        What is typed at the source, and then at the destination.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    source, destination = source.replace("{port}", port), destination.replace("{port}", port)
    waiting = _begin(destination)
    try:
        # It listens when the first words of its monitor are there.
        first = _first_words(waiting)
        lines = [line.replace("{port}", port) if isinstance(line, str) else line for line in typed]
        said = run(source, lines)
    except BaseException:
        waiting.kill()
        raise
    answered = _end(waiting, destination, after, first)
    print(f"$ studykvm {destination}\n{answered}".rstrip())
    return said, answered


def _begin(command: str) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[2])
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": search}
    environment.pop("STUDYKVM_COURSEWORK_REPORT", None)
    return subprocess.Popen(
        [sys.executable, "-m", "studykvm", *shlex.split(command)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _end(process: subprocess.Popen[bytes], command: str, typed: Typed, before: bytes = b"") -> str:
    """Type, and wait for the end; what the process printed meanwhile."""
    assert process.stdin is not None
    try:
        # What is typed sooner is echoed before the monitor has said who it is.
        before = before or (_first_words(process) if typed else b"")
        for line in typed:
            if isinstance(line, tuple):
                _wait(process, *line)
            else:
                process.stdin.write(f"{line}\n".encode())
                process.stdin.flush()
        out, _ = process.communicate(timeout=SECONDS)
    except BrokenPipeError:
        out, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise StudyError(f"studykvm {command} took longer than {SECONDS} seconds and was stopped") from None
    finally:
        process.kill()
    return _plain((before + out).decode(errors="replace"))


def _first_words(process: subprocess.Popen[bytes]) -> bytes:
    """Wait until a process says something, or has nothing to say before it is told something."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _SILENT)
    return os.read(process.stdout.fileno(), 4096) if ready else b""


def _wait(process: subprocess.Popen[bytes], name: str, text: str) -> None:
    limit = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < limit:
        with contextlib.suppress(FileNotFoundError):
            if text in Path(name).read_text(errors="replace"):
                return
        time.sleep(0.05)
    if process.poll() is None:
        raise StudyError(f"{text!r} was not in {name} after {SECONDS} seconds; the machine was stopped")


def _plain(text: str) -> str:
    r"""Leave out how the monitor redraws its line at each letter.

    >>> _plain("(qemu) q\x1b[K\x1b[Dqu\x1b[K\n")
    '(qemu) qu\n'
    """
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if "\x1b[K" in line:
            prompt = line[: line.index("(qemu) ") + 7] if "(qemu) " in line else ""
            line = prompt + line.split("\x1b[D")[-1].replace("\x1b[K", "")
        lines.append(line)
    return "\n".join(lines)


def _fitting(svg: str) -> str:
    """Have a picture that is wider than a page made smaller, and not cut off, wherever it is embedded.

    >>> _fitting('<svg width="1400pt" height="700pt" viewBox="0 0 1400 700">')
    '<svg style="max-width:100%;height:auto" width="940" height="470" viewBox="0 0 1400 700">'
    """
    size = _SIZE.search(svg)
    wide = float(size["width"]) * (4 / 3 if size["unit"] else 1) if size else 0.0
    if size and wide > _PAGE:
        high = round(_PAGE * float(size["height"]) / float(size["width"]))
        svg = svg.replace(size[0], f'width="{_PAGE}" height="{high}"', 1)
    return re.sub(r"<svg\b(?![^>]*\bstyle=)", '<svg style="max-width:100%;height:auto"', svg, count=1)


_PAGE = 940
_SIZE = re.compile(r'width="(?P<width>[\d.]+)(?P<unit>pt)?"\s+height="(?P<height>[\d.]+)(?:pt)?"')


def show(name: str) -> None:
    """Show a picture that lies in the folder."""
    data = Path(name).read_bytes()
    if "IPython" in sys.modules:
        ipython, display = import_module("IPython"), import_module("IPython.display")
        if ipython.get_ipython() is not None:
            display.display(
                display.SVG(_fitting(data.decode())) if name.endswith(".svg") else display.Image(data)
            )
            return
    print(f"(picture: {Path(name).resolve()})")


def picture(command: str, name: str) -> None:
    """Draw by a command of studykvm that takes ``-o``, and show it.

    Raises
    ------
    StudyError
        When nothing was drawn, with what the command said.
    """
    said = run(f"{command} -o {shlex.quote(name)}")
    if not Path(name).exists():
        raise StudyError(f"nothing was drawn: {said.strip()}")
    show(name)


def bars(sizes: Mapping[str, int], width: int = 50) -> None:
    """Print numbers as bars.

    >>> bars({"new": 1, "written": 4}, 8)
    new      ██          1
    written  ████████    4
    """
    most, words = max([*sizes.values(), 1]), max(map(len, sizes))
    for name, value in sizes.items():
        bar = "█" * max(round(width * value / most), int(value > 0))
        print(f"{name:<{words}}  {bar:<{width}} {value:>{4 if most < 1000 else 14},}")


def stacks(piles: Mapping[str, Sequence[Any]], name: str = "stacks.svg") -> None:
    """Draw what stands on what, the lowest last, one pile beside the other; and show it.

    Parameters
    ----------
    piles : mapping
        Names of layers by pile; ``...`` is a layer that you have yet to name, drawn as a question mark.
    """
    from html import escape

    wide, high, gap = 150, 34, 24
    width = gap + len(piles) * (wide + gap)
    height = gap + (max(map(len, piles.values())) + 1) * high
    font = 'font-family="sans-serif" text-anchor="middle"'
    box = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" {box} {font}>']
    for column, (title, pile) in enumerate(piles.items()):
        x = gap + column * (wide + gap)
        middle, bottom = x + wide / 2, height - high
        for row, text in enumerate(reversed(pile), 1):
            y = bottom - row * high
            text = "?" if text is ... else str(text)
            fill = "#fff6d5" if text == "?" else "#e8e8e8" if row == 1 else "#d7e3f4"
            out.append(f'<rect x="{x}" y="{y}" width="{wide}" height="{high}" fill="{fill}" stroke="#456"/>')
            out.append(f'<text x="{middle}" y="{y + 21}" font-size="12">{escape(text)}</text>')
        out.append(f'<text x="{middle}" y="{bottom + 22}" font-size="13">{escape(title)}</text>')
    Path(name).write_text("\n".join([*out, "</svg>"]), "utf-8")
    show(name)


def recorded(name: str, first: int, last: int) -> None:
    """Print lines of a recording of the real qemu-kvm 0.12.4, indented by depth."""
    run(f"exercise evidence {name} {first}-{last}")
