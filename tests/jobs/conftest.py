"""What the tests of jobs share: a small program in a container of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runc_async import Job, default_spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runc_async import Runc

LIMITS = ("memory", "pids", "cpus", "user")


@pytest.fixture
def make_job(rootfs: Path) -> Callable[..., Job]:
    """Makes a job of a shell script; keywords are those of `Job`, and the limits of `default_spec`."""
    (rootfs / "work").mkdir(exist_ok=True)

    def make(script: str, **keywords: Any) -> Job:
        limits = {name: keywords.pop(name) for name in LIMITS if name in keywords}
        return Job(default_spec(["sh", "-c", script], **limits), rootfs, **{"name": "test-job", **keywords})

    return make


@pytest.fixture
async def ids(runc: Runc) -> Callable[[], Any]:
    """Gives the ids of the containers that there are."""

    async def list_ids() -> list[str]:
        return [state.id for state in await runc.list()]

    return list_ids
