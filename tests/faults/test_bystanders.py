"""Whatever becomes of a call, what belongs to others is not harmed: an id proves nothing."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from runc_async import CommandError, Runc
from runc_async._linux import cgroups
from runc_async._linux.procfs import children

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runc_async import Call

pytestmark = pytest.mark.anyio

MOMENTS = int(os.environ.get("RUNC_ASYNC_KILLS", "6"))
CONTROLLER_NAMES = ["memory", "pids", "systemd", "system.slice", "docker", "unified", "init.scope"]


class Bystanders:
    """Processes of others, in cgroups that are named like a container: at several depths, in every hierarchy."""

    def __init__(self, id: str) -> None:
        self._id = id
        self._folders: list[Path] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def add(self) -> None:
        """Add one process for each depth, in a cgroup of every hierarchy that lets us."""
        for depth in ("other-{0}/{1}", "other-{0}/a/{1}/b"):
            process = subprocess.Popen(["sleep", "600"], start_new_session=True)
            self._processes.append(process)
            for hierarchy in cgroups.hierarchies():
                folder = Path(hierarchy.point, depth.format(os.getpid(), self._id))
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    for above in [*reversed(folder.relative_to(hierarchy.point).parents), None]:
                        self._fill_cpuset(folder if above is None else Path(hierarchy.point, above))
                    (folder / "cgroup.procs").write_text(str(process.pid))
                except OSError:
                    continue
                self._folders.append(folder)
        assert self._folders

    @staticmethod
    def _fill_cpuset(folder: Path) -> None:
        for name in ("cpuset.cpus", "cpuset.mems"):
            file = folder / name
            if file.exists() and not file.read_text().strip():
                file.write_text((folder.parent / name).read_text())

    def assert_unharmed(self) -> None:
        """All processes live, in the same cgroups."""
        for process in self._processes:
            assert process.poll() is None, "a stranger's process was killed"
        for folder in self._folders:
            assert folder.is_dir(), f"a stranger's cgroup was removed: {folder}"
            assert (folder / "cgroup.procs").read_text().strip()

    def remove(self) -> None:
        """Take them away again."""
        for process in self._processes:
            process.kill()
            process.wait()
        for folder in self._folders:
            for path in (folder, *list(folder.parents)[:3]):
                with contextlib.suppress(OSError):
                    path.rmdir()


@pytest.fixture
def bystanders() -> Iterator[Callable[[str], Bystanders]]:
    """Makes bystanders of an id."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make cgroups: run the suite as root")
    made: list[Bystanders] = []

    def make(id: str) -> Bystanders:
        new = Bystanders(id)
        made.append(new)
        new.add()
        return new

    yield make
    for one in made:
        one.remove()


@pytest.fixture
async def twin(
    runtime_path: Path, tmp_path: Path, make_bundle: Callable[..., Path]
) -> Callable[[str], contextlib.AbstractAsyncContextManager[None]]:
    """A healthy container of the same id under another root, with cgroups of its own."""

    @contextlib.asynccontextmanager
    async def run(id: str):  # type: ignore[no-untyped-def]
        other = Runc(runtime_path, root=tmp_path / "other-root")

        def elsewhere(spec: dict[str, object]) -> None:
            spec["linux"]["cgroupsPath"] = f"/other-root-{os.getpid()}/{id}"  # type: ignore[index]

        async with other.container(id, make_bundle("sleep", "600", spec=elsewhere)) as container:
            await container.start()
            yield
            assert (await container.state()).status == "running", "the container of another root was harmed"
        for hierarchy in cgroups.hierarchies():
            with contextlib.suppress(OSError):
                os.rmdir(f"{hierarchy.point}/other-root-{os.getpid()}")

    return run


async def kill_runtime_after(delay: float, known: set[int]) -> None:
    """Kill the runtime process that is started next."""
    await anyio.sleep(delay)
    started: set[int] = set()
    with anyio.move_on_after(2):
        while not started:
            started = set(children(os.getpid())) - known
            await anyio.lowlevel.checkpoint()
    for pid in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["killed", "cancelled"])
