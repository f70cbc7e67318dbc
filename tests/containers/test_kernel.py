"""What depends on the kernel that most users have: cgroup v2 with its controllers, PSI, a shared ``/``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import default_spec, temporary_bundle

from .._cgroups import VERSION_2, cgroup_file, needs_controllers
from .._leaks import CGROUPS
from .._slowness import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from runc_async import Runc

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: what is proved here is what the kernel and systemd do."""
    return "asyncio"


needs_version_2 = pytest.mark.skipif(not VERSION_2, reason="this cgroup layout is version 1: `make test-vm` has 2")


@needs_version_2
@pytest.mark.parametrize(
    ("keyword", "value", "file", "content"),
    [
        ("memory", 40 << 20, "memory.max", str(40 << 20)),
        ("memory_reservation", 16 << 20, "memory.low", str(16 << 20)),
        ("pids_limit", 17, "pids.max", "17"),
        ("cpu_quota", 25000, "cpu.max", "25000 100000"),
        ("cpuset_cpus", "0", "cpuset.cpus", "0"),
        ("cpuset_mems", "0", "cpuset.mems", "0"),
        ("cpu_idle", 1, "cpu.idle", "1"),
    ],
)
async def test_a_value_of_update_reaches_version_2(
    runc: Runc, running: str, runtime_name: str, keyword: str, value: Any, file: str, content: str
) -> None:
    needs_controllers("memory", "pids", "cpu", "cpuset")
    if (runtime_name, keyword) == ("crun", "cpu_idle"):
        pytest.skip("crun's update has no flag for cpu.idle: run with runc")
    await runc.update(running, **{keyword: value})  # type: ignore[misc]
    assert cgroup_file(running, file, file) == content


@needs_version_2
async def test_statistics_tell_how_long_processes_waited(runc: Runc, running: str, runtime_name: str) -> None:
    needs_controllers("memory", "cpu", "io")
    if runtime_name != "runc":
        pytest.skip("only runc has statistics")
    if not os.path.exists("/proc/pressure/memory"):
        pytest.skip("this kernel measures no pressure: it needs CONFIG_PSI")
    stats = await runc.stats(running)
    for part in (stats.cpu, stats.memory):
        assert part.psi is not None
        assert part.psi.some.total >= 0
    assert stats.memory.psi is not None
    assert stats.memory.psi.full.avg10 >= 0


@needs_version_2
async def test_a_pause_stops_the_processes_of_cgroups_below_the_containers_own(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with runc.container(container_id, make_bundle("sh", "-c", "sleep 100 & wait")) as container:
        await container.start()
        with within(5):
            while len(pids := await runc.ps(container_id)) < 2:
                await anyio.sleep(0.01)
        (inner,) = re.findall(r"^0::/(.*)$", Path(f"/proc/{container.pid}/cgroup").read_text(), re.MULTILINE)
        below = CGROUPS / inner / "below"
        below.mkdir()
        try:
            (below / "cgroup.procs").write_text(str(max(pids)))
            await runc.pause(container_id)
            with within(5):
                while "frozen 1" not in (below / "cgroup.events").read_text():
                    await anyio.sleep(0.01)
            await runc.resume(container_id)
            with within(5):
                while "frozen 0" not in (below / "cgroup.events").read_text():
                    await anyio.sleep(0.01)
            os.kill(max(pids), 9)
            await container.wait()
        finally:
            with within(5):
                while "populated 1" in (below / "cgroup.events").read_text():
                    await anyio.sleep(0.01)
            below.rmdir()


async def test_no_mount_of_a_container_is_seen_outside_where_the_root_is_shared(
    runc: Runc, rootfs: Path, container_id: str, tmp_path: Path
) -> None:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    if not any(line.split()[4] == "/" and "shared:" in line for line in lines):
        pytest.skip("/ is not a shared mount here: `make test-vm` has one")
    spec = default_spec(["sleep", "100"], mounts=[f"{tmp_path}:/tmp"], rootless=False)
    async with temporary_bundle(spec, rootfs=rootfs) as bundle, runc.container(container_id, bundle) as container:
        await container.start()
        now = Path("/proc/self/mountinfo").read_text().splitlines()
        assert [line for line in now if line not in lines] == []
