"""The compiler's own headers (stddef.h, stdarg.h ...), which the libclang wheel does not carry.

- `builtin_headers()`: a folder that has them, from a pip package if there is one, else from a compiler at
  hand.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from graphs.errors import GraphsError


def _from_packages() -> Iterator[Path]:
    for package, pattern in (("clang_tidy", "data/lib/clang/*/include"), ("ziglang", "lib/include")):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            yield from sorted(Path(folder).glob(pattern))


def _from_compilers() -> Iterator[Path]:
    for pattern in (
        "/usr/lib/llvm-*/lib/clang/*/include",
        "/usr/lib/clang/*/include",
        "/usr/lib64/clang/*/include",
    ):
        yield from sorted(Path("/").glob(pattern[1:]), reverse=True)
    for command in (["clang", "-print-file-name=include"], ["gcc", "-print-file-name=include"]):
        if shutil.which(command[0]):
            answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
            if answer:
                yield Path(answer)


@functools.cache
def builtin_headers() -> Path:
    """Folder with stddef.h and its like.

    Raises
    ------
    GraphsError
        when neither a package nor a compiler has them.
    """
    for source in (_from_packages, _from_compilers):
        for folder in source():
            if (folder / "stddef.h").is_file():
                return folder
    raise GraphsError(
        "no builtin C headers (stddef.h): pip install 'clang-tidy==18.1.8', or install clang or gcc"
    )
