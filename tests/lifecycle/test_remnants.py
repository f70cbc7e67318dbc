"""Taking a container down, and clearing what a killed runtime left of one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async._lifecycle.remnants import (
    clear_remnants,
    kill_by_file,
    leads_pid_namespace,
    remove,
    sweep_cgroups,
    unmount_cgyard,
    unmount_remnants,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runc_async import Runc
    from runc_async._lifecycle.runner import Road

pytestmark = pytest.mark.anyio


@pytest.fixture
def road(runc: Runc) -> Road:
    """The road of the client's calls."""
    return runc._road


def in_cgroups(name: str) -> list[Path]:
    """The cgroups of this name, in every hierarchy."""
    return [Path(folder) for folder, _, _ in os.walk("/sys/fs/cgroup") if os.path.basename(folder) == name]


@pytest.mark.parametrize("state", ["created", "running", "paused", "stopped", "none"])
async def test_remove_in_every_state(
    runc: Runc, road: Road, make_bundle: Callable[..., Path], container_id: str, state: str
) -> None:
    if state != "none":
        await runc.create(container_id, make_bundle("sleep", "60"))
    if state in ("running", "paused", "stopped"):
        await runc.start(container_id)
    if state == "paused":
        await runc.pause(container_id)
    if state == "stopped":
        await runc.kill(container_id, "KILL")
    await remove(road, container_id)
    assert await runc.list() == []
    assert in_cgroups(container_id) == []


