"""How a migration went, turn by turn, from the trace of its source.

- `turns(trace) -> list[Turn]`: what each call of ram_save_live sent and left.
- `downtime(trace)`: how long the machine stood.
- `draw(turns, path, stood)`: as bars with their numbers, the downtime marked; SVG or PNG.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphs.errors import GraphsError

if TYPE_CHECKING:
    from tracer.trace import Trace

_MOST = 22
"""Turns that have room for names and numbers."""
_WIDE = 50
"""From how many times the least to the most an axis counts by powers of ten."""
_STAGES = {1: "all", 2: "again", 3: "rest"}


@dataclass
class Turn:
    """One turn.

    Parameters
    ----------
    stage : int
        1 all pages, 2 those that changed, 3 the rest with the machine stopped.
    begin, end : float
        Seconds since the first turn began.
    whole, duplicate : int
        Pages sent whole, and as one byte.
    dirty : int
        Pages found changed when the turn began.
    left : int
        Pages still to be sent when it ended.
    """

    stage: int
    begin: float
    end: float = 0.0
    whole: int = 0
    duplicate: int = 0
    dirty: int = 0
    left: int = 0

    @property
    def sent(self) -> int:
        """Pages sent."""
        return self.whole + self.duplicate


def turns(trace: Trace) -> list[Turn]:
    """Find the turns of the last migration in a trace.

    Raises
    ------
    GraphsError
        The trace has none.
    """
    found: list[Turn] = []
    turn: Turn | None = None
    depth = zero = 0
    for call in trace.calls():
        if turn is not None and call.depth <= depth:
            turn = None
        if call.function == "ram_save_live" and call.args["stage"] > 0:
            if call.args["stage"] == 1:
                found, zero = [], call.t_enter
            turn, depth = Turn(call.args["stage"], (call.t_enter - zero) / 1e9), call.depth
            turn.end = ((call.t_exit or call.t_enter) - zero) / 1e9
            found.append(turn)
        elif turn is not None and call.function == "is_dup_page":
            turn.duplicate += call.ret == 1
            turn.whole += call.ret == 0
        elif turn is not None and call.function == "ram_save_remaining":
            turn.left = int(call.ret)
    if not found:
        raise GraphsError("no machine was saved in this trace: ram_save_live was never called")
    left = 0
    for turn in found:
        turn.dirty = turn.left + turn.sent - left
        left = turn.left
    return found


def downtime(trace: Trace) -> float | None:
    """Seconds from stopping the machine to the end of its stream, in the last migration of a trace."""
    begun = taken = None
    for call in trace.calls():
        if call.function == "vm_stop":
            begun = call.t_enter
        elif call.function == "migrate_fd_cleanup" and begun is not None:
            taken = ((call.t_exit or call.t_enter) - begun) / 1e9
            begun = None
    return taken


def draw(found: list[Turn], path: str, stood: float | None = None) -> None:
    """Draw the turns: what was sent above, what was left below.

    Parameters
    ----------
    stood : float, optional
        Seconds for which the machine stood; where it did is marked in any case.

    Raises
    ------
    GraphsError
        matplotlib is missing, or the file's name ends in something else.
    """
    if not path.endswith((".svg", ".png")):
        raise GraphsError(f"{path}: a chart is an .svg or a .png")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise GraphsError("charts need matplotlib: pip install 'studykvm[chart]'") from error
    figure = Figure(figsize=(min(max(8.0, 0.7 * len(found) + 4), 18.0), 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    places = list(range(1, len(found) + 1))
    _bars(above, places, [turn.whole for turn in found], -0.2, "#3182bd", "sent whole")
    _bars(above, places, [turn.duplicate for turn in found], 0.2, "#9ecae1", "sent as one byte each")
    _bars(below, places, [turn.dirty for turn in found], -0.2, "#e6550d", "found changed, to be sent")
    _bars(below, places, [turn.left for turn in found], 0.2, "#31a354", "remaining at the end of the turn")
    last = [at for at, turn in zip(places, found, strict=True) if turn.stage == 3]
    for axes in (above, below):
        if last:
            band = "the machine stands" + (f" ({stood * 1000:.1f} ms)" if stood is not None else "")
            axes.axvspan(
                last[0] - 0.5, last[-1] + 0.5, color="#fdd0a2", alpha=0.5, zorder=0, linewidth=0, label=band
            )
        axes.set_ylabel("pages of 4 KiB")
        axes.margins(x=0.02)
    sent = sum(turn.sent for turn in found)
    figure.suptitle(f"{sent:,} pages sent in {len(found)} turns, {found[-1].end:.3f} s", fontsize=11)
    step = -(-len(found) // _MOST)
    labels = [f"{_STAGES[turn.stage]}\n{turn.begin * 1000:,.0f} ms" for turn in found]
    # Backwards, so that the last one has its name.
    below.set_xticks(places[::-step], labels[::-step], fontsize=8)
    below.set_xlabel("turn, and when it began")
    for axes in (above, below):
        axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    figure.savefig(path)


def _bars(axes: Any, places: list[int], values: list[int], shift: float, colour: str, label: str) -> None:
    """Draw bars with their numbers, beside others."""
    bars = axes.bar([place + shift for place in places], values, 0.4, color=colour, label=label)
    if len(places) <= _MOST:
        names = [f"{value:,}" for value in values]
        axes.bar_label(bars, names, fontsize=7, padding=1, rotation=90 if len(places) > 12 else 0)
    seen = [height for bar in axes.patches if (height := bar.get_height()) > 0]
    if seen and max(seen) > _WIDE * min(seen):
        # Linear up to one, so that nothing at all has its place.
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(0, max(seen) * 8)
    elif seen:
        axes.set_ylim(0, max(seen) * 1.25)
    # Setting a scale sets a format of its own.
    axes.yaxis.set_major_formatter("{x:,.0f}")
