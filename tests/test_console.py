"""A container's terminal: somebody types into a shell in it, and sees what a person would see."""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
import termios
import tty
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import Console, ConsoleSocket, Runc, Subreaper

from ._slowness import within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from typing import Self

    from runc_async import Container, ContainerProcess

pytestmark = pytest.mark.anyio

# What a full-screen editor writes: the other screen, all cleared, the cursor placed, a word in reverse, and back.
FULL_SCREEN = r"\033[?1049h\033[2J\033[10;20H\033[7mword\033[0m\033[?1049l"


class Typist:
    """Types into a terminal and reads what comes until a pattern is there."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.screen = b""

    async def types(self, keys: bytes) -> None:
        await self.console.send(keys)

    async def sees(self, pattern: bytes) -> re.Match[bytes]:
        """Wait for a pattern; what was before it has been seen."""
        with anyio.move_on_after(20):
            while not (found := re.search(pattern, self.screen)):
                self.screen += await self.console.receive()
        assert found, self.screen
        self.screen = self.screen[found.end() :]
        return found

    async def sees_the_end(self) -> bytes:
        """All that comes until the end of the terminal."""
        with within(20):
            async for data in self.console:
                self.screen += data
        return self.screen


@pytest.fixture
async def reaping(runtime_path: Path, state_root: Path) -> AsyncIterator[Runc]:
    """A client that knows exit statuses."""
    async with Subreaper() as monitor:
        yield Runc(runtime_path, root=state_root, monitor=monitor)


@pytest.fixture(params=["container", "exec"])
def shell(
    request: pytest.FixtureRequest, reaping: Runc, make_bundle: Callable[..., Path], container_id: str
) -> Callable[..., AbstractAsyncContextManager[tuple[Typist, Container | ContainerProcess]]]:
    """A context manager: a shell as a container's own program, or a further one in a running container."""

    @asynccontextmanager
    async def running() -> AsyncIterator[tuple[Typist, Container | ContainerProcess]]:
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            sock = await enter(ConsoleSocket())
            process: Container | ContainerProcess
            if request.param == "container":
                container = process = await enter(
                    reaping.container(container_id, make_bundle("sh", terminal=True), console_socket=sock)
                )
                console = await enter(await sock.receive())
                await container.start()
            else:
                container = await enter(reaping.container(container_id, make_bundle("sleep", "600")))
                await container.start()
                process = await enter(container.exec(["sh"], tty=True, console_socket=sock))
                console = await enter(await sock.receive())
            yield Typist(console), process

    return running


async def test_a_prompt_a_command_and_its_status(shell: Any) -> None:
    async with shell() as (user, process):
        await user.sees(rb"# ")
        await user.types(b"echo $((6 * 7)) $(tty)\n")
        await user.sees(rb"42 /dev/pts/\d+\r\n")
        await user.types(b"exit 7\n")
        await user.sees_the_end()
        assert (await process.wait()).status == 7


async def test_the_size_and_its_change(shell: Any) -> None:
    async with shell() as (user, _):
        user.console.resize(rows=40, cols=120)
        assert user.console.size() == (40, 120)
        assert (user.console.size().rows, user.console.size().columns) == (40, 120)
        await user.sees(rb"# ")
        await user.types(b"stty size\n")
        await user.sees(rb"\n40 120\r\n")
        # A shell that is not interactive, since that would give each sleep the terminal, and SIGWINCH with it.
        await user.types(b"""sh -c 'trap "echo new: \\$(stty size)" WINCH; echo go; while :; do sleep 0.05; done'\n""")
        await user.sees(rb"\ngo\r\n")
        user.console.resize(rows=10, cols=200)
        await user.sees(rb"new: 10 200\r\n")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # it is the same on every loop
async def test_full_screen_output_arrives_as_it_was_written(shell: Any) -> None:
    async with shell() as (user, _):
        await user.sees(rb"# ")
        await user.types(rf"printf '{FULL_SCREEN}'".encode() + b"\n")
        await user.sees(re.escape(FULL_SCREEN.replace(r"\033", "\033").encode()))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # it is the same on every loop
