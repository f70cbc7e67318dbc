"""Writes the table in `runtimes.md` from how the package talks to each runtime; a test compares.

python docs/write_runtimes.py
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

PROJECT = Path(__file__).parent.parent
sys.path.insert(0, str(PROJECT))

from runc_async._cli.commands import COMMANDS  # noqa: E402
from runc_async._cli.dialects import RUNC, find_dialect  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runc_async._cli.dialects import Dialect

PAGE = PROJECT / "docs/runtimes.md"
RECORDED = PROJECT / "tests/data/runtimes"
TABLE = re.compile(r"(?<=<!-- runtimes: table -->\n).*?(?=<!-- runtimes: end -->)", re.DOTALL)

RUNTIMES = {
    "runc 1.3.6": ("runc", "1.3.6", "runc-1.3.6"),
    "crun 1.28": ("crun", "1.28", "crun-1.28"),
    "runsc 20221219": ("runsc", "20221219", None),
    "runsc since 20230320": ("runsc", "20230320", None),
    "youki 0.6": ("youki", "0.6.0", None),
}
"""Column to the runtime's name, its version, and the recording of its help, if there is one."""

OPTIONS = {
    "descriptors for `create`": ("create", "--preserve-fds"),
    "descriptors for `run`": ("run", "--preserve-fds"),
    "descriptors for `exec`": ("exec", "--preserve-fds"),
    "consoles (`console_socket=`)": ("create", "--console-socket"),
    "pidfds (`pidfd_socket=`)": ("create", "--pidfd-socket"),
    "`no_pivot=`": ("create", "--no-pivot"),
}
"""What takes a flag: row to the command and its flag."""

TRAITS: Mapping[str, Callable[[Dialect], bool]] = {
    "`SealedExecutor`": lambda dialect: dialect.executes_sealed,
    "`Container.files`, `files=` and `collect=` of a `Job`": lambda dialect: dialect.shows_files,
    "`writable=` of a `Job` and of `Bundle.create`": lambda dialect: "overlay" not in dialect.ignored_mounts,
    "`ps` gives pids of the host": lambda dialect: dialect.has_host_pids,
    "signals above 31": lambda dialect: dialect.greatest_signal > 31,
}
"""What the dialect says: row to the question."""


def read_flags(dialect: Dialect, recording: str | None) -> Mapping[str, frozenset[str]]:
    """The commands and flags of a runtime, from its recorded help or from its dialect."""
    if dialect.flags is not None:
        return dialect.flags
    assert recording is not None
    recorded = json.loads((RECORDED / recording / "flags.json").read_text())
    return {command: frozenset(flags) for command, flags in recorded.items()}


def table() -> str:
    """The table: a row for each command and each feature, a column for each runtime."""
    found = [(find_dialect(name, version) or RUNC, recording) for name, version, recording in RUNTIMES.values()]
    dialects = [dialect for dialect, _ in found]
    flags = [read_flags(dialect, recording) for dialect, recording in found]
    rows: dict[str, list[bool]] = {f"`{command}`": [command in each for each in flags] for command in COMMANDS}
    for row, (command, flag) in OPTIONS.items():
        rows[row] = [flag in each.get(command, ()) for each in flags]
    for row, has in TRAITS.items():
        rows[row] = [has(dialect) for dialect in dialects]
    common = [row for row, marks in rows.items() if all(marks) and row.startswith("`") and " " not in row]
    lines = [["", *RUNTIMES], ["---"] * (len(RUNTIMES) + 1)]
    lines.append([", ".join(common), *["yes"] * len(RUNTIMES)])
    for row, marks in rows.items():
        if row not in common:
            lines.append([row, *("yes" if mark else "no" for mark in marks)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page() -> str:
    """The whole page."""
    return TABLE.sub(lambda _: table(), PAGE.read_text())


if __name__ == "__main__":
    PAGE.write_text(page())
