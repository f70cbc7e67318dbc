"""Measures this project against go-runc, plain asyncio and the bare system call, all in one run.

    make bench
    make bench QUICK=1
    make bench ONLY=alternatives

Prints what was found, and writes it into the README and docs/measured.md, with plots; a quick run only prints. One case
alone is written only if its tables have a place of their own, as the alternatives have.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from .cases import CASES, QUICK, Field, Report, Size
from .contenders import GORUNC, PROJECT
from .pages import Table, write
from .place import place, runtime_path

IN_README = (
    "`version()` against `posix_spawn` of the same binary",
    "a whole life, against go-runc",
    "stalls of the event loop while 64 calls are under way, p99",
    "memory of ours per waiting container",
    "`import runc_async`",
)
"""The targets that the README shows; docs/measured.md has them all."""


def machine() -> str:
    """Where and with what it is measured, in a sentence."""
    cpu = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    runtime = subprocess.run([runtime_path(), "--version"], capture_output=True, text=True, check=True).stdout
    packages = ", ".join(f"{name} {version(name)}" for name in ("anyio", "uvloop", "trio"))
    go = GORUNC.with_suffix(".versions")
    built = ", ".join(go.read_text().splitlines()) if go.exists() else "no go-runc"
    hardware = f"{os.cpu_count()} cores of {cpu.strip()}, {gib} GiB, Linux {platform.release()}"
    versions = (
        f"{runtime.splitlines()[0].replace(' version', '')}, Python {platform.python_version()}, {packages}; {built}"
    )
    return f"{datetime.now(UTC):%d %B %Y}; {hardware}; {versions}; load {os.getloadavg()[0]:.1f} when it began."


def targets(report: Report) -> Table:
    """The table of targets."""
    table = Table("Targets", ("what", "target", "measured", ""))
    table.rows += [(t.what, t.wanted, t.measured(), t.verdict) for t in report.targets]
    return table


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    quick = "quick" in sys.argv[1:]
    only = [case for case in CASES if case.__name__ in sys.argv[1:]]
    report, where, began = Report(), machine(), time.monotonic()
    if not GORUNC.exists():
        report.notes.append("go-runc, and what is measured against it: tests/bench/build did not build it (see above)")
    with place() as here, contextlib.ExitStack() as stack:
        field = Field(here, stack)
        for case in only or CASES:
            case_began = time.monotonic()
            case(field, report, QUICK if quick else Size())
            print(f"bench: {case.__name__}: {time.monotonic() - case_began:.0f} s", file=sys.stderr, flush=True)
    if report.targets:
        report.tables.insert(0, targets(report))
    missing = "".join(f"\n\nMissing: {note}." for note in report.notes)
    text, others = ("\n\n".join([where + missing, *(table.text() for table in tables)]) for tables in
                    (report.tables, report.alternative_tables))  # fmt: skip
    print(text if report.tables else "", others if report.alternative_tables else "", sep="\n\n")
    print(f"\nbench: {time.monotonic() - began:.0f} s", file=sys.stderr)
    if not quick:
        from . import plots

        plots.draw(report, PROJECT / "docs")
        if report.alternative_tables:
            write(PROJECT / "docs/measured.md", alternatives=others)
        if not only:
            write(PROJECT / "docs/measured.md", measured=text)
            write(PROJECT / "README.md", measured=summary(report, where))


def summary(report: Report, where: str) -> str:
    """What the README says: the figures that matter most when somebody chooses."""
    table = Table("", ("what", "target", "measured"))
    by_name = {target.what: target for target in report.targets}
    table.rows += [(name, by_name[name].wanted, by_name[name].measured()) for name in IN_README if name in by_name]
    return table.text().partition("\n\n")[2] + f"\n\n{where}"


if __name__ == "__main__":
    main()