async def test_a_real_full_screen_program(shell: Any) -> None:
    async with shell() as (user, _):
        user.console.resize(rows=12, cols=60)
        await user.sees(rb"# ")
        await user.types(b"cd /tmp; vi file\n")
        await user.sees(rb"\x1b\[12;1H.*file")  # its status line is the last
        await user.types(b"ione\rtwo\x1b")
        await user.sees(rb"\x1b\[12;1H.*- file \[Modified\] 2/2")  # Escape is understood, and ends there
        await user.types(b":wq\r")
        await user.sees(rb"# ")
        await user.types(b"cat file | tr a-z A-Z\n")
        await user.sees(rb"ONE\r\nTWO\r\n")


async def test_ctrl_c_reaches_the_foreground_process_and_not_the_shell(shell: Any) -> None:
    async with shell() as (user, process):
        await user.sees(rb"# ")
        await user.types(b"sh -c 'echo ready; sleep 600'; echo status $?\n")
        await user.sees(rb"\nready\r\n")
        await user.types(b"\x03")
        await user.sees(rb"\^C")
        await user.sees(rb"# ")
        await user.types(b"echo still $((1 + 1))\n")
        await user.sees(rb"still 2\r\n")
        await user.types(b"exit\n")
        await user.sees_the_end()
        assert (await process.wait()).status is not None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # it is the same on every loop
async def test_ctrl_z_stops_it_and_fg_goes_on(shell: Any) -> None:
    async with shell() as (user, _):
        await user.sees(rb"# ")
        await user.types(b"sh -c 'echo go; exec cat'\n")  # what is typed before a program runs the shell may take
        await user.sees(rb"\ngo\r\n")
        await user.types(b"word\n")
        await user.sees(rb"word\r\nword\r\n")
        await user.types(b"\x1a")
        await user.sees(rb"Stopped.*cat")
        await user.types(b"fg\n")
        await user.sees(rb"exec cat.?\r\n")
        await user.types(b"again\n")
        await user.sees(rb"again\r\nagain\r\n")


@pytest.mark.parametrize("how", ["typed", "send_eof"])
async def test_ctrl_d_ends_the_shell(shell: Any, how: str) -> None:
    async with shell() as (user, process):
        await user.sees(rb"# ")
        await user.types(b"sh -c 'echo go; cat > /dev/null; echo cat ended'\n")
        await user.sees(rb"\ngo\r\n")
        await user.types(b"some line\n")
        await user.sees(rb"some line\r\n")
        await (user.types(b"\x04") if how == "typed" else user.console.send_eof())
        await user.sees(rb"cat ended\r\n")
        await user.sees(rb"# ")
        await (user.types(b"\x04") if how == "typed" else user.console.send_eof())
        await user.sees_the_end()
        assert (await process.wait()).status == 0


async def test_closing_the_console_hangs_up(shell: Any) -> None:
    async with shell() as (user, process):
        await user.sees(rb"# ")
        await user.types(b"""exec sh -c 'trap "exit 5" HUP; echo go; while :; do sleep 0.01; done'\n""")
        await user.sees(rb"\ngo\r\n")
        await user.console.aclose()
        assert (await process.wait()).status == 5
        with pytest.raises(anyio.ClosedResourceError):
            user.console.resize(1, 1)


