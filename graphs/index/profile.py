"""How a family of source trees is read without configuring it: profiles, which are data (`profiles/*.toml`).

A profile names

    title           what the trees are called
    [detect]        file, pattern, also: which trees it is for
    [read]          flags, include folders, defines
    [scratch]       headers that configure would write, text by name; {version} is filled in
    [[generate]]    headers that the tree's own scripts write: command, stdin, output
    [pch]           headers that most files begin with
    [sets]          programs: which files are linked together, as globs or names
    [generated_code]    where code made at run time is entered, and what it may call

- `find(tree)`: the profile for a tree, None if no family knows it.
- `Profile.prepare(tree, scratch)`: write the scratch headers; never into the tree.
- `Profile.arguments(tree, scratch)`: the compiler's arguments.
- `Profile.files(tree)`: the C files and the programs each belongs to.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphs.errors import GraphsError
from graphs.index.builtin import builtin_headers

FOLDER = Path(__file__).parent / "profiles"


@dataclass
class Profile:
    """How to read the trees of one family.

    Attributes
    ----------
    name : str
        Family.
    data : dict
        The tables of its file.
    """

    name: str
    data: dict[str, Any] = field(default_factory=dict)

    def version(self, tree: Path) -> str:
        """What the tree says it is."""
        file = tree / str(self.data["detect"]["file"])
        return file.read_text(errors="replace").strip()

    def prepare(self, tree: Path, scratch: Path) -> list[str]:
        """Write the headers that configure and make would; what failed is returned as messages."""
        version = self.version(tree)
        for name, content in self.data.get("scratch", {}).items():
            target = scratch / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content.replace("{version}", version))
        from concurrent.futures import ThreadPoolExecutor

        # Each waits for a script of the tree: side by side. None needs what another one writes.
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            made = threads.map(
                lambda rule: self._generate(rule, tree, scratch), self.data.get("generate", [])
            )
            return [problem for problem in made if problem]

    def _generate(self, rule: dict[str, Any], tree: Path, scratch: Path) -> str:
        if "each" in rule:
            return self._generate_many(rule, tree, scratch)
        words = {"tree": str(tree), "scratch": str(scratch), "python": sys.executable}
        command = [word.format(**words) for word in rule["command"]]
        output = rule.get("output")
        if output:
            (scratch / output).parent.mkdir(parents=True, exist_ok=True)
        for folder in rule.get("folders", []):
            (scratch / folder).mkdir(parents=True, exist_ok=True)
        try:
            with (tree / rule["stdin"]).open("rb") if "stdin" in rule else open("/dev/null", "rb") as source:
                environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
                done = subprocess.run(
                    command,
                    stdin=source,
                    capture_output=True,
                    cwd=scratch,
                    env=environment,
                    timeout=120,
                    check=False,
                )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{output or command[0]} was not generated: {error}"
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().splitlines()
            last = reason[-1] if reason else f"exit status {done.returncode}"
            return f"{output or command[0]} was not generated: {last}"
        if output and not rule.get("writes"):
            (scratch / output).write_bytes(done.stdout)
            if not done.stdout:
                return f"{output} was generated empty: {' '.join(command)} wrote nothing"
        return ""

    def _generate_many(self, rule: dict[str, Any], tree: Path, scratch: Path) -> str:
        """Run one script of the tree for each file that a pattern finds, all in one process."""
        runs = []
        for path in sorted(tree.glob(rule["each"])):
            folder = path.parent.relative_to(tree).as_posix()
            group = "root" if folder == "." else re.sub(r"\W", "_", folder)
            words = {"path": str(path), "folder": folder, "group": group}
            target = scratch / rule["output"].format(**words)
            target.parent.mkdir(parents=True, exist_ok=True)
            runs.append([word.format(**words) for word in rule["arguments"]] + [str(target)])
        command = [sys.executable, str(Path(__file__).with_name("run_many.py")), str(tree / rule["script"])]
        # Without this the script's modules would be compiled into the tree.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(
                command, input=json.dumps(runs), capture_output=True, text=True, cwd=scratch, env=environment,
                timeout=300, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{rule['script']} could not be run: {error}"
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return f"{rule['script']} failed for {done.returncode} of {len(runs)} files: {last}"
        return ""

    def arguments(self, tree: Path, scratch: Path) -> list[str]:
        """Arguments for libclang, the scratch folder's headers before the tree's."""
        read = self.data["read"]
        words = ["-xc", *read.get("flags", []), "-nobuiltininc", "-isystem", str(builtin_headers())]
        words += ["-I", str(scratch)]
        for folder in read.get("include", []):
            words += ["-I", str(tree / folder)]
        for folder in read.get("scratch_include", []):
            words += ["-I", str(scratch / folder)]
        for header in read.get("preinclude", []):
            words += ["-include", str(tree / header)]
        for folder in read.get("include_last", []):
            words += ["-idirafter", str(tree / folder)]
        words += ["-idirafter", str(FOLDER / "stubs")]
        words += [f"-D{name}" for name in read.get("defines", [])]
        words += _pkg_config(read.get("packages", []))
        return words

    def files(self, tree: Path) -> dict[str, tuple[str, ...]]:
        """C files of the tree that are read, with the programs they are linked into."""
        found: dict[str, list[str]] = {}
        sets: dict[str, Any] = self.data["sets"]
        for name, rule in sets.items():
            members: list[str] = []
            for part in rule.get("with", []):
                members += self._members(self.data["parts"][part], tree)
            members += self._members(rule, tree)
            for path in members:
                programs = found.setdefault(path, [])
                if name not in programs:
                    programs.append(name)
        return {path: tuple(found[path]) for path in sorted(found)}

    def _members(self, rule: dict[str, Any], tree: Path) -> list[str]:
        out = []
        unwanted = set(rule.get("without", []))
        for pattern in rule.get("files", []):
            if any(sign in pattern for sign in "*?["):
                out += [p.relative_to(tree).as_posix() for p in sorted(tree.glob(pattern)) if p.is_file()]
            elif (tree / pattern).is_file():
                out.append(pattern)
        return [
            path for path in out if path not in unwanted and not any(Path(path).match(u) for u in unwanted)
        ]


def _pkg_config(packages: list[str]) -> list[str]:
    """Include folders of libraries, as far as they are installed."""
    words: list[str] = []
    for package in packages if shutil.which("pkg-config") else []:
        done = subprocess.run(
            ["pkg-config", "--cflags-only-I", package], capture_output=True, text=True, check=False
        )
        words += done.stdout.split() if done.returncode == 0 else []
    return words


def load(name: str) -> Profile:
    """The profile of that name.

    Raises
    ------
    GraphsError
        when there is none.
    """
    path = FOLDER / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise GraphsError(f"no profile named {name!r}; there are {known}")
    return Profile(name, tomllib.loads(path.read_text()))


def find(tree: Path) -> Profile | None:
    """The profile whose family `tree` belongs to."""
    for path in sorted(FOLDER.glob("*.toml")):
        profile = load(path.stem)
        detect = profile.data["detect"]
        file = tree / detect["file"]
        if not file.is_file() or not re.match(detect["pattern"], file.read_text(errors="replace")):
            continue
        if all((tree / name).exists() for name in detect.get("also", [])):
            return profile
    return None
