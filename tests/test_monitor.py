"""Who learns how a detached container ended: `Subreaper`, pidfds alone, and a user's own monitor."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import ConsoleSocket, Exit, Monitor, NullIO, Pidfd, Runc, Subreaper
from runc_async._linux import exit_status
from runc_async._orphans import ORPHANS

from ._reaper import descendants
from ._slowness import within
from .conftest import EVENT_LOOPS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.anyio


@pytest.fixture
async def monitor() -> AsyncIterator[Subreaper]:
    async with Subreaper() as monitor:
        yield monitor


@pytest.fixture
def reaping(runtime_path: Path, state_root: Path, monitor: Subreaper) -> Runc:
    """A client that knows exit statuses."""
    return Runc(runtime_path, root=state_root, monitor=monitor)


async def zombies_gone(but: set[int] | None = None) -> None:
    """Wait until every ended child of this process was reaped by whom it concerns."""
    with within(5):
        while {pid for pid, (state, _) in descendants().items() if state == "Z"} - (but or set()):
            await anyio.sleep(0.01)


MULTIPROCESSING = """
    import multiprocessing, sys, warnings
    import anyio
    from runc_async import Runc, Subreaper

    async def main(runtime, root, bundle, id):
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads
        processes = []
        async with Subreaper() as monitor:
            for number, method in enumerate(("fork", "spawn", "forkserver")):
                context = multiprocessing.get_context(method)
                for status in (20 + number, 30 + number):
                    processes.append((status, context.Process(target=sys.exit, args=(status,))))
                    processes[-1][1].start()
            for _ in range(3):
                async with Runc(runtime, root=root, monitor=monitor).container(id, bundle) as container:
                    await container.start()
                    assert (await container.wait()).status == 3
        for status, process in processes:
            process.join()
            assert process.exitcode == status, (process, status)
        print("all right")

    backend, uvloop, *args = sys.argv[1:]
    anyio.run(main, *args, backend=backend, backend_options={"use_uvloop": True} if uvloop else {})