async def test_much_output_to_a_slow_reader_and_its_end(
    reaping: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    bundle = make_bundle("seq", "1", "50000", terminal=True)
    async with ConsoleSocket() as sock, reaping.container(container_id, bundle, console_socket=sock) as container:
        async with await sock.receive() as console:
            await container.start()
            await anyio.sleep(0.05)
            output = await Typist(console).sees_the_end()
            assert output.split() == [str(number).encode() for number in range(1, 50001)]
            with pytest.raises(anyio.EndOfStream):
                await console.receive()
        assert (await container.wait()).status == 0


async def test_run_with_a_terminal(runc: Runc, make_bundle: Callable[..., Path], container_id: str) -> None:
    async with ConsoleSocket() as sock:
        await runc.run(container_id, make_bundle("sh", terminal=True), console_socket=sock, detach=True)
        async with await sock.receive() as console:
            user = Typist(console)
            await user.sees(rb"# ")
            await user.types(b"exit\n")
            await user.sees_the_end()
    await runc.delete(container_id, force=True)


class Desk:
    """A person's own terminal, whose master the test holds, as a terminal emulator does."""

    def __init__(self, rows: int = 33, columns: int = 111) -> None:
        master, self.terminal = os.openpty()
        self.emulator = Console(master)
        self.emulator.resize(rows, columns)
        self.person = Typist(self.emulator)
        self.settings = termios.tcgetattr(self.terminal)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.emulator.aclose()
        os.close(self.terminal)

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self.terminal) == self.settings and os.get_blocking(self.terminal)


