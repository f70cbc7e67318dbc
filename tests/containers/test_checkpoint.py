"""Checkpoint and restore on real CRIU."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import (
    CommandError,
    ConsoleSocket,
    ContainerExistsError,
    ContainerNotFoundError,
    ContainerNotRunningError,
    FileIO,
    NullIO,
    PipeIO,
    Runc,
    UnsupportedError,
)

from .._slowness import within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("criu")]

COUNT = "i=0; while :; do i=$((i+1)); echo $i > /tmp/n; sleep 0.1; done"
HOLD = "; while :; do sleep 0.05; done"
MOVE = Path(__file__).parents[2] / "examples/move.py"


@pytest.fixture(scope="session")
def criu(runtime_name: str) -> None:
    """Skips where CRIU does not work."""
    if shutil.which("criu") is None:
        pytest.skip("no criu found: `apt-get install criu` (CRIU 4 is in Debian sid)")
    check = subprocess.run(["criu", "check"], capture_output=True, text=True)
    if check.returncode:
        said = (check.stderr or check.stdout).strip().splitlines()
        pytest.skip(f"`criu check` fails, a newer CRIU or another kernel is needed: {said[-1:]}")
    if runtime_name == "crun":
        try:
            ctypes.CDLL("libcriu.so.2")
        except OSError:
            pytest.skip("crun checkpoints by libcriu.so.2, which is missing: `apt-get install libcriu2`")


@pytest.fixture
def runc(runtime_path: Path, state_root: Path) -> Runc:
    return Runc(runtime_path, root=state_root)


@pytest.fixture
def runc_only(runtime_name: str) -> None:
    if runtime_name == "crun":
        pytest.skip("crun has no such flag; that it says so is tested")


def hosts_network(spec: dict[str, Any]) -> None:
    spec["linux"]["namespaces"] = [kind for kind in spec["linux"]["namespaces"] if kind["type"] != "network"]
    # A devpts of its own instance is dumped; nothing here needs it.
    spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] != "devpts"]


async def number(runc: Runc, id: str, above: int = 0) -> int:
    """What the container has counted to, once that is more than another number."""
    pid = (await runc.state(id)).pid
    with within(10):
        while True:
            found = 0
            with suppress(OSError, ValueError):
                found = int(Path(f"/proc/{pid}/root/tmp/n").read_text())
            if found > above:
                return found
            await anyio.sleep(0.01)


async def counts_on(runc: Runc, id: str) -> None:
    now = await number(runc, id)
    assert await number(runc, id, above=now + 1) > now + 1
    assert (await runc.state(id)).status == "running"


def tracks_memory() -> None:
    if subprocess.run(["criu", "check", "--feature", "mem_dirty_track"], capture_output=True).returncode:
        pytest.skip("this kernel tracks no memory: it needs CONFIG_MEM_SOFT_DIRTY")


def cgroups(runtime_name: str) -> dict[str, str]:
    # crun's soft mode writes back cpuset.cpu_exclusive of a mounted v1 hierarchy, which the kernel refuses.
    return {"manage_cgroups_mode": "ignore"} if runtime_name == "crun" else {}


@pytest.fixture
def mode(runtime_name: str) -> dict[str, Any]:
    return cgroups(runtime_name)


@pytest.fixture
def counting(runc: Runc, container_id: str, make_bundle: Callable[..., Path]) -> Any:
    """A context manager: a container that runs a program, by default a counting one."""

    @asynccontextmanager
    async def started(program: str = COUNT, **options: Any) -> AsyncIterator[Path]:
        bundle = make_bundle("sh", "-c", program, spec=hosts_network)
        try:
            await runc.run(container_id, bundle, detach=True, **options)
            if program == COUNT:
                await number(runc, container_id)
            yield bundle
        finally:
            with anyio.CancelScope(shield=True):
                await runc.delete(container_id, force=True)

    return started


async def until(condition: Callable[[], bool]) -> None:
    with within(10):
        while not condition():
            await anyio.sleep(0.01)


class TestErrors:
    async def test_a_failed_checkpoint_quotes_criu_and_the_container_runs_on(
        self, runc: Runc, container_id: str, counting: Any, tmp_path: Path
    ) -> None:
        async with counting(io=FileIO(stdout=tmp_path / "out")):
            with pytest.raises(CommandError, match=r"dump\.log: Error .*Can't lookup mount=\d+ for fd=1") as caught:
                await runc.checkpoint(container_id, image_path=tmp_path / "image")
            assert type(caught.value) is CommandError
            assert "RLIMIT" not in caught.value.message
            await counts_on(runc, container_id)

    async def test_the_log_is_found_in_the_work_path(
        self, runc: Runc, container_id: str, counting: Any, tmp_path: Path
    ) -> None:
        work = tmp_path / "work"
        async with counting(io=FileIO(stdout=tmp_path / "out")):
            with pytest.raises(CommandError, match=f"{work}/dump.log: Error"):
                await runc.checkpoint(container_id, image_path=tmp_path / "image", work_path=work)

    async def test_no_such_container(self, runc: Runc, container_id: str, tmp_path: Path) -> None:
        with pytest.raises(ContainerNotFoundError):
            await runc.checkpoint(container_id, image_path=tmp_path / "image")

    async def test_one_that_is_not_running(self, runc: Runc, container_id: str, counting: Any, tmp_path: Path) -> None:
        async with counting("exit 0"):
            with within(10):
                while (await runc.state(container_id)).status != "stopped":
                    await anyio.sleep(0.01)
            with pytest.raises(ContainerNotRunningError):
                await runc.checkpoint(container_id, image_path=tmp_path / "image")

    async def test_restore_of_an_id_that_exists_leaves_that_one_alone(
        self, runc: Runc, container_id: str, counting: Any, tmp_path: Path, mode: dict[str, Any]
    ) -> None:
        async with counting() as bundle:
            await runc.checkpoint(container_id, image_path=tmp_path / "image", leave_running=True, **mode)
            with pytest.raises(ContainerExistsError):
                await runc.restore(container_id, bundle, image_path=tmp_path / "image", detach=True, **mode)
            await counts_on(runc, container_id)

    @pytest.mark.parametrize("what", ["broken", "empty", "missing"])
    async def test_a_failed_restore_leaves_nothing(
        self, runc: Runc, container_id: str, counting: Any, tmp_path: Path, mode: dict[str, Any], what: str
    ) -> None:
        image = tmp_path / "image"
        async with counting() as bundle:
            await runc.checkpoint(container_id, image_path=image, **mode)
            if what == "broken":
                for core in image.glob("core-*.img"):
                    core.write_bytes(b"x")
            elif what == "empty":
                (image / "inventory.img").unlink()
            else:
                shutil.rmtree(image)
            quoted = None if what == "missing" else r"restore\.log: Error"
            with pytest.raises(CommandError, match=quoted):
                await runc.restore(container_id, bundle, image_path=image, detach=True, **mode)
            # Before the clearing of the fixture; what else could be left, the census finds.
            assert await runc.list() == []
            with pytest.raises(ContainerNotFoundError):
                await runc.state(container_id)

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.parametrize(
        "option",
        ["lazy_pages", "auto_dedup", "link_remap", "page_server", "empty_ns", "status_fd", "tcp_skip_in_flight"],
    )
    async def test_crun_says_which_flags_it_lacks(
        self, runc: Runc, runtime_name: str, container_id: str, counting: Any, tmp_path: Path, option: str
    ) -> None:
        if runtime_name != "crun":
            pytest.skip("runc has them all")
        values: dict[str, Any] = {"page_server": "127.0.0.1:1", "empty_ns": ["network"], "status_fd": 1}
        async with counting():
            with pytest.raises(UnsupportedError, match=option.replace("_", "-")):
                await runc.checkpoint(container_id, image_path=tmp_path / "i", **{option: values.get(option, True)})
            await counts_on(runc, container_id)


class TestCancellation:
    @pytest.mark.parametrize("leave_running", [True, False])
    @pytest.mark.parametrize("delay", [0.0, 0.02])
    async def test_the_container_goes_on_running(
        self,
        runc: Runc,
        runtime_name: str,
        container_id: str,
        counting: Any,
        tmp_path: Path,
        leave_running: bool,
        delay: float,
    ) -> None:
        image = tmp_path / "image"
        async with counting():
            with anyio.move_on_after(10) as scope:
                async with anyio.create_task_group() as group:

                    async def checkpoint() -> None:
                        await runc.checkpoint(container_id, image_path=image, leave_running=leave_running)
                        group.cancel_scope.cancel()

                    group.start_soon(checkpoint)
                    if delay:  # CRIU is at work
                        await until(lambda: (image / "dump.log").exists() or not group.cancel_scope.cancel_called)
                    await anyio.sleep(delay)
                    group.cancel_scope.cancel()
            assert not scope.cancelled_caught
            found = [state.status for state in await runc.list()]
            if found == ["running"]:
                await counts_on(runc, container_id)
            else:  # CRIU was through, or asks nobody
                assert not leave_running
                assert found in ([], ["stopped"])
                assert runtime_name == "crun" or delay > 0
                assert (image / "inventory.img").exists()

    async def test_while_a_lazy_page_server_waits_for_ever(
        self, runtime_path: Path, state_root: Path, runc_only: None, container_id: str, counting: Any, tmp_path: Path
    ) -> None:
        runc = Runc(runtime_path, root=state_root, cleanup_timeout=0.5)
        reader, writer = os.pipe()
        async with counting(), anyio.create_task_group() as group:

            async def checkpoint() -> None:
                await runc.checkpoint(
                    container_id,
                    image_path=tmp_path / "image",
                    lazy_pages=True,
                    page_server=f"127.0.0.1:{free_port()}",
                    status_fd=writer,
                )

            group.start_soon(checkpoint)
            with within(10):
                await anyio.wait_readable(reader)
            assert os.read(reader, 10) == b"\0"
            group.cancel_scope.cancel()
        os.close(reader)
        os.close(writer)

    @pytest.mark.parametrize("delay", [0.01, 0.03, 0.05])
    async def test_of_restore_leaves_nothing(
        self, runc: Runc, container_id: str, counting: Any, tmp_path: Path, mode: dict[str, Any], delay: float
    ) -> None:
        image = tmp_path / "image"
        async with counting() as bundle:
            await runc.checkpoint(container_id, image_path=image, **mode)
            with anyio.move_on_after(delay):
                await runc.restore(container_id, bundle, image_path=image, **mode)
            assert await runc.list() == []


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the flags are the same on every loop
class TestOptions:
    async def moved(
        self, runc: Runc, id: str, bundle: Path, image: Path, checkpoint: dict[str, Any], restore: dict[str, Any]
    ) -> None:
        await runc.checkpoint(id, image_path=image, **checkpoint)
        with pytest.raises(ContainerNotFoundError):
            await runc.state(id)
        assert await runc.restore(id, bundle, image_path=image, detach=True, **restore) == 0
        assert (await runc.state(id)).status == "running"

    @pytest.mark.parametrize("option", ["plain", "shell_job", "ext_unix_sk", "tcp_established", "file_locks"])
    async def test_common_flags(
        self, runc: Runc, container_id: str, counting: Any, tmp_path: Path, mode: dict[str, Any], option: str
    ) -> None:
        flags = mode if option == "plain" else {**mode, option: True}
        async with counting() as bundle:
            before = await number(runc, container_id)
            await self.moved(runc, container_id, bundle, tmp_path / "image", flags, flags)
            assert await number(runc, container_id) >= before
            await counts_on(runc, container_id)

    @pytest.mark.parametrize("option", ["auto_dedup", "link_remap", "tcp_skip_in_flight", "empty_ns"])
    async def test_flags_of_runc(
        self, runc: Runc, runc_only: None, container_id: str, counting: Any, tmp_path: Path, option: str
    ) -> None:
        flags: dict[str, Any] = {option: ["network"] if option == "empty_ns" else True}
        both = flags if option in ("auto_dedup", "empty_ns") else {}
        async with counting() as bundle:
            await self.moved(runc, container_id, bundle, tmp_path / "image", flags, both)
            await counts_on(runc, container_id)

    async def test_a_file_that_only_link_remap_can_keep(
        self, runc: Runc, runc_only: None, container_id: str, counting: Any, tmp_path: Path
    ) -> None:
        async with counting("exec 9>/tmp/l; ln /tmp/l /tmp/m; rm /tmp/l; echo 1 > /tmp/n" + HOLD) as bundle:
            await number(runc, container_id)
            with pytest.raises(CommandError, match="Use link-remap option"):
                await runc.checkpoint(container_id, image_path=tmp_path / "one")
            await self.moved(runc, container_id, bundle, tmp_path / "two", {"link_remap": True}, {})

    @pytest.mark.parametrize("value", ["soft", "full", "strict", "ignore"])
    async def test_manage_cgroups_mode(
        self, runc: Runc, container_id: str, counting: Any, tmp_path: Path, value: str
    ) -> None:
        flags = {"manage_cgroups_mode": value}
        async with counting() as bundle:
            await runc.checkpoint(container_id, image_path=tmp_path / "image", **flags)
            try:
                await runc.restore(container_id, bundle, image_path=tmp_path / "image", detach=True, **flags)
            except CommandError as error:
                # The runtime makes the cgroup itself, or the kernel refuses an old value: CRIU says which.
                assert "cg: " in error.message  # noqa: PT017
                assert value != "ignore"
                assert await runc.list() == []
            else:
                await counts_on(runc, container_id)

    async def test_leave_running(self, runc: Runc, container_id: str, counting: Any, tmp_path: Path) -> None:
        async with counting():
            before = (await runc.state(container_id)).pid
            await runc.checkpoint(container_id, image_path=tmp_path / "image", leave_running=True)
            assert (await runc.state(container_id)).pid == before
            assert (tmp_path / "image/inventory.img").exists()
            await counts_on(runc, container_id)

    async def test_a_pre_dump_chain(
        self, runc: Runc, container_id: str, counting: Any, tmp_path: Path, mode: dict[str, Any]
    ) -> None:
        async with counting() as bundle:
            check = ["criu", "check", "--feature", "mem_dirty_track"]
            if (await anyio.run_process(check, check=False)).returncode:
                with pytest.raises(CommandError):
                    await runc.checkpoint(container_id, image_path=tmp_path / "one", pre_dump=True)
                await counts_on(runc, container_id)
                pytest.skip("this kernel tracks no memory: it needs CONFIG_MEM_SOFT_DIRTY")
            await runc.checkpoint(container_id, image_path=tmp_path / "one", pre_dump=True)
            await counts_on(runc, container_id)
            chain = {**mode, "parent_path": "../one"}
            await self.moved(runc, container_id, bundle, tmp_path / "two", chain, mode)
            await counts_on(runc, container_id)

    async def test_a_pre_dump_leaves_little_to_write_while_the_container_is_frozen(
        self, runc: Runc, container_id: str, counting: Any, tmp_path: Path, mode: dict[str, Any]
    ) -> None:
        tracks_memory()
        held = f"x=$(head -c 16000000 /dev/zero | tr '\\0' x); {COUNT}"
        async with counting(held):
            await number(runc, container_id)
            await runc.checkpoint(container_id, image_path=tmp_path / "one", pre_dump=True)
            await counts_on(runc, container_id)
            await runc.checkpoint(container_id, image_path=tmp_path / "two", parent_path="../one", **mode)
        first, second = (
            sum(file.stat().st_size for file in (tmp_path / name).glob("pages-*.img")) for name in ("one", "two")
        )
        assert first > 16_000_000
        assert second < first / 4

    async def test_a_network_namespace_of_its_own(
        self,
        runc: Runc,
        container_id: str,
        make_bundle: Callable[..., Path],
        tmp_path: Path,
        mode: dict[str, Any],
    ) -> None:
        # CRIU locks the network of what it dumps, by one of these.
        works = [["nft", "list", "ruleset"], ["iptables-restore", "--version"]]
        if not any(
            shutil.which(words[0]) and subprocess.run(words, capture_output=True).returncode == 0 for words in works
        ):
            pytest.skip("this kernel has no netfilter, by which CRIU locks a network: `make test-vm` has it")

        def without_devpts(spec: dict[str, Any]) -> None:
            spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] != "devpts"]

        bundle = make_bundle("sh", "-c", COUNT, spec=without_devpts)
        try:
            await runc.run(container_id, bundle, detach=True)
            await number(runc, container_id)
            await runc.checkpoint(container_id, image_path=tmp_path / "image", **mode)
            await runc.restore(container_id, bundle, image_path=tmp_path / "image", detach=True, **mode)
            await counts_on(runc, container_id)
            pid = (await runc.state(container_id)).pid
            assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
        finally:
            with anyio.CancelScope(shield=True):
                await runc.delete(container_id, force=True)

    async def test_a_page_server_gets_the_memory(
        self, runc: Runc, runc_only: None, container_id: str, counting: Any, tmp_path: Path
    ) -> None:
        pages, port = tmp_path / "pages", free_port()
        pages.mkdir()
        words = ["criu", "page-server", "--images-dir", str(pages), "--address", "127.0.0.1", "--port", str(port)]
        async with counting(), await anyio.open_process(words, stdout=subprocess.DEVNULL, stderr=None) as server:
            await until(lambda: f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text())
            await runc.checkpoint(container_id, image_path=tmp_path / "image", page_server=f"127.0.0.1:{port}")
            with within(10):
                assert await server.wait() == 0
        assert list(pages.glob("pages-*.img"))
        assert not list((tmp_path / "image").glob("pages-*.img"))

    async def test_lazy_pages_by_a_daemon(
        self,
        runc: Runc,
        runc_only: None,
        new_id: Callable[[], str],
        container_id: str,
        counting: Any,
        tmp_path: Path,
    ) -> None:
        if (await anyio.run_process(["criu", "check", "--feature", "uffd"], check=False)).returncode:
            pytest.skip("this kernel has no userfaultfd: it needs CONFIG_USERFAULTFD")
        image, work, restored, port = tmp_path / "image", tmp_path / "work", new_id(), free_port()
        work.mkdir()
        words = ["criu", "lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", str(port)]
        reader, writer = os.pipe()
        failed: list[CommandError] = []
        async with counting() as bundle, anyio.create_task_group() as group:

            async def checkpoint() -> None:
                server = f"127.0.0.1:{port}"
                try:
                    await runc.checkpoint(
                        container_id, image_path=image, lazy_pages=True, page_server=server, status_fd=writer
                    )
                except CommandError as error:
                    failed.append(error)
                    group.cancel_scope.cancel()

            group.start_soon(checkpoint)
            with within(20):
                await anyio.wait_readable(reader)
            assert os.read(reader, 10) == b"\0"
            reached = await number(runc, container_id)
            command = [*words, "--images-dir", str(image), "--work-dir", str(work)]
            async with await anyio.open_process(command, stdout=subprocess.DEVNULL, stderr=None) as daemon:
                await until(lambda: (work / "lazy-pages.socket").exists())
                try:
                    await runc.restore(restored, bundle, image_path=image, work_path=work, lazy_pages=True, detach=True)
                    assert await number(runc, restored, above=reached) > reached
                    assert await daemon.wait() == 0
                finally:
                    with anyio.CancelScope(shield=True):
                        await runc.delete(restored, force=True)
        os.close(reader)
        os.close(writer)
        if failed:
            assert "page-pipe: splice" in failed[0].message
            pytest.skip("this CRIU's lazy page server fails when it is asked (page-pipe: splice): it needs another one")

    @pytest.mark.parametrize("option", ["lsm_profile", "lsm_mount_context"])
    async def test_lsm(
        self, runc: Runc, container_id: str, counting: Any, tmp_path: Path, mode: dict[str, Any], option: str
    ) -> None:
        if Path("/sys/kernel/security/lsm").exists() and "apparmor" in Path("/sys/kernel/security/lsm").read_text():
            pytest.skip("this kernel has AppArmor; the test is for one without")
        value = {"lsm_profile": "apparmor:none", "lsm_mount_context": "system_u:object_r:none"}[option]
        flags = {**mode, option: value}
        async with counting() as bundle:
            await runc.checkpoint(container_id, image_path=tmp_path / "image", **mode)
            if option == "lsm_profile":
                with pytest.raises(CommandError, match="apparmor not supported by kernel"):
                    await runc.restore(container_id, bundle, image_path=tmp_path / "image", detach=True, **flags)
            else:  # nothing has a context that could be replaced
                await runc.restore(container_id, bundle, image_path=tmp_path / "image", detach=True, **flags)
                await counts_on(runc, container_id)


class TestRestore:
    async def test_in_the_foreground_gives_the_containers_status_and_output(
        self, runc: Runc, container_id: str, counting: Any, tmp_path: Path, mode: dict[str, Any]
    ) -> None:
        # CRIU connects the pipe of the image to the one that restore is given.
        program = "echo 1 > /tmp/n; until [ -e /tmp/go ]; do sleep 0.02; done; echo out; exit 7"
        async with PipeIO(stdin=False, stderr=False) as first, counting(program, io=first) as bundle:
            await number(runc, container_id)
            await runc.checkpoint(container_id, image_path=tmp_path / "image", **mode)
            async with PipeIO(stdin=False, stderr=False) as io, anyio.create_task_group() as group:
                statuses: list[int] = []

                async def restore() -> None:
                    statuses.append(
                        await runc.restore(container_id, bundle, image_path=tmp_path / "image", io=io, **mode)
                    )

                group.start_soon(restore)
                with within(10):
                    while True:
                        with suppress(CommandError):
                            if (await runc.state(container_id)).status == "running":
                                break
                        await anyio.sleep(0.02)
                    await runc.exec(container_id, ["sh", "-c", "> /tmp/go"])
                    assert await io.stdout.receive() == b"out\n"
            assert statuses == [7]

    @pytest.mark.parametrize("kind", ["none", "null", "file"])
    async def test_detached_with_every_io_and_a_pid_file(
        self, runc: Runc, container_id: str, counting: Any, tmp_path: Path, mode: dict[str, Any], kind: str
    ) -> None:
        io = {"none": None, "null": NullIO(), "file": FileIO(stdin="/dev/null", stdout="/dev/null")}[kind]
        async with counting() as bundle:
            await runc.checkpoint(container_id, image_path=tmp_path / "image", **mode)
            pid_file = tmp_path / "pid"
            await runc.restore(
                container_id, bundle, image_path=tmp_path / "image", io=io, detach=True, pid_file=pid_file, **mode
            )
            assert int(pid_file.read_text()) == (await runc.state(container_id)).pid
            await counts_on(runc, container_id)

    async def test_a_terminal(
        self, runc: Runc, container_id: str, make_bundle: Any, tmp_path: Path, mode: dict[str, Any]
    ) -> None:
        def with_terminal(spec: dict[str, Any]) -> None:
            spec["linux"]["namespaces"] = [k for k in spec["linux"]["namespaces"] if k["type"] != "network"]

        bundle = make_bundle("sh", "-c", COUNT, terminal=True, spec=with_terminal)
        try:
            async with ConsoleSocket() as sock:
                await runc.run(container_id, bundle, detach=True, console_socket=sock)
                async with await sock.receive():
                    await number(runc, container_id)
                    await runc.checkpoint(container_id, image_path=tmp_path / "image", **mode)
            async with ConsoleSocket() as sock:
                await runc.restore(
                    container_id,
                    bundle,
                    image_path=tmp_path / "image",
                    detach=True,
                    console_socket=sock,
                    **mode,
                )
                async with await sock.receive() as console:
                    assert console.size() is not None
                    await counts_on(runc, container_id)
        finally:
            await runc.delete(container_id, force=True)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_example_moves_a_live_container(runtime_path: Path) -> None:
    done = await anyio.run_process(
        [sys.executable, MOVE],
        env={**os.environ, "PYTHONPATH": str(MOVE.parents[1]), "RUNC_ASYNC_RUNTIME": str(runtime_path)},
    )
    first, second = done.stdout.decode().splitlines()
    assert first.startswith("moved in one go: restored at ")
    assert second.startswith(("moved with a pre-dump: restored at ", "not moved with a pre-dump: "))
