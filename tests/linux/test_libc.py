"""The C library's functions: what they are given arrives, and what they refuse is an `OSError`."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runc_async._linux import libc
from runc_async._process.memfile import memory_file, read_output


def test_this_process_adopts_orphans_or_not() -> None:
    before = libc.is_child_subreaper()
    try:
        libc.set_child_subreaper(True)
        assert libc.is_child_subreaper()
        libc.set_child_subreaper(False)
        assert not libc.is_child_subreaper()
    finally:
        libc.set_child_subreaper(before)


def test_what_is_not_mounted_cannot_be_unmounted(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        libc.umount(os.fsencode(tmp_path), 0)
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, str(tmp_path))


class TestSigchldIsIgnored:
    def test_by_default_and_with_a_handler_it_is_not(self) -> None:
        assert not libc.sigchld_is_ignored()
        before = signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            assert not libc.sigchld_is_ignored()
        finally:
            signal.signal(signal.SIGCHLD, before)

    def test_ignored(self) -> None:
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            assert libc.sigchld_is_ignored()
        finally:
            signal.signal(signal.SIGCHLD, before)

    def test_before_this_process_began(self) -> None:
        ask = "import sys; from runc_async._linux.libc import sigchld_is_ignored as ask; sys.exit(not ask())"
        program = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
        assert subprocess.run([sys.executable, "-c", program, ask], check=False).returncode == 0

    def test_by_a_flag_that_python_does_not_know(self) -> None:
        before, action = libc._Sigaction(), libc._Sigaction(flags=libc.SA_NOCLDWAIT)
        c = ctypes.CDLL(None)
        c.sigaction(signal.SIGCHLD, ctypes.byref(action), ctypes.byref(before))
        try:
            assert libc.sigchld_is_ignored()
        finally:
            c.sigaction(signal.SIGCHLD, ctypes.byref(before), None)
        assert not libc.sigchld_is_ignored()


def test_a_child_starts_with_the_systems_sigchld() -> None:
    stdout = memory_file("stdout", limit=1000)
    reader, writer = os.pipe()
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        argv = ["sh", "-c", "read line; exec grep SigIgn /proc/self/status"]
        pid = libc.posix_spawn("/bin/sh", argv, {}, (reader, stdout, stdout))
    finally:
        signal.signal(signal.SIGCHLD, before)
    os.close(reader)
    os.close(writer)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert not int(read_output(stdout).split()[1], 16) & (1 << signal.SIGCHLD - 1)
    os.close(stdout)


@pytest.mark.parametrize(("argv", "env"), [(["true", "a\0b"], {}), (["true"], {"A": "b\0"})])
def test_a_word_that_the_kernel_would_cut_short_is_refused(argv: list[str], env: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="embedded null byte"):
        libc.posix_spawn("/bin/true", argv, env, ())


def test_no_module_binds_the_c_library_besides() -> None:
    package = Path(sys.modules["runc_async"].__path__[0])
    found = {str(path.relative_to(package)) for path in package.rglob("*.py") if "ctypes" in path.read_text()}
    assert found == {"_linux/libc.py"}
