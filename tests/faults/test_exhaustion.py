"""Calls that run out of descriptors, processes, disk: the right error at every step, and nothing left."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import CommandError, ConsoleSocket, PathExecutor, PipeIO, Runc, SealedExecutor

from .._cgroups import VERSION_2, needs_controllers
from .._leaks import CGROUPS
from .._ordinary import run_as_ordinary_user

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator

pytestmark = pytest.mark.anyio

ENOUGH = 40
"""Free descriptors with which every call succeeds."""


@contextlib.contextmanager
def free_descriptors(count: int) -> Generator[None]:
    """Leave this process exactly so many."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + ENOUGH + 1, limits[1]))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def whatever_is_free(call: Callable[[], Awaitable[object]]) -> list[int]:
    """Call with no free descriptor, one, two, … until it succeeds; the errors' numbers."""
    errors: list[int] = []
    for count in range(ENOUGH):
        with free_descriptors(count):
            try:
                await call()
            except OSError as exc:
                errors.append(exc.errno or 0)
            else:
                break
    else:
        pytest.fail(f"it still failed with {ENOUGH} free descriptors")
    return errors


@pytest.mark.parametrize("executor", ["path", "held", "sealed"])
async def test_a_plain_command_out_of_descriptors(
    runc: Runc, sealed: SealedExecutor, runtime_path: Path, state_root: Path, executor: str
) -> None:
    client = {
        "path": Runc(PathExecutor(runtime_path), root=state_root),
        "held": runc,
        "sealed": Runc(sealed, root=state_root),
    }[executor]
    await client.version()  # what is opened once, is open
    errors = await whatever_is_free(client.version)
    assert len(errors) >= 5
    assert set(errors) == {errno.EMFILE}


async def test_run_with_pipes_and_preserved_files_out_of_descriptors(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str]
) -> None:
    bundle = make_bundle("true")

    async def call() -> None:
        async with PipeIO() as io:
            assert await runc.run(new_id(), bundle, io=io, preserve_fds=[0, 1]) == 0

    await call()
    errors = await whatever_is_free(call)
    assert len(errors) >= 12
    assert set(errors) == {errno.EMFILE}
    assert await runc.list() == []


async def test_a_container_and_its_processes_out_of_descriptors(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str]
) -> None:
    bundle = make_bundle("sleep", "60")

    async def call() -> None:
        async with runc.container(new_id(), bundle) as container:
            await container.start()
            assert (await container.run(["echo", "x"])).stdout == b"x\n"
            async with container.exec(["sleep", "60"]) as process:
                await process.kill(9)

    await call()
    errors = await whatever_is_free(call)
    assert len(errors) >= 10
    assert set(errors) == {errno.EMFILE}
    assert await runc.list() == []


async def test_a_console_out_of_descriptors(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str]
) -> None:
    bundle = make_bundle("true", terminal=True)

    async def call() -> None:
        async with ConsoleSocket() as socket, runc.container(new_id(), bundle, console_socket=socket):
            await (await socket.receive()).aclose()

    await call()
    errors = await whatever_is_free(call)
    assert len(errors) >= 6
    assert set(errors) == {errno.EMFILE}
    assert await runc.list() == []


