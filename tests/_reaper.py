"""Runs the suite below a process that adopts orphans, so that nothing a test leaves behind can hide.

Without it an orphan (``runc init``, a container's process) would be re-parented to the machine's init and
be lost among everybody's processes. With it, every process that a test started is a descendant of `ROOT`.
"""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_CHILD_SUBREAPER = 36
ROOT = os.getpid()
"""The pid of the adopting process."""


def fork_below_a_subreaper() -> None:
    """Go on in a child; the parent adopts and reaps orphans and ends as the child ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    child = os.fork()
    if child == 0:
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: never outlive the parent
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a script it is ignored
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda n, _frame: os.kill(child, n))
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


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
