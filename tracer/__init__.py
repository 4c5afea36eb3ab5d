"""The tracer: records calls and structure changes of a modelled C program, and reads them back.

- `traced`, `Struct`, `symbol`, `free`: what the model uses.
- `record(path)`: records; `load(path)`: reads.
- `registry()`: everything traced; `recording()`: does a trace run?
"""

from tracer.errors import DamagedTraceError, TracerError, TracerWarning
from tracer.fileformat import FunctionInfo
from tracer.functions import TracedFunction, registry, traced
from tracer.recorder import record
from tracer.session import free, recording
from tracer.structs import Struct, symbol
from tracer.trace import Call, Trace, load

__all__ = [
    "Call",
    "DamagedTraceError",
    "FunctionInfo",
    "Struct",
    "Trace",
    "TracedFunction",
    "TracerError",
    "TracerWarning",
    "free",
    "load",
    "record",
    "recording",
    "registry",
    "symbol",
    "traced",
]
