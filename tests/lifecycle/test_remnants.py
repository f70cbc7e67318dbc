"""Finding and removing what a runtime left."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async._lifecycle.remnants import sweep_cgroups, unmount_cgyard

from .._slowness import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio


class TestSweepCgroups:
    @pytest.fixture
    def cgroup(self, container_id: str) -> Iterator[Path]:
        """A cgroup that a runtime forgot."""
        for base in ("/sys/fs/cgroup/freezer", "/sys/fs/cgroup"):
            folder = Path(base, container_id)
            if not Path(base).is_dir():
                continue
            folder.mkdir()
            yield folder
            if folder.exists():
                folder.rmdir()
            return

    def complaint(self, *folders: Path) -> bytes:
        """As runc logs it."""
        text = "".join(f" {folder}" for folder in folders)
        return f'{{"level":"warning","msg":"Failed to remove cgroup (will retry): rmdir{text}: device busy"}}'.encode()

    async def test_what_the_runtime_says_it_could_not_remove_is_removed(self, cgroup: Path) -> None:
        await sweep_cgroups(self.complaint(cgroup), 1)
        assert not cgroup.exists()

    async def test_nothing_else_is(self, cgroup: Path) -> None:
        await sweep_cgroups(b"", 1)
        await sweep_cgroups(b'{"level":"info","msg":"created"}', 1)
        assert cgroup.exists()

    async def test_a_busy_one_is_tried_until_it_is_free_or_the_time_is_over(self, cgroup: Path) -> None:
        process = subprocess.Popen(["sleep", "60"])
        (cgroup / "cgroup.procs").write_text(str(process.pid))
        begun = time.monotonic()
        await sweep_cgroups(self.complaint(cgroup), 0.1)
        assert 0.05 < time.monotonic() - begun < 2 * SLOWNESS
        assert cgroup.exists()

        async def end() -> None:
            await anyio.sleep(0.05)
            process.kill()
            process.wait()

        async with anyio.create_task_group() as group:
            group.start_soon(end)
            await sweep_cgroups(self.complaint(cgroup), 5)
        assert not cgroup.exists()


@pytest.mark.parametrize("older", [False, True])
def test_unmount_cgyard(tmp_path: Path, older: bool) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to mount: run the suite as root")
    begun = time.time_ns()
    time.sleep(0.02)  # the kernel's clock for files is coarse
    yard = tmp_path / ".criu.cgyard.AbC123"
    for folder in (yard, yard / "cpu"):
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    (tmp_path / ".criu.cgyard.other").mkdir()
    unmount_cgyard(str(tmp_path), time.time_ns() + 10**9 if older else begun)
    assert yard.exists() == older
    if older:
        subprocess.run(["umount", "--recursive", yard], check=True)
