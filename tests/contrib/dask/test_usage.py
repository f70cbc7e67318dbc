"""What a container has used, read from its cgroups after its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runc_async.contrib.dask import _usage

from ..._cgroups import has_controller

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runc_async import Runc

pytestmark = pytest.mark.anyio


async def test_it_is_there_after_the_end(runc: Runc, make_bundle: Callable[..., Path], container_id: str) -> None:
    bundle = make_bundle("sh", "-c", "i=0; while [ $i -lt 50000 ]; do i=$((i + 1)); done")
    async with runc.container(container_id, bundle) as container:
        usage = _usage.Usage(container.pid)
        await container.start()
        await container.wait()
        cpu, memory = usage.cpu(), usage.memory()
    assert cpu is not None
    assert 0.01 < cpu < 60
    if has_controller("memory"):
        assert memory is not None
        assert 100_000 < memory < 1 << 30


def test_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = _usage.Usage.__new__(_usage.Usage)
    usage._folders = {"": str(tmp_path)}
    (tmp_path / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (tmp_path / "memory.peak").write_text("4096\n")
    assert (usage.cpu(), usage.memory()) == (1.5, 4096)


def test_where_nothing_is_counted() -> None:
    usage = _usage.Usage.__new__(_usage.Usage)
    usage._folders = {}
    assert (usage.cpu(), usage.memory()) == (None, None)
