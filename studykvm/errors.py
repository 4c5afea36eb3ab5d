"""Errors of the face: what a user asked for cannot be done as asked."""


class StudyError(Exception):
    """A request that cannot be carried out; the message says why and what to do next."""
