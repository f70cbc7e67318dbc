"""`Pool`: hits, misses, refills, ages, failures, and what is left of it: nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import Job, Pool, Runc, RuncError, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def shell(make_job: Callable[..., Job]) -> Callable[..., Job]:
    """Makes a job whose program does what its stdin says."""
    return lambda **keywords: make_job("exec sh", **keywords)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    while not condition():
        await anyio.sleep(0.01)


@pytest.mark.parametrize("started", [False, True], ids=["created", "started"])
async def test_hits_misses_and_refills(
    started: bool, runc: Runc, shell: Callable[..., Job], ids: Callable[[], Any]
) -> None:
    async with Pool(runc, shell(), size=2, started=started) as pool:
        assert pool.ready == 0
        await pool.fill()
        assert pool.ready == 2
        seen = set()
        for number in range(5):
            result = await pool.execute(input=f"echo {number}; hostname; exit {number}".encode())
            assert result.stdout.splitlines()[0] == str(number).encode()
            assert (result.status, result.verdict) == (number, Verdict.EXITED)
            seen.add(result.started)
        await pool.fill()
        assert pool.hits + pool.misses == 5
        assert pool.hits >= 2
        assert pool.failures == 0
    assert pool.ready == 0
    assert await ids() == []


async def test_an_empty_pool_creates_what_is_needed(runc: Runc, shell: Callable[..., Job]) -> None:
    async with Pool(runc, shell(), size=0) as pool:
        assert (await pool.execute(input=b"exit 3")).status == 3
        assert (pool.hits, pool.misses, pool.ready) == (0, 1, 0)


@pytest.mark.parametrize("started", [False, True], ids=["created", "started"])
async def test_each_container_is_used_once(started: bool, runc: Runc, shell: Callable[..., Job]) -> None:
    async with Pool(runc, shell(work="1M"), size=1, started=started) as pool:
        for _ in range(3):
            await pool.fill()
            result = await pool.execute(input=b"ls /work; echo x > /work/trace; echo x > /tmp/trace; ls /tmp")
            assert result.stdout == b"trace\n"


@pytest.mark.parametrize("started", [False, True], ids=["created", "started"])
async def test_files_of_the_job_and_of_a_run(started: bool, runc: Runc, shell: Callable[..., Job]) -> None:
    job = shell(work="1M", files={"all": b"all"}, collect=["out"], input=b"cat /work/all /work/one > /work/out")
    async with Pool(runc, job, size=1, started=started) as pool:
        for _ in range(2):
            await pool.fill()
            result = await pool.execute(files={"one": b" one"})
            assert result.files == {"out": b"all one"}, result


async def test_time_and_use_of_a_container_that_was_started_in_advance_count_from_the_hit(
    runc: Runc, shell: Callable[..., Job]
) -> None:
    job = shell(timeout=0.5)
    async with Pool(runc, job, size=1, started=True) as pool:
        await pool.fill()
        await anyio.sleep(0.7)
        result = await pool.execute(input=b"exit 0")
        assert result.verdict is Verdict.EXITED, result
        await pool.fill()
        assert (await pool.execute(input=b"sleep 100")).verdict is Verdict.TIMED_OUT


async def test_many_callers_at_once(runc: Runc, shell: Callable[..., Job], ids: Callable[[], Any]) -> None:
    found: dict[int, int | None] = {}
    async with Pool(runc, shell(), size=3) as pool:
        await pool.fill()

        async def one(number: int) -> None:
            found[number] = (await pool.execute(input=b"exit %d" % number)).status

        async with anyio.create_task_group() as group:
            for number in range(12):
                group.start_soon(one, number)
        assert pool.hits >= 3
        assert pool.hits + pool.misses == 12
    assert found == {number: number for number in range(12)}
    assert await ids() == []


async def test_resize(runc: Runc, shell: Callable[..., Job], ids: Callable[[], Any]) -> None:
    async with Pool(runc, shell(), size=1) as pool:
        await pool.resize(3)
        await pool.fill()
        assert len(await ids()) == pool.ready == 3
        await pool.resize(1)
        assert len(await ids()) == pool.ready == 1
        with pytest.raises(ValueError, match="negative"):
            await pool.resize(-1)


async def test_old_containers_are_replaced(runc: Runc, shell: Callable[..., Job], ids: Callable[[], Any]) -> None:
    async with Pool(runc, shell(), size=1, max_age=1.0) as pool:
        await pool.fill()
        (first,) = await ids()
        while first in await ids():
            await anyio.sleep(0.05)
        await pool.fill()
        assert await pool.execute(input=b"exit 0")


async def test_containers_that_somebody_has_ended_are_not_used(
    runc: Runc, shell: Callable[..., Job], ids: Callable[[], Any]
) -> None:
    async with Pool(runc, shell(), size=1, started=True) as pool:
        await pool.fill()
        (first,) = await ids()
        await runc.kill(first, "KILL")
        while (await runc.state(first)).status != "stopped":
            await anyio.sleep(0.01)
        assert (await pool.execute(input=b"exit 4")).status == 4
        assert (pool.hits, pool.failures) == (0, 1)


async def test_a_failure_in_the_background_is_raised_to_the_next_caller(
    runc: Runc, make_job: Callable[..., Job], rootfs: Path, tmp_path: Path
) -> None:
    job = make_job("exit 0", files={"a": tmp_path / "absent"}, work="1M")
    async with Pool(runc, job, size=1) as pool:
        await until(lambda: pool.failures > 0)
        with pytest.raises(FileNotFoundError, match="absent"):
            await pool.execute()
        assert pool.misses == 0
        (tmp_path / "absent").write_text("here")
        await until(lambda: pool.ready == 1)
        assert await pool.execute()


async def test_a_pool_that_is_left_stops_what_runs(
    runc: Runc, shell: Callable[..., Job], ids: Callable[[], Any]
) -> None:
    results = []
    async with anyio.create_task_group() as group, Pool(runc, shell(), size=1) as pool:
        await pool.fill()

        async def one() -> None:
            results.append(await pool.execute(input=b"echo begun; sleep 100"))

        group.start_soon(one)
        group.start_soon(one)
        while sum([b"sleep" in await _commands(runc, id) for id in await ids()]) < 2:
            await anyio.sleep(0.02)
    assert [(result.verdict, result.stdout) for result in results] == [(Verdict.STOPPED, b"begun\n")] * 2
    assert await ids() == []


async def _commands(runc: Runc, id: str) -> bytes:
    from pathlib import Path

    try:
        pids = await runc.ps(id)
        return b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
    except (RuncError, OSError):
        return b""


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1, 0.4])
@pytest.mark.parametrize("started", [False, True], ids=["created", "started"])
async def test_a_cancelled_pool_leaves_nothing(
    delay: float, started: bool, runc: Runc, shell: Callable[..., Job], ids: Callable[[], Any]
) -> None:
    with anyio.move_on_after(delay) as scope:
        async with Pool(runc, shell(), size=3, started=started) as pool, anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(lambda: pool.execute(input=b"sleep 100"))
    assert scope.cancelled_caught
    assert await ids() == []


async def test_a_cancelled_caller_leaves_the_pool_as_it_is(runc: Runc, shell: Callable[..., Job]) -> None:
    async with Pool(runc, shell(), size=1) as pool:
        await pool.fill()
        with anyio.move_on_after(0.1):
            await pool.execute(input=b"sleep 100")
        await pool.fill()
        assert await pool.execute(input=b"exit 0")


async def test_launch_gives_the_streams(runc: Runc, shell: Callable[..., Job]) -> None:
    async with Pool(runc, shell(), size=1, started=True) as pool:
        await pool.fill()
        async with pool.launch(input=b"echo one; sleep 100") as running:
            assert await running.stdout.receive() == b"one\n"
            assert (await running.stop()).verdict is Verdict.STOPPED
        await pool.fill()
        async with pool.launch(input=b"sleep 100"):
            pass
        with pytest.raises(ZeroDivisionError):
            async with pool.launch(input=b"sleep 100"):
                raise ZeroDivisionError


async def test_a_pool_is_used_inside_its_context_only(runc: Runc, shell: Callable[..., Job]) -> None:
    pool = Pool(runc, shell(), size=1)
    with pytest.raises(RuntimeError, match="not entered"):
        await pool.execute()
    async with pool:
        pass
    with pytest.raises(RuntimeError, match="was left"):
        await pool.execute()
    with pytest.raises(RuntimeError, match="entered once"):
        await pool.__aenter__()


def test_numbers_that_cannot_be_right_are_refused(runc: Runc, shell: Callable[..., Job]) -> None:
    with pytest.raises(ValueError, match="size must not be negative"):
        Pool(runc, shell(), size=-1)
    with pytest.raises(ValueError, match="max_age must be a positive"):
        Pool(runc, shell(), max_age=0)
