"""This process as PID 1 of a pid namespace, or as one that adopts orphans by its own doing: without a `Subreaper`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = """
    import os, signal, subprocess, sys
    import anyio
    from runc_async import ConsoleSocket, PipeIO, Runc, Subreaper
    from runc_async._linux import libc, procfs

    def children():
        found = {pid: procfs.stat(pid) for pid in procfs.children(os.getpid())}
        return {pid: stat for pid, stat in found.items() if stat is not None}

    def zombies():
        return {pid: stat for pid, stat in children().items() if stat.state == "Z"}

    async def no_zombies(but=()):
        with anyio.fail_after(10):
            while zombies().keys() - set(but):
                await anyio.sleep(0.01)

    async def statuses(runc, bundles):
        for status in (0, 3, 255):
            async with runc.container(f"{id}-{status}", bundles[status]) as container:
                await container.start()
                ended = await container.wait()
                assert ended.status == status, ended
        await no_zombies(others)

    async def lists_and_deletes(runc, bundles):
        await runc.create(f"{id}-a", bundles["sleep"])
        await runc.run(f"{id}-b", bundles["sleep"], detach=True)
        await runc.exec(f"{id}-b", ["true"], detach=True)
        await runc.start(f"{id}-a")
        for name in ("a", "b"):
            await runc.kill(f"{id}-{name}", "KILL")
            with anyio.fail_after(10):
                while (await runc.state(f"{id}-{name}")).status != "stopped":
                    await anyio.sleep(0.01)
            await runc.delete(f"{id}-{name}")
        await no_zombies(others)
        assert not children().keys() - others

    async def leaves_a_container_in_which_detached_processes_ran(runc, bundles):
        async with runc.container(f"{id}-c", bundles["sleep"]) as container:
            await container.start()
            for command in (["true"], ["sleep", "60"], ["sh", "-c", "sleep 60 & sleep 60 & exit 1"]):
                await runc.exec(container.id, command, detach=True)
        await no_zombies(others)

    async def terminals(runc, bundles):
        async with runc.container(f"{id}-d", bundles["sleep"]) as container:
            await container.start()

            async def one(status):
                async with ConsoleSocket() as socket:
                    command = ["sh", "-c", f"exit {status}"]
                    async with container.exec(command, tty=True, console_socket=socket) as process:
                        assert (await process.wait()).status == status

            async with anyio.create_task_group() as group:
                for status in range(7):
                    group.start_soon(one, status)
        await no_zombies(others)

    async def orphans_of_a_container_that_shares_the_pids(runc, bundles):
        async with runc.container(f"{id}-e", bundles["shared"]) as container:
            await container.start()
            assert (await container.wait()).status == 7
        await no_zombies(others)

    async def cancelled_calls(runc, bundles):
        for milliseconds in range(1, 30, 4):
            with anyio.move_on_after(milliseconds / 1000):
                await runc.run(f"{id}-f{milliseconds}", bundles["sleep"])
        await no_zombies(others)
        assert not children().keys() - others

    async def main():
        global others
        runc = Runc(runtime, root=root)
        mine = subprocess.Popen(["sh", "-c", "exit 11"])
        leader = subprocess.Popen(["sh", "-c", "exit 12"], start_new_session=True)
        forked = os.fork()
        if forked == 0:
            os._exit(13)
        others = {mine.pid, leader.pid, forked}
        for part in (statuses, lists_and_deletes, leaves_a_container_in_which_detached_processes_ran, terminals,
                     orphans_of_a_container_that_shares_the_pids, cancelled_calls):
            with anyio.fail_after(60):
                await part(runc, bundles)
            print(part.__name__, flush=True)
        assert not await runc.list()
        assert (mine.wait(), leader.wait()) == (11, 12)
        assert os.waitpid(forked, 0) == (forked, 13 << 8)
        assert not children(), children()
        print("all right")

    mode, backend, uvloop, runtime, root, id, *paths = sys.argv[1:]
    bundles = dict(zip((0, 3, 255, "sleep", "shared"), paths))
    if mode == "subreaper":
        assert os.getpid() != 1
        libc.set_child_subreaper(True)
    else:
        assert os.getpid() == 1
    anyio.run(main, backend=backend, backend_options={"use_uvloop": True} if uvloop else {})
"""


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["pid1", "subreaper"])
def test_no_zombie_is_left_and_nobody_elses_child_is_taken(
    mode: str,
    runtime_path: Path,
    state_root: Path,
    make_bundle: Callable[..., Path],
    container_id: str,
    anyio_backend: tuple[str, dict[str, Any]],
) -> None:
    def share_pids(spec: dict[str, Any]) -> None:
        spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "pid"]

    def exits(status: int) -> Path:
        return make_bundle("sh", "-c", f"exit {status}")

    bundles = [exits(0), exits(3), exits(255), make_bundle("sleep", "60")]
    script = "(sleep 0.1 &); (sleep 0.2 &); (sh -c 'sleep 0.1; (sleep 0.1 &)' &); exit 7"
    bundles.append(make_bundle("sh", "-c", script, spec=share_pids))
    backend, options = anyio_backend
    words = [mode, backend, "1" if options else "", runtime_path, state_root, container_id, *bundles]
    program: list[Any] = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(PROGRAM), *words]
    if mode == "pid1":
        unshare = shutil.which("unshare")
        if unshare is None:
            pytest.fail("no unshare found: `apt-get install util-linux`")
        program = [unshare, "--pid", "--fork", "--kill-child", "--mount-proc", *program]
    ended = subprocess.run(program, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert ended.stdout.endswith("all right\n"), ended.stdout + ended.stderr
    assert ended.returncode == 0
