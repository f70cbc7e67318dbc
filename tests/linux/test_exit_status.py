"""How a process has ended: its own status from the kernel, or None."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from runc_async._linux import exit_status as module
from runc_async._linux.exit_status import (
    exit_status,
    kernel_keeps_statuses,
    shell_status,
    why_unknown,
)
from runc_async._linux.pidfd import reap_ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

needs_kept_statuses = pytest.mark.skipif(
    not kernel_keeps_statuses(),
    reason="this kernel forgets the status of a reaped process; Linux 6.15 keeps it",
)
ENDS = [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", -9), ("kill -SEGV $$", -11)]


@pytest.fixture
def ended() -> Iterator[Callable[[str], tuple[int, int]]]:
    """Runs a script to its end; the pid of the child, which is not reaped, and its pidfd."""
    pidfds = []

    def run(script: str) -> tuple[int, int]:
        pid = os.posix_spawnp("sh", ["sh", "-c", f"ulimit -c 0; {script}"], os.environ)
        pidfds.append(os.pidfd_open(pid))
        select.select(pidfds[-1:], [], [])
        return pid, pidfds[-1]

    yield run
    for pidfd in pidfds:
        os.close(pidfd)


@pytest.fixture
def old_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A kernel that has no ``PIDFD_GET_INFO``."""

    def ioctl(fd: int, request: int, *args: Any) -> int:
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    kernel_keeps_statuses.cache_clear()
    yield
    kernel_keeps_statuses.cache_clear()


@pytest.mark.parametrize(("script", "status"), ENDS)
def test_a_child_is_reaped_by_its_pidfd(ended: Callable[[str], Any], script: str, status: int) -> None:
    pid, pidfd = ended(script)
    assert reap_ended(pidfd, leave=True) == status
    assert exit_status(pidfd) == status
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


@needs_kept_statuses
@pytest.mark.parametrize(("script", "status"), ENDS)
def test_the_kernel_tells_the_status_that_somebody_else_has_taken(
    ended: Callable[[str], Any], script: str, status: int
) -> None:
    pid, pidfd = ended(script)
    os.waitpid(pid, 0)
    assert exit_status(pidfd) == status
    assert exit_status(pidfd) == status


def test_an_older_kernel_does_not_and_nothing_is_guessed(ended: Callable[[str], Any], old_kernel: None) -> None:
    pid, pidfd = ended("exit 3")
    os.waitpid(pid, 0)
    assert exit_status(pidfd) is None
    assert not kernel_keeps_statuses()


def test_a_living_process_has_none() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        pidfd = os.pidfd_open(process.pid)
        assert exit_status(pidfd) is None
        assert reap_ended(pidfd) is None
        process.kill()
    os.close(pidfd)


TWO_THREADS = """
import ctypes, os, threading, time

def end():
    while ") Z " not in open(f"/proc/self/task/{os.getpid()}/stat").read():
        time.sleep(0.001)
    os._exit(5)

threading.Thread(target=end).start()
exit = {"x86_64": 60, "aarch64": 93}[os.uname().machine]  # exit(2), of the first thread alone, with 0
ctypes.CDLL(None).syscall(exit, 0)
"""
GRANDCHILD = """
import os, sys
child = os.fork()
if child == 0:
    exec(sys.argv[1])
os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
print(child, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def grandchild() -> Iterator[Callable[[str], int]]:
    """Runs Python code in a process that is not a child of this one, to its end; the pidfd of it. Nobody reaps it."""
    parents, pidfds = [], []

    def run(code: str) -> int:
        parent = subprocess.Popen(
            [sys.executable, "-c", GRANDCHILD, code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        parents.append(parent)
        assert parent.stdout is not None
        pidfds.append(os.pidfd_open(int(parent.stdout.readline())))
        return pidfds[-1]

    yield run
    for pidfd in pidfds:
        os.close(pidfd)
    for parent in parents:
        parent.communicate("\n")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("os._exit(0)", 0),
        ("os._exit(7)", 7),
        ("os.kill(os.getpid(), 9)", -9),
        (TWO_THREADS, 5),
    ],
)
def test_the_status_of_a_process_whose_parent_does_not_reap_it(
    grandchild: Callable[[str], int], code: str, status: int, old_kernel: None
) -> None:
    pidfd = grandchild(code)
    if module._linux_version() < module.SHOWS_STATUSES:
        pytest.skip("/proc/PID/stat has it from Linux 6.6 on")
    assert exit_status(pidfd) == status


def test_a_status_that_this_process_may_not_see_is_none(
    grandchild: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel shows 0 in its place."""
    pidfd = grandchild("os._exit(7)")

    def forbid(path: str) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "readlink", forbid)
    assert exit_status(pidfd) is None


def test_another_user_may_not_see_it(grandchild: Callable[[str], int]) -> None:
    pidfd = grandchild("os._exit(7)")
    program = f"""
import os
from runc_async._linux.exit_status import exit_status
os.setresuid(65534, 65534, 65534)
assert exit_status({pidfd}) is None
"""
    run = [sys.executable, "-c", program]
    assert subprocess.run(run, pass_fds=[pidfd], check=False).returncode == 0


def test_where_only_the_first_threads_status_is_shown_it_is_not_taken(
    grandchild: Callable[[str], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pidfd = grandchild("os._exit(7)")
    monkeypatch.setattr(module, "_linux_version", lambda: (5, 10))
    assert exit_status(pidfd) is None


@pytest.mark.parametrize(("status", "shell"), [(0, 0), (3, 3), (-9, 137), (-15, 143)])
def test_a_status_as_a_shell_gives_it(status: int, shell: int) -> None:
    assert shell_status(status) == shell


@pytest.mark.parametrize(
    ("release", "version"), [("6.18.44-fc-v669", (6, 18)), ("5.10.0", (5, 10)), ("6.1-rc2", (6, 1)), ("7.0.0+", (7, 0))]
)
def test_the_kernels_version(release: str, version: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        pass

    answer = Answer()
    answer.release = release  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "uname", lambda: answer)
    assert module._linux_version.__wrapped__() == version


def test_why_a_status_is_unknown() -> None:
    assert "another waiter in this process has taken it" in why_unknown()
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert re.search(r"SIGCHLD is ignored .* signal.signal\(signal.SIGCHLD, signal.SIG_DFL\)", why_unknown())
    finally:
        signal.signal(signal.SIGCHLD, before)
