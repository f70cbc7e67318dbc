"""The command line: ``runc-async``, or ``python -m runc_async``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

import anyio
import msgspec

from . import __version__
from ._doctor import examine, runnable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._doctor import Line

STYLES = {"good": "green", "warning": "yellow", "bad": "bold red"}

EPILOG = """\
exit status:
  0  containers can be run: one was
  1  they cannot; the lines marked bad say why, and what to do
  2  wrong arguments

Each line is good, warning (something optional is missing) or bad. The table is drawn by rich where that is
installed (pip install 'runc-async[cli]'); without it the lines are plain.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    commands = argparse.ArgumentParser(
        prog="python -m runc_async" if os.path.basename(sys.argv[0]) == "__main__.py" else "runc-async",
        description="The command line of runc_async, a Python client for OCI runtimes (runc, crun).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands.add_argument("--version", action="version", version=f"runc-async {__version__}")
    doctor = commands.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser(
        "doctor",
        help="find out whether containers can be run here, and if not, why",
        description="Find out whether containers can be run here, and if not, why: the runtime, its version, features\n"
        "and known vulnerabilities, the kernel, /proc, cgroups, rootless. Real containers try each kind of executor,\n"
        "the limits, what is counted, and CRIU.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("--runtime", metavar="PATH", help="the runtime, by path or name (default: runc, or else crun)")
    doctor.add_argument(
        "--flag",
        metavar="FLAG",
        action="append",
        default=[],
        help="a global flag of the runtime, as --flag=--systemd-cgroup; may be given several times",
    )
    doctor.add_argument("--json", action="store_true", help="print the same as JSON")
    commands.epilog = doctor.format_help()
    return commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    :returns: the exit status.
    """
    given = parser().parse_args(arguments)
    lines = anyio.run(examine, given.runtime, given.flag)
    if given.json:
        report = {"runnable": runnable(lines), "checks": msgspec.to_builtins(lines)}
        print(json.dumps(report, indent=2))
    else:
        show(lines)
        print("Containers can be run." if runnable(lines) else "Containers cannot be run.")
    return 0 if runnable(lines) else 1


def show(lines: Sequence[Line]) -> None:
    """Print a table, or plain lines where rich is not installed."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        for line in lines:
            print(f"{line.state:8} {line.name:17} {line.found}")
            if line.advice:
                print(f"{'':26} -> {line.advice}")
        return
    table = Table()
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(Text(line.state, STYLES[line.state]), line.name, Text(line.found), Text(line.advice))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