class TestAttach:
    """Somebody's own terminal is connected to a container's."""

    @pytest.fixture
    async def desk(self) -> AsyncIterator[Desk]:
        async with Desk() as desk:
            yield desk

    async def test_keys_go_in_output_comes_out_and_the_terminal_is_as_before(self, shell: Any, desk: Desk) -> None:
        async with shell() as (inside, process), anyio.create_task_group() as group:

            async def type_and_look() -> None:
                await desk.person.sees(rb"# ")
                await desk.person.types(b"stty size; tty\n")
                await desk.person.sees(rb"33 111\r\n/dev/pts/")
                await desk.person.types(b"sh -c 'echo go; exec sleep 600'\r")
                await desk.person.sees(rb"\ngo\r\n")
                await desk.person.types(b"\x03")  # it ends sleep, neither the shell nor this process
                await desk.person.sees(rb"# ")
                await desk.person.types(b"exit 4\r")

            group.start_soon(type_and_look)
            with within(60):
                assert await inside.console.attach(desk.terminal) is False
            assert desk.is_as_before()
            assert (await process.wait()).status == 4

    async def test_the_size_follows(self, shell: Any, desk: Desk) -> None:
        async with shell() as (inside, _), anyio.create_task_group() as group:
            group.start_soon(inside.console.attach, desk.terminal)
            await desk.person.sees(rb"# ")
            desk.emulator.resize(20, 70)
            os.kill(os.getpid(), signal.SIGWINCH)  # the kernel sends it to the foreground group, which a test is not
            with within(60):
                while inside.console.size() != (20, 70):
                    await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        assert desk.is_as_before()

    @pytest.mark.parametrize("keys", [[b"\x10\x11"], [b"\x10", b"\x11"], [b"echo no\x10", b"\x10\x11more"]])
    async def test_the_detach_keys_leave_the_container_running(self, shell: Any, desk: Desk, keys: list[bytes]) -> None:
        async with shell() as (inside, process):
            async with anyio.create_task_group() as group:

                async def leave() -> None:
                    await desk.person.sees(rb"# ")
                    for chunk in keys:
                        await desk.person.types(chunk)
                        await anyio.wait_all_tasks_blocked()

                group.start_soon(leave)
                with within(60):
                    assert await inside.console.attach(desk.terminal) is True
            assert desk.is_as_before()
            await inside.console.send(b"\x15exit 3\n")  # Ctrl-U: forget what was typed of a line
            assert (await process.wait()).status == 3

    async def test_keys_that_only_begin_like_the_detach_keys_reach_the_container(self, shell: Any, desk: Desk) -> None:
        async with shell() as (inside, _), anyio.create_task_group() as group:
            group.start_soon(functools.partial(inside.console.attach, desk.terminal, detach_keys=b"xyz"))
            await desk.person.sees(rb"# ")
            for chunk in (b"echo =x", b"yx", b"y=\r"):
                await desk.person.types(chunk)
                await anyio.wait_all_tasks_blocked()
            await desk.person.sees(rb"\n=xyxy=\r\n")
            group.cancel_scope.cancel()

    async def test_without_detach_keys_all_keys_reach_the_container(self, shell: Any, desk: Desk) -> None:
        async with shell() as (inside, _), anyio.create_task_group() as group:
            group.start_soon(functools.partial(inside.console.attach, desk.terminal, detach_keys=b""))
            await desk.person.sees(rb"# ")
            await desk.person.types(b"head -c 2 | od -An -tx1\r")
            await desk.person.sees(rb"tx1\r\n")
            await desk.person.types(b"\x10\x11\r")
            await desk.person.sees(rb"10 0a|10 11")  # Ctrl-Q is the terminal's own START, unless it is raw
            group.cancel_scope.cancel()

    async def test_a_cancellation_gives_the_terminal_its_settings_back(self, shell: Any, desk: Desk) -> None:
        async with shell() as (inside, _):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(inside.console.attach, desk.terminal)
                    await desk.person.sees(rb"# ")
                    assert not termios.tcgetattr(desk.terminal)[3] & termios.ICANON
                    scope.cancel()
            assert desk.is_as_before()

    async def test_the_end_of_ones_own_terminal_ends_it(self, shell: Any) -> None:
        async with shell() as (inside, _):
            desk = Desk()
            terminal = os.dup(desk.terminal)
            async with anyio.create_task_group() as group:

                async def hang_up() -> None:
                    await desk.person.sees(rb"# ")
                    await desk.emulator.aclose()

                group.start_soon(hang_up)
                with within(60):
                    assert await inside.console.attach(terminal) is False
            os.close(terminal)
            os.close(desk.terminal)

    async def test_much_output(
        self, reaping: Runc, make_bundle: Callable[..., Path], container_id: str, desk: Desk
    ) -> None:
        bundle = make_bundle("seq", "1", "50000", terminal=True)
        async with ConsoleSocket() as sock, reaping.container(container_id, bundle, console_socket=sock) as container:
            async with await sock.receive() as console, anyio.create_task_group() as group:
                await container.start()
                group.start_soon(console.attach, desk.terminal)
                await desk.person.sees(rb"\n50000\r\n")
            assert (await container.wait()).status == 0

    async def test_what_is_not_a_terminal_is_refused(self, shell: Any) -> None:
        async with shell() as (inside, _):
            reader, writer = os.pipe()
            with pytest.raises(OSError, match=f"descriptor {reader} is not a terminal") as raised:
                await inside.console.attach(reader)
            assert raised.value.errno == errno.ENOTTY
            os.close(reader)
            os.close(writer)
            with pytest.raises(OSError, match="Bad file descriptor"):
                await inside.console.attach(reader)

    async def test_a_closed_console_is_refused_before_the_terminal_is_touched(self, shell: Any, desk: Desk) -> None:
        async with shell() as (inside, _):
            await inside.console.aclose()
            with pytest.raises(anyio.ClosedResourceError):
                await inside.console.attach(desk.terminal)
            assert desk.is_as_before()


class TestWithoutAContainer:
    @pytest.fixture
    async def pair(self) -> AsyncIterator[tuple[Console, int]]:
        master, slave = os.openpty()
        async with Console(master) as console:
            yield console, slave

    @pytest.mark.parametrize(("rows", "cols"), [(0, 80), (24, -1), (65536, 80)])
    async def test_a_size_that_is_none(self, pair: tuple[Console, int], rows: int, cols: int) -> None:
        with pytest.raises(ValueError, match="from 1 to 65535"):
            pair[0].resize(rows, cols)
        os.close(pair[1])

    async def test_the_end_is_the_end_of_the_stream_and_no_error(self, pair: tuple[Console, int]) -> None:
        console, slave = pair
        tty.setraw(slave)
        os.write(slave, b"last words")
        os.close(slave)
        assert await console.receive(4) == b"last"
        assert await console.receive() == b" words"
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await console.receive()

    async def test_who_waits_is_told(self, pair: tuple[Console, int]) -> None:
        console, slave = pair
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                with pytest.raises(anyio.EndOfStream):
                    await console.receive()

            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            os.close(slave)
