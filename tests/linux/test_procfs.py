"""What /proc says of a process."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from runc_async._linux import procfs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GONE = 2**22 - 1
"""A pid that no process has: higher than the kernel's highest."""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_stat_of_a_child(child: subprocess.Popen[bytes]) -> None:
    found = procfs.stat(child.pid)
    assert found is not None
    assert (found.pid, found.parent, found.session) == (child.pid, os.getpid(), os.getsid(0))
    assert found.process_group == os.getpgid(0)
    mine = procfs.stat(os.getpid())
    assert mine is not None
    assert mine.start_time <= found.start_time <= time.monotonic() * os.sysconf("SC_CLK_TCK") + 1e9
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    ended = procfs.stat(child.pid)
    assert ended is not None
    assert ended.state == "Z"
    assert ended.start_time == found.start_time


def test_the_name_of_a_program_may_contain_parentheses_and_blanks() -> None:
    line = b"7 (a) b (c) S 1 2 3 " + b" ".join(str(number).encode() for number in range(7, 60))
    found = procfs.parse_stat(line)
    assert found == procfs.Stat(7, "a) b (c", "S", 1, 2, 3, 22, 52)


def test_children_of_all_threads_are_found() -> None:
    started: list[subprocess.Popen[bytes]] = []
    done = threading.Event()

    def start() -> None:
        started.append(subprocess.Popen(["sleep", "60"]))
        done.wait()

    thread = threading.Thread(target=start)
    thread.start()
    while not started:
        time.sleep(0.001)
    try:
        assert started[0].pid in procfs.children(os.getpid())
    finally:
        started[0].kill()
        started[0].wait()
        done.set()
        thread.join()
    assert started[0].pid not in procfs.children(os.getpid())


def test_of_a_process_that_is_gone_nothing_is_said() -> None:
    assert procfs.stat(GONE) is None
    assert procfs.children(GONE) == []
    assert procfs.comm(GONE) == ""
    assert procfs.pid_namespace(GONE) is None
    assert not procfs.leads_pid_namespace(GONE)


def test_the_name_of_the_program(child: subprocess.Popen[bytes]) -> None:
    while procfs.comm(child.pid) != "sleep":  # it is Python's until the child has executed
        time.sleep(0.001)
    found = procfs.stat(child.pid)
    assert found is not None
    assert found.comm == "sleep"


def test_a_child_is_in_the_pid_namespace_of_its_parent(child: subprocess.Popen[bytes]) -> None:
    assert procfs.pid_namespace(child.pid) == procfs.pid_namespace(os.getpid()) == os.stat("/proc/self/ns/pid").st_ino
    assert not procfs.leads_pid_namespace(child.pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a pid namespace: run the suite as root")
def test_the_init_of_a_pid_namespace_leads_it() -> None:
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "60"]) as process:
        try:
            while not (found := procfs.children(process.pid)):
                time.sleep(0.001)
            assert procfs.leads_pid_namespace(found[0])
            assert procfs.pid_namespace(found[0]) != procfs.pid_namespace(process.pid)
        finally:
            for pid in procfs.children(process.pid):  # --kill-child may not be in effect yet
                os.kill(pid, signal.SIGKILL)
            process.kill()


def test_a_pid_file_is_read_when_it_has_been_written(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    assert procfs.read_pid_file(file) is None
    file.touch()
    assert procfs.read_pid_file(file) is None
    file.write_text("123\n")
    assert procfs.read_pid_file(str(file)) == 123
    file.write_text("no number")
    with pytest.raises(ValueError, match="no number"):
        procfs.read_pid_file(file)
