"""Writes `commands.md` from the tables of the package and what was recorded of the runtimes; a test compares.

python docs/write_commands.py
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

PROJECT = Path(__file__).parent.parent
sys.path.insert(0, str(PROJECT))

from runc_async._cli.commands import COMMANDS, GLOBAL  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PAGE = PROJECT / "docs/commands.md"
RECORDED = PROJECT / "tests/data/runtimes"

BEGINNING = """\
# Commands, flags and errors, runtime by runtime

Look up here which runtime has which command and flag, and which class of error each failure raises.
`docs/write_commands.py` writes this page from the package's tables and from what the runtimes print; a test compares
both.

## Commands and flags

Every command of the runtime is a method of `Runc`, and every flag a keyword of that method, with dashes as underscores.
The table counts the flags that `runc_async` knows, and those of them that each runtime has in its help. A dash means
that the runtime has no such command. The crun 1.8.1 of this table was built without CRIU.

"""
MIDDLE = """
These flags exist in some of the runtimes only. If your runtime lacks one, you get an `UnsupportedError` that names the
flag and the version.

"""
NOTES = """
runc takes more than its help says: `--kernel-memory` and `--kernel-memory-tcp`, and since 1.2 `--criu` and `kill
--all`. It ignores them; since 1.2 a `KILL` reaches every process of a container anyway.

## Daily errors

Each row is provoked by a test on the real runtime, through the client: all on cgroup v1, the newer two on v2 as well.
The class is the same for every runtime; a dash is a command that it does not have.

"""
SENTENCES = """
What they say, without their time stamps; this is `CommandError.message`:

"""


def runtimes() -> list[str]:
    """The recorded ones: runc first, the older before the newer."""

    def age(name: str) -> tuple[bool, list[int]]:
        runtime, _, version = name.partition("-")
        return runtime != "runc", [int(part) for part in version.split(".")]

    return sorted((folder.name for folder in RECORDED.iterdir()), key=age)


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def said_by(name: str) -> str:
    """``runc 1.1.5`` of ``runc-1.1.5``."""
    return name.replace("-", " ")


def flags(names: list[str]) -> str:
    """The tables of commands and flags."""
    has: dict[str, Mapping[str, list[str]]] = {
        name: json.loads((RECORDED / name / "flags.json").read_text()) for name in names
    }
    counts, some = [], []
    sums = [0] * (len(names) + 1)
    for command in (GLOBAL, *COMMANDS.values()):
        key = "" if command is GLOBAL else command.name
        known = {flag.name for flag in command.flags.values()}
        label = f"`{key}`" if key else "(global)"
        row = [len(known), *(len(known & set(has[name][key])) if key in has[name] else None for name in names)]
        sums = [total + (count or 0) for total, count in zip(sums, row, strict=True)]
        counts.append([label, *("-" if count is None else str(count) for count in row)])
        for flag in sorted(known):
            lacking = [name for name in names if key in has[name] and flag not in has[name][key]]
            having = [name for name in names if key in has[name] and flag in has[name][key]]
            if lacking and having:
                some.append([label, f"`{flag}`", ", ".join(map(said_by, having))])
    counts.append(["flags in all", *map(str, sums)])
    have = [str(sum(key in has[name] for key in COMMANDS)) for name in names]
    counts.append(["commands in all", str(len(COMMANDS)), *have])
    return (
        table(["command", "runc_async", *map(said_by, names)], counts)
        + MIDDLE
        + table(["command", "flag", "has it"], some)
    )


def errors(names: list[str]) -> str:
    """The tables of the daily errors.

    Where a runtime has no such command, there is no failure to provoke.
    """
    said = {name: json.loads((RECORDED / name / "errors.json").read_text()) for name in names}
    rows, sentences = [], []
    for failure in sorted({failure for rows in said.values() for failure in rows}):
        found = [said[name][failure] for name in names]
        classes = [row["error"] for row in found if "has no command checkpoint" not in row["message"]]
        (error,) = set(classes)
        marks = ["-" if "has no command checkpoint" in row["message"] else "yes" for row in found]
        rows.append([failure.replace("_", " "), f"`{error}`", *marks])
        for name, row in zip(names, found, strict=True):
            message = re.sub("x{99,}", "xxx…", " ".join(row["message"].replace("|", "\\|").split()))
            sentences.append([failure.replace("_", " "), said_by(name), f"`` {message} ``"])
    total = [str(sum(row[n] == "yes" for row in rows)) for n in range(2, len(names) + 2)]
    rows.append(["in all", str(len(rows)), *total])
    return (
        table(["failure", "class", *map(said_by, names)], rows)
        + SENTENCES
        + table(["failure", "runtime", "message"], sentences)
    )


def page() -> str:
    """The whole page."""
    names = runtimes()
    return BEGINNING + flags(names) + NOTES + errors(names)


if __name__ == "__main__":
    PAGE.write_text(page())
