"""IO strategies: what a container's streams are, and that nothing hangs on them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import textwrap
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import IO, FileIO, InheritIO, NullIO, PipeIO, Runc, Stdio

from ._slowness import within
from ._streams import read_all

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

MIB = 1 << 20


@pytest.mark.parametrize("make_io", [lambda: None, NullIO, InheritIO, PipeIO], ids=["none", "null", "inherit", "pipe"])
async def test_create_returns_when_the_runtime_exits_though_init_holds_the_streams(
    make_io: Callable[[], IO | None], runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    io = make_io()
    with within(10):
        await runc.create(container_id, make_bundle("sleep", "1000"), io=io)
        assert (await runc.state(container_id)).status == "created"
        await runc.delete(container_id, force=True)
    if io is not None:
        await io.aclose()


@pytest.mark.parametrize("io", [None, NullIO()], ids=["none", "null"])
async def test_without_io_a_container_has_dev_null(
    io: IO | None, runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with runc.container(container_id, make_bundle("sleep", "1000"), io=io) as container:
        await container.start()
        found = [os.readlink(f"/proc/{container.pid}/fd/{number}") for number in range(3)]
    assert found == ["/dev/null"] * 3


async def test_what_goes_into_a_pipe_comes_out(runc: Runc, make_bundle: Callable[..., Path], container_id: str) -> None:
    async with PipeIO() as io, anyio.create_task_group() as group:
        await group.start(partial(runc.run, container_id, make_bundle("sh", "-c", "cat; echo err >&2"), io=io))
        await io.stdin.send(bytes(range(256)))
        await io.stdin.aclose()
        assert await read_all(io.stdout) == bytes(range(256))
        assert await read_all(io.stderr) == b"err\n"


async def test_the_end_comes_when_the_last_process_closes_its_end(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    """The runtime's process ends before; ours must not hold an end."""
    async with PipeIO(stdin=False, stderr=False) as io:
        await runc.run(container_id, make_bundle("sh", "-c", "echo a; sleep 0.2; echo b"), io=io, detach=True)
        assert await read_all(io.stdout) == b"a\nb\n"
    await runc.delete(container_id, force=True)


async def test_64_mib_on_both_outputs_at_once(runc: Runc, make_bundle: Callable[..., Path], container_id: str) -> None:
    script = "head -c 67108864 /dev/zero & head -c 67108864 /dev/zero | tr '\\000' '\\377' >&2; wait"

    async def digest(stream: anyio.abc.ByteReceiveStream, found: list[str]) -> None:
        total = hashlib.sha256()
        async for chunk in stream:
            total.update(chunk)
        found.append(total.hexdigest())

    outputs: list[str] = []
    errors: list[str] = []
    bundle = make_bundle("sh", "-c", script)
    async with PipeIO(stdin=False) as io, anyio.create_task_group() as group:
        group.start_soon(digest, io.stdout, outputs)
        group.start_soon(digest, io.stderr, errors)
        assert await runc.run(container_id, bundle, io=io) == 0
    assert outputs == [hashlib.sha256(bytes(64 * MIB)).hexdigest()]
    assert errors == [hashlib.sha256(b"\xff" * (64 * MIB)).hexdigest()]


PROGRAM = """
    import sys, os, hashlib
    sys.path.insert(0, os.getcwd())
    import anyio
    from runc_async import PipeIO, Runc
    from functools import partial

    def peak():
        return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) << 10

    async def main(root, bundle, id):
        block = bytes(range(256)) * 4096
        count = 256
        digest = hashlib.sha256()
        before = peak()
        async with PipeIO(stderr=False) as io, anyio.create_task_group() as group:
            await group.start(partial(Runc(root=root).run, id, bundle, io=io))
            async def feed():
                for _ in range(count):
                    await io.stdin.send(block)
                await io.stdin.aclose()
            group.start_soon(feed)
            async for chunk in io.stdout:
                digest.update(chunk)
        expected = hashlib.sha256()
        for _ in range(count):
            expected.update(block)
        assert digest.digest() == expected.digest()
        print(peak() - before)

    backend, uvloop, *args = sys.argv[1:]
    anyio.run(main, *args, backend=backend, backend_options={"use_uvloop": True} if uvloop else {})
"""