# As another user, since root has no limit of processes.
WITHOUT_PROCESSES = """
    import errno, os, resource, sys
    import anyio
    from runc_async import FdExecutor, PathExecutor, Runc

    async def main():
        held = FdExecutor.open(sys.argv[2])
        await Runc(held).version()
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        for executor in (held, PathExecutor(sys.argv[2])):
            for options in ({}, {"work_dir": "/"}):
                try:
                    await Runc(executor, **options).version()
                except OSError as exc:
                    assert exc.errno == errno.EAGAIN, exc
                else:
                    sys.exit("a process was started")
        assert sorted(map(int, os.listdir("/proc/self/fd"))) == sorted(before), os.listdir("/proc/self/fd")
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            print("EAGAIN and no child")

    before = []

    async def around():
        held = FdExecutor.open(sys.argv[2])
        await Runc(held).version()
        before.extend(map(int, os.listdir("/proc/self/fd")))
        held.close()
        await main()

    options = {"use_uvloop": True} if sys.argv[1] == "uvloop" else {}
    anyio.run(around, backend="trio" if sys.argv[1] == "trio" else "asyncio", backend_options=options)
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
def test_out_of_processes(loop: str, runtime_path: Path) -> None:
    ended = run_as_ordinary_user(WITHOUT_PROCESSES, loop, runtime_path)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("EAGAIN and no child\n", "", 0)


@pytest.fixture
def pids(new_id: Callable[[], str]) -> Iterator[Path]:
    """A cgroup that this process is in, whose number of processes can be limited by its ``pids.max``."""
    if os.getuid() != 0:
        pytest.skip("needs root, to make a cgroup: run the suite as root")
    needs_controllers("pids")
    base = CGROUPS if VERSION_2 else CGROUPS / "pids"
    if VERSION_2:
        (base / "cgroup.subtree_control").write_text("+pids")
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next(
        path for line in lines for _, names, path in [line.split(":", 2)] if names == ("" if VERSION_2 else "pids")
    )
    folder = base / new_id()
    folder.mkdir()
    (folder / "cgroup.procs").write_text(str(os.getpid()))
    yield folder
    (folder / "pids.max").write_text("max")
    (Path(f"{base}{own}") / "cgroup.procs").write_text(str(os.getpid()))
    folder.rmdir()


def threads() -> int:
    """How many this process has: a cgroup counts them, too."""
    return len(os.listdir("/proc/self/task"))


async def test_out_of_processes_at_every_step(
    pids: Path, runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str]
) -> None:
    """A runtime needs a dozen threads and children of its own; each is refused once."""
    bundle = make_bundle("sleep", "60")
    other = new_id()
    async with runc.container(other, bundle) as untouched:
        await untouched.start()
        outcomes: list[str] = []
        for free in range(30):
            (pids / "pids.max").write_text(str(threads() + 1 + free))  # init of the other is one more
            id = new_id()
            try:
                async with runc.container(id, bundle) as container:
                    await container.start()
                    (pids / "pids.max").write_text("max")
            except (CommandError, BlockingIOError) as exc:
                outcomes.append(str(exc))
            else:
                outcomes.append("")
            (pids / "pids.max").write_text("max")
            assert [state.id for state in await runc.list()] == [other]
        assert (await untouched.state()).status == "running"
    assert outcomes[0]
    assert not outcomes[-1]


async def test_removal_waits_until_a_process_is_free(
    pids: Path, runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async def free() -> None:
        await anyio.sleep(0.3)
        (pids / "pids.max").write_text("max")

    async with anyio.create_task_group() as group, runc.container(container_id, make_bundle("sleep", "60")):
        (pids / "pids.max").write_text(str(threads() + 3))
        group.start_soon(free)
    assert await runc.list() == []


async def test_a_removal_for_which_no_process_is_ever_free_says_so_in_time(
    pids: Path, runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], container_id: str
) -> None:
    runc = Runc(runtime_path, root=state_root, cleanup_timeout=0.3)
    with pytest.raises(TimeoutError, match=f"{container_id} could not be removed within 0.3 s"):
        async with runc.container(container_id, make_bundle("sleep", "60")):
            (pids / "pids.max").write_text(str(threads()))
    (pids / "pids.max").write_text("max")
    assert (await runc.state(container_id)).status == "stopped"  # it was killed, at least
    await runc.delete(container_id, force=True)


@pytest.fixture
def full_disk(tmp_path: Path) -> Any:
    """A file system without room."""
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", folder], check=False)
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs: run the suite as root")
    with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_disk_below_the_root(
    full_disk: Path, runtime_path: Path, make_bundle: Callable[..., Path], container_id: str
) -> None:
    runc = Runc(runtime_path, root=full_disk / "root")
    bundle = make_bundle("true")
    reason = "(?i:no space left)|unable to store init state"
    with pytest.raises(CommandError, match=reason):
        await runc.create(container_id, bundle)
    with pytest.raises(CommandError, match=reason):
        await runc.run(container_id, bundle)
    with pytest.raises(CommandError, match=reason):
        async with runc.container(container_id, bundle):
            pytest.fail("it was created")
    assert await runc.list() == []
    assert {path.name for path in (full_disk / "root").iterdir()} == set()