@pytest.mark.parametrize("command", ["create", "run", "exec", "delete"])
async def test_at_every_moment_of_a_call(
    runc: Runc,
    make_bundle: Callable[..., Path],
    new_id: Callable[[], str],
    bystanders: Callable[[str], Bystanders],
    twin: Callable[[str], contextlib.AbstractAsyncContextManager[None]],
    command: str,
    how: str,
) -> None:
    bundle = make_bundle("sleep", "0.03" if command == "run" else "600")
    for moment in range(MOMENTS):
        id = new_id()
        older = bystanders(id)
        async with twin(id):
            if command in ("exec", "delete"):
                await runc.run(id, bundle, detach=True)
            calls = {
                "create": lambda id=id: runc.create(id, bundle),
                "run": lambda id=id: runc.run(id, bundle),
                "exec": lambda id=id: runc.exec(id, ["sleep", "0.03"]),
                "delete": lambda id=id: runc.delete(id, force=True),
            }
            delay = 0.08 * (moment + random.random()) / MOMENTS
            younger: list[Bystanders] = []
            if how == "cancelled":
                with anyio.move_on_after(delay):
                    await calls[command]()
                younger.append(bystanders(id))
            else:
                known = set(children(os.getpid()))
                async with anyio.create_task_group() as group:
                    group.start_soon(kill_runtime_after, delay, known)
                    with contextlib.suppress(CommandError):
                        await calls[command]()
                    group.cancel_scope.cancel()
            await runc.delete(id, force=True)
            for one in (older, *younger):
                one.assert_unharmed()


@pytest.mark.parametrize("id", CONTROLLER_NAMES)
async def test_an_id_that_is_the_name_of_a_controller(
    fake_runtime: Callable[[str], Path],
    make_bundle: Callable[..., Path],
    bystanders: Callable[[str], Bystanders],
    id: str,
) -> None:
    others = bystanders(id)
    bundle = make_bundle("true")
    for script in ("kill -KILL $$", "exit 2", "exec sleep 60"):
        runc = Runc(fake_runtime(script), cleanup_timeout=0.3)
        with anyio.move_on_after(0.2), contextlib.suppress(CommandError):
            await runc.create(id, bundle)
    others.assert_unharmed()


async def test_a_normal_end_makes_no_call_by_the_id_that_somebody_may_have_taken(
    runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], container_id: str
) -> None:
    """A program that ends with 2, the status of a Go program that crashes: the id is taken as soon as it is free."""
    calls: list[Call] = []
    runc = Runc(runtime_path, root=state_root, trace=calls.append)
    other = Runc(runtime_path, root=state_root)
    taken = False

    async def take() -> None:
        nonlocal taken
        while not taken:
            try:
                await other.create(container_id, make_bundle("sleep", "60"))
            except CommandError:
                await anyio.lowlevel.checkpoint()
            else:
                taken = True

    async with anyio.create_task_group() as group:
        running = anyio.Event()

        async def run() -> None:
            running.set()
            with contextlib.suppress(CommandError):  # the other was faster
                assert await runc.run(container_id, make_bundle("sh", "-c", "sleep 0.1; exit 2")) == 2

        group.start_soon(run)
        await running.wait()
        await anyio.sleep(0.05)
        await take()
    assert [call.argv[-2] for call in calls if "delete" in call.argv] == []
    assert (await other.state(container_id)).status == "created"
    await other.delete(container_id, force=True)


async def test_a_container_outlives_its_executor_and_is_taken_down_all_the_same(
    runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], container_id: str
) -> None:
    from runc_async import ExecutorError, FdExecutor

    executor = FdExecutor.open(runtime_path)
    runc = Runc(executor, root=state_root)
    async with runc.container(container_id, make_bundle("sleep", "60")) as container:
        executor.close()
        await container.start()
        assert (await container.run(["echo", "works"])).stdout == b"works\n"
        with pytest.raises(ExecutorError, match="closed"):
            await runc.list()
    assert not (state_root / container_id).exists()


async def test_a_small_limit_on_file_sizes_leaves_nothing(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, state_root: Path
) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        async with runc.container(container_id, make_bundle("sleep", "60")) as container:
            await container.start()
            assert (await container.run(["echo", "works"])).stdout == b"works\n"
            assert len(await runc.list()) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (state_root / container_id).exists()