async def test_256_mib_through_cat_and_memory_stays_flat(
    anyio_backend: tuple[str, dict[str, bool]],
    state_root: Path,
    make_bundle: Callable[..., Path],
    container_id: str,
) -> None:
    backend, options = anyio_backend
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), backend, "1" if options else ""]
    ended = await anyio.run_process([*command, str(state_root), str(make_bundle("cat")), container_id], check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    assert int(ended.stdout) < 64 * MIB


async def test_a_slow_reader_slows_the_container(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, tmp_path: Path
) -> None:
    def share(spec: dict[str, list[object]]) -> None:
        spec["mounts"].append({"destination": "/root", "type": "none", "source": str(shared), "options": ["bind"]})

    shared = tmp_path / "shared"
    shared.mkdir()
    bundle = make_bundle("sh", "-c", "head -c 1048576 /dev/zero; touch /root/written", spec=share)
    async with PipeIO(stdin=False, stderr=False) as io, anyio.create_task_group() as group:
        await group.start(partial(runc.run, container_id, bundle, io=io))
        await io.stdout.receive(1)
        await anyio.sleep(0.2)
        assert not (shared / "written").exists()
        assert len(await read_all(io.stdout)) == MIB - 1
    assert (shared / "written").exists()


async def test_a_reader_that_goes_away_is_a_broken_pipe_for_the_container(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    status = -1

    async def run() -> None:
        nonlocal status
        status = await runc.run(container_id, make_bundle("sh", "-c", "yes; exit $?"), io=io)

    async with PipeIO(stdin=False, stderr=False) as io, anyio.create_task_group() as group:
        group.start_soon(run)
        await io.stdout.receive()
        await io.stdout.aclose()
    assert status in (1, 141)  # busybox's word for it, or SIGPIPE


async def test_pipes_that_are_off_are_dev_null_and_have_no_stream(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with PipeIO(stdin=False, stderr=False) as io:
        for name in ("stdin", "stderr"):
            with pytest.raises(AttributeError, match=name):
                getattr(io, name)
        async with runc.container(container_id, make_bundle("readlink", "/proc/self/fd/2"), io=io) as container:
            await container.start()
            assert await read_all(io.stdout) == b"/dev/null\n"
            with pytest.raises(RuntimeError, match="one container"):
                await runc.run("x", make_bundle("true"), io=io)


async def test_pipes_can_belong_to_another_user() -> None:
    async with PipeIO(stdin=False, stderr=False, uid=1234, gid=2345) as io:
        end = (await io.open()).stdout
        assert end is not None
        status = os.fstat(end)
        assert (status.st_uid, status.st_gid) == (1234, 2345)
    with pytest.raises(ValueError, match="uid"):
        PipeIO(uid=-1)


@pytest.mark.parametrize("owned", [True, False])
async def test_a_program_in_a_user_namespace_can_open_its_streams_anew(
    runc: Runc, make_bundle: Callable[..., Path], rootfs: Path, container_id: str, owned: bool
) -> None:
    def map_users(spec: dict[str, Any]) -> None:
        spec["linux"]["namespaces"].append({"type": "user"})
        for kind in ("uidMappings", "gidMappings"):
            spec["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]

    for folder in rootfs.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    bundle = make_bundle("sh", "-c", "cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr", spec=map_users)
    owner = {"uid": 100000, "gid": 100000} if owned else {}
    async with PipeIO(**owner) as io, runc.container(container_id, bundle, io=io) as container:
        await container.start()
        if owned:  # else the program may end before it reads
            await io.stdin.send(b"in\n")
        await io.stdin.aclose()
        output, errors = await read_all(io.stdout), await read_all(io.stderr)
    if owned:
        assert (output, errors) == (b"in\nout\n", b"err\n")
    else:
        assert b"out" not in output  # which is why there is `uid`


async def test_a_failed_start_is_the_end_of_the_streams(runc: Runc, tmp_path: Path) -> None:
    async with PipeIO() as io:
        with pytest.raises(Exception, match="no-bundle"):
            await runc.run("x", tmp_path / "no-bundle", io=io)
        assert await read_all(io.stdout) == b""


async def test_files_are_read_and_appended_to(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str], tmp_path: Path
) -> None:
    source, log = tmp_path / "in", tmp_path / "log"
    source.write_text("input\n")
    log.write_text("before\n")
    bundle = make_bundle("sh", "-c", "cat; echo err >&2")
    assert await runc.run(new_id(), bundle, io=FileIO(stdin=source, stdout=log, stderr=str(log))) == 0
    # runc copies the two streams side by side
    assert sorted(log.read_text().splitlines()) == ["before", "err", "input"]
    assert await runc.run(new_id(), bundle, io=FileIO(stdin=source, stdout=log, append=False)) == 0
    assert log.read_text() == "input\n"
    with open(tmp_path / "other", "wb") as file:
        io = FileIO(stdout=file, stderr=file.fileno())
        assert await runc.run(new_id(), bundle, io=io) == 0
    assert (tmp_path / "other").read_text() == "err\n"


async def test_files_that_cannot_be_opened_are_named_before_the_start(
    fake_runtime: Callable[[str], Path], tmp_path: Path
) -> None:
    runc = Runc(fake_runtime(f"touch {tmp_path}/started"))
    with pytest.raises(FileNotFoundError, match="missing"):
        await runc.run("x", tmp_path, io=FileIO(stdin=tmp_path / "missing"))
    with pytest.raises(OSError, match="9999"):
        await runc.run("x", tmp_path, io=FileIO(stdout=9999))
    with pytest.raises(TypeError, match="stdout"):
        FileIO(stdout=1.5)  # type: ignore[arg-type]
    assert not (tmp_path / "started").exists()


async def test_fifos_wait_for_their_other_end_without_blocking_the_loop(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, tmp_path: Path
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    os.mkfifo(source)
    os.mkfifo(target)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        with anyio.move_on_after(0.2) as scope:
            await runc.run(container_id, make_bundle("cat"), io=FileIO(stdin=source))
        assert scope.cancelled_caught
        assert turns > 5
        found: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: source.write_bytes(b"through"), daemon=True),
            threading.Thread(target=lambda: found.append(target.read_bytes()), daemon=True),
        ]
        for thread in threads:
            thread.start()
        assert await runc.run(container_id, make_bundle("cat"), io=FileIO(stdin=source, stdout=target)) == 0
        for thread in threads:
            thread.join()
        assert found == [b"through"]
        group.cancel_scope.cancel()


async def test_inherited_streams_are_this_processs_own(
    state_root: Path, make_bundle: Callable[..., Path], container_id: str
) -> None:
    program = (
        "import sys, anyio; from runc_async import InheritIO, Runc;"
        "root, bundle, id = sys.argv[1:];"
        "sys.exit(anyio.run(lambda: Runc(root=root).run(id, bundle, io=InheritIO())))"
    )
    bundle = make_bundle("sh", "-c", "cat; echo err >&2; exit 3")
    ended = subprocess.run(
        [sys.executable, "-c", program, str(state_root), str(bundle), container_id],
        input=b"in",
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, b"in", b"err\n")


async def test_a_users_own_strategy(runc: Runc, make_bundle: Callable[..., Path], container_id: str) -> None:
    class OneSocket(IO):
        def __init__(self) -> None:
            import socket

            self.ours, self.theirs = socket.socketpair()

        async def open(self) -> Stdio:
            return Stdio(self.theirs.fileno(), self.theirs.fileno(), None)

        def started(self) -> None:
            self.theirs.close()

    io = OneSocket()
    io.ours.sendall(b"through a socket")
    io.ours.shutdown(1)
    assert await runc.run(container_id, make_bundle("cat"), io=io) == 0
    assert io.ours.recv(100) == b"through a socket"
    io.ours.close()
