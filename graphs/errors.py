"""Errors of graphs: evidence that cannot be read, compared or drawn."""


class GraphsError(Exception):
    """Base of all errors raised here; the message names the file or symbol and the next step."""
