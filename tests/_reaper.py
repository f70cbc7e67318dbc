"""Runs tests below a process that adopts orphans, so that nothing a test leaves behind can hide.

Without it an orphan (``runc init``, a container's process) would be re-parented to the machine's init and
be lost among everybody's processes. With it, every process that a test started is a descendant of `ROOT`.
Each worker of pytest-xdist is started by this file as a program and has an adopting process of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CGROUPS = "/sys/fs/cgroup"
ROOT = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
"""The pid of the adopting process."""
SESSION = f"t{ROOT}x"
"""Every container id of this process's tests starts with this; so do their cgroups."""


def worker_command() -> str:
    """What pytest-xdist is to start as the Python of a worker."""
    return shlex.join([sys.executable, os.path.abspath(__file__)])


def fork_below_a_subreaper() -> None:
    """Go on in a child. The parent adopts and reaps orphans, and ends as the child ends, after all else has ended."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a script it is ignored
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _frame: os.kill(child, n))
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            end_all()
            os._exit(code if code >= 0 else 128 - code)


def end_all(but: Collection[int] = (), patience: float = 10.0) -> None:
    """Kill and reap every other descendant, and remove the cgroups of `SESSION`: a test that failed has left them."""
    deadline = time.monotonic() + patience
    while (left := descendants().keys() - but) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # another process's, which is killed or reaps it
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)
    for folder in sorted(session_cgroups(), reverse=True):
        with contextlib.suppress(OSError):  # it is of a process that stays
            os.rmdir(folder)


def descendants() -> dict[int, tuple[str, str]]:
    """Every process below `ROOT`, but this one: pid to (state letter, command)."""
    parents: dict[int, int] = {}
    described: dict[int, tuple[str, str]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                head, _, tail = file.read().rpartition(b") ")
        except OSError:
            continue
        fields = tail.split()
        parents[int(name)] = int(fields[1])
        described[int(name)] = (fields[0].decode(), head.partition(b"(")[2].decode(errors="replace"))
    found: dict[int, tuple[str, str]] = {}
    for pid in parents:
        above = pid
        while above in parents and above != ROOT:
            above = parents[above]
        if above == ROOT and pid not in (ROOT, os.getpid()):
            found[pid] = described[pid]
    return found


def session_cgroups() -> set[str]:
    """Every cgroup directory, in any hierarchy, that a container of `SESSION` has."""
    found = set()
    for folder, names, _ in os.walk(CGROUPS):
        found.update(os.path.join(folder, name) for name in names if SESSION in name)
    return found


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


if __name__ == "__main__":
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # which it passes on to the worker
    fork_below_a_subreaper()
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
