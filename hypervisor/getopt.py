"""GNU getopt, the way the tools call it: options and operands may come in any order.

Not a part of QEMU but of the C library, so nothing here is traced.

- `Getopt(argv, short, long={})`: iterate for (option, argument) pairs; afterwards
  `operands` holds the rest. A wrong option is reported on stderr in the C library's words
  and comes as ``("?", text)``; with a leading ``:`` in `short` nothing is printed and a
  missing argument comes as ``(":", text)``.
"""

import sys
from collections.abc import Iterator, Mapping


class Getopt:
    """One pass over a command line.

    Parameters
    ----------
    argv : list of str
        The words; ``argv[0]`` is the name that messages begin with.
    short : str
        `optstring`: letters, each followed by ``:`` if it takes an argument.
    long : mapping of str to str, optional
        Long names to what is yielded for them; a name that ends in ``=`` takes an argument.

    Examples
    --------
    >>> words = Getopt(["read", "-P", "0x5a", "0", "-q", "512"], "P:q")
    >>> list(words), words.operands
    ([('P', '0x5a'), ('q', None)], ['0', '512'])
    >>> list(Getopt(["img", "--form=raw"], "f:", {"format=": "f"}))
    [('f', 'raw')]
    """

    def __init__(self, argv: list[str], short: str, long: Mapping[str, str] | None = None) -> None:
        self._name, self._words = argv[0], argv[1:]
        self._quiet = short.startswith(":")
        self._short = short.lstrip(":")
        self._long = {name.rstrip("="): (value, name.endswith("=")) for name, value in (long or {}).items()}
        self.operands: list[str] = []

    def __iter__(self) -> Iterator[tuple[str, str | None]]:
        while self._words:
            word = self._words.pop(0)
            if word == "--":
                self.operands += self._words
                return
            if word.startswith("--") and self._long:
                yield self._long_option(word)
            elif word.startswith("-") and word != "-":
                yield from self._short_options(word)
            else:
                self.operands.append(word)

    def _wrong(self, kind: str, text: str, message: str) -> tuple[str, str]:
        if not self._quiet:
            print(f"{self._name}: {message}", file=sys.stderr)
            return "?", text
        return kind, text

    def _short_options(self, word: str) -> Iterator[tuple[str, str | None]]:
        for at, letter in enumerate(word[1:], 2):
            index = self._short.find(letter) if letter != ":" else -1
            if index < 0:
                yield self._wrong("?", word, f"invalid option -- '{letter}'")
            elif self._short[index + 1 : index + 2] != ":":
                yield letter, None
            elif word[at:]:
                yield letter, word[at:]
                return
            elif self._words:
                yield letter, self._words.pop(0)
                return
            else:
                yield self._wrong(":", word, f"option requires an argument -- '{letter}'")

    def _long_option(self, word: str) -> tuple[str, str | None]:
        name, equals, value = word[2:].partition("=")
        near = [name] if name in self._long else [n for n in self._long if n.startswith(name)]
        if not near:
            return self._wrong("?", word, f"unrecognized option '{word}'")
        if len({self._long[n] for n in near}) > 1:
            options = " ".join(f"'--{n}'" for n in near)
            return self._wrong("?", word, f"option '{word}' is ambiguous; possibilities: {options}")
        found, takes_value = self._long[near[0]]
        if not takes_value:
            if equals:
                return self._wrong("?", word, f"option '--{near[0]}' doesn't allow an argument")
            return found, None
        if equals:
            return found, value
        if self._words:
            return found, self._words.pop(0)
        return self._wrong(":", word, f"option '--{near[0]}' requires an argument")
