"""`Container`: created on entering, gone on leaving by any road; its processes, its end, and taking it over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import (
    CommandError,
    ConsoleSocket,
    Container,
    ContainerNotRunningError,
    DecodeError,
    PipeIO,
    Runc,
    Subreaper,
    UnsupportedError,
)

from ._slowness import SLOWNESS, within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from runc_async import Exit

pytestmark = pytest.mark.anyio


@pytest.fixture
async def reaping(runtime_path: Path, state_root: Path) -> AsyncIterator[Runc]:
    """A client that knows exit statuses."""
    async with Subreaper() as monitor:
        yield Runc(runtime_path, root=state_root, monitor=monitor)


async def has_stats(container: Container) -> bool:
    """Whether the runtime has ``events`` (crun has not), and the cgroup a controller of pids."""
    try:
        await container.stats()
    except (UnsupportedError, DecodeError):
        return False
    lines = Path(f"/proc/{container.pid}/cgroup").read_text().splitlines()
    return any("pids" in line.split(":")[1].split(",") for line in lines)


def share_pids(spec: dict[str, Any]) -> None:
    """No pid namespace of its own: the container's processes are the host's."""
    spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "pid"]


async def test_its_life(reaping: Runc, make_bundle: Callable[..., Path], container_id: str) -> None:
    async with reaping.container(container_id, make_bundle("sh", "-c", "exit 7"), io=PipeIO()) as container:
        assert container.id == container_id
        assert (await container.state()).status == "created"
        assert (await container.state()).pid == container.pid
        await container.start()
        ended = await container.wait()
        assert (ended.pid, ended.status) == (container.pid, 7)
        assert (await container.state()).status == "stopped"
    assert await reaping.list() == []


async def test_many_tasks_wait_at_once_and_again_afterwards(
    reaping: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    exits: list[Exit] = []
    async with reaping.container(container_id, make_bundle("sleep", "60")) as container:
        await container.start()

        async def wait() -> None:
            exits.append(await container.wait())

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(wait)
            with anyio.move_on_after(0.02):
                await container.wait()  # one that gives up disturbs nobody
            await container.kill("KILL")
        exits.append(await container.wait())
    assert len(exits) == 21
    assert {(ended.status, ended.timestamp) for ended in exits} == {(137, exits[0].timestamp)}


async def test_the_time_of_its_end_is_when_it_ended_not_when_somebody_asked(
    reaping: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with reaping.container(container_id, make_bundle("true")) as container:
        begun = datetime.now(UTC)
        await container.start()
        await anyio.sleep(0.5)
        ended = await container.wait()
    assert begun <= ended.timestamp <= begun + timedelta(seconds=0.45)
    assert ended.timestamp.tzinfo is not None


async def test_the_time_of_a_further_processs_end_is_when_it_ended(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with runc.container(container_id, make_bundle("sleep", "60")) as container:
        await container.start()
        async with container.exec(["sleep", "60"]) as process:
            before = datetime.now(UTC)
            await process.kill("KILL")
            await anyio.sleep(0.5)
            ended = await process.wait()
    assert before <= ended.timestamp <= before + timedelta(seconds=0.45)


class TestRun:
    async def test_is_what_subprocess_run_is(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        async with runc.container(container_id, make_bundle("sleep", "60")) as container:
            await container.start()
            done = await container.run(
                ["sh", "-c", "cat; echo $WORD:$PATH:$(pwd):$(id -u):$(id -g); echo err >&2; exit 3"],
                input="in\n",
                env={"WORD": "hello"},
                cwd="/tmp",
                user="12:34",
            )
            assert done.args[0] == "sh"
            assert (done.status, done.stdout, done.stderr) == (3, b"in\nhello:/bin:/tmp:12:34\n", b"err\n")
            assert (await container.run(["cat"])).stdout == b""
            assert (await container.run(["sh", "-c", "kill -9 $$"])).status == 137

    async def test_much_in_and_much_out(self, runc: Runc, make_bundle: Callable[..., Path], container_id: str) -> None:
        data = os.urandom(3 << 20)
        async with runc.container(container_id, make_bundle("sleep", "60")) as container:
            await container.start()
            done = await container.run(
                ["sh", "-c", "cat; head -c 2000000 /dev/zero >&2"], input=data, output_limit=None
            )
            assert done.stdout == data
            assert done.stderr == bytes(2_000_000)
            assert (await container.run(["true"], input=data)).status == 0  # nobody reads it

    async def test_cancelled_it_does_not_wait_for_what_was_left_behind(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        async with runc.container(container_id, make_bundle("sleep", "60")) as container:
            await container.start()
            begun = time.monotonic()
            with anyio.move_on_after(0.3):
                await container.run(["sh", "-c", "sleep 60 & echo done"])
            assert time.monotonic() - begun < 3 * SLOWNESS

    async def test_errors_say_what_is_wrong(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        async with runc.container(container_id, make_bundle("true")) as container:
            await container.start()
            await container.wait()
            with pytest.raises(ContainerNotRunningError):
                await container.run(["true"])
        async with runc.container(container_id, make_bundle("sleep", "60")) as container:
            await container.start()
            with pytest.raises(CommandError, match="nosuch"):
                await container.run(["nosuch"])
            with pytest.raises(TypeError, match="one string"):
                await container.run("ls -l")


class TestExec:
    async def test_a_live_process_with_streams(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        async with runc.container(container_id, make_bundle("sleep", "60")) as container:
            await container.start()
            async with container.exec(["cat"], io=PipeIO()) as process:
                assert process.io is not None
                assert process.pid in await runc.ps(container_id)
                for word in (b"one", b"two"):
                    await process.io.stdin.send(word)  # type: ignore[attr-defined]
                    assert await process.io.stdout.receive() == word  # type: ignore[attr-defined]
                await process.io.stdin.aclose()  # type: ignore[attr-defined]
                assert (await process.wait()).status == 0
                with pytest.raises(ProcessLookupError):
                    await process.kill()
                assert (await process.wait()).status == 0
            assert await runc.ps(container_id) == [container.pid]

    async def test_leaving_kills_it(self, runc: Runc, make_bundle: Callable[..., Path], container_id: str) -> None:
        async with runc.container(container_id, make_bundle("sleep", "60")) as container:
            await container.start()
            with pytest.raises(KeyError):  # noqa: PT012
                async with container.exec(["sleep", "60"]) as process:
                    pid = process.pid
                    raise KeyError
            assert pid not in await runc.ps(container_id)
            async with container.exec({"args": ["sleep", "60"], "cwd": "/", "env": ["PATH=/bin"]}) as process:
                await process.kill("TERM")
                assert (await process.wait()).status == 143

    async def test_with_a_terminal(self, reaping: Runc, make_bundle: Callable[..., Path], container_id: str) -> None:
        async with reaping.container(container_id, make_bundle("sleep", "60")) as container:
            await container.start()
            async with ConsoleSocket() as sock:
                async with (
                    container.exec(["sh"], tty=True, console_socket=sock) as process,
                    await sock.receive() as console,
                ):
                    assert process.pid in await reaping.ps(container_id)
                    await console.send(b"exit 7\n")
                    assert (await process.wait()).status == 7
                async with container.exec(["sleep", "60"], tty=True, console_socket=sock) as process:
                    (await sock.receive()).close()
                    assert (await process.wait()).status == 129  # hung up
                async with container.exec(["true"], tty=True, console_socket=sock) as process:
                    assert (await process.wait()).status == 0
                    (await sock.receive()).close()
                async with container.exec(["sleep", "60"], tty=True, console_socket=sock):
                    (await sock.receive()).close()
            assert await reaping.ps(container_id) == [container.pid]

    async def test_with_a_terminal_cancelled_at_once(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        async with runc.container(container_id, make_bundle("sleep", "60")) as container, ConsoleSocket() as sock:
            await container.start()
            for delay in (0.0, 0.01, 0.02, 0.03):
                with anyio.move_on_after(delay) as scope:
                    async with container.exec(["sleep", "60"], tty=True, console_socket=sock):
                        await anyio.sleep_forever()
                assert scope.cancelled_caught
                assert await runc.ps(container_id) == [container.pid]

    async def test_one_that_cannot_be_executed(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        async with runc.container(container_id, make_bundle("sleep", "60")) as container:
            await container.start()
            with pytest.raises(CommandError, match="nosuch"):
                async with container.exec(["nosuch"]):
                    pytest.fail("it was executed")


async def test_pause_resume_and_stats(runc: Runc, make_bundle: Callable[..., Path], container_id: str) -> None:
    async with runc.container(container_id, make_bundle("sleep", "60")) as container:
        await container.start()
        await container.pause()
        assert (await container.state()).status == "paused"
        await container.resume()
        assert (await container.state()).status == "running"
        if await has_stats(container):
            assert (await container.stats()).pids.current >= 1


class TestStop:
    @pytest.mark.parametrize(
        ("script", "status"),
        [
            ("trap 'exit 9' TERM; echo; while true; do sleep 0.01; done", 9),
            ("trap '' TERM; echo; while true; do sleep 0.01; done", 137),
        ],
    )
    async def test_asks_waits_and_kills(
        self, reaping: Runc, make_bundle: Callable[..., Path], container_id: str, script: str, status: int
    ) -> None:
        bundle = make_bundle("sh", "-c", script)
        async with PipeIO() as io, reaping.container(container_id, bundle, io=io) as container:
            await container.start()
            await io.stdout.receive()
            assert (await container.stop(timeout=0.3)).status == status
            assert (await container.stop()).status == status

    async def test_by_another_signal_and_refuses_a_negative_time(
        self, reaping: Runc, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        bundle = make_bundle("sh", "-c", "trap 'exit 5' INT; echo; while true; do sleep 0.01; done")
        async with PipeIO() as io, reaping.container(container_id, bundle, io=io) as container:
            await container.start()
            await io.stdout.receive()
            with pytest.raises(ValueError, match="-1"):
                await container.stop(timeout=-1)
            assert (await container.stop(signal.SIGINT)).status == 5

    async def test_a_frozen_one(self, reaping: Runc, make_bundle: Callable[..., Path], container_id: str) -> None:
        async with reaping.container(container_id, make_bundle("sleep", "60")) as container:
            await container.start()
            await container.pause()
            assert (await container.stop(timeout=0.05)).status == 137


class TestLeaving:
    @pytest.mark.parametrize("state", ["created", "running", "paused", "stopped", "deleted"])
    async def test_leaves_nothing_in_any_state(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str, state: str
    ) -> None:
        bundle = make_bundle("true") if state == "stopped" else make_bundle("sh", "-c", "sleep 60 & sleep 60")
        with pytest.raises(LookupError):  # noqa: PT012
            async with runc.container(container_id, bundle) as container:
                if state != "created":
                    await container.start()
                if state == "paused":
                    await container.pause()
                if state == "stopped":
                    await container.wait()
                if state == "deleted":
                    await runc.delete(container_id, force=True)
                raise LookupError
        assert await runc.list() == []

    async def test_by_cancellation_and_within_its_time(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        bundle = make_bundle("sh", "-c", "trap '' TERM INT HUP; sleep 60")
        begun = time.monotonic()
        with anyio.move_on_after(0.2) as scope:
            async with runc.container(container_id, bundle) as container:
                await container.start()
                await container.wait()
        assert scope.cancelled_caught
        assert time.monotonic() - begun < 3 * SLOWNESS
        assert await runc.list() == []

    async def test_with_the_hosts_pid_namespace_every_process_is_gone(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        bundle = make_bundle("sh", "-c", "setsid sleep 60 & (setsid sleep 60 &) & sleep 60", spec=share_pids)
        async with runc.container(container_id, bundle) as container:
            await container.start()
            while len(pids := await runc.ps(container_id)) < 3:
                await anyio.sleep(0.01)
        assert [pid for pid in pids if is_alive(pid)] == []

    async def test_other_containers_stay(
        self, runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str]
    ) -> None:
        bundle = make_bundle("sleep", "60")
        async with runc.container(new_id(), bundle) as one:
            await one.start()
            async with runc.container(new_id(), bundle) as two:
                await two.start()
            assert (await one.state()).status == "running"

    async def test_what_cannot_be_removed_is_said(
        self,
        runc: Runc,
        runtime_path: Path,
        make_bundle: Callable[..., Path],
        container_id: str,
        fake_runtime: Callable[[str], Path],
    ) -> None:
        broken = Runc(
            fake_runtime(f'case "$*" in *delete*) exec sleep 60;; *) exec {runtime_path} "$@";; esac'),
            root=root_of(runc),
            cleanup_timeout=0.3,
        )
        bundle = make_bundle("sleep", "60")
        with pytest.raises(TimeoutError, match=f"{container_id} could not be removed within 0.3 s"):
            async with broken.container(container_id, bundle):
                pass
        await runc.delete(container_id, force=True)
        with pytest.raises(LookupError) as caught:
            async with broken.container(container_id, bundle):
                raise LookupError("the reason")
        assert container_id in caught.value.__notes__[0]
        await runc.delete(container_id, force=True)


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def root_of(runc: Runc) -> str:
    """The ``--root`` of a client."""
    assert runc._runner.root is not None
    return runc._runner.root


SUPERVISOR = """
    import os, signal, sys
    import anyio
    from runc_async import Runc

    async def main():
        runc = Runc(sys.argv[1], root=sys.argv[2])
        async with runc.container(sys.argv[3], sys.argv[5]) as one, runc.container(sys.argv[4], sys.argv[5]) as two:
            await one.start()
            await two.start()
            print("running", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

    anyio.run(main)
"""


class TestAttach:
    @pytest.fixture
    async def left(
        self, runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], new_id: Callable[[], str]
    ) -> tuple[str, str]:
        """Two running containers of a supervisor that was killed."""
        one, two = new_id(), new_id()
        bundle = make_bundle("sh", "-c", "trap 'exit 4' TERM; while true; do sleep 0.01; done")
        ended = await anyio.run_process(
            [sys.executable, "-c", textwrap.dedent(SUPERVISOR), runtime_path, state_root, one, two, bundle],
            check=False,
            cwd=Path(__file__).parents[1],
        )
        assert (ended.returncode, ended.stdout) == (-9, b"running\n"), ended.stderr
        return one, two

    async def test_takes_over_what_a_killed_supervisor_left(self, runc: Runc, left: tuple[str, str]) -> None:
        assert {state.id for state in await runc.list()} == set(left)
        one, two = left
        async with runc.attach(one) as container:
            assert container.pid == (await container.state()).pid
            assert (await container.run(["echo", "alive"])).stdout == b"alive\n"
        assert (await runc.state(one)).status == "running"
        async with runc.attach(one, delete=True) as first, runc.attach(two, delete=True) as second:
            await first.kill()
            ended = await first.wait()
            assert ended.status in (4, None)  # our child it is not: what the kernel tells
            assert (await second.state()).status == "running"
        assert await runc.list() == []

    async def test_one_that_has_ended(self, runc: Runc, left: tuple[str, str]) -> None:
        for id in left:
            await runc.kill(id, "KILL")
        async with runc.attach(left[0], delete=True) as one, runc.attach(left[1], delete=True) as two:
            for container in (one, two):
                with within(5):
                    await container.wait()
        assert await runc.list() == []

    async def test_half_written_state_is_found_and_cleared(self, runc: Runc, container_id: str) -> None:
        folder = Path(root_of(runc)) / container_id
        folder.mkdir(parents=True)
        (folder / "exec.fifo").touch()
        with pytest.raises(CommandError):
            await runc.state(container_id)
        await runc.delete(container_id, force=True)
        assert not folder.exists()


async def test_the_description_of_a_container_names_it(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with runc.container(container_id, make_bundle("true")) as container:
        assert repr(container) == f"<Container {container_id!r} pid={container.pid}>"


def test_the_program_ends_by_ctrl_c_and_nothing_is_left(
    runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], container_id: str
) -> None:
    program = textwrap.dedent("""
        import sys, os, signal
        import anyio
        from runc_async import Runc

        async def main():
            runc = Runc(sys.argv[1], root=sys.argv[2])
            async with runc.container(sys.argv[3], sys.argv[4]) as container:
                await container.start()
                os.kill(os.getpid(), signal.SIGINT)
                await container.wait()

        anyio.run(main, backend=sys.argv[5])
    """)
    bundle = make_bundle("sleep", "60")
    for backend in ("asyncio", "trio"):
        ended = subprocess.run(
            [sys.executable, "-c", program, runtime_path, state_root, container_id, bundle, backend],
            check=False,
            capture_output=True,
            cwd=Path(__file__).parents[1],
        )
        assert b"KeyboardInterrupt" in ended.stderr
        assert list(state_root.iterdir()) == []
