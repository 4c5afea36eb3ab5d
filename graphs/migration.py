"""How a migration went, turn by turn, from the trace of its source.

- `turns(trace) -> list[Turn]`: what each call of ram_save_live sent and left.
- `draw(turns, path)`: as bars and a line, with the downtime marked; SVG or PNG.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphs.errors import GraphsError

if TYPE_CHECKING:
    from tracer.trace import Trace

_STAGES = {1: "first", 2: "again", 3: "last"}


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


def draw(found: list[Turn], path: str) -> None:
    """Draw the turns.

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
    figure = Figure(figsize=(max(7.0, 0.5 * len(found) + 4), 4.5), layout="constrained")
    axes = figure.subplots()
    places = range(1, len(found) + 1)
    axes.bar(places, [turn.duplicate for turn in found], color="#9ecae1", label="sent as one byte")
    axes.bar(
        places,
        [turn.whole for turn in found],
        bottom=[turn.duplicate for turn in found],
        color="#3182bd",
        label="sent whole",
    )
    axes.plot(places, [turn.dirty for turn in found], "o", color="#e6550d", label="found changed")
    axes.plot(places, [turn.left for turn in found], "-s", color="#31a354", label="left")
    stopped = next((at for at, turn in enumerate(found, 1) if turn.stage == 3), None)
    if stopped is not None:
        last = found[stopped - 1]
        axes.axvspan(stopped - 0.5, len(found) + 0.5, color="#fdd0a2", alpha=0.5, zorder=0)
        axes.set_title(f"machine stopped: memory took {(last.end - last.begin) * 1000:.1f} ms", fontsize=10)
    axes.set_yscale("symlog")
    axes.set_xticks(list(places), [_STAGES[turn.stage] for turn in found], rotation=45)
    axes.set_xlabel("turn")
    axes.set_ylabel("pages of 4 KiB")
    figure.legend(loc="outside right upper", fontsize=8)
    figure.savefig(path)
