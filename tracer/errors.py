"""Errors of the tracer.

- `TracerError`: anything the user can mend: a bad file, a bad declaration, a filter that matches nothing.
- `DamagedTraceError`: the file is no trace that this version can read.
- `TracerWarning`: a recording that could not be written to its end.
"""


class TracerError(Exception):
    """A situation that the message names, with the offending value and the next step."""


class DamagedTraceError(TracerError):
    """A file that is not a readable trace: foreign, empty, too new or damaged from its first byte."""


class TracerWarning(RuntimeWarning):
    """A recording is incomplete; the program it watched is not affected."""