async def test_cgroups_of_a_bundles_own_path_that_are_briefly_busy_do_not_stay(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    path = f"/{container_id}-own/below"

    def elsewhere(spec: dict[str, object]) -> None:
        spec["linux"]["cgroupsPath"] = path  # type: ignore[index]

    guests: list[subprocess.Popen[bytes]] = []
    async with runc.container(container_id, make_bundle("sleep", "60", spec=elsewhere)) as container:
        await container.start()
        found = [Path(folder) for folder in cgroups.cgroups_of(container.pid).values() if folder.endswith(path)]
        guest = subprocess.Popen(["sleep", "0.4"])
        guests.append(guest)
        (found[0] / "cgroup.procs").write_text(str(guest.pid))
    for process in guests:
        process.wait()
    deadline = time.monotonic() + 5
    while any(folder.exists() for folder in found) and time.monotonic() < deadline:
        await anyio.sleep(0.01)
    assert not any(folder.exists() for folder in found)
    for folder in found:
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


@pytest.mark.parametrize("command", ["create", "run"])
async def test_a_hook_that_runs_when_the_call_is_cancelled_goes_with_all_it_has_started(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, tmp_path: Path, command: str
) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\nsleep 3131 & sleep 3131 & touch {tmp_path}/begun\nsleep 3131\n")
    hook.chmod(0o755)

    def hooked(spec: dict[str, object]) -> None:
        spec["hooks"] = {"createRuntime": [{"path": str(hook)}]}

    async with anyio.create_task_group() as group:
        group.start_soon(getattr(runc, command), container_id, make_bundle("sleep", "60", spec=hooked))
        with anyio.fail_after(20):
            while not (tmp_path / "begun").exists():
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    running = subprocess.run(["pgrep", "-f", "^sleep 3131$"], capture_output=True, text=True, check=False)
    assert running.stdout == ""
    assert await runc.list() == []


@pytest.mark.parametrize("command", ["create", "run"])
async def test_a_limit_that_cannot_be_set_leaves_no_cgroup(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, command: str
) -> None:
    def limited(spec: dict[str, object]) -> None:
        spec["linux"]["resources"] = {"cpu": {"cpus": "99999"}}  # type: ignore[index]

    with pytest.raises(CommandError):
        await getattr(runc, command)(container_id, make_bundle("true", spec=limited))
    for hierarchy in cgroups.hierarchies():
        assert not Path(hierarchy.point, container_id).exists()


@pytest.mark.parametrize("how", ["killed", "cancelled"])
async def test_at_every_moment_of_a_restore(
    runc: Runc,
    make_bundle: Callable[..., Path],
    new_id: Callable[[], str],
    bystanders: Callable[[str], Bystanders],
    twin: Callable[[str], contextlib.AbstractAsyncContextManager[None]],
    tmp_path: Path,
    how: str,
    runtime_name: str,
) -> None:
    if shutil.which("criu") is None:
        pytest.skip("no criu found: `apt-get install criu` (CRIU 4 is in Debian sid)")
    if runtime_name != "runc":
        pytest.skip("crun 1.28 cannot restore every container: run with runc")
    source, image = new_id(), tmp_path / "image"
    bundle = make_bundle("sleep", "600")
    await runc.run(source, bundle, detach=True)
    await runc.checkpoint(source, image_path=image)
    for moment in range(MOMENTS):
        id = new_id()
        others = bystanders(id)
        async with twin(id):
            delay = 0.3 * (moment + random.random()) / MOMENTS

            async def restore(id: str = id) -> None:
                await runc.restore(id, bundle, image_path=image, detach=True, work_path=tmp_path)

            if how == "cancelled":
                with anyio.move_on_after(delay):
                    await restore()
            else:
                known = set(children(os.getpid()))
                async with anyio.create_task_group() as group:
                    group.start_soon(kill_runtime_after, delay, known)
                    with contextlib.suppress(CommandError):
                        await restore()
                    group.cancel_scope.cancel()
            await runc.delete(id, force=True)
            others.assert_unharmed()
