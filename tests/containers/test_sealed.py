"""A sealed copy is what the runtime takes for its own clone: it makes no further one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import FdExecutor, Runc, SealedExecutor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


def same_file(link: str, fd: int) -> bool:
    one, two = os.stat(link), os.fstat(fd)
    return (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)


async def test_the_runtimes_init_executes_the_sealed_file_itself(
    sealed: SealedExecutor, state_root: Path, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with Runc(sealed, root=state_root).container(container_id, make_bundle("true")) as container:
        assert same_file(f"/proc/{container.pid}/exe", sealed.fileno())


async def test_of_the_same_memory_without_seals_runc_makes_a_clone(
    runtime_path: Path, runtime_name: str, state_root: Path, make_bundle: Callable[..., Path], container_id: str
) -> None:
    if runtime_name != "runc":
        pytest.skip("crun's init shows what it executes only before it has cloned itself; runc shows the difference")
    fd = os.memfd_create("unsealed", os.MFD_CLOEXEC)
    os.write(fd, await anyio.Path(runtime_path).read_bytes())
    os.fchmod(fd, 0o755)
    read_only = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    os.close(fd)
    with FdExecutor(read_only) as executor:
        async with Runc(executor, root=state_root).container(container_id, make_bundle("true")) as container:
            assert not same_file(f"/proc/{container.pid}/exe", read_only)
    os.close(read_only)
