"""gVisor: everything that is done with a container, in a sandbox of Debian's runsc."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import (
    Bundle,
    BundleError,
    CommandError,
    ConsoleSocket,
    ContainerExistsError,
    ContainerNotFoundError,
    ContainerNotRunningError,
    ContainerRunningError,
    FdExecutor,
    FileIO,
    Job,
    PipeIO,
    Pool,
    Runc,
    SealedExecutor,
    Subreaper,
    UnsupportedError,
    Verdict,
    default_spec,
)
from runc_async._linux import procfs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from runc_async import Container

    MakeBundle = Callable[..., Path]

pytestmark = pytest.mark.anyio

FLAGS = ("--network=none", "--ignore-cgroups")
"""gVisor makes no cgroups then, and needs no network of its own."""
ENV = {"TMPDIR": "/tmp"}
"""Its kernel runs as nobody, who has to reach it."""


@pytest.fixture
def runsc_path() -> str:
    found = shutil.which("runsc")
    if found is None or os.geteuid() != 0:
        pytest.skip("needs root and gVisor: `apt-get install runsc` on Debian 12")
    return found


@pytest.fixture
def runsc(runsc_path: str, state_root: Path) -> Iterator[Runc]:
    """A client of gVisor, by a held descriptor."""
    with FdExecutor.open(runsc_path) as executor:
        yield Runc(executor, root=state_root, extra_args=FLAGS, env=ENV)


@pytest.fixture
async def sandbox(runsc: Runc, make_bundle: MakeBundle, container_id: str) -> AsyncIterator[Container]:
    """A running container whose init reaps what is left to it."""
    script = "trap 'exit 8' TERM; echo ready; while :; do sleep 1000 & wait; done"
    async with runsc.container(container_id, make_bundle("sh", "-c", script), io=PipeIO()) as container:
        await container.start()
        assert await container.io.stdout.receive() == b"ready\n"
        yield container


async def commands_in(runsc: Runc, container: str) -> list[str]:
    """The names of the living processes in a container."""
    table = await runsc.top(container)
    return sorted(row[table.headers.index("CMD")] for row in table.processes)


IDLE = ["sh", "sleep"]


# -- a container's life ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 5, 128, 137])
async def test_run_gives_the_programs_own_status(
    runsc: Runc, make_bundle: MakeBundle, container_id: str, status: int
) -> None:
    assert await runsc.run(container_id, make_bundle("sh", "-c", f"exit {status}")) == status
    assert await runsc.list() == []


async def test_a_program_that_is_not_there_is_an_error_and_no_status(
    runsc: Runc, make_bundle: MakeBundle, container_id: str
) -> None:
    bundle = make_bundle("no-such-program")
    with pytest.raises(CommandError, match="no-such-program") as caught:
        await runsc.run(container_id, bundle)
    assert type(caught.value) is CommandError
    await runsc.create(container_id, bundle)
    with pytest.raises(CommandError, match="no-such-program"):  # gVisor looks for the program only now
        await runsc.start(container_id)
    await runsc.delete(container_id, force=True)


async def test_each_step_of_a_containers_life(runsc: Runc, make_bundle: MakeBundle, container_id: str) -> None:
    await runsc.create(container_id, make_bundle("sleep", "1000"))
    assert (await runsc.state(container_id)).status == "created"
    with pytest.raises(ContainerNotRunningError):
        await runsc.exec(container_id, ["true"])
    await runsc.start(container_id)
    with pytest.raises(ContainerRunningError):
        await runsc.start(container_id)
    (state,) = await runsc.list()
    assert (state.id, state.status, state.pid > 0) == (container_id, "running", True)
    assert await runsc.ps(container_id) == [1]
    assert (await runsc.top(container_id)).processes[0][-1] == "sleep"
    assert (await runsc.stats(container_id)).memory.usage.usage > 0
    await runsc.pause(container_id)
    assert (await runsc.state(container_id)).status == "paused"
    with pytest.raises(ContainerNotRunningError):
        await runsc.exec(container_id, ["true"])
    await runsc.resume(container_id)
    assert await runsc.exec(container_id, ["sh", "-c", "exit 4"]) == 4
    assert await runsc.exec(container_id, ["sleep", "1000"], detach=True) == 0
    assert await runsc.ps(container_id) == [1, 3]
    await runsc.kill(container_id, "KILL")
    while (await runsc.state(container_id)).status != "stopped":
        await anyio.sleep(0.01)
    assert (await runsc.state(container_id)).pid == 0
    with pytest.raises(ContainerNotRunningError):
        await runsc.kill(container_id, "KILL")
    await runsc.delete(container_id)
    with pytest.raises(ContainerNotFoundError):
        await runsc.state(container_id)


async def test_events_come_and_end_with_the_container(runsc: Runc, sandbox: Container) -> None:
    with anyio.fail_after(60):
        async with runsc.events(sandbox.id, interval=0.2) as events:
            event = await anext(events)
            assert (event.type, event.id) == ("stats", sandbox.id)
            await sandbox.kill("KILL")
            async for _ in events:
                pass


async def test_a_container_is_stopped_and_its_status_known(sandbox: Container) -> None:
    exit = await sandbox.stop("TERM")
    assert exit.status in (8, None)  # None: nobody has reaped it in time


async def test_streams_reach_the_program(
    runsc: Runc, make_bundle: MakeBundle, container_id: str, tmp_path: Path
) -> None:
    async with runsc.container(container_id, make_bundle("cat"), io=PipeIO()) as container:
        await container.start()
        await container.io.stdin.send(b"data")
        assert await container.io.stdout.receive() == b"data"
        await container.io.stdin.aclose()
        await container.wait()
    output = tmp_path / "output"
    assert await runsc.run(container_id, make_bundle("echo", "hello"), io=FileIO(stdout=output)) == 0
    assert output.read_text() == "hello\n"


async def test_a_terminal_reaches_the_program(runsc: Runc, make_bundle: MakeBundle, container_id: str) -> None:
    async with ConsoleSocket() as socket:
        bundle = make_bundle("sh", "-c", "read line; echo got $line", terminal=True)
        async with runsc.container(container_id, bundle, console_socket=socket) as container:
            async with await socket.receive() as console:
                await container.start()
                await console.send(b"this\n")
                said = b""
                while b"got this" not in said:
                    said += await console.receive()
            await container.wait()


# -- further processes -------------------------------------------------------------------------------------


async def test_processes_run_in_it_with_their_own_user_directory_and_variables(sandbox: Container) -> None:
    done = await sandbox.run(
        ["sh", "-c", "id -u; id -g; pwd; echo $A; cat; echo err >&2; exit 7"],
        input="input\n", user="5:6", cwd="/tmp", env={"A": "b"},
    )  # fmt: skip
    assert (done.status, done.stdout, done.stderr) == (7, b"5\n6\n/tmp\nb\ninput\n", b"err\n")


async def test_a_process_is_signalled_inside(runsc: Runc, sandbox: Container) -> None:
    async with sandbox.exec(
        ["sh", "-c", "trap 'exit 9' USR1; echo on; while :; do sleep 0.1; done"], io=PipeIO()
    ) as process:
        assert await process.io.stdout.receive() == b"on\n"
        await process.kill("USR1")
        assert (await process.wait()).status == 9
        with pytest.raises(ProcessLookupError):
            await process.kill("USR1")
    assert await commands_in(runsc, sandbox.id) == IDLE


async def test_a_process_with_a_terminal_has_a_status(sandbox: Container) -> None:
    async with ConsoleSocket() as socket:
        program = ["sh", "-c", "read line; exit 6"]
        async with (
            sandbox.exec(program, tty=True, console_socket=socket) as process,
            await socket.receive() as console,
        ):
            await console.send(b"go\n")
            with anyio.fail_after(60):
                assert (await process.wait()).status in (6, None)  # None: nobody has reaped it in time


async def test_a_cancelled_process_and_its_children_are_killed_inside(runsc: Runc, sandbox: Container) -> None:
    program = ["sh", "-c", "sleep 500 & sleep 500 & echo on; sleep 500; true"]
    with anyio.move_on_after(1):
        await sandbox.run(program)
    async with sandbox.exec(program, io=PipeIO()) as process:
        assert await process.io.stdout.receive() == b"on\n"
        assert await commands_in(runsc, sandbox.id) == sorted([*IDLE, "sh", "sleep", "sleep", "sleep"])
    done = await sandbox.run(["sleep", "500"], timeout=0.3)
    assert (done.timed_out, done.status) == (True, 137)
    with anyio.move_on_after(0.3):
        await runsc.exec(sandbox.id, ["sleep", "500"])
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(sandbox.run, ["sleep", "500"])
        await anyio.sleep(0.02)  # they are at different points of their start
        group.cancel_scope.cancel()
    assert await commands_in(runsc, sandbox.id) == IDLE


# -- jobs --------------------------------------------------------------------------------------------------


def shell_job(rootfs: Path, script: str, **options: Any) -> Job:
    return Job(default_spec(["sh", "-c", script]), rootfs, **options)


async def test_a_job_gives_its_output_and_status(runsc: Runc, rootfs: Path) -> None:
    result = await runsc.execute(shell_job(rootfs, "echo out; cat; echo err >&2; exit 3", input=b"in"))
    assert (result.verdict, result.status, result.stdout, result.stderr) == (Verdict.EXITED, 3, b"out\nin", b"err\n")
    assert await runsc.list() == []


async def test_a_job_is_ended_for_its_limits(runsc: Runc, rootfs: Path) -> None:
    late = await runsc.execute(shell_job(rootfs, "sleep 1000 & sleep 1000", timeout=1))
    assert (late.verdict, late.status) == (Verdict.TIMED_OUT, 137)
    much = await runsc.execute(shell_job(rootfs, "yes", output_limit=1000))
    assert (much.verdict, len(much.stdout)) == (Verdict.OUTPUT_LIMIT, 1000)
    assert await runsc.list() == []


async def test_a_job_has_a_directory_to_write_in(runsc: Runc, rootfs: Path) -> None:
    result = await runsc.execute(shell_job(rootfs, "echo text > /tmp/file; cat /tmp/file", work="8M", work_path="/tmp"))
    assert (result.status, result.stdout) == (0, b"text\n"), result.stderr


@pytest.mark.parametrize("started", [False, True])
async def test_a_pool_hands_out_sandboxes_and_leaves_none(runsc: Runc, rootfs: Path, started: bool) -> None:
    async with Pool(runsc, Job(default_spec(["sh"]), rootfs), size=1, started=started) as pool:
        await pool.fill()
        assert (await pool.execute(input=b"echo $((6 * 7)); exit 2")).stdout == b"42\n"
        await pool.fill()
        async with pool.launch(input=b"echo first; sleep 1000") as running:
            assert await running.stdout.receive() == b"first\n"
            await running.stop()
            assert (await running.result()).verdict is Verdict.STOPPED
        assert (pool.hits, pool.misses) == (2, 0)
    assert await runsc.list() == []


async def test_files_and_overlays_are_refused_before_anything_is_started(
    runsc_path: str, runsc: Runc, rootfs: Path, state_root: Path, tmp_path: Path
) -> None:
    started: list[Any] = []
    known = Runc(runsc_path, root=state_root, extra_args=FLAGS, trace=started.append, dialect="runsc")
    files = "runsc does not show a container's files to the host"
    for job, says in (
        (shell_job(rootfs, "true", work="8M", files={"a": b""}), files),
        (shell_job(rootfs, "true", work="8M", collect=("a",)), files),
        (shell_job(rootfs, "true", writable=True), "runsc cannot mount /.*: it has no overlay"),
    ):
        with pytest.raises(UnsupportedError, match=says):
            await known.execute(job)
    bundle = Bundle.create(tmp_path / "bundle", default_spec(["true"]), rootfs=rootfs, writable=True)
    with pytest.raises(UnsupportedError, match="it has no overlay"):
        await known.run("y", bundle)
    assert started == []
    with pytest.raises(UnsupportedError, match="it has no overlay"):  # the dialect is found then
        await runsc.run("y", bundle)


async def test_the_files_of_a_container_are_not_taken_for_those_of_its_sandbox(sandbox: Container) -> None:
    with pytest.raises(UnsupportedError, match="runsc does not show a container's files"):
        sandbox.files("/tmp")


# -- what is left ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.005, 0.03, 0.06, 0.1, 0.2])
async def test_a_cancelled_start_leaves_nothing(
    runsc: Runc, make_bundle: MakeBundle, new_id: Callable[[], str], delay: float
) -> None:
    bundle = make_bundle("sleep", "1000")
    for call in (runsc.create, runsc.run):
        id = new_id()
        with anyio.move_on_after(delay) as scope:
            await call(id, bundle)
        if not scope.cancelled_caught:
            await runsc.delete(id, force=True)
    assert await runsc.list() == []


async def test_a_supervisor_knows_statuses_and_has_no_zombies(
    runsc_path: str, state_root: Path, make_bundle: MakeBundle, new_id: Callable[[], str]
) -> None:
    async with Subreaper() as monitor:
        runsc = Runc(runsc_path, root=state_root, extra_args=FLAGS, env=ENV, monitor=monitor)
        for status in (3, 0):
            assert await runsc.run(new_id(), make_bundle("sh", "-c", f"exit {status}")) == status
        async with runsc.container(new_id(), make_bundle("sh", "-c", "exit 5")) as container:
            await container.start()
            assert (await container.wait()).status == 5
        async with runsc.container(new_id(), make_bundle("sleep", "1000")) as container:
            await container.start()
            async with container.exec(["true"]) as process:
                assert (await process.wait()).status == 0
        id = new_id()
        await runsc.run(id, make_bundle("sleep", "1000"), detach=True)
        await runsc.delete(id, force=True)
        with anyio.fail_after(30):
            while procfs.children(os.getpid()):
                await anyio.sleep(0.01)


async def test_a_cancelled_job_of_a_supervisor_leaves_no_sandbox_and_no_zombie(
    runsc_path: str, state_root: Path, rootfs: Path
) -> None:
    async with Subreaper() as monitor:
        runsc = Runc(runsc_path, root=state_root, extra_args=FLAGS, env=ENV, monitor=monitor)
        assert (await runsc.execute(shell_job(rootfs, "exit 3"))).status == 3
        for delay in (0.1, 0.5):
            with anyio.move_on_after(delay) as scope:
                await runsc.execute(shell_job(rootfs, "sleep 1000 & sleep 1000"))
            assert scope.cancelled_caught
        assert await runsc.list() == []
        with anyio.fail_after(30):
            while procfs.children(os.getpid()):
                await anyio.sleep(0.01)


def test_a_supervisor_as_pid_1_has_no_zombies(runsc_path: str, state_root: Path, make_bundle: MakeBundle) -> None:
    program = """
        import os, sys
        sys.path.insert(0, os.getcwd())
        import anyio
        from runc_async import Runc
        from runc_async._linux import procfs

        async def main(runsc, root, bundle, *flags):
            runc = Runc(runsc, root=root, extra_args=flags, env={"TMPDIR": "/tmp"})
            async with runc.container("a", bundle) as container:
                await container.start()
                print((await container.run(["sh", "-c", "exit 3"])).status)
            print(await runc.list())
            print([procfs.comm(pid) for pid in procfs.children(1)])

        anyio.run(main, *sys.argv[1:])
    """
    ended = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", textwrap.dedent(program),
         runsc_path, state_root, make_bundle("sleep", "1000"), *FLAGS],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert ended.stdout == "3\n[]\n[]\n", ended.stderr


# -- what it cannot do -------------------------------------------------------------------------------------


async def test_what_it_cannot_do_is_refused_before_anything_is_started(
    runsc_path: str, state_root: Path, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    started: list[Any] = []
    runsc = Runc(runsc_path, root=state_root, extra_args=FLAGS, trace=started.append, dialect="runsc")
    (state_root / "x_sandbox:x.lock").touch()
    bundle = make_bundle("true")
    with SealedExecutor.open(runsc_path) as executor, (tmp_path / "file").open("w") as file:
        sealed = Runc(executor, root=state_root, extra_args=FLAGS, trace=started.append, dialect="runsc")
        for call, says in {
            lambda: runsc.create("y", bundle, preserve_fds=[file]): "create has no flag --preserve-fds",
            lambda: runsc.run("y", bundle, preserve_fds=[file]): "run has no flag --preserve-fds",
            lambda: runsc.run("y", bundle, no_pivot=True): "run has no flag --no-pivot",
            lambda: runsc.checkpoint("x", image_path=tmp_path): "has no command checkpoint",
            lambda: runsc.restore("y", bundle, image_path=tmp_path): "has no command restore",
            lambda: runsc.update("x", pids_limit=5): "has no command update",
            lambda: runsc.kill("x", "RTMIN+3"): "kill cannot send signal 37",
            lambda: sealed.create("y", bundle): "create does not work from a sealed copy",
        }.items():
            with pytest.raises(UnsupportedError, match=f"runsc {says}"):
                await call()
    (state_root / "x_sandbox:x.lock").unlink()
    assert started == []


async def test_a_taken_id_and_the_beginning_of_one_harm_no_container(
    runsc: Runc, sandbox: Container, make_bundle: MakeBundle
) -> None:
    for call in (runsc.create, runsc.run):
        with pytest.raises(ContainerExistsError):
            await call(sandbox.id, make_bundle("true"))
    beginning = sandbox.id[:-1]
    for kill in (runsc.kill, runsc.delete):
        with pytest.raises(ContainerNotFoundError):
            await kill(beginning)
    await runsc.delete(beginning, force=True)
    assert (await sandbox.state()).status == "running"


async def test_a_missing_bundle_is_a_bundle_error(runsc: Runc, make_bundle: MakeBundle, container_id: str) -> None:
    with pytest.raises(BundleError, match="/no/such/bundle"):
        await runsc.run(container_id, "/no/such/bundle")
    with pytest.raises(BundleError):
        await runsc.create(container_id, make_bundle("true", spec=lambda spec: spec["process"].pop("args")))
    with pytest.raises(UnsupportedError, match=r"runsc \S+ create has no flag --no-such-flag"):
        await runsc.create(container_id, make_bundle("true"), extra_args=["--no-such-flag"])
