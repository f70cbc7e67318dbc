"""Sockets that a runtime sends a descriptor to: where they lie, who may connect, what is taken, how waiting ends."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import (
    BundleError,
    CommandError,
    Console,
    ConsoleSocket,
    ContainerExistsError,
    Pidfd,
    PidfdSocket,
    RuncError,
    UnsupportedError,
)

from ._leaks import open_descriptors
from ._slowness import within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runc_async import Runc

pytestmark = pytest.mark.anyio


def connect(sock: ConsoleSocket | PidfdSocket) -> socket.socket:
    """As the runtime does."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(sock.path)
    return client


def send(sock: ConsoleSocket | PidfdSocket, *fds: int) -> None:
    """As the runtime does, with these descriptors."""
    with connect(sock) as client:
        socket.send_fds(client, [b"/dev/ptmx"], fds)


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


class TestPlace:
    async def test_a_private_directory_gone_afterwards(self, scratch: Path) -> None:
        async with ConsoleSocket() as sock:
            path = Path(sock.path)
            assert os.fspath(sock) == sock.path
            assert path.parent.parent == scratch
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not path.parent.exists()
        with pytest.raises(RuntimeError, match="not open"):
            sock.path  # noqa: B018

    async def test_a_given_path_and_it_only_is_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "sock"
        async with ConsoleSocket(path) as sock:
            assert sock.path == str(path)
            with pytest.raises(RuntimeError, match="open already"):
                await sock.__aenter__()
            with pytest.raises(OSError, match=f"in use: '{path}'"):
                await ConsoleSocket(path).__aenter__()
            path.unlink()
            path.write_text("somebody else's")
        assert path.read_text() == "somebody else's"

    async def test_an_open_socket_can_be_opened_anew_when_it_was_closed(self, pty: tuple[int, int]) -> None:
        sock = ConsoleSocket()
        for _ in range(2):
            async with sock:
                send(sock, pty[0])
                (await sock.receive()).close()

    @pytest.mark.parametrize("length", [107, 108, 300, 900])
    async def test_paths_longer_than_a_unix_socket_takes(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str, tmp_path: Path, length: int
    ) -> None:
        folder = tmp_path
        while len(str(folder)) + 200 < length:
            folder /= "d" * 99
        folder /= "d" * (length - len(str(folder)) - len("//sock"))
        folder.mkdir(parents=True)
        assert len(str(folder / "sock")) == length
        bundle = make_bundle("true", terminal=True)
        async with (
            ConsoleSocket(folder / "sock") as sock,
            runc.container(container_id, bundle, console_socket=sock),
            await sock.receive() as console,
        ):
            assert (folder / "sock").is_socket()
            assert console.size() is not None
        assert not (folder / "sock").exists()

    async def test_a_name_that_is_too_long_by_itself_is_refused_before_the_start(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"the name of a socket can have [89]. bytes at most"):
            await ConsoleSocket(tmp_path / ("n" * 100)).__aenter__()
        with pytest.raises(FileNotFoundError, match="missing"):
            await ConsoleSocket(tmp_path / "missing/sock").__aenter__()

    async def test_no_other_user_can_connect(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        with tempfile.TemporaryDirectory(dir="/tmp") as name:
            os.chmod(name, 0o777)
            async with ConsoleSocket(Path(name) / "sock") as sock:
                child = os.fork()
                if child == 0:
                    os.setuid(54321)
                    try:
                        connect(sock)
                    except PermissionError:
                        os._exit(13)
                    os._exit(0)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 13


class TestReceive:
    async def test_one_terminal(self, pty: tuple[int, int]) -> None:
        async with ConsoleSocket() as sock:
            send(sock, pty[0])
            async with await sock.receive() as console:
                assert isinstance(console, Console)
                assert not os.get_inheritable(console.fileno())

    async def test_one_pidfd(self) -> None:
        async with PidfdSocket() as sock:
            pidfd = os.pidfd_open(os.getpid())
            send(sock, pidfd)
            os.close(pidfd)
            with await sock.receive() as process:
                assert isinstance(process, Pidfd)
                assert process.pid == os.getpid()

    @pytest.mark.parametrize("count", [0, 2, 3, 16, 40])
    async def test_another_number_of_descriptors_is_refused_and_all_are_closed(
        self, pty: tuple[int, int], count: int
    ) -> None:
        async with ConsoleSocket() as sock:
            send(sock, *pty[:1] * count)
            before = open_descriptors()
            with pytest.raises(RuncError, match=f"sent {min(count, 16)} descriptors"):
                await sock.receive()
            assert open_descriptors() == before
            send(sock, pty[0])
            (await sock.receive()).close()

    async def test_another_kind_of_descriptor_is_refused_and_closed(self, pty: tuple[int, int]) -> None:
        async with ConsoleSocket() as sock, PidfdSocket() as other:
            before = open_descriptors()
            with open(os.devnull) as file:
                send(sock, file.fileno())
            with pytest.raises(RuncError, match="no terminal"):
                await sock.receive()
            send(other, pty[0])
            with pytest.raises(RuncError, match="is not a pidfd"):
                await other.receive()
            assert open_descriptors() == before

    @pytest.mark.parametrize("silent", [True, False], ids=["says nothing", "goes away"])
    async def test_somebody_else_who_connects_first_does_not_keep_the_runtime_away(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str, silent: bool
    ) -> None:
        bundle = make_bundle("true", terminal=True)
        received: list[Console] = []
        async with ConsoleSocket() as sock, anyio.create_task_group() as group:
            stranger = connect(sock)
            if not silent:
                stranger.close()

            async def create() -> None:
                async with runc.container(container_id, bundle, console_socket=sock):
                    await got.wait()

            got = anyio.Event()
            group.start_soon(create)
            with within(10):
                received.append(await sock.receive())
            got.set()
        stranger.close()
        received[0].close()

    async def test_cancelled_it_goes_on_listening(self, pty: tuple[int, int]) -> None:
        async with ConsoleSocket() as sock:
            for connected in (False, True):
                stranger = connect(sock) if connected else None
                with anyio.move_on_after(0.02) as scope:
                    await sock.receive()
                assert scope.cancelled_caught
                if stranger:
                    stranger.close()
            send(sock, pty[0])
            (await sock.receive()).close()

    @pytest.mark.parametrize("connected", [False, True])
    async def test_closing_the_socket_ends_the_waiting(self, connected: bool) -> None:
        sock = await ConsoleSocket().__aenter__()
        client = connect(sock) if connected else None

        async def wait() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await sock.receive()

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await sock.__aexit__(None, None, None)
        if client:
            client.close()
        with pytest.raises(anyio.ClosedResourceError):
            await sock.receive()


class TestFailures:
    """What `receive` says when the runtime fails before it connects."""

    async def failing(self, sock: ConsoleSocket, call: Callable[[], Any], expected: type[Exception]) -> None:
        async def receive() -> None:
            with pytest.raises(expected), within(10):
                await sock.receive()

        async with anyio.create_task_group() as group:
            group.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(expected):
                await call()

    async def test_the_runtimes_own_error(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str, tmp_path: Path
    ) -> None:
        bundle = make_bundle("true", terminal=True)
        async with ConsoleSocket() as sock:
            await self.failing(
                sock, lambda: runc.create(container_id, tmp_path / "nosuch", console_socket=sock), BundleError
            )
            await self.failing(
                sock, lambda: runc.exec("nosuch", ["sh"], tty=True, console_socket=sock, detach=True), CommandError
            )
            async with runc.container(container_id, bundle, console_socket=sock):
                (await sock.receive()).close()
                await self.failing(
                    sock, lambda: runc.create(container_id, bundle, console_socket=sock), ContainerExistsError
                )
            with pytest.raises(ContainerExistsError):
                await sock.receive()  # also afterwards

    async def test_a_program_without_a_terminal(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        async with ConsoleSocket() as sock:
            bundle = make_bundle("true")
            try:
                await runc.create(container_id, bundle, console_socket=sock)
            except CommandError as error:
                expected: type[Exception] = type(error)
            else:  # crun takes it, and never connects
                expected = RuncError
                await runc.delete(container_id, force=True)
            with pytest.raises(expected), within(10):
                await sock.receive()

    async def test_a_call_that_is_cancelled(
        self, fake: Callable[..., Runc], make_bundle: Callable[..., Path], container_id: str
    ) -> None:
        runc = fake("exec sleep 60", cleanup_timeout=0.1)
        async with ConsoleSocket() as sock, anyio.create_task_group() as group:

            async def create() -> None:
                with anyio.move_on_after(0.05):
                    await runc.create(container_id, make_bundle("true", terminal=True), console_socket=sock)

            group.start_soon(create)
            with pytest.raises(RuncError, match="without connecting"), within(10):
                await sock.receive()

    async def test_a_stranger_who_says_nothing_does_not_hide_it(
        self, runc: Runc, container_id: str, tmp_path: Path
    ) -> None:
        async with ConsoleSocket() as sock:
            with connect(sock):
                await self.failing(
                    sock, lambda: runc.create(container_id, tmp_path / "nosuch", console_socket=sock), BundleError
                )


class TestPidfdSocket:
    """On the real runtime."""

    @pytest.fixture
    async def has_it(self, runc: Runc) -> bool:
        found = await runc.version()
        return found.runtime == "runc" and tuple(map(int, found.version.split(".")[:2])) >= (1, 2)

    async def test_gives_the_containers_process_or_says_that_the_runtime_cannot(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str, has_it: bool
    ) -> None:
        bundle = make_bundle("sleep", "60")
        async with PidfdSocket() as sock:
            if not has_it:
                with pytest.raises(UnsupportedError, match="pidfd-socket"):
                    await runc.create(container_id, bundle, pidfd_socket=sock)
                with pytest.raises(UnsupportedError, match="pidfd-socket"):
                    await sock.receive()
                return
            async with runc.container(container_id, bundle, pidfd_socket=sock) as container:
                await container.start()
                with await sock.receive() as process:
                    assert process.pid == container.pid
                    process.send_signal(9)
                    with within(10):
                        await process.wait()
                    assert (await container.state()).status == "stopped"
                async with anyio.create_task_group() as group:
                    group.cancel_scope.cancel()

    async def test_of_a_further_process(
        self, runc: Runc, make_bundle: Callable[..., Path], container_id: str, has_it: bool
    ) -> None:
        async with runc.container(container_id, make_bundle("sleep", "60")) as container, PidfdSocket() as sock:
            await container.start()
            if not has_it:
                with pytest.raises(UnsupportedError, match="pidfd-socket"):
                    await runc.exec(container_id, ["sleep", "60"], pidfd_socket=sock)
                return
            async with container.exec(["sleep", "60"], pidfd_socket=sock) as running:
                with await sock.receive() as process:
                    assert process.pid == running.pid
                    process.send_signal(15)
                    assert (await running.wait()).status == 143
                    await process.wait()
                    with pytest.raises(ProcessLookupError):
                        process.send_signal(0)
