"""Words that several parts print: `counted(number, word)`."""


def counted(number: int, word: str) -> str:
    """A number with its noun.

    >>> counted(1, "call"), counted(1200, "call")
    ('1 call', '1,200 calls')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"