"""


class TestSubreaper:
    @pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 42", 42), ("sleep 60", 137)])
    async def test_knows_the_status(
        self, reaping: Runc, make_bundle: Callable[..., Path], container_id: str, script: str, status: int
    ) -> None:
        async with reaping.container(container_id, make_bundle("sh", "-c", script)) as container:
            await container.start()
            if status == 137:
                await container.kill("KILL")
            assert (await container.wait()).status == status

    async def test_reaps_what_was_started_without_an_object(
        self, reaping: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str]
    ) -> None:
        created, ran = new_id(), new_id()
        await reaping.create(created, make_bundle("true"))
        await reaping.run(ran, make_bundle("sleep", "60"), detach=True)
        await reaping.exec(ran, ["true"], detach=True)
        await reaping.start(created)
        await reaping.kill(ran, "KILL")
        await zombies_gone()
        with within(5):
            for id in (created, ran):
                while (await reaping.state(id)).status != "stopped":
                    await anyio.sleep(0.01)
                await reaping.delete(id)

    async def test_a_container_taken_over_later_has_its_status(
        self, reaping: Runc, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        await reaping.run(
            container_id, make_bundle("sh", "-c", "trap 'exit 6' TERM; while true; do sleep 0.01; done"), detach=True
        )
        async with reaping.attach(container_id):
            pass
        await anyio.sleep(0.1)
        async with reaping.attach(container_id, delete=True) as container:
            await container.kill()
            assert (await container.wait()).status == 6
        await zombies_gone()

    async def test_reaps_orphans_of_a_container_that_shares_the_hosts_pids(
        self, reaping: Runc, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        def share_pids(spec: dict[str, Any]) -> None:
            spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "pid"]

        bundle = make_bundle("sh", "-c", "(sleep 0.1 &); (sleep 0.2 &); exec sleep 60", spec=share_pids)
        async with reaping.container(container_id, bundle) as container:
            await container.start()
            await anyio.sleep(0.1)
        await zombies_gone()

    async def test_takes_nobody_elses_status(
        self, reaping: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str], anyio_backend_name: str
    ) -> None:
        bundle = make_bundle("sh", "-c", "sleep 0.05; exit 3")
        forked = os.fork()
        if forked == 0:
            os._exit(11)
        in_a_session = subprocess.Popen(["sh", "-c", "sleep 0.05; exit 12"], start_new_session=True)
        plain = subprocess.Popen(["sh", "-c", "exit 13"])
        statuses: list[int | None] = []

        async def containers() -> None:
            for _ in range(3):
                async with reaping.container(new_id(), bundle) as container:
                    await container.start()
                    statuses.append((await container.wait()).status)

        async def processes() -> None:
            for status in range(5):
                if anyio_backend_name == "asyncio":
                    process = await asyncio.create_subprocess_exec("sh", "-c", f"sleep 0.02; exit {status}")
                    assert await process.wait() == status
                done = await anyio.run_process(["sh", "-c", f"sleep 0.02; exit {status}"], check=False)
                assert done.returncode == status

        async with anyio.create_task_group() as group:
            group.start_soon(containers)
            group.start_soon(containers)
            group.start_soon(processes)
        assert statuses == [3] * 6
        assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 11
        assert (in_a_session.wait(), plain.wait()) == (12, 13)

    async def test_two_at_once_take_nothing_from_each_other(
        self,
        runtime_path: Path,
        state_root: Path,
        monitor: Subreaper,
        make_bundle: Callable[..., Path],
        new_id: Callable[[], str],
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        statuses: dict[int, int | None] = {}

        async def run(number: int, runc: Runc) -> None:
            async with runc.container(new_id(), make_bundle("sh", "-c", f"exit {number}")) as container:
                await container.start()
                statuses[number] = (await container.wait()).status

        async with Subreaper() as other, anyio.create_task_group() as group:
            clients = [Runc(runtime_path, root=state_root, monitor=one) for one in (monitor, other)]
            for number in range(1, 13):
                group.start_soon(run, number, clients[number % 2])
        assert statuses == {number: number for number in range(1, 13)}
        await zombies_gone()
        assert "ChildProcessError" not in capfd.readouterr().err

    async def test_leaves_the_handler_of_sigchld_alone(
        self, reaping: Runc, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        before = signal.getsignal(signal.SIGCHLD)
        async with reaping.container(container_id, make_bundle("true")) as container:
            await container.start()
            assert (await container.wait()).status == 0
            assert signal.getsignal(signal.SIGCHLD) is before

    async def test_two_do_not_take_each_others(
        self, runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], new_id: Callable[[], str]
    ) -> None:
        """Also not a container of the other that was created and not started: it looks like a runtime's own child."""
        bundle = make_bundle("sh", "-c", "exit 9")
        async with Subreaper() as one, Subreaper() as two:
            mine, others = (Runc(runtime_path, root=state_root, monitor=monitor) for monitor in (one, two))
            async with mine.container(new_id(), bundle) as created, others.container(new_id(), bundle) as other:
                for _ in range(3):
                    assert await others.run(new_id(), bundle) == 9
                await others.run(new_id(), bundle, detach=True)
                assert {created.pid, other.pid} <= ORPHANS._claims.keys()
                assert not {created.pid, other.pid} & ORPHANS._orphans.keys()
                await created.start()
                await other.start()
                assert (await created.wait()).status == 9
                assert (await other.wait()).status == 9
            for state in await mine.list():
                await mine.delete(state.id, force=True)
            await zombies_gone()

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_threads_with_event_loops_of_their_own(
        self, runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], new_id: Callable[[], str]
    ) -> None:
        bundle = make_bundle("sh", "-c", "sleep 0.02; exit 9")

        async def supervise() -> list[int | None]:
            statuses: list[int | None] = []

            async def one(runc: Runc) -> None:
                async with runc.container(new_id(), bundle) as container:
                    await container.start()
                    statuses.append((await container.wait()).status)

            async with Subreaper() as monitor, anyio.create_task_group() as group:
                runc = Runc(runtime_path, root=state_root, monitor=monitor)
                for _ in range(4):
                    group.start_soon(one, runc)
            return statuses

        def thread(backend: str, options: dict[str, Any]) -> list[int | None]:
            return anyio.run(supervise, backend=backend, backend_options=options)

        found: list[list[int | None]] = []

        async def in_a_thread(backend: str, options: dict[str, Any]) -> None:
            found.append(await anyio.to_thread.run_sync(thread, backend, options))

        async with anyio.create_task_group() as group:
            for backend, options in EVENT_LOOPS.values():
                group.start_soon(in_a_thread, backend, options)
        assert found == [[9] * 4] * 3
        await zombies_gone()

    async def test_the_children_of_multiprocessing_keep_their_statuses(
        self,
        runtime_path: Path,
        state_root: Path,
        make_bundle: Callable[..., Path],
        container_id: str,
        anyio_backend: tuple[str, dict[str, bool]],
    ) -> None:
        backend, options = anyio_backend
        words = [backend, "1" if options else "", runtime_path, state_root, make_bundle("sh", "-c", "exit 3")]
        # In a process of its own, since multiprocessing leaves helpers behind, which end with it.
        program = [sys.executable, "-c", textwrap.dedent(MULTIPROCESSING), *words, container_id]
        folder, environment = Path(__file__).parents[1], {**os.environ, "TMPDIR": "/tmp"}  # sockets have short names
        ended = await anyio.run_process(program, check=False, cwd=folder, env=environment)
        assert (ended.stdout, ended.returncode) == (b"all right\n", 0), ended.stderr.decode()

    async def test_nested_and_given_back(self) -> None:
        def is_subreaper() -> bool:
            answer = ctypes.c_int()
            ctypes.CDLL(None).prctl(37, ctypes.byref(answer), 0, 0, 0)  # PR_GET_CHILD_SUBREAPER
            return bool(answer.value)

        before = is_subreaper()
        async with Subreaper():
            async with Subreaper():
                assert is_subreaper()
            assert is_subreaper()
        assert is_subreaper() == before


