"""Jobs from their start to their result: streams, files, stops, cancellations, errors."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import CommandError, Job, Runc, Subreaper, Verdict, default_spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_the_result_has_output_input_times_and_use(runc: Runc, make_job: Callable[..., Job]) -> None:
    result = await runc.execute(make_job("cat; echo bad >&2; sleep 0.1", input=b"good"))
    assert (result.stdout, result.stderr, result.status) == (b"good", b"bad\n", 0)
    assert result
    assert result.wall >= 0.1
    assert result.started.tzinfo is not None
    assert result.usage.cpu is None or result.usage.cpu >= 0


async def test_without_input_stdin_is_empty(runc: Runc, make_job: Callable[..., Job]) -> None:
    assert (await runc.execute(make_job("cat; echo end"))).stdout == b"end\n"


async def test_input_that_is_not_read_does_no_harm(runc: Runc, make_job: Callable[..., Job]) -> None:
    assert await runc.execute(make_job("exit 0", input=bytes(1 << 20)))


async def test_with_tail_the_last_bytes_are_kept(runc: Runc, make_job: Callable[..., Job]) -> None:
    result = await runc.execute(make_job("head -c 100000 /dev/zero; echo end", output_limit=10, tail=True))
    assert result
    assert result.stdout == bytes(6) + b"end\n"
    assert result.stdout_dropped == 99_994


async def test_files_go_in_and_come_out(runc: Runc, make_job: Callable[..., Job], tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/leaf").write_text("leaf")
    job = make_job(
        "cd /work; cat in.txt tree/leaf > out.txt; mkdir -p sub/deep; echo 1 > sub/deep/a.log; echo 2 > sub/b.log;"
        "ln -s /etc/shadow link.txt; mkfifo fifo.txt",
        work="1M",
        files={"in.txt": b"in ", "tree": tmp_path / "tree"},
        collect=["*.txt", "sub", "absent"],
    )
    result = await runc.execute(job)
    assert result, result
    assert result.files == {
        "in.txt": b"in ", "out.txt": b"in leaf", "sub/deep/a.log": b"1\n", "sub/b.log": b"2\n"
    }  # fmt: skip
    assert sorted(result.refused) == ["absent", "fifo.txt", "link.txt"]


async def test_the_work_directory_belongs_to_the_program(runc: Runc, make_job: Callable[..., Job]) -> None:
    job = make_job("cd /work && cat a && echo b > b && id -u", work="1M", user="1000:1000", files={"a": b"a\n"})
    assert (await runc.execute(job)).stdout == b"a\n1000\n"


async def test_files_come_out_of_a_job_that_was_ended(runc: Runc, make_job: Callable[..., Job]) -> None:
    result = await runc.execute(make_job("echo x > /work/x; sleep 100", work="1M", collect=["x"], timeout=0.5))
    assert (result.verdict, result.files) == (Verdict.TIMED_OUT, {"x": b"x\n"})


async def test_a_running_job_is_read_looked_at_and_stopped(runc: Runc, make_job: Callable[..., Job]) -> None:
    async with runc.launch(make_job("echo one; echo two >&2; sleep 100")) as running:
        assert await running.stdout.receive() == b"one\n"
        assert await running.stderr.receive() == b"two\n"
        await running.usage()
        assert (await running.container.state()).status == "running"
        result = await running.stop()
        assert result is await running.result()
        with pytest.raises(anyio.EndOfStream):
            await running.stdout.receive()
    assert (result.verdict, result.status) == (Verdict.STOPPED, 137)
    assert (result.stdout, result.stderr) == (b"one\n", b"two\n")


async def test_streams_that_nobody_reads_stop_nothing_and_are_there_afterwards(
    runc: Runc, make_job: Callable[..., Job]
) -> None:
    async with runc.launch(make_job("head -c 500000 /dev/zero")) as running:
        result = await running.result()
        read = b"".join([chunk async for chunk in running.stdout])
    assert result.stdout == read == bytes(500_000)


async def test_a_context_that_is_left_early_leaves_no_container(
    runc: Runc, make_job: Callable[..., Job], ids: Callable[[], Any]
) -> None:
    async with runc.launch(make_job("sleep 100")) as running:
        assert len(await ids()) == 1
    assert await ids() == []
    with pytest.raises(RuntimeError, match="context was left"):
        await running.result()


async def test_an_error_in_the_context_goes_on_as_it_is(runc: Runc, make_job: Callable[..., Job]) -> None:
    with pytest.raises(ZeroDivisionError):
        async with runc.launch(make_job("sleep 100")):
            raise ZeroDivisionError


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.1, 0.3])
async def test_a_cancelled_caller_leaves_nothing(
    delay: float, runc: Runc, make_job: Callable[..., Job], ids: Callable[[], Any]
) -> None:
    with anyio.move_on_after(delay) as scope:
        await runc.execute(make_job("sleep 100", work="1M", files={"a": b"a"}, collect=["a"], input=b"x"))
    assert scope.cancelled_caught
    assert await ids() == []


async def test_the_users_own_subreaper_is_used(runtime_path: Path, state_root: Path, rootfs: Path) -> None:
    async with Subreaper() as monitor:
        runc = Runc(runtime_path, root=state_root, monitor=monitor)
        result = await runc.execute(Job(default_spec(["sh", "-c", "exit 7"]), rootfs))
    assert result.status == 7


async def test_many_at_once(runc: Runc, make_job: Callable[..., Job], ids: Callable[[], Any]) -> None:
    found: dict[int, int | None] = {}

    async def one(number: int) -> None:
        found[number] = (await runc.execute(make_job(f"exit {number}"))).status

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(one, number)
    assert found == {number: number for number in range(10)}
    assert await ids() == []


async def test_a_failure_of_the_runtime_raises(runc: Runc, rootfs: Path, ids: Callable[[], Any]) -> None:
    with pytest.raises(CommandError, match="nothing-like-this"):
        await runc.execute(Job(default_spec(["nothing-like-this"]), rootfs))
    assert await ids() == []


async def test_a_file_that_cannot_be_written_raises_and_leaves_nothing(
    runc: Runc, make_job: Callable[..., Job], ids: Callable[[], Any]
) -> None:
    with pytest.raises(OSError, match="No space"):
        await runc.execute(make_job("exit 0", work=4096, files={"big": bytes(1 << 20)}))
    assert await ids() == []


def test_a_job_can_be_pickled(make_job: Callable[..., Job]) -> None:
    job = make_job("exit 0", files={"a": b"a"}, input=b"in", work="1M", collect=["a"])
    assert pickle.loads(pickle.dumps(job)) == job
