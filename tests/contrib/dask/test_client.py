"""`Containers`: jobs in, typed results out."""

from __future__ import annotations

import glob
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import CommandError, Verdict
from runc_async.contrib.dask import Containers, Job, JobCancelledError, Output, Result

from ..._cgroups import has_controller
from ..._slowness import within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from distributed import LocalCluster

pytestmark = pytest.mark.anyio


async def test_a_result_has_all_that_is_known(
    containers: Containers, job: Callable[..., Job], cluster: LocalCluster
) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do i=$((i + 1)); done; read word; echo got $word; echo oops >&2; exit 3"
    result = await containers.run(job(script, {"memory": "64M"} if has_controller("memory") else {}, input=b"it\n"))
    assert (result.status, result.verdict, result.attempt) == (3, Verdict.EXITED, 1)
    assert (result.stdout, result.stderr) == (b"got it\n", b"oops\n")
    assert result.worker in cluster.scheduler.workers
    assert result.started < result.ended
    assert result.usage.cpu is not None
    assert 0 < result.usage.cpu < 10
    if has_controller("memory"):
        assert result.usage.memory_peak is not None
        assert 0 < result.usage.memory_peak < 1 << 30


async def test_output_is_kept_up_to_its_limit(containers: Containers, job: Callable[..., Job]) -> None:
    result = await containers.run(job("seq 1 100000; echo end >&2", output_limit=10, tail=True))
    whole = "".join(f"{number}\n" for number in range(1, 100001)).encode()
    assert result.stdout == whole[-10:]
    assert result.stdout_dropped == len(whole) - 10
    assert (result.stderr, result.stderr_dropped) == (b"end\n", 0)


async def test_a_time_limit(containers: Containers, job: Callable[..., Job]) -> None:
    result = await containers.run(job("echo begun; sleep 60", timeout=0.3))
    assert (result.verdict, result.status, result.stdout) == (Verdict.TIMED_OUT, 137, b"begun\n")


async def test_a_job_that_cannot_be_run_says_why(containers: Containers, job: Callable[..., Job]) -> None:
    wrong = job("true")
    wrong.spec["process"]["args"] = ["no-such-program"]
    with pytest.raises(CommandError, match="no-such-program"):
        await containers.run(wrong)
    with pytest.raises(NotADirectoryError):
        await containers.run(Job(job("true").spec, "/no/such/root"))


class TestMany:
    async def test_results_come_as_jobs_end(self, containers: Containers, job: Callable[..., Job]) -> None:
        scripts = {"slow": "sleep 1; echo slow", "quick": "echo quick; exit 4"}
        ended = []
        async with containers.results([job(script) for script in scripts.values()]) as results:
            async for done, result in results:
                assert isinstance(result, Result)
                assert done.spec["process"]["args"][2].endswith(
                    result.stdout.decode().strip().replace("quick", "exit 4")
                )
                ended.append(result.stdout.decode().strip())
        assert ended == ["quick", "slow"]

    async def test_jobs_are_taken_as_there_is_room(self, containers: Containers, job: Callable[..., Job]) -> None:
        taken = 0

        async def endless() -> AsyncIterator[Job]:
            nonlocal taken
            while True:
                taken += 1
                yield job(f"exit {taken % 5}")

        seen = []
        async with containers.results(endless(), ahead=4) as results:
            async for done, result in results:
                assert isinstance(result, Result)
                assert f"exit {result.status}" == done.spec["process"]["args"][2]
                seen.append(result)
                assert taken <= len(seen) + 10  # four that run, four that wait to be read, one that waits for room
                if len(seen) == 12:
                    break
        assert len(seen) == 12

    async def test_one_that_fails_does_not_end_the_others(
        self, containers: Containers, job: Callable[..., Job]
    ) -> None:
        jobs = [job("exit 1"), Job(job("true").spec, "/no/such/root"), job("exit 2")]
        found = {}
        async with containers.results(jobs) as results:
            async for done, result in results:
                found[jobs.index(done)] = result
        assert isinstance(found[1], NotADirectoryError)
        assert [getattr(found[number], "status", None) for number in (0, 2)] == [1, 2]


class TestFollow:
    async def test_output_as_it_comes(self, containers: Containers, job: Callable[..., Job], tmp_path: Path) -> None:
        gate = tmp_path / "gate"
        gate.mkdir()
        script = "echo one; until [ -e /gate/open ]; do sleep 0.05; done; echo two; echo three >&2"
        seen: list[Output] = []
        with containers.submit(job(script, {"mounts": [f"{gate}:/gate:ro"]})) as submitted:
            async for output in submitted.output():
                seen.append(output)
                (gate / "open").touch()  # it goes on only when its first word has arrived
            assert (await submitted.result()).stdout == b"one\ntwo\n"
        whole = {stream: b"".join(o.data for o in seen if o.stream == stream) for stream in ("stdout", "stderr")}
        assert whole == {"stdout": b"one\ntwo\n", "stderr": b"three\n"}
        assert {(output.dropped, output.attempt) for output in seen} == {(0, 1)}

    async def test_what_came_too_fast_is_counted(self, containers: Containers, job: Callable[..., Job]) -> None:
        with containers.submit(job("seq 1 20000", output_limit=100, tail=True)) as submitted:
            seen = [output async for output in submitted.output()]
        whole = sum(len(f"{number}\n") for number in range(1, 20001))
        assert sum(len(output.data) + output.dropped for output in seen) == whole
        assert seen[-1].data.endswith(b"\n20000\n")

    async def test_of_a_job_that_has_ended(self, containers: Containers, job: Callable[..., Job]) -> None:
        with containers.submit(job("echo all")) as submitted:
            await submitted.result()
            assert [output.data async for output in submitted.output()] == [b"all\n"]


class TestCancel:
    async def running(self, folder: Path) -> list[str]:
        """Wait until a container is there."""
        with within(10):
            while not (found := glob.glob(f"{folder}/workers/*/containers/*")):
                await anyio.sleep(0.01)
        return found

    async def gone(self, folder: Path) -> None:
        """Wait until none is there."""
        with within(10):
            while glob.glob(f"{folder}/workers/*/containers/*") or glob.glob(f"{folder}/workers/*/bundles/*"):
                await anyio.sleep(0.01)

    async def test_kills_the_container(self, containers: Containers, job: Callable[..., Job], tmp_path: Path) -> None:
        with containers.submit(job("sleep 60")) as submitted:
            await self.running(tmp_path)
            await submitted.cancel()
            with pytest.raises(JobCancelledError):
                await submitted.result()
            await self.gone(tmp_path)
        assert (await containers.run(job("exit 7"))).status == 7  # the worker's resources are free again

    async def test_by_leaving(self, containers: Containers, job: Callable[..., Job], tmp_path: Path) -> None:
        with containers.submit(job("sleep 60")):
            await self.running(tmp_path)
        await self.gone(tmp_path)
        with anyio.move_on_after(1):
            await containers.run(job("sleep 60"))
        await self.gone(tmp_path)
        async with containers.results([job("sleep 60") for _ in range(6)]):
            await self.running(tmp_path)
        await self.gone(tmp_path)

    async def test_one_that_has_not_begun(self, containers: Containers, job: Callable[..., Job]) -> None:
        with containers.submit(job("true"), resources={"no such thing": 1}) as submitted:
            await submitted.cancel()
            with pytest.raises(JobCancelledError):
                await submitted.result()


def test_the_client_must_be_asynchronous() -> None:
    class Synchronous:
        asynchronous = False

    with pytest.raises(ValueError, match="asynchronous=True"):
        Containers(Synchronous())  # type: ignore[arg-type]