class TestASubreaperThatCannotWork:
    """It is refused before anything starts."""

    @pytest.fixture
    def calls(
        self, runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], container_id: str
    ) -> Callable[[Monitor], list[Callable[[], Any]]]:
        def make(monitor: Monitor) -> list[Callable[[], Any]]:
            runc = Runc(runtime_path, root=state_root, monitor=monitor)
            bundle = make_bundle("true")

            async def enter(context: Any) -> None:
                async with context:
                    pass

            return [
                lambda: runc.run(container_id, bundle),
                lambda: runc.create(container_id, bundle),
                lambda: runc.exec(container_id, ["true"]),
                lambda: enter(runc.container(container_id, bundle)),
                lambda: enter(runc.attach(container_id)),
            ]

        return make

    async def test_not_entered(self, calls: Callable[[Monitor], list[Callable[[], Any]]], state_root: Path) -> None:
        for call in calls(Subreaper()):
            with pytest.raises(RuntimeError, match="a Subreaper that is not entered"):
                await call()
        assert not list(state_root.iterdir())

    async def test_left(self, calls: Callable[[Monitor], list[Callable[[], Any]]], state_root: Path) -> None:
        async with Subreaper() as monitor:
            pass
        for call in calls(monitor):
            with pytest.raises(RuntimeError, match="a Subreaper that is not entered"):
                await call()
        assert not list(state_root.iterdir())

    async def test_entered_twice(self) -> None:
        async with Subreaper() as monitor:
            with pytest.raises(RuntimeError, match="entered already"):
                await monitor.__aenter__()

    async def test_entered_again_later_it_works(
        self, runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], new_id: Callable[[], str]
    ) -> None:
        monitor = Subreaper()
        runc = Runc(runtime_path, root=state_root, monitor=monitor)
        for _ in range(2):
            async with monitor, runc.container(new_id(), make_bundle("sh", "-c", "exit 4")) as container:
                await container.start()
                assert (await container.wait()).status == 4

    async def test_a_call_that_needs_none_works(self, runtime_path: Path, state_root: Path) -> None:
        runc = Runc(runtime_path, root=state_root, monitor=Subreaper())
        assert await runc.list() == []
        assert (await runc.version()).version


