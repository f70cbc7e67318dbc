"""One call: what is executed, how its failure to start is explained, and that a process is always reaped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import Executable, Executor, ExecutorError, PathExecutor, Pidfd, Runc, RuncError, Subreaper
from runc_async._linux import exit_status
from runc_async._linux.procfs import children
from runc_async._process import cancel
from runc_async._process.child_fds import ChildFds
from runc_async._process.memfile import memory_file
from runc_async._process.process import Process, Settings

from .._slowness import SLOWNESS, within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.anyio


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Callable[..., Process]]:
    """Makes calls of a shell script."""
    with ChildFds(()) as fds:
        log = fds.adopt(memory_file("log"))
        null = fds.adopt(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        fds.stdio(null, null, null)

        def make(script: str, *arguments: str, timeout: float = 0.3) -> Process:
            path = tmp_path / "program"
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
            return Process(Settings(PathExecutor(path), cleanup_timeout=timeout), fds, arguments, dict(os.environ), log)

        yield make


async def test_its_command_line_and_status(process: Callable[..., Process]) -> None:
    call = process("exit $1", "3")
    assert call.pid == 0
    await call.start()
    assert call.pid > 0
    assert call.argv == ("program", "3")
    assert await call.wait() == 3
    assert await call.wait() == 3
    await cancel.kill(call)


class TestAStatusThatCannotBeKnown:
    """Another waiter has taken it, on a kernel that does not keep it."""

    @pytest.fixture(autouse=True)
    def older_kernel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(exit_status, "_kept_status", lambda pidfd: None)
        monkeypatch.setattr(exit_status, "kernel_keeps_statuses", lambda: False)

    @pytest.fixture
    async def taken(self, process: Callable[..., Process], tmp_path: Path) -> Process:
        os.mkfifo(tmp_path / "end")
        call = process(f"read line < {tmp_path}/end; exit 3")
        await call.start()
        (tmp_path / "end").write_text("")
        os.waitpid(call.pid, 0)  # the event loop cannot come between
        return call

    async def test_is_an_error_that_says_why(self, taken: Process) -> None:
        call = taken
        for _ in range(2):
            with pytest.raises(RuncError, match="the exit status of program cannot be known: another waiter"):
                await call.wait()
        assert call.status is None
        assert not call.is_running

    @pytest.mark.parametrize("end", [cancel.kill, cancel.finish, cancel.interrupt, cancel.abandon])
    async def test_disturbs_no_clean_up(self, taken: Process, end: Callable[[Process], Awaitable[object]]) -> None:
        assert await end(taken) is None
        assert not taken.is_running


async def test_killed(process: Callable[..., Process]) -> None:
    call = process("exec sleep 60")
    await call.start()
    await cancel.kill(call)
    assert call.status == -signal.SIGKILL


async def test_killed_while_it_has_a_child_that_has_ended(process: Callable[..., Process], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "end")
    call = process(f"cat {tmp_path}/end & exec sleep 60")
    async with Subreaper():
        await call.start()
        while Path(f"/proc/{call.pid}/comm").read_text() != "sleep\n":  # which reaps no child, as a shell does
            await anyio.sleep(0.001)
        (ended,) = children(call.pid)
        with Pidfd.open(ended) as child:
            (tmp_path / "end").write_text("")
            await child.wait()
        await cancel.kill(call)
        with pytest.raises(ProcessLookupError):
            os.kill(ended, 0)


@pytest.mark.parametrize(("script", "status"), [("sleep 0.05; exit 4", 4), ("exec sleep 60", -9)])
async def test_finish_lets_it_end_by_itself_for_a_while(
    process: Callable[..., Process], script: str, status: int
) -> None:
    call = process(script)
    await call.start()
    await cancel.finish(call)
    assert call.status == status


class TestAbandon:
    async def test_takes_its_children_away_and_lets_it_clean_up(
        self, process: Callable[..., Process], tmp_path: Path
    ) -> None:
        call = process(f"sleep 60; sleep 60; : > {tmp_path}/cleaned; exit 5", timeout=5)
        await call.start()
        while not children(call.pid):
            await anyio.sleep(0.001)
        assert await cancel.abandon(call) == 5
        assert (tmp_path / "cleaned").exists()

    async def test_kills_one_that_does_not_end(self, process: Callable[..., Process]) -> None:
        call = process("exec sleep 60", timeout=0.1)
        await call.start()
        begun = time.monotonic()
        assert await cancel.abandon(call) == -9
        assert time.monotonic() - begun < 2 * SLOWNESS
        assert await cancel.abandon(call) == -9

    async def test_exec_that_only_copies_streams_is_not_waited_for(self, process: Callable[..., Process]) -> None:
        call = process("exec sleep 60", timeout=20)
        await call.start()
        with within(5):
            assert await cancel.abandon(call, kill_when_alone=True) == -9

    async def test_one_that_was_never_started(self, process: Callable[..., Process]) -> None:
        assert await cancel.abandon(process("exit 0")) is None


def test_children_of_all_threads_and_of_nobody() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert child.pid in children(os.getpid())
    finally:
        child.kill()
        child.wait()
    assert children(child.pid) == []
    assert children(2**22 + 1) == []


class TestWhatCannotBeExecuted:
    async def test_a_script_whose_interpreter_is_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "runc"
        path.write_text("#!/no/such/interpreter\n")
        path.chmod(0o755)
        with pytest.raises(ExecutorError, match=f"{path} cannot be executed: its interpreter is missing"):
            await Runc(path).version()

    async def test_a_working_directory_that_is_missing(self, tmp_path: Path, runtime_path: Path) -> None:
        with pytest.raises(OSError, match="work_dir cannot be entered: No such file"):
            await Runc(runtime_path, work_dir=tmp_path / "missing").version()

    async def test_an_executor_that_gives_nothing(self) -> None:
        class Nothing(Executor):
            def executable(self) -> Executable:
                return Executable(argv=("runc",))

            def __repr__(self) -> str:
                return "Nothing()"

        with pytest.raises(ExecutorError, match=r"Nothing\(\) gave neither a path nor a descriptor"):
            await Runc(Nothing()).version()

    async def test_pdeathsig_without_its_launcher(
        self, runtime_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ExecutorError, match=r"setpriv .Debian package util-linux."):
            await Runc(runtime_path, pdeathsig="KILL").version()


def test_paths_are_seen_from_the_working_directory_of_the_runtime(runtime_path: Path) -> None:
    settings = Settings(PathExecutor(runtime_path), work_dir="/work")
    assert (settings.resolve("a"), settings.resolve("/a"), settings.resolve("../a")) == ("/work/a", "/a", "/a")
    assert Settings(PathExecutor(runtime_path)).resolve("a") == str(Path.cwd() / "a")