async def test_whether_a_process_leads_a_pid_namespace(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with runc.container(container_id, make_bundle("sleep", "60")) as container:
        assert leads_pid_namespace(container.pid)
        await container.start()
        async with container.exec(["sleep", "60"]) as process:
            assert not leads_pid_namespace(process.pid)
    assert not leads_pid_namespace(os.getpid())
    assert not leads_pid_namespace(2**22 + 1)


class TestClearRemnants:
    async def test_a_container_that_lost_its_state(
        self, runc: Runc, road: Road, state_root: Path, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        begun = time.time_ns()
        await runc.create(container_id, make_bundle("sleep", "60"))
        pid = (await runc.state(container_id)).pid
        for file in (state_root / container_id).iterdir():
            file.unlink()
        await clear_remnants(road, container_id, begun)
        assert not (state_root / container_id).exists()
        assert in_cgroups(container_id) == []
        assert not is_running(pid)

    async def test_one_that_is_older_than_the_call_is_somebody_elses(
        self, runc: Runc, road: Road, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        async with runc.container(container_id, make_bundle("sleep", "60")) as container:
            await clear_remnants(road, container_id, time.time_ns())
            assert (await container.state()).status == "created"


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


class TestSweepCgroups:
    @pytest.fixture
    def cgroup(self, container_id: str) -> Iterator[Path]:
        """A cgroup that a runtime forgot."""
        for base in ("/sys/fs/cgroup/freezer", "/sys/fs/cgroup"):
            folder = Path(base, container_id)
            if not Path(base).is_dir():
                continue
            folder.mkdir()
            yield folder
            if folder.exists():
                folder.rmdir()
            return

    def complaint(self, *folders: Path) -> bytes:
        """As runc logs it."""
        text = "".join(f" {folder}" for folder in folders)
        return f'{{"level":"warning","msg":"Failed to remove cgroup (will retry): rmdir{text}: device busy"}}'.encode()

    async def test_what_the_runtime_says_it_could_not_remove_is_removed(self, cgroup: Path, container_id: str) -> None:
        await sweep_cgroups(self.complaint(cgroup), container_id, 1)
        assert not cgroup.exists()

    async def test_nothing_else_is(self, cgroup: Path, container_id: str) -> None:
        await sweep_cgroups(b"", container_id, 1)
        await sweep_cgroups(self.complaint(cgroup), "another", 1)
        await sweep_cgroups(b'{"level":"info","msg":"created"}', container_id, 1)
        assert cgroup.exists()

    async def test_a_busy_one_is_tried_until_it_is_free_or_the_time_is_over(
        self, cgroup: Path, container_id: str
    ) -> None:
        process = subprocess.Popen(["sleep", "60"])
        (cgroup / "cgroup.procs").write_text(str(process.pid))
        begun = time.monotonic()
        await sweep_cgroups(self.complaint(cgroup), container_id, 0.1)
        assert 0.05 < time.monotonic() - begun < 2
        assert cgroup.exists()

        async def end() -> None:
            await anyio.sleep(0.05)
            process.kill()
            process.wait()

        async with anyio.create_task_group() as group:
            group.start_soon(end)
            await sweep_cgroups(self.complaint(cgroup), container_id, 5)
        assert not cgroup.exists()


class TestUnmountRemnants:
    @pytest.fixture
    def mount(self, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
        """Bind-mounts a file, as runc 1.1's init does with its own binary."""
        if os.getuid() != 0:
            pytest.skip("needs root to mount: run the suite as root")
        made: list[Path] = []

        def mount(name: str) -> Path:
            point = tmp_path / name
            point.parent.mkdir(parents=True, exist_ok=True)
            point.touch()
            subprocess.run(["mount", "--bind", "/bin/true", point], check=True)
            made.append(point)
            return point

        yield mount
        for point in made:
            subprocess.run(["umount", point], check=False, stderr=subprocess.DEVNULL)

    async def test_a_remnant_is_unmounted_and_removed(self, mount: Callable[[str], Path], container_id: str) -> None:
        point = mount(f"{container_id}/runc.AbC123")
        assert await unmount_remnants(container_id)
        assert not point.exists()

    async def test_what_is_another_containers_or_no_remnant_stays(
        self, mount: Callable[[str], Path], container_id: str
    ) -> None:
        points = [mount("another/runc.AbC123"), mount(f"{container_id}/rootfs"), mount(f"{container_id}/runc.AbC1234")]
        assert not await unmount_remnants(container_id)
        assert all(os.path.ismount(point) or point.stat().st_size for point in points)

    async def test_what_is_there_in_passing_is_left_alone(
        self, mount: Callable[[str], Path], container_id: str
    ) -> None:
        point = mount(f"{container_id}/runc.AbC123")

        async def passes() -> None:
            await anyio.sleep(0.01)
            subprocess.run(["umount", point], check=True)

        async with anyio.create_task_group() as group:
            group.start_soon(passes)
            await unmount_remnants(container_id)
        assert point.exists()


@pytest.mark.parametrize("older", [False, True])
def test_unmount_cgyard(tmp_path: Path, older: bool) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to mount: run the suite as root")
    begun = time.time_ns()
    time.sleep(0.02)  # the kernel's clock for files is coarse
    yard = tmp_path / ".criu.cgyard.AbC123"
    for folder in (yard, yard / "cpu"):
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    (tmp_path / ".criu.cgyard.other").mkdir()
    unmount_cgyard(str(tmp_path), time.time_ns() + 10**9 if older else begun)
    assert yard.exists() == older
    if older:
        subprocess.run(["umount", "--recursive", yard], check=True)


def test_kill_by_file(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    file = tmp_path / "pid"
    file.write_text(str(process.pid))
    kill_by_file(file)
    assert process.wait() == -signal.SIGKILL
    kill_by_file(tmp_path / "missing")
    file.write_text("")
    kill_by_file(file)


async def test_removing_does_not_poll(
    runc: Runc,
    road: Road,
    make_bundle: Callable[..., Path],
    new_id: Callable[[], str],
    record_property: Any,
    runtime_name: str,
) -> None:
    """``delete --force`` looks every 100 ms whether a container has ended; ours is told. Printed, for a quiet day."""
    if runtime_name != "runc":
        pytest.skip("crun's delete --force does not poll")
    bundle = make_bundle("sleep", "60")

    async def seconds(call: Callable[[str], Any]) -> float:
        id = new_id()
        await runc.run(id, bundle, detach=True)
        begun = time.monotonic()
        await call(id)
        return time.monotonic() - begun

    ours = sorted([await seconds(lambda id: remove(road, id)) for _ in range(3)])[1]
    forced = sorted([await seconds(lambda id: runc.delete(id, force=True)) for _ in range(3)])[1]
    record_property("teardown_ms", {"ours": ours * 1000, "delete --force": forced * 1000})
    print(f"median teardown: {ours * 1000:.1f} ms; delete --force: {forced * 1000:.1f} ms")
    assert ours < 2 * forced
