"""Where is measured: a runtime, a bundle, a directory of states, and one live container; gone afterwards."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from runc_async import Bundle, Runc, busybox_rootfs, default_spec

if TYPE_CHECKING:
    from collections.abc import Generator

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


def runtime_path() -> str:
    """The runtime that is measured: ``$RUNC_ASYNC_RUNTIME``, or runc on PATH."""
    name = os.environ.get("RUNC_ASYNC_RUNTIME", "runc")
    found = shutil.which(name, path=f"{os.environ['PATH']}:{SBIN}")
    if found is None:
        sys.exit(f"bench: {name} is missing: apt-get install runc")
    return os.path.realpath(found)


@contextlib.contextmanager
def place(*, below_the_binary: bool = False) -> Generator[dict[str, str]]:
    """A place, as contenders are told of it.

    :param below_the_binary: whether states are kept below the directory of the runtime's binary, of which a copy is
        made. There overlayfs takes the two for one, and the runtime cannot protect itself by it.
    """
    runtime = runtime_path()
    with tempfile.TemporaryDirectory(prefix="runc-async-bench-") as name:
        folder = Path(name)
        if below_the_binary:
            runtime = shutil.copy(runtime, str(folder / "runc"))
        rootfs = anyio.run(busybox_rootfs, folder / "rootfs")
        bundle = Bundle.create(folder / "bundle", default_spec(["sleep", "3600"]), rootfs=rootfs)
        job = Bundle.create(folder / "job", default_spec(["sh", "-c", "echo done"]), rootfs=rootfs)
        runc = Runc(runtime, root=folder / "states")
        id = f"bench-{os.getpid()}-{folder.name.rpartition('-')[2]}"
        try:
            anyio.run(functools.partial(runc.run, id, bundle, detach=True))
            yield {
                "runtime": runtime,
                "root": str(folder / "states"),
                "rootfs": str(rootfs),
                "bundle": str(bundle.path),
                "job": str(job.path),
                "id": id,
            }
        finally:
            anyio.run(_clear, runc)


async def _clear(runc: Runc) -> None:
    """Delete every container of this place, also one that a contender left when it failed."""
    for state in await runc.list():
        await runc.delete(state.id, force=True)
