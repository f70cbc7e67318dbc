"""Executors that start the runtime through another program."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from runc_async import CommandError, Executable, Executor, Runc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

CLOSER = """#!/bin/bash
for name in /proc/$$/fd/*; do
    number=${name##*/}
    [ $number -gt 2 ] && [ $number -lt 255 ] && eval "exec $number>&-"
done
exec "$@"
"""


class Launched(Executor):
    """The runtime behind a launcher."""

    def __init__(self, launcher: str | Path, runtime: Path) -> None:
        self._launcher = str(launcher)
        self._runtime = str(runtime)

    def executable(self) -> Executable:
        return Executable((self._launcher.rpartition("/")[2], self._runtime), path=self._launcher)


async def test_a_launcher_that_keeps_descriptors_runs_containers(
    runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], container_id: str
) -> None:
    nice = shutil.which("nice")
    assert nice is not None
    runc = Runc(Launched(nice, runtime_path), root=state_root)
    assert await runc.run(container_id, make_bundle("sh", "-c", "exit 5")) == 5
    assert await runc.list() == []


CALLS: dict[str, Callable[[Runc, str, Path], Awaitable[object]]] = {
    "list": lambda runc, id, bundle: runc.list(),
    "state": lambda runc, id, bundle: runc.state(id),
    "create": lambda runc, id, bundle: runc.create(id, bundle),
    "run": lambda runc, id, bundle: runc.run(id, bundle),
    "exec": lambda runc, id, bundle: runc.exec(id, ["true"]),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_launcher_that_closes_descriptors_is_refused_with_the_reason(
    runtime_path: Path, tmp_path: Path, state_root: Path, make_bundle: Callable[..., Path], container_id: str, name: str
) -> None:
    closer = tmp_path / "sudo"
    closer.write_text(CLOSER)
    closer.chmod(0o755)
    runc = Runc(Launched(closer, runtime_path), root=state_root)
    with pytest.raises(CommandError, match="did not get the descriptors of this call") as caught:
        await CALLS[name](runc, container_id, make_bundle("true"))
    assert caught.value.argv[0] == "sudo"