FORKING = """
    import os, sys
    import anyio, anyio.to_thread
    from runc_async import Runc, Subreaper

    async def run(runc, id):
        async with runc.container(id, bundle) as container:
            await container.start()
            return (await container.wait()).status

    async def child(inherited):
        try:
            await inherited.run(f"{id}-inherited", bundle)
        except RuntimeError as exc:
            assert "from which this process was forked" in str(exc), exc
        else:
            raise AssertionError("it ran")
        async with Subreaper() as monitor:
            for number in range(3):
                assert await run(Runc(runtime, root=root, monitor=monitor), f"{id}-child-{number}") == 3
        print("child", flush=True)

    def fork(inherited):  # in a thread of its own, in which no event loop runs
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                anyio.run(child, inherited, **loop)
                status = 0
            finally:
                os._exit(status)
        return pid

    async def main():
        async with Subreaper() as monitor:
            runc = Runc(runtime, root=root, monitor=monitor)
            assert await run(runc, f"{id}-before") == 3
            pid = await anyio.to_thread.run_sync(fork, runc)
            for number in range(3):
                assert await run(runc, f"{id}-parent-{number}") == 3
            pidfd = os.pidfd_open(pid)
            await anyio.wait_readable(pidfd)
            os.close(pidfd)
            assert os.waitpid(pid, 0) == (pid, 0)
            assert await run(runc, f"{id}-after") == 3
        print("parent", flush=True)

    backend, uvloop, runtime, root, bundle, id = sys.argv[1:]
    loop = dict(backend=backend, backend_options={"use_uvloop": True} if uvloop else {})
    anyio.run(main, **loop)
"""


async def test_a_process_that_is_forked_while_one_is_open_enters_its_own(
    runtime_path: Path,
    state_root: Path,
    make_bundle: Callable[..., Path],
    container_id: str,
    anyio_backend: tuple[str, dict[str, bool]],
) -> None:
    backend, options = anyio_backend
    words = [backend, "1" if options else "", runtime_path, state_root, make_bundle("sh", "-c", "exit 3"), container_id]
    program = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(FORKING), *words]
    ended = await anyio.run_process(program, check=False, cwd=Path(__file__).parents[1])
    assert (ended.stdout, ended.returncode) == (b"child\nparent\n", 0), ended.stderr.decode()


