"""The whole model, imported: what it can do, whether a program used it or not.

- `load_model()`: its traced functions.
- `witnesses(trace, ...)`: its trace beside the real source, and a recording; for notebooks, too.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from tracer import TracedFunction, registry

if TYPE_CHECKING:
    from graphs.calls import Name
    from graphs.recordings import Recording
    from graphs.witnesses import Call, Witnesses
    from tracer import Trace


def load_model() -> list[TracedFunction]:
    """Import every module of the model and return all its traced functions, and no others."""
    import hypervisor

    for module in pkgutil.walk_packages(hypervisor.__path__, "hypervisor."):
        importlib.import_module(module.name)
    return [function for function in registry() if function.module.startswith("hypervisor.")]


def heard() -> tuple[set[Name], set[Name]]:
    """Return the functions that the tracer hears of, and those of the model that it does not."""
    from hypervisor import trace_io

    loud = {(function.file, function.name) for function in load_model()}
    quiet = {(function.__globals__["C_FILE"], function.__name__) for function in trace_io.waiting()}
    return loud, quiet - loud


def witnesses(
    trace: Trace | list[Call], recording: Recording | str | None = None, index: str | None = None
) -> Witnesses:
    """Lay a trace of the model beside the real source, and a recording of the real program.

    Parameters
    ----------
    trace : Trace or list of Call
        The model's trace, or its calls (`graphs.witnesses.traced`).
    recording : Recording or str, optional
        A recording, or the name of one that ships.
    index : str, optional
        An index of the source; by default qemu-kvm 0.12.4's, which ships.
    """
    from graphs import recordings
    from graphs.witnesses import lay, open_source, traced

    calls = trace if isinstance(trace, list) else traced(trace)
    if isinstance(recording, str):
        recording = recordings.load(recording)
    return lay(calls, open_source({callee for _, callee, _ in calls}, index), *heard(), recording)
