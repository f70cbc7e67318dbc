"""What a container uses: read from its own cgroups, while it runs, after its end, and after its removal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import PipeIO
from runc_async._linux.cgroups import open_cgroups
from runc_async._usage import CONTROLLERS, V1, Usage, UsageReader

from ._cgroups import VERSION_2, has_controller, needs_controllers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runc_async import Runc

pytestmark = pytest.mark.anyio

COUNTED = {name for name, source in V1.items() if has_controller(source.controller)}
if VERSION_2:
    COUNTED |= {"cpu", "cpu_user", "cpu_system"}
BURN = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
MEMORY = "dd if=/dev/zero of=/dev/null bs=24M count=1 2>/dev/null"


def limits(**resources: Any) -> Callable[[dict[str, Any]], None]:
    """Changes a specification: these resources are limited."""

    def change(spec: dict[str, Any]) -> None:
        spec["linux"]["resources"] = resources

    return change


async def test_cpu_time_grows_and_is_of_the_whole_container_also_after_its_end_and_its_removal(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    if not VERSION_2:
        needs_controllers("cpuacct")
    async with runc.container(container_id, make_bundle("sh", "-c", f"({BURN}) & ({BURN}) & wait")) as container:
        with UsageReader.open(container.pid) as reader:
            before = reader.read()
            assert before.cpu is not None
            await container.start()
            await container.wait()
            used = reader.read().since(before)
            assert used.cpu is not None
            assert used.cpu > 0.05
            assert used.cpu_user is not None
            assert used.cpu_user > 0.02
            after = reader.read()
            assert after.cpu == pytest.approx((after.cpu_user or 0) + (after.cpu_system or 0), abs=1e-5)
            assert reader.cpu() == after.cpu
            await container.stop()
            await runc.delete(container_id, force=True)
            assert reader.read().cpu == reader.cpu() == after.cpu  # what was read last
        assert reader.read().cpu == after.cpu


async def test_memory_is_counted_and_its_peak_can_be_forgotten(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    needs_controllers("memory")
    script = f"{MEMORY}; echo done; sleep 60"
    io = PipeIO(stdin=False, stderr=False)
    async with runc.container(container_id, make_bundle("sh", "-c", script), io=io) as container:
        with UsageReader.open(container.pid) as reader:
            await container.start()
            assert await io.stdout.receive() == b"done\n"
            usage = reader.read()
            assert usage.memory is not None
            assert usage.memory_peak is not None
            assert usage.memory_peak > 20 << 20
            assert usage.memory < 20 << 20
            assert usage.oom_kills == reader.oom_kills() == 0
            assert reader.forget_peak()
            assert (reader.read().memory_peak or 0) < 20 << 20


async def test_a_kill_for_want_of_memory_is_counted_between_the_end_and_the_removal(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    needs_controllers("memory")
    # The program itself goes on: only its child is killed.
    bundle = make_bundle("sh", "-c", f"{MEMORY}; exit 0", spec=limits(memory={"limit": 8 << 20}))
    async with runc.container(container_id, bundle) as container:
        with UsageReader.open(container.pid) as reader:
            await container.start()
            await container.wait()
            assert reader.oom_kills() == reader.read().oom_kills == 1


async def test_an_exit_says_whether_any_process_was_killed_for_want_of_memory(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str]
) -> None:
    for script, size, killed in ((MEMORY, 8, True), (f"{MEMORY}; exit 0", 8, True), (MEMORY, 64, False)):
        resources = {"memory": {"limit": size << 20}} if has_controller("memory") else {}
        async with runc.container(new_id(), make_bundle("sh", "-c", script, spec=limits(**resources))) as container:
            await container.start()
            end = await container.wait()
            assert end.oom_killed is (killed if has_controller("memory") else None)
            if has_controller("memory"):
                assert ((await container.usage()).oom_kills or 0) == int(killed)


async def test_of_a_container_that_was_deleted_meanwhile_nothing_is_guessed(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with runc.container(container_id, make_bundle("sleep", "60")) as container:
        await container.start()
        before = await container.usage()
        await runc.delete(container_id, force=True)
        assert (await container.wait()).oom_killed is None
        assert await container.usage() == before


async def test_the_use_of_a_container_that_was_attached_to(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    if not VERSION_2:
        needs_controllers("cpuacct")
    await runc.create(container_id, make_bundle("sh", "-c", BURN))
    async with runc.attach(container_id, delete=True) as container:
        await container.start()
        await container.wait()
        assert ((await container.usage()).cpu or 0) > 0.02


async def test_processes_and_how_often_their_limit_was_hit(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    needs_controllers("pids")
    io = PipeIO(stdout=False, stderr=False)
    script = "(for i in 1 2 3 4 5 6 7 8; do sleep 60 & done) & read line"  # a shell that can start none ends
    bundle = make_bundle("sh", "-c", script, spec=limits(pids={"limit": 5}))
    async with runc.container(container_id, bundle, io=io) as container:
        with UsageReader.open(container.pid) as reader:
            await container.start()
            with anyio.fail_after(20):
                while not reader.read().pids_limit_hits:
                    await anyio.sleep(0.01)
            usage = reader.read()
            assert usage.pids is not None
            assert 1 <= usage.pids <= 5
            if "pids_peak" in COUNTED and usage.pids_peak is not None:
                assert usage.pids <= usage.pids_peak
            await io.stdin.aclose()
            await container.wait()
            assert reader.read().pids in (0, 1)  # its init may wait to be reaped


async def test_waiting_for_cpu_time_is_counted(runc: Runc, make_bundle: Callable[..., Path], container_id: str) -> None:
    needs_controllers("cpu", "cpuacct")
    bundle = make_bundle("sh", "-c", BURN, spec=limits(cpu={"quota": 5000, "period": 50000}))
    async with runc.container(container_id, bundle) as container:
        with UsageReader.open(container.pid) as reader:
            await container.start()
            await container.wait()
            usage = reader.read()
            assert usage.throttled is not None
            assert usage.throttled > 0.01


async def test_what_is_counted_here_has_a_value_and_the_rest_a_reason(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with runc.container(container_id, make_bundle("true")) as container:
        with UsageReader.open(container.pid) as reader:
            usage, reasons = reader.read(), reader.reasons()
    for name in Usage.__struct_fields__:
        assert (getattr(usage, name) is None) == (name in reasons), name
    assert {*reasons} - {"pids_peak"} == {*Usage.__struct_fields__} - COUNTED - {"pids_peak"}


async def test_the_cgroups_of_others_at_the_same_paths_are_not_read(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    if not VERSION_2:
        needs_controllers("cpuacct")
    async with runc.container(container_id, make_bundle("sh", "-c", BURN)) as container:
        reader = UsageReader.open(container.pid)
        await container.start()
        await container.wait()
        used = reader.read()
    async with runc.container(container_id, make_bundle("sh", "-c", f"{BURN}; {BURN}")) as container:
        await container.start()
        await container.wait()
        assert reader.read() == used
    reader.close()


def test_a_process_in_this_processs_cgroups_has_none_that_are_counted() -> None:
    with UsageReader.open(os.getpid()) as reader:
        assert reader.read() == Usage()
        assert reader.cpu() is None
        assert reader.oom_kills() is None
        assert not reader.forget_peak()
        assert {*reader.reasons()} == {*Usage.__struct_fields__}


async def test_only_what_is_read_stays_open(runc: Runc, make_bundle: Callable[..., Path], container_id: str) -> None:
    async with runc.container(container_id, make_bundle("true")) as container:
        before = len(os.listdir("/proc/self/fd"))
        all_of_them = open_cgroups(container.pid, CONTROLLERS)
        for fd in all_of_them.values():
            os.close(fd)
        with UsageReader.open(container.pid) as reader:
            held = len(os.listdir("/proc/self/fd")) - before
            assert 1 <= held <= min(4, len(all_of_them))
        reader.close()
        assert len(os.listdir("/proc/self/fd")) == before


FILES = {
    "cgroup.controllers": "cpu memory pids\n",
    "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 5\nthrottled_usec 250000\n",
    "memory.current": "4096\n",
    "memory.peak": "8192\n",
    "memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n",
    "pids.current": "3\n",
    "pids.peak": "5\n",
    "pids.events": "max 7\n",
}


class TestVersion2:
    """With every controller, which this suite has no machine for: files as the kernel writes them."""

    @pytest.fixture
    def reader(self, tmp_path: Path) -> Any:
        for name, content in FILES.items():
            (tmp_path / name).write_text(content)
        with UsageReader({(): os.open(tmp_path, os.O_PATH)}) as reader:
            yield reader

    def test_every_value_is_read(self, reader: UsageReader) -> None:
        assert reader.read() == Usage(
            cpu=1.5,
            cpu_user=1.0,
            cpu_system=0.5,
            memory=4096,
            memory_peak=8192,
            oom_kills=1,
            pids=3,
            pids_peak=5,
            pids_limit_hits=7,
            throttled=0.25,
        )
        assert reader.reasons() == {}

    def test_the_peak_is_forgotten_for_one_descriptor_that_stays_open(
        self, reader: UsageReader, tmp_path: Path
    ) -> None:
        assert reader.forget_peak()
        assert reader.forget_peak()
        assert os.readlink(f"/proc/self/fd/{reader._peak}") == str(tmp_path / "memory.peak")

    def test_what_is_missing_has_a_reason(self, reader: UsageReader, tmp_path: Path) -> None:
        (tmp_path / "cgroup.controllers").write_text("memory\n")
        for name in ("pids.current", "pids.peak", "pids.events", "memory.peak"):
            (tmp_path / name).unlink()
        (tmp_path / "cpu.stat").write_text("usage_usec 0\nuser_usec 0\nsystem_usec 0\n")
        reasons = reader.reasons()
        assert reasons["memory_peak"] == "this kernel has no memory.peak (Linux 5.19 and newer have)"
        assert reasons["pids"] == "the controller pids is not enabled in the container's cgroup"
        assert reasons["throttled"] == "the controller cpu is not enabled in the container's cgroup"
        assert {*reasons} == {"memory_peak", "pids", "pids_peak", "pids_limit_hits", "throttled"}


def test_the_use_since_a_moment_subtracts_what_only_grows() -> None:
    before = Usage(cpu=1.0, oom_kills=1, memory_peak=10)
    now = Usage(cpu=3.0, oom_kills=1, memory_peak=20, pids=2, throttled=1.0)
    assert now.since(before) == Usage(cpu=2.0, oom_kills=0, memory_peak=20, pids=2, throttled=1.0)
    assert Usage().since(before) == Usage()