@pytest.fixture(params=["this kernel", "an older kernel"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """This kernel, and one that forgets the status of a process that was reaped."""
    if request.param == "an older kernel":
        monkeypatch.setattr(exit_status, "_kept_status", lambda pidfd: None)
        monkeypatch.setattr(exit_status, "kernel_keeps_statuses", lambda: False)
    return str(request.param)


async def test_no_adoption_takes_a_process_that_another_call_is_about_to_claim(
    reaping: Runc, make_bundle: Callable[..., Path], container_id: str, kernel: str
) -> None:
    """Many short processes at once, each of which may have ended before its own call knows of it."""
    statuses: list[tuple[int, int | None]] = []
    async with reaping.container(container_id, make_bundle("sleep", "100")) as container:
        await container.start()

        async def one(status: int) -> None:
            async with ConsoleSocket() as socket:
                command = ["sh", "-c", f"exit {status}"]
                async with container.exec(command, tty=True, console_socket=socket) as process:
                    statuses.append((status, (await process.wait()).status))

        for _ in range(4):
            async with anyio.create_task_group() as group:
                for status in range(1, 8):
                    group.start_soon(one, status)
    assert len(statuses) == 28
    assert all(wanted == known for wanted, known in statuses), statuses
    await zombies_gone()


LATE = """
    import os, sys, time
    import anyio
    from runc_async import Runc
    from runc_async._linux import exit_status

    async def main():
        async with Runc(runtime, root=root).container(id, bundle) as container:
            await container.start()
            began = time.monotonic()
            ended = await container.wait()
            assert ended.status == 5, ended
            assert time.monotonic() - began < 30
        print("all right", flush=True)

    runtime, root, bundle, id, kernel = sys.argv[1:]
    assert os.getpid() == 1
    supervisor = os.fork()
    if supervisor == 0:
        if kernel == "an older kernel":
            exit_status._kept_status = lambda pidfd: None
            exit_status.kernel_keeps_statuses = lambda: False
        status = 1
        try:
            anyio.run(main)
            status = 0
        finally:
            os._exit(status)
    # An init that reaps nobody else: as long as its service runs, or until it has time.
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1]))
"""


@pytest.mark.skipif(
    exit_status._linux_version() < exit_status.SHOWS_STATUSES, reason="/proc/PID/stat has it from Linux 6.6 on"
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_without_a_subreaper_the_status_is_known_also_where_pid_1_reaps_late(
    runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], container_id: str, kernel: str
) -> None:
    words = [runtime_path, state_root, make_bundle("sh", "-c", "exit 5"), container_id, kernel]
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    program = [*unshare, sys.executable, "-c", textwrap.dedent(LATE), *words]
    ended = await anyio.run_process(program, check=False, cwd=Path(__file__).parents[1])
    assert (ended.stdout, ended.returncode) == (b"all right\n", 0), ended.stderr.decode()


async def test_without_a_subreaper_waiting_ends_at_the_right_moment_and_the_status_is_true_or_unknown(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with runc.container(container_id, make_bundle("sh", "-c", "exit 5")) as container:
        begun = datetime.now(UTC)
        await container.start()
        ended = await container.wait()
        assert begun <= ended.timestamp <= datetime.now(UTC)
        assert ended.status in (5, None)


class Recorder(Monitor):
    """What a user might write: asks somebody else, and keeps a record."""

    def __init__(self) -> None:
        self.record: list[tuple[str, int]] = []

    def runtime_starts(self) -> None:
        self.record.append(("runtime starts", 0))

    def detached(self, pid: int) -> None:
        self.record.append(("detached", pid))

    def runtime_ended(self) -> None:
        self.record.append(("runtime ended", 0))

    def started(self, process: Pidfd) -> None:
        self.record.append(("started", process.pid))

    async def wait(self, process: Pidfd) -> Exit:
        await process.wait()
        self.record.append(("waited", process.pid))
        return Exit(pid=process.pid, status=99, timestamp=datetime.now(UTC))

    def forgotten(self, process: Pidfd) -> None:
        self.record.append(("forgotten", process.pid))


async def test_a_users_own_monitor_is_told_and_asked(
    runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], new_id: Callable[[], str]
) -> None:
    monitor = Recorder()
    runc = Runc(runtime_path, root=state_root, monitor=monitor)
    async with runc.container(new_id(), make_bundle("true"), io=NullIO()) as container:
        await container.start()
        assert (await container.wait()).status == 99
        assert (await container.wait()).status == 99
    pid = container.pid
    assert monitor.record == [
        ("runtime starts", 0),
        ("runtime ended", 0),
        ("detached", pid),
        ("started", pid),
        ("waited", pid),
        ("forgotten", pid),
    ]
    monitor.record.clear()
    assert await runc.run(new_id(), make_bundle("true")) == 0
    assert monitor.record == [("runtime starts", 0), ("runtime ended", 0)]


def test_a_monitor_must_say_how_to_wait() -> None:
    with pytest.raises(TypeError, match="wait"):
        Monitor()  # type: ignore[abstract]


def test_the_module_does_not_import_trio() -> None:
    program = "import sys, runc_async._monitor; sys.exit('trio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=os.getcwd()).returncode == 0
