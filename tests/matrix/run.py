"""Runs the suite in the sid root, leg by leg, and prints one table of all that ran.

python tests/matrix/run.py          the root, the legs, then the table with what `make test` left in .cache/results
python tests/matrix/run.py root     makes the root and its Python environments alone
python tests/matrix/run.py legs     the legs alone
python tests/matrix/run.py table    the table alone

What PYTEST holds is given to every leg.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

PROJECT = Path(__file__).parents[2]
SID = PROJECT / "tests/matrix/sid"
RESULTS = PROJECT / ".cache/results"
PYTHONS = ("3.14", "3.15")
# The unit tests need no runtime and no cgroup: they run once for each Python.
NO_UNIT = ("-m", "not unit")
LEGS = {
    "sid-crun-v1": ("crun", "v1", "3.14", ()),
    "sid-runc-v2": ("runc", "v2", "3.15", ()),
    "sid-crun-v2": ("crun", "v2", "3.15", NO_UNIT),
    "sid-runc-v1": ("runc", "v1", "3.14", NO_UNIT),
}
LIMIT = 1500  # seconds for one leg
COLUMNS = ("python", "runtime", "cgroup", "CRIU", "passed", "failed", "skipped", "seconds")


@dataclass
class Result:
    """What one run of the suite said of itself."""

    name: str
    where: dict[str, str]
    passed: int
    failed: int
    seconds: float
    skips: Counter[str]

    @classmethod
    def read(cls, file: Path) -> Result:
        suite = ElementTree.parse(file).getroot()[0]
        cases = list(suite.iter("testcase"))
        skips = Counter(skip.get("message", "") for case in cases if (skip := case.find("skipped")) is not None)
        # A test that failed in its clean-up as well is one that failed.
        failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
        return cls(
            name=file.stem,
            where={p.get("name", ""): p.get("value", "") for p in suite.findall("properties/property")},
            passed=len(cases) - failed - skips.total(),
            failed=failed,
            seconds=float(suite.get("time", 0)),
            skips=skips,
        )

    def row(self) -> list[str]:
        counts = (self.passed, self.failed, self.skips.total(), round(self.seconds))
        return [self.name, *(self.where.get(key, "-") for key in COLUMNS[:4]), *map(str, counts)]


def run_leg(name: str) -> None:
    """One run of the suite; its output goes to a file, and to the terminal if it failed."""
    runtime, view, python, options = LEGS[name]
    log = RESULTS / f"{name}.log"
    begun = time.monotonic()
    command = [
        SID, "run", view, "env", f"RUNC_ASYNC_RUNTIME={runtime}", "timeout", "--kill-after=10", str(LIMIT),
        f"{environment(python)}/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *options,
        f"--junit-xml=.cache/results/{name}.xml", *shlex.split(os.environ.get("PYTEST", "")),
    ]  # fmt: skip
    with log.open("wb") as output:
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL).returncode
    if status == 0:
        print(f"== {name}: passed in {time.monotonic() - begun:.0f} s", flush=True)
    else:
        print(f"== {name}: status {status}, the end of {log}:\n{tail(log)}", flush=True)


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-60:])


def environment(python: str) -> str:
    """Where the environment of one of `PYTHONS` is, as seen from the root."""
    return f".cache/venv-sid-{python}"


def make_root() -> None:
    subprocess.run([SID, "make"], check=True)
    for python in PYTHONS:
        made = [SID, "run", "v2", ".ci/setup", "environment", environment(python), f"/usr/bin/python{python}", "test"]
        subprocess.run(made, check=True)


def run_legs() -> None:
    """All legs. One without a result file is missing from none of the counts: it counts as failed."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for old in RESULTS.glob("sid-*"):
        old.unlink()
    for name in LEGS:
        run_leg(name)


def main() -> int:
    wanted = sys.argv[1:] or ["root", "legs", "table"]
    try:
        if "root" in wanted:
            make_root()
        if "legs" in wanted:
            run_legs()
    except subprocess.CalledProcessError:  # it has said what is missing
        print("matrix: the sid legs did not run", file=sys.stderr)
    return table() if "table" in wanted else 0


def table() -> int:
    """Print what ran where, and what was skipped; 1 if anything failed or did not end."""
    results = [Result.read(file) for file in sorted(RESULTS.glob("*.xml"))]
    rows = [["run", *COLUMNS], *(result.row() for result in results)]
    missing = [name for name in LEGS if not (RESULTS / f"{name}.xml").exists()]
    rows += [[name, *("-" * 4), "did not end", "1", "-", "-"] for name in missing]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print("\nskipped, and why:")
    reasons: dict[str, list[str]] = {}
    for result in results:
        for reason, number in result.skips.items():
            reasons.setdefault(reason, []).append(f"{result.name} {number}")
    for reason, places in sorted(reasons.items()):
        print(f"  {reason}\n      {', '.join(places)}")
    failed = sum(result.failed for result in results) + len(missing)
    print(
        f"\n{sum(result.passed for result in results)} passed, {failed} failed, "
        f"{sum(result.skips.total() for result in results)} skipped"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
